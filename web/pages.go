package web

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/problem"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets/gatehouse.css
var styleSheet []byte

var templates = parseTemplates()

// parseTemplates makes one template set for each page: the layout with that page's body.
func parseTemplates() map[string]*template.Template {
	set := map[string]*template.Template{}
	for _, name := range []string{"login", "code", "logout", "signed-out", "problem"} {
		set[name] = template.Must(template.ParseFS(templateFiles, "templates/layout.html", "templates/"+name+".html"))
	}
	return set
}

// page is what a template sees.
type page struct {
	Title     string
	Host      string // of the login host
	Next      string // where to go afterwards, as checkNext returns it
	Action    string // where the form goes
	FormToken string
	Username  string
	// Code and Error are of what went wrong; Code gives the status, Error is the sentence shown.
	Code       problem.Code
	Error      string
	RetryAfter int // seconds
	RequestID  string
	Detail     string // what to do about it
	SignedIn   bool
}

// fail notes an outcome that is shown on the form itself.
func (p *page) fail(out auth.Outcome, now time.Time) {
	p.Code, p.Error = out.Code, out.Code.Title()
	switch {
	case out.RetryAfter > 0:
		p.RetryAfter = problem.RetrySeconds(out.RetryAfter)
		if out.Code != problem.Unavailable {
			p.Error = "Too many attempts. " + waitText(out.RetryAfter, now)
		}
	case out.Code == problem.BadRequest:
		p.Error = "Fill in every field."
	case out.Trace.Of(audit.StepSecondFactor).Reason == audit.ReasonCodeUsed:
		p.Error = "That code was already used. Wait for the next one."
	case out.Trace.Of(audit.StepSecondFactor).Reason == audit.ReasonPendingInvalid:
		p.Error = "This sign-in took too long or was started elsewhere. Start again."
	}
}

// contentPolicy lets our pages load our style sheet and post to us, and nothing else (ASVS 3.4.3).
const contentPolicy = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// render draws a page; its Code gives the status, 200 without one.
func (e *Edge) render(w http.ResponseWriter, r *http.Request, name string, p page) {
	p.Host, p.RequestID = e.External.Host, e.Visitor(r).RequestID
	var body bytes.Buffer
	if err := templates[name].ExecuteTemplate(&body, "layout", p); err != nil {
		e.Logger.ErrorContext(r.Context(), "draw a page", "page", name, "error", err)
		problem.New(problem.Internal).Write(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	status := http.StatusOK
	if p.Code != "" {
		status = p.Code.Status()
	}
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // the browser went away: nothing is left to tell it
}

// Problem answers with a page for people and problem+json for programs, as Accept asks (RFC 9110, section 12.5.1).
func (e *Edge) Problem(w http.ResponseWriter, r *http.Request, p problem.Problem) {
	p.RequestID = e.Visitor(r).RequestID
	if PrefersHTML(r) {
		e.drawProblem(w, r, p)
		return
	}
	p.Write(w)
}

// nextSteps says, for the problems that a person can meet, what to do about them.
var nextSteps = map[problem.Code]string{
	problem.EnrolmentRequired:    "Ask your administrator to set up an authenticator app for your account.",
	problem.VerificationRequired: "This device or network is new for your account, and there is no second factor to confirm it with. Ask your administrator.",
	problem.UpstreamUnavailable:  "Signing in worked; the application behind it is not running or cannot be reached. Try again in a moment, or tell whoever runs it.",
	problem.UpstreamTimeout:      "Signing in worked; the application behind it is slow. Try again in a moment, or tell whoever runs it.",
	problem.Unavailable:          "Nothing is lost and you need not sign in again. Try again in a moment.",
	problem.NotFound:             "Check the address.",
	problem.Misdirected:          "Check the address: this server does not know that host name.",
	problem.Forbidden:            "Your account does not have access. If it should, tell your administrator.",
}

func (e *Edge) drawProblem(w http.ResponseWriter, r *http.Request, p problem.Problem) {
	detail := p.Detail
	if detail == "" {
		detail = nextSteps[p.Code]
	}
	e.render(w, r, "problem", page{Title: p.Title, Code: p.Code, Error: p.Title, Detail: detail, RetryAfter: p.RetryAfter, Next: "/"})
}

// newProblem is a problem of this request.
func (e *Edge) newProblem(r *http.Request, code problem.Code) problem.Problem {
	p := problem.New(code)
	p.RequestID = e.Visitor(r).RequestID
	return p
}

// problem is what a client is told of an outcome: its code, and nothing of the trace.
func (e *Edge) problem(r *http.Request, out auth.Outcome) problem.Problem {
	p := e.newProblem(r, out.Code)
	p.Challenge = out.Challenge
	if out.RetryAfter > 0 {
		p.RetryAfter = problem.RetrySeconds(out.RetryAfter)
	}
	return p
}

// unavailable is the problem of something that failed underneath.
func (e *Edge) unavailable(r *http.Request, err error) problem.Problem {
	p := e.newProblem(r, problem.Unavailable)
	p.RetryAfter = 5
	e.Logger.WarnContext(r.Context(), "answer unavailable", "error", err, "request_id", p.RequestID)
	return p
}

// PrefersHTML reports whether a request would rather have a page than problem+json.
func PrefersHTML(r *http.Request) bool {
	for accept := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		media, _, _ := strings.Cut(accept, ";")
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "text/html", "application/xhtml+xml":
			return true
		case "application/json", "application/problem+json":
			return false
		}
	}
	return false
}

func (e *Edge) styleSheet(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(styleSheet)
}

func plural(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return strconv.Itoa(n) + " " + unit + "s"
}
