package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/auth"
	"gatehouse/problem"
	"gatehouse/proxy"
	"gatehouse/session"
)

// appTokens are scripted by the value of Authorization: "Token good" is bob's for the route gate, and every other Token is wrong in the way
// that it names.
type appTokens struct{}

func (appTokens) Authenticate(r *http.Request, route string) (session.Principal, bool, error) {
	value, ours := strings.CutPrefix(r.Header.Get("Authorization"), "Token ")
	switch {
	case !ours:
		return session.Principal{}, false, nil
	case value == "good" && route == "gate":
		p := principal("bob")
		p.Methods, p.Bearer, p.AppToken = []string{auth.AppTokenMethod}, true, true
		return p, true, nil
	case value == "good", value == string(problem.InvalidCredentials):
		return session.Principal{}, true, &auth.Refused{Code: problem.InvalidCredentials}
	}
	return session.Principal{}, true, &auth.Refused{Code: problem.Code(value), RetryAfter: 90 * time.Second}
}

func (appTokens) Claimed(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Authorization"), "Token ") || strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func withTokens(o *proxy.Options) { o.Tokens = appTokens{} }

func TestProxy_appTokens(t *testing.T) {
	t.Parallel()
	g, up := newSite(t, withTokens)
	for _, c := range []struct {
		line, host, token string
		status            int
		code              problem.Code
	}{
		{"GET /wiki", "gate.example", "good", 200, ""},
		{"GET /public", "gate.example", "good", 200, ""},
		{"GET /admin", "gate.example", "good", 403, problem.Forbidden},
		{"GET /careful", "gate.example", "good", 403, problem.Forbidden}, // it is no second factor, however fresh
		{"GET /x", "one.apps.example", "good", 401, problem.InvalidCredentials},
		{"GET /public", "gate.example", "invalid-credentials", 401, problem.InvalidCredentials},
		{"GET /wiki", "gate.example", "locked", 429, problem.Locked},
		{"GET /wiki", "gate.example", "rate-limited", 429, problem.RateLimited},
		{"GET /public", "gate.example", "unavailable", 503, problem.Unavailable},
	} {
		before := len(up.Requests())
		got := g.send(t, c.line+" HTTP/1.1\r\nHost: "+c.host+"\r\nAuthorization: Token "+c.token+"\r\nConnection: close\r\n\r\n")
		if got.Status(t) != c.status || c.code != "" && !strings.Contains(got.Bodies[0], string(c.code)) {
			t.Errorf("%s %s with %s: %d %s", c.host, c.line, c.token, got.Status(t), got.Bodies[0])
		}
		answer := got.All[0].Header
		if c.code == problem.InvalidCredentials && len(answer.Values("WWW-Authenticate")) != 2 {
			t.Errorf("%s with %s: challenges %q", c.line, c.token, answer.Values("WWW-Authenticate"))
		}
		if wait := answer.Get("Retry-After"); (c.status == 429 || c.status == 503) != (wait == "90") {
			t.Errorf("%s with %s: Retry-After %q", c.line, c.token, wait)
		}
		if reached := len(up.Requests()) - before; (c.status == 200) != (reached == 1) {
			t.Errorf("%s with %s reached the app %d times", c.line, c.token, reached)
		}
	}
	for _, r := range up.Requests() {
		if len(r.Values("Authorization")) > 0 {
			t.Errorf("the app got %q", r.Values("Authorization"))
		}
	}
}

// What claims to be ours does not reach an app where nobody is asked, either: on the way to what is public while the store is away.
func TestProxy_keepsOurCredentialsWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	g, up := newSite(t, withTokens, func(o *proxy.Options) { o.Routes[0].RefuseWhileStoreAway = true })
	g.Sessions.away.Store(true)
	for value, passes := range map[string]bool{"Token good": false, "Bearer bobs-token": false, "Basic YTpi": true} {
		if got := g.send(t, "GET /public HTTP/1.1\r\nHost: gate.example\r\nAuthorization: "+value+"\r\nConnection: close\r\n\r\n").Status(t); got != 200 {
			t.Fatalf("%s: %d", value, got)
		}
		if seen := up.Last(t).Values("Authorization"); passes != (len(seen) == 1) {
			t.Errorf("%s: the app got %q", value, seen)
		}
	}
}

// Somebody who comes from a step-up at another gateway is not sent back to it.
func TestProxy_seesAStepUpOfAMomentAgo(t *testing.T) {
	t.Parallel()
	g, _ := newSite(t)
	ask := func() (status int, cookies int) {
		got := g.send(t, "GET /careful HTTP/1.1\r\nHost: gate.example\r\nCookie: __Host-gatehouse=tired\r\nConnection: close\r\n\r\n")
		return got.Status(t), len(got.All[0].Cookies())
	}
	if status, _ := ask(); status != 401 {
		t.Errorf("before: %d", status)
	}
	g.Sessions.steppedUp.Store(true)
	if status, cookies := ask(); status != 200 || cookies == 0 {
		t.Errorf("after: %d with %d cookies", status, cookies)
	}
}
