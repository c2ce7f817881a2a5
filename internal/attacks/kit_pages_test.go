package attacks_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
)

// The cookies, by the names that the contract gives them.
const (
	accessName = "__Host-gatehouse"
	handleName = "__Host-gatehouse-session"
	deviceName = "__Host-gatehouse-device"
	loginName  = "__Host-gatehouse-login"
)

// bench is a running gateway behind whose door alice is signed in, with the oracles of attacks.md.
type bench struct {
	*gatewaytest.Gateway
	app    *wiretest.Upstream
	alice  *gatewaytest.Browser
	secret string // of alice's second factor
}

// newBench starts a gateway in front of the app; without one, in front of one that echoes. Its address buckets are wide: what
// is attacked here is not them.
func newBench(t *testing.T, app *wiretest.Upstream, configure ...func(*configs.Config)) *bench {
	t.Helper()
	b := &bench{app: app}
	b.Gateway = gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		c.Login.RateLimit.Burst = 1000
		if app != nil {
			if err := c.Upstream.UnmarshalText([]byte(app.URL)); err != nil {
				t.Fatal(err)
			}
		}
		for _, change := range configure {
			change(c)
		}
	}})
	if b.app == nil {
		b.app = b.Upstream
	}
	b.AddUser("alice", "staff")
	b.secret = b.Enrol("alice")
	b.alice = b.SignIn("alice", b.secret)
	return b
}

// raw writes bytes to the public listener.
func (b *bench) raw(t *testing.T, request string) wiretest.Answers {
	t.Helper()
	return wiretest.Raw(t, b.URL, request)
}

// as is the header lines of a browser's request: the host, and its cookies if it has any.
func (b *bench) as(who *gatewaytest.Browser) string {
	lines := "Host: " + b.Origin.Host + "\r\n"
	if who != nil && len(who.Jar) > 0 {
		lines += "Cookie: " + who.Cookies() + "\r\n"
	}
	return lines
}

// oracles stops the gateway, so that everything counted is written, checks what must hold after every attack, and returns the
// audit log: exactly the allowed requests reached the app, each as a user who is signed in and without anything of ours; the
// log reads from its first record to its last; nothing panicked.
func (b *bench) oracles(t *testing.T, allowed int) []audit.Record {
	t.Helper()
	requests := b.app.Requests()
	if len(requests) != allowed {
		t.Errorf("%d requests reached the app, want %d", len(requests), allowed)
	}
	for _, r := range requests {
		if who := r.CGI()["HTTP_REMOTE_USER"]; !slices.Equal(who, []string{"alice"}) && !slices.Equal(who, []string{"bob"}) {
			t.Errorf("%.100s: the app takes the user for %q", r.Line, who)
		}
		if strings.Contains(r.Line, "canary") {
			t.Errorf("the app got the smuggled %s", r.Line)
		}
		for _, f := range slices.Concat(r.Header, r.Trailer) {
			if f.Name != "X-Gatehouse-Assertion" && (strings.Contains(f.Value, accessName) || strings.Contains(f.Value, b.alice.Jar[accessName])) {
				t.Errorf("%.100s: the app got our cookie in %s", r.Line, f.Name)
			}
		}
	}
	b.Stop()
	if log := b.Log.String(); strings.Contains(log, "panic") {
		t.Errorf("something panicked:\n%s", log)
	}
	records := b.Records()
	for i, r := range records {
		if r.Sequence != uint64(i+1) {
			t.Fatalf("record %d has the number %d", i+1, r.Sequence)
		}
	}
	return records
}

// sum is how many events a log tells of that fit: aggregated records count as what they sum up.
func sum(records []audit.Record, fits func(audit.Record) bool) int64 {
	var n int64
	for _, r := range records {
		if fits(r) {
			n += max(1, r.Count)
		}
	}
	return n
}

// bypasses is how many attempts of one sort to get around the gateway a log tells of.
func bypasses(records []audit.Record, what string) int64 {
	return sum(records, func(r audit.Record) bool { return r.Kind == audit.KindBypass && r.Details["what"] == what })
}

// wantDenied fails the test unless the answer has one of the statuses and, being a refusal of ours, may not be stored.
func wantDenied(t *testing.T, what string, answer *http.Response, want ...int) {
	t.Helper()
	if !slices.Contains(want, answer.StatusCode) {
		t.Errorf("%s: got %d, want one of %v", what, answer.StatusCode, want)
	}
	// What net/http refuses by itself has no header but these, and no status that a cache may keep (RFC 9110, section 15.1).
	ours := answer.Header.Get("Content-Type") != "text/plain; charset=utf-8"
	if ours && answer.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: the refusal %d may be stored: %v", what, answer.StatusCode, answer.Header)
	}
}

// dataFolder is every file in a data folder by its path, sockets aside.
func dataFolder(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// logLines is the audit log as it stands on disk, line by line.
func logLines(t *testing.T, dir string) [][]byte {
	t.Helper()
	var lines [][]byte
	files := dataFolder(t, filepath.Join(dir, "audit"))
	for path, content := range files {
		if !strings.HasSuffix(path, ".jsonl") {
			continue
		}
		for line := range bytes.Lines(content) {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		t.Fatalf("no log among %d files", len(files))
	}
	return lines
}

// asJSON is a value as JSON.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
