package main

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/store/storetest"
)

// The program is told to reload while wrk keeps eight connections busy: by SIGHUP, by writing the file and by putting another one in
// its place. No request fails, a file with a mistake changes nothing, and the service manager hears of each step.
func TestServe_reloadsUnderLoad(t *testing.T) {
	t.Parallel()
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		t.Fatal("this test needs wrk, Debian's package wrk")
	}
	apps := [2]*wiretest.Upstream{wiretest.NewUpstream(t), wiretest.NewUpstream(t)}
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, "upstream: "+apps[0].URL+"\n")
	manager := listenForManager(t)
	p := gatewaytest.StartProcess(t, gatewaytest.ProcessOptions{
		Program: gatewaytest.Build(t), Environ: []string{"GATEHOUSE_CONFIG=" + file, "NOTIFY_SOCKET=" + manager.path},
	})
	manager.wants(t, "READY=1")
	secret := p.AddUser("alice")
	b := p.NewBrowser()
	if answer := b.Login("alice", gatewaytest.Password, p.Code(secret)); answer.StatusCode != http.StatusOK {
		t.Fatalf("login: %d %s", answer.StatusCode, answer.Text)
	}

	load := exec.Command(wrk, "-t1", "-c8", "-d2m", "-H", "Host: "+strings.TrimPrefix(p.URL, "http://"), "-H", "Cookie: "+b.Cookies(),
		strings.Replace(p.URL, "localhost", "127.0.0.1", 1)+"/page")
	var said strings.Builder
	load.Stdout, load.Stderr = &said, &said
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = load.Process.Kill() }) // an error means that it has ended
	storetest.WithinPatience(t, func() error {
		if apps[0].Open() == 0 {
			return errors.New("wrk has sent nothing")
		}
		return nil
	})
	steps := []struct {
		name string
		do   func()
		want string // what the log says then
	}{
		{"another app, by SIGHUP", func() {
			write(file, "upstream: "+apps[1].URL+"\n")
			hangUp(t, p)
		}, "changed=upstream"},
		{"nothing new, by SIGHUP", func() { hangUp(t, p) }, `changed=""`},
		{"a mistake, by writing", func() { write(file, "upstream: "+apps[0].URL+"\nupsteam: x\n") }, file + `:2:1 unknown key`},
		{"another file in its place", func() {
			write(file+".new", "upstream: "+apps[0].URL+"\nlog: {level: debug}\n")
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
		}, `changed="upstream log.level"`},
	}
	for _, step := range steps {
		waitForLog(t, p, step.want, step.do)
		manager.wants(t, "RELOADING=1", "READY=1")
	}
	if err := load.Process.Signal(os.Interrupt); err != nil { // wrk sums up and ends
		t.Fatal(err)
	}
	if err := load.Wait(); err != nil {
		t.Fatalf("wrk: %v\n%s", err, &said)
	}
	requests := regexp.MustCompile(`(\d+) requests in`).FindStringSubmatch(said.String())
	if requests == nil || strings.Contains(said.String(), "Socket errors") || strings.Contains(said.String(), "Non-2xx") {
		t.Errorf("wrk saw requests fail:\n%s", &said)
	}
	t.Logf("%s requests over %d reloads", requests[1], len(steps))
	if n := len(apps[1].Requests()); n == 0 {
		t.Error("the other app got no request")
	}
	if err := syscall.Kill(p.ID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	manager.wants(t, "STOPPING=1")
}

// Whatever stands where the configuration stood, the next good file is loaded: a pipe that nobody writes to does not stop the
// reloader, and a file without an end does not fill the memory.
func TestServe_reloadsAfterAFileThatIsNone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	put := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name, file); err != nil {
			t.Fatal(err)
		}
	}
	put(file+".new", "log: {level: info}\n")
	p := gatewaytest.StartProcess(t, gatewaytest.ProcessOptions{Program: gatewaytest.Build(t), Environ: []string{"GATEHOUSE_CONFIG=" + file}})
	for want, stand := range map[string]func(string) error{
		"cannot be read: is a pipe": func(at string) error { return syscall.Mkfifo(at, 0o600) },
		"is longer than 1 MiB":      func(at string) error { return os.Symlink("/dev/zero", at) },
	} {
		if err := stand(file + ".other"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".other", file); err != nil {
			t.Fatal(err)
		}
		waitForLog(t, p, want, func() { hangUp(t, p) })
		waitForLog(t, p, "changed=log.level", func() { put(file+".new", "log: {level: debug}\n") })
		waitForLog(t, p, "changed=log.level", func() { put(file+".new", "log: {level: info}\n") })
	}
}

// waitForLog does something and waits until the log says what came of it.
func waitForLog(t *testing.T, p *gatewaytest.Process, want string, do func()) {
	t.Helper()
	seen := len(p.Log.String())
	do()
	for limit := time.Now().Add(10 * time.Second); !strings.Contains(p.Log.String()[seen:], want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("the log does not say %q:\n%s", want, p.Log)
		}
	}
}

func hangUp(t *testing.T, p *gatewaytest.Process) {
	t.Helper()
	if err := syscall.Kill(p.ID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// serviceManager is the socket of one, as sd_notify(3) describes it.
type serviceManager struct {
	path string
	conn *net.UnixConn
}

func listenForManager(t *testing.T) serviceManager {
	t.Helper()
	dir, err := os.MkdirTemp("", "gh") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = os.RemoveAll(dir)
	})
	return serviceManager{path, conn}
}

// wants reads these messages, and no others before them.
func (m serviceManager) wants(t *testing.T, messages ...string) {
	t.Helper()
	for _, want := range messages {
		_ = m.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		text := make([]byte, 256)
		n, err := m.conn.Read(text)
		if got := string(text[:n]); err != nil || got != want {
			t.Fatalf("the service manager heard %q, %v, want %q", got, err, want)
		}
	}
}
