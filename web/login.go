package web

import (
	"context"
	"errors"
	"net/http"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/totp"
	"gatehouse/problem"
	"gatehouse/session"
)

// showLogin draws the login page. Who is signed in already is sent on.
func (e *Edge) showLogin(w http.ResponseWriter, r *http.Request) {
	next := e.next(r, r.URL.Query()["next"])
	if p, cookies, err := e.principal(r); err == nil {
		setCookies(w, cookies)
		e.sendOn(w, r, p, next)
		return
	}
	e.drawLogin(w, r, &loginPage{Next: next})
}

// drawLogin draws the login form, and gives the browser a nonce if it has none. A login that waits for a code ends with it.
func (e *Edge) drawLogin(w http.ResponseWriter, r *http.Request, p *loginPage) {
	b, ok := readBrowser(r)
	if !ok {
		b = newBrowser("")
	}
	http.SetCookie(w, browserState{nonce: b.nonce}.cookie())
	p.Title, p.Destination = say("login.title"), e.leadsTo(&p.frame, p.Next)
	p.FormToken, p.Action = e.formToken(b), Prefix+"login"
	e.render(w, r, "login", p)
}

// loginForm takes a name and a password.
func (e *Edge) loginForm(w http.ResponseWriter, r *http.Request) {
	if !e.acceptable(w, r) {
		return
	}
	p := &loginPage{Next: "/"}
	fresh := newBrowser("") // a pending login is bound to a nonce that nobody could plant before
	out := e.Login.Login(r.Context(), e.client(r, fresh.id()), func() (auth.Presented, error) {
		form, err := e.readForm(w, r)
		if err != nil {
			return auth.Presented{}, err
		}
		p.Next, p.Username = e.next(r, form["next"]), form.Get("username")
		if p.Username == "" || form.Get("password") == "" {
			return auth.Presented{}, &auth.BadRequest{Code: problem.BadRequest, Err: errors.New("no name or no password")}
		}
		return auth.Presented{Username: p.Username, Password: form.Get("password")}, nil
	})
	switch out.Code {
	case "":
		e.welcome(w, r, out, p.Next)
	case problem.CodeRequired:
		e.waitFor(w, r, fresh, out.Challenge, "login/code", p.Next)
	case problem.EnrolmentRequired:
		if out.Challenge == "" {
			e.drawProblem(w, r, e.problem(r, out))
			return
		}
		e.waitFor(w, r, fresh, out.Challenge, "login/enrol", p.Next)
	case problem.VerificationRequired:
		e.drawVerify(w, r)
	default:
		e.fail(r, &p.frame, out, "username", "password")
		e.drawLogin(w, r, p)
	}
}

// waitFor sends the browser to the page of a pending login's next step.
func (e *Edge) waitFor(w http.ResponseWriter, r *http.Request, b browserState, challenge, page, next string) {
	b.challenge = challenge
	http.SetCookie(w, b.cookie())
	http.Redirect(w, r, own(page, next), http.StatusSeeOther)
}

// showCode asks for the code of a pending login.
func (e *Edge) showCode(w http.ResponseWriter, r *http.Request) {
	next := e.next(r, r.URL.Query()["next"])
	b, ctx, cancel := e.waiting(r)
	defer cancel()
	name, err := e.Login.Waiting(ctx, b.challenge, b.id())
	switch {
	case errors.Is(err, auth.ErrNotWaiting):
		http.Redirect(w, r, own("login", next), http.StatusSeeOther)
	case err != nil:
		e.drawProblem(w, r, e.unavailable(r, err))
	default:
		e.drawCode(w, r, b, &codePage{Next: next, Username: name})
	}
}

// waiting returns the browser's state, and the time that asking about its pending login may take. A browser without one has an
// empty challenge, behind which nothing waits.
func (e *Edge) waiting(r *http.Request) (browserState, context.Context, context.CancelFunc) {
	b, _ := readBrowser(r)
	ctx, cancel := context.WithTimeout(r.Context(), auth.StoreTimeout)
	return b, ctx, cancel
}

func (e *Edge) drawCode(w http.ResponseWriter, r *http.Request, b browserState, p *codePage) {
	p.Title, p.Destination, p.Again, p.FocusCode = say("code.title"), e.leadsTo(&p.frame, p.Next), own("login", p.Next), true
	p.FormToken, p.Action = e.formToken(b), Prefix+"login/code"
	e.render(w, r, "code", p)
}

// showEnrol shows the secret of a pending login that may enrol its second factor now. Each time it is a fresh one.
func (e *Edge) showEnrol(w http.ResponseWriter, r *http.Request) {
	next := e.next(r, r.URL.Query()["next"])
	b, ctx, cancel := e.waiting(r)
	defer cancel()
	enrolment, err := e.Login.EnrolView(ctx, b.challenge, b.id())
	switch {
	case errors.Is(err, auth.ErrNotWaiting):
		http.Redirect(w, r, own("login", next), http.StatusSeeOther)
	case err != nil:
		e.drawProblem(w, r, e.unavailable(r, err))
	default:
		e.drawEnrol(w, r, b, &factorPage{Next: next}, &enrolment)
	}
}

func (e *Edge) drawEnrol(w http.ResponseWriter, r *http.Request, b browserState, p *factorPage, enrolment *auth.Enrolment) {
	p.Destination, p.Again, p.AgainText = e.leadsTo(&p.frame, p.Next), own("login", p.Next), "code.again"
	if enrolment == nil { // the secret is not shown twice; opening the page again draws another
		p.Again, p.AgainText = own("login/enrol", p.Next), "factor.anew"
	}
	p.FormToken, p.Action = e.formToken(b), Prefix+"login/enrol"
	e.drawFactor(w, r, p, enrolment)
}

// codeForm takes the code of a pending login, on the code page and on that of an enrolment.
func (e *Edge) codeForm(w http.ResponseWriter, r *http.Request) {
	if !e.acceptable(w, r) {
		return
	}
	next := "/"
	b, _ := readBrowser(r)
	out := e.Login.Login(r.Context(), e.client(r, b.id()), func() (auth.Presented, error) {
		form, err := e.readForm(w, r)
		if err != nil {
			return auth.Presented{}, err
		}
		next = e.next(r, form["next"])
		code := totp.CleanForm(form.Get("code"))
		if code == "" || b.challenge == "" {
			return auth.Presented{}, &auth.BadRequest{Code: problem.BadRequest, Err: errors.New("no code or no pending login")}
		}
		return auth.Presented{Challenge: b.challenge, Code: code}, nil
	})
	switch {
	case out.Code == "":
		e.welcome(w, r, out, next)
	case out.Code == problem.CrossSite, out.Trace.Of(audit.StepSecondFactor).Reason == audit.ReasonPendingInvalid:
		p := &loginPage{Next: next}
		e.fail(r, &p.frame, out)
		e.drawLogin(w, r, p)
	case out.Code == problem.VerificationRequired:
		e.drawVerify(w, r)
	case out.Code == problem.EnrolmentRequired:
		e.drawProblem(w, r, e.problem(r, out))
	case out.Enrolment != nil, r.URL.Path == Prefix+"login/enrol":
		p := &factorPage{Next: next}
		e.fail(r, &p.frame, out, "code")
		e.drawEnrol(w, r, b, p, out.Enrolment)
	default:
		p := &codePage{Next: next, Username: out.Username}
		e.fail(r, &p.frame, out, "code")
		e.drawCode(w, r, b, p)
	}
}

// acceptable checks what a login form's POST says about itself; nothing was spent on it yet.
func (e *Edge) acceptable(w http.ResponseWriter, r *http.Request) bool {
	if code, ok := declared(r, formType); !ok {
		e.drawProblem(w, r, e.newProblem(r, code))
		return false
	}
	if !e.sameOrigin(r) {
		e.countBypass(r, "cross-site")
		p := &loginPage{Next: "/"}
		p.warn(problem.CrossSite, say(title(problem.CrossSite)))
		e.drawLogin(w, r, p)
		return false
	}
	return true
}

// welcome hands out the credentials of a complete login. The browser's nonce is new from here on.
func (e *Edge) welcome(w http.ResponseWriter, r *http.Request, out auth.Outcome, next string) {
	e.credentials(w, out)
	e.goTo(w, r, next)
}

func (e *Edge) credentials(w http.ResponseWriter, out auth.Outcome) {
	setCookies(w, out.Credentials.Cookies)
	http.SetCookie(w, session.DeviceCookie(out.DeviceCookie))
	http.SetCookie(w, newBrowser("").cookie())
	w.Header().Set("Cache-Control", "no-store")
}

// principal returns who is signed in, renewing the session if its access token has expired.
func (e *Edge) principal(r *http.Request) (session.Principal, []*http.Cookie, error) {
	ctx, cancel := context.WithTimeout(r.Context(), auth.StoreTimeout)
	defer cancel()
	p, err := e.Sessions.Authenticate(ctx, r, e.origin)
	if errors.Is(err, session.ErrExpired) {
		return e.Sessions.Renew(ctx, r, e.origin)
	}
	return p, nil, err
}

func setCookies(w http.ResponseWriter, cookies []*http.Cookie) {
	for _, c := range cookies {
		http.SetCookie(w, c)
	}
}
