package proxy_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"gatehouse/internal/wiretest"
)

// wantIdentity fails the test unless the app saw bob, once in each header, under every folding of the names.
func wantIdentity(t *testing.T, got wiretest.Request) {
	t.Helper()
	cgi := got.CGI()
	for name, want := range map[string]string{
		"HTTP_REMOTE_USER": "bob", "HTTP_REMOTE_NAME": "Bob Müller", "HTTP_REMOTE_EMAIL": "bob@example.com", "HTTP_REMOTE_GROUPS": "staff,wiki",
		"HTTP_X_FORWARDED_HOST": "gate.example", "HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_FOR": "127.0.0.1",
	} {
		if !slices.Equal(cgi[name], []string{want}) {
			t.Errorf("%s: got %q, want %q once", name, cgi[name], want)
		}
	}
	if len(cgi["HTTP_X_GATEHOUSE_ASSERTION"]) != 1 {
		t.Errorf("assertion: got %d, want 1", len(cgi["HTTP_X_GATEHOUSE_ASSERTION"]))
	}
	for name, values := range cgi {
		for _, forbidden := range []string{"X_FORWARDED_USER", "X_REAL_IP", "X_AUTH_REQUEST_USER", "X_WEBAUTH_USER", "X_REMOTE_USER", "X_POMERIUM", "X_FORWARDED_PREFIX", "X_ORIGINAL_URL"} {
			if strings.HasPrefix(name, "HTTP_"+forbidden) {
				t.Errorf("%s reached the app: %q", name, values)
			}
		}
		for _, value := range values {
			if strings.Contains(value, "root") {
				t.Errorf("%s carries what the client forged: %q", name, value)
			}
		}
	}
}

// PX-01: identity headers in every spelling.
func TestProxy_removesIdentityHeadersInEverySpelling(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	names := []string{
		"Remote-User", "remote-user", "Remote_User", "REMOTE.USER", "Remote!User", "Remote-Groups", "remote_email", "Remote-Name",
		"X-Forwarded-User", "x-forwarded-user", "X_Forwarded_User", "X-Forwarded_User", "X-FORWARDED-USER", "X.Forwarded.User",
		"X-Forwarded-Prefix", "X-Forwarded-For", "X_Forwarded_For", "X-Forwarded-Host", "X_Forwarded-Proto", "X-Real-IP", "x_real_ip",
		"X-Auth-Request-User", "X-Remote-User", "X-WEBAUTH-USER", "X-Pomerium-Claim-Email", "X-Pomerium-Jwt-Assertion", "X-Original-URL",
		"X-Gatehouse-Assertion", "X_Gatehouse_Assertion", "X-Gatehouse-Anything", "X~Gatehouse~Assertion",
	}
	shapes := map[string]string{
		"once":              "%[1]s: root\r\n",
		"twice":             "%[1]s: root\r\n%[1]s: root\r\n",
		"empty first value": "%[1]s:\r\n%[1]s: root\r\n",
		"comma":             "%[1]s: root, bob\r\n",
		"9 kB":              "%[1]s: root" + strings.Repeat("x", 9000) + "\r\n",
	}
	for shape, format := range shapes {
		for _, name := range names {
			raw := "GET /" + " HTTP/1.1\r\n" + signedIn + fmt.Sprintf(format, name) + "Connection: close\r\n\r\n"
			if status := g.send(t, raw).Status(t); status != http.StatusOK {
				t.Fatalf("%s, %s: got %d", name, shape, status)
			}
			wantIdentity(t, up.Last(t))
		}
	}
	all := "GET / HTTP/1.1\r\n" + signedIn
	for _, name := range names {
		all += name + ": root\r\n"
	}
	g.send(t, all+"Connection: close\r\n\r\n")
	wantIdentity(t, up.Last(t))
	if bypasses, _ := g.Witness.seen(); !slices.Contains(bypasses, "identity-header") {
		t.Error("the forged headers were not counted")
	}
}

// PX-03: a Connection header cannot take our headers away.
func TestProxy_connectionTokensDoNotRemoveOurHeaders(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	for _, lines := range []string{
		"Connection: Remote-User, close\r\n",
		"connection: remote-user, x-forwarded-for, x-gatehouse-assertion, close\r\n",
		"Connection: rEMOTE-uSER\r\nConnection: Remote-Groups, Remote-Email, Remote-Name, close\r\n",
		"Connection: authorization, cookie, close\r\n",
		"Connection: close\r\nProxy-Connection: Remote-User\r\n",
		"Connection: close, X-Forwarded-Host, X-Forwarded-Proto\r\nX-Forwarded-Host: root\r\n",
	} {
		if status := g.send(t, "GET / HTTP/1.1\r\n"+signedIn+lines+"\r\n").Status(t); status != http.StatusOK {
			t.Fatalf("%q: got %d", lines, status)
		}
		wantIdentity(t, up.Last(t))
		if got := up.Last(t).Values("Proxy-Connection"); got != nil {
			t.Errorf("Proxy-Connection reached the app: %q", got)
		}
	}
}

// PX-05: absent means absent.
func TestProxy_setsOnlyWhatIsKnown(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	g.send(t, "GET / HTTP/1.1\r\nHost: gate.example\r\nCookie: __Host-gatehouse=plain\r\nRemote-Email: root@x\r\nRemote-Groups: admin\r\nRemote_Name: root\r\n"+
		"X-Forwarded-Email: root@x\r\nX-Forwarded-Groups: admin\r\nConnection: close\r\n\r\n")
	cgi := up.Last(t).CGI()
	if !slices.Equal(cgi["HTTP_REMOTE_USER"], []string{"plain"}) {
		t.Errorf("user: got %q", cgi["HTTP_REMOTE_USER"])
	}
	for _, name := range []string{"HTTP_REMOTE_EMAIL", "HTTP_REMOTE_GROUPS", "HTTP_REMOTE_NAME", "HTTP_X_FORWARDED_EMAIL", "HTTP_X_FORWARDED_GROUPS"} {
		if cgi[name] != nil {
			t.Errorf("%s: got %q, want none", name, cgi[name])
		}
	}
}

// PX-06: on every method, on an upgrade, and on what is refused.
func TestProxy_removesIdentityHeadersEverywhere(t *testing.T) {
	t.Parallel()
	up := wiretest.NewScripted(t, func(c net.Conn, _ *bufio.Reader, r wiretest.Request) bool {
		return wiretest.AnswerAndClose("HTTP/1.1 204 No Content\r\n\r\n")(c, nil, r)
	})
	g := newGate(t, up.URL)
	for _, request := range []string{
		"OPTIONS / HTTP/1.1\r\n" + signedIn,
		"HEAD / HTTP/1.1\r\n" + signedIn,
		"PROPFIND / HTTP/1.1\r\n" + signedIn,
		"GET /ws HTTP/1.1\r\n" + signedIn + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\nOrigin: " + external + "\r\n",
	} {
		before := len(up.Requests())
		g.send(t, request+"Remote_User: root\r\nX-Forwarded-User: root\r\n\r\n")
		if len(up.Requests()) != before+1 {
			t.Fatalf("%q did not reach the app", request)
		}
		wantIdentity(t, up.Last(t))
	}
	before := len(up.Requests())
	g.send(t, "GET / HTTP/1.1\r\nHost: gate.example\r\nRemote-User: bob\r\n\r\n")
	if len(up.Requests()) != before {
		t.Error("a forged header alone opened the door")
	}
	if bypasses, _ := g.Witness.seen(); len(bypasses) != 5 {
		t.Errorf("counted: got %d, want 5", len(bypasses))
	}
}

func TestProxy_trailersCarryNoIdentity(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	answers := g.send(t, "POST / HTTP/1.1\r\n"+signedIn+"Transfer-Encoding: chunked\r\nTrailer: X-Checksum, Remote-User, X_Forwarded_User\r\n\r\n"+
		"5\r\nhello\r\n0\r\nX-Checksum: abc\r\nRemote-User: root\r\nX_Forwarded_User: root\r\nRemote-Groups: root\r\nX-Unannounced: root\r\n\r\n")
	if status := answers.Status(t); status != http.StatusOK {
		t.Fatalf("got %d", status)
	}
	got := up.Last(t)
	wantIdentity(t, got)
	if got.Body != "hello" || !slices.Equal(got.Trailer, []wiretest.Field{{Name: "X-Checksum", Value: "abc"}}) {
		t.Errorf("got body %q, trailers %v", got.Body, got.Trailer)
	}
}

func TestProxy_answerCarriesNothingOfOurs(t *testing.T) {
	t.Parallel()
	up := wiretest.NewScripted(t, wiretest.Answer("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nSet-Cookie: __Host-gatehouse=evil\r\nRemote-User: x\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nRemote-User: root\r\nremote_groups: root\r\nX-Gatehouse-Assertion: x\r\nX-Gatehouse-Code: x\r\nAlt-Svc: h3=\":9\"\r\n"+
		"Set-Cookie: __Host-gatehouse=evil; Path=/; Secure\r\nSet-Cookie: app=1\r\nStrict-Transport-Security: max-age=1\r\nServer: app\r\n"+
		"Transfer-Encoding: chunked\r\nTrailer: X-Sum, Remote-User\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nRemote-User: root\r\nX-Gatehouse-Code: late\r\nX-Late: 1\r\n\r\n"))
	g := newGate(t, up.URL)
	answers := g.send(t, "GET / HTTP/1.1\r\n"+signedIn+"\r\n")
	if answers.Status(t) != http.StatusOK || answers.Bodies[0] != "hi" || len(answers.Interim) != 1 {
		t.Fatalf("got %+v", answers)
	}
	final, early := answers.All[0], answers.Interim[0].Header
	for _, h := range []http.Header{final.Header, final.Trailer, early} {
		for name := range h {
			if strings.HasPrefix(name, "Remote") || strings.HasPrefix(name, "X-Gatehouse") || name == "Alt-Svc" {
				t.Errorf("%s reached the client", name)
			}
		}
	}
	if got := final.Header["Set-Cookie"]; !slices.Equal(got, []string{"app=1"}) || early["Set-Cookie"] != nil {
		t.Errorf("cookies: got %q and early %q", got, early["Set-Cookie"])
	}
	if final.Header.Get("Strict-Transport-Security") != "max-age=1" || final.Header.Get("Server") != "app" || early.Get("Link") != "</a.css>" {
		t.Errorf("the app's own headers: got %v, early %v", final.Header, early)
	}
	if final.Trailer.Get("X-Sum") != "1" || final.Trailer.Get("X-Late") != "1" {
		t.Errorf("the app's own trailers: got %v", final.Trailer)
	}
}

func TestProxy_assertionIsForThisAppOnly(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	g.send(t, "GET / HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n")
	if got := up.Last(t).Values("X-Gatehouse-Assertion"); !slices.Equal(got, []string{"bob at " + external}) {
		t.Errorf("got %q", got)
	}
	if got := g.send(t, "GET / HTTP/1.1\r\nHost: gate.example\r\nCookie: __Host-gatehouse=unsigned\r\n\r\n").Status(t); got != http.StatusInternalServerError {
		t.Errorf("without a signature: got %d, want 500", got)
	}
	if len(up.Requests()) != 1 {
		t.Error("reached the app without an assertion")
	}
}

func TestProxy_ourCredentialsStayHere(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	tests := []struct {
		name, lines                   string
		status                        int
		wantCookie, wantAuthorization []string
	}{
		{"cookies", "Cookie: a=1; __Host-gatehouse=bob; b=2\r\n", 200, []string{"a=1; b=2"}, nil},
		{"our bearer", "Authorization: Bearer bobs-token\r\nCookie: a=1\r\n", 200, []string{"a=1"}, nil},
		{"the app's own", "Authorization: Basic YTpi\r\nCookie: __Host-gatehouse=bob\r\n", 200, nil, []string{"Basic YTpi"}},
		{"two lines", "Authorization: Basic YTpi\r\nAuthorization: Bearer bobs-token\r\nCookie: __Host-gatehouse=bob\r\n", 400, nil, nil},
		{"our token, altered", "Authorization: Bearer bobs-tokenx\r\nCookie: __Host-gatehouse=bob\r\n", 401, nil, nil},
	}
	for _, tt := range tests {
		before := len(up.Requests())
		answers := g.send(t, "GET / HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n"+tt.lines+"\r\n")
		if got := answers.Status(t); got != tt.status {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.status)
		}
		if tt.status != 200 {
			if len(up.Requests()) != before {
				t.Errorf("%s: reached the app", tt.name)
			}
			continue
		}
		got := up.Last(t)
		if !slices.Equal(got.Values("Cookie"), tt.wantCookie) || !slices.Equal(got.Values("Authorization"), tt.wantAuthorization) {
			t.Errorf("%s: got cookies %q, authorization %q", tt.name, got.Values("Cookie"), got.Values("Authorization"))
		}
	}
}
