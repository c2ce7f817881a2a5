package attacks_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
)

// A case leaves nothing behind: no goroutine of a gateway outlives it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// canary is in every wrong password of these tests, so that one that is kept anywhere is found.
const canary = "canary-of-a-guess"

const loginPath = "/.gatehouse/api/v1/login"

// proving reports whether the full counts are asked for.
func proving() bool { return os.Getenv("GATEHOUSE_PROVE") == "1" }

// rounds is few in every run, and many where they prove something.
func rounds(few, many int) int {
	if proving() {
		return many
	}
	return few
}

// target is a gateway under attack.
type target struct {
	*gatewaytest.Gateway
	t *testing.T

	mu       sync.Mutex
	secrets  []string               // guarded by mu; must be nowhere in the clear
	browsers []*gatewaytest.Browser // guarded by mu
	hosts    int                    // guarded by mu; of addresses given out by next
}

// start runs a gateway whose oracles are asked when the test ends.
func start(t *testing.T, configure ...func(*configs.Config)) *target {
	t.Helper()
	return startWith(t, gatewaytest.Options{}, configure...)
}

func startWith(t *testing.T, o gatewaytest.Options, configure ...func(*configs.Config)) *target {
	t.Helper()
	o.Configure = func(c *configs.Config) {
		for _, change := range configure {
			change(c)
		}
	}
	g := &target{Gateway: gatewaytest.Start(t, o), t: t, secrets: []string{canary, gatewaytest.Password}}
	t.Cleanup(g.oracles)
	return g
}

func trustNobody(c *configs.Config) { c.TrustedProxies = nil }

// enrolled makes an account with a second factor and returns its seed.
func (g *target) enrolled(name string) string {
	g.t.Helper()
	g.AddUser(name)
	seed := g.Enrol(name)
	g.secret(seed)
	return seed
}

// add makes an account with this password, or returns why there is none.
func (g *target) add(name, password string) error {
	g.secret(password)
	_, err := g.Admin.AddUser(g.t.Context(), api.NewUser{Name: name, Password: password})
	return err
}

// secret names a text that must be nowhere in the clear.
func (g *target) secret(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.secrets = append(g.secrets, text)
}

// next is a browser with an empty jar at an address that no other browser of the test has.
func (g *target) next() *gatewaytest.Browser {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hosts++
	b := g.NewBrowser().At(fmt.Sprintf("10.%d.%d.%d", g.hosts>>16, g.hosts>>8&0xff, g.hosts&0xff))
	g.browsers = append(g.browsers, b)
	return b
}

// reset takes the lockout of a name away, as an administrator.
func (g *target) reset(name string) {
	g.t.Helper()
	if err := g.Admin.ResetLockout(g.t.Context(), name, "the next probe"); err != nil {
		g.t.Fatal(err)
	}
}

// wrongPasswords and wrongCodes are what the windows of a name hold, over all client classes.
func (g *target) wrongPasswords(name string) int { return g.failures(name, api.WindowPassword) }
func (g *target) wrongCodes(name string) int     { return g.failures(name, api.WindowCode) }

func (g *target) failures(name, window string) int {
	g.t.Helper()
	all, err := g.Admin.Lockout(g.t.Context(), name)
	if err != nil {
		g.t.Fatalf("%v\n%s", err, g.Log)
	}
	n := 0
	for _, l := range all {
		if l.Window == window {
			n += l.Failures
		}
	}
	return n
}

// last is the newest record of a login.
func (g *target) last() audit.Record {
	g.t.Helper()
	logins := g.Logins()
	if len(logins) == 0 {
		g.t.Fatal("no login is on record")
	}
	return logins[len(logins)-1]
}

// guess is a wrong password that is found if it is kept.
func guess(i int) string { return fmt.Sprintf("%s-%d", canary, i) }

// refused checks a refusal: its code and status, that no cache keeps it, that it hands nothing out and says no more than its
// code allows (oracle 6).
func refused(t *testing.T, what string, a gatewaytest.Answer, want problem.Code) {
	t.Helper()
	if got := a.ProblemCode(); got != string(want) || a.StatusCode != want.Status() {
		t.Fatalf("%s: got %d %s, want %s: %.300s", what, a.StatusCode, got, want, a.Text)
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: Cache-Control %q, want no-store", what, a.Header.Get("Cache-Control"))
	}
	if len(a.Cookies()) != 0 {
		t.Errorf("%s: set cookies %v", what, a.Cookies())
	}
	members := []string{"type", "title", "status", "code", "request_id"}
	switch want {
	case problem.CodeRequired:
		members = append(members, "challenge")
	case problem.Locked, problem.RateLimited, problem.Unavailable:
		members = append(members, "retry_after")
		if a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", what)
		}
	case problem.SessionRequired:
		members = append(members, "login_url")
	}
	for _, m := range member.FindAllStringSubmatch(a.Text, -1) {
		if !slices.Contains(members, m[1]) {
			t.Errorf("%s: says %q: %s", what, m[1], a.Text)
		}
	}
}

var member = regexp.MustCompile(`"(\w+)":`)

// signedIn checks that an answer hands out a session.
func signedIn(t *testing.T, what string, a gatewaytest.Answer) {
	t.Helper()
	if a.StatusCode != http.StatusOK || a.Field("access_token") == "" {
		t.Fatalf("%s: got %d, want signed in: %.300s", what, a.StatusCode, a.Text)
	}
}

// shot is one JSON login, from an address, through the trusted hop.
type shot struct {
	g          *target
	from, body string
}

// aim opens a connection and sends all of the login but its last byte. fire sends that byte and returns the code of the answer; ""
// is signed in.
func (s shot) aim() (fire func() (problem.Code, error), err error) {
	request := s.g.post(loginPath, s.from, "application/json", s.body)
	conn, err := net.Dial("tcp", s.g.Origin.Host)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, request[:len(request)-1]); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return func() (problem.Code, error) {
		defer conn.Close()
		if _, err := io.WriteString(conn, request[len(request)-1:]); err != nil {
			return "", err
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if answer.StatusCode == http.StatusOK {
			return "", err
		}
		return problem.Code(gatewaytest.Answer{Response: answer, Text: string(text)}.ProblemCode()), err
	}, nil
}

// volley completes n logins in the same moment, by their last bytes, and returns how often each code was answered. meanwhile, if
// there is one, happens among them.
func volley(t *testing.T, n int, login func(i int) shot, meanwhile func()) map[problem.Code]int {
	t.Helper()
	var (
		mu    sync.Mutex
		codes = map[problem.Code]int{}
		begin = make(chan struct{})
		group sync.WaitGroup
	)
	for i := range n {
		fire, err := login(i).aim()
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			<-begin
			code, err := fire()
			mu.Lock()
			defer mu.Unlock()
			if codes[code]++; err != nil {
				t.Error(err)
			}
		})
	}
	if meanwhile != nil {
		group.Go(func() {
			<-begin
			meanwhile()
		})
	}
	close(begin)
	group.Wait()
	return codes
}

// raw sends bytes on a connection of its own and returns everything that came back, as it stood on the wire. The request must ask
// for the connection to be closed.
func (g *target) raw(request string) string {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.Origin.Host)
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		g.t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(answer)
}

// post is the bytes of a POST from an address, through the trusted hop.
func (g *target) post(path, from, mediaType, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		path, g.Origin.Host, from, mediaType, len(body), body)
}

// nonces is what may differ between two answers that must be the same.
var nonces = regexp.MustCompile(`(?m)"request_id":"\w+"|^(?:Date|X-Request-Id): .*$`)

func withoutNonces(answer string) string { return nonces.ReplaceAllString(answer, "") }

// oracles is asked when a case is over.
func (g *target) oracles() {
	g.t.Helper()
	g.Stop() // writes what was counted
	for _, r := range g.Upstream.Requests() {
		if users := r.Values("Remote-User"); len(users) != 1 {
			g.t.Errorf("the app saw %s with Remote-User %q", r.Line, users)
		}
		for _, f := range r.Header {
			if strings.Contains(f.Value, canary) {
				g.t.Errorf("the app saw a guess in %s", f.Name)
			}
		}
	}
	if strings.Contains(g.Log.String(), "panic") {
		g.t.Errorf("something panicked:\n%s", g.Log)
	}
	g.findsNoSecret()
	g.recordsAreSound()
}

// findsNoSecret looks for every secret in the data folder and in the output.
func (g *target) findsNoSecret() {
	g.t.Helper()
	for _, b := range g.browsers {
		for name, value := range b.Jar {
			if len(value) > 20 {
				g.secrets = append(g.secrets, value)
			} else {
				g.t.Errorf("cookie %s holds %q", name, value)
			}
		}
	}
	slices.Sort(g.secrets)
	g.secrets = slices.Compact(g.secrets)
	check := func(where string, text []byte) {
		for _, secret := range g.secrets {
			if bytes.Contains(text, []byte(secret)) {
				g.t.Errorf("%s holds %q", where, secret)
			}
		}
	}
	check("the output", []byte(g.Log.String()))
	err := filepath.WalkDir(g.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		check(path, text)
		return err
	})
	if err != nil {
		g.t.Error(err)
	}
}

// recordsAreSound checks what holds of every log: an attempt that was refused for its password or code says so in a record of its
// own, and a session stands in the log only behind a login that passed all six steps.
func (g *target) recordsAreSound() {
	g.t.Helper()
	for _, r := range g.Records() {
		switch {
		case r.Kind != audit.KindLogin:
		case r.Trace == nil || r.Trace.Of(audit.StepAudit).Verdict != audit.Pass:
			g.t.Errorf("record %d of a login has trace %+v", r.Sequence, r.Trace)
		case (r.Outcome == audit.Success) != (r.Session != "" && r.Code == ""):
			g.t.Errorf("record %d: outcome %s, session %q, code %q", r.Sequence, r.Outcome, r.Session, r.Code)
		}
	}
}

// counted sums up the aggregated records of refusals for a reason; the gateway must have been stopped.
func (g *target) counted(reason audit.Reason) int64 {
	g.t.Helper()
	var n int64
	for _, r := range g.Records() {
		if r.Details["reason"] == string(reason) {
			n += r.Count
		}
	}
	return n
}

// decided counts the records of logins that step 1 refused for a reason.
func (g *target) decided(reason audit.Reason) int {
	g.t.Helper()
	n := 0
	for _, r := range g.Logins() {
		if r.Trace.Of(audit.StepPassword).Reason == reason {
			n++
		}
	}
	return n
}
