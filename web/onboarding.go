package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"gatehouse/auth"
	"gatehouse/auth/link"
	"gatehouse/auth/totp"
	"gatehouse/auth/user"
	"gatehouse/problem"
)

// The pages of a link, in their order. The step stands in the address, since the body is not read before an address token was
// drawn; it chooses a page and grants nothing.
const (
	stepAccount = "account"
	stepFactor  = "factor"
	stepReady   = "ready"
)

// accountPage asks for what makes or completes an account.
type accountPage struct {
	frame
	form
	Intro                 string // key of the text
	Token                 string
	Invited               bool // the name is given
	Username, DisplayName string
	MinLength             int
	Rated                 bool // a password was refused, and had this score
	Score                 int
}

// Strength is the key of the word for the score.
func (p *accountPage) Strength() string { return "password.strength-" + strconv.Itoa(p.Score) }

// Bar is how far the meter goes: the worst score shows too.
func (p *accountPage) Bar() int { return p.Score + 1 }

// readyPage is the last of the set-up.
type readyPage struct {
	frame
	Username string
	Apps     []App
	NoApp    bool
}

// expiredPage is what every link shows that cannot be used, whatever the reason.
type expiredPage struct {
	frame
	Next string // key of the text
}

// linkPath is the address of a link's page.
func linkPath(kind link.Kind, query url.Values) string {
	return Prefix + string(kind) + "?" + query.Encode()
}

// showLink draws the page of a link. It only looks: mail scanners open links too.
func (e *Edge) showLink(kind link.Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if kind == link.Setup && query.Get("step") == stepReady {
			e.showReady(w, r)
			return
		}
		token := query.Get(link.Parameter)
		b, _ := readBrowser(r)
		v, err := e.Onboarding.View(r.Context(), e.client(r, b.id()), kind, token)
		if err != nil {
			e.refuseLink(w, r, kind, err)
			return
		}
		if v.Step == auth.StepAccount || query.Get("step") == stepAccount {
			e.drawAccount(w, r, &accountPage{Token: token, Username: v.Username, DisplayName: v.DisplayName}, v)
			return
		}
		enrolment, err := e.Onboarding.Enrolment(r.Context(), e.client(r, b.id()), kind, token)
		if err != nil {
			e.refuseLink(w, r, kind, err)
			return
		}
		e.drawLinkFactor(w, r, kind, &factorPage{Token: token}, &enrolment)
	}
}

func (e *Edge) drawAccount(w http.ResponseWriter, r *http.Request, p *accountPage, v auth.View) {
	p.Title, p.Intro = say("setup.title", "Site", e.look.Name), "setup.intro"
	if v.Kind == link.Invite {
		p.Title, p.Intro, p.Invited, p.Username = say("invite.title"), "invite.intro", true, v.Username
	}
	p.Step, p.Steps, p.MinLength = 1, 2, v.Policy.Min
	p.FormToken, p.Action = e.formToken(e.browser(w, r)), linkPath(v.Kind, url.Values{"step": {stepAccount}})
	e.render(w, r, "account", p)
}

func (e *Edge) drawLinkFactor(w http.ResponseWriter, r *http.Request, kind link.Kind, p *factorPage, enrolment *auth.Enrolment) {
	p.Step, p.Steps = 2, 2
	p.Again, p.AgainText = linkPath(kind, url.Values{link.Parameter: {p.Token}, "step": {stepAccount}}), "factor.back"
	if enrolment == nil {
		p.Again, p.AgainText = linkPath(kind, url.Values{link.Parameter: {p.Token}}), "factor.anew"
	}
	p.FormToken, p.Action = e.formToken(e.browser(w, r)), linkPath(kind, url.Values{"step": {stepFactor}})
	e.drawFactor(w, r, p, enrolment)
}

// refuseLink answers where there is no form to show again.
func (e *Edge) refuseLink(w http.ResponseWriter, r *http.Request, kind link.Kind, err error) {
	refused := refusedOf(err)
	if refused.Code == problem.LinkExpired {
		e.render(w, r, "expired", &expiredPage{frame: frame{Title: say("expired.title"), Code: problem.LinkExpired}, Next: "expired." + string(kind)})
		return
	}
	e.drawProblem(w, r, e.problem(r, auth.Outcome{Code: refused.Code, RetryAfter: refused.RetryAfter}))
}

func refusedOf(err error) *auth.Refused {
	var refused *auth.Refused
	if errors.As(err, &refused) {
		return refused
	}
	return &auth.Refused{Code: problem.Unavailable}
}

// linkForm takes the forms of a link.
func (e *Edge) linkForm(kind link.Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if code, ok := declared(r, formType); !ok {
			e.drawProblem(w, r, e.newProblem(r, code))
			return
		}
		if !e.sameOrigin(r) {
			e.countBypass(r, "cross-site")
			e.drawProblem(w, r, e.newProblem(r, problem.CrossSite))
			return
		}
		if r.URL.Query().Get("step") == stepFactor {
			e.confirm(w, r, kind)
			return
		}
		e.choose(w, r, kind)
	}
}

// choose takes a link's first form. The browser gets a fresh nonce with the answer, to which what it chose is bound.
func (e *Edge) choose(w http.ResponseWriter, r *http.Request, kind link.Kind) {
	p, fresh := &accountPage{}, newBrowser("")
	_, err := e.Onboarding.Choose(r.Context(), e.client(r, fresh.id()), kind, func() (auth.Choice, error) {
		form, err := e.readForm(w, r)
		p.Token, p.Username, p.DisplayName = form.Get("token"), form.Get("username"), form.Get("display_name")
		if err != nil {
			return auth.Choice{}, err
		}
		if p.Token == "" || form.Get("password") == "" || (kind == link.Setup && p.Username == "") {
			return auth.Choice{}, &auth.BadRequest{Code: problem.BadRequest, Err: errors.New("no token, no name or no password")}
		}
		return auth.Choice{Token: p.Token, Username: p.Username, DisplayName: p.DisplayName, Password: form.Get("password")}, nil
	})
	if err != nil {
		e.chooseAgain(w, r, kind, p, refusedOf(err))
		return
	}
	http.SetCookie(w, fresh.cookie())
	http.Redirect(w, r, linkPath(kind, url.Values{link.Parameter: {p.Token}}), http.StatusSeeOther)
}

// chooseAgain shows a link's first form with what was wrong. What the link is for is asked once more: the refusal may have come
// before anybody looked.
func (e *Edge) chooseAgain(w http.ResponseWriter, r *http.Request, kind link.Kind, p *accountPage, why *auth.Refused) {
	b, _ := readBrowser(r)
	v, err := e.Onboarding.View(r.Context(), e.client(r, b.id()), kind, p.Token)
	if err != nil || why.Code == problem.LinkExpired {
		e.refuseLink(w, r, kind, graver(why, err))
		return
	}
	e.failLink(r, &p.frame, why, v.Policy.Min, v.Policy.Max)
	p.Rated, p.Score = why.Code == problem.PasswordRejected, why.Score
	e.drawAccount(w, r, p, v)
}

// graver chooses between why a form was refused and why it cannot be shown again: a field that was left out matters no more
// where the link itself cannot be used.
func graver(why *auth.Refused, shown error) error {
	if shown != nil && why.Code == problem.BadRequest {
		return shown
	}
	return why
}

// failLink says on a link's form why it was not taken.
func (e *Edge) failLink(r *http.Request, f *frame, why *auth.Refused, lengths ...int) {
	fields := slices.DeleteFunc([]string{why.Field}, func(field string) bool { return field == "" })
	switch {
	case why.Code == problem.PasswordRejected:
		f.warn(why.Code, say("password.refused"), "password")
		for _, reason := range why.Reasons {
			f.Alert.Reasons = append(f.Alert.Reasons, reasonText(reason, lengths...))
		}
	case why.Code == problem.Conflict:
		f.warn(why.Code, say("fault.name-taken"), "username")
	case why.Code == problem.BadRequest && why.Field == auth.FieldUsername:
		f.warn(why.Code, say("fault.name-invalid"), fields...)
	case why.Code == problem.BadRequest && why.Field == auth.FieldDisplayName:
		f.warn(why.Code, say("fault.display-invalid"), fields...)
	default:
		e.fail(r, f, auth.Outcome{Code: why.Code, RetryAfter: why.RetryAfter}, fields...)
	}
}

// reasons are the sentences of password.Policy as keys of our texts.
var reasons = map[string]string{
	"Use valid Unicode text.":      "password.unicode",
	"Use more than one character.": "password.one-character",
	"Leave out your name and the name of this site, or add more to them.":                                "password.name-like",
	"Choose something harder to guess: this is made of common passwords, words, dates or keyboard rows.": "password.guessable",
}

// reasonText is a reason in our texts; one that they do not have stands as it is.
func reasonText(reason string, lengths ...int) message {
	for i, form := range []struct{ sentence, key string }{
		{"Use at least %d characters.", "password.short"}, {"Use at most %d characters.", "password.long"},
	} {
		if i < len(lengths) && reason == fmt.Sprintf(form.sentence, lengths[i]) {
			return say(form.key, "Count", lengths[i])
		}
	}
	if key, ok := reasons[reason]; ok {
		return say(key)
	}
	return say(reason)
}

// confirm takes a link's second form: the code that makes everything real.
func (e *Edge) confirm(w http.ResponseWriter, r *http.Request, kind link.Kind) {
	p := &factorPage{}
	b, _ := readBrowser(r)
	out := e.Onboarding.Confirm(r.Context(), e.client(r, b.id()), kind, func() (auth.Confirmation, error) {
		form, err := e.readForm(w, r)
		p.Token = form.Get("token")
		if err != nil {
			return auth.Confirmation{}, err
		}
		code := totp.CleanForm(form.Get("code"))
		if p.Token == "" || code == "" {
			return auth.Confirmation{}, &auth.BadRequest{Code: problem.BadRequest, Err: errors.New("no token or no code")}
		}
		return auth.Confirmation{Token: p.Token, Code: code}, nil
	})
	switch {
	case out.Code == "" && kind == link.Setup:
		e.credentials(w, out)
		http.Redirect(w, r, linkPath(kind, url.Values{"step": {stepReady}}), http.StatusSeeOther)
	case out.Code == "":
		e.welcome(w, r, out, "/")
	default:
		e.confirmAgain(w, r, kind, p, out)
	}
}

// confirmAgain shows the form that the link's state asks for: its second, its first where this browser has chosen nothing, or
// none.
func (e *Edge) confirmAgain(w http.ResponseWriter, r *http.Request, kind link.Kind, p *factorPage, out auth.Outcome) {
	why := &auth.Refused{Code: out.Code, RetryAfter: out.RetryAfter}
	b, _ := readBrowser(r)
	v, err := e.Onboarding.View(r.Context(), e.client(r, b.id()), kind, p.Token)
	switch {
	case err != nil:
		e.refuseLink(w, r, kind, graver(why, err))
	case v.Step == auth.StepAccount:
		again := &accountPage{Token: p.Token, Username: v.Username, DisplayName: v.DisplayName}
		e.failLink(r, &again.frame, why)
		if out.Code == problem.LinkExpired {
			again.Alert.Message = say("fault.restart")
		}
		e.drawAccount(w, r, again, v)
	case out.Code == problem.LinkExpired:
		e.refuseLink(w, r, kind, why)
	default:
		e.fail(r, &p.frame, out, "code")
		e.drawLinkFactor(w, r, kind, p, out.Enrolment)
	}
}

// showReady is the last page of the set-up. It knows nothing of the link any more, and is for those who administer.
func (e *Edge) showReady(w http.ResponseWriter, r *http.Request) {
	p, cookies, err := e.principal(r)
	switch {
	case noSession(err):
		http.Redirect(w, r, own("login", "/"), http.StatusSeeOther)
	case err != nil:
		e.drawProblem(w, r, e.unavailable(r, err))
	case !slices.Contains(p.Groups, user.Administrators):
		setCookies(w, cookies)
		e.goTo(w, r, "/")
	default:
		setCookies(w, cookies)
		e.render(w, r, "ready", &readyPage{frame: frame{Title: say("setup.done-title"), Wide: true}, Username: p.Name, Apps: e.Apps, NoApp: e.NoApp})
	}
}
