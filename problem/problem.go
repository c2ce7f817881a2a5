// Package problem holds the stable error codes of Gatehouse and their RFC 9457 form.
//
// A code is what a client may branch on. The sentence beside it is fixed: it says no more than the code, and never quotes
// input or an internal error.
package problem

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Code names a problem. Codes are part of the contract and never change their meaning.
type Code string

// The codes, with their status in [Code.Status].
const (
	InvalidCredentials   Code = "invalid-credentials"
	CodeRequired         Code = "code-required"
	CodeInvalid          Code = "code-invalid"
	EnrolmentRequired    Code = "enrolment-required"
	VerificationRequired Code = "verification-required"
	StepUpRequired       Code = "step-up-required"
	SessionRequired      Code = "session-required"
	Forbidden            Code = "forbidden"
	CrossSite            Code = "cross-site"
	Locked               Code = "locked"
	RateLimited          Code = "rate-limited"
	Unavailable          Code = "unavailable"
	UpstreamUnavailable  Code = "upstream-unavailable"
	UpstreamTimeout      Code = "upstream-timeout"
	BadRequest           Code = "bad-request"
	NotFound             Code = "not-found"
	MethodNotAllowed     Code = "method-not-allowed"
	Conflict             Code = "conflict"
	LinkExpired          Code = "link-expired"
	TooLarge             Code = "too-large"
	Misdirected          Code = "misdirected"
	PasswordRejected     Code = "password-rejected"
	HeaderTooLarge       Code = "header-too-large"
	Internal             Code = "internal" // a defect of the gateway; status 500
)

// kinds gives every code its status and its sentence.
var kinds = map[Code]struct {
	status int
	title  string
}{
	InvalidCredentials:   {http.StatusUnauthorized, "The user name or password is not right."},
	CodeRequired:         {http.StatusUnauthorized, "A code from the authenticator app is needed."},
	CodeInvalid:          {http.StatusUnauthorized, "The code is not right, or was already used."},
	EnrolmentRequired:    {http.StatusUnauthorized, "A second factor must be set up first."},
	VerificationRequired: {http.StatusUnauthorized, "This sign-in must be confirmed first."},
	StepUpRequired:       {http.StatusUnauthorized, "This needs a fresh second factor."},
	SessionRequired:      {http.StatusUnauthorized, "Sign in first."},
	Forbidden:            {http.StatusForbidden, "This is not allowed."},
	CrossSite:            {http.StatusForbidden, "The request did not come from this site's own form."},
	Locked:               {http.StatusTooManyRequests, "Too many attempts. Try again later."},
	RateLimited:          {http.StatusTooManyRequests, "Too many requests from this address. Try again later."},
	Unavailable:          {http.StatusServiceUnavailable, "This cannot be done right now. Try again shortly."},
	UpstreamUnavailable:  {http.StatusBadGateway, "The application does not answer."},
	UpstreamTimeout:      {http.StatusGatewayTimeout, "The application took too long to answer."},
	BadRequest:           {http.StatusBadRequest, "The request is malformed."},
	NotFound:             {http.StatusNotFound, "There is nothing here."},
	MethodNotAllowed:     {http.StatusMethodNotAllowed, "This method is not allowed here."},
	Conflict:             {http.StatusConflict, "This is in conflict with what is there."},
	LinkExpired:          {http.StatusGone, "This link was used or has expired."},
	TooLarge:             {http.StatusRequestEntityTooLarge, "The request is too large."},
	Misdirected:          {http.StatusMisdirectedRequest, "This host is not served here."},
	PasswordRejected:     {http.StatusUnprocessableEntity, "The password is not accepted."},
	HeaderTooLarge:       {http.StatusRequestHeaderFieldsTooLarge, "The request's headers are too large."},
	Internal:             {http.StatusInternalServerError, "Something went wrong in the gateway."},
}

// Codes returns every code; the order is not defined.
func Codes() []Code {
	codes := make([]Code, 0, len(kinds))
	for c := range kinds {
		codes = append(codes, c)
	}
	return codes
}

// Status is the HTTP status of the code.
func (c Code) Status() int { return kinds[c].status }

// Title is the code's fixed sentence, in English.
func (c Code) Title() string { return kinds[c].title }

// ContentType is the media type of a problem (RFC 9457, section 3).
const ContentType = "application/problem+json"

// Problem is the body of an error answer (RFC 9457, section 3.1) with our extension members.
type Problem struct {
	Type   string `json:"type"` // always "about:blank": Code is what to branch on
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   Code   `json:"code"`
	// Detail says what to change, where that is safe to say.
	Detail    string `json:"detail,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	// RetryAfter, in whole seconds, also becomes the header.
	RetryAfter int `json:"retry_after,omitempty"`
	// LoginURL is where a person signs in, or enters a code; only of session-required and step-up-required.
	LoginURL string `json:"login_url,omitempty"`
	// Challenge continues a login; only of code-required.
	Challenge string `json:"challenge,omitempty"`
	// Reasons of password-rejected, one sentence each.
	Reasons []string `json:"reasons,omitempty"`
}

// New makes the problem of a code.
func New(code Code) Problem {
	return Problem{Type: "about:blank", Title: code.Title(), Status: code.Status(), Code: code}
}

// RetrySeconds rounds a wait up to the whole seconds that Retry-After counts in (RFC 9110, section 10.2.3), at least 1.
func RetrySeconds(wait time.Duration) int {
	return max(1, int((wait+time.Second-1)/time.Second))
}

// Write sends the problem. Headers already set on w are kept; the answer is never stored by a cache. The body is left out
// for HEAD by net/http.
func (p Problem) Write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // a struct of strings and numbers always marshals
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // the client went away: nothing is left to tell it
}
