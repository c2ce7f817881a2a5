package proxy

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gatehouse/access"
	"gatehouse/auth"
	"gatehouse/problem"
	"gatehouse/proxy/clientip"
	"gatehouse/session"
)

const (
	headerLocation = "X-Gatehouse-Location" // where to send a person, for nginx, which passes no 302 on
	headerCode     = "X-Gatehouse-Code"

	// askWithin bounds the check of an app token, which may have to wait for its turn; the store bounds itself. Front proxies wait longer than
	// that, so what they get is an answer and not a time-out.
	askWithin = 2 * time.Second
	renewPath = "/.gatehouse/renew"
)

// Handles says who sends a request where no cookie can be set in the answer. *session.Manager does.
type Handles interface {
	// Look is Authenticate that looks at the handle where the access token has expired, and leaves it as it is. stale reports that the
	// browser should be sent for another one at the next occasion.
	Look(ctx context.Context, r *http.Request, origin string) (who session.Principal, stale bool, err error)
	// LookAgain is Look that reads the session in any case.
	LookAgain(ctx context.Context, r *http.Request, origin string) (who session.Principal, stale bool, err error)
}

// ForwardAuthOptions is what forward-auth is made of.
type ForwardAuthOptions struct {
	Peers   []netip.Prefix // the front proxies that may ask; none: nobody
	Handles Handles        // required
}

// forwardAuth answers front proxies that ask about each request and send it to the app themselves. It decides as the proxy does; only what
// becomes of the decision differs.
type forwardAuth struct {
	*Proxy
	peers   *clientip.Resolver
	handles Handles
}

// ForwardAuth makes the handler of everything under AuthzPath.
func (p *Proxy) ForwardAuth(o ForwardAuthOptions) http.Handler {
	return &forwardAuth{Proxy: p, peers: clientip.New(o.Peers), handles: o.Handles}
}

// ServeHTTP implements http.Handler.
func (f *forwardAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !f.peers.Lists(r) {
		f.bypass(r, bypassForwardAuth)
		f.refuse(w, r, nil, problem.New(problem.Forbidden))
		return
	}
	q, ok := readQuestion(r)
	if !ok {
		f.say(w, r, q, refusal{code: problem.BadRequest})
		return
	}
	ctx := r.Context()
	if len(r.Header["Authorization"]) > 0 { // what cookies need is bounded by the store, and most need nothing of it
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askWithin)
		defer cancel()
	}
	in := q.request(r.WithContext(ctx))
	if forges(in.Header) {
		f.bypass(in, bypassIdentity)
	}
	wanted, code := admit(in)
	if code != "" {
		f.say(w, in, q, refusal{code: code})
		return
	}
	o, stale := f.ask(in, wanted)
	if o.route != nil {
		f.observer.Decided(r, o.route.name, o.who.Name)
	}
	switch {
	case o.code != "":
		f.say(w, in, q, f.refusal(in, wanted, &o))
	case asksUpgrade(in) && !mayUpgrade(in, &o):
		f.bypass(in, bypassOrigin)
		f.say(w, in, q, refusal{route: o.route, code: problem.CrossSite})
	case stale && in.Method == http.MethodGet && navigates(in) && len(in.RequestURI) <= maxNext && !strings.HasPrefix(in.RequestURI, "//"):
		f.say(w, in, q, refusal{
			route: o.route, code: problem.SessionRequired, location: o.origin + renewPath + "?next=" + url.QueryEscape(wanted.String()),
		})
	default:
		f.allow(w, in, q, &o)
	}
}

// ask decides about the request. stale reports that its handle is.
func (f *forwardAuth) ask(in *http.Request, wanted target) (o outcome, stale bool) {
	asked := access.Request{Host: in.Host, Path: wanted.path, Method: in.Method, Address: f.client(in).Address}
	look := f.handles.Look
	find := func(at *route, origin string) (who session.Principal, _ []*http.Cookie, err error) {
		if len(in.Header["Authorization"]) > 0 {
			if who, claimed, err := f.tokens.Authenticate(in, at.name); claimed {
				return who, nil, err
			}
		}
		who, stale, err = look(in.Context(), in, origin)
		return who, nil, err
	}
	o = f.decide(asked, find)
	if o.Verdict == access.StepUp {
		// The fresher factor may have been shown at another gateway a moment ago, and the news be on its way.
		if up, err := f.sessions.SteppedUp(in.Context(), o.who); err == nil && up {
			look = f.handles.LookAgain
			o = f.decide(asked, find)
		}
	}
	return o, stale
}

// allow answers 200 with what the front proxy has to set in the request to the app, each of it in any case: what is empty replaces what a
// client may have sent.
func (f *forwardAuth) allow(w http.ResponseWriter, in *http.Request, q question, o *outcome) {
	assertion := ""
	if o.signedIn {
		var err error
		if assertion, err = f.assertions.Assertion(o.who, o.origin); err != nil {
			f.logger.ErrorContext(in.Context(), "assertion cannot be signed", "err", err, "request_id", f.requestID(in))
			f.say(w, in, q, refusal{route: o.route, code: problem.Unavailable})
			return
		}
	}
	h := w.Header()
	values := make([]string, 0, 16) // one array for all
	set := func(name, value string) {
		if name != "" {
			values = append(values, value)
			h[name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	who, groups := &o.who, strings.Join(o.who.Groups, ",")
	for _, names := range [...]identityNames{o.route.names, contractNames} {
		if h[names.user] == nil {
			set(names.user, who.Name)
			set(names.account, who.Name)
			set(names.name, plainText(who.DisplayName))
			set(names.email, plainText(who.Email))
			set(names.groups, groups)
		}
	}
	set(headerAssertion, assertion)
	set("Cookie", appCookies(in.Header["Cookie"]))
	authorization := ""
	if lines := in.Header["Authorization"]; len(lines) == 1 && !f.takesAuthorization(in, who, o.signedIn) {
		authorization = lines[0]
	}
	set("Authorization", authorization)
	set("Cache-Control", "no-store")
	f.observe(o.route, "")
	w.WriteHeader(http.StatusOK)
}

// contractNames are the headers that every answer carries, whatever the route's preset adds.
var contractNames = identityNames{user: "Remote-User", name: "Remote-Name", email: "Remote-Email", groups: "Remote-Groups"}

// appCookies is one Cookie line of what is left without ours.
func appCookies(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	left := http.Header{"Cookie": lines}
	session.StripRequest(left)
	if lines = left["Cookie"]; len(lines) == 1 {
		return lines[0]
	}
	return strings.Join(lines, "; ") // RFC 9113, section 8.2.3
}

// takesAuthorization reports whether Authorization is for us and not for the app: what claims to be ours was refused, unless nobody could be
// asked on the way to what is public.
func (p *Proxy) takesAuthorization(in *http.Request, who *session.Principal, signedIn bool) bool {
	return who.Bearer || !signedIn && len(in.Header["Authorization"]) > 0 && p.tokens.Claimed(in)
}

// refusal is what a front proxy is told of a request that does not pass.
type refusal struct {
	route      *route
	code       problem.Code
	location   string // where a person can change it; empty where there is no person, or nothing to be changed
	login      string // the page of location, for programs
	challenges []string
	retry      int // in seconds
}

// refusal is what to say of a request that was decided about.
func (f *forwardAuth) refusal(in *http.Request, wanted target, o *outcome) refusal {
	out := refusal{route: o.route, code: o.code}
	refused := (*auth.Refused)(nil)
	switch {
	case errors.As(o.cause, &refused):
		out.code = refused.Code
		if refused.Code == problem.InvalidCredentials {
			out.challenges = []string{`Bearer error="invalid_token"`, basicChallenge}
		}
		if refused.RetryAfter > 0 {
			out.retry = problem.RetrySeconds(refused.RetryAfter)
		}
	case o.code == problem.Unavailable:
		if !errors.Is(o.cause, session.ErrUnavailable) {
			f.logger.ErrorContext(in.Context(), "session cannot be checked", "err", o.cause, "request_id", f.requestID(in))
		}
	case o.cause != nil && o.code == problem.SessionRequired:
		out.challenges, out.login = []string{`Bearer error="invalid_token"`}, f.external+loginPath // RFC 6750, section 3.1
	case o.Verdict == access.SignIn, o.Verdict == access.StepUp:
		page, challenge := o.page()
		out.login, out.challenges = f.external+page, []string{challenge}
		if navigates(in) {
			out.location = out.login + f.wayBack(o.origin, wanted)
		} else if o.Verdict == access.SignIn && !isBrowser(in) {
			out.challenges = append(out.challenges, basicChallenge)
		}
	}
	return out
}

// say answers with a refusal, in the statuses that the front proxy takes: 302, 401, 403 and 503, and of nginx' only 401 and 403.
func (f *forwardAuth) say(w http.ResponseWriter, in *http.Request, q question, n refusal) {
	f.observe(n.route, n.code)
	h := w.Header()
	h[headerCode] = []string{string(n.code)}
	h["Cache-Control"] = []string{"no-store"}
	if n.code == problem.Unavailable {
		n.retry = cmp.Or(n.retry, retrySeconds)
	}
	if n.location != "" && !q.nginx {
		h["Location"] = []string{n.location}
		w.WriteHeader(http.StatusFound)
		return
	}
	why := problem.New(n.code)
	why.RequestID, why.LoginURL, why.RetryAfter = f.requestID(in), n.login, n.retry
	switch {
	case why.Status == http.StatusUnauthorized && len(n.challenges) > 0:
		// In one line (RFC 9110, section 11.6.1): auth_request of nginx passes on the first line only.
		h["Www-Authenticate"] = []string{strings.Join(n.challenges, ", ")}
	case why.Status == http.StatusUnauthorized:
	case why.Status == http.StatusServiceUnavailable && !q.nginx:
	default:
		why.Status = http.StatusForbidden
	}
	switch {
	case q.nginx: // which drops the body
		if n.location != "" {
			h[headerLocation] = []string{n.location}
		}
		why.Write(w)
	case why.Status != n.code.Status(): // the code, which has another status, is in the header
		if n.retry > 0 {
			h["Retry-After"] = []string{strconv.Itoa(n.retry)}
		}
		known := problem.New(problem.Forbidden)
		known.RequestID = why.RequestID
		f.pages.Problem(w, in, known)
	default:
		f.pages.Problem(w, in, why)
	}
}

// asksUpgrade reports whether a request opens a WebSocket. Front proxies keep Upgrade to themselves; what is end-to-end of the handshake
// (RFC 6455, section 4.1) tells.
func asksUpgrade(in *http.Request) bool {
	return len(in.Header["Upgrade"])+len(in.Header["Sec-Websocket-Key"])+len(in.Header["Sec-Websocket-Version"]) > 0
}

// navigates reports whether there is a person who can be sent somewhere.
func navigates(in *http.Request) bool { return !asksUpgrade(in) && isDocument(in) }
