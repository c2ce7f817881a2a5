package proxy_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/access"
	"gatehouse/audit"
	"gatehouse/internal/wiretest"
	"gatehouse/proxy"
)

// newSite starts a proxy with rules of every kind on several hosts, all before one app.
func newSite(t *testing.T, change ...func(*proxy.Options)) (*gate, *wiretest.Upstream) {
	t.Helper()
	up := wiretest.NewUpstream(t)
	rules := []access.Route{
		{Host: "gate.example", Rules: []access.Rule{
			{Paths: []string{"/public"}, Access: access.Public},
			{Paths: []string{"/admin"}, Groups: []string{"admins"}},
			{Paths: []string{"/wiki"}, Groups: []string{"wiki"}},
			{Paths: []string{"/closed"}, Access: access.Denied},
			{Paths: []string{"/careful"}, FactorWithin: 15 * time.Minute},
			{Paths: []string{"/inside"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Access: access.Public},
			{Paths: []string{"/read"}, Methods: []string{"GET"}},
		}},
		{Host: "*.apps.example"},
		{Host: "partly.example", Path: "/app"},
	}
	routes := []proxy.Route{route(t, "gate", up.URL), route(t, "apps", up.URL), route(t, "partly", up.URL)}
	g := newGate(t, up.URL, append([]func(*proxy.Options){func(o *proxy.Options) {
		made := (&gate{Sessions: &people{}}).on(t, rules, routes...)
		o.Table, o.Routes = made.Table, made.Routes
	}}, change...)...)
	return g, up
}

func TestProxy_rules(t *testing.T) {
	t.Parallel()
	g, up := newSite(t)
	const bob, plain, token = "Cookie: __Host-gatehouse=bob\r\n", "Cookie: __Host-gatehouse=plain\r\n", "Authorization: Bearer bobs-token\r\n"
	tests := []struct {
		line, host, header string
		want               int
		location, code     string
	}{
		{"GET /public/a", "gate.example", "", 200, "", ""},
		{"GET /public/a", "gate.example", bob, 200, "", ""},
		{"GET /public/a", "gate.example", "Cookie: __Host-gatehouse=away\r\n", 200, "", ""},
		{"GET /public/a", "gate.example", "Cookie: __Host-gatehouse=stranger\r\n", 200, "", ""},
		{"GET /public/a", "gate.example", "Authorization: Bearer bobs-tokenx\r\n", 401, "", "session-required"},
		{"GET /public/a", "gate.example", "Authorization: Basic YTpi\r\nAuthorization: Bearer bobs-token\r\n", 400, "", "bad-request"},
		{"GET /public/../admin", "gate.example", "", 400, "", "bad-request"},
		{"GET /publicly", "gate.example", bob, 403, "", "forbidden"},
		{"GET /admin", "gate.example", bob, 403, "", "forbidden"},
		{"GET /admin", "gate.example", "Accept: text/html\r\n", 302, external + "/.gatehouse/login?next=%2Fadmin", ""},
		{"GET /wiki/a?b", "gate.example", bob, 200, "", ""},
		{"GET /wiki/a?b", "gate.example", plain, 403, "", "forbidden"},
		{"GET /closed", "gate.example", "Accept: text/html\r\n", 403, "", "forbidden"},
		{"GET /careful", "gate.example", bob, 200, "", ""},
		{"GET /careful", "gate.example", "Cookie: __Host-gatehouse=password\r\nAccept: text/html\r\n", 302, external + "/.gatehouse/login/verify?next=%2Fcareful", ""},
		{"GET /careful", "gate.example", "Cookie: __Host-gatehouse=password\r\n", 401, "", "step-up-required"},
		{"GET /careful", "gate.example", "Cookie: __Host-gatehouse=tired\r\n", 401, "", "step-up-required"},
		{"GET /inside", "gate.example", "", 403, "", "forbidden"},
		{"GET /read", "gate.example", bob, 200, "", ""},
		{"HEAD /read", "gate.example", bob, 200, "", ""},
		{"POST /read", "gate.example", bob + "Content-Length: 0\r\n", 403, "", "forbidden"},
		{"OPTIONS /read", "gate.example", bob + "Access-Control-Request-Method: GET\r\n", 403, "", "forbidden"},
		{"POST /read", "gate.example", bob + "X-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n", 403, "", "forbidden"},
		{"GET /x", "one.apps.example", token, 200, "", ""},
		{"GET /a%2F/../b", "one.apps.example", bob, 200, "", ""}, // on a host whose rules do not tell paths apart they are the app's
		{"GET /x?y=1", "One.apps.example.", "Accept: text/html\r\n", 302, external + "/.gatehouse/login?next=https%3A%2F%2Fone.apps.example%2Fx%3Fy%3D1", ""},
		{"GET /", "one.apps.example", "Accept: text/html\r\n", 302, external + "/.gatehouse/login?next=https%3A%2F%2Fone.apps.example%2F", ""},
		{"GET /x", "a.b.apps.example", bob, 421, "", "misdirected"},
		{"GET /x", "apps.example", bob, 421, "", "misdirected"},
		{"GET /x", "partly.example", bob, 404, "", "not-found"},
		{"GET /app/x", "partly.example", bob, 200, "", ""},
	}
	for _, tt := range tests {
		before := len(up.Requests())
		answers := g.send(t, tt.line+" HTTP/1.1\r\nHost: "+tt.host+"\r\nConnection: close\r\n"+tt.header+"\r\n")
		got := answers.All[0]
		if got.StatusCode != tt.want || got.Header.Get("Location") != tt.location || !strings.Contains(answers.Bodies[0], tt.code) {
			t.Errorf("%s at %s with %q: got %d to %q, %s", tt.line, tt.host, tt.header, got.StatusCode, got.Header.Get("Location"), answers.Bodies[0])
		}
		if reached := len(up.Requests()) > before; reached != (tt.want == http.StatusOK) {
			t.Errorf("%s at %s with %q: reached the app: %v", tt.line, tt.host, tt.header, reached)
		}
	}
}

// PX-16 over HTTP/2, where the path is a field of its own.
func TestProxy_rulesOverHTTP2(t *testing.T) {
	t.Parallel()
	g, up := newSite(t)
	server := g.overTLS(t)
	status := func(path, cookie string) int {
		r := (&http.Request{
			Method: http.MethodGet, Host: "gate.example", Header: http.Header{"Cookie": {"__Host-gatehouse=" + cookie}},
			URL: &url.URL{Scheme: "https", Host: server.Listener.Addr().String(), Opaque: path},
		}).WithContext(t.Context())
		answer, err := server.Client().Transport.RoundTrip(r)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		_ = answer.Body.Close()
		if answer.ProtoMajor != 2 {
			t.Fatalf("over %s", answer.Proto)
		}
		return answer.StatusCode
	}
	for _, path := range []string{
		"/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public/%252e%252e/admin", "/public/..;/admin", "/public%2f..%2fadmin", "/./admin",
		"/ADMIN", "/%61dmin", "/admin;x=1", "/admin%20", "/admin%00", `/public\..\admin`, "/public/%ef%bc%8e%ef%bc%8e/admin", "/public//../admin", "/public/é", "/admin/.",
	} {
		for _, who := range []string{"nobody", "bob"} {
			if got := status(path, who); got != http.StatusBadRequest {
				t.Errorf("%s for %s: got %d, want 400", path, who, got)
			}
		}
	}
	if len(up.Requests()) != 0 {
		t.Errorf("the app got %s", up.Last(t).Line)
	}
	if got := status("/public/a%20b?x=/../admin", "nobody"); got != http.StatusOK || up.Last(t).Target() != "/public/a%20b?x=/../admin" {
		t.Errorf("what is public: got %d, %s", got, up.Last(t).Target())
	}
}

// PX-06: on a public route a client's own names are taken out as anywhere, and a session that is there is named.
func TestProxy_publicRequestsCarryNoIdentityOfTheClients(t *testing.T) {
	t.Parallel()
	g, up := newSite(t)
	const forged = "Remote-User: root\r\nremote_groups: admin\r\nX-Forwarded-User: root\r\nX-Gatehouse-Assertion: x\r\n"
	g.send(t, "GET /public/a HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n"+forged+"\r\n")
	for name, values := range up.Last(t).CGI() {
		if strings.HasPrefix(name, "HTTP_REMOTE") || strings.Contains(name, "USER") || strings.Contains(name, "ASSERTION") {
			t.Errorf("nobody: the app got %s: %q", name, values)
		}
	}
	g.send(t, "GET /public/a HTTP/1.1\r\n"+signedIn+"Connection: close\r\n"+forged+"\r\n")
	wantIdentity(t, up.Last(t))
}

// The assertion and the forwarded headers are for the host that was asked for, of a wildcard as of any other.
func TestProxy_hostsOfAWildcardAreHostsOfTheirOwn(t *testing.T) {
	t.Parallel()
	g, up := newSite(t)
	for _, host := range []string{"one.apps.example", "two.apps.example"} {
		g.send(t, "GET / HTTP/1.1\r\nHost: "+host+"\r\nCookie: __Host-gatehouse=bob\r\nConnection: close\r\n\r\n")
		got := up.Last(t)
		if !slices.Equal(got.Values("X-Gatehouse-Assertion"), []string{"bob at https://" + host}) || !slices.Equal(got.Values("X-Forwarded-Host"), []string{host}) {
			t.Errorf("%s: the app got %v", host, got.Header)
		}
	}
}

func TestProxy_denialsAreCounted(t *testing.T) {
	t.Parallel()
	g, _ := newSite(t)
	g.send(t, "GET /admin/secret HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n")
	g.send(t, "GET /nowhere HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n\r\n")
	g.send(t, "GET /public/..%2fadmin HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n\r\n")
	if attempts, _ := g.Witness.seen(); !slices.Equal(attempts, []string{"ambiguous-path"}) {
		t.Errorf("attempts: got %q", attempts)
	}
	denials := g.Witness.denied()
	if len(denials) != 2 {
		t.Fatalf("got %d records", len(denials))
	}
	who, nobody := denials[0], denials[1]
	if who.Actor != (audit.Actor{Type: audit.ActorUser, ID: "id-of-bob", Name: "bob"}) || who.Session != "public-of-bob" || who.Code != "forbidden" ||
		who.Client.Address != "127.0.0.1" || who.Client.Network != "127.0.0.0/24" ||
		who.Details["route"] != "gate" || who.Details["rule"] != "2" || who.Details["reason"] != "user-and-groups-not-listed" {
		t.Errorf("of a user: got %+v", who)
	}
	if nobody.Actor.Type != audit.ActorClient || nobody.Details["rule"] != "none" || nobody.Details["reason"] != "no-rule" {
		t.Errorf("of nobody: got %+v", nobody)
	}
}

func TestProxy_refusesWhileTheStoreIsAwayWhereARouteAsksForIt(t *testing.T) {
	t.Parallel()
	g, _ := newSite(t, func(o *proxy.Options) { o.Routes[0].RefuseWhileStoreAway = true })
	status := func(host, path string) int {
		return g.send(t, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nCookie: __Host-gatehouse=bob\r\nConnection: close\r\n\r\n").Status(t)
	}
	for _, away := range []bool{false, true, false} {
		g.Sessions.away.Store(away)
		want := 200
		if away {
			want = 503
		}
		if got := status("gate.example", "/wiki"); got != want {
			t.Errorf("away %v: got %d, want %d", away, got, want)
		}
		if public, other := status("gate.example", "/public"), status("x.apps.example", "/"); public != 200 || other != 200 {
			t.Errorf("away %v: public got %d, another route %d", away, public, other)
		}
	}
}

// The cookies of a renewal reach the browser also with an answer of the gateway's own: the former handle is worth nothing any more.
func TestProxy_refusalsCarryTheCookiesOfARenewal(t *testing.T) {
	t.Parallel()
	g, _ := newSite(t)
	got := g.send(t, "GET /admin HTTP/1.1\r\nHost: gate.example\r\nCookie: __Host-gatehouse=expired\r\nConnection: close\r\n\r\n").All[0]
	if got.StatusCode != http.StatusForbidden || len(got.Header["Set-Cookie"]) != 1 {
		t.Errorf("got %d, %q", got.StatusCode, got.Header["Set-Cookie"])
	}
}
