package storetest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a real redis-server on a free port of loopback, with the persistence that Gatehouse asks for.
type Server struct {
	t    *testing.T
	addr string
	args []string
	cmd  *exec.Cmd
	log  *bytes.Buffer // of the process that runs; read only after it has ended
}

// Redis starts a server that ends with the test. args go behind those of the suite and overrule them. It fails the test if
// redis-server is not installed.
func Redis(t *testing.T, args ...string) *Server {
	t.Helper()
	s := newServer(t)
	s.args = append(s.args, args...)
	s.start()
	return s
}

// newServer prepares a server without starting it.
func newServer(t *testing.T) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatalf("this test needs a real Redis: install the Debian package redis-server (%v)", err)
	}
	port := FreePort(t)
	s := &Server{t: t, addr: net.JoinHostPort("127.0.0.1", port), args: []string{
		"--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "",
		"--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction",
	}}
	t.Cleanup(s.Kill)
	return s
}

// FreePort finds a port of loopback that nobody uses, below those that the system gives to outgoing connections, one of
// which could take it while a killed server is away. Another process could take it before a server does; the server then does
// not come up and the test says so.
func FreePort(t testing.TB) string {
	t.Helper()
	const lowest, highest = 10_000, 32_000
	for range 100 {
		port := strconv.Itoa(lowest + rand.IntN(highest-lowest))
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			_ = l.Close() // nothing was accepted
			return port
		}
	}
	t.Fatal("no free port of loopback")
	return ""
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.addr }

// URL is the store URL of the server.
func (s *Server) URL() string { return "redis://" + s.addr }

// Kill ends the server with SIGKILL and waits until it is gone.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // an error means that it has ended
	_ = s.cmd.Wait()         // "killed" is what was asked for
	s.cmd = nil
}

// Restart kills the server if it runs and starts it again on the same files.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.start()
}

// Pause stops the server without ending its connections: it accepts, and says nothing.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("%s to redis-server: %v", sig, err)
	}
}

// start runs the server and waits until it answers, its files loaded.
func (s *Server) start() {
	s.t.Helper()
	s.log = &bytes.Buffer{}
	cmd := exec.Command("redis-server", s.args...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	s.cmd = cmd
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if reply, err := s.Do("PING"); err == nil && (reply == "+PONG" || strings.HasPrefix(reply, "-NOAUTH")) {
			return
		}
	}
	s.Kill()
	s.t.Fatalf("redis-server does not answer; it says:\n%s", s.log)
}

// replyTime is how long Do waits: a server that is stopped says nothing, and whoever looks for one that does goes on to the next.
const replyTime = 10 * time.Second

// Do sends one command on a connection of its own and returns the reply: the text of a string, else its first line as it came, for
// tests that look behind the engine's back or change the server's configuration.
func (s *Server) Do(args ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(replyTime)); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	line = strings.TrimRight(line, "\r\n")
	length, isBulk := strings.CutPrefix(line, "$")
	n, notNumber := strconv.Atoi(length)
	if err != nil || !isBulk || notNumber != nil || n < 0 {
		return line, err
	}
	bulk := make([]byte, n)
	_, err = io.ReadFull(r, bulk)
	return string(bulk), err
}

// MustDo is Do for commands that must succeed.
func (s *Server) MustDo(args ...string) string {
	s.t.Helper()
	reply, err := s.Do(args...)
	if err == nil && strings.HasPrefix(reply, "-") {
		err = errors.New(reply)
	}
	if err != nil {
		s.t.Fatalf("redis %s: %v", strings.Join(args, " "), err)
	}
	return reply
}
