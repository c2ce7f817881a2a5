// Package proxy stands between browsers and apps: it lets a request through that the rules of its route allow, and nothing else.
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
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"gatehouse/access"
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
	// SteppedUp reports whether the session has got a fresher factor than p says; Renew brings it.
	SteppedUp(ctx context.Context, p session.Principal) (bool, error)
	// InStep reports whether revocations arrive.
	InStep() bool
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

// Observer is told what became of each request, from many goroutines, and must not wait.
type Observer interface {
	// Decided reports, before a request is answered, the name of its route and of who sends it; empty for nobody.
	Decided(r *http.Request, route, user string)
	// Answered reports, once for each request, its route (by its name; empty if there is none) and the code with which the gateway
	// answered it; the code is empty where the app answered.
	Answered(route string, code problem.Code)
}

// Options is what a Proxy is made of. All but Observer and Tokens are required.
type Options struct {
	// Table says what each request may do; Routes, where what it lets through goes: one for each route of the table, by its index.
	Table      *access.Table
	Routes     []Route
	Sessions   Sessions
	Tokens     Tokens
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
	table      *access.Table
	routes     []*route // by their index in the table
	sessions   Sessions
	tokens     Tokens
	assertions Assertions
	pages      Pages
	recorder   Recorder
	observer   Observer
	external   string
	client     func(*http.Request) clientip.Client
	requestID  func(*http.Request) string
	now        func() time.Time
	logger     *slog.Logger
	lookout    lookout // for requests that take long
}

// New makes a Proxy. It returns an error if an option is missing, and one that names the route if something is not what [Route] says.
func New(o Options) (*Proxy, error) {
	if o.Table == nil || o.Sessions == nil || o.Assertions == nil || o.Pages == nil || o.Recorder == nil || o.External == "" || o.Client == nil ||
		o.RequestID == nil || o.Now == nil || o.Logger == nil {
		return nil, errors.New("an option is missing")
	}
	if len(o.Routes) != o.Table.Routes() {
		return nil, fmt.Errorf("%d routes for the %d of the table", len(o.Routes), o.Table.Routes())
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Tokens == nil {
		o.Tokens = noTokens{}
	}
	p := &Proxy{
		table: o.Table, sessions: o.Sessions, tokens: o.Tokens, pages: o.Pages, recorder: o.Recorder, observer: o.Observer, external: o.External,
		client: o.Client, requestID: o.RequestID, now: o.Now, logger: o.Logger, assertions: o.Assertions,
	}
	buffers, errorLog := newBuffers(), slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn)
	for _, r := range o.Routes {
		ready, err := newRoute(r, o.Now, o.Logger)
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Name, err)
		}
		if ready.balancer != nil {
			ready.forward = newForward(ready.balancer, buffers, errorLog)
		}
		p.routes = append(p.routes, ready)
	}
	return p, nil
}

// ServeHTTP lets the request through to its app, or answers why not. It panics with http.ErrAbortHandler, as
// httputil.ReverseProxy does, to break off an answer that cannot be completed; net/http then ends the connection or stream.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	wanted, code := admit(r)
	if code != "" {
		if code == problem.MethodNotAllowed {
			w.Header().Set("Allow", strings.Join(methods[:], ", ")) // RFC 9110, section 15.5.6
		}
		p.refuse(w, r, nil, problem.New(code))
		return
	}
	asked := access.Request{Host: r.Host, Path: wanted.path, Method: r.Method, Address: p.client(r).Address}
	decide := func(find finder) outcome { return p.decide(asked, find) }
	o := decide(func(at *route, origin string) (session.Principal, []*http.Cookie, error) {
		return p.find(r, at, origin)
	})
	if o.Verdict == access.StepUp {
		o = p.fresher(r, decide, o)
	}
	if o.route != nil {
		p.observer.Decided(r, o.route.name, o.who.Name)
	}
	if o.code != "" {
		p.turnAway(w, r, wanted, o)
		return
	}
	if code := p.send(w, r, wanted, &o); code != "" {
		addCookies(w.Header(), o.cookies)
		p.refuse(w, r, o.route, problem.New(code))
	}
}

// send sends a request that may pass to its app. It returns the code with which to answer one that cannot be sent.
func (p *Proxy) send(w http.ResponseWriter, r *http.Request, wanted target, o *outcome) problem.Code {
	if o.route.balancer == nil {
		return problem.NotFound
	}
	wanted, decoded, prefix := wanted.without(o.route.strip, r.URL.Path)
	url, ok := wanted.at(&o.route.balancer.all[0].address, decoded)
	if !ok {
		return problem.BadRequest
	}
	if limit := o.route.bodyLimit; limit > 0 && r.ContentLength > limit {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // the body is not read
		}
		return problem.TooLarge
	}
	x := &exchange{
		ResponseWriter: w, proxy: p, route: o.route, in: r, url: url, origin: o.origin, who: o.who, signedIn: o.signedIn,
		cookies: o.cookies, renewed: o.at, prefix: prefix, websocket: isWebSocket(r),
	}
	if x.websocket && !mayUpgrade(r, o) {
		p.bypass(r, bypassOrigin)
		return problem.CrossSite
	}
	if o.signedIn {
		assertion, err := p.assertions.Assertion(o.who, o.origin)
		if err != nil {
			p.logger.ErrorContext(r.Context(), "assertion cannot be signed", "err", err, "request_id", p.requestID(r))
			return problem.Internal
		}
		x.assertion = assertion
	}
	x.serve()
	return ""
}

// refuse answers with a problem before an app was asked. route may be nil.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, route *route, why problem.Problem) {
	p.observe(route, why.Code)
	p.draw(w, r, why)
}

// draw answers with a problem.
func (p *Proxy) draw(w http.ResponseWriter, r *http.Request, why problem.Problem) {
	why.RequestID = p.requestID(r)
	w.Header()[HeaderRequestID] = []string{why.RequestID}
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
	name := ""
	if route != nil {
		name = route.name
	}
	p.observer.Answered(name, code)
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
		if r.balancer != nil {
			r.balancer.close()
		}
	}
}

// nobody observes nothing.
type nobody struct{}

func (nobody) Decided(*http.Request, string, string) {}
func (nobody) Answered(string, problem.Code)         {}
