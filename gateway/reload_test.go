package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/store/storetest"
)

// echoing is an app that answers with its name, and echoes on a WebSocket.
func echoing(t *testing.T, name string) *wiretest.Upstream {
	return wiretest.NewScripted(t, func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		if len(r.Values("Upgrade")) == 0 {
			_, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(name), name)
			return err == nil
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, in)
		return false
	})
}

func upstreamOf(t *testing.T, app *wiretest.Upstream) func(*configs.Config) {
	return func(c *configs.Config) {
		if err := c.Upstream.UnmarshalText([]byte(app.URL)); err != nil {
			t.Fatal(err)
		}
	}
}

// Reloading again and again under load fails no request and ends neither session nor upgraded connection.
func TestGateway_reloadsWithoutADroppedRequest(t *testing.T) {
	t.Parallel()
	apps := []*wiretest.Upstream{echoing(t, "one"), echoing(t, "two")}
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: upstreamOf(t, apps[0])})
	g.AddUser("alice", "staff")
	b := g.SignIn("alice", g.Enrol("alice"))
	socket := wiretest.Dial(t, g.URL)
	_, err := fmt.Fprintf(socket, "GET /socket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: %s\r\nCookie: %s\r\n\r\n", g.Origin.Host, g.URL, b.Cookies())
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(socket)
	if answer, err := http.ReadResponse(in, nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", answer, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var visitors sync.WaitGroup
	var answered [2]atomic.Int64
	for range 4 {
		visitor := b.Copy()
		visitors.Go(func() {
			for ctx.Err() == nil {
				answer, err := visitor.Try(http.MethodGet, "/page", nil, nil)
				switch {
				case err != nil || answer.StatusCode != http.StatusOK:
					t.Errorf("under load: %v, %v", answer, err)
					return
				case answer.Text == "one":
					answered[0].Add(1)
				default:
					answered[1].Add(1)
				}
			}
		})
	}
	for i := range 20 {
		if err := g.Reconfigure(upstreamOf(t, apps[(i+1)%2])); err != nil {
			t.Error(err)
		}
		before := answered[(i+1)%2].Load()
		for limit := time.Now().Add(20 * time.Second); answered[(i+1)%2].Load() == before; {
			if time.Now().After(limit) {
				t.Fatalf("reload %d does not count", i)
			}
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	visitors.Wait()
	if _, err := io.WriteString(socket, "still there"); err != nil {
		t.Fatal(err)
	}
	echo := make([]byte, len("still there"))
	if _, err := io.ReadFull(in, echo); err != nil || string(echo) != "still there" {
		t.Errorf("the upgraded connection said %q, %v", echo, err)
	}
	t.Logf("%d requests over 20 reloads", answered[0].Load()+answered[1].Load())
}

// A configuration that has mistakes, or changes what cannot change, changes nothing; the log, readiness and a record say so.
func TestGateway_reloadsAllOrNothing(t *testing.T) {
	t.Parallel()
	apps := []*wiretest.Upstream{echoing(t, "one"), echoing(t, "two")}
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: upstreamOf(t, apps[0])})
	g.AddUser("alice", "staff")
	b := g.SignIn("alice", g.Enrol("alice"))
	wrong := &configs.Errors{Problems: []configs.Problem{{
		Place: configs.Place{Layer: configs.FromFile, Name: "gatehouse.yaml", Line: 3, Column: 1}, Message: `unknown key "canary"`,
	}}}
	refusals := []struct {
		name, log string
		details   map[string]string
		reload    func() error
	}{
		{
			"a mistake", "gatehouse.yaml:3:1",
			map[string]string{"what": "load", "mistakes": "1", "first": "gatehouse.yaml:3:1"},
			func() error {
				return g.Reload(t.Context(), func() (configs.Config, error) { return configs.Config{}, fmt.Errorf("load: %w", wrong) })
			},
		},
		{
			"another listener", "listen, data cannot change without a restart",
			map[string]string{"needs_restart": "listen data"},
			func() error {
				return g.Reconfigure(func(c *configs.Config) {
					upstreamOf(t, apps[1])(c)
					c.Listen, c.Data = "127.0.0.1:1", "/elsewhere"
				})
			},
		},
		{
			"a logo that is not there", "logo_file",
			map[string]string{"what": "build"},
			func() error {
				return g.Reconfigure(func(c *configs.Config) {
					upstreamOf(t, apps[1])(c)
					c.Pages.LogoFile = "missing.png"
				})
			},
		},
		{
			"a logo that is a pipe", "logo_file: is a pipe",
			map[string]string{"what": "build"},
			func() error {
				return g.Reconfigure(func(c *configs.Config) {
					upstreamOf(t, apps[1])(c)
					c.Pages.LogoFile = pipe(t, "logo.svg")
				})
			},
		},
		{
			"texts that are a pipe", "fr.json: is no regular file",
			map[string]string{"what": "build"},
			func() error {
				return g.Reconfigure(func(c *configs.Config) {
					upstreamOf(t, apps[1])(c)
					c.Pages.TextsDir = filepath.Dir(pipe(t, "fr.json"))
				})
			},
		},
	}
	for _, test := range refusals {
		if err := test.reload(); err == nil || !strings.Contains(err.Error(), test.log) || !strings.Contains(g.Log.String(), test.log) {
			t.Errorf("%s: got %v, want %q here and in the log", test.name, err, test.log)
		}
		if answer := b.Get("/"); answer.Text != "one" {
			t.Errorf("%s: the app is %q", test.name, answer.Text)
		}
		if text := g.NewBrowser().Get("/.gatehouse/readyz").Text; !strings.Contains(text, `"ready":true`) || !strings.Contains(text, `"configuration":{"state":"degraded"`) {
			t.Errorf("%s: readyz says %s", test.name, text)
		}
		last := lastReload(t, g)
		if last.Outcome != audit.Failed || fmt.Sprint(last.Details) != fmt.Sprint(test.details) {
			t.Errorf("%s: recorded %s %v, want %v", test.name, last.Outcome, last.Details, test.details)
		}
	}
	if err := g.Reconfigure(upstreamOf(t, apps[1])); err != nil {
		t.Fatal(err)
	}
	if answer := b.Get("/"); answer.Text != "two" {
		t.Errorf("after a good one the app is %q", answer.Text)
	}
	if text := g.NewBrowser().Get("/.gatehouse/readyz").Text; !strings.Contains(text, `"configuration":{"state":"ok"}`) {
		t.Errorf("after a good one readyz says %s", text)
	}
	if last := lastReload(t, g); last.Outcome != audit.Success || last.Details["changed"] != "upstream" {
		t.Errorf("recorded %s %v", last.Outcome, last.Details)
	}
}

// pipe makes one that nobody writes to.
func pipe(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func lastReload(t *testing.T, g *gatewaytest.Gateway) audit.Record {
	t.Helper()
	var last audit.Record
	for _, r := range g.Records() {
		if r.Kind == audit.KindReloaded {
			last = r
		}
	}
	return last
}

// What a reload changes for logins and sessions counts from then on.
func TestGateway_reloadsTheLimitsOfSessionsAndLogins(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	g.AddUser("alice", "staff")
	b := g.SignIn("alice", g.Enrol("alice"))
	if err := g.Reconfigure(func(c *configs.Config) { c.Session.Idle, c.Session.AccessToken = 10*time.Minute, time.Minute }); err != nil {
		t.Fatal(err)
	}
	g.Clock.Add(11 * time.Minute)
	if answer := b.Get("/"); answer.StatusCode != http.StatusFound {
		t.Errorf("after 11 minutes of at most 10: got %d", answer.StatusCode)
	}
	if err := g.Reconfigure(func(c *configs.Config) { c.Login.Lockout.Limit = 2 }); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{401, 401, 429} {
		if answer := g.NewBrowser().Login("alice", "wrong", ""); answer.StatusCode != want {
			t.Errorf("wrong password %d of 2: got %d, want %d", i+1, answer.StatusCode, want)
		}
	}
}

// A gateway that was told to stop says so first, serves on for the delay, and then ends.
func TestGateway_saysThatItStopsBeforeItDoes(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) { c.StopDelay = 700 * time.Millisecond }})
	b := g.NewBrowser()
	began := time.Now()
	var stopping sync.WaitGroup
	stopping.Go(g.Stop)
	for {
		answer, err := b.Try(http.MethodGet, "/.gatehouse/readyz", nil, nil)
		if err != nil {
			t.Fatalf("the listener closed before readyz said so: %v", err)
		}
		if answer.StatusCode == http.StatusServiceUnavailable {
			if !strings.Contains(answer.Text, "the gateway is stopping") {
				t.Errorf("readyz says %s", answer.Text)
			}
			break
		}
	}
	if answer, err := b.Try(http.MethodGet, "/.gatehouse/login", nil, gatewaytest.Document()); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("within the delay: %v, %v", answer, err)
	}
	stopping.Wait()
	if took := time.Since(began); took < 700*time.Millisecond || took > storetest.Within(5*time.Second) {
		t.Errorf("it ended after %v", took)
	}
	if _, err := b.Try(http.MethodGet, "/.gatehouse/readyz", nil, nil); err == nil {
		t.Error("it answers after its end")
	}
}

// A request that is under way when the gateway is told to stop is answered.
func TestGateway_letsRequestsEnd(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	app := wiretest.NewScripted(t, func(conn net.Conn, _ *bufio.Reader, _ wiretest.Request) bool {
		close(arrived)
		<-release
		_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
		return err == nil
	})
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: upstreamOf(t, app)})
	g.AddUser("alice", "staff")
	b := g.SignIn("alice", g.Enrol("alice"))
	var running sync.WaitGroup
	running.Go(func() {
		if answer, err := b.Try(http.MethodGet, "/slow", nil, nil); err != nil || answer.Text != "done" {
			t.Errorf("got %v, %v", answer, err)
		}
	})
	<-arrived
	running.Go(g.Stop)
	probe := g.NewBrowser()
	for { // until the listener is closed
		if _, err := probe.Try(http.MethodGet, "/.gatehouse/healthz", nil, nil); err != nil {
			break
		}
	}
	close(release)
	running.Wait()
}
