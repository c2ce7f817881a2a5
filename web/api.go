package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"gatehouse/auth"
	"gatehouse/problem"
	"gatehouse/session"
	"gatehouse/strictjson"
)

// loginRequest is the body of the JSON login: a name and a password and perhaps a code, or a challenge and a code.
type loginRequest struct {
	Username  *string `json:"username"`
	Password  *string `json:"password"`
	Challenge *string `json:"challenge"`
	Code      *string `json:"code"`
}

// loginResponse is what a program gets; the cookies of this host come with it.
type loginResponse struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"` // always "Bearer"
	ExpiresIn   int    `json:"expires_in"` // seconds
	Username    string `json:"username"`
}

// loginJSON is the login for programs.
func (e *Edge) loginJSON(w http.ResponseWriter, r *http.Request) {
	if code, ok := declared(r, jsonType); !ok {
		e.newProblem(r, code).Write(w)
		return
	}
	if !e.sameOrigin(r) {
		e.countBypass(r, "cross-site")
		e.newProblem(r, problem.CrossSite).Write(w)
		return
	}
	out := e.Login.Login(r.Context(), e.client(r, ""), func() (auth.Presented, error) { return readLogin(w, r) })
	if out.Code != "" {
		e.problem(r, out).Write(w)
		return
	}
	setCookies(w, out.Credentials.Cookies)
	http.SetCookie(w, session.DeviceCookie(out.DeviceCookie))
	writeJSON(w, loginResponse{
		AccessToken: out.Credentials.AccessToken, TokenType: "Bearer",
		ExpiresIn: int(out.Credentials.ExpiresIn / time.Second), Username: out.Username,
	})
}

// readLogin reads the body of a JSON login; exactly one of its two forms.
func readLogin(w http.ResponseWriter, r *http.Request) (auth.Presented, error) {
	var body loginRequest
	err := strictjson.Decode(http.MaxBytesReader(w, r.Body, MaxBody), MaxBody, &body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge), errors.Is(err, strictjson.ErrTooLarge):
		return auth.Presented{}, &auth.BadRequest{Code: problem.TooLarge, Err: err}
	case err != nil:
		return auth.Presented{}, &auth.BadRequest{Code: problem.BadRequest, Err: err}
	}
	name, pass, challenge, code := text(body.Username), text(body.Password), text(body.Challenge), text(body.Code)
	byPassword := name != "" && pass != "" && body.Challenge == nil && (body.Code == nil || code != "")
	byChallenge := challenge != "" && code != "" && body.Username == nil && body.Password == nil
	if !byPassword && !byChallenge {
		return auth.Presented{}, &auth.BadRequest{Code: problem.BadRequest, Err: errors.New("neither name and password nor challenge and code")}
	}
	return auth.Presented{Username: name, Password: pass, Challenge: challenge, Code: code}, nil
}

// sessionResponse says who is signed in, since when, and by which factors.
type sessionResponse struct {
	Username string    `json:"username"`
	Name     string    `json:"name,omitempty"`
	Email    string    `json:"email,omitempty"`
	Groups   []string  `json:"groups"`
	Methods  []string  `json:"methods"` // RFC 8176
	AuthTime time.Time `json:"auth_time"`
	Expires  time.Time `json:"expires_at"` // the absolute limit
}

func (e *Edge) sessionJSON(w http.ResponseWriter, r *http.Request) {
	p, cookies, err := e.principal(r)
	switch {
	case noSession(err):
		e.sessionRequired(r).Write(w)
	case err != nil:
		e.unavailable(r, err).Write(w)
	default:
		setCookies(w, cookies)
		groups := p.Groups
		if groups == nil {
			groups = []string{}
		}
		writeJSON(w, sessionResponse{
			Username: p.Name, Name: p.DisplayName, Email: p.Email, Groups: groups, Methods: p.Methods,
			AuthTime: p.AuthTime.UTC(), Expires: p.ExpiresAt.UTC(),
		})
	}
}

// sessionRequired says where to sign in.
func (e *Edge) sessionRequired(r *http.Request) problem.Problem {
	p := e.newProblem(r, problem.SessionRequired)
	p.LoginURL = e.loginPage()
	return p
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // structs of strings, numbers and times always marshal
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(append(body, '\n'))
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
