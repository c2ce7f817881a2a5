package attacks_test

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth/apptoken"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/web"
)

const verifyPath = "/.gatehouse/login/verify"

// besieged is a target with alice, who has a second factor, a session and an app token that was not used yet.
type besieged struct {
	*target
	held *gatewaytest.Browser // signed in, on a device that is not known
	made api.IssuedToken
	seed string
}

func besiege(t *testing.T) *besieged {
	t.Helper()
	g := &besieged{target: start(t)}
	g.seed = g.enrolled("alice")
	g.held = g.SignIn("alice", g.seed)
	delete(g.held.Jar, "__Host-gatehouse-device")
	var err error
	if g.made, err = g.Admin.AddToken(t.Context(), api.NewToken{User: "alice", Route: "app"}); err != nil {
		t.Fatal(err)
	}
	g.secret(g.made.Secret)
	return g
}

// password, code and token are the right one of alice's, or a wrong one in the right form.
func (g *besieged) password(right bool) string {
	if right {
		return gatewaytest.Password
	}
	return canary
}

func (g *besieged) code(right bool) string {
	if !right {
		return "00000x"
	}
	g.Clock.Add(30 * time.Second) // no code is used twice
	return g.Code(g.seed)
}

func (g *besieged) token(right bool) string {
	if right {
		return g.made.Secret
	}
	return apptoken.Prefix + strings.Repeat("ABCD2345Z7MNO", 4)
}

// wayIn is one place of the public listener that takes a credential of an account; docs/threats.md lists them for people.
type wayIn struct {
	name, path string
	window     string // in which wrong ones count
	// present shows a credential from an address of its own and returns the code of the answer; "" is right.
	present func(g *besieged, right bool) problem.Code
}

var waysIn = []wayIn{
	{"the form", "/.gatehouse/login", api.WindowPassword, func(g *besieged, right bool) problem.Code {
		return ofPage(g.next().Password("alice", g.password(right)))
	}},
	{"the JSON login", loginPath, api.WindowPassword, func(g *besieged, right bool) problem.Code {
		return ofJSON(g.next().Login("alice", g.password(right), ""))
	}},
	{"an app token beside its name", "/", api.WindowPassword, func(g *besieged, right bool) problem.Code {
		text := base64.StdEncoding.EncodeToString([]byte("alice:" + g.token(right)))
		return ofJSON(g.next().Do(http.MethodGet, "/", nil, http.Header{"Authorization": {"Basic " + text}}))
	}},
	{"the page of the code", "/.gatehouse/login/code", api.WindowCode, func(g *besieged, right bool) problem.Code {
		b := g.next()
		if code := ofPage(b.Password("alice", gatewaytest.Password)); code != "" {
			g.t.Fatalf("password: %s", code)
		}
		return ofPage(b.Submit("/.gatehouse/login/code", url.Values{"code": {g.code(right)}}))
	}},
	{"the JSON login with a challenge", loginPath, api.WindowCode, func(g *besieged, right bool) problem.Code {
		b := g.next()
		challenge := b.Login("alice", gatewaytest.Password, "").Field("challenge")
		return ofJSON(b.JSON(loginPath, map[string]string{"challenge": challenge, "code": g.code(right)}))
	}},
	{"the step-up page", verifyPath, api.WindowCode, func(g *besieged, right bool) problem.Code {
		b := g.held.Copy().At(g.next().From)
		return ofPage(b.Submit(verifyPath, url.Values{"code": {g.code(right)}}))
	}},
}

// otherPosts are the paths of the login host that take no credential of an account.
var otherPosts = map[string]string{
	"/.gatehouse/login/enrol":   "the first code of a factor that the same page showed",
	"/.gatehouse/setup":         "a one-time link; five wrong codes end it",
	"/.gatehouse/invite":        "a one-time link; five wrong codes end it",
	"/.gatehouse/logout":        "ends a session",
	"/.gatehouse/api/v1/logout": "ends a session",
}

// ofJSON and ofPage are the code that an answer stands for; "" is right, or right as far as it goes.
func ofJSON(a gatewaytest.Answer) problem.Code {
	code := problem.Code("")
	if a.StatusCode != http.StatusOK {
		code = problem.Code(a.ProblemCode())
	}
	if code == problem.CodeRequired {
		return ""
	}
	return code
}

func ofPage(a gatewaytest.Answer) problem.Code {
	switch a.StatusCode {
	case http.StatusSeeOther:
		return ""
	case http.StatusUnauthorized:
		return problem.InvalidCredentials
	case http.StatusTooManyRequests:
		return problem.Locked
	}
	return problem.Code(a.Status)
}

// LG-09 and LK-14: in every place the fifth failure locks, the lock holds for what is right, too, it holds in all other places that count in
// the same window, each failure is on record, and the session that there is lives on.
func TestLG09_LK14_everyWayInHasTheSameLimits(t *testing.T) {
	t.Parallel()
	for _, way := range waysIn {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			g := besiege(t)
			for i := range 6 {
				code := way.present(g, false)
				if locked := code == problem.Locked; locked != (i == 5) || !locked && code != problem.InvalidCredentials && code != problem.CodeInvalid {
					t.Errorf("wrong, number %d: %q", i+1, code)
				}
			}
			if got := g.failures("alice", way.window); got != 5 {
				t.Errorf("%d failures are counted, want 5", got)
			}
			for _, other := range waysIn {
				if other.window != way.window {
					continue
				}
				if code := other.present(g, true); code != problem.Locked {
					t.Errorf("%s, right, behind the lock: %q", other.name, code)
				}
			}
			if answer := g.held.Get("/"); answer.StatusCode != http.StatusOK {
				t.Errorf("the session that there was: %d", answer.StatusCode)
			}
			g.Clock.Add(15 * time.Minute)
			if code := way.present(g, true); code != "" {
				t.Errorf("right, after the lock: %q", code)
			}
			g.Stop()
			failures := 0
			for _, r := range g.Records() {
				if r.Outcome == audit.Failure && r.Subject.Name == "alice" {
					failures++
				}
			}
			if failures != 5 {
				t.Errorf("%d failures are on record, want 5", failures)
			}
		})
	}
}

// A path that takes a credential and is not in the list is a finding by itself.
func TestLG09_theListIsWhole(t *testing.T) {
	t.Parallel()
	edge, err := web.New(web.Options{External: &url.URL{Scheme: "https", Host: "login.example.com"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../docs/threats.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, way := range waysIn {
		listed[way.path] = true
	}
	for _, route := range slices.Concat(edge.Routes(), edge.HostRoutes()) {
		if route.Post == nil {
			continue
		}
		if _, other := otherPosts[route.Path]; !other && !listed[route.Path] {
			t.Errorf("POST %s takes something, and nobody tries to guess it", route.Path)
		}
		if !strings.Contains(string(document), "`"+route.Path+"`") {
			t.Errorf("docs/threats.md does not list %s", route.Path)
		}
	}
}

// LG-10: twenty guesses behind a stolen session are five, whichever address they come from.
func TestLG10_aHeldSessionIsNoWayToGuessMore(t *testing.T) {
	t.Parallel()
	g := besiege(t)
	step := waysIn[len(waysIn)-1]
	checked := 0
	for range 20 {
		if code := step.present(g, false); code == problem.InvalidCredentials {
			checked++
		} else if code != problem.Locked {
			t.Errorf("a wrong code: %q", code)
		}
	}
	if checked != 5 {
		t.Errorf("%d were checked, want 5", checked)
	}
	if code := step.present(g, true); code != problem.Locked {
		t.Errorf("the right one: %q", code)
	}
	if answer := g.held.Get("/"); answer.StatusCode != http.StatusOK {
		t.Errorf("the session: %d", answer.StatusCode)
	}
}

// LG-14 for app tokens: they are no part of an address, and what stands in one opens nothing.
func TestLG14_appTokensAreNoPartOfAnAddress(t *testing.T) {
	t.Parallel()
	g := besiege(t)
	for _, path := range []string{
		"/?token=%s", "/?access_token=%s", "/?user=alice&password=%s", "/.gatehouse/login/verify?code=%s", "/.gatehouse/api/v1/session?token=%s",
	} {
		answer := g.next().Do(http.MethodGet, strings.Replace(path, "%s", g.made.Secret, 1), nil, nil)
		if answer.StatusCode == http.StatusOK {
			t.Errorf("%s is let in", path)
		}
	}
	if answer := g.next().Do(http.MethodGet, "http://alice:"+g.made.Secret+"@"+g.Origin.Host+"/", nil, nil); answer.StatusCode != http.StatusOK {
		t.Errorf("in front of the host, where clients make Basic of it: %d", answer.StatusCode)
	}
}

// TP-10: what makes a session fresh is presented in this session, now, and by its owner.
func TestTP10_freshnessIsNotBorrowed(t *testing.T) {
	t.Parallel()
	g := besiege(t)
	seed := g.enrolled("bob")
	freshSince := func(b *gatewaytest.Browser) string { return b.Get("/.gatehouse/api/v1/session").Field("auth_time") }
	old, before := g.held.Copy(), freshSince(g.held)
	g.Clock.Add(time.Minute)
	if answer := g.held.Copy().Submit(verifyPath, url.Values{"code": {g.Code(seed)}}); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("with bob's code: %d", answer.StatusCode)
	}
	tab := g.SignIn("alice", g.seed) // another session of hers
	g.Clock.Add(time.Minute)
	if answer := tab.Submit(verifyPath, url.Values{"code": {g.Code(g.seed)}}); answer.StatusCode != http.StatusSeeOther {
		t.Fatalf("a step-up of the other session: %d %s", answer.StatusCode, answer.Text)
	}
	if got := freshSince(g.held); got != before {
		t.Errorf("another session's step-up made this one fresh: %s, was %s", got, before)
	}
	if answer := g.held.Submit(verifyPath, url.Values{"code": {g.Code(g.seed)}}); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("with the code that the other session used: %d", answer.StatusCode)
	}
	g.Clock.Add(30 * time.Second)
	if answer := g.held.Submit(verifyPath, url.Values{"code": {g.Code(g.seed)}}); answer.StatusCode != http.StatusSeeOther {
		t.Fatalf("its own step-up: %d", answer.StatusCode)
	}
	if got := freshSince(old); got != "" {
		t.Errorf("what was there before the step-up is good, since %s", got)
	}
	// Done before a logout it is worth nothing after it.
	g.held.Submit("/.gatehouse/logout", url.Values{})
	if got := freshSince(g.held); got != "" {
		t.Errorf("after the logout: since %s", got)
	}
}

// SE-06 for app tokens: no other place takes one, and its own place takes nothing else.
func TestSE06_appTokensHaveOnePlace(t *testing.T) {
	t.Parallel()
	g := besiege(t)
	b := g.next()
	for name, header := range map[string]http.Header{
		"as the access cookie":   {"Cookie": {"__Host-gatehouse=" + g.made.Secret}},
		"as the handle":          {"Cookie": {"__Host-gatehouse-session=" + g.made.Secret}},
		"as the device cookie":   {"Cookie": {"__Host-gatehouse-device=" + g.made.Secret}},
		"under another scheme":   {"Authorization": {"Token " + g.made.Secret}},
		"in a header of its own": {"X-Api-Key": {g.made.Secret}},
		"an access token as the password": {"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(
			"alice:"+g.next().Login("alice", gatewaytest.Password, g.code(true)).Field("access_token")))}},
	} {
		if answer := b.Do(http.MethodGet, "/", nil, header); answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, answer.StatusCode)
		}
	}
	for _, way := range []problem.Code{
		ofPage(g.next().Password("alice", g.made.Secret)), ofJSON(g.next().Login("alice", g.made.Secret, "")),
		ofPage(g.held.Submit(verifyPath, url.Values{"code": {g.made.Secret}})),
	} {
		if way != problem.InvalidCredentials {
			t.Errorf("as a password or a code: %q", way)
		}
	}
	bearer := http.Header{"Authorization": {"Bearer " + g.made.Secret}}
	for _, path := range []string{"/.gatehouse/api/v1/session", "/.gatehouse/api/v1/logout", "/.gatehouse/logout", verifyPath} {
		method := http.MethodGet
		if strings.HasSuffix(path, "v1/logout") {
			method = http.MethodPost
		}
		if answer := g.next().Do(method, path, nil, bearer); answer.StatusCode == http.StatusNoContent || strings.Contains(answer.Text, "alice") {
			t.Errorf("at %s: %d", path, answer.StatusCode)
		}
	}
}

// EN-01 and EN-04 for app tokens: beside a name that exists, one that does not, and that of a disabled account, a wrong token asks the store
// for the same, locks alike, and is answered to the letter alike.
func TestEN01_EN04_appTokensBesideUnknownNames(t *testing.T) {
	t.Parallel()
	g, server := startOnRedis(t)
	g.AddUser("alice-1")
	g.AddUser("carol-1")
	if err := g.Admin.DisableUser(t.Context(), "carol-1", "EN-01"); err != nil {
		t.Fatal(err)
	}
	ask := func(from, name string) string {
		text := base64.StdEncoding.EncodeToString([]byte(name + ":" + (&besieged{}).token(false)))
		return withoutNonces(g.raw("GET / HTTP/1.1\r\nHost: " + g.Origin.Host + "\r\nX-Forwarded-For: " + from + "\r\nAuthorization: Basic " + text + "\r\nConnection: close\r\n\r\n"))
	}
	ask("10.1.9.9", "somebody") // the scripts are loaded now
	monitor := server.Monitor(t)
	var wantAnswers, wantWork []string
	for n, name := range []string{"nobdy-1", "alice-1", "carol-1", "nobdy-2"} {
		for attempt := range 7 {
			work(t, monitor) // what was before
			answer := ask(fmt.Sprintf("10.1.%d.%d", n, attempt), name)
			did := work(t, monitor)
			if n == 0 {
				wantAnswers, wantWork = append(wantAnswers, answer), append(wantWork, did)
				continue
			}
			if answer != wantAnswers[attempt] {
				t.Errorf("%s, attempt %d: got\n%s\nwant\n%s", name, attempt, answer, wantAnswers[attempt])
			}
			if did != wantWork[attempt] {
				t.Errorf("%s, attempt %d: got %s, want %s", name, attempt, did, wantWork[attempt])
			}
		}
	}
	if !strings.Contains(wantWork[0], "evalsha lockout") || !strings.Contains(wantAnswers[6], "429") || g.Verifications() != 0 {
		t.Fatalf("the oracle counts nothing: %s", wantWork)
	}
}
