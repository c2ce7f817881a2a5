package proxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strings"
	"testing"

	"gatehouse/access"
	"gatehouse/internal/wiretest"
	"gatehouse/proxy"
)

// optional starts a proxy whose only route is changed.
func optional(t *testing.T, upstream string, change func(*proxy.Route)) *gate {
	t.Helper()
	return newGate(t, upstream, func(o *proxy.Options) { change(&o.Routes[0]) })
}

func TestProxy_presets(t *testing.T) {
	t.Parallel()
	const name, groups = "bob", "staff,wiki"
	tests := map[proxy.Preset]map[string]string{
		"":               {"Remote-User": name, "Remote-Name": "Bob Müller", "Remote-Email": "bob@example.com", "Remote-Groups": groups},
		"remote":         {"Remote-User": name, "Remote-Name": "Bob Müller", "Remote-Email": "bob@example.com", "Remote-Groups": groups},
		"x-forwarded":    {"X-Forwarded-User": name, "X-Forwarded-Preferred-Username": name, "X-Forwarded-Email": "bob@example.com", "X-Forwarded-Groups": groups},
		"x-auth-request": {"X-Auth-Request-User": name, "X-Auth-Request-Preferred-Username": name, "X-Auth-Request-Email": "bob@example.com", "X-Auth-Request-Groups": groups},
		"x-remote":       {"X-Remote-User": name, "X-Remote-Name": "Bob Müller", "X-Remote-Email": "bob@example.com", "X-Remote-Groups": groups},
	}
	for preset, headers := range tests {
		up := wiretest.NewUpstream(t)
		g := optional(t, up.URL, func(r *proxy.Route) { r.HeaderPreset = preset })
		forged := ""
		for _, others := range tests { // chosen or not, no name of any preset is the client's
			for header := range others {
				forged += header + ": root\r\n" + strings.ReplaceAll(header, "-", "_") + ": root\r\n"
			}
		}
		g.send(t, "GET / HTTP/1.1\r\n"+signedIn+"Connection: close\r\n"+forged+"\r\n")
		got := up.Last(t)
		for header, value := range headers {
			if !slices.Equal(got.Values(header), []string{value}) {
				t.Errorf("%q: %s: got %q, want %q", preset, header, got.Values(header), value)
			}
		}
		if len(got.Values("X-Gatehouse-Assertion")) != 1 {
			t.Errorf("%q: no assertion", preset)
		}
		identity := 0
		for _, f := range got.Header {
			if strings.Contains(f.Value, "root") {
				t.Errorf("%q: the app got %v", preset, f)
			}
			if strings.Contains(f.Value, "bob@example.com") {
				identity++
			}
		}
		if identity != 1 {
			t.Errorf("%q: %d headers name the address", preset, identity)
		}
	}
}

func TestProxy_hostHeader(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	for want, change := range map[string]func(*proxy.Route){
		"GATE.example.": func(*proxy.Route) {}, strings.TrimPrefix(up.URL, "http://"): func(r *proxy.Route) { r.UpstreamHost = true },
	} {
		g := optional(t, up.URL, change)
		g.send(t, "GET / HTTP/1.1\r\nHost: GATE.example.\r\nCookie: __Host-gatehouse=bob\r\nConnection: close\r\n\r\n")
		if got := up.Last(t); !slices.Equal(got.Values("Host"), []string{want}) || !slices.Equal(got.Values("X-Forwarded-Host"), []string{"gate.example"}) {
			t.Errorf("got %q and %q, want %q", got.Values("Host"), got.Values("X-Forwarded-Host"), want)
		}
	}
	one, two := wiretest.NewUpstream(t), wiretest.NewUpstream(t)
	g := newGate(t, one.URL, func(o *proxy.Options) {
		o.Routes[0] = route(t, "app", one.URL, two.URL)
		o.Routes[0].UpstreamHost = true
	})
	g.statuses(t, 2, get)
	for _, up := range []*wiretest.Upstream{one, two} {
		if got := up.Last(t).Values("Host"); !slices.Equal(got, []string{strings.TrimPrefix(up.URL, "http://")}) {
			t.Errorf("of two: %s got %q", up.URL, got)
		}
	}
}

// What comes behind the prefix arrives byte for byte.
func TestProxy_stripsAPrefix(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL, func(o *proxy.Options) {
		app, cafe := route(t, "app", up.URL), route(t, "cafe", up.URL)
		app.StripPrefix, cafe.StripPrefix = "/my/app", "/café"
		made := (&gate{Sessions: &people{}}).on(t, []access.Route{
			{Host: "gate.example", Path: "/my/app", EncodedSlashes: true}, {Host: "gate.example", Path: "/café"},
		}, app, cafe)
		o.Table, o.Routes = made.Table, made.Routes
	})
	tests := []struct{ sent, got, prefix string }{
		{"/my/app", "/", "/my/app"},
		{"/my/app/", "/", "/my/app"},
		{"/my/app?x=%2f&y", "/?x=%2f&y", "/my/app"},
		{"/my/app/a", "/a", "/my/app"},
		{"/my/app/my/app/", "/my/app/", "/my/app"},
		{"/my/app/a%2Fb/%e4%B8%ad;v=1?", "/a%2Fb/%e4%B8%ad;v=1?", "/my/app"},
		{"/my/app/%22%7C%5E'(!)", "/%22%7C%5E'(!)", "/my/app"},
		{"/caf%C3%A9/x", "/x", "/caf%C3%A9"},
		{"/caf%c3%a9", "/", "/caf%c3%a9"},
	}
	for _, tt := range tests {
		if got := g.send(t, "GET "+tt.sent+" HTTP/1.1\r\n"+signedIn+"X-Forwarded-Prefix: //evil\r\nConnection: close\r\n\r\n").Status(t); got != http.StatusOK {
			t.Errorf("%s: got %d", tt.sent, got)
			continue
		}
		if got := up.Last(t); got.Target() != tt.got || !slices.Equal(got.Values("X-Forwarded-Prefix"), []string{tt.prefix}) {
			t.Errorf("%s: the app got %s below %q, want %s below %s", tt.sent, got.Target(), got.Values("X-Forwarded-Prefix"), tt.got, tt.prefix)
		}
	}
	before := len(up.Requests())
	for _, sent := range []string{"/my/app//evil.example", "/my/app/../x", "/my%2Fapp/x", "/my/apps"} {
		if got := g.send(t, "GET "+sent+" HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n").Status(t); got != http.StatusBadRequest && got != http.StatusNotFound {
			t.Errorf("%s: got %d", sent, got)
		}
	}
	if len(up.Requests()) != before {
		t.Errorf("the app got %s", up.Last(t).Target())
	}
}

func TestProxy_bodyLimit(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	up := wiretest.NewUpstream(t)
	g := optional(t, up.URL, func(r *proxy.Route) { r.BodyLimit = limit })
	chunked := func(n int) string {
		return fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", n, strings.Repeat("x", n))
	}
	tests := []struct {
		name, rest string
		want       int
	}{
		{"just so long", fmt.Sprintf("Content-Length: %d\r\n\r\n%s", limit, strings.Repeat("x", limit)), 200},
		{"just so long, chunked", chunked(limit), 200},
		{"one more", fmt.Sprintf("Content-Length: %d\r\n\r\n%s", limit+1, strings.Repeat("x", limit+1)), 413},
		{"one more, chunked", chunked(limit + 1), 413},
		{"far more, chunked", chunked(20 * limit), 413},
		{"far more, not sent", "Content-Length: 1000000000000\r\nExpect: 100-continue\r\n\r\n", 413},
	}
	for _, tt := range tests {
		before := len(up.Requests())
		answers := g.send(t, "POST / HTTP/1.1\r\n"+signedIn+tt.rest)
		if got := answers.Status(t); got != tt.want || len(answers.Interim) > 0 {
			t.Errorf("%s: got %d and %d interim answers, want %d", tt.name, got, len(answers.Interim), tt.want)
		}
		if tt.want == 413 && (!answers.Closed || answers.Broken || !strings.Contains(answers.Bodies[0], "too-large") || len(up.Requests()) != before) {
			t.Errorf("%s: closed %v, broken %v, %q, the app got %d", tt.name, answers.Closed, answers.Broken, answers.Bodies, len(up.Requests())-before)
		}
	}
	if got := g.send(t, get).Status(t); got != 200 {
		t.Errorf("afterwards: got %d", got)
	}
}

// newTLSApp starts an app that speaks TLS, and says over which protocol and with whose certificate it was asked.
func newTLSApp(t *testing.T, asks tls.ClientAuthType) *httptest.Server {
	t.Helper()
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			who = r.TLS.PeerCertificates[0].Subject.Organization[0]
		}
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Proto, r.TLS.ServerName, who)
	}))
	app.EnableHTTP2 = true
	app.TLS = &tls.Config{ClientAuth: asks}
	app.Config.ErrorLog = quiet()
	app.StartTLS()
	t.Cleanup(app.Close)
	return app
}

func TestProxy_speaksTLSToTheApp(t *testing.T) {
	t.Parallel()
	app := newTLSApp(t, tls.NoClientCert)
	roots := x509.NewCertPool()
	roots.AddCert(app.Certificate())
	asking := newTLSApp(t, tls.RequireAnyClientCert)
	tests := []struct {
		name, upstream string
		tls            proxy.UpstreamTLS
		want           int
		body           string
	}{
		{"of nobody whom the system knows", app.URL, proxy.UpstreamTLS{}, 502, ""},
		{"of an authority of its own", app.URL, proxy.UpstreamTLS{Roots: roots}, 200, "HTTP/2.0  nobody"}, // an address is no server name
		{"under another name", app.URL, proxy.UpstreamTLS{Roots: roots, ServerName: "example.com"}, 200, "HTTP/2.0 example.com nobody"},
		{"under a wrong name", app.URL, proxy.UpstreamTLS{Roots: roots, ServerName: "other.test"}, 502, ""},
		{"that asks who we are", asking.URL, proxy.UpstreamTLS{Roots: roots, Certificate: &app.TLS.Certificates[0]}, 200, "HTTP/2.0  Acme Co"},
		{"that asks who we are, and is not told", asking.URL, proxy.UpstreamTLS{Roots: roots}, 502, ""},
	}
	for _, tt := range tests {
		g := optional(t, tt.upstream, func(r *proxy.Route) { r.TLS = tt.tls })
		answers := g.send(t, get)
		if got := answers.Status(t); got != tt.want || tt.want == 200 && answers.Bodies[0] != tt.body {
			t.Errorf("%s: got %d, %q; want %d, %q", tt.name, got, answers.Bodies[0], tt.want, tt.body)
		}
	}
}

func TestProxy_webSocketsOfListedOrigins(t *testing.T) {
	t.Parallel()
	up := wiretest.NewScripted(t, switching)
	g := newGate(t, up.URL, func(o *proxy.Options) {
		made := (&gate{Sessions: &people{}}).on(t, []access.Route{{Host: "gate.example", Rules: []access.Rule{
			{Paths: []string{"/public"}, Access: access.Public}, {},
		}}}, o.Routes[0])
		made.Routes[0].WebSocketOrigins = []string{"https://dash.example:8443"}
		o.Table, o.Routes = made.Table, made.Routes
	})
	const start = " HTTP/1.1\r\nHost: gate.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
	const bob = "Cookie: __Host-gatehouse=bob\r\n"
	tests := []struct {
		path, header string
		want         int
	}{
		{"/ws", bob + "Origin: https://dash.example:8443\r\n", 101},
		{"/ws", bob + "Origin: https://dash.example\r\n", 403},
		{"/ws", "Origin: https://dash.example:8443\r\n", 401},
		{"/public", "Origin: https://dash.example:8443\r\n", 101},
		{"/public", "", 101}, // a program, as nobody
		{"/public", "Origin: https://evil.example\r\n", 403},
		{"/public", bob, 403},
		{"/public", bob + "Origin: https://evil.example\r\n", 403},
	}
	for _, tt := range tests {
		before := len(up.Requests())
		conn, _, answer := g.open(t, "GET "+tt.path+start+tt.header+"\r\n")
		_ = conn.Close()
		if answer.StatusCode != tt.want {
			t.Errorf("%s %q: got %d, want %d", tt.path, tt.header, answer.StatusCode, tt.want)
		}
		if reached := len(up.Requests()) > before; reached != (tt.want == 101) {
			t.Errorf("%s %q: reached the app: %v", tt.path, tt.header, reached)
		}
	}
}

func TestProxy_routeWithoutAnUpstream(t *testing.T) {
	t.Parallel()
	g := newGate(t, "", func(o *proxy.Options) { o.Routes[0].Upstreams = nil })
	if got := g.send(t, get).Status(t); got != http.StatusNotFound {
		t.Errorf("got %d", got)
	}
	if got := g.send(t, "GET / HTTP/1.1\r\nHost: gate.example\r\n\r\n").All[0].StatusCode; got != http.StatusUnauthorized {
		t.Errorf("not signed in: got %d", got)
	}
}

// Byte ranges are between the client and the app.
func TestProxy_rangeRequests(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789", 1000)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, r, "", principal("bob").CreatedAt, strings.NewReader(text))
	}))
	defer app.Close()
	g := newGate(t, app.URL)
	tests := []struct {
		header, body, content string
		want                  int
	}{
		{"Range: bytes=5-14\r\n", text[5:15], "bytes 5-14/10000", 206},
		{"Range: bytes=-3\r\n", "789", "bytes 9997-9999/10000", 206},
		{"Range: bytes=5-14\r\nIf-Range: \"1\"\r\n", text[5:15], "bytes 5-14/10000", 206},
		{"Range: bytes=5-14\r\nIf-Range: \"2\"\r\n", text, "", 200},
		{"Range: bytes=10000-\r\n", "invalid range: failed to overlap\n", "bytes */10000", 416},
		{"If-None-Match: \"1\"\r\n", "", "", 304},
	}
	for _, tt := range tests {
		answers := g.send(t, "GET / HTTP/1.1\r\n"+signedIn+"Connection: close\r\n"+tt.header+"\r\n")
		if got := answers.All[0]; answers.Status(t) != tt.want || got.Header.Get("Content-Range") != tt.content || answers.Bodies[0] != tt.body {
			t.Errorf("%q: got %d, %q, %.20q", tt.header, got.StatusCode, got.Header.Get("Content-Range"), answers.Bodies[0])
		}
	}
	several := g.send(t, "GET / HTTP/1.1\r\n"+signedIn+"Connection: close\r\nRange: bytes=0-1,5-6\r\n\r\n")
	if kind := several.All[0].Header.Get("Content-Type"); several.Status(t) != 206 || !strings.HasPrefix(kind, "multipart/byteranges") {
		t.Errorf("two ranges: got %d, %q", several.All[0].StatusCode, kind)
	}
}

// The limit of a body holds over HTTP/2 too, where the stream ends and the connection goes on.
func TestProxy_bodyLimitOverHTTP2(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := optional(t, up.URL, func(r *proxy.Route) { r.BodyLimit = 1000 })
	server := g.overTLS(t)
	connections := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if !got.Reused {
			connections++
		}
	}})
	for _, n := range []int{1000, 1001, 100_000} {
		for _, body := range []io.Reader{strings.NewReader(strings.Repeat("x", n)), io.NopCloser(strings.NewReader(strings.Repeat("x", n)))} {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, body)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "gate.example"
			r.Header.Set("Cookie", "__Host-gatehouse=bob")
			answer, err := server.Client().Do(r)
			if err != nil {
				t.Errorf("%d bytes: %v", n, err)
				continue
			}
			_ = answer.Body.Close()
			if want := map[bool]int{true: 200, false: 413}[n <= 1000]; answer.StatusCode != want {
				t.Errorf("%d bytes: got %d, want %d", n, answer.StatusCode, want)
			}
		}
	}
	if got := len(up.Requests()); got != 2 {
		t.Errorf("the app got %d whole requests, want 2", got)
	}
	if connections != 1 {
		t.Errorf("%d connections, want 1 for all", connections)
	}
}
