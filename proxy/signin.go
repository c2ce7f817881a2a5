package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"gatehouse/problem"
	"gatehouse/session"
)

const (
	loginPath = "/.gatehouse/login"
	// maxNext is the longest way back that a redirect to the login page carries, in bytes; the login page follows no longer
	// one, and front proxies refuse a long Location.
	maxNext = 2000
	// retrySeconds is when to try again while the store is away.
	retrySeconds = 5
)

// authenticate says who sends the request, renewing the access token where it has expired, with the cookies to add to the
// answer. If nobody can be named, it answers, and returns false.
func (p *Proxy) authenticate(w http.ResponseWriter, r *http.Request, route *route, wanted target) (session.Principal, []*http.Cookie, bool) {
	who, err := p.sessions.Authenticate(r.Context(), r, route.origin)
	var cookies []*http.Cookie
	if errors.Is(err, session.ErrExpired) {
		who, cookies, err = p.sessions.Renew(r.Context(), r, route.origin)
	}
	switch {
	case err == nil:
		return who, cookies, true
	case errors.Is(err, session.ErrNoSession), errors.Is(err, session.ErrExpired):
		p.askToSignIn(w, r, route, wanted)
	case errors.Is(err, session.ErrBadBearer):
		p.unauthorized(w, r, route, `Bearer error="invalid_token"`) // RFC 6750, section 3.1
	case errors.Is(err, session.ErrBadRequest):
		p.refuse(w, r, route, problem.New(problem.BadRequest))
	default:
		if !errors.Is(err, session.ErrUnavailable) {
			p.logger.ErrorContext(r.Context(), "session cannot be checked", "err", err, "request_id", p.requestID(r))
		}
		why := problem.New(problem.Unavailable) // cookies stay untouched: the session may be as good as ever
		why.RetryAfter = retrySeconds
		p.refuse(w, r, route, why)
	}
	return session.Principal{}, nil, false
}

// askToSignIn sends a person's navigation to the login page, and everything else, which could do nothing with a page, a
// 401.
func (p *Proxy) askToSignIn(w http.ResponseWriter, r *http.Request, route *route, wanted target) {
	if forges(r.Header) {
		p.bypass(r, bypassIdentity)
	}
	if !isDocument(r) {
		p.unauthorized(w, r, route, "Bearer")
		return
	}
	p.observe(route, problem.SessionRequired)
	h := w.Header()
	h.Set("Location", p.external+loginPath+p.wayBack(route, wanted))
	h.Set("Cache-Control", "no-store")
	if Ambiguous(r) {
		h.Set("Connection", "close")
	}
	w.WriteHeader(http.StatusFound)
}

// unauthorized answers 401, with the challenge that such an answer must carry (RFC 9110, section 15.5.2). Bearer makes no
// browser ask for a password by itself.
func (p *Proxy) unauthorized(w http.ResponseWriter, r *http.Request, route *route, challenge string) {
	w.Header().Set("WWW-Authenticate", challenge)
	why := problem.New(problem.SessionRequired)
	why.LoginURL = p.external + loginPath
	p.refuse(w, r, route, why)
}

// wayBack is the query that brings the person back. It is left out where the login page would not follow it.
func (p *Proxy) wayBack(route *route, wanted target) string {
	next := wanted.String()
	if next == "/" || len(next) > maxNext || strings.HasPrefix(next, "//") {
		return ""
	}
	if route.origin != p.external {
		next = route.origin + next
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

// mayUpgrade reports whether a WebSocket may be opened: by this host's own pages, or by a client that is no browser, which
// shows in the token that it sends itself. A cookie alone says nothing, because browsers send it along for every page that asks
// (cross-site WebSocket hijacking).
func mayUpgrade(r *http.Request, route *route, who session.Principal) bool {
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return who.Bearer
	}
	return len(origins) == 1 && origins[0] == route.origin
}
