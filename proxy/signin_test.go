package proxy_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"gatehouse/internal/wiretest"
	"gatehouse/problem"
	"gatehouse/proxy"
)

const login = external + "/.gatehouse/login"

func TestProxy_notSignedIn(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	const html = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"
	const document = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
	tests := []struct {
		name, line, header string
		location           string // empty: 401
	}{
		{"document", "GET /wiki?page=a%2Fb&x", document, login + "?next=%2Fwiki%3Fpage%3Da%252Fb%26x"},
		{"the root needs no way back", "GET /", document, login},
		{"HEAD", "HEAD /a", document, login + "?next=%2Fa"},
		{"no metadata, HTML", "GET /a", html, login + "?next=%2Fa"},
		{"text/html in upper case", "GET /a", "Accept: TEXT/HTML\r\n", login + "?next=%2Fa"},
		{"anything is not HTML", "GET /a", "Accept: */*\r\n", ""},
		{"HTML is not wanted", "GET /a", "Accept: application/json, text/html;q=0\r\n", ""},
		{"no Accept", "GET /a", "", ""},
		{"fetch from a page", "GET /a", "Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n" + html, ""},
		{"image", "GET /a", "Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n" + html, ""},
		{"frame", "GET /a", "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n" + html, ""},
		{"mode alone", "GET /a", "Sec-Fetch-Mode: navigate\r\n" + html, ""},
		{"form", "POST /a", document + "Content-Length: 0\r\n", ""},
		{"other method", "PROPFIND /a", html, ""},
		{"WebSocket", "GET /a", html + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nOrigin: " + external + "\r\n", ""},
		{"a way back that nobody would follow", "GET //evil.example/", document, login},
		{"too long a way back", "GET /" + strings.Repeat("a", 3000), document, login},
	}
	for _, tt := range tests {
		answers := g.send(t, tt.line+" HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n"+tt.header+"\r\n")
		got := answers.All[0]
		want := http.StatusUnauthorized
		if tt.location != "" {
			want = http.StatusFound
		}
		if got.StatusCode != want || got.Header.Get("Location") != tt.location {
			t.Errorf("%s: got %d to %q, want %d to %q", tt.name, got.StatusCode, got.Header.Get("Location"), want, tt.location)
		}
		if got.Header.Get("Cache-Control") != "no-store" || got.Header["Set-Cookie"] != nil {
			t.Errorf("%s: got %v", tt.name, got.Header)
		}
		if want == http.StatusUnauthorized {
			if !strings.Contains(answers.Bodies[0], `"login_url":"`+login+`"`) || got.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s: got %s, %v", tt.name, answers.Bodies[0], got.Header)
			}
		}
	}
	if len(up.Requests()) != 0 {
		t.Error("reached the app")
	}
}

func TestProxy_whatTheSessionsSay(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	tests := []struct {
		name, header string
		status       int
		want         http.Header
	}{
		{"store away", "Cookie: __Host-gatehouse=away\r\n", 503, http.Header{"Retry-After": {"5"}}},
		{"bad bearer", "Accept: text/html\r\nAuthorization: Bearer x\r\n", 401, http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}},
		{"credentials twice", "Authorization: a\r\nAuthorization: b\r\n", 400, nil},
	}
	for _, tt := range tests {
		got := g.send(t, "GET / HTTP/1.1\r\nHost: gate.example\r\n"+tt.header+"\r\n").All[0]
		if got.StatusCode != tt.status || got.Header["Set-Cookie"] != nil || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d, %v", tt.name, got.StatusCode, got.Header)
		}
		for name, values := range tt.want {
			if !slices.Equal(got.Header[name], values) {
				t.Errorf("%s: %s: got %q, want %q", tt.name, name, got.Header[name], values)
			}
		}
	}
	if len(up.Requests()) != 0 {
		t.Error("reached the app")
	}
	_, answered := g.Witness.seen()
	if want := []problem.Code{problem.Unavailable, problem.SessionRequired, problem.BadRequest}; !slices.Equal(answered, want) {
		t.Errorf("observed: got %v, want %v", answered, want)
	}
}

func TestProxy_renewalAddsCookiesToAPrivateAnswer(t *testing.T) {
	t.Parallel()
	up := wiretest.NewScripted(t, wiretest.Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: public, max-age=60\r\nCDN-Cache-Control: max-age=600\r\nSet-Cookie: app=1\r\n\r\nhi"))
	g := newGate(t, up.URL)
	const request = "POST /form HTTP/1.1\r\nHost: gate.example\r\nContent-Length: 1\r\nConnection: close\r\nCookie: __Host-gatehouse="
	got := g.send(t, request+"expired\r\n\r\nx").All[0]
	cookies := got.Header["Set-Cookie"]
	if got.StatusCode != 200 || len(cookies) != 2 || cookies[0] != "app=1" || !strings.HasPrefix(cookies[1], "__Host-gatehouse=fresh;") {
		t.Errorf("got %d, cookies %q", got.StatusCode, cookies)
	}
	if got.Header.Get("Cache-Control") != "max-age=60, private" || got.Header["Cdn-Cache-Control"] != nil {
		t.Errorf("got %v", got.Header)
	}
	if seen := up.Last(t); seen.Body != "x" || seen.Method() != "POST" {
		t.Errorf("the app got %q with %q", seen.Line, seen.Body)
	}
	if got := g.send(t, request+"bob\r\n\r\nx").All[0].Header; got.Get("Cache-Control") != "public, max-age=60" || got.Get("CDN-Cache-Control") != "max-age=600" {
		t.Errorf("without renewal: got %v", got)
	}
}

func TestMakePrivate(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		have []string
		want string
	}{
		"nothing":           {nil, "private"},
		"empty":             {[]string{""}, "private"},
		"public":            {[]string{"public, max-age=60"}, "max-age=60, private"},
		"shared age":        {[]string{"S-MaxAge=600,max-age=60"}, "max-age=60, private"},
		"several lines":     {[]string{"max-age=60", "public"}, "max-age=60, private"},
		"private already":   {[]string{"private, max-age=0"}, "max-age=0, private"},
		"a field only":      {[]string{`private="set-cookie, x", max-age=1`}, "max-age=1, private"},
		"not stored":        {[]string{"no-store"}, "no-store"},
		"not stored either": {[]string{"public, no-store"}, "no-store"},
		"a field uncached":  {[]string{`no-cache="a, public"`}, `no-cache="a, public", private`},
		"open quote":        {[]string{`no-cache="a\`}, `no-cache="a\, private`},
	}
	for name, tt := range tests {
		h := http.Header{"Cache-Control": tt.have, "Surrogate-Control": {"x"}, "X-Accel-Expires": {"9"}}
		proxy.MakePrivate(h)
		if got := h.Get("Cache-Control"); got != tt.want || len(h) != 1 {
			t.Errorf("%s: got %q and %v, want %q", name, got, h, tt.want)
		}
	}
}
