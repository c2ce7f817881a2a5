package pagestest_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gatehouse/configs"
	"gatehouse/internal/browsertest"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/web"
)

// TestSetup_ofSomebodyWithoutScripts goes from the first screen's link to the end with nothing but the keyboard, an authenticator
// app that reads the picture of the page, and a browser that runs no scripts.
func TestSetup_ofSomebodyWithoutScripts(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	tab := browsertest.Start(t).NewTab(t, browsertest.Look{NoScripts: true})
	if got := tab.Open(setupLink(t, g)); got != 200 {
		t.Fatalf("set-up link: %d", got)
	}
	tab.Paste("ada") // the focus is on the name
	tab.Press("\t")
	tab.Paste("Ada Lovelace")
	tab.Press("\t")
	tab.Paste(gatewaytest.Password)
	if got := tab.Enter(); got != 200 {
		t.Fatalf("name and password: %d", got)
	}
	key, err := url.Parse(zbarimg(t, tab.Screenshot()))
	if err != nil {
		t.Fatal(err)
	}
	secret := key.Query().Get("secret")
	if key.Scheme != "otpauth" || !strings.HasSuffix(key.Path, ":ada") {
		t.Errorf("the QR code holds %s", key)
	}
	if shown := browsertest.Eval[string](tab, `document.getElementById("secret").textContent`); shown != secret {
		t.Errorf("the text shows %s, the QR code %s", shown, secret)
	}
	tab.Type("#code", oathtool(t, g, secret))
	if got := tab.Enter(); got != 200 {
		t.Fatalf("code: %d", got)
	}
	check(t, tab, "body")
	if title := browsertest.Eval[string](tab, `document.title`); !strings.HasPrefix(title, "You are all set") {
		t.Errorf("the last page is %q", title)
	}
	tab.Click("a.button")
	if seen := g.Upstream.Last(t).Values("Remote-User"); len(seen) != 1 || seen[0] != "ada" {
		t.Errorf("the app saw %q", seen)
	}
}

// TestLogin_byKeyboard signs in with Tab, paste and Enter, is told of a used code, and arrives where it was going.
func TestLogin_byKeyboard(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	g.AddUser("alice")
	secret := g.Enrol("alice")
	g.SignIn("alice", secret) // uses the code of this time step
	tab := browsertest.Start(t).NewTab(t, browsertest.Look{})
	tab.Open(g.URL + "/wiki?page=1")
	tab.Paste("alice")
	tab.Press("\t")
	tab.Paste(gatewaytest.Password)
	tab.Press("\t")
	if got := tab.Focused(); got != "button" {
		t.Errorf("after the password Tab leads to %s, want the button", got)
	}
	tab.Enter()
	code := oathtool(t, g, secret)
	tab.Paste(code[:3] + " " + code[3:]) // as apps show it; the focus is on the field
	if got := tab.Enter(); got != 401 {
		t.Errorf("a used code: %d, want 401", got)
	}
	check(t, tab, "div#alert")
	if text := browsertest.Eval[string](tab, `document.activeElement.textContent`); !strings.Contains(text, "already used") {
		t.Errorf("the alert says %q", text)
	}
	g.Clock.Add(30e9)
	tab.Press("\t")
	tab.Paste(oathtool(t, g, secret))
	tab.Enter()
	if got := browsertest.Eval[string](tab, `location.pathname + location.search`); got != "/wiki?page=1" {
		t.Errorf("arrived at %s, want /wiki?page=1", got)
	}
}

// TestAccent_staysReadable lets axe-core measure the contrast of buttons, links and focus under colours that are too light and too
// dark for one of the schemes or for both.
func TestAccent_staysReadable(t *testing.T) {
	browser := browsertest.Start(t)
	for _, accent := range []string{"#ffd400", "#f2f2f2", "#101418", "#777777"} {
		g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
			if err := c.Pages.Accent.UnmarshalText([]byte(accent)); err != nil {
				t.Fatal(err)
			}
		}})
		g.AddUser("alice")
		g.Enrol("alice")
		tab := browser.NewTab(t, browsertest.Look{})
		tab.Open(g.URL + "/.gatehouse/login")
		tab.Type("#username", "alice")
		tab.Type("#password", gatewaytest.Password)
		tab.Enter()
		for _, dark := range []bool{false, true} {
			tab.Show(browsertest.Look{Dark: dark})
			for _, v := range tab.Violations() {
				t.Errorf("%s, dark %v: %s", accent, dark, v)
			}
		}
	}
}

// pictured are the pages in the README; of the others pictures are drawn only where they are kept.
var pictured = []string{"login", "code", "enrolment"}

// TestScreenshots_areDrawn draws every page into docs/screenshots with `make screenshots`, else those of the README into nothing.
func TestScreenshots_areDrawn(t *testing.T) {
	listener := ""
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) { // the address of a first start, on any port
		listener = c.Listen
		if err := c.ExternalURL.UnmarshalText([]byte("http://localhost:8080")); err != nil {
			t.Fatal(err)
		}
	}})
	browser := browsertest.Start(t, "MAP localhost:8080 "+listener)
	for _, s := range append(stories(t, g), faults(t, g)...) {
		if !keeping() && !slices.Contains(pictured, s.name) {
			continue
		}
		g.Clock.Add(30 * 60e9)
		tab := browser.NewTab(t, browsertest.Look{})
		if got := s.lead(t, tab); got != s.status {
			t.Errorf("%s: status %d, want %d", s.name, got, s.status)
		}
		for name, look := range map[string]browsertest.Look{
			"light": {Width: 800, Height: 620}, "dark": {Width: 800, Height: 620, Dark: true}, "narrow": {Width: 360, Height: 640},
		} {
			tab.Show(look)
			picture := tab.Screenshot()
			if len(picture) < 5000 {
				t.Errorf("%s, %s: a picture of %d bytes", s.name, name, len(picture))
			}
			draw(t, strings.ReplaceAll(s.name, " ", "-")+"-"+name, picture)
		}
	}
}

// faults lead to the pages of errors that other stories do not come by.
func faults(t *testing.T, g *gatewaytest.Gateway) []story {
	t.Helper()
	g.AddUser("carol")
	secret := g.Enrol("carol")
	open := func(path string) func(*testing.T, *browsertest.Tab) int {
		return func(_ *testing.T, tab *browsertest.Tab) int { return tab.Open(g.URL + path) }
	}
	administrator := "" // made when everything that needs the set-up link is done
	all := []story{
		{name: "method not allowed", status: 405, lead: open("/.gatehouse/api/v1/logout")},
		{name: "set-up done", status: 200, lead: func(_ *testing.T, tab *browsertest.Tab) int {
			if administrator == "" {
				g.AddUser("ada", "admins")
				administrator = g.Enrol("ada")
			}
			tab.Open(g.URL + "/.gatehouse/login")
			signInHere(g, tab, "ada", administrator)
			return tab.Open(g.URL + "/.gatehouse/setup?step=ready")
		}},
		{name: "app away", status: 502, lead: func(_ *testing.T, tab *browsertest.Tab) int {
			g.Upstream.Close()
			tab.Open(g.URL + "/report")
			tab.Type("#username", "carol")
			tab.Type("#password", gatewaytest.Password)
			tab.Click("button")
			tab.Type("#code", g.Code(secret))
			return tab.Enter()
		}},
	}
	hosts, _ := apps(t)
	all = append(all, story{name: "sign-in loop", status: 400, lead: func(_ *testing.T, tab *browsertest.Tab) int {
		return tab.Open(hosts.Host("app.localhost") + "/.gatehouse/handoff?next=/page&bounced=" + strconv.FormatInt(hosts.Clock.Now().Unix(), 36))
	}})
	return append(all, problems(t, g)...)
}

// problems lead to the pages of errors that need something broken, drawn by an edge that breaks when it is asked to.
func problems(t *testing.T, g *gatewaytest.Gateway) []story {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	external := &url.URL{Scheme: "http", Host: server.Listener.Addr().String()}
	edge, err := web.New(web.Options{
		External: external, NoApp: true, Now: g.Clock.Now, Logger: slog.New(slog.DiscardHandler),
		Visitor: func(*http.Request) web.Visitor { return web.Visitor{RequestID: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"} },
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, broken := strings.CutPrefix(r.URL.Path, "/problem/")
		if !broken {
			edge.ServeHTTP(w, r)
			return
		}
		p := problem.New(problem.Code(code))
		p.RetryAfter = 12
		edge.Problem(w, r, p)
	})
	server.Start()
	t.Cleanup(server.Close)
	var all []story
	for _, code := range []problem.Code{
		problem.BadRequest, problem.Forbidden, problem.TooLarge, problem.Misdirected, problem.RateLimited, problem.Unavailable, problem.UpstreamTimeout,
	} {
		all = append(all, story{name: string(code), status: code.Status(), lead: func(_ *testing.T, tab *browsertest.Tab) int {
			return tab.Open(external.String() + "/problem/" + string(code))
		}})
	}
	return all
}

// TestStepUp_byKeyboard makes a session fresher with the keyboard alone, and arrives where it was going; who has no second factor is
// told what to do.
func TestStepUp_byKeyboard(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) { c.Login.SecondFactor = configs.Optional }})
	g.AddUser("alice")
	secret := g.Enrol("alice")
	g.AddUser("bob")
	tab := browsertest.Start(t).NewTab(t, browsertest.Look{NoScripts: true})
	enter := func(name string) {
		tab.Open(g.URL + "/.gatehouse/login")
		tab.Type("#username", name)
		tab.Type("#password", gatewaytest.Password)
		tab.Enter()
	}
	enter("bob")
	if got := tab.Open(g.URL + "/.gatehouse/login/verify?next=/wiki"); got != 200 {
		t.Errorf("without a second factor: %d", got)
	}
	check(t, tab, "body")
	tab.Click("a.button")
	tab.Click("button")

	enter("alice")
	tab.Type("#code", oathtool(t, g, secret))
	tab.Enter()
	g.Clock.Add(20 * 60e9)
	tab.Open(g.URL + "/.gatehouse/login/verify?next=/wiki%3Fpage=1")
	tab.Paste(oathtool(t, g, secret)) // the focus is on the field
	tab.Enter()
	if got := browsertest.Eval[string](tab, `location.pathname + location.search`); got != "/wiki?page=1" {
		t.Errorf("arrived at %s, want /wiki?page=1", got)
	}
	if seen := g.Upstream.Last(t).Values("Remote-User"); len(seen) != 1 || seen[0] != "alice" {
		t.Errorf("the app saw %q", seen)
	}
}
