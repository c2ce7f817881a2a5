package gateway_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
)

// lines waits until the file has n lines of printable ASCII.
func lines(t *testing.T, path string, n int) []string {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(path)
		all := strings.SplitAfter(string(text), "\n")
		if all = all[:len(all)-1]; len(all) >= n {
			if len(all) > n || regexp.MustCompile(`[^ -~\n]`).Match(text) {
				t.Errorf("%d lines, want %d, of printable ASCII:\n%s", len(all), n, text)
			}
			return all
		}
		if time.Now().After(limit) {
			t.Fatalf("%d lines, want %d, %v:\n%s", len(all), n, err, text)
		}
	}
}

func accessLog(path, format string) func(*configs.Config) {
	return func(c *configs.Config) { c.AccessLog = configs.AccessLog{File: path, Format: format} }
}

// Every request has a line that says what became of it, with the id that its answer, its record and the app got; a query is in none.
func TestGateway_writesALineForEachRequest(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	app := echoing(t, "answer")
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) { upstreamOf(t, app)(c); accessLog(path, "json")(c) }})
	g.AddUser("alice", "staff")
	secret := g.Enrol("alice")
	b := g.NewBrowser().At("192.0.2.1")
	b.Header.Set("User-Agent", "test/1")
	g.Clock.Add(time.Minute)
	login := b.Login("alice", gatewaytest.Password, g.Code(secret))
	page := b.Do(http.MethodPost, "/page%2Dx?token=canary", strings.NewReader("body"), http.Header{"X-Request-Id": {"forged"}})
	if page.Text != "answer" {
		t.Fatalf("page: %d %s", page.StatusCode, page.Text)
	}
	sent := app.Last(t)
	refused := g.NewBrowser().Get("/secret?canary")
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
	_, _ = io.WriteString(socket, "x")
	if echo, err := in.ReadByte(); err != nil || echo != 'x' {
		t.Fatalf("echo: %q, %v", echo, err)
	}
	_ = socket.Close()

	all := lines(t, path, 4)
	if strings.Contains(strings.Join(all, ""), "canary") {
		t.Errorf("a query is in the log:\n%s", all)
	}
	var got [4]map[string]any
	for i, line := range all {
		if err := json.Unmarshal([]byte(line), &got[i]); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	route := got[1]["route"]
	for i, want := range []map[string]any{
		{"id": login.Header.Get("X-Request-Id"), "client": "192.0.2.1", "method": "POST", "path": "/.gatehouse/api/v1/login", "status": 200.0, "user_agent": "test/1", "bytes": float64(len(login.Text))},
		{"user": "alice", "method": "POST", "path": "/page%2Dx", "status": 200.0, "bytes": 6.0, "protocol": "HTTP/1.1", "host": g.Origin.Host},
		{"id": refused.Header.Get("X-Request-Id"), "route": route, "user": nil, "path": "/secret", "status": 302.0},
		{"user": "alice", "route": route, "path": "/socket", "status": 101.0},
	} {
		for name, value := range want {
			if got[i][name] != value {
				t.Errorf("line %d: %s is %v, want %v\n%s", i, name, got[i][name], value, all[i])
			}
		}
	}
	if route == "" || route == nil {
		t.Error("no route")
	}
	if id := got[1]["id"].(string); len(id) < 20 || fmt.Sprint(sent.Values("X-Gatehouse-Request-Id")) != fmt.Sprint([]string{id}) {
		t.Errorf("the app got the ids %q, the line has %q", sent.Values("X-Gatehouse-Request-Id"), id)
	}
	if ids := sent.Values("X-Request-Id"); len(ids) != 1 || ids[0] != "forged" {
		t.Errorf("the client's own id arrived as %q", ids)
	}
	if records := g.Logins(); len(records) != 1 || records[0].RequestID != login.Header.Get("X-Request-Id") || records[0].RequestID == "" {
		t.Errorf("the record's id is %q", records[0].RequestID)
	}
}

// AU-01 and PX-29: one request is one line, whatever a client sends, in both formats; and a rotated log goes on in a new file.
func TestGateway_keepsLinesApartAndTurnsToANewFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: accessLog(path, "common")})
	hostile := []string{
		"GET /a%0d%0a%22%20b HTTP/1.1\r\nUser-Agent: \"x\" \\ \x9b \xff \u2028 \u202e\"", "GET /\xe2\x80\xa8\x80 HTTP/1.1\r\nUser-Agent: " + strings.Repeat("a", 20_000),
		"GET /" + strings.Repeat("p", 20_000) + " HTTP/1.1", "G'T! / HTTP/1.1", "GET //evil.test/%2e%2e HTTP/1.1\r\nUser-Agent: <0>1 </script> =cmd()",
	}
	send := func(request string) {
		conn := wiretest.Dial(t, g.URL)
		_, _ = io.WriteString(conn, request+"\r\nHost: "+g.Origin.Host+"\r\nConnection: close\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	}
	combined := regexp.MustCompile(`^127\.0\.0\.1 - - \[23/Nov/2026:10:00:00 \+0000\] "(?:[^"\\]|\\.)+" \d{3} \d+ "-" "(?:[^"\\]|\\.)+" [a-z0-9-]+ [A-Z0-9]{26} \d+\.\d{6}\n$`)
	for i, format := range []string{"common", "json"} {
		if i == 1 {
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			if err := g.Reconfigure(accessLog(path, format)); err != nil {
				t.Fatal(err)
			}
		}
		for _, request := range hostile {
			send(request)
		}
		for _, line := range lines(t, path, len(hostile)) {
			if len(line) > 10_000 {
				t.Errorf("%s: a line of %d bytes", format, len(line))
			}
			if format == "common" && !combined.MatchString(line) || format == "json" && !json.Valid([]byte(line)) {
				t.Errorf("%s: %s", format, line)
			}
		}
	}
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	g.Reopen()
	g.NewBrowser().Get("/")
	lines(t, path, 1)
	if err := g.Reconfigure(accessLog(filepath.Join(dir, "missing", "access.log"), "json")); err == nil {
		t.Error("a file that cannot be made was accepted")
	}
	if err := g.Reconfigure(accessLog("", "json")); err != nil {
		t.Fatal(err)
	}
	g.NewBrowser().Get("/")
	time.Sleep(10 * time.Millisecond)
	lines(t, path, 1)
}

// A record that a part makes which knows nothing of requests has the id of the one that it was made for.
func TestGateway_namesTheRequestOfATheft(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	g.AddUser("alice", "staff")
	b := g.SignIn("alice", g.Enrol("alice"))
	thief := b.Copy()
	for range 3 {
		g.Clock.Add(6 * time.Minute)
		b.Get("/")
	}
	answer := thief.Get("/")
	for _, r := range g.Records() {
		if r.Kind == audit.KindHandleTheft {
			if id := answer.Header.Get("X-Request-Id"); r.RequestID != id || id == "" {
				t.Errorf("recorded %q, answered %q", r.RequestID, id)
			}
			return
		}
	}
	t.Error("no theft was recorded")
}

// A question of a front proxy has a line with the route and the user that it was about.
func TestGateway_writesALineForAQuestionOfAFrontProxy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		accessLog(path, "json")(c)
		c.ForwardAuth.Peers = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}})
	g.AddUser("alice", "staff")
	b := g.SignIn("alice", g.Enrol("alice"))
	answer := b.Do(http.MethodGet, "/.gatehouse/authz/forward-auth", nil, http.Header{
		"X-Forwarded-Method": {"GET"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {g.Origin.Host}, "X-Forwarded-Uri": {"/page?canary"}, "X-Forwarded-For": {"192.0.2.1"},
	})
	all := lines(t, path, 2)
	var got map[string]any
	if err := json.Unmarshal([]byte(all[1]), &got); err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK || got["user"] != "alice" || got["route"] == nil || got["id"] != answer.Header.Get("X-Request-Id") || strings.Contains(all[1], "canary") {
		t.Errorf("answered %d %v, logged %s", answer.StatusCode, answer.Header, all[1])
	}
}
