package gatewaytest

import (
	"cmp"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"gatehouse/admin/api"
	"gatehouse/admin/client"
	"gatehouse/audit"
)

// startPatience is how long a process may take from its start to its first answer.
const startPatience = 20 * time.Second

// Build links the program as it is shipped, without the race detector, and returns its path. It takes a second or two after `make build`,
// which has the same options.
func Build(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gatehouse")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "gatehouse/cmd/gatehouse")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return path
}

// Process is the real program in a process of its own, with the real clock and bcrypt at its real cost: for what only a
// process can show, such as its death.
type Process struct {
	URL   string
	Dir   string
	Admin *client.Client
	// Log is what the process wrote to its standard output and error, over all its lives.
	Log *Output

	door
	t       testing.TB
	command []string
	environ []string
	running *exec.Cmd
}

// ProcessOptions of StartProcess. Program is required; the rest is a gateway on an embedded store with the sample app.
type ProcessOptions struct {
	Program string // made by Build
	Dir     string // data folder; a fresh one if empty
	// Environ is added to the environment, as NAME=value.
	Environ []string
}

// NewProcess prepares a process on a free port. It ends with the test.
func NewProcess(t testing.TB, o ProcessOptions) *Process {
	t.Helper()
	address := freeAddress(t)
	p := &Process{
		t: t, URL: "http://" + localhost(address), Dir: cmp.Or(o.Dir, t.TempDir()), Log: &Output{},
		environ: append([]string{"GATEHOUSE_TRUSTED_PROXIES=127.0.0.0/8"}, o.Environ...),
	}
	p.door = door{url: p.URL, address: address}
	socket := socketPath(t)
	p.command = []string{
		o.Program, "serve", "--data", p.Dir, "--listen", address, "--external-url", p.URL, "--admin-listen", "unix:" + socket,
	}
	admin, err := client.New(client.Options{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	p.Admin = admin
	t.Cleanup(p.Kill)
	return p
}

// StartProcess is NewProcess and Start.
func StartProcess(t testing.TB, o ProcessOptions) *Process {
	t.Helper()
	p := NewProcess(t, o)
	p.Start()
	return p
}

// Launch runs the program and does not wait for it to answer.
func (p *Process) Launch() *exec.Cmd {
	p.t.Helper()
	run := exec.Command(p.command[0], p.command[1:]...)
	inherited := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GATEHOUSE_") }) // of the tests
	run.Env = append(inherited, p.environ...)
	run.Stdout, run.Stderr = p.Log, p.Log
	if err := run.Start(); err != nil {
		p.t.Fatalf("start the program: %v", err)
	}
	p.running = run
	return run
}

// Start runs the program and waits until it answers.
func (p *Process) Start() {
	p.t.Helper()
	p.Launch()
	client := p.connect(p.t)
	for deadline := time.Now().Add(startPatience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := client.Get(p.URL + "/.gatehouse/healthz")
		if err != nil {
			continue
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
	}
	p.t.Fatalf("the program does not answer:\n%s", p.Log)
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	if p.running == nil {
		return
	}
	_ = p.running.Process.Kill() // an error means that it has ended
	_ = p.running.Wait()         // "killed" is what was asked for
	p.running = nil
}

// Refused runs the program where it must not start, and returns what it said. It fails the test if it runs on, or ends
// with another code than 1.
func (p *Process) Refused() string {
	p.t.Helper()
	run := p.Launch()
	stop := time.AfterFunc(startPatience, func() { _ = run.Process.Kill() })
	defer stop.Stop()
	err := run.Wait()
	p.running = nil
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 1 {
		p.t.Errorf("the program ended with %v, want exit code 1", err)
	}
	return p.Log.String()
}

// ID is the number of the process.
func (p *Process) ID() int { return p.running.Process.Pid }

// NewBrowser makes a browser with an empty jar.
func (p *Process) NewBrowser() *Browser { return newBrowser(p.t, p.door) }

// AddUser makes an account with Password and a second factor, and returns the secret of that.
func (p *Process) AddUser(name string) (secret string) {
	p.t.Helper()
	if _, err := p.Admin.AddUser(p.t.Context(), api.NewUser{Name: name, Password: Password}); err != nil {
		p.t.Fatal(err)
	}
	enrolment, err := p.Admin.EnrolTOTP(p.t.Context(), name, "test")
	if err != nil {
		p.t.Fatal(err)
	}
	return enrolment.Secret
}

// Code is the code of a secret that is good for the longest, by the clock of the machine: that of the next step, since a code may come a step
// early or late (auth/totp). It is good for at least a minute.
func (p *Process) Code(secret string) string {
	p.t.Helper()
	code, err := totp.GenerateCode(secret, time.Now().Add(30*time.Second))
	if err != nil {
		p.t.Fatal(err)
	}
	return code
}

// Records is the audit log so far.
func (p *Process) Records() []audit.Record {
	p.t.Helper()
	return readLog(p.t, p.Dir)
}
