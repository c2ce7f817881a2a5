package attacks_test

import (
	"bufio"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/text/unicode/norm"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
)

// newRuledBench is a gateway whose app has open and closed parts, with root as an administrator beside alice.
func newRuledBench(t *testing.T, app *wiretest.Upstream) (b *bench, root *gatewaytest.Browser) {
	t.Helper()
	if app == nil {
		app = wiretest.NewUpstream(t)
	}
	b = newBench(t, app, func(c *configs.Config) {
		var up configs.Upstream
		if err := up.UnmarshalText([]byte(app.URL)); err != nil {
			t.Fatal(err)
		}
		c.Upstream = configs.Origin{}
		c.Routes = []configs.Route{{Name: "app", Upstreams: []configs.Upstream{up}, Rules: []configs.Rule{
			{Paths: []configs.Path{"/public"}, Access: configs.Public},
			{Paths: []configs.Path{"/admin"}, Groups: []configs.UserName{"admins"}},
			{Paths: []configs.Path{"/read"}, Methods: []configs.Method{"GET"}},
			{Paths: []configs.Path{"/app"}},
		}}}
	})
	b.AddUser("root", "admins")
	return b, b.SignIn("root", b.Enrol("root"))
}

// disguises are the paths of PX-16, and more of their kind: ways to write a path under /admin as if it were another, or under /public as if it
// were not.
var disguises = []string{
	"/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public/%252e%252e/admin", "/public/..;/admin", "/public%2f..%2fadmin", "//admin",
	"/./admin", "/admin/.", "/ADMIN", "/%61dmin", "/admin%20", "/admin%00", "/admin;x=1", "/admin/", "/admin.json", `/public\..\admin`,
	"/public%5c..%5cadmin", "/%c0%ae%c0%ae/admin", "/public#/../admin", "/public%23/../admin", "/admin?x=/public/", "/admin?/public/x",
	"/public/x/../../admin", "/admın", "/adm%C4%B1n", "/ﬁ", "/%EF%AC%81",
	"/public/.%2e/admin", "/public/%2e./admin", "/public/%2E%2E%2Fadmin", "/public/..%5cadmin", "/public/..%c0%afadmin", "/public/..%e0%80%afadmin",
	"/public/..%ef%bc%8fadmin", "/public/%ef%bc%8e%ef%bc%8e/admin", "/public/..%00/admin", "/public/..%0d/admin", "/public/..%09/admin", "/public//../admin",
	"///admin", "/public/%2f/admin", "/public;/../admin", "/public/;/../admin", "/public/%3b/../admin", "/public/..%3b/admin", "/public/...//admin",
	"/admin.", "/admin..", "/admin%2e", "/admin%09", "/Admin/x", "/aDMIN", "/%41dmin", "/admin%2f", "/admin%2fx", "/admin%5cx", "/admin//x", "/admin/../admin",
	"/admin%3fx", "/admin%23", "/admin%EF%BC%8Fx", "/%EF%BD%81dmin", "/admi%EF%BD%8E", "/admin%E2%80%8B", "/adm%C2%ADin", "/public/../../admin",
	"/public/%25%32%65%25%32%65/admin", "/public/%u002e%u002e/admin", "/public/%%32%65%%32%65/admin", "/..//admin", "/%2e/admin", "/%2e%2e/admin",
	"/public/../ADMIN", "/PUBLIC/../admin", "/pUBLIC/x", "/public%20/x", "/publicadmin", "/public-admin", "/public.", "/public;x", "/%70ublic/x", "/public/%",
	"/public/%2", "/public/%zz", "/public/a%2fb", "/public/a%5cb", "/public/a%00b", "/public/a//b", "/public/./b", "/public/é", "/public/\x80", "/public/%80",
}

// readings are what apps make of a path: decoded once or twice, backslashes as slashes, without parameters, cleaned, in one case, folded.
func readings(target string) []string {
	all := []string{target}
	add := func(change func(string) string) {
		for _, reading := range slices.Clone(all) {
			if changed := change(reading); !slices.Contains(all, changed) {
				all = append(all, changed)
			}
		}
	}
	decode := func(s string) string {
		if decoded, err := url.PathUnescape(s); err == nil {
			return decoded
		}
		return s
	}
	cut := func(marks string) func(string) string {
		return func(s string) string {
			if at := strings.IndexAny(s, marks); at >= 0 {
				return s[:at]
			}
			return s
		}
	}
	add(cut("?#"))
	add(decode)
	add(decode)
	add(func(s string) string { return norm.NFKC.String(s) })
	add(func(s string) string { return strings.ReplaceAll(s, `\`, "/") })
	add(func(s string) string { // path parameters, as Java's servers take them out
		parts := strings.Split(s, "/")
		for i := range parts {
			parts[i] = cut(";")(parts[i])
		}
		return strings.Join(parts, "/")
	})
	add(cut("\x00"))
	add(path.Clean)
	add(func(s string) string { return strings.ToLower(strings.ToUpper(s)) })
	add(func(s string) string { return strings.TrimRight(s, ". \t\r\n") })
	add(path.Clean)
	return all
}

// within reports whether some reading of a path lies at a prefix or below it.
func within(prefix, target string) bool {
	return slices.ContainsFunc(readings(target), func(r string) bool { return r == prefix || strings.HasPrefix(r, prefix+"/") })
}

func TestPX16_thePathThatIsMatchedIsThePathThatIsSent(t *testing.T) {
	t.Parallel()
	b, root := newRuledBench(t, nil)
	absolute := "http://" + b.Origin.Host + "/admin"
	for _, target := range append(slices.Clone(disguises), "http://h/admin", absolute) {
		for name, who := range map[string]*gatewaytest.Browser{"nobody": nil, "alice": b.alice, "root": root} {
			before := len(b.app.Requests())
			answers := b.raw(t, "GET "+target+" HTTP/1.1\r\n"+b.as(who)+"Connection: close\r\n\r\n")
			if len(answers.All) != 1 {
				t.Errorf("%s for %q: got %d answers", name, target, len(answers.All))
				continue
			}
			sent := b.app.Requests()[before:]
			if answers.All[0].StatusCode != http.StatusOK {
				wantDenied(t, fmt.Sprintf("%s for %q", name, target), answers.All[0], 400, 401, 403, 404, 421)
				if len(sent) > 0 {
					t.Errorf("%s for %q: refused, and reached the app as %s", name, target, sent[0].Line)
				}
				continue
			}
			if len(sent) != 1 || sent[0].Target() != strings.TrimPrefix(target, "http://"+b.Origin.Host) {
				t.Errorf("%s for %q: the app got %v", name, target, sent)
			} else if within("/admin", sent[0].Target()) && name != "root" || name == "nobody" && !strings.HasPrefix(sent[0].Target(), "/public") {
				t.Errorf("%s: the app got %s, which it may read as %q", name, sent[0].Target(), readings(sent[0].Target()))
			}
		}
	}
	// What is meant to pass does.
	for target, who := range map[string]*gatewaytest.Browser{
		"/public": nil, "/public/a": nil, "/public/caf%C3%A9": nil, "/public/a%20b?x=/../admin": nil, "/app/x": b.alice, "/admin": root, "/admin/": root, "/admin/x?y=/public/": root,
		"/admin?/public/x": root, absolute: root,
	} {
		if got := b.raw(t, "GET "+target+" HTTP/1.1\r\n"+b.as(who)+"Connection: close\r\n\r\n").Status(t); got != http.StatusOK {
			t.Errorf("%s: got %d", target, got)
		}
	}
	for _, target := range []string{"/", "/other", "/administrator", "/favicon.ico"} { // no rule names them
		wantDenied(t, target, b.raw(t, "GET "+target+" HTTP/1.1\r\n"+b.as(root)+"Connection: close\r\n\r\n").All[0], http.StatusForbidden)
	}
	b.Stop()
	denied := sum(b.Records(), func(r audit.Record) bool { return r.Kind == audit.KindAccessDenied && r.Details["route"] == "app" })
	if denied < 4 {
		t.Errorf("the log tells of %d denials", denied)
	}
}

// PX-06 on a public route, with and without a session.
func TestPX06_publicRoutesHaveNoIdentityOfTheClients(t *testing.T) {
	t.Parallel()
	b, _ := newRuledBench(t, nil)
	for _, name := range claimed {
		lines := ""
		for _, spelling := range headerSpellings(name) {
			lines += spelling + ": root\r\n"
		}
		for _, start := range []string{"GET /public/a", "OPTIONS /public/a", "HEAD /public/a"} {
			if got := b.raw(t, start+" HTTP/1.1\r\n"+lines+b.as(nil)+"Connection: close\r\n\r\n").Status(t); got != http.StatusOK {
				t.Errorf("%s with %s: got %d", start, name, got)
				continue
			}
			cgi := b.app.Last(t).CGI()
			for header, values := range cgi {
				if strings.Contains(strings.Join(values, " "), "root") {
					t.Errorf("%s with %s: the app got %s: %q", start, name, header, values)
				}
			}
			if cgi["HTTP_REMOTE_USER"] != nil || cgi["HTTP_X_GATEHOUSE_ASSERTION"] != nil {
				t.Errorf("%s with %s: the app takes nobody for %q", start, name, cgi["HTTP_REMOTE_USER"])
			}
		}
		if got := b.raw(t, "GET /public/a HTTP/1.1\r\n"+lines+b.as(b.alice)+"Connection: close\r\n\r\n").Status(t); got != http.StatusOK {
			t.Errorf("alice with %s: got %d", name, got)
		}
		wantIdentity(t, "alice with "+name, b, b.app.Last(t))
	}
}

func TestPX13_webSocketsAreAskedBeforeTheAppIs(t *testing.T) {
	t.Parallel()
	b, root := newRuledBench(t, wiretest.NewScripted(t, switching))
	start := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	own := "Origin: " + b.URL + "\r\n"
	handle := "Cookie: " + handleName + "=" + b.alice.Jar[handleName] + "\r\n"
	for _, tt := range []struct {
		name, path, lines string
		want              int
	}{
		{"no session", "/app/ws", b.as(nil) + own, 401},
		{"no session and a foreign origin", "/app/ws", b.as(nil) + "Origin: http://evil.test\r\n", 401},
		{"a forged cookie", "/app/ws", b.as(nil) + "Cookie: " + accessName + "=x\r\n" + own, 401},
		{"an altered handle", "/app/ws", b.as(nil) + strings.Replace(handle, "\r\n", "A\r\n", 1) + own, 401},
		{"a foreign origin", "/app/ws", b.as(b.alice) + "Origin: http://evil.test\r\n", 403},
		{"another scheme", "/app/ws", b.as(b.alice) + "Origin: https://" + b.Origin.Host + "\r\n", 403},
		{"another port", "/app/ws", b.as(b.alice) + "Origin: http://localhost:1\r\n", 403},
		{"a longer name", "/app/ws", b.as(b.alice) + "Origin: " + b.URL + ".evil.test\r\n", 403},
		{"no origin", "/app/ws", b.as(b.alice), 403},
		{"an origin that is null", "/app/ws", b.as(b.alice) + "Origin: null\r\n", 403},
		{"two origins", "/app/ws", b.as(b.alice) + own + own, 403},
		{"without the group", "/admin/ws", b.as(b.alice) + own, 403},
		{"no rule", "/ws", b.as(root) + own, 403},
		{"a foreign origin on a public path", "/public/ws", b.as(nil) + "Origin: http://evil.test\r\n", 403},
		{"a dressed-up path", "/public/..%2fadmin/ws", b.as(nil) + own, 400},
	} {
		wantDenied(t, tt.name, b.raw(t, "GET "+tt.path+" HTTP/1.1\r\n"+tt.lines+start+"\r\n").All[0], tt.want)
	}
	if opened := b.app.Open(); opened != 0 {
		t.Errorf("the app was dialled %d times", opened)
	}
	for path, who := range map[string]*gatewaytest.Browser{"/app/ws": b.alice, "/admin/ws": root} {
		conn := wiretest.Dial(t, b.URL)
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\n"+b.as(who)+own+start+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("%s: got %v, %v", path, answer, err)
		}
		_ = conn.Close()
	}
	// The session expires: the access token within minutes, the session with its last handle.
	b.Clock.Add(25 * time.Hour)
	wantDenied(t, "an expired session", b.raw(t, "GET /app/ws HTTP/1.1\r\n"+b.as(b.alice)+own+start+"\r\n").All[0], 401)
}

func TestPX18_methodRulesAreLists(t *testing.T) {
	t.Parallel()
	b, _ := newRuledBench(t, nil)
	own := b.as(b.alice) + "Connection: close\r\n"
	for line, lines := range map[string]string{
		"POST /read": "Content-Length: 0\r\n", "PUT /read": "Content-Length: 0\r\n", "DELETE /read": "", "PROPFIND /read": "", "OPTIONS /read": "",
		"OPTIONS /read/x":  "Origin: " + b.URL + "\r\nAccess-Control-Request-Method: GET\r\n",
		"OPTIONS /admin":   "Origin: " + b.URL + "\r\nAccess-Control-Request-Method: POST\r\n",
		"HEAD /admin":      "",
		"POST /read/x":     "X-HTTP-Method-Override: GET\r\nX-HTTP-Method: GET\r\nX-Method-Override: GET\r\nContent-Length: 0\r\n",
		"POST /read?_m=1":  "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 11\r\n\r\n_method=GET",
		"DELETE /read?a=1": "X-HTTP-Method-Override: HEAD\r\n",
	} {
		if !strings.Contains(lines, "\r\n\r\n") {
			lines += "\r\n"
		}
		wantDenied(t, line, b.raw(t, line+" HTTP/1.1\r\n"+own+lines).All[0], http.StatusForbidden)
	}
	for _, line := range []string{"GET /read", "HEAD /read", "OPTIONS /app/x", "DELETE /app/x"} {
		if got := b.raw(t, line+" HTTP/1.1\r\n"+own+"\r\n").Status(t); got != http.StatusOK {
			t.Errorf("%s: got %d", line, got)
		}
	}
	// The app gets what was asked for as it was asked for: what is a method to us is one to it.
	b.raw(t, "GET /read HTTP/1.1\r\n"+own+"X-HTTP-Method-Override: DELETE\r\n\r\n")
	b.oracles(t, 5)
}

func TestPX19_nothingOpensByAName(t *testing.T) {
	t.Parallel()
	b, _ := newRuledBench(t, nil)
	agents := []string{"kube-probe/1.0", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Prometheus/2.0"}
	for _, target := range []string{
		"/ping", "/health", "/healthz", "/readyz", "/metrics", "/oauth2/ping", "/healthz/../admin", "/healthzadmin", "/healthz/admin", "/.well-known/acme-challenge/x",
		"/.gatehouse/healthz/../../admin", "/.gatehouse/healthzadmin", "/.gatehouse/healthz/admin", "/.gatehouse/healthz/", "/.gatehouse/healthz%2f..%2f..%2fadmin",
		"/.gatehouse/healthz;/admin", "/.gatehouse/../admin", "/.gatehouse/metrics", "/.gatehousehealthz", "/.gatehouse/ping", "/.gatehouse/debug/pprof/", "/debug/pprof/", "/admin?/.gatehouse/healthz",
	} {
		for _, agent := range agents {
			answers := b.raw(t, "GET "+target+" HTTP/1.1\r\n"+b.as(nil)+"User-Agent: "+agent+"\r\nX-Health-Check: 1\r\nConnection: close\r\n\r\n")
			wantDenied(t, agent+" for "+target, answers.All[0], 400, 401, 403, 404)
		}
	}
	b.oracles(t, 0)
}

// PX-27: a connection on which somebody has shown who they are to the app is nobody else's afterwards, and an answer that comes late is no answer
// to the next.
func TestPX27_connectionsCarryNobodyOver(t *testing.T) {
	t.Parallel()
	var known sync.Map // by connection; what an app with connection-bound authentication remembers
	app := wiretest.NewScripted(t, func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		if credentials := r.Values("Authorization"); len(credentials) > 0 {
			known.Store(r.Conn, credentials[0])
		}
		body := "you are "
		if credentials, ok := known.Load(r.Conn); ok {
			body += credentials.(string)
		}
		if r.Target() == "/slow" {
			time.Sleep(300 * time.Millisecond) // until the client has left; that is what is tested
			body = "too late"
		}
		return wiretest.Answer(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))(conn, in, r)
	})
	b := newBench(t, app)
	b.AddUser("bob")
	bob := b.SignIn("bob", b.Enrol("bob"))
	for _, scheme := range []string{"NTLM", "Negotiate", "ntlm", "NEGOTIATE"} {
		first := b.raw(t, "GET /a HTTP/1.1\r\n"+b.as(b.alice)+"Authorization: "+scheme+" alices-proof\r\nConnection: close\r\n\r\n")
		if first.Bodies[0] != "you are "+scheme+" alices-proof" {
			t.Fatalf("%s: alice got %q", scheme, first.Bodies)
		}
		for range 5 {
			if next := b.raw(t, "GET /b HTTP/1.1\r\n"+b.as(bob)+"Connection: close\r\n\r\n"); next.Bodies[0] != "you are " {
				t.Fatalf("%s: bob got %q", scheme, next.Bodies)
			}
		}
	}
	for range 3 {
		conn := wiretest.Dial(t, b.URL)
		before := len(app.Requests())
		if _, err := io.WriteString(conn, "GET /slow HTTP/1.1\r\n"+b.as(b.alice)+"\r\n"); err != nil {
			t.Fatal(err)
		}
		for len(app.Requests()) == before {
			time.Sleep(time.Millisecond)
		}
		_ = conn.Close()
		for range 5 {
			if next := b.raw(t, "GET /b HTTP/1.1\r\n"+b.as(bob)+"Connection: close\r\n\r\n"); next.Bodies[0] != "you are " {
				t.Fatalf("bob got %q", next.Bodies)
			}
		}
	}
}

// PX-28: where an app sends its clients is theirs to go to; the gateway goes nowhere itself.
func TestPX28_redirectsOfTheAppAreNotFollowed(t *testing.T) {
	t.Parallel()
	other := wiretest.NewUpstream(t)
	for _, status := range []string{"301 Moved", "302 Found", "307 Temporary", "308 Permanent"} {
		app := wiretest.NewScripted(t, wiretest.Answer("HTTP/1.1 "+status+"\r\nLocation: "+other.URL+"/latest/meta-data\r\nContent-Length: 0\r\n\r\n"))
		b := newBench(t, app)
		got := b.raw(t, "POST /a HTTP/1.1\r\n"+b.as(b.alice)+"Content-Length: 2\r\nConnection: close\r\n\r\nhi").All[0]
		if got.Header.Get("Location") != other.URL+"/latest/meta-data" || !strings.HasPrefix(status, fmt.Sprint(got.StatusCode)) {
			t.Errorf("%s: got %d to %q", status, got.StatusCode, got.Header.Get("Location"))
		}
	}
	if n := len(other.Requests()); n != 0 {
		t.Errorf("the gateway followed %d times", n)
	}
}

// assertion is what docs/formats.md tells an app to check, written with nothing but a base library, as an app would.
type assertion struct {
	Issuer   string   `json:"iss"`
	Audience string   `json:"aud"`
	Expires  int64    `json:"exp"`
	User     string   `json:"preferred_username"`
	Groups   []string `json:"groups"`
}

// readAssertion is the sample of docs/formats.md in Go.
func readAssertion(raw string, keys map[string]ed25519.PublicKey, issuer, audience string, now time.Time) (assertion, error) {
	var a assertion
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return a, errors.New("not three parts")
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return a, err
		}
	}
	var header struct{ Alg, Typ, Kid string }
	if err := json.Unmarshal(decoded[0], &header); err != nil {
		return a, err
	}
	key, known := keys[header.Kid]
	switch {
	case header.Alg != "EdDSA" || header.Typ != "gatehouse-assertion+jwt" || !known:
		return a, fmt.Errorf("header %s", decoded[0])
	case !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), decoded[2]):
		return a, errors.New("signature")
	}
	if err := json.Unmarshal(decoded[1], &a); err != nil {
		return a, err
	}
	if a.Issuer != issuer || a.Audience != audience || now.Unix() >= a.Expires {
		return a, fmt.Errorf("claims %s", decoded[1])
	}
	return a, nil
}

// readKeys reads a JWKS (RFC 8037).
func readKeys(t *testing.T, text string) map[string]ed25519.PublicKey {
	t.Helper()
	var set struct {
		Keys []struct{ Kid, Kty, Crv, X string }
	}
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		t.Fatal(err)
	}
	keys := map[string]ed25519.PublicKey{}
	for _, k := range set.Keys {
		x, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil || k.Kty != "OKP" || k.Crv != "Ed25519" || len(x) != ed25519.PublicKeySize {
			t.Fatalf("key %+v: %v", k, err)
		}
		keys[k.Kid] = x
	}
	return keys
}

// PX-30: an app that can be reached around the gateway can tell what came through it; headers alone tell it nothing.
func TestPX30_anAppCanTellWhatCameThroughTheGateway(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	keys := readKeys(t, b.NewBrowser().Get("/.gatehouse/jwks.json").Text)
	b.raw(t, "GET /app HTTP/1.1\r\n"+b.as(b.alice)+"Connection: close\r\n\r\n")
	raw := b.app.Last(t).Values("X-Gatehouse-Assertion")[0]
	a, err := readAssertion(raw, keys, b.URL, b.URL, b.Clock.Now())
	if err != nil || a.User != "alice" || !slices.Equal(a.Groups, []string{"staff"}) {
		t.Fatalf("got %+v, %v", a, err)
	}
	parts := strings.Split(raw, ".")
	encode := base64.RawURLEncoding.EncodeToString
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	forged := parts[0] + "." + encode([]byte(strings.Replace(string(payload), `"alice"`, `"root"`, 1))) + "." + parts[2]
	for name, bad := range map[string]string{
		"another user": forged, "no signature": parts[0] + "." + parts[1] + ".", "alg none": encode([]byte(`{"alg":"none","typ":"gatehouse-assertion+jwt"}`)) + "." + parts[1] + ".",
		"the access cookie": b.alice.Jar[accessName], "a name alone": "alice", "nothing": "",
	} {
		if _, err := readAssertion(bad, keys, b.URL, b.URL, b.Clock.Now()); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := readAssertion(raw, keys, b.URL, "https://other.test", b.Clock.Now()); err == nil {
		t.Error("another app accepts it")
	}
	if _, err := readAssertion(raw, keys, b.URL, b.URL, b.Clock.Now().Add(6*time.Minute)); err == nil {
		t.Error("it lives for ever")
	}
}
