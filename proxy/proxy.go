// Package proxy stands between browsers and apps: it lets a request through with a live session and nothing else.
//
// It promises: an app receives method, raw path, raw query, body and end-to-end headers as they were sent; no identity
// header of a client reaches it in any spelling that some app could read as one, trailers included, and ours are set last;
// no cookie or token of ours reaches it, and it can neither set nor end one; when a session ends, what it has open is cut;
// an answer that broke off is never passed on as whole; and every refusal is `Cache-Control: no-store`. What a client must
// not decide (the next hop, the method set, upgrades, its own address) it does not decide.
//
// It is built on httputil.ReverseProxy with Rewrite, which removes hop-by-hop headers (RFC 9110, section 7.6.1) before our
// headers are set, so that `Connection: Remote-User` cannot take them away again.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"gatehouse/audit"
	"gatehouse/problem"
	"gatehouse/proxy/clientip"
	"gatehouse/session"
)

// Sessions says who sends a request. *session.Manager does.
type Sessions interface {
	// Authenticate returns who sends the request. It returns session.ErrNoSession if nobody does, session.ErrExpired if Renew
	// may help, session.ErrBadBearer and session.ErrBadRequest for credentials that are none, and session.ErrUnavailable if
	// this cannot be known now.
	Authenticate(ctx context.Context, r *http.Request, origin string) (session.Principal, error)
	// Renew trades the handle of the request for a new access token, and returns the cookies to set.
	Renew(ctx context.Context, r *http.Request, origin string) (session.Principal, []*http.Cookie, error)
	// Activity counts what the client sends on the upgraded connection that r asks for; nil if it is not to be counted.
	Activity(r *http.Request, p session.Principal) *session.Activity
	// Ended returns a channel that is closed when the session ends before its time; it is closed already if it has ended.
	Ended(p session.Principal) <-chan struct{}
}

// Assertions says who somebody is, signed for one app. *session.Manager does, and keeps what it signed.
type Assertions interface {
	Assertion(p session.Principal, origin string) (string, error)
}

// Pages draws what is not the app's.
type Pages interface {
	// Problem answers with the problem: as a page where the client prefers HTML, else as problem+json. Headers that are set
	// already are kept.
	Problem(w http.ResponseWriter, r *http.Request, p problem.Problem)
}

// Recorder counts attempts to get around the gateway.
type Recorder interface {
	// Count adds to an aggregated record; it never waits.
	Count(event audit.Event)
}

// Observer is told what became of each request. It is called once for each, from many goroutines, and must not wait.
type Observer interface {
	// Answered reports a request of a route (by its origin; empty if there is none) and the code with which the gateway
	// answered it; the code is empty where the app answered.
	Answered(route string, code problem.Code)
}

// Route says where the requests of one host go.
type Route struct {
	// Origin is the host as browsers see it: scheme, host and, unless it is the scheme's own, port. Nothing else.
	Origin string
	// Upstream is the app: http or https, host and port, nothing else.
	Upstream *url.URL
	// DialTimeout bounds connecting to the app, TLS included; default 5 s.
	DialTimeout time.Duration
	// AnswerTimeout bounds the wait for the header of an answer, after the request was sent whole; default 60 s.
	// The body may take as long as it takes.
	AnswerTimeout time.Duration
	// IdleTimeout is how long an unused connection to the app is kept; default 90 s.
	IdleTimeout time.Duration
}

// Options is what a Proxy is made of. All but Observer are required.
type Options struct {
	Routes     []Route // at least one; no two with the same host
	Sessions   Sessions
	Assertions Assertions
	Pages      Pages
	Recorder   Recorder
	Observer   Observer
	// External is the login host as browsers see it, like an Origin.
	External string
	// Client returns where a request came from, as the gateway found out.
	Client func(*http.Request) clientip.Client
	// RequestID returns the id that the gateway gave the request.
	RequestID func(*http.Request) string
	Now       func() time.Time
	Logger    *slog.Logger
}

// Proxy is the handler of everything that is not ours. It is safe for concurrent use.
type Proxy struct {
	routes     map[string]*route // by host as canonicalHost spells it
	sessions   Sessions
	assertions Assertions
	pages      Pages
	recorder   Recorder
	observer   Observer
	external   string
	client     func(*http.Request) clientip.Client
	requestID  func(*http.Request) string
	now        func() time.Time
	logger     *slog.Logger
}

// route is a Route, ready to be used.
type route struct {
	origin    string
	scheme    string // of the origin
	host      string // of the origin, with its port
	upstream  *url.URL
	patience  time.Duration // for the header of an answer
	transport *http.Transport
	forward   *httputil.ReverseProxy
}

// New makes a Proxy. It returns an error if an option is missing, and one that names the route if an origin or an upstream
// is not what [Route] says.
func New(o Options) (*Proxy, error) {
	if o.Sessions == nil || o.Assertions == nil || o.Pages == nil || o.Recorder == nil || o.External == "" || o.Client == nil ||
		o.RequestID == nil || o.Now == nil || o.Logger == nil {
		return nil, errors.New("an option is missing")
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	p := &Proxy{
		routes: make(map[string]*route, len(o.Routes)), sessions: o.Sessions, pages: o.Pages, recorder: o.Recorder,
		observer: o.Observer, external: o.External, client: o.Client, requestID: o.RequestID, now: o.Now, logger: o.Logger,
		assertions: o.Assertions,
	}
	buffers, errorLog := newBuffers(), slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn)
	if len(o.Routes) == 0 {
		return nil, errors.New("no route")
	}
	for _, r := range o.Routes {
		ready, err := newRoute(r)
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Origin, err)
		}
		if _, taken := p.routes[ready.host]; taken {
			return nil, fmt.Errorf("route %q: another route has this host", r.Origin)
		}
		ready.forward = newForward(ready.transport, buffers, errorLog)
		p.routes[ready.host] = ready
	}
	return p, nil
}

func newRoute(r Route) (*route, error) {
	origin, err := url.Parse(r.Origin)
	if err != nil {
		return nil, err
	}
	if err := bare(origin); err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	if host := canonicalHost(origin.Host, origin.Scheme); r.Origin != origin.Scheme+"://"+host {
		return nil, fmt.Errorf("origin: browsers write it %s://%s", origin.Scheme, host)
	}
	if r.Upstream == nil {
		return nil, errors.New("no upstream")
	}
	if err := bare(r.Upstream); err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	return &route{
		origin: r.Origin, scheme: origin.Scheme, host: origin.Host, upstream: r.Upstream, transport: newTransport(r),
		patience: cmp.Or(r.AnswerTimeout, time.Minute),
	}, nil
}

// bare refuses an address that is more than scheme, host and port.
func bare(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must start with http:// or https://")
	case u.Hostname() == "":
		return errors.New("has no host")
	case u.User != nil:
		return errors.New("must not hold a user name or password")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "", u.Opaque != "":
		return errors.New("must be scheme, host and port only")
	}
	return nil
}

// canonicalHost writes a Host as browsers write it in an origin: lower case, without the root's dot and without the
// scheme's own port.
func canonicalHost(host, scheme string) string {
	host = strings.ToLower(host)
	name, port := host, ""
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		name, port = host[:colon], host[colon:]
	}
	name = strings.TrimSuffix(name, ".")
	if port == ":" || scheme == "http" && port == ":80" || scheme == "https" && port == ":443" {
		port = ""
	}
	return name + port
}

// route finds the route of a request by its Host alone: no forwarded header chooses one.
func (p *Proxy) route(host string) *route {
	if r, ok := p.routes[host]; ok {
		return r
	}
	for _, scheme := range [...]string{"https", "http"} {
		if r, ok := p.routes[canonicalHost(host, scheme)]; ok && r.scheme == scheme {
			return r
		}
	}
	return nil
}

// ServeHTTP lets the request through to its app, or answers why not. It panics with http.ErrAbortHandler, as
// httputil.ReverseProxy does, to break off an answer that cannot be completed; net/http then ends the connection or stream.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route := p.route(r.Host)
	if route == nil {
		p.refuse(w, r, nil, problem.New(problem.Misdirected))
		return
	}
	wanted, code := admit(r)
	if code != "" {
		if code == problem.MethodNotAllowed {
			w.Header().Set("Allow", strings.Join(methods[:], ", ")) // RFC 9110, section 15.5.6
		}
		p.refuse(w, r, route, problem.New(code))
		return
	}
	url, ok := wanted.at(route.upstream, r.URL.Path)
	if !ok {
		p.refuse(w, r, route, problem.New(problem.BadRequest))
		return
	}
	who, cookies, ok := p.authenticate(w, r, route, wanted)
	if !ok {
		return
	}
	assertion, err := p.assertions.Assertion(who, route.origin)
	if err != nil {
		p.logger.ErrorContext(r.Context(), "assertion cannot be signed", "err", err, "request_id", p.requestID(r))
		p.refuse(w, r, route, problem.New(problem.Internal))
		return
	}
	x := &exchange{
		ResponseWriter: w, proxy: p, route: route, in: r, url: url, who: who, cookies: cookies, renewed: p.now(), assertion: assertion,
		websocket: isWebSocket(r),
	}
	if x.websocket && !mayUpgrade(r, route, who) {
		p.bypass(r, bypassOrigin)
		addCookies(w.Header(), cookies)
		p.refuse(w, r, route, problem.New(problem.CrossSite))
		return
	}
	x.serve()
}

// refuse answers with a problem before an app was asked. route may be nil.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, route *route, why problem.Problem) {
	p.observe(route, why.Code)
	p.draw(w, r, why)
}

// draw answers with a problem.
func (p *Proxy) draw(w http.ResponseWriter, r *http.Request, why problem.Problem) {
	why.RequestID = p.requestID(r)
	w.Header().Set("Cache-Control", "no-store")
	if Ambiguous(r) {
		w.Header().Set("Connection", "close")
	}
	p.pages.Problem(w, r, why)
}

func addCookies(h http.Header, cookies []*http.Cookie) {
	for _, c := range cookies {
		h.Add("Set-Cookie", c.String())
	}
}

func (p *Proxy) observe(route *route, code problem.Code) {
	origin := ""
	if route != nil {
		origin = route.origin
	}
	p.observer.Answered(origin, code)
}

// bypass counts an attempt to get around the gateway.
func (p *Proxy) bypass(r *http.Request, what string) {
	client := p.client(r)
	p.recorder.Count(audit.Event{
		Kind: audit.KindBypass, Outcome: audit.Denied, Severity: audit.Low,
		Actor: audit.Actor{Type: audit.ActorClient},
		Client: audit.Client{
			Address: client.Address.String(), Network: clientip.Network(client.Address).String(), Claimed: client.Claimed,
		},
		Details: map[string]string{"what": what},
	})
}

// Close ends the unused connections to the apps; those in use end with their requests.
func (p *Proxy) Close() {
	for _, r := range p.routes {
		r.transport.CloseIdleConnections()
	}
}

// nobody observes nothing.
type nobody struct{}

func (nobody) Answered(string, problem.Code) {}
