package snippet_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/configs"
	"gatehouse/internal/wiretest"
	"gatehouse/proxy"
	"gatehouse/snippet"
	"gatehouse/store/storetest"
)

// identities are the headers of all presets, and the assertion.
func identities() []string {
	var all []string
	for _, preset := range []proxy.Preset{proxy.PresetForwarded, proxy.PresetAuthRequest, proxy.PresetXRemote, proxy.PresetRemote} {
		all = append(all, preset.Headers()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// door is a gateway that answers by the contract and by what the cookie of the request says: "pass" lets it through, "forbidden" and
// "unavailable" refuse, and everything else is nobody. It keeps what it was asked.
type door struct {
	mu    sync.Mutex
	asked []*http.Request
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ask := strings.CutPrefix(r.URL.Path, "/.gatehouse/authz/")
	if !ask {
		fmt.Fprintf(w, "gateway itself: %s %s", r.Host, r.RequestURI)
		return
	}
	d.mu.Lock()
	d.asked = append(d.asked, r)
	d.mu.Unlock()
	nginx := path == "auth-request"
	for _, name := range proxy.PresetRemote.Headers() {
		w.Header().Set(name, "")
	}
	w.Header().Set("Cookie", "app=1")
	if own := r.Header.Get("Authorization"); own != "Bearer ours" {
		w.Header().Set("Authorization", own)
	} else {
		w.Header().Set("Authorization", "")
	}
	switch said, _ := r.Cookie("__Host-gatehouse"); {
	case said == nil && nginx:
		w.Header().Set("X-Gatehouse-Location", "http://login.test/.gatehouse/login")
		w.WriteHeader(http.StatusUnauthorized)
	case said == nil:
		w.Header().Set("Location", "http://login.test/.gatehouse/login")
		w.WriteHeader(http.StatusFound)
	case said.Value == "pass":
		w.Header().Set("Remote-User", "alice")
		w.Header().Set("X-Gatehouse-Assertion", "signed")
	case said.Value == "unavailable" && !nginx:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.Header().Set("X-Gatehouse-Code", said.Value)
		w.WriteHeader(http.StatusForbidden)
	}
}

// everywhere finds where nginx would listen on all addresses.
var everywhere = regexp.MustCompile(`(?m)^    listen ([0-9]+[ ;])`)

// start runs a program on the configuration that is written for it, and returns the port at which it answers.
func start(t *testing.T, program string, site snippet.Site) {
	t.Helper()
	dir := t.TempDir()
	text, err := snippet.Text(program, site)
	if err != nil {
		t.Fatal(err)
	}
	file, lua := filepath.Join(dir, "config"), filepath.Join(dir, "gatehouse.lua")
	var args []string
	switch program {
	case snippet.Nginx:
		text = "daemon off; pid " + dir + "/pid; error_log " + dir + "/log; events {}\nhttp { access_log off; client_body_temp_path " + dir + "/b; proxy_temp_path " + dir +
			"/p; fastcgi_temp_path " + dir + "/f; uwsgi_temp_path " + dir + "/u; scgi_temp_path " + dir + "/s;\n" + everywhere.ReplaceAllString(text, "    listen 127.0.0.1:$1") + "}\n"
		args = []string{"nginx", "-c", file}
	case snippet.Caddy:
		text = "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\n" + text
		args = []string{"caddy", "run", "--adapter", "caddyfile", "--config", file}
	case snippet.HAProxy:
		text = strings.ReplaceAll(strings.ReplaceAll(text, "bind :", "bind 127.0.0.1:"), "/etc/haproxy/gatehouse.lua", lua)
		args = []string{"haproxy", "-db", "-f", file}
	}
	for name, content := range map[string][]byte{file: []byte(text), lua: configs.HAProxyAction()} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.CommandContext(t.Context(), args[0], args[1:]...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 5 * time.Second
	command.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	command.Stdout, command.Stderr = out, out
	if err := command.Start(); err != nil {
		t.Fatalf("%v: it is in the Debian package %s", err, program)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		<-ended
		if t.Failed() {
			said, _ := os.ReadFile(out.Name())
			t.Logf("%s said: %s", program, said)
		}
	})
	_, port, _ := strings.Cut(site.Login, ":")
	for limit := time.Now().Add(15 * time.Second); ; {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v", program, err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(limit) {
			t.Fatalf("%s does not listen", program)
		}
	}
}

// What is tried out under localhost is reached from this machine only.
func TestText_listensOnLoopbackForItsNames(t *testing.T) {
	t.Parallel()
	app := func(host string) snippet.App {
		return snippet.App{Name: "app", Host: host, Path: "/", Upstreams: []string{"http://127.0.0.1:3000"}}
	}
	listens := map[string][2]string{ // on loopback, and on all addresses
		snippet.Nginx: {"listen 127.0.0.1:8000;", "listen 8000;"}, snippet.Caddy: {"bind 127.0.0.1\n", "http://wiki.example.com:8000 {\n\troute"},
		snippet.HAProxy: {"bind 127.0.0.1:8000\n", "bind :8000\n"}, snippet.Traefik: {`"127.0.0.1:8000"`, "file provider, for Traefik 3"},
		snippet.Envoy: {`address: "127.0.0.1", port_value: 8000`, `address: "0.0.0.0", port_value: 8000`},
	}
	for program, want := range listens {
		for _, site := range []snippet.Site{
			{Scheme: "http", Login: "localhost:8000", Gateway: "127.0.0.1:8080", Apps: []snippet.App{app("wiki.localhost:8000")}},
			{Scheme: "http", Login: "login.localhost:8000", Gateway: "127.0.0.1:8080", Apps: []snippet.App{app("*.Localhost:8000")}},
			{Scheme: "http", Login: "127.0.0.1:8000", Gateway: "127.0.0.1:8080", Apps: []snippet.App{app("127.0.0.1:8000")}},
		} {
			if text, err := snippet.Text(program, site); err != nil || !strings.Contains(text, want[0]) {
				t.Errorf("%s for %s: want %q in\n%s%v", program, site.Login, want[0], text, err)
			}
		}
		site := snippet.Site{Scheme: "http", Login: "localhost.example.com:8000", Gateway: "127.0.0.1:8080", Apps: []snippet.App{app("wiki.example.com:8000")}}
		if text, err := snippet.Text(program, site); err != nil || !strings.Contains(text, want[1]) || strings.Contains(text, want[0]) {
			t.Errorf("%s for all: want %q in\n%s%v", program, want[1], text, err)
		}
	}
	site := snippet.Site{Scheme: "http", Login: "[::1]:8000", Gateway: "127.0.0.1:8080", Apps: []snippet.App{app("[::1]:8000")}}
	if text, err := snippet.Text(snippet.Nginx, site); err != nil || !strings.Contains(text, "listen [::1]:8000;") {
		t.Errorf("IPv6: got\n%s%v", text, err)
	}
}

// Each program asks before it serves, passes on what the gateway said and nothing that a client claims, and serves nobody while the gateway
// cannot be asked.
func TestText_worksInTheRealPrograms(t *testing.T) {
	t.Parallel()
	for _, program := range []string{snippet.Nginx, snippet.Caddy, snippet.HAProxy} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			app, api, d := wiretest.NewUpstream(t), wiretest.NewUpstream(t), &door{}
			gateway := &http.Server{Handler: d, ReadHeaderTimeout: time.Minute}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = gateway.Serve(listener) }()
			t.Cleanup(func() { _ = gateway.Close() })
			port := storetest.FreePort(t)
			start(t, program, snippet.Site{
				Scheme: "http", Login: "login.test:" + port, Gateway: listener.Addr().String(), Identity: identities(),
				Apps: []snippet.App{
					{Name: "wiki", Host: "wiki.test:" + port, Path: "/", Upstreams: []string{app.URL}, Headers: proxy.PresetRemote.Headers()},
					{Name: "api", Host: "wiki.test:" + port, Path: "/api", Upstreams: []string{api.URL}, Headers: proxy.PresetRemote.Headers()},
					{Name: "own", Host: "wiki.test:" + port, Path: "/own", Upstreams: []string{"http://127.0.0.1:1"}, Through: true},
					{Name: "any", Host: "*.apps.test:" + port, Path: "/", Upstreams: []string{app.URL}, Headers: proxy.PresetRemote.Headers()},
				},
			})
			ask := func(host, path string, header ...string) (int, string, http.Header) {
				t.Helper()
				return get(t, "127.0.0.1:"+port, host+":"+port, path, header...)
			}
			const pass = "Cookie: app=1; __Host-gatehouse=pass"
			for _, c := range []struct {
				name, host, path, header string
				want                     int
				served                   *wiretest.Upstream
			}{
				{"may pass", "wiki.test", "/a%2Fb?c=%2F", pass, 200, app},
				{"another path", "wiki.test", "/api/x", pass, 200, api},
				{"the path itself", "wiki.test", "/api", pass, 200, api},
				{"not its segment", "wiki.test", "/apis", pass, 200, app},
				{"a wildcard", "git.apps.test", "/", pass, 200, app},
				{"nobody", "wiki.test", "/", "", 302, nil},
				{"nobody elsewhere", "wiki.test", "/api/x", "", 302, nil},
				{"forbidden", "wiki.test", "/", "Cookie: __Host-gatehouse=forbidden", 403, nil},
				{"unavailable", "wiki.test", "/", "Cookie: __Host-gatehouse=unavailable", 503, nil},
				{"the gateway's own", "wiki.test", "/.gatehouse/logout", "", 200, nil},
				{"a route through the gateway", "wiki.test", "/own/x", "", 200, nil},
				{"the login host", "login.test", "/anything", "", 200, nil},
				{"asking from outside", "wiki.test", "/.gatehouse/authz/auth-request", pass, 404, nil},
				{"asking from outside, encoded", "wiki.test", "/.gatehouse/%61uthz/auth-request", pass, 404, nil},
				{"asking from outside at the login host", "login.test", "/.gatehouse/authz/forward-auth", pass, 404, nil},
			} {
				before := [2]int{len(app.Requests()), len(api.Requests())}
				status, body, header := ask(c.host, c.path, c.header)
				if status != c.want {
					t.Errorf("%s: got %d %s", c.name, status, body)
				}
				if status == 302 && header.Get("Location") != "http://login.test/.gatehouse/login" {
					t.Errorf("%s: got sent to %q", c.name, header.Get("Location"))
				}
				served := [2]int{len(app.Requests()) - before[0], len(api.Requests()) - before[1]}
				want := [2]int{}
				if c.served == app {
					want[0] = 1
				} else if c.served == api {
					want[1] = 1
				}
				if served != want {
					t.Errorf("%s: the apps were asked %v times, want %v", c.name, served, want)
				}
				if c.served == nil && status == 200 && body != "gateway itself: "+c.host+":"+port+" "+c.path {
					t.Errorf("%s: got %q", c.name, body)
				}
			}
			ask("wiki.test", "/a%2Fb?c=%2F", pass)
			r := app.Last(t)
			if r.Target() != "/a%2Fb?c=%2F" || !slices.Equal(r.Values("Cookie"), []string{"app=1"}) || !slices.Equal(r.Values("Remote-User"), []string{"alice"}) {
				t.Errorf("the app got %s, %q, %q", r.Target(), r.Values("Cookie"), r.Values("Remote-User"))
			}
			for sent, want := range map[string]string{"Basic of-the-app": "Basic of-the-app", "Bearer ours": ""} {
				ask("wiki.test", "/", pass, "Authorization: "+sent)
				if got := strings.Join(app.Last(t).Values("Authorization"), ","); got != want {
					t.Errorf("Authorization %q reached the app as %q, want %q", sent, got, want)
				}
			}
			ask("wiki.test", "/a%2Fb?c=%2F", pass)
			d.mu.Lock()
			asked := d.asked[len(d.asked)-1]
			d.mu.Unlock()
			want := map[string]string{"X-Original-Method": "GET", "X-Original-Url": "http://wiki.test:" + port + "/a%2Fb?c=%2F", "X-Forwarded-For": "127.0.0.1"}
			if program == snippet.Caddy {
				want = map[string]string{
					"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/a%2Fb?c=%2F", "X-Forwarded-Host": "wiki.test:" + port, "X-Forwarded-Proto": "http",
					"X-Forwarded-For": "127.0.0.1",
				}
			}
			for name, want := range want {
				if got := asked.Header[name]; !slices.Equal(got, []string{want}) {
					t.Errorf("asked with %s %q, want %q", name, got, want)
				}
			}
			forge(t, program, app, func(header ...string) { ask("wiki.test", "/", append(header, pass)...) })
			_ = gateway.Close()
			count := len(app.Requests())
			if status, _, _ := ask("wiki.test", "/", pass); status < 500 || len(app.Requests()) != count {
				t.Errorf("without a gateway: got %d", status)
			}
		})
	}
}

// forge sends identity headers in every spelling, and looks for what the app would read of them.
func forge(t *testing.T, program string, app *wiretest.Upstream, send func(...string)) {
	t.Helper()
	names := append(identities(), snippet.Forgeries()...)
	if program != snippet.Nginx { // which knows whole names only
		names = append(names, "X-SSL-Client-Whatever", "SSL-Client-Whatever", "X-Client-Cert-Whatever", "Client-Cert-Whatever")
	}
	for _, name := range names {
		var header []string
		for _, spelling := range []string{
			name, strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."),
			strings.Replace(name, "-", "_", 1), strings.Replace(name, "-", ".", 1), lastReplaced(name, "_"), lastReplaced(name, "."),
		} {
			header = append(header, spelling+": root "+spelling)
		}
		send(header...)
		for read, values := range app.Last(t).CGI() {
			if strings.Contains(strings.Join(values, ","), "root") {
				t.Errorf("%s: the app reads %s %q", program, read, values)
			}
		}
	}
	send("Connection: Remote-User, Cookie")
	if got := app.Last(t).Values("Remote-User"); !slices.Equal(got, []string{"alice"}) {
		t.Errorf("%s: a client took our header away: %q", program, got)
	}
}

// lastReplaced is a name with another mark in the place of its last hyphen, if it has one.
func lastReplaced(name, mark string) string {
	at := strings.LastIndexByte(name, '-')
	if at < 0 {
		return name
	}
	return name[:at] + mark + name[at+1:]
}

// get sends one request as it is spelled.
func get(t *testing.T, address, host, path string, header ...string) (int, string, http.Header) {
	t.Helper()
	lines := ""
	for _, one := range header {
		if one != "" {
			lines += one + "\r\n"
		}
	}
	connection := "Connection: close\r\n"
	if strings.Contains(lines, "Connection:") {
		connection = ""
	}
	answers := wiretest.Raw(t, address, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nAccept: text/html\r\n"+connection+lines+"\r\n")
	status := answers.Status(t)
	return status, answers.Bodies[0], answers.All[0].Header
}
