package proxy_test

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/access"
	"gatehouse/audit"
	"gatehouse/internal/wiretest"
	"gatehouse/problem"
	"gatehouse/proxy"
	"gatehouse/proxy/clientip"
	"gatehouse/session"
)

// external is the only host of the kit's gateway.
const external = "https://gate.example"

// signedIn are header lines of bob's browser.
const signedIn = "Host: gate.example\r\nCookie: __Host-gatehouse=bob\r\n"

// people are sessions by the value of the access cookie, or by our bearer token: what the proxy is told about who is there
// is scripted; the real manager is played against in the tests of the gateway.
type people struct {
	mu     sync.Mutex // guards ended
	ended  map[string]chan struct{}
	renews int
	away   atomic.Bool // the store

	steppedUp atomic.Bool // another gateway has a fresher factor
}

func principal(name string) session.Principal {
	return session.Principal{
		Identity:  session.Identity{UserID: "id-of-" + name, Name: name, DisplayName: "Bob Müller", Email: name + "@example.com", Groups: []string{"staff", "wiki"}},
		SessionID: "session-of-" + name, PublicID: "public-of-" + name, Methods: []string{"pwd", "otp"},
		AuthTime: time.Now(), CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}
}

func (s *people) Authenticate(_ context.Context, r *http.Request, _ string) (session.Principal, error) {
	if len(r.Header["Authorization"]) > 1 {
		return session.Principal{}, session.ErrDuplicate
	}
	if raw := r.Header.Get("Authorization"); raw != "" && raw != "Basic YTpi" {
		if raw == "Bearer bobs-token" {
			p := principal("bob")
			p.Bearer = true
			return p, nil
		}
		return session.Principal{}, session.ErrBadBearer
	}
	cookie, err := r.Cookie("__Host-gatehouse")
	if err != nil {
		return session.Principal{}, session.ErrNoSession
	}
	switch cookie.Value {
	case "bob":
		return principal("bob"), nil
	case "plain": // a user without anything but a name
		p := principal("plain")
		p.DisplayName, p.Email, p.Groups = "", "", nil
		return p, nil
	case "password": // without a second factor
		p := principal("password")
		p.Methods = []string{"pwd"}
		return p, nil
	case "tired": // whose factor is an hour old
		p := principal("tired")
		p.AuthTime = time.Now().Add(-time.Hour)
		return p, nil
	case "short": // the absolute limit is near
		p := principal("short")
		p.ExpiresAt = time.Now().Add(2 * time.Second)
		return p, nil
	case "unsigned":
		return principal("unsigned"), nil
	case "expired":
		return session.Principal{}, session.ErrExpired
	case "away":
		return session.Principal{}, session.ErrUnavailable
	}
	return session.Principal{}, session.ErrNoSession
}

func (s *people) Renew(context.Context, *http.Request, string) (session.Principal, []*http.Cookie, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renews++
	return principal("bob"), []*http.Cookie{{Name: "__Host-gatehouse", Value: "fresh", Path: "/", Secure: true, HttpOnly: true}}, nil
}

func (s *people) Activity(*http.Request, session.Principal) *session.Activity { return nil }

func (s *people) SteppedUp(context.Context, session.Principal) (bool, error) {
	return s.steppedUp.Load(), nil
}

func (s *people) InStep() bool { return !s.away.Load() }

func (s *people) Ended(p session.Principal) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = make(map[string]chan struct{})
	}
	if s.ended[p.SessionID] == nil {
		s.ended[p.SessionID] = make(chan struct{})
	}
	return s.ended[p.SessionID]
}

// Assertion is no JWT here: that is the matter of the session package.
func (s *people) Assertion(p session.Principal, origin string) (string, error) {
	if p.Name == "unsigned" {
		return "", errors.New("no key")
	}
	return p.Name + " at " + origin, nil
}

func (s *people) end(name string) { close(s.endedOf(name)) }

func (s *people) endedOf(name string) chan struct{} {
	s.Ended(session.Principal{SessionID: "session-of-" + name})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended["session-of-"+name]
}

// pages answers as problem+json, so that tests can read the code.
type pages struct{}

func (pages) Problem(w http.ResponseWriter, _ *http.Request, p problem.Problem) { p.Write(w) }

// witness keeps what was counted and observed.
type witness struct {
	mu       sync.Mutex // guards what follows
	bypasses []string
	denials  []audit.Event
	answered []problem.Code
}

func (w *witness) Count(e audit.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Kind == audit.KindAccessDenied {
		w.denials = append(w.denials, e)
		return
	}
	w.bypasses = append(w.bypasses, e.Details["what"])
}

func (w *witness) denied() []audit.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.denials)
}

func (*witness) Decided(*http.Request, string, string) {}

func (w *witness) Answered(_ string, code problem.Code) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered = append(w.answered, code)
}

func (w *witness) seen() (bypasses []string, answered []problem.Code) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.bypasses...), append([]problem.Code(nil), w.answered...)
}

// gate is a running proxy.
type gate struct {
	URL      string
	Sessions *people
	Witness  *witness
	server   *httptest.Server
}

// newGate starts a proxy in front of an app, behind a listener with the gateway's header limit.
func newGate(t testing.TB, upstream string, change ...func(*proxy.Options)) *gate {
	t.Helper()
	g := &gate{Sessions: &people{}, Witness: &witness{}}
	options := g.options(t, route(t, "app", upstream))
	for _, c := range change {
		c(&options)
	}
	handler, err := proxy.New(options)
	if err != nil {
		t.Fatalf("new proxy: %v", err)
	}
	g.server = httptest.NewUnstartedServer(handler)
	g.server.Config.MaxHeaderBytes = 64 << 10
	g.server.Config.ErrorLog = slog.NewLogLogger(options.Logger.Handler(), slog.LevelWarn)
	g.server.Start()
	g.URL = g.server.URL
	t.Cleanup(func() {
		g.server.CloseClientConnections()
		g.server.Close()
		handler.Close()
	})
	return g
}

// options are those of a proxy with one route on the kit's host, open to who is signed in.
func (g *gate) options(t testing.TB, r proxy.Route) proxy.Options {
	t.Helper()
	return g.on(t, []access.Route{{Host: "gate.example"}}, r)
}

func (g *gate) on(t testing.TB, rules []access.Route, routes ...proxy.Route) proxy.Options {
	t.Helper()
	table, err := access.New("https", rules)
	if err != nil {
		t.Fatal(err)
	}
	resolver := clientip.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")})
	return proxy.Options{
		Table: table, Routes: routes, Sessions: g.Sessions, Assertions: g.Sessions, Pages: pages{}, Recorder: g.Witness, Observer: g.Witness,
		External: external, Client: resolver.Resolve, RequestID: func(*http.Request) string { return "request-1" },
		Now: time.Now, Logger: discard(),
	}
}

// send writes raw bytes to the gateway.
func (g *gate) send(t testing.TB, raw string) wiretest.Answers {
	t.Helper()
	return wiretest.Raw(t, g.URL, raw)
}

// overTLS is a second listener for the same proxy, with HTTP/2.
func (g *gate) overTLS(t testing.TB) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(g.server.Config.Handler)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = quiet()
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// quiet is for servers whose complaints are what a test provokes.
func quiet() *log.Logger { return slog.NewLogLogger(discard().Handler(), slog.LevelDebug) }

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// route is a route to upstreams.
func route(t testing.TB, name string, upstreams ...string) proxy.Route {
	t.Helper()
	r := proxy.Route{Name: name}
	for _, upstream := range upstreams {
		u, err := url.Parse(upstream)
		if err != nil {
			u = &url.URL{Opaque: upstream}
		}
		r.Upstreams = append(r.Upstreams, u)
	}
	return r
}

// closer closes a channel when the first request is over.
type closer struct {
	once sync.Once
	done chan struct{}
}

func (*closer) Decided(*http.Request, string, string) {}

func (c *closer) Answered(string, problem.Code) { c.once.Do(func() { close(c.done) }) }
