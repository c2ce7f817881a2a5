package web

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"gatehouse/auth"
	"gatehouse/problem"
	"gatehouse/session"
)

// The media types that a POST may have.
const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

// browserState is what the login cookie holds: a nonce, to which form tokens and the pending login are bound, and the
// challenge of a pending login, if one waits.
type browserState struct {
	nonce, challenge string
}

// newBrowser begins with a fresh nonce, so that a value planted before the login is worth nothing after it.
func newBrowser(challenge string) browserState {
	return browserState{nonce: rand.Text(), challenge: challenge}
}

// readBrowser reads the login cookie; ok is false if there is none that could be ours.
func readBrowser(r *http.Request) (b browserState, ok bool) {
	b.nonce, b.challenge, _ = strings.Cut(session.ReadLogin(r), ".")
	return b, len(b.nonce) == len(rand.Text())
}

func (b browserState) cookie() *http.Cookie {
	value := b.nonce
	if b.challenge != "" {
		value += "." + b.challenge
	}
	return session.LoginCookie(value)
}

// id is what a pending login is bound to.
func (b browserState) id() string {
	sum := sha256.Sum256([]byte("gatehouse browser\x00" + b.nonce))
	return hex.EncodeToString(sum[:])
}

// formToken is the value that every form we draw carries: only somebody who can read the page of this browser knows it.
func (e *Edge) formToken(b browserState) string {
	mac := hmac.New(sha256.New, e.FormKey)
	mac.Write([]byte("gatehouse form\x00" + b.nonce))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (e *Edge) validToken(r *http.Request, token string) bool {
	b, ok := readBrowser(r)
	return ok && hmac.Equal([]byte(token), []byte(e.formToken(b)))
}

// sameOrigin compares the request's origin, as the browser states it, with the configured one; the request's own Host is
// never asked. A client that states nothing is no browser, or an old one: the form token decides. "null" is what a
// browser sends from a page with our Referrer-Policy, so it counts only with Sec-Fetch-Site beside it.
func (e *Edge) sameOrigin(r *http.Request) bool {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	if e.cross.Check(r) != nil && !(origin == "null" && site == "same-origin") {
		return false
	}
	switch origin {
	case "", e.origin:
		return site == "" || site == "same-origin" || (site == "none" && origin == "")
	case "null":
		return site == "same-origin"
	default:
		return false
	}
}

// declared checks what a POST says about itself, before anything is spent on it.
func declared(r *http.Request, mediaType string) (problem.Code, bool) {
	got, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset, named := parameters["charset"]
	switch {
	case r.ContentLength > MaxBody:
		return problem.TooLarge, false
	case err != nil, got != mediaType, named && !strings.EqualFold(charset, "utf-8"), r.Header.Get("Content-Encoding") != "":
		return problem.BadRequest, false
	}
	return "", true
}

// readForm reads a form of ours: every field at most once, all in valid UTF-8, with a valid form token. Credentials in the
// query string are never looked at. Where only the form token is wrong the form is returned beside the error, so that it can be
// drawn again.
func (e *Edge) readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, &auth.BadRequest{Code: problem.TooLarge, Err: err}
	}
	if err != nil {
		return nil, &auth.BadRequest{Code: problem.BadRequest, Err: err}
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, &auth.BadRequest{Code: problem.BadRequest, Err: err}
	}
	for name, values := range form {
		if len(values) != 1 || !utf8.ValidString(name) || !utf8.ValidString(values[0]) {
			return nil, &auth.BadRequest{Code: problem.BadRequest, Err: fmt.Errorf("field %q is repeated or is not UTF-8", name)}
		}
	}
	if !e.validToken(r, form.Get("form_token")) {
		return form, &auth.BadRequest{Code: problem.CrossSite, Err: errors.New("no valid form token")}
	}
	return form, nil
}
