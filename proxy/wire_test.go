package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"gatehouse/access"
	"gatehouse/internal/wiretest"
	"gatehouse/proxy"
)

// The target arrives byte for byte (contract, "Routes"; PX-20 for the query).
func TestProxy_targetArrivesAsSent(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	targets := []string{
		"/", "/a/b", "/a%2fb", "/a%2Fb", "/%61dmin", "/a/../b", "/../../etc/passwd", "/./a", "/a/.", "//", "//evil.example/x", "/a//b",
		"///", "/a;x=1", "/a%20b", "/a+b", "/%00", "/%ff%fe", "/%E2%82%AC", "/a|b", "/a\"b", "/a^b`{}<>", "/a\\b", "/[x]", "/€", "/a:b@c", "/%25", "/a%252fb",
		"/?", "/??", "/?a", "/?a=1;admin=1", "/?a=%zz&role=x", "/?%00", "/?a=b=c&&&", "/?a=\"|^`{}", "/?/../x", "/?a=1?b=2", "/x?q=€",
		"/?" + strings.Repeat("a=1&", 7000) + "last=1",
		"/*", "/.gatehouse", "/.Gatehouse/login", "/http://evil.example/",
	}
	for _, target := range targets {
		answers := g.send(t, "GET "+target+" HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n")
		if status := answers.Status(t); status != http.StatusOK {
			t.Errorf("%.60q: got %d", target, status)
			continue
		}
		if got := up.Last(t).Line; got != "GET "+target+" HTTP/1.1" {
			t.Errorf("%.60q: the app got %.80q", target, got)
		}
	}
}

// PX-11 and what is no target: refused, and nothing reaches the app.
func TestProxy_refusesMalformedTargetsAndHosts(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	const cookie = "Cookie: __Host-gatehouse=bob\r\n"
	tests := []struct {
		name, raw string
		want      []int
	}{
		{"no host", "GET / HTTP/1.1\r\n" + cookie, []int{400}},
		{"two hosts", "GET / HTTP/1.1\r\nHost: gate.example\r\nHost: evil.example\r\n" + cookie, []int{400}},
		{"empty host", "GET / HTTP/1.1\r\nHost:\r\n" + cookie, []int{400, 421}},
		{"other host", "GET / HTTP/1.1\r\nHost: evil.example\r\n" + cookie, []int{421}},
		{"host as a suffix", "GET / HTTP/1.1\r\nHost: evil-gate.example\r\n" + cookie, []int{421}},
		{"other port", "GET / HTTP/1.1\r\nHost: gate.example:8443\r\n" + cookie, []int{421}},
		{"http's port on an https origin", "GET / HTTP/1.1\r\nHost: gate.example:80\r\n" + cookie, []int{421}},
		{"userinfo", "GET / HTTP/1.1\r\nHost: gate.example@evil.example\r\n" + cookie, []int{400, 421}},
		{"slash", "GET / HTTP/1.1\r\nHost: gate.example/x\r\n" + cookie, []int{400, 421}},
		{"space", "GET / HTTP/1.1\r\nHost: gate.example x\r\n" + cookie, []int{400}},
		{"absolute form, other authority", "GET http://evil.example/ HTTP/1.1\r\n" + signedIn, []int{421}},
		{"absolute form without authority", "GET http:///a HTTP/1.1\r\n" + signedIn, []int{400}},
		{"absolute form of a file", "GET file:///etc/passwd HTTP/1.1\r\n" + signedIn, []int{400}},
		{"absolute form of another scheme", "GET ftp://gate.example/a HTTP/1.1\r\n" + signedIn, []int{400}},
		{"opaque", "GET mailto:x HTTP/1.1\r\n" + signedIn, []int{400}},
		{"forwarded host does not choose", "GET / HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: gate.example\r\n" + cookie, []int{421}},
		{"star", "GET * HTTP/1.1\r\n" + signedIn, []int{400}},
		{"empty target", "GET  HTTP/1.1\r\n" + signedIn, []int{400}},
		{"no slash", "GET admin HTTP/1.1\r\n" + signedIn, []int{400}},
		{"fragment", "GET /public#/../admin HTTP/1.1\r\n" + signedIn, []int{400}},
		{"bad escape in the path", "GET /%zz HTTP/1.1\r\n" + signedIn, []int{400}},
		{"two slashes that cannot be written back", "GET //a\"b HTTP/1.1\r\n" + signedIn, []int{400}},
		{"control in the path", "GET /a\x01b HTTP/1.1\r\n" + signedIn, []int{400}},
	}
	for _, tt := range tests {
		answers := g.send(t, tt.raw+"Connection: close\r\n\r\n")
		if got := answers.Status(t); !slices.Contains(tt.want, got) {
			t.Errorf("%s: got %d, want one of %v", tt.name, got, tt.want)
		}
	}
	if got := up.Requests(); len(got) != 0 {
		t.Errorf("reached the app: %q", got[0].Line)
	}
}

func TestProxy_hostInEverySpellingIsOneHost(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	for _, host := range []string{"gate.example", "GATE.Example", "gate.example.", "gate.example:443"} {
		answers := g.send(t, "GET / HTTP/1.1\r\nHost: "+host+"\r\nCookie: __Host-gatehouse=bob\r\nConnection: close\r\n\r\n")
		if got := answers.Status(t); got != http.StatusOK {
			t.Errorf("%s: got %d", host, got)
			continue
		}
		if got := up.Last(t); !slices.Equal(got.Values("Host"), []string{host}) || !slices.Equal(got.Values("X-Forwarded-Host"), []string{"gate.example"}) {
			t.Errorf("%s: the app got %q and %q", host, got.Values("Host"), got.Values("X-Forwarded-Host"))
		}
	}
	answers := g.send(t, "GET http://gate.example/a?b HTTP/1.1\r\nHost: other.example\r\nCookie: __Host-gatehouse=bob\r\nConnection: close\r\n\r\n")
	if got := answers.Status(t); got != http.StatusOK || up.Last(t).Line != "GET /a?b HTTP/1.1" {
		t.Errorf("absolute form: got %d, %q", got, up.Last(t).Line)
	}
}

// PX-15: only listed methods, in their own case; and nobody gets another's answer afterwards.
func TestProxy_methods(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "MKCALENDAR"} {
		if got := g.send(t, method+" /m HTTP/1.1\r\n"+signedIn+"Connection: close\r\nContent-Length: 2\r\n\r\nhi").Status(t); got != http.StatusOK {
			t.Errorf("%s: got %d", method, got)
		}
		if got := up.Last(t); got.Line != method+" /m HTTP/1.1" || got.Body != "hi" {
			t.Errorf("%s: the app got %q with %q", method, got.Line, got.Body)
		}
	}
	before := len(up.Requests())
	for _, line := range []string{"CONNECT evil.example:443", "CONNECT gate.example:443", "TRACE /", "TRACK /", "FOO /", "get /", "Get /", "QUERY /", "DEBUG /", "PRI /"} {
		answers := g.send(t, line+" HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n")
		got := answers.All[0]
		allowed := []int{http.StatusMethodNotAllowed}
		if strings.HasPrefix(line, "CONNECT") {
			allowed = append(allowed, http.StatusMisdirectedRequest) // its target is another host and port
		}
		if !slices.Contains(allowed, got.StatusCode) || got.StatusCode == 405 && !strings.Contains(got.Header.Get("Allow"), "GET") {
			t.Errorf("%s: got %d, Allow %q", line, got.StatusCode, got.Header.Get("Allow"))
		}
		if got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the refusal may be stored", line)
		}
	}
	if answers := g.send(t, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); len(answers.All) > 0 && answers.All[0].StatusCode < 400 {
		t.Errorf("HTTP/2 preface: got %d", answers.All[0].StatusCode)
	}
	if len(up.Requests()) != before {
		t.Error("a refused method reached the app")
	}
	for i := range 3 {
		if body := g.send(t, fmt.Sprintf("GET /own-%d HTTP/1.1\r\n%sConnection: close\r\n\r\n", i, signedIn)).Bodies[0]; !strings.Contains(body, fmt.Sprintf("/own-%d", i)) {
			t.Errorf("request %d got another's answer: %s", i, body)
		}
	}
}

// PX-07: a message is framed in one way, and what another reading would take for a request never arrives.
func TestProxy_smuggling(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	const canary = "GET /canary HTTP/1.1\r\n" + signedIn + "\r\n"
	headers := map[string]string{
		"CL.TE":                   fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 5+len(canary)),
		"TE.CL":                   "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
		"xchunked":                "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"chunked, identity":       "Content-Length: 5\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		"identity":                "Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"vertical tab":            "Content-Length: 5\r\nTransfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
		"space before colon":      "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"folded":                  "Content-Length: 5\r\nTransfer-Encoding:\n chunked\r\n\r\n0\r\n\r\n",
		"two TE":                  "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"two TE, equal":           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":             "Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
		"length +0":               "Content-Length: +0\r\n\r\n",
		"length 0x0":              "Content-Length: 0x0\r\n\r\n",
		"length 0,0":              "Content-Length: 0,0\r\n\r\n",
		"length -1":               "Content-Length: -1\r\n\r\n",
		"length 2^64":             "Content-Length: 18446744073709551616\r\n\r\n",
		"empty length":            "Content-Length:\r\n\r\n",
		"TE in upper case and CL": "TRANSFER-ENCODING: CHUNKED\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
	}
	for name, rest := range headers {
		answers := g.send(t, "POST /"+" HTTP/1.1\r\n"+signedIn+rest+canary)
		if len(answers.All) != 1 || !answers.Closed {
			t.Errorf("%s: got %d answers, closed %v", name, len(answers.All), answers.Closed)
		}
	}
	old := "POST / HTTP/1.0\r\n" + signedIn + "Connection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
	if answers := g.send(t, old+canary); !answers.Closed || len(answers.All) != 1 {
		t.Errorf("HTTP/1.0: got %d answers, closed %v", len(answers.All), answers.Closed)
	}
	for _, r := range up.Requests() {
		if strings.Contains(r.Line, "canary") {
			t.Fatalf("the smuggled request arrived after %v", r.Header)
		}
		if r.Framing == "length" && len(r.Values("Transfer-Encoding")) > 0 {
			t.Errorf("framed twice: %v", r.Header)
		}
	}
}

// PX-09: malformed chunks.
func TestProxy_malformedChunks(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	bodies := map[string]string{
		"bare LF":             "5\nhello\r\n0\r\n\r\n",
		"bare CR":             "5\rhello\r\n0\r\n\r\n",
		"extension of 1 MB":   "5;" + strings.Repeat("a", 1<<20) + "\r\nhello\r\n0\r\n\r\n",
		"negative":            "-1\r\nhello\r\n0\r\n\r\n",
		"overflow":            "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
		"more digits":         "00000000000000000000005\r\nhello\r\n0\r\n\r\n",
		"prefix":              "0x5\r\nhello\r\n0\r\n\r\n",
		"no size":             "\r\nhello\r\n0\r\n\r\n",
		"missing CRLF":        "5\r\nhello0\r\n\r\n",
		"wrong end of a body": "5\r\nhello\r\n0\r\nGET /canary HTTP/1.1\r\n" + signedIn + "\r\n",
	}
	for name, body := range bodies {
		before := len(up.Requests())
		conn := wiretest.Dial(t, g.URL)
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\n"+signedIn+"Transfer-Encoding: chunked\r\n\r\n"+body) // may be cut off
		_ = conn.(*net.TCPConn).CloseWrite()                                                                  // no more comes: a size that is only too large must not wait for ever
		answers := wiretest.ReadAnswers(t, conn, "POST")
		if !answers.Closed || len(answers.All) > 1 {
			t.Errorf("%s: got %d answers, closed %v", name, len(answers.All), answers.Closed)
		}
		if len(answers.All) == 1 && answers.All[0].StatusCode != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", name, answers.All[0].StatusCode)
		}
		if len(up.Requests()) != before {
			t.Errorf("%s: the app got a whole request: %q", name, up.Last(t).Body)
		}
	}
}

// PX-10: header lines that are two things at once.
func TestProxy_foldedAndBrokenHeaderLines(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	lines := map[string]string{
		"folded":             "X-A: 1\r\n  Remote-User: root\r\n",
		"folded by tab":      "X-A: 1\r\n\tRemote-User: root\r\n",
		"leading space":      " Remote-User: root\r\n",
		"space in the name":  "Remote-User : root\r\n",
		"tab in the name":    "Remote\tUser: root\r\n",
		"NUL in the name":    "Remote-User\x00: root\r\n",
		"UTF-8 in the name":  "Remote-Usér: root\r\n",
		"no name":            ": root\r\n",
		"bare CR in a value": "X-A: 1\rRemote-User: root\r\n",
		"NUL in a value":     "X-A: 1\x00root\r\n",
		"DEL in a value":     "X-A: root\x7f\r\n",
		"bare LF":            "X-A: 1\nRemote-User: root\r\n",
	}
	for name, line := range lines {
		before := len(up.Requests())
		answers := g.send(t, "GET / HTTP/1.1\r\n"+line+signedIn+"Connection: close\r\n\r\n")
		if len(up.Requests()) == before {
			if got := answers.Status(t); got != http.StatusBadRequest {
				t.Errorf("%s: got %d, want 400", name, got)
			}
			continue
		}
		got := up.Last(t)
		if user := got.CGI()["HTTP_REMOTE_USER"]; !slices.Equal(user, []string{"bob"}) {
			t.Errorf("%s: the app takes the user for %q", name, user)
		}
		for _, f := range got.Header {
			if strings.Contains(f.Value, "root") && f.Name != "X-A" {
				t.Errorf("%s: became the header %v", name, f)
			}
		}
	}
}

// PX-24: headers beyond their bounds.
func TestProxy_headerLimits(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	tests := []struct{ name, raw string }{
		{"1 MB header", "GET / HTTP/1.1\r\n" + signedIn + "X-A: " + strings.Repeat("a", 1<<20) + "\r\n"},
		{"10 000 headers", "GET / HTTP/1.1\r\n" + signedIn + strings.Repeat("X-A: a\r\n", 10_000)},
		{"201 headers", "GET / HTTP/1.1\r\n" + signedIn + strings.Repeat("X-A: a\r\n", 201)},
		{"10 000 cookies", "GET / HTTP/1.1\r\nHost: gate.example\r\nCookie: __Host-gatehouse=bob;" + strings.Repeat("a=;", 10_000) + "\r\n"},
		{"80 kB name", "GET / HTTP/1.1\r\n" + signedIn + strings.Repeat("a", 80_000) + ": 1\r\n"},
	}
	for _, tt := range tests {
		if got := g.send(t, tt.raw+"\r\n").All[0].StatusCode; got != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: got %d, want 431", tt.name, got)
		}
	}
	if len(up.Requests()) != 0 {
		t.Error("reached the app")
	}
	long := "/" + strings.Repeat("u", 16<<10)
	if got := g.send(t, "GET "+long+" HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n").Status(t); got != http.StatusOK || up.Last(t).Target() != long {
		t.Errorf("16 kB address: got %d", got)
	}
}

func TestProxy_addsNothingThatTheClientDidNotSend(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	g.send(t, "GET / HTTP/1.1\r\n"+signedIn+"X-Empty:\r\nX-Two: 1\r\nX-Two: 2\r\nX-HTTP-Method-Override: DELETE\r\nTE: trailers, deflate\r\nConnection: close\r\n\r\n")
	got := up.Last(t)
	want := map[string][]string{
		"User-Agent": nil, "Accept-Encoding": nil, "Accept": nil, "Content-Length": nil, "Transfer-Encoding": nil, "Via": nil,
		"X-Empty": {""}, "X-Two": {"1", "2"}, "X-HTTP-Method-Override": {"DELETE"}, "TE": {"trailers"}, "X-Request-Id": nil, "Cookie": nil,
	}
	for name, values := range want {
		if !slices.Equal(got.Values(name), values) {
			t.Errorf("%s: got %q, want %q", name, got.Values(name), values)
		}
	}
}

func TestNew_refusesRoutesThatMeanNothing(t *testing.T) {
	t.Parallel()
	g := &gate{Sessions: &people{}, Witness: &witness{}}
	refused := func(name string, o proxy.Options) {
		t.Helper()
		if _, err := proxy.New(o); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	good := route(t, "app", "http://127.0.0.1:1", "https://127.0.0.1", "h2c://127.0.0.1:2")
	for _, upstream := range []string{"127.0.0.1:1", "ftp://127.0.0.1", "http://127.0.0.1/base", "http://127.0.0.1?x", "http://u:p@127.0.0.1", "http://", "http://127.0.0.1#x"} {
		refused("upstream "+upstream, g.options(t, route(t, "app", "http://127.0.0.1:1", upstream)))
	}
	for _, origin := range []string{"", "*", "null", "other.example", "https://Other.example", "https://other.example/", "wss://other.example"} {
		bad := good
		bad.WebSocketOrigins = []string{origin}
		refused("WebSockets of "+origin, g.options(t, bad))
	}
	for name, change := range map[string]func(*proxy.Route){
		"no name": func(r *proxy.Route) { r.Name = "" }, "a preset of its own": func(r *proxy.Route) { r.HeaderPreset = "mine" },
		"a negative limit": func(r *proxy.Route) { r.BodyLimit = -1 }, "no upstream": func(r *proxy.Route) { r.Upstreams = []*url.URL{nil} },
		"65 upstreams": func(r *proxy.Route) { r.Upstreams = slices.Repeat(r.Upstreams[:1], 65) },
	} {
		bad := good
		change(&bad)
		refused(name, g.options(t, bad))
	}
	rules := []access.Route{{Host: "gate.example"}}
	refused("no route", g.on(t, rules))
	refused("a route too much", g.on(t, rules, good, good))
	incomplete := g.options(t, good)
	incomplete.Recorder = nil
	refused("no recorder", incomplete)
	if _, err := proxy.New(g.on(t, append(rules, access.Route{Host: "other.example"}), good, proxy.Route{Name: "forward-auth alone"})); err != nil {
		t.Errorf("two good routes: %v", err)
	}
}

// RL-01 and RL-03 as the app sees them: X-Forwarded-For is one address, which only a listed proxy has a say in.
func TestProxy_forwardedForIsOneAddress(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	const chain = "X-Forwarded-For: 8.8.8.8, unknown, 9.9.9.9:1234\r\nX-Forwarded-For: 127.0.0.2\r\nX-Real-IP: 7.7.7.7\r\nForwarded: for=6.6.6.6\r\n"
	for peer, want := range map[string]string{"127.0.0.1": "127.0.0.1", "127.0.0.2": "9.9.9.9", "127.0.0.3": "127.0.0.3"} {
		conn := wiretest.DialFrom(t, peer, g.URL)
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\n"+signedIn+chain+"Connection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if got := wiretest.ReadAnswers(t, conn, "GET").Status(t); got != http.StatusOK {
			t.Fatalf("from %s: got %d", peer, got)
		}
		cgi := up.Last(t).CGI()
		if got := cgi["HTTP_X_FORWARDED_FOR"]; !slices.Equal(got, []string{want}) || cgi["HTTP_X_REAL_IP"] != nil || cgi["HTTP_FORWARDED"] != nil {
			t.Errorf("from %s: got %q, want %q; %v", peer, got, want, cgi)
		}
	}
}

// The same over HTTP/2, where names are in lower case and trailers need no announcement.
func TestProxy_http2(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	server := httptest.NewUnstartedServer(g.server.Config.Handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+"/a%2Fb?", io.NopCloser(strings.NewReader("hello")))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "gate.example"
	r.Header = http.Header{"Cookie": {"__Host-gatehouse=bob"}, "Remote_User": {"root"}, "X-Forwarded-For": {"root"}}
	r.Trailer = http.Header{"X-Sum": {"1"}, "Remote-User": {"root"}}
	answer, err := server.Client().Do(r)
	if err != nil || answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 {
		t.Fatalf("got %v, %v", answer, err)
	}
	_ = answer.Body.Close()
	got := up.Last(t)
	wantIdentity(t, got)
	if got.Line != "PUT /a%2Fb? HTTP/1.1" || got.Body != "hello" || !slices.Equal(got.Trailer, []wiretest.Field{{Name: "X-Sum", Value: "1"}}) {
		t.Errorf("the app got %q, %q, %v", got.Line, got.Body, got.Trailer)
	}
}
