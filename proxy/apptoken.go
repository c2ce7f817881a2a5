package proxy

import (
	"net/http"

	"gatehouse/auth"
	"gatehouse/problem"
	"gatehouse/session"
)

// Tokens says who presents an app token, for programs that cannot sign in on a page. The gateway makes it of *auth.AppTokens.
type Tokens interface {
	// Authenticate returns who presents an app token for the route with this name. claimed is false if Authorization does not claim to hold
	// one; if it does, that alone decides, and an error is a *auth.Refused.
	Authenticate(r *http.Request, route string) (who session.Principal, claimed bool, err error)
	// Claimed reports whether Authorization claims to hold a credential of ours, of whatever kind and state.
	Claimed(r *http.Request) bool
}

// noTokens is for a proxy without app tokens.
type noTokens struct{}

func (noTokens) Authenticate(*http.Request, string) (session.Principal, bool, error) {
	return session.Principal{}, false, nil
}
func (noTokens) Claimed(*http.Request) bool { return false }

// basicChallenge makes git, curl and calendars send what they have. Browsers would ask for a password in a window of their own, so they do not
// get it (isBrowser).
const basicChallenge = `Basic realm="app token", charset="UTF-8"`

// isBrowser reports whether a request comes from a browser, which says where from in every request to a trustworthy origin (Fetch
// Metadata); programs do not.
func isBrowser(r *http.Request) bool {
	return len(r.Header["Sec-Fetch-Site"])+len(r.Header["Sec-Fetch-Mode"]) > 0
}

// refuseToken answers a request with an app token that is not good.
func (p *Proxy) refuseToken(w http.ResponseWriter, r *http.Request, route *route, refused *auth.Refused) {
	if refused.Code == problem.InvalidCredentials {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.Header().Add("WWW-Authenticate", basicChallenge)
	}
	why := problem.New(refused.Code)
	if refused.RetryAfter > 0 {
		why.RetryAfter = problem.RetrySeconds(refused.RetryAfter)
	}
	p.refuse(w, r, route, why)
}

// fresher decides once more about a request whose session may have got a fresher factor at another gateway a moment ago: the person comes
// straight from there, and must not be sent back.
func (p *Proxy) fresher(r *http.Request, asked func(finder) outcome, o outcome) outcome {
	up, err := p.sessions.SteppedUp(r.Context(), o.who)
	if err != nil || !up {
		return o
	}
	return asked(func(_ *route, origin string) (session.Principal, []*http.Cookie, error) {
		return p.sessions.Renew(r.Context(), r, origin)
	})
}
