package web

import (
	"net/http"
	"strings"
	"time"

	"gatehouse/auth"
	"gatehouse/problem"
)

// problemPage says what went wrong, and what to do about it.
type problemPage struct {
	frame
	Next               string // key of the text
	Wait               *message
	Onward, OnwardText string // address of the button, and key of its text
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

func (e *Edge) drawProblem(w http.ResponseWriter, r *http.Request, p problem.Problem) {
	page := &problemPage{
		frame: frame{Title: say(title(p.Code)), Code: p.Code, RetryAfter: p.RetryAfter},
		Next:  next(p.Code), Onward: e.origin + "/", OnwardText: "problem.home",
	}
	if p.Code == problem.RateLimited || p.Code == problem.Locked {
		wait := waitText(time.Duration(p.RetryAfter)*time.Second, e.Now())
		page.Wait = &wait
	}
	switch p.Code {
	case problem.StepUpRequired:
		page.Onward, page.OnwardText = orElse(p.LoginURL, e.loginOrigin()+VerifyPath), "step-up.go"
	case problem.SessionRequired, problem.EnrolmentRequired:
		page.Onward, page.OnwardText = e.loginPage(), "page.sign-in"
	case problem.Unavailable, problem.UpstreamUnavailable, problem.UpstreamTimeout, problem.RateLimited, problem.Internal:
		if r.Method == http.MethodGet && r.Host == hostOf(e.origin) {
			page.Onward, page.OnwardText = e.origin+r.URL.RequestURI(), "problem.again"
		}
	}
	e.render(w, r, "problem", page)
}

// drawVerify is the step-up notice: a right password from a place that nothing vouches for.
func (e *Edge) drawVerify(w http.ResponseWriter, r *http.Request) {
	e.render(w, r, "verify", &frame{Title: say("verify.title"), Code: problem.VerificationRequired})
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
