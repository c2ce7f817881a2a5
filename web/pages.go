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

var templates = parseTemplates()

// parseTemplates makes one template set for each page: the layout with that page's body.
func parseTemplates() map[string]*template.Template {
	set := map[string]*template.Template{}
	for _, name := range []string{"login", "code", "factor", "account", "ready", "logout", "loop", "signed-in", "signed-out", "verify", "step-up", "expired", "problem"} {
		set[name] = template.Must(template.ParseFS(templateFiles, "templates/layout.html", "templates/"+name+".html"))
	}
	return set
}

// frame is what every page has. The zero frame but for a title is a page that went well.
type frame struct {
	*speech // set when the page is drawn, like the next three
	Look    *look
	Host    string // that is served
	Login   string // address of the login page, on its host
	// RequestID is what somebody who asks for help can name.
	RequestID string

	Title message
	Wide  bool
	// Step of Steps, for pages that are part of a row; 0 otherwise.
	Step, Steps int
	// Code is what went wrong, and gives the status; 200 without one.
	Code       problem.Code
	RetryAfter int // seconds
	// leads is the origin of another host that the answer to the page's form may send the browser to; empty for none.
	leads string
	// Alert is shown on top of a form and gets the focus.
	Alert *alert
}

// view is a page: a struct around a frame.
type view interface{ base() *frame }

func (f *frame) base() *frame { return f }

// alert is why a form is shown again.
type alert struct {
	Message message
	Reasons []message
	fields  []string // what to correct
}

// Bad reports whether the alert is about the field.
func (f *frame) Bad(field string) bool {
	if f.Alert == nil {
		return false
	}
	for _, bad := range f.Alert.fields {
		if bad == field {
			return true
		}
	}
	return false
}

// warn shows a form again because of code.
func (f *frame) warn(code problem.Code, m message, fields ...string) {
	f.Code, f.Alert = code, &alert{Message: m, fields: fields}
}

// form is what every form has.
type form struct {
	Action    string
	FormToken string
}

// The pages of a login. Destination is the host that it leads to, Next the address there as checkNext returns it.
type (
	loginPage struct {
		frame
		form
		Next, Destination string
		Username          string
	}
	codePage struct {
		frame
		form
		Next, Destination string
		Username          string
		Again             string // where to begin anew
		FocusCode         bool
	}
)

// contentPolicy lets our pages load our style sheet and images and post to us, and nothing else (ASVS 3.4.3). Images may be
// data: for QR codes, which hold a secret and so have no address.
//
// Browsers hold what a form is answered with to form-action too, redirects included, so a form that leads to another host names that one.
const contentPolicy = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// render draws a page in the reader's language.
func (e *Edge) render(w http.ResponseWriter, r *http.Request, name string, v view) {
	p := v.base()
	p.speech, p.Look = e.look.texts.choose(strings.Join(r.Header.Values("Accept-Language"), ",")), e.look
	p.Host, p.Login, p.RequestID = hostOf(e.origin), e.loginPage(), e.Visitor(r).RequestID
	var body bytes.Buffer
	if err := templates[name].ExecuteTemplate(&body, "layout", v); err != nil {
		e.Logger.ErrorContext(r.Context(), "draw a page", "page", name, "error", err)
		problem.New(problem.Internal).Write(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Lang)
	h.Set("Content-Security-Policy", policy(p.leads))
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

// policy is the contentPolicy of a page whose form may lead to another origin; empty for none.
func policy(leads string) string {
	if leads == "" {
		return contentPolicy
	}
	return strings.Replace(contentPolicy, "form-action 'self'", "form-action 'self' "+leads, 1)
}

// title and next are the texts of a problem code.
func title(code problem.Code) string { return "problem." + string(code) + ".title" }
func next(code problem.Code) string  { return "problem." + string(code) + ".next" }

// fail says on a form why an outcome was not a login. fields are those that the page has for credentials.
func (e *Edge) fail(r *http.Request, f *frame, out auth.Outcome, fields ...string) {
	reason := out.Trace.Of(audit.StepSecondFactor).Reason
	switch {
	case out.RetryAfter > 0:
		f.warn(out.Code, say(title(out.Code)))
		f.RetryAfter = problem.RetrySeconds(out.RetryAfter)
		if out.Code != problem.Unavailable {
			f.Alert.Message = waitText(out.RetryAfter, e.Now())
		}
	case out.Code == problem.BadRequest:
		f.warn(out.Code, say("fault.fill-in"), fields...)
	case out.Code == problem.CrossSite:
		f.warn(out.Code, e.crossSite(r))
	case reason == audit.ReasonCodeUsed:
		f.warn(out.Code, say("fault.code-used"), fields...)
	case reason == audit.ReasonPendingInvalid:
		f.warn(out.Code, say("fault.pending"))
	default:
		f.warn(out.Code, say(title(out.Code)), fields...)
	}
}

// crossSite says why a form was not taken. A browser that keeps none of our cookies would fail for ever without knowing why.
func (e *Edge) crossSite(r *http.Request) message {
	if _, kept := readBrowser(r); !kept {
		return say("fault.no-cookie", "URL", e.origin)
	}
	return say(title(problem.CrossSite))
}

// waitText says when to try again.
func waitText(wait time.Duration, now time.Time) message {
	if wait < time.Minute {
		return say("fault.wait-seconds", "Count", problem.RetrySeconds(wait))
	}
	minutes := int((wait + time.Minute - 1) / time.Minute)
	return say("fault.wait-minutes", "Count", minutes, "Time", now.Add(wait).UTC().Format("15:04"))
}

// browser returns the browser's nonce, giving it one if it has none.
func (e *Edge) browser(w http.ResponseWriter, r *http.Request) browserState {
	b, ok := readBrowser(r)
	if !ok {
		b = newBrowser("")
		http.SetCookie(w, b.cookie())
	}
	return b
}
