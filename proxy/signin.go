package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"gatehouse/access"
	"gatehouse/auth"
	"gatehouse/problem"
	"gatehouse/session"
)

const (
	loginPath  = "/.gatehouse/login"
	verifyPath = "/.gatehouse/login/verify"
	// maxNext is the longest way back that a redirect to the login page carries, in bytes; the login page follows no longer
	// one, and front proxies refuse a long Location.
	maxNext = 2000
	// retrySeconds is when to try again while the store is away.
	retrySeconds = 5
)

// find says who sends the request, renewing the access token where it has expired, with the cookies to add to the answer. What claims to be
// an app token decides alone.
func (p *Proxy) find(r *http.Request, at *route, origin string) (session.Principal, []*http.Cookie, error) {
	if len(r.Header["Authorization"]) > 0 {
		if who, claimed, err := p.tokens.Authenticate(r, at.name); claimed {
			return who, nil, err
		}
	}
	who, err := p.sessions.Authenticate(r.Context(), r, origin)
	if errors.Is(err, session.ErrExpired) {
		return p.sessions.Renew(r.Context(), r, origin)
	}
	return who, nil, err
}

// turnAway answers a request that may not pass: people who could change that are sent where they can, everything else gets the code.
func (p *Proxy) turnAway(w http.ResponseWriter, r *http.Request, wanted target, o outcome) {
	if forges(r.Header) {
		p.bypass(r, bypassIdentity)
	}
	if o.code == problem.BadRequest && o.cause == nil { // the path, and not a credential
		p.bypass(r, bypassPath)
	}
	addCookies(w.Header(), o.cookies)
	if refused := (*auth.Refused)(nil); errors.As(o.cause, &refused) {
		p.refuseToken(w, r, o.route, refused)
		return
	}
	why := problem.New(o.code)
	switch {
	case o.code == problem.Unavailable:
		if !errors.Is(o.cause, session.ErrUnavailable) {
			p.logger.ErrorContext(r.Context(), "session cannot be checked", "err", o.cause, "request_id", p.requestID(r))
		}
		why.RetryAfter = retrySeconds // cookies stay untouched: the session may be as good as ever
	case o.cause != nil && o.code == problem.SessionRequired:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`) // RFC 6750, section 3.1
		why.LoginURL = p.external + loginPath
	case o.Verdict == access.SignIn, o.Verdict == access.StepUp:
		p.askPerson(w, r, wanted, o)
		return
	}
	p.refuse(w, r, o.route, why)
}

// askPerson sends a person's navigation to the page where they sign in, or show a fresh factor; and everything else, which could do nothing
// with a page, a 401. Bearer is the challenge that such an answer must carry (RFC 9110, section 15.5.2), and makes no browser ask for a
// password by itself; programs also hear that an app token would do.
func (p *Proxy) askPerson(w http.ResponseWriter, r *http.Request, wanted target, o outcome) {
	page, challenge := o.page()
	h := w.Header()
	if !isDocument(r) {
		h.Set("WWW-Authenticate", challenge)
		if o.Verdict == access.SignIn && !isBrowser(r) {
			h.Add("WWW-Authenticate", basicChallenge)
		}
		why := problem.New(o.code)
		why.LoginURL = p.external + page
		p.refuse(w, r, o.route, why)
		return
	}
	p.observe(o.route, o.code)
	h[HeaderRequestID] = []string{p.requestID(r)}
	h.Set("Location", p.external+page+p.wayBack(o.origin, wanted))
	h.Set("Cache-Control", "no-store")
	if Ambiguous(r) {
		h.Set("Connection", "close")
	}
	w.WriteHeader(http.StatusFound)
}

// page is where a person can do what the decision asks for, and the challenge that says so to programs.
func (o *outcome) page() (path, challenge string) {
	if o.Verdict == access.StepUp {
		return verifyPath, `Bearer error="insufficient_user_authentication"` // RFC 9470, section 3
	}
	return loginPath, "Bearer"
}

// wayBack is the query that brings the person back. It is left out where the login page would not follow it.
func (p *Proxy) wayBack(origin string, wanted target) string {
	next := wanted.String()
	if next == "/" && origin == p.external || len(next) > maxNext || strings.HasPrefix(next, "//") {
		return ""
	}
	if origin != p.external {
		next = origin + next
	}
	return "?next=" + url.QueryEscape(next)
}

// isDocument reports whether the request is a person's navigation: what browsers say about it (Fetch Metadata) where they
// say something, and that it wants HTML where they do not.
func isDocument(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || len(r.Header["Upgrade"]) > 0 {
		return false
	}
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	if mode != "" || dest != "" {
		return mode == "navigate" && dest == "document"
	}
	for _, line := range r.Header["Accept"] {
		for item := range strings.SplitSeq(line, ",") {
			kind, parameters, _ := strings.Cut(item, ";")
			if strings.EqualFold(strings.TrimSpace(kind), "text/html") && !unwanted(parameters) {
				return true
			}
		}
	}
	return false
}

// unwanted reports whether the parameters of a media range have the weight 0 (RFC 9110, section 12.4.2).
func unwanted(parameters string) bool {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if strings.EqualFold(name, "q") && strings.Trim(value, "0.") == "" {
			return true
		}
	}
	return false
}

// mayUpgrade reports whether a WebSocket may be opened: by this host's own pages and those that the route lists, or by a client that is no
// browser, which shows in the token that it sends itself. A cookie alone says nothing, because browsers send it along for every page that
// asks (cross-site WebSocket hijacking). Where everybody may come without a session, nothing of a browser's could be used without an Origin.
func mayUpgrade(r *http.Request, o *outcome) bool {
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return o.who.Bearer || !o.signedIn
	}
	return len(origins) == 1 && (origins[0] == o.origin || slices.Contains(o.route.origins, origins[0]))
}
