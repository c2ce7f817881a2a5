package web

import (
	"errors"
	"net/http"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/problem"
	"gatehouse/ratelimit"
	"gatehouse/session"
)

// The pages of a logout.
type (
	logoutPage struct {
		frame
		form
		Username string // empty: nobody is signed in here
		Home     bool   // there is an app to go back to
		All      bool   // all sessions of the user can be ended, too
	}
	signedOutPage struct {
		frame
		All bool // every session ended
	}
)

// showLogout shows the buttons; signing out itself is a POST.
func (e *Edge) showLogout(w http.ResponseWriter, r *http.Request) {
	p, cookies, err := e.principal(r)
	if err != nil && !noSession(err) {
		e.drawProblem(w, r, e.unavailable(r, err))
		return
	}
	setCookies(w, cookies)
	e.drawLogout(w, r, &logoutPage{Username: p.Name})
}

func (e *Edge) drawLogout(w http.ResponseWriter, r *http.Request, p *logoutPage) {
	p.Title, p.FormToken, p.Action = say("logout.title"), e.formToken(e.browser(w, r)), Prefix+"logout"
	p.All, p.Home = e.atLogin(), !e.atLogin() || !e.NoApp
	e.render(w, r, "logout", p)
}

// logoutForm ends this session, or all of the user's. On an app host only this one: a script of the app could send the form.
func (e *Edge) logoutForm(w http.ResponseWriter, r *http.Request) {
	if code, ok := declared(r, formType); !ok {
		e.drawProblem(w, r, e.newProblem(r, code))
		return
	}
	if !e.sameOrigin(r) {
		e.countBypass(r, "cross-site")
		e.drawProblem(w, r, e.newProblem(r, problem.CrossSite))
		return
	}
	p, _, err := e.principal(r)
	if !e.mayPost(w, r, err) {
		return
	}
	form, formErr := e.readForm(w, r)
	var bad *auth.BadRequest
	if errors.As(formErr, &bad) {
		again := &logoutPage{Username: p.Name}
		again.warn(bad.Code, say(title(bad.Code)))
		e.drawLogout(w, r, again)
		return
	}
	all := form.Get("all") != "" && e.atLogin()
	if err == nil {
		if err := e.signOut(r, p, all); err != nil {
			e.drawProblem(w, r, e.unavailable(r, err))
			return
		}
	}
	e.clearCookies(w)
	if e.atLogin() { // what an app has in the browser's cache is not ours to clear
		w.Header().Set("Clear-Site-Data", `"cache"`)
	}
	e.render(w, r, "signed-out", &signedOutPage{frame: frame{Title: say("signed-out.title")}, All: all})
}

// logoutJSON ends this session for a program.
func (e *Edge) logoutJSON(w http.ResponseWriter, r *http.Request) {
	if !e.sameOrigin(r) {
		e.countBypass(r, "cross-site")
		e.newProblem(r, problem.CrossSite).Write(w)
		return
	}
	p, _, err := e.principal(r)
	if !e.mayPost(w, r, err) {
		return
	}
	if err != nil {
		e.sessionRequired(r).Write(w)
		return
	}
	if err := e.signOut(r, p, false); err != nil {
		e.unavailable(r, err).Write(w)
		return
	}
	e.clearCookies(w)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// clearCookies takes the session from the browser. The login host goes on to know the device; on an app host the device cookie was the
// session's, and the nonce is not to outlive it.
func (e *Edge) clearCookies(w http.ResponseWriter) {
	setCookies(w, session.ClearCookies())
	if !e.atLogin() {
		setCookies(w, []*http.Cookie{session.ClearDeviceCookie(), session.ClearLoginCookie()})
	}
}

// mayPost draws a token of the address for a POST without a session, and answers what can go no further.
func (e *Edge) mayPost(w http.ResponseWriter, r *http.Request, err error) bool {
	if err == nil {
		return true
	}
	if !noSession(err) {
		e.Problem(w, r, e.unavailable(r, err))
		return false
	}
	_, err = e.RateLimit.Take(r.Context(), e.Visitor(r).Address)
	var limited *ratelimit.LimitedError
	switch {
	case err == nil:
		return true
	case errors.As(err, &limited):
		p := e.newProblem(r, problem.RateLimited)
		p.RetryAfter = problem.RetrySeconds(limited.RetryAfter)
		e.Problem(w, r, p)
	default:
		e.Problem(w, r, e.unavailable(r, err))
	}
	return false
}

// signOut records and ends the session, or all sessions of the user.
func (e *Edge) signOut(r *http.Request, p session.Principal, all bool) error {
	v := e.Visitor(r)
	event := audit.Event{
		Kind: audit.KindLogout, Outcome: audit.Success, Actor: audit.Actor{Type: audit.ActorUser, ID: p.UserID, Name: p.Name},
		Subject: audit.Subject{ID: p.UserID, Name: p.Name}, RequestID: v.RequestID,
		Client: audit.Client{Address: v.Address.String(), Network: v.Network.String(), UserAgent: r.UserAgent()},
	}
	if all {
		event.Kind = audit.KindSessionsRevoked
		_, err := e.Sessions.RevokeUser(r.Context(), p.UserID, "", event)
		return err
	}
	return e.Sessions.Revoke(r.Context(), p.UserID, p.SessionID, event)
}

func (e *Edge) countBypass(r *http.Request, what string) {
	v := e.Visitor(r)
	e.Audit.Count(audit.Event{
		Kind: audit.KindBypass, Outcome: audit.Denied, Count: 1, Actor: audit.Actor{Type: audit.ActorClient},
		Client: audit.Client{Address: v.Address.String(), Network: v.Network.String()}, Details: map[string]string{"what": what},
	})
}

// noSession reports whether an error of the sessions means that there is none, and not that they could not be asked.
func noSession(err error) bool { return err != nil && !errors.Is(err, session.ErrUnavailable) }
