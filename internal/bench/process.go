package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long a server may take from its start until it can be connected to.
const patience = 20 * time.Second

// packages are the Debian packages of the programs that are run beside the gateway.
var packages = map[string]string{
	"wrk": "wrk", "nginx": "nginx", "haproxy": "haproxy", "caddy": "caddy", "redis-server": "redis-server",
}

// find returns the path of a program, or an error that names the package to install.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%s is not installed: apt install %s", program, packages[program])
	}
	return path, nil
}

// process is a server in a process group of its own.
type process struct {
	name    string
	address string
	command *exec.Cmd
	output  output
	began   time.Time
	ended   chan struct{}
}

// output keeps the first of what a process writes, for the error message. Safe for concurrent use.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.text.Len() < 4<<10 {
		o.text.Write(p)
	}
	return len(p), nil
}

// String is what was kept.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs a server and waits until its address takes connections. It ends with ctx.
func (b *bench) start(ctx context.Context, name, address string, environ []string, command ...string) (*process, error) {
	p := &process{name: name, address: address, ended: make(chan struct{})}
	p.command = exec.CommandContext(ctx, command[0], command[1:]...)
	p.command.Env = append(os.Environ(), environ...)
	p.command.Stdout, p.command.Stderr = &p.output, &p.output
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.command.Cancel = func() error { return syscall.Kill(-p.command.Process.Pid, syscall.SIGTERM) }
	p.command.WaitDelay = 5 * time.Second
	p.began = time.Now()
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	b.running = append(b.running, p)
	go func() {
		_ = p.command.Wait() // that it ended is all that matters; why stands in its output
		close(p.ended)
	}()
	return p, p.await(ctx)
}

func (p *process) await(ctx context.Context) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		if conn, err := net.DialTimeout("tcp", p.address, time.Second); err == nil {
			return conn.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended:\n%s", p.name, &p.output)
		default:
		}
	}
	return fmt.Errorf("%s does not listen on %s:\n%s", p.name, p.address, &p.output)
}

// stop ends the server and waits for it.
func (p *process) stop() {
	_ = p.command.Cancel() // an error means that it has ended
	<-p.ended
}

// pids are the process and its children: nginx and haproxy work in children.
func (p *process) pids() ([]int, error) {
	all := []int{p.command.Process.Pid}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if fields, err := stat(pid); err == nil && fields[2] == strconv.Itoa(all[0]) && pid != all[0] { // the process group
			all = append(all, pid)
		}
	}
	return all, nil
}

// usage is what a server has used so far.
type usage struct {
	cpu      time.Duration // user and system
	resident int64         // bytes, now
}

// use reads what a server and its children have used.
func (p *process) use() (usage, error) {
	pids, err := p.pids()
	if err != nil {
		return usage{}, err
	}
	var sum usage
	for _, pid := range pids {
		fields, err := stat(pid)
		if err != nil {
			return usage{}, err
		}
		const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
		user, errUser := strconv.ParseInt(fields[11], 10, 64)
		system, errSystem := strconv.ParseInt(fields[12], 10, 64)
		pages, errPages := strconv.ParseInt(fields[21], 10, 64)
		if err := errors.Join(errUser, errSystem, errPages); err != nil {
			return usage{}, err
		}
		sum.cpu += time.Duration(user+system) * tick
		sum.resident += pages * int64(os.Getpagesize())
	}
	return sum, nil
}

// stat returns the fields of /proc/PID/stat (proc(5)) from the state on; the name before it may hold anything.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 22 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// freeAddress is a loopback address on which nothing listens. Somebody may take it before it is used; then the start fails.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
