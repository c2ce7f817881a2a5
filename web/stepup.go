package web

import (
	"context"
	"errors"
	"net/http"

	"gatehouse/auth"
	"gatehouse/auth/totp"
	"gatehouse/problem"
	"gatehouse/session"
)

// VerifyPath is where somebody who is signed in enters a fresh code, with where to go afterwards as its `next`.
const VerifyPath = Prefix + "login/verify"

// stepUpPage asks somebody who is signed in for a code, or says what to do where there is nothing to ask for.
type stepUpPage struct {
	frame
	form
	Next, Destination string
	Username          string
	Enrolled          bool
	FocusCode         bool
}

// showVerify asks for a code. Whoever is not signed in signs in instead, which is as fresh.
func (e *Edge) showVerify(w http.ResponseWriter, r *http.Request) {
	next := e.next(r, r.URL.Query()["next"])
	held, cookies, err := e.browserSession(r)
	switch {
	case noSession(err):
		http.Redirect(w, r, own("login", next), http.StatusSeeOther)
		return
	case err != nil:
		e.drawProblem(w, r, e.unavailable(r, err))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), auth.StoreTimeout)
	defer cancel()
	enrolled, err := e.Login.CanStepUp(ctx, held.UserID)
	if err != nil {
		e.drawProblem(w, r, e.unavailable(r, err))
		return
	}
	setCookies(w, cookies)
	e.drawStepUp(w, r, held, &stepUpPage{Next: next, Enrolled: enrolled})
}

func (e *Edge) drawStepUp(w http.ResponseWriter, r *http.Request, held session.Principal, p *stepUpPage) {
	p.Title, p.Destination, p.Username, p.FocusCode = say("step-up.title"), e.leadsTo(&p.frame, p.Next), held.Name, true
	p.FormToken, p.Action = e.formToken(e.browser(w, r)), VerifyPath
	e.render(w, r, "step-up", p)
}

// verifyForm takes the code of somebody who is signed in. It costs what the code of a login costs.
func (e *Edge) verifyForm(w http.ResponseWriter, r *http.Request) {
	if code, ok := declared(r, formType); !ok {
		e.drawProblem(w, r, e.newProblem(r, code))
		return
	}
	if !e.sameOrigin(r) {
		e.countBypass(r, "cross-site")
		e.drawProblem(w, r, e.newProblem(r, problem.CrossSite))
		return
	}
	held, renewed, err := e.browserSession(r)
	if !e.mayPost(w, r, err) {
		return
	}
	page := &stepUpPage{Next: "/", Enrolled: true}
	present := func() (auth.Presented, error) { return e.readCode(w, r, page) }
	if err != nil {
		_, _ = present() // for where to go
		http.Redirect(w, r, own("login", page.Next), http.StatusSeeOther)
		return
	}
	switch out := e.Login.StepUp(r.Context(), e.client(r, ""), held, present); out.Code {
	case "":
		setCookies(w, out.Credentials.Cookies)
		e.goTo(w, r, page.Next)
	case problem.SessionRequired:
		http.Redirect(w, r, own("login", page.Next), http.StatusSeeOther)
	default:
		page.Enrolled = out.Code != problem.EnrolmentRequired
		setCookies(w, renewed)
		e.fail(r, &page.frame, out, "code")
		e.drawStepUp(w, r, held, page)
	}
}

// readCode reads the form of a code.
func (e *Edge) readCode(w http.ResponseWriter, r *http.Request, page *stepUpPage) (auth.Presented, error) {
	form, err := e.readForm(w, r)
	if form != nil {
		page.Next = e.next(r, form["next"])
	}
	if err != nil {
		return auth.Presented{}, err
	}
	code := totp.CleanForm(form.Get("code"))
	if code == "" {
		return auth.Presented{}, &auth.BadRequest{Code: problem.BadRequest, Err: errors.New("no code")}
	}
	return auth.Presented{Code: code}, nil
}

// browserSession returns who is signed in with the cookies of a browser. A bearer token has no handle, so nothing of it could be made
// fresher: a program signs in again.
func (e *Edge) browserSession(r *http.Request) (session.Principal, []*http.Cookie, error) {
	held, cookies, err := e.principal(r)
	if err == nil && held.Bearer {
		return session.Principal{}, nil, session.ErrNoSession
	}
	return held, cookies, err
}
