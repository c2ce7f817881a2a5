package gateway_test

import (
	"encoding/base64"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/store/storetest"
)

func basicOf(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

// tokenApps is a calendar and a repository on hosts of their own.
func tokenApps(t *testing.T, caldav, git *wiretest.Upstream) func(*configs.Config) {
	base := manyHosts(t, caldav, git)
	return func(c *configs.Config) {
		base(c)
		c.Routes = []configs.Route{
			{Name: "caldav", Host: "dav.localhost", Upstreams: c.Routes[0].Upstreams, Rules: []configs.Rule{
				{Paths: []configs.Path{"/public"}, Access: configs.Public},
				{Paths: []configs.Path{"/staff"}, Groups: []configs.UserName{"staff"}},
				{Paths: []configs.Path{"/vault"}, SecondFactor: true},
				{Paths: []configs.Path{"/safe"}, FactorWithin: 15 * time.Minute},
				{Access: configs.SignedIn},
			}},
			{Name: "git", Host: "git.localhost", Upstreams: c.Routes[1].Upstreams},
		}
	}
}

func addToken(t *testing.T, g *gatewaytest.Gateway, user, route string) api.IssuedToken {
	t.Helper()
	made, err := g.Admin.AddToken(t.Context(), api.NewToken{User: user, Route: route, Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// ask sends one request of a program to a host of the gateway, with header lines of its own.
func ask(t *testing.T, g *gatewaytest.Gateway, method, host, path string, lines ...string) *http.Response {
	t.Helper()
	_, port, _ := strings.Cut(g.Origin.Host, ":")
	head := method + " " + path + " HTTP/1.1\r\nHost: " + host + ":" + port + "\r\nConnection: close\r\n"
	for _, line := range lines {
		head += line + "\r\n"
	}
	answers := wiretest.Raw(t, "127.0.0.1:"+port, head+"\r\n")
	answers.Status(t)
	return answers.All[0]
}

// A program with an app token is let through on its route, by name or as a bearer, with the identity of its owner; everywhere else,
// and where a rule asks for a second factor, it is refused, and no app ever sees a token.
func TestAppTokens_onTheirRoute(t *testing.T) {
	t.Parallel()
	caldav, git := wiretest.NewUpstream(t), wiretest.NewUpstream(t)
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: tokenApps(t, caldav, git)})
	g.AddUser("alice", "staff")
	made := addToken(t, g, "alice", "caldav")
	bearer, byName := "Authorization: Bearer "+made.Secret, "Authorization: "+basicOf("alice", made.Secret)
	for _, c := range []struct {
		name, host, path string
		lines            []string
		want             int
	}{
		{"by name", "dav", "/cal", []string{byName}, 200},
		{"as a bearer", "dav", "/cal", []string{bearer}, 200},
		{"where groups are asked", "dav", "/staff", []string{byName}, 200},
		{"where nobody has to be", "dav", "/public", []string{byName}, 200},
		{"where a second factor is asked", "dav", "/vault", []string{byName}, 403},
		{"where a fresh one is asked", "dav", "/safe", []string{bearer}, 403},
		{"on another route", "git", "/", []string{byName}, 401},
		{"with another name", "dav", "/cal", []string{"Authorization: " + basicOf("bob", made.Secret)}, 401},
		{"twice", "dav", "/cal", []string{byName, bearer}, 400},
		{"in a cookie", "dav", "/cal", []string{"Cookie: __Host-gatehouse=" + made.Secret}, 401},
		{"as a handle", "dav", "/cal", []string{"Cookie: __Host-gatehouse-session=" + made.Secret}, 401},
		{"in the query", "dav", "/cal?access_token=" + made.Secret, nil, 401},
		{"under another scheme", "dav", "/cal", []string{"Authorization: token " + made.Secret}, 401},
		{"a longer one where nobody has to be", "dav", "/public", []string{byName + "A"}, 401},
		{"a cut one where nobody has to be", "dav", "/public", []string{bearer[:len(bearer)-1]}, 401},
		{"at our own API", "login", "/.gatehouse/api/v1/session", []string{bearer}, 401},
		{"at our own API, by name", "login", "/.gatehouse/api/v1/session", []string{byName}, 401},
		{"a password", "dav", "/cal", []string{"Authorization: " + basicOf("alice", gatewaytest.Password)}, 401},
	} {
		g.Clock.Add(30 * time.Second)
		if got := ask(t, g, "GET", c.host+".localhost", c.path, c.lines...); got.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", c.name, got.StatusCode, c.want)
		}
	}
	for _, r := range slices.Concat(caldav.Requests(), git.Requests()) {
		if len(r.Values("Authorization")) > 0 {
			t.Errorf("the app got %q", r.Values("Authorization"))
		}
	}
	seen := caldav.Requests()[0]
	if got := seen.Values("Remote-User"); !slices.Equal(got, []string{"alice"}) || !slices.Equal(seen.Values("Remote-Groups"), []string{"staff"}) {
		t.Errorf("the app saw %q", got)
	}
	if sessions, err := g.Admin.Sessions(t.Context(), "alice"); err != nil || len(sessions) != 0 {
		t.Errorf("%d sessions, %v", len(sessions), err)
	}
	if g.Verifications() != 0 {
		t.Errorf("%d passwords were compared", g.Verifications())
	}
	listed, err := g.Admin.AppTokens(t.Context(), "alice")
	if err != nil || len(listed) != 1 || listed[0].UsedAt.IsZero() || listed[0].ID != made.Token.ID {
		t.Errorf("listed %+v, %v", listed, err)
	}
	if !slices.ContainsFunc(g.Records(), func(r audit.Record) bool {
		return r.Kind == audit.KindAppToken && r.Outcome == audit.Success && r.Subject.Name == "alice" && r.Details["token"] == made.Token.ID
	}) {
		t.Error("the use is not on record")
	}
}

// Programs hear that an app token would do; browsers do not, for they would ask for a password in a window of their own.
func TestAppTokens_areAskedOfPrograms(t *testing.T) {
	t.Parallel()
	caldav, git := wiretest.NewUpstream(t), wiretest.NewUpstream(t)
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: tokenApps(t, caldav, git)})
	const basic = `Basic realm="app token", charset="UTF-8"`
	for name, c := range map[string]struct {
		lines []string
		want  bool
	}{
		"a program": {nil, true}, "a script of a page": {[]string{"Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin"}, false},
		"a program with a wrong token": {[]string{"Authorization: " + basicOf("alice", "ghat_x")}, true},
	} {
		got := ask(t, g, "PROPFIND", "dav.localhost", "/", c.lines...)
		if got.StatusCode != 401 || slices.Contains(got.Header.Values("WWW-Authenticate"), basic) != c.want {
			t.Errorf("%s: %d %q", name, got.StatusCode, got.Header.Values("WWW-Authenticate"))
		}
	}
}

// What is decided about a token or its owner counts at once, here and at the other gateway, also for what is open; until then a request
// costs no look at the store.
func TestAppTokens_endEverywhere(t *testing.T) {
	t.Parallel()
	caldav, git := wiretest.NewUpstream(t), wiretest.NewUpstream(t)
	server := storetest.Redis(t)
	o := gatewaytest.Options{Redis: server.URL(), RootKey: gatewaytest.RootKey(), Clock: gatewaytest.NewClock(), Configure: tokenApps(t, caldav, git)}
	here, there := gatewaytest.Start(t, o), gatewaytest.Start(t, o)
	here.AddUser("alice")
	made := addToken(t, here, "alice", "caldav")
	line := "Authorization: " + basicOf("alice", made.Secret)
	status := func(g *gatewaytest.Gateway, path string) int {
		return ask(t, g, "GET", "dav.localhost", path, line).StatusCode
	}
	settles := func(what string, g *gatewaytest.Gateway, path string, want int) {
		t.Helper()
		began := time.Now()
		for status(g, path) != want {
			if took := time.Since(began); took > storetest.Within(time.Second) {
				t.Fatalf("%s: not %d after %v", what, want, took)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for _, g := range []*gatewaytest.Gateway{here, there} {
		if got := status(g, "/cal"); got != 200 {
			t.Fatalf("before: %d", got)
		}
		if got := status(g, "/staff"); got != 403 {
			t.Fatalf("without the group: %d", got)
		}
	}
	monitor := server.Monitor(t)
	for range 20 {
		status(there, "/cal")
	}
	for _, command := range monitor.Commands(t) {
		if strings.Contains(command, "app-token") || strings.Contains(command, "users") || strings.Contains(command, "bucket") || strings.Contains(command, "lockout") {
			t.Errorf("a request of a known token asked the store: %s", command)
		}
	}
	if err := here.Admin.SetGroups(t.Context(), "alice", []string{"staff"}, "test"); err != nil {
		t.Fatal(err)
	}
	settles("a new group, here", here, "/staff", 200)
	settles("a new group, there", there, "/staff", 200)
	if err := here.Admin.DisableUser(t.Context(), "alice", "test"); err != nil {
		t.Fatal(err)
	}
	if got := status(here, "/cal"); got != 401 {
		t.Errorf("disabled, here: %d", got)
	}
	settles("disabled, there", there, "/cal", 401)
	if err := here.Admin.EnableUser(t.Context(), "alice", "test"); err != nil {
		t.Fatal(err)
	}
	if err := here.Admin.ResetLockout(t.Context(), "alice", "test"); err != nil {
		t.Fatal(err)
	}
	settles("enabled, there", there, "/cal", 200)
	if err := here.Admin.RevokeToken(t.Context(), made.Token.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if got := status(here, "/cal"); got != 401 {
		t.Errorf("revoked, here: %d", got)
	}
	settles("revoked, there", there, "/cal", 401)
}

// Where a front proxy asks, app tokens count as they do in the proxy, and the answer says that the app is not to get them.
func TestAppTokens_behindAFrontProxy(t *testing.T) {
	t.Parallel()
	caldav, git := wiretest.NewUpstream(t), wiretest.NewUpstream(t)
	apps := tokenApps(t, caldav, git)
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		apps(c)
		c.ForwardAuth.Peers = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	}})
	g.AddUser("alice", "staff")
	made := addToken(t, g, "alice", "caldav")
	_, port, _ := strings.Cut(g.Origin.Host, ":")
	asks := func(host, path, authorization string) *http.Response {
		return ask(t, g, "GET", host, "/.gatehouse/authz/auth-request", "X-Original-Method: PROPFIND", "X-Forwarded-For: 192.0.2.9",
			"X-Original-URL: http://"+host+":"+port+path, "Authorization: "+authorization)
	}
	byName := basicOf("alice", made.Secret)
	for _, c := range []struct {
		host, path, authorization string
		want                      int
	}{
		{"dav.localhost", "/cal", byName, 200},
		{"dav.localhost", "/cal", "Bearer " + made.Secret, 200},
		{"git.localhost", "/", byName, 401},
		{"dav.localhost", "/vault", byName, 403},
		{"dav.localhost", "/public", basicOf("alice", "ghat_x"), 401},
	} {
		got := asks(c.host, c.path, c.authorization)
		if got.StatusCode != c.want {
			t.Errorf("%s%s: %d, want %d", c.host, c.path, got.StatusCode, c.want)
		}
		if lines, there := got.Header["Authorization"]; c.want == 200 && (got.Header.Get("Remote-User") != "alice" || !there || lines[0] != "") {
			t.Errorf("%s%s: answered %v", c.host, c.path, got.Header)
		}
	}
	if !slices.ContainsFunc(g.Records(), func(r audit.Record) bool { return r.Kind == audit.KindAppToken && r.Client.Address == "192.0.2.9" }) {
		t.Error("the record names the front proxy instead of the client")
	}
}
