package snippet_test

import (
	"cmp"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/configs"
	"gatehouse/internal/browsertest"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/proxy"
	"gatehouse/snippet"
	"gatehouse/store/storetest"
)

// house is a real web server, before which the real gateway stands guard, and an app behind it.
type house struct {
	*gatewaytest.Gateway
	app    *wiretest.Upstream
	host   string // of the app, with the port of the web server
	login  string // likewise
	secret string // of alice
}

// newHouse runs both, with one app, whose host is the login host with something in front; who may ask is 127.0.0.1.
func newHouse(t *testing.T, program, name string) *house {
	t.Helper()
	h := &house{app: wiretest.NewUpstream(t)}
	port := storetest.FreePort(t)
	h.login = "localhost:" + port
	h.host = name + h.login
	listener := ""
	h.Gateway = gatewaytest.Start(t, gatewaytest.Options{External: "http://" + h.login, Configure: func(c *configs.Config) {
		listener = c.Listen
		c.ForwardAuth.Peers = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		c.Routes = []configs.Route{{Host: configs.Host(h.host), Upstreams: []configs.Upstream{{Origin: c.Upstream}}, Rules: []configs.Rule{
			{Paths: []configs.Path{"/public"}, Access: configs.Public},
			{Paths: []configs.Path{"/admin"}, Groups: []configs.UserName{"admins"}},
			{Paths: []configs.Path{"/wiki"}},
		}}}
		c.Upstream = configs.Origin{}
	}})
	h.AddUser("alice")
	h.secret = h.Enrol("alice")
	start(t, program, h.site(listener))
	return h
}

func (h *house) site(gateway string) snippet.Site {
	return snippet.Site{
		Scheme: "http", Login: h.login, Gateway: gateway, Identity: identities(),
		Apps: []snippet.App{{Name: "wiki", Host: h.host, Path: "/", Upstreams: []string{h.app.URL}, Headers: proxy.PresetRemote.Headers()}},
	}
}

// ask sends a request through the web server.
func (h *house) ask(t *testing.T, line string, header ...string) (int, http.Header, string) {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	raw := method + " " + target + " HTTP/1.1\r\nHost: " + h.host + "\r\n"
	for _, one := range header {
		raw += one + "\r\n"
	}
	if !slices.ContainsFunc(header, func(one string) bool { return strings.HasPrefix(one, "Connection:") }) {
		raw += "Connection: close\r\n"
	}
	answers := wiretest.Raw(t, h.login, raw+"\r\n")
	return answers.Status(t), answers.All[0].Header, answers.Bodies[0]
}

// served reports how often the app was asked since the last time.
func (h *house) served(before *int) int {
	now := len(h.app.Requests())
	n := now - *before
	*before = now
	return n
}

// The whole way through each web server: signing in, passing, being refused, forging, an access token that ends, a token of ours for
// programs, signing out, and a gateway that is gone (FA-03, FA-05, FA-07; PX-16; SE-07).
func TestForwardAuth_throughRealServers(t *testing.T) {
	t.Parallel()
	for _, program := range []string{snippet.Nginx, snippet.Caddy, snippet.HAProxy} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, program, "")
			count := 0
			refused := func(what, line string, status int, header ...string) http.Header {
				t.Helper()
				got, answer, body := h.ask(t, line, header...)
				if got != status || h.served(&count) != 0 {
					t.Errorf("%s: got %d %s, want %d and no request to the app", what, got, body, status)
				}
				return answer
			}
			passes := func(what, line, user string, header ...string) wiretest.Request {
				t.Helper()
				status, _, body := h.ask(t, line, header...)
				if status != 200 || h.served(&count) != 1 {
					t.Fatalf("%s: got %d %s, want 200", what, status, body)
				}
				r := h.app.Last(t)
				if got := strings.Join(r.CGI()["HTTP_REMOTE_USER"], ","); got != user {
					t.Errorf("%s: the app reads user %q, want %q", what, got, user)
				}
				if sent := strings.Join(r.Values("Cookie"), "; ") + strings.Join(r.Values("Authorization"), ""); strings.Contains(sent, "gatehouse") || strings.Contains(sent, "eyJ") {
					t.Errorf("%s: a credential of ours reached the app: %q", what, sent)
				}
				return r
			}

			away := refused("nobody", "GET /wiki/a?b=c%20d", 302, "Accept: text/html")
			if want := "http://" + h.host + "/.gatehouse/login?next=%2Fwiki%2Fa%3Fb%3Dc%2520d"; away.Get("Location") != want {
				t.Errorf("sent to %q, want %q", away.Get("Location"), want)
			}
			for what, header := range map[string][]string{
				"a script":    {"Accept: application/json"},
				"a fetch":     {"Accept: text/html", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"},
				"a WebSocket": {"Accept: text/html", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="},
			} {
				if answer := refused(what, "GET /wiki", 401, header...); !strings.HasPrefix(answer.Get("WWW-Authenticate"), "Bearer") {
					t.Errorf("%s: challenge %q", what, answer.Get("WWW-Authenticate"))
				}
			}
			refused("a form", "POST /wiki", 401, "Accept: text/html", "Content-Length: 0")
			refused("a preflight", "OPTIONS /wiki", 401, "Accept: text/html")
			passes("public", "GET /public/x", "", "Remote-User: root", "Remote_User: root", "Cookie: a=1")

			b := h.SignIn("alice", h.secret)
			cookie := func() string { return "Cookie: a=1; " + b.Cookies() }
			if r := passes("alice", "GET /wiki/a?b=c%20d", "alice", cookie()); r.Target() != "/wiki/a?b=c%20d" || !slices.Equal(r.Values("Cookie"), []string{"a=1"}) {
				t.Errorf("the app got %s with %q", r.Target(), r.Values("Cookie"))
			}
			refused("no member", "GET /admin", 403, cookie())
			refused("no rule", "GET /elsewhere", 403, cookie())
			for _, path := range []string{
				"/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public/%252e%252e/admin", "/public/..;/admin", "/public%2f..%2fadmin",
				"//admin", "/./admin", "/ADMIN", "/%61dmin", "/admin%20", "/admin;x=1", "/admin.", "/public%5c..%5cadmin", "/%c0%ae%c0%ae/admin", "/admin?x=/public/",
			} {
				status, _, _ := h.ask(t, "GET "+path, cookie())
				if h.served(&count) != 0 || status < 400 || status > 403 && status != 404 {
					t.Errorf("%s: got %d, and the app was asked", path, status)
				}
			}
			for _, name := range identities() {
				forged := []string{cookie()}
				for _, spelling := range []string{name, strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), lastReplaced(name, "_")} {
					forged = append(forged, spelling+": root")
				}
				for read, values := range passes("forged "+name, "GET /wiki", "alice", forged...).CGI() {
					if strings.Contains(strings.Join(values, ","), "root") {
						t.Errorf("the app reads %s %q", read, values)
					}
				}
			}
			for _, question := range []string{"X-Original-URL: http://" + h.host + "/public", "X-Forwarded-Uri: /public", "X_Original_URL: /public", "X-Original-Method: GET", "X-Rewrite-Url: /public"} {
				refused(question, "GET /admin", 403, cookie(), question)
			}
			refused("a foreign page's WebSocket", "GET /wiki", 403, cookie(), "Origin: http://evil.example", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")

			// The access token ends, and the browser forgets it.
			delete(b.Jar, "__Host-gatehouse")
			for range 4 { // beyond the idle limit, as a whole
				h.Clock.Add(20 * time.Minute)
				passes("after the token ended", "GET /wiki", "alice", cookie())
				passes("after the token ended, at once", "POST /wiki", "alice", cookie(), "Content-Length: 0")
			}

			// Once an hour a navigation gets the browser another handle.
			way := refused("an old handle", "GET /wiki?a=%2F", 302, cookie(), "Accept: text/html")
			if want := "http://" + h.host + "/.gatehouse/renew?next=%2Fwiki%3Fa%3D%252F"; way.Get("Location") != want {
				t.Fatalf("an old handle: sent to %q, want %q", way.Get("Location"), want)
			}
			old := cookie()
			if renewed := b.Get("/.gatehouse/renew?next=%2Fwiki"); renewed.StatusCode != 303 || cookie() == old {
				t.Errorf("the renewal route: got %d", renewed.StatusCode)
			}
			passes("with another handle", "GET /wiki", "alice", cookie(), "Accept: text/html")

			var token struct {
				Text string `json:"access_token"`
			}
			h.Clock.Add(time.Minute)
			program := h.NewBrowser()
			if err := json.Unmarshal([]byte(program.Login("alice", gatewaytest.Password, h.Code(h.secret)).Text), &token); err != nil || token.Text == "" {
				t.Fatalf("no token: %v", err)
			}
			passes("by token", "GET /wiki", "alice", "Authorization: Bearer "+token.Text)
			if r := passes("with the app's own", "GET /wiki", "alice", cookie(), "Authorization: Basic YTpi"); !slices.Equal(r.Values("Authorization"), []string{"Basic YTpi"}) {
				t.Errorf("the app got Authorization %q", r.Values("Authorization"))
			}
			refused("a token that is none", "GET /wiki", 401, "Authorization: Bearer "+token.Text+"x", cookie())

			if status, _, body := h.ask(t, "POST /.gatehouse/api/v1/logout", cookie(), "Sec-Fetch-Site: same-origin", "Content-Length: 0"); status != 204 && status != 200 {
				t.Errorf("sign out: got %d %s", status, body)
			}
			refused("after signing out", "GET /wiki", 401, cookie())
			refused("after signing out, as a page", "GET /wiki", 302, cookie(), "Accept: text/html")

			h.Stop()
			if status, _, _ := h.ask(t, "GET /public", "Accept: text/html"); status < 500 || h.served(&count) != 0 {
				t.Errorf("without a gateway: got %d", status)
			}
		})
	}
}

// FA-07: a gateway that never answers lets nobody in, and the web server says so before people give up.
func TestForwardAuth_slowGateway(t *testing.T) {
	t.Parallel()
	for _, program := range []string{snippet.Nginx, snippet.Caddy, snippet.HAProxy} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = listener.Close() })
			h := &house{app: wiretest.NewUpstream(t), host: "localhost:" + storetest.FreePort(t)}
			h.login = h.host
			start(t, program, h.site(listener.Addr().String()))
			client := http.Client{Timeout: 20 * time.Second}
			answer, err := client.Get("http://" + h.host + "/public")
			if err != nil {
				t.Fatal(err)
			}
			_ = answer.Body.Close()
			if answer.StatusCode < 500 || len(h.app.Requests()) != 0 {
				t.Errorf("got %d", answer.StatusCode)
			}
		})
	}
}

// A person with a real browser, behind each web server.
func TestForwardAuth_chromium(t *testing.T) {
	t.Parallel()
	browser := browsertest.Start(t)
	for _, program := range []string{snippet.Nginx, snippet.Caddy, snippet.HAProxy} {
		t.Run(program, func(t *testing.T) {
			h := newHouse(t, program, "wiki.")
			tab := browser.NewTab(t, browsertest.Look{})
			if status := tab.Open("http://" + h.host + "/wiki/start?page=1"); status != 200 {
				t.Fatalf("the login page: got %d", status)
			}
			tab.Type("#username", "alice")
			tab.Type("#password", gatewaytest.Password)
			tab.Enter()
			h.Clock.Add(time.Minute)
			tab.Type("#code", h.Code(h.secret))
			if status := tab.Enter(); status != 200 || !strings.HasSuffix(browsertest.Eval[string](tab, "location.href"), h.host+"/wiki/start?page=1") {
				t.Fatalf("after signing in: got %d at %s", status, browsertest.Eval[string](tab, "location.href"))
			}
			r := h.app.Last(t)
			if got := cmp.Or(strings.Join(r.CGI()["HTTP_REMOTE_USER"], ","), "nobody"); got != "alice" || strings.Contains(strings.Join(r.Values("Cookie"), ""), "gatehouse") {
				t.Errorf("the app got %q and %q", got, r.Values("Cookie"))
			}
			// The access token ends; an hour later the browser is sent for another handle, and comes back.
			for range 13 {
				h.Clock.Add(10 * time.Minute)
				if status := tab.Open("http://" + h.host + "/wiki/later"); status != 200 || browsertest.Eval[string](tab, "location.pathname") != "/wiki/later" {
					t.Fatalf("later: got %d at %s", status, browsertest.Eval[string](tab, "location.href"))
				}
			}
			if status := tab.Open("http://" + h.host + "/admin"); status != 403 {
				t.Errorf("a page for others: got %d", status)
			}
			tab.Open("http://" + h.host + "/.gatehouse/logout")
			tab.Click("form button")
			count := len(h.app.Requests())
			tab.Open("http://" + h.host + "/wiki/start")
			if at := browsertest.Eval[string](tab, "location.href"); !strings.Contains(at, h.login+"/.gatehouse/login") || len(h.app.Requests()) != count {
				t.Errorf("after signing out: at %s", at)
			}
		})
	}
}
