package proxy_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/access"
	"gatehouse/proxy"
	"gatehouse/session"
)

// Look is Authenticate, and who has only an expired token is bob with an old handle.
func (s *people) Look(ctx context.Context, r *http.Request, origin string) (session.Principal, bool, error) {
	p, err := s.Authenticate(ctx, r, origin)
	if err == session.ErrExpired {
		return principal("bob"), true, nil
	}
	return p, false, err
}

func (s *people) LookAgain(context.Context, *http.Request, string) (session.Principal, bool, error) {
	return principal("bob"), false, nil
}

// asker is a front proxy beside a gateway with rules of every kind.
type asker struct {
	handler http.Handler
	witness *witness
	people  *people
}

func newAsker(t testing.TB, change ...func(*proxy.Options)) *asker {
	t.Helper()
	g := &gate{Sessions: &people{}, Witness: &witness{}}
	o := g.on(t, []access.Route{
		{Host: "app.example", Rules: []access.Rule{
			{Paths: []string{"/public"}, Access: access.Public},
			{Paths: []string{"/admin"}, Groups: []string{"admins"}},
			{Paths: []string{"/careful"}, FactorWithin: 15 * time.Minute},
			{Paths: []string{"/read"}, Methods: []string{"GET"}},
			{Paths: []string{"/inside"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Access: access.Public},
			{Paths: []string{"/wiki"}},
		}},
		{Host: "plain.example"},
		{Host: "other.example"},
	}, route(t, "app"), proxy.Route{Name: "plain", HeaderPreset: proxy.PresetForwarded}, proxy.Route{Name: "other", RefuseWhileStoreAway: true})
	for _, c := range change {
		c(&o)
	}
	p, err := proxy.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &asker{witness: g.Witness, people: g.Sessions, handler: p.ForwardAuth(proxy.ForwardAuthOptions{
		Peers: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Handles: g.Sessions,
	})}
}

// way is how one kind of front proxy asks.
type way struct {
	name string
	ask  func(method, host, target string) *http.Request
}

func ask(path string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

var ways = []way{
	{"forward-auth", func(method, host, target string) *http.Request {
		return ask("/.gatehouse/authz/forward-auth", "X-Forwarded-Method", method, "X-Forwarded-Proto", "https", "X-Forwarded-Host", host, "X-Forwarded-Uri", target)
	}},
	{"auth-request", func(method, host, target string) *http.Request {
		return ask("/.gatehouse/authz/auth-request", "X-Original-Method", method, "X-Original-URL", "https://"+host+target)
	}},
	{"ext-authz", func(method, host, target string) *http.Request {
		r := httptest.NewRequest(method, "/.gatehouse/authz/ext-authz"+target, nil)
		r.Host = host
		return r
	}},
}

func (a *asker) send(r *http.Request, headers ...string) *http.Response {
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, r)
	return w.Result()
}

// The answers of contract, section 3, for each way.
func TestForwardAuth_answers(t *testing.T) {
	t.Parallel()
	const bob, document, script = "__Host-gatehouse=bob", "text/html", "application/json"
	tests := []struct {
		method, host, target   string
		cookie, accept         string
		status, nginx          int
		code, location, bearer string
	}{
		{"GET", "app.example", "/wiki/a?b=c", bob, document, 200, 200, "", "", ""},
		{"POST", "app.example", "/wiki/a", bob, script, 200, 200, "", "", ""},
		{"GET", "app.example", "/public/a", "", script, 200, 200, "", "", ""},
		{"GET", "app.example", "/public/a", "__Host-gatehouse=away", script, 200, 200, "", "", ""},
		{"GET", "app.example", "/wiki/a?b=c", "", document, 302, 401, "session-required", external + "/.gatehouse/login?next=https%3A%2F%2Fapp.example%2Fwiki%2Fa%3Fb%3Dc", ""},
		{"HEAD", "app.example", "/wiki", "", document, 302, 401, "session-required", external + "/.gatehouse/login?next=https%3A%2F%2Fapp.example%2Fwiki", ""},
		{"GET", "app.example", "/wiki", "", script, 401, 401, "session-required", "", "Bearer"},
		{"POST", "app.example", "/wiki", "", document, 401, 401, "session-required", "", "Bearer"},
		{"OPTIONS", "app.example", "/wiki", "", document, 401, 401, "session-required", "", "Bearer"},
		{"GET", "app.example", "/careful", "__Host-gatehouse=password", document, 302, 401, "step-up-required", external + "/.gatehouse/login/verify?next=https%3A%2F%2Fapp.example%2Fcareful", ""},
		{"POST", "app.example", "/careful", "__Host-gatehouse=password", script, 401, 401, "step-up-required", "", `Bearer error="insufficient_user_authentication"`},
		{"GET", "app.example", "/admin", bob, document, 403, 403, "forbidden", "", ""},
		{"POST", "app.example", "/read", bob, script, 403, 403, "forbidden", "", ""},
		{"GET", "app.example", "/elsewhere", bob, script, 403, 403, "forbidden", "", ""},
		{"GET", "app.example", "/inside", bob, script, 403, 403, "forbidden", "", ""},
		{"GET", "app.example", "/public/../admin", bob, script, 403, 403, "bad-request", "", ""},
		{"GET", "app.example", "/public/%2e%2e/admin", bob, script, 403, 403, "bad-request", "", ""},
		{"GET", "app.example", "//admin", bob, script, 403, 403, "bad-request", "", ""},
		{"GET", "app.example", "/ADMIN", bob, script, 403, 403, "bad-request", "", ""},
		{"TRACE", "app.example", "/wiki", bob, script, 403, 403, "method-not-allowed", "", ""},
		{"get", "app.example", "/wiki", bob, script, 403, 403, "method-not-allowed", "", ""},
		{"GET", "unknown.example", "/wiki", bob, document, 403, 403, "misdirected", "", ""},
		{"GET", "evil-app.example", "/wiki", bob, document, 403, 403, "misdirected", "", ""},
		{"GET", "app.example", "/wiki", "__Host-gatehouse=away", document, 503, 403, "unavailable", "", ""},
		{"GET", "app.example", "/wiki", "__Host-gatehouse=unsigned", document, 503, 403, "unavailable", "", ""},
		// FA-04: one host in all its spellings.
		{"GET", "APP.example", "/wiki", bob, script, 200, 200, "", "", ""},
		{"GET", "app.example.", "/wiki", bob, script, 200, 200, "", "", ""},
		{"GET", "app.example:443", "/wiki", bob, script, 200, 200, "", "", ""},
		{"GET", "app.example:80", "/wiki", bob, script, 403, 403, "misdirected", "", ""},
		{"GET", "xn--pp-fia.example", "/wiki", bob, script, 403, 403, "misdirected", "", ""},
		{"GET", "[2001:db8::1]", "/wiki", bob, script, 403, 403, "misdirected", "", ""},
		// The renewal route, for navigations alone.
		{"GET", "app.example", "/wiki?a", "__Host-gatehouse=expired", document, 302, 401, "session-required", "https://app.example/.gatehouse/renew?next=%2Fwiki%3Fa", ""},
		{"HEAD", "app.example", "/wiki?a", "__Host-gatehouse=expired", document, 200, 200, "", "", ""},
		{"POST", "app.example", "/wiki?a", "__Host-gatehouse=expired", document, 200, 200, "", "", ""},
		{"GET", "app.example", "/wiki?a", "__Host-gatehouse=expired", script, 200, 200, "", "", ""},
	}
	for _, w := range ways {
		for _, tt := range tests {
			t.Run(w.name+" "+tt.method+" "+tt.host+tt.target+" "+tt.cookie+" "+tt.accept, func(t *testing.T) {
				t.Parallel()
				if w.name == "ext-authz" && strings.HasPrefix(tt.target, "//") {
					return // httptest makes a host of it
				}
				nginx := w.name == "auth-request"
				a := newAsker(t)
				headers := []string{"Accept", tt.accept, "Sec-Fetch-Site", "none"}
				if tt.cookie != "" {
					headers = append(headers, "Cookie", tt.cookie)
				}
				got := a.send(w.ask(tt.method, tt.host, tt.target), headers...)
				want := tt.status
				if nginx {
					want = tt.nginx
				}
				if got.StatusCode != want || got.Header.Get("X-Gatehouse-Code") != tt.code {
					t.Errorf("got %d %q, want %d %q", got.StatusCode, got.Header.Get("X-Gatehouse-Code"), want, tt.code)
				}
				where, other := "Location", "X-Gatehouse-Location"
				if nginx {
					where, other = other, where
				}
				if got.Header.Get(where) != tt.location || got.Header.Get(other) != "" {
					t.Errorf("%s: got %q, want %q", where, got.Header.Get(where), tt.location)
				}
				if challenge := got.Header.Get("WWW-Authenticate"); !nginx && challenge != tt.bearer {
					t.Errorf("challenge: got %q, want %q", challenge, tt.bearer)
				}
				if got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Set-Cookie") != "" {
					t.Errorf("got %v", got.Header)
				}
				if got.StatusCode == http.StatusServiceUnavailable && got.Header.Get("Retry-After") != "5" {
					t.Errorf("Retry-After: got %q", got.Header.Get("Retry-After"))
				}
			})
		}
	}
}

// FA-03: every header is there, and what the app must not get is not.
func TestForwardAuth_identity(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, host, target string
		headers            []string
		want               map[string]string
	}{
		{"bob", "app.example", "/wiki", []string{"Cookie", "a=1; __Host-gatehouse=bob; b=2", "Authorization", "Basic YTpi", "Remote-Groups", "admins"}, map[string]string{
			"Remote-User": "bob", "Remote-Name": "Bob Müller", "Remote-Email": "bob@example.com", "Remote-Groups": "staff,wiki",
			"X-Gatehouse-Assertion": "bob at https://app.example", "Cookie": "a=1; b=2", "Authorization": "Basic YTpi",
		}},
		{"without attributes", "app.example", "/wiki", []string{"Cookie", "__Host-gatehouse=plain"}, map[string]string{
			"Remote-User": "plain", "Remote-Name": "", "Remote-Email": "", "Remote-Groups": "",
			"X-Gatehouse-Assertion": "plain at https://app.example", "Cookie": "", "Authorization": "",
		}},
		{"nobody", "app.example", "/public", []string{"Cookie", "a=1", "Cookie", "__Host-gatehouse-device=x", "Cookie", "b=2"}, map[string]string{
			"Remote-User": "", "Remote-Name": "", "Remote-Email": "", "Remote-Groups": "",
			"X-Gatehouse-Assertion": "", "Cookie": "a=1; b=2", "Authorization": "",
		}},
		{"by token", "app.example", "/wiki", []string{"Authorization", "Bearer bobs-token"}, map[string]string{
			"Remote-User": "bob", "Remote-Name": "Bob Müller", "Remote-Email": "bob@example.com", "Remote-Groups": "staff,wiki",
			"X-Gatehouse-Assertion": "bob at https://app.example", "Cookie": "", "Authorization": "",
		}},
		{"preset", "plain.example", "/", []string{"Cookie", "__Host-gatehouse=bob"}, map[string]string{
			"X-Forwarded-User": "bob", "X-Forwarded-Preferred-Username": "bob", "X-Forwarded-Email": "bob@example.com", "X-Forwarded-Groups": "staff,wiki",
			"Remote-User": "bob", "Remote-Name": "Bob Müller", "Remote-Email": "bob@example.com", "Remote-Groups": "staff,wiki",
			"X-Gatehouse-Assertion": "bob at https://plain.example", "Cookie": "", "Authorization": "",
		}},
	}
	for _, w := range ways {
		for _, tt := range tests {
			a := newAsker(t)
			got := a.send(w.ask("GET", tt.host, tt.target), tt.headers...)
			if got.StatusCode != http.StatusOK {
				t.Errorf("%s, %s: got %d", w.name, tt.name, got.StatusCode)
			}
			for name, value := range tt.want {
				if lines := got.Header[name]; len(lines) != 1 || lines[0] != value {
					t.Errorf("%s, %s: %s: got %q, want %q", w.name, tt.name, name, lines, value)
				}
			}
			if n := len(got.Header); n != len(tt.want)+1 { // and Cache-Control
				t.Errorf("%s, %s: got %v", w.name, tt.name, got.Header)
			}
		}
	}
}

// FA-01: nobody asks who is not listed, and each way reads its own headers only, each of them once.
func TestForwardAuth_badQuestions(t *testing.T) {
	t.Parallel()
	const bob = "__Host-gatehouse=bob"
	for _, peer := range []string{"127.0.0.1:1000", "[::1]:1000", "198.51.100.1:1", "@", ""} {
		a := newAsker(t)
		r := ways[0].ask("GET", "app.example", "/public")
		r.RemoteAddr = peer
		if got := a.send(r, "Cookie", bob, "X-Forwarded-For", "192.0.2.1", "Forwarded", "for=192.0.2.1"); got.StatusCode != http.StatusForbidden || got.Header.Get("Remote-User") != "" {
			t.Errorf("peer %q: got %d", peer, got.StatusCode)
		}
		if bypasses, _ := a.witness.seen(); !slices.Equal(bypasses, []string{"forward-auth-peer"}) {
			t.Errorf("peer %q: counted %v", peer, bypasses)
		}
	}
	drop := func(name string) func(*http.Request) { return func(r *http.Request) { r.Header.Del(name) } }
	again := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Add(name, value) }
	}
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	tests := []struct {
		way    int
		change func(*http.Request)
	}{
		{0, drop("X-Forwarded-Method")},
		{0, drop("X-Forwarded-Proto")},
		{0, drop("X-Forwarded-Host")},
		{0, drop("X-Forwarded-Uri")},
		{0, again("X-Forwarded-Uri", "/wiki")},
		{0, again("X-Forwarded-Host", "app.example")},
		{0, set("X-Forwarded-Host", "app.example, app.example")},
		{0, set("X-Forwarded-Host", "user@app.example")},
		{0, set("X-Forwarded-Host", "app.example/x")},
		{0, set("X-Forwarded-Host", "")},
		{0, set("X-Forwarded-Proto", "javascript")},
		{0, set("X-Forwarded-Proto", "https,http")},
		{0, set("X-Forwarded-Uri", "wiki")},
		{0, set("X-Forwarded-Uri", "https://app.example/wiki")},
		{0, set("X-Forwarded-Uri", "/wiki#/x")},
		{0, set("X-Forwarded-Uri", "/wi ki")},
		{0, set("X-Forwarded-Uri", "/wiki\t")},
		{0, set("X-Forwarded-Uri", "/wiki%zz")},
		{0, set("X-Forwarded-Uri", "")},
		{0, set("X-Forwarded-Method", "GET, POST")},
		{1, drop("X-Original-Url")},
		{1, drop("X-Original-Method")},
		{1, again("X-Original-Url", "https://app.example/wiki")},
		{1, again("X-Original-Method", "GET")},
		{1, set("X-Original-Url", "/wiki")},
		{1, set("X-Original-Url", "//app.example/wiki")},
		{1, set("X-Original-Url", "https://app.example")},
		{1, set("X-Original-Url", "https://app.example?/wiki")},
		{1, set("X-Original-Url", "https://user:pass@app.example/wiki")},
		{1, set("X-Original-Url", `https://evil.example\.app.example/wiki`)},
		{1, set("X-Original-Url", "HTTPS://app.example/wiki")},
		{1, set("X-Original-Url", "ftp://app.example/wiki")},
		{2, func(r *http.Request) { r.RequestURI = "/.gatehouse/authz/ext-authz" }},
		{2, func(r *http.Request) { r.RequestURI = "/.gatehouse/authz/%65xt-authz/wiki" }},
		{2, func(r *http.Request) { r.RequestURI = "http://x/.gatehouse/authz/ext-authz/wiki" }},
		{2, func(r *http.Request) { r.RequestURI = "/.gatehouse/authz/ext-authz/../wiki" }},
		{2, func(r *http.Request) { r.RequestURI = "/.gatehouse/authz/other" }},
		{2, func(r *http.Request) { r.Host = "" }},
	}
	for i, tt := range tests {
		a := newAsker(t)
		r := ways[tt.way].ask("GET", "app.example", "/wiki")
		// What belongs to the other ways says nothing.
		for _, h := range []string{"X-Forwarded-Prefix", "X-Forwarded-Port", "X_Forwarded_Uri", "X-Forwarded_uri", "X.Forwarded.Uri", "X-Envoy-Original-Path"} {
			r.Header[h] = []string{"/public"}
		}
		tt.change(r)
		got := a.send(r, "Cookie", bob)
		if got.StatusCode != http.StatusForbidden || got.Header.Get("Remote-User") != "" {
			t.Errorf("case %d (%s): got %d %q", i, ways[tt.way].name, got.StatusCode, got.Header.Get("X-Gatehouse-Code"))
		}
	}
}

// FA-05: what opens a WebSocket is never redirected, and needs the origin of the app.
func TestForwardAuth_webSockets(t *testing.T) {
	t.Parallel()
	tests := []struct {
		cookie, origin string
		status         int
		code           string
	}{
		{"__Host-gatehouse=bob", "https://app.example", 200, ""},
		{"__Host-gatehouse=expired", "https://app.example", 200, ""},
		{"__Host-gatehouse=bob", "https://evil.example", 403, "cross-site"},
		{"__Host-gatehouse=bob", "", 403, "cross-site"},
		{"", "https://app.example", 401, "session-required"},
	}
	for _, w := range ways {
		for _, tt := range tests {
			headers := []string{"Accept", "text/html", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version", "13"}
			if tt.cookie != "" {
				headers = append(headers, "Cookie", tt.cookie)
			}
			if tt.origin != "" {
				headers = append(headers, "Origin", tt.origin)
			}
			got := newAsker(t).send(w.ask("GET", "app.example", "/wiki"), headers...)
			if got.StatusCode != tt.status || got.Header.Get("X-Gatehouse-Code") != tt.code || got.Header.Get("X-Gatehouse-Location") != "" {
				t.Errorf("%s, %+v: got %d %v", w.name, tt, got.StatusCode, got.Header)
			}
		}
	}
}

// A route may refuse while revocations do not arrive; a session whose factor is fresh at another gateway is looked at again.
func TestForwardAuth_storeAwayAndStepUp(t *testing.T) {
	t.Parallel()
	a := newAsker(t)
	a.people.away.Store(true)
	if got := a.send(ways[0].ask("GET", "other.example", "/"), "Cookie", "__Host-gatehouse=bob"); got.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", got.StatusCode)
	}
	if got := a.send(ways[0].ask("GET", "plain.example", "/"), "Cookie", "__Host-gatehouse=bob"); got.StatusCode != http.StatusOK {
		t.Errorf("got %d, want 200", got.StatusCode)
	}
}

// What a front proxy can make of a client's request never leads to another decision than that of the request which it sends on.
func FuzzReadQuestion(f *testing.F) {
	f.Add("/.gatehouse/authz/forward-auth", "GET", "https", "app.example", "/wiki", "", "")
	f.Add("/.gatehouse/authz/forward-auth?x", "POST", "ws", "app.example:443", "/public/%2e%2e/admin?a=b", "", "")
	f.Add("/.gatehouse/authz/auth-request", "", "", "", "", "GET", "https://app.example/wiki?next=https://evil/")
	f.Add("/.gatehouse/authz/auth-request", "", "", "", "", "GET", "https://user@app.example/wiki#x")
	f.Add("/.gatehouse/authz/ext-authz/wiki?a", "GET", "", "app.example", "", "", "")
	f.Add("/.gatehouse/authz/ext-authz//evil/../x", "GET", "", "app.example", "", "", "")
	f.Fuzz(func(t *testing.T, uri, method, proto, host, target, originalMethod, originalURL string) {
		r := &http.Request{Method: method, Host: host, RequestURI: uri, Header: http.Header{
			"X-Forwarded-Method": {method}, "X-Forwarded-Proto": {proto}, "X-Forwarded-Host": {host}, "X-Forwarded-Uri": {target},
			"X-Original-Method": {originalMethod}, "X-Original-Url": {originalURL},
		}}
		gotMethod, gotHost, gotTarget, ok := proxy.ReadQuestion(r)
		if !ok {
			return
		}
		wantMethod, wantHost, wantTarget := method, host, target
		switch {
		case strings.HasPrefix(uri, "/.gatehouse/authz/auth-request"):
			wantMethod = originalMethod
			_, rest, _ := strings.Cut(originalURL, "://")
			wantHost, wantTarget, _ = strings.Cut(rest, "/")
			wantTarget = "/" + wantTarget
		case strings.HasPrefix(uri, "/.gatehouse/authz/ext-authz"):
			wantTarget = strings.TrimPrefix(uri, "/.gatehouse/authz/ext-authz")
		}
		if gotMethod != wantMethod || gotHost != wantHost || gotTarget != wantTarget {
			t.Errorf("got %q %q %q, want %q %q %q", gotMethod, gotHost, gotTarget, wantMethod, wantHost, wantTarget)
		}
		if strings.ContainsAny(gotHost, "/@?#\\ \t\r\n,%") || gotHost == "" || gotTarget[0] != '/' || strings.ContainsAny(gotTarget, "# \t\r\n") {
			t.Errorf("accepted %q %q", gotHost, gotTarget)
		}
	})
}

func BenchmarkForwardAuth(b *testing.B) {
	a := newAsker(b)
	r := ways[0].ask("GET", "app.example", "/wiki")
	r.Header.Set("Cookie", "a=1; __Host-gatehouse=bob")
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		a.handler.ServeHTTP(w, r)
	}
}
