package web

import (
	"context"
	"errors"
	"net/http"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/totp"
	"gatehouse/problem"
	"gatehouse/session"
)

// loginPage draws the login page. Who is signed in already is sent on.
func (e *Edge) loginPage(w http.ResponseWriter, r *http.Request) {
	next := e.next(r, r.URL.Query()["next"])
	if _, cookies, err := e.principal(r); err == nil {
		setCookies(w, cookies)
		e.goTo(w, r, next)
		return
	}
	e.drawLogin(w, r, page{Next: next})
}

// drawLogin draws the login form, with an error if p has one, and gives the browser a nonce if it has none.
func (e *Edge) drawLogin(w http.ResponseWriter, r *http.Request, p page) {
	b, ok := readBrowser(r)
	if !ok {
		b = newBrowser("")
	}
	http.SetCookie(w, browserState{nonce: b.nonce}.cookie())
	p.Title, p.FormToken, p.Action = "Sign in", e.formToken(b), Prefix+"login"
	e.render(w, r, "login", p)
}

// loginForm takes a name and a password.
func (e *Edge) loginForm(w http.ResponseWriter, r *http.Request) {
	if !e.acceptable(w, r) {
		return
	}
	p := page{Next: "/"}
	fresh := newBrowser("") // a pending login is bound to a nonce that nobody could plant before
	client := e.client(r, fresh.id())
	out := e.Login.Login(r.Context(), client, func() (auth.Presented, error) {
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
		fresh.challenge = out.Challenge
		http.SetCookie(w, fresh.cookie())
		http.Redirect(w, r, own("login/code", p.Next), http.StatusSeeOther)
	case problem.EnrolmentRequired, problem.VerificationRequired:
		e.drawProblem(w, r, e.problem(r, out))
	default:
		p.fail(out, e.Now())
		e.drawLogin(w, r, p)
	}
}

// codePage asks for the code of a pending login.
func (e *Edge) codePage(w http.ResponseWriter, r *http.Request) {
	next := e.next(r, r.URL.Query()["next"])
	b, ok := readBrowser(r)
	if !ok || b.challenge == "" {
		http.Redirect(w, r, own("login", next), http.StatusSeeOther)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), auth.StoreTimeout)
	defer cancel()
	name, err := e.Login.Waiting(ctx, b.challenge, b.id())
	switch {
	case errors.Is(err, auth.ErrNotWaiting):
		http.Redirect(w, r, own("login", next), http.StatusSeeOther)
	case err != nil:
		e.drawProblem(w, r, e.unavailable(r, err))
	default:
		e.drawCode(w, r, b, page{Next: next, Username: name})
	}
}

func (e *Edge) drawCode(w http.ResponseWriter, r *http.Request, b browserState, p page) {
	p.Title, p.FormToken, p.Action = "Enter your code", e.formToken(b), Prefix+"login/code"
	e.render(w, r, "code", p)
}

// codeForm takes the code of a pending login.
func (e *Edge) codeForm(w http.ResponseWriter, r *http.Request) {
	if !e.acceptable(w, r) {
		return
	}
	p := page{Next: "/"}
	b, _ := readBrowser(r)
	out := e.Login.Login(r.Context(), e.client(r, b.id()), func() (auth.Presented, error) {
		form, err := e.readForm(w, r)
		if err != nil {
			return auth.Presented{}, err
		}
		p.Next = e.next(r, form["next"])
		code := totp.CleanForm(form.Get("code"))
		if code == "" || b.challenge == "" {
			return auth.Presented{}, &auth.BadRequest{Code: problem.BadRequest, Err: errors.New("no code or no pending login")}
		}
		return auth.Presented{Challenge: b.challenge, Code: code}, nil
	})
	p.Username = out.Username
	switch {
	case out.Code == "":
		e.welcome(w, r, out, p.Next)
	case out.Code == problem.CrossSite, out.Trace.Of(audit.StepSecondFactor).Reason == audit.ReasonPendingInvalid:
		p.fail(out, e.Now())
		e.drawLogin(w, r, p)
	case out.Code == problem.EnrolmentRequired, out.Code == problem.VerificationRequired:
		e.drawProblem(w, r, e.problem(r, out))
	default:
		p.fail(out, e.Now())
		e.drawCode(w, r, b, p)
	}
}

// acceptable checks what a form's POST says about itself; nothing was spent on it yet.
func (e *Edge) acceptable(w http.ResponseWriter, r *http.Request) bool {
	if code, ok := declared(r, formType); !ok {
		e.drawProblem(w, r, e.newProblem(r, code))
		return false
	}
	if !e.sameOrigin(r) {
		e.countBypass(r, "cross-site")
		e.drawLogin(w, r, page{Next: "/", Code: problem.CrossSite, Error: problem.CrossSite.Title()})
		return false
	}
	return true
}

// welcome hands out the credentials of a complete login. The browser's nonce is new from here on.
func (e *Edge) welcome(w http.ResponseWriter, r *http.Request, out auth.Outcome, next string) {
	setCookies(w, out.Credentials.Cookies)
	http.SetCookie(w, session.DeviceCookie(out.DeviceCookie))
	http.SetCookie(w, newBrowser("").cookie())
	e.goTo(w, r, next)
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

// waitText says when to try again, in the reader's terms.
func waitText(wait time.Duration, now time.Time) string {
	if wait < time.Minute {
		return "Try again in " + plural(problem.RetrySeconds(wait), "second") + "."
	}
	minutes := int((wait + time.Minute - 1) / time.Minute)
	return "Try again at " + now.Add(wait).UTC().Format("15:04") + " UTC (in " + plural(minutes, "minute") + "), or contact the administrator."
}
