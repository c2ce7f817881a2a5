package gateway_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
)

// manyHosts is two apps and a wildcard beside the login host, which the wildcard would cover.
func manyHosts(t *testing.T, wiki, rest *wiretest.Upstream) func(*configs.Config) {
	at := func(u *wiretest.Upstream) (up configs.Upstream) {
		if err := up.UnmarshalText([]byte(u.URL)); err != nil {
			t.Fatal(err)
		}
		return up
	}
	return func(c *configs.Config) {
		_, port, _ := strings.Cut(c.Listen, ":")
		if err := c.ExternalURL.UnmarshalText([]byte("http://login.localhost:" + port)); err != nil {
			t.Fatal(err)
		}
		c.Upstream = configs.Origin{}
		c.Routes = []configs.Route{
			{
				Name: "wiki", Host: "wiki.example.localhost", Upstreams: []configs.Upstream{at(wiki)},
				Rules: []configs.Rule{
					{Paths: []configs.Path{"/public"}, Access: configs.Public},
					{Paths: []configs.Path{"/closed"}, Access: configs.Denied},
					{Paths: []configs.Path{"/staff"}, Groups: []configs.UserName{"staff"}},
				},
			},
			{
				Host: "wiki.example.localhost", Path: "/api", Upstreams: []configs.Upstream{at(rest)}, StripPrefix: true,
				HostHeader: configs.HostUpstream, HeaderPreset: configs.PresetXForwarded,
			},
			{Host: "*.localhost", Upstreams: []configs.Upstream{at(rest)}},
		}
	}
}

// Requests go by host and path to the app of their route, as its rules say; /.gatehouse/ and the login host never do.
func TestGateway_servesManyHosts(t *testing.T) {
	t.Parallel()
	wiki, rest := wiretest.NewUpstream(t), wiretest.NewUpstream(t)
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: manyHosts(t, wiki, rest)})
	g.AddUser("alice", "staff")
	g.AddUser("bob")
	tokens := map[string]string{"": ""}
	for _, name := range []string{"alice", "bob"} {
		secret := g.Enrol(name)
		answer := g.NewBrowser().Login(name, gatewaytest.Password, g.Code(secret))
		tokens[name] = "Authorization: Bearer " + answer.Field("access_token") + "\r\n"
	}
	_, port, _ := strings.Cut(g.Origin.Host, ":")
	const page = "Accept: text/html\r\n"
	for _, c := range []struct {
		name, who, host, path, more string
		want                        int
		app                         *wiretest.Upstream // that is reached
	}{
		{"public", "", "wiki.example.localhost", "/public/a", "", 200, wiki},
		{"signed in where groups are asked", "alice", "wiki.example.localhost", "/staff", "", 200, wiki},
		{"another group", "bob", "wiki.example.localhost", "/staff", "", 403, nil},
		{"nobody", "", "wiki.example.localhost", "/staff", "", 401, nil},
		{"nobody, for a page", "", "wiki.example.localhost", "/staff", page, 302, nil},
		{"denied", "alice", "wiki.example.localhost", "/closed", "", 403, nil},
		{"no rule", "alice", "wiki.example.localhost", "/", "", 403, nil},
		{"a longer path", "bob", "wiki.example.localhost", "/api/x", "", 200, rest},
		{"an ambiguous path", "alice", "wiki.example.localhost", "/public/../staff", "", 400, nil},
		{"a wildcard", "bob", "git.localhost", "/", "", 200, rest},
		{"two labels for a wildcard", "bob", "a.git.localhost", "/", "", 421, nil},
		{"another host", "alice", "wiki.example.com", "/public", "", 421, nil},
		{"ours on an app host", "alice", "wiki.example.localhost", "/.gatehouse/login", "", 404, nil},
		{"ours under a wildcard", "alice", "git.localhost", "/.gatehouse/nothing", "", 404, nil},
		{"the login host", "", "login.localhost", "/.gatehouse/login", "", 200, nil},
		{"the login host has no app", "alice", "login.localhost", "/app", "", 404, nil},
		{"the login host has no app, spelled otherwise", "alice", "LOGIN.localhost", "/app", "", 404, nil},
		{"the root of the login host", "", "login.localhost", "/", "", 302, nil},
		{"health on an app host", "", "wiki.example.localhost", "/.gatehouse/healthz", "", 200, nil},
	} {
		before := len(wiki.Requests()) + len(rest.Requests())
		answers := wiretest.Raw(t, "127.0.0.1:"+port, "GET "+c.path+" HTTP/1.1\r\nHost: "+c.host+":"+port+"\r\n"+c.more+tokens[c.who]+"Connection: close\r\n\r\n")
		if len(answers.All) != 1 || answers.All[0].StatusCode != c.want {
			t.Errorf("%s: got %+v, want %d", c.name, answers.All, c.want)
		}
		reached := len(wiki.Requests()) + len(rest.Requests()) - before
		if c.app == nil && reached > 0 || c.app != nil && (reached != 1 || c.app.Last(t).Line == "") {
			t.Errorf("%s: an app was reached %d times", c.name, reached)
		}
	}
	last := slices.IndexFunc(rest.Requests(), func(r wiretest.Request) bool { return r.Target() == "/x" })
	if last < 0 {
		t.Fatal("the path of the route was not taken off")
	}
	r := rest.Requests()[last]
	if got := r.Values("X-Forwarded-User"); !slices.Equal(got, []string{"bob"}) || len(r.Values("Remote-User")) > 0 {
		t.Errorf("preset x-forwarded: got %q and %q", got, r.Values("Remote-User"))
	}
	if got := r.Values("Host"); !slices.Equal(got, []string{strings.TrimPrefix(rest.URL, "http://")}) {
		t.Errorf("host_header upstream: got %q", got)
	}
}

// What config check cannot see, the start refuses by the name of the route.
func TestGateway_refusesRoutesWithoutTheirFiles(t *testing.T) {
	t.Parallel()
	fifo := pipe(t, "pipe.pem")
	for file, tls := range map[string]configs.UpstreamTLS{
		"ca_file": {CAFile: "missing.pem"}, "cert_file": {CertFile: "missing.pem", KeyFile: "missing.key"},
		"ca_file: is a pipe": {CAFile: fifo}, "cert_file and tls.key_file: is a pipe": {CertFile: fifo, KeyFile: fifo},
	} {
		_, err := gatewaytest.Try(t, gatewaytest.Options{Configure: func(c *configs.Config) {
			c.Upstream = configs.Origin{}
			c.Routes = []configs.Route{{
				Name: "wiki", TLS: tls, Upstreams: []configs.Upstream{{Origin: configs.Origin{Scheme: "https", Host: "localhost"}}},
			}}
		}})
		if err == nil || !strings.Contains(err.Error(), "route wiki: read tls."+file) {
			t.Errorf("%s: got %v", file, err)
		}
	}
}

// The last page of the set-up leads to the apps that there are, and says how to protect one only where there is none.
func TestGateway_setUpEndsAtTheApps(t *testing.T) {
	t.Parallel()
	last := func(configure func(*configs.Config)) string {
		g := gatewaytest.Start(t, gatewaytest.Options{Configure: configure})
		g.AddUser("ada", "admins")
		return g.SignIn("ada", g.Enrol("ada")).Get("/.gatehouse/setup?step=ready").Text
	}
	const how = "gatehouse serve --upstream"
	up := []configs.Upstream{{Origin: configs.Origin{Scheme: "http", Host: "127.0.0.1:1"}}}
	routed := last(func(c *configs.Config) {
		c.Upstream = configs.Origin{}
		c.Routes = []configs.Route{{Host: "wiki.localhost", Path: "/docs", Upstreams: up}, {Host: "*.apps.localhost", Upstreams: up}}
	})
	_, port, _ := strings.Cut(regexp.MustCompile(`wiki\.localhost:[0-9]+`).FindString(routed), ":")
	for _, want := range []string{
		`<a href="http://wiki.localhost:` + port + `/docs">wiki.localhost:` + port + `/docs</a>`, "<li>*.apps.localhost:" + port + "</li>",
	} {
		if !strings.Contains(routed, want) || strings.Contains(routed, how) || strings.Contains(routed, `class="button"`) {
			t.Errorf("with routes: want %s in\n%s", want, routed)
		}
	}
	if one := last(nil); strings.Contains(one, how) || !strings.Contains(one, `<a href="http://localhost:`) || !strings.Contains(one, `class="button"`) {
		t.Errorf("with an upstream: got\n%s", one)
	}
	if none := last(func(c *configs.Config) { c.Upstream = configs.Origin{} }); !strings.Contains(none, how) {
		t.Errorf("without an app: got\n%s", none)
	}
}
