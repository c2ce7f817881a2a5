// Package web is the login edge: the pages and the JSON login under /.gatehouse/.
//
// It promises: a POST is served only for a form that this gateway drew for this browser (form token), from this origin; the
// body is read after the address had a token, or while no password could be checked anyway, and never beyond 16 kB; a redirect
// leaves only to where checkNext allows; an answer says no more than its problem code, and is never stored by a cache; every page works without script, in the reader's
// language, and loads nothing from elsewhere; what came with a request reaches a page through html/template only. It keeps no
// state of its own.
package web

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/link"
	"gatehouse/problem"
	"gatehouse/ratelimit"
	"gatehouse/session"
)

// Prefix is the path under which everything of the gateway's own lives, on every host.
const Prefix = "/.gatehouse/"

// MaxBody is the largest body of a login, in bytes.
const MaxBody = 16 << 10

// Login is the login flow.
type Login interface {
	Login(ctx context.Context, client auth.Client, present func() (auth.Presented, error)) auth.Outcome
	// Waiting returns the name of the account whose login waits for a code behind the challenge, in this browser.
	Waiting(ctx context.Context, challenge, browser string) (string, error)
	// EnrolView returns a fresh secret for the account whose login waits for an enrolment behind the challenge, in this browser.
	EnrolView(ctx context.Context, challenge, browser string) (auth.Enrolment, error)
	// StepUp makes the session of a request fresher by a code.
	StepUp(ctx context.Context, client auth.Client, held session.Principal, present func() (auth.Presented, error)) auth.Outcome
	// CanStepUp reports whether an account has a second factor.
	CanStepUp(ctx context.Context, userID string) (bool, error)
}

// Onboarding makes and completes accounts by one-time links. Its errors are of type *auth.Refused.
type Onboarding interface {
	View(ctx context.Context, client auth.Client, kind link.Kind, token string) (auth.View, error)
	Choose(ctx context.Context, client auth.Client, kind link.Kind, present func() (auth.Choice, error)) (auth.Enrolment, error)
	Enrolment(ctx context.Context, client auth.Client, kind link.Kind, token string) (auth.Enrolment, error)
	Confirm(ctx context.Context, client auth.Client, kind link.Kind, present func() (auth.Confirmation, error)) auth.Outcome
}

// Sessions are the sessions of people who are signed in.
type Sessions interface {
	Authenticate(ctx context.Context, r *http.Request, origin string) (session.Principal, error)
	Renew(ctx context.Context, r *http.Request, origin string) (session.Principal, []*http.Cookie, error)
	// Revoke records the event and ends the session on every host and gateway.
	Revoke(ctx context.Context, userID, sessionID string, event audit.Event) error
	// RevokeUser ends all sessions of a user, but the one excepted, and returns how many.
	RevokeUser(ctx context.Context, userID, except string, event audit.Event) (int, error)
}

// RateLimit is the address bucket, for POSTs that are served without a session and are no login.
type RateLimit interface {
	Take(ctx context.Context, address netip.Addr) (ratelimit.Token, error)
}

// Recorder counts refusals and attempts to get around something.
type Recorder interface {
	Count(event audit.Event)
}

// Visitor is who sends a request, as the gateway found out.
type Visitor struct {
	RequestID string
	Address   netip.Addr
	Network   netip.Prefix
	Claimed   string
}

// App is where browsers find an app.
type App struct {
	Name string // its host and path, for readers
	URL  string // empty if the host is a wildcard
}

// Options is what an Edge is made of; all but Site and Apps are required.
type Options struct {
	Login      Login
	Onboarding Onboarding
	Sessions   Sessions
	RateLimit  RateLimit
	Audit      Recorder
	// Site is how the pages look and speak.
	Site Site
	// External is the login host as browsers see it: scheme and host only.
	External *url.URL
	// Hosts are those of the apps; nil if there are none but the login host.
	Hosts Hosts
	// HandOff makes and redeems hand-off codes, and Joiner gives a session cookies of another host.
	HandOff HandOff
	Joiner  Joiner
	// NoApp: nothing but our own pages is on the login host.
	NoApp bool
	// Apps are what the last page of the set-up leads to; none while there is nothing but the sample app.
	Apps []App
	// FormKey makes form tokens; the same for all gateways of one store.
	FormKey []byte
	// JWKS returns the public keys.
	JWKS    func() []byte
	Visitor func(*http.Request) Visitor
	Now     func() time.Time
	Logger  *slog.Logger
}

// Edge serves the routes of the login host, and those that every app host has (apphost.go). Safe for concurrent use.
type Edge struct {
	Options
	look   *look
	origin string // of the host that is served: the login host's, but in a copy that OnHost made
	cross  *http.CrossOriginProtection
	mux    *http.ServeMux
}

// New makes an Edge. The error says what is wrong with the Site.
func New(o Options) (*Edge, error) {
	look, missing, err := newLook(o.Site)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		o.Logger.Warn("texts are missing; they are said in English", "texts", missing)
	}
	e := &Edge{Options: o, look: look, origin: o.External.Scheme + "://" + o.External.Host, cross: http.NewCrossOriginProtection(), mux: http.NewServeMux()}
	for _, route := range e.Routes() {
		e.mux.Handle(route.Path, e.methods(route))
	}
	return e, nil
}

// Route is one path of the edge.
type Route struct {
	Path      string
	Get, Post http.HandlerFunc // nil: the method is not allowed
	// Limited: a POST without a session draws a token of its address.
	Limited bool
}

// Routes is every path that the edge serves, in one place. Everything else under Prefix is not found.
func (e *Edge) Routes() []Route {
	return []Route{
		{Path: Prefix + "login", Get: e.showLogin, Post: e.loginForm, Limited: true},
		{Path: Prefix + "login/code", Get: e.showCode, Post: e.codeForm, Limited: true},
		{Path: Prefix + "login/enrol", Get: e.showEnrol, Post: e.codeForm, Limited: true},
		{Path: VerifyPath, Get: e.showVerify, Post: e.verifyForm, Limited: true},
		{Path: Prefix + "setup", Get: e.showLink(link.Setup), Post: e.linkForm(link.Setup), Limited: true},
		{Path: Prefix + "invite", Get: e.showLink(link.Invite), Post: e.linkForm(link.Invite), Limited: true},
		{Path: Prefix + "logout", Get: e.showLogout, Post: e.logoutForm, Limited: true},
		{Path: Prefix + "api/v1/login", Post: e.loginJSON, Limited: true},
		{Path: Prefix + "api/v1/logout", Post: e.logoutJSON, Limited: true},
		{Path: Prefix + "api/v1/session", Get: e.sessionJSON},
		{Path: Prefix + "handoff", Get: e.noHandOff},
		{Path: Prefix + "renew", Get: e.renew},
		{Path: Prefix + "jwks.json", Get: e.jwks},
		{Path: Prefix + "assets/gatehouse.css", Get: e.styleSheet},
		{Path: Prefix + "assets/logo", Get: e.logo},
	}
}

// ServeHTTP serves what lies under Prefix.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler, pattern := e.mux.Handler(r)
	if pattern == "" || pattern != r.URL.Path { // the mux would redirect a path that it cleans
		e.Problem(w, r, problem.New(problem.NotFound))
		return
	}
	handler.ServeHTTP(w, r)
}

// methods lets the route's methods through; HEAD is GET (RFC 9110, section 9.3.2).
func (e *Edge) methods(route Route) http.Handler {
	allow := ""
	if route.Get != nil {
		allow = "GET, HEAD"
	}
	if route.Post != nil {
		if allow != "" {
			allow += ", "
		}
		allow += "POST"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case (r.Method == http.MethodGet || r.Method == http.MethodHead) && route.Get != nil:
			route.Get(w, r)
		case r.Method == http.MethodPost && route.Post != nil:
			route.Post(w, r)
		default:
			w.Header().Set("Allow", allow)
			e.Problem(w, r, problem.New(problem.MethodNotAllowed))
		}
	})
}

func (e *Edge) jwks(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(e.JWKS())
}

// client describes the visitor to the login flow. browser is empty for the JSON login.
func (e *Edge) client(r *http.Request, browser string) auth.Client {
	v := e.Visitor(r)
	return auth.Client{
		Address: v.Address, Network: v.Network, Claimed: v.Claimed, RequestID: v.RequestID, UserAgent: r.UserAgent(),
		Origin: e.origin, Browser: browser, DeviceCookie: session.ReadDevice(r), Handle: session.ReadHandle(r),
	}
}
