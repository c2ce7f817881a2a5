package doctor_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/configs"
	"gatehouse/doctor"
	"gatehouse/internal/gatewaytest"
)

// examine looks, and holds every finding to its form.
func examine(t *testing.T, o doctor.Options) []doctor.Finding {
	t.Helper()
	found := doctor.Examine(t.Context(), o)
	for _, f := range found {
		if f.What == "" || f.OK != (f.Why == "") || f.OK != (f.Fix == "") {
			t.Errorf("a finding has what, why and fix, and what is well has none of the latter: %+v", f)
		}
	}
	return found
}

// wants checks what was found, each by its check and a part of what it says.
func wants(t *testing.T, what string, found []doctor.Finding, want ...[2]string) {
	t.Helper()
	var got [][2]string
	for _, f := range found {
		if !f.OK {
			got = append(got, [2]string{f.Check, f.What})
		}
	}
	for i, w := range want {
		if i >= len(got) || got[i][0] != w[0] || !strings.Contains(got[i][1], w[1]) {
			t.Errorf("%s: found\n%q, want\n%q", what, got, want)
			return
		}
	}
	if len(got) > len(want) {
		t.Errorf("%s: found\n%q, want\n%q", what, got, want)
	}
}

// patient is a running gateway as its configuration describes it, once it follows the feed.
func patient(g *gatewaytest.Gateway) doctor.Options {
	for strings.Contains(g.NewBrowser().Get("/.gatehouse/readyz").Text, `"degraded"`) {
		time.Sleep(time.Millisecond)
	}
	app, _ := url.Parse(g.Upstream.URL)
	return doctor.Options{
		External: g.Origin, Hosts: []string{g.Origin.Host}, Listen: g.Origin.Host, AuditDir: filepath.Join(g.Dir, "audit"),
		RootKeyFile: filepath.Join(g.Dir, "root.key"), Upstreams: []doctor.Upstream{{Route: "app", URL: app}}, NoScan: true, Now: time.Now,
	}
}

func trustNobody(c *configs.Config) { c.TrustedProxies = nil }

func TestExamine_findsNothingWhereAllIsWell(t *testing.T) {
	t.Parallel()
	found := examine(t, patient(gatewaytest.Start(t, gatewaytest.Options{Configure: trustNobody})))
	wants(t, "a good one", found)
	var checks []string
	for _, f := range found {
		checks = append(checks, f.Check)
	}
	for _, check := range []string{"names", "certificates", "gateway", "clock", "cookies", "forwarded headers", "audit folder", "root key", "upstreams"} {
		if !slices.Contains(checks, check) {
			t.Errorf("nothing is said of %s", check)
		}
	}
}

// Browsers know names under localhost without a name service, so the one who tries Gatehouse out has nothing to mend.
func TestExamine_takesNamesUnderLocalhostForThisMachine(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		trustNobody(c)
		c.ExternalURL.Host = strings.Replace(c.ExternalURL.Host, "localhost", "login.localhost", 1)
	}})
	o := patient(g)
	o.Hosts = []string{g.Origin.Host, "wiki.localhost", "*.apps.localhost"}
	wants(t, "names under localhost", examine(t, o))
}

func TestExamine_findsWhatIsWrongWithFilesAndClocks(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: trustNobody})
	o := patient(g)
	o.Now = func() time.Time { return time.Now().Add(time.Minute) }
	o.Hosts = []string{"nowhere.invalid"}
	for _, path := range []string{o.AuditDir, o.RootKeyFile} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o.Store = &doctor.Store{Warnings: []string{"appendfsync everysec"}, Skew: time.Minute}
	g.Upstream.Close()
	wants(t, "a bad one", examine(t, o),
		[2]string{"names", "nowhere.invalid has no address"}, [2]string{"clock", "differ by 1m"}, [2]string{"store", "appendfsync"},
		[2]string{"clock", "differ by 1m0s"}, [2]string{"audit folder", "mode 0755"}, [2]string{"root key", "mode 0755"}, [2]string{"upstreams", "refused"})
}

// Proxies in front, each wrong in its own way.
func TestExamine_findsWhatAProxyDoesToHeaders(t *testing.T) {
	t.Parallel()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	tests := []struct {
		name    string
		trusted []netip.Prefix
		rewrite func(*httputil.ProxyRequest)
		modify  func(*http.Response) error
		want    [][2]string
	}{
		{"passes a forged address on", loopback, func(r *httputil.ProxyRequest) { r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] }, nil, [][2]string{{"forwarded headers", "is believed"}}},
		{"is not listed", nil, func(r *httputil.ProxyRequest) { r.SetXForwarded() }, nil, [][2]string{{"forwarded headers", "is not believed"}}},
		{"says nothing", loopback, func(*httputil.ProxyRequest) {}, nil, [][2]string{{"forwarded headers", "sets no X-Forwarded-For"}}},
		{"changes the host", nil, func(r *httputil.ProxyRequest) { r.Out.Host = "localhost" }, nil, [][2]string{{"cookies", "the login page does not come"}, {"forwarded headers", `asked for the host "localhost"`}}},
		{"rewrites cookies", nil, func(*httputil.ProxyRequest) {}, func(r *http.Response) error {
			for i, line := range r.Header["Set-Cookie"] {
				r.Header["Set-Cookie"][i] = strings.ReplaceAll(line, "; Secure", "")
			}
			return nil
		}, [][2]string{{"cookies", "does not arrive as the gateway sent it"}}},
	}
	for _, tt := range tests {
		front := httptest.NewUnstartedServer(nil)
		external := "http://localhost:" + strconv.Itoa(front.Listener.Addr().(*net.TCPAddr).Port)
		g := gatewaytest.Start(t, gatewaytest.Options{External: external, Configure: func(c *configs.Config) { c.TrustedProxies = tt.trusted }})
		target := &url.URL{Scheme: "http", Host: g.Listens()}
		front.Config.Handler = &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Host = r.In.Host
				tt.rewrite(r)
			},
			ModifyResponse: tt.modify,
		}
		front.Start()
		t.Cleanup(front.Close)
		o := patient(g)
		o.TrustedProxies = tt.trusted
		wants(t, "a proxy that "+tt.name, examine(t, o), tt.want...)
	}
}

func TestExamine_looksAtCertificates(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	external, _ := url.Parse(server.URL)
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	ends := server.Certificate().NotAfter
	o := doctor.Options{External: external, Roots: roots, NoScan: true, Now: time.Now}
	absent := [2]string{"gateway", "something else answers, with 404"}
	wants(t, "a good one", examine(t, o), absent)
	o.Now = func() time.Time { return ends.Add(-100 * time.Hour) }
	wants(t, "one that ends", examine(t, o), [2]string{"certificates", "ends in 4 days"}, absent)
	o.Roots, o.Now = nil, time.Now
	wants(t, "one of an unknown authority", examine(t, o), [2]string{"certificates", "is not good"}, absent)
}

// Where no gateway runs, everything else is still looked at.
func TestExamine_needsNoRunningGateway(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: trustNobody})
	o := patient(g)
	g.Stop()
	wants(t, "a stopped one", examine(t, o), [2]string{"gateway", "no gateway answers"})
	running := gatewaytest.Start(t, gatewaytest.Options{Configure: trustNobody})
	elsewhere := patient(running)
	elsewhere.External = g.Origin
	wants(t, "one behind a wrong name", examine(t, elsewhere), [2]string{"gateway", "it answers on " + running.Origin.Host + " but not at"})
}

// Every port that accepts is a finding: that of the app, and others of its host; and what listens nowhere is none. The host is 0.0.0.0, at
// which this machine answers too and which is no address of loopback.
func TestExamine_findsWaysAroundTheGateway(t *testing.T) {
	t.Parallel()
	listen := func() (net.Listener, int) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l, l.Addr().(*net.TCPAddr).Port
	}
	app := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(app.Close)
	_, database := listen()
	closed, gone := listen()
	_ = closed.Close()
	u, _ := url.Parse(strings.Replace(app.URL, "127.0.0.1", "0.0.0.0", 1))
	external, _ := url.Parse("http://localhost:1")
	o := doctor.Options{External: external, Upstreams: []doctor.Upstream{{Route: "wiki", URL: u}}, Ports: []int{database, gone}, Now: time.Now}
	want := [][2]string{{"around the gateway", ":" + u.Port() + ", the app of route wiki"}, {"around the gateway", ":" + strconv.Itoa(database) + " accepts"}}
	slices.SortFunc(want, func(a, b [2]string) int { return strings.Compare(a[1], b[1]) })
	found := examine(t, o)
	var around []doctor.Finding
	for _, f := range found {
		if f.Check == "around the gateway" {
			around = append(around, f)
		}
	}
	slices.SortFunc(around, func(a, b doctor.Finding) int { return strings.Compare(a.What, b.What) })
	wants(t, "two open ports", around, want...)
	if ports := doctor.Ports(); len(ports) != 1024+27 || ports[0] != 1 || ports[1023] != 1024 {
		t.Errorf("%d ports by default", len(ports))
	}
	app.Close()
	o.Ports = []int{gone}
	for _, f := range examine(t, o) {
		if f.Check == "around the gateway" && !f.OK {
			t.Errorf("nothing listens: %+v", f)
		}
	}
}

// An app that listens on loopback alone is what it should be; one that listens at the machine's other addresses too is a finding.
func TestExamine_letsAppsListenOnLoopback(t *testing.T) {
	t.Parallel()
	external, _ := url.Parse("http://localhost:1")
	for listen, want := range map[string][][2]string{
		"127.0.0.1:0": nil, "0.0.0.0:0": {{"around the gateway", "the app of route wiki listens at 127.0.0.2:"}},
	} {
		listener, err := net.Listen("tcp4", listen)
		if err != nil {
			t.Fatal(err)
		}
		app := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
		go func() { _ = app.Serve(listener) }()
		t.Cleanup(func() { _ = app.Close() })
		for _, host := range []string{"127.0.0.1", "localhost", "wiki.localhost"} {
			u := &url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))}
			found := examine(t, doctor.Options{
				External: external, Upstreams: []doctor.Upstream{{Route: "wiki", URL: u}}, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.2")}, Now: time.Now,
			})
			found = slices.DeleteFunc(found, func(f doctor.Finding) bool { return f.Check != "around the gateway" })
			wants(t, listen+" as "+host, found, want...)
			if len(found) != 1 {
				t.Errorf("%s as %s: said %v", listen, host, found)
			}
		}
	}
}

// An app that has no HEAD is asked with GET, and one that has is not asked twice.
func TestExamine_asksAppsWithoutHead(t *testing.T) {
	t.Parallel()
	for _, refused := range []int{http.StatusNotImplemented, http.StatusMethodNotAllowed, http.StatusNotFound} {
		var asked []string
		app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.Method)
			if r.Method == http.MethodHead {
				w.WriteHeader(refused)
			}
		}))
		t.Cleanup(app.Close)
		u, _ := url.Parse(app.URL)
		external, _ := url.Parse("http://localhost:1")
		found := examine(t, doctor.Options{External: external, Upstreams: []doctor.Upstream{{Route: "wiki", URL: u}}, NoScan: true, Now: time.Now})
		says, methods := "answers: 200", []string{"HEAD", "GET"}
		if refused == http.StatusNotFound {
			says, methods = "answers: 404", methods[:1]
		}
		if last := found[len(found)-1]; !strings.Contains(last.What, says) || !slices.Equal(asked, methods) {
			t.Errorf("%d: said %q after %v", refused, last.What, asked)
		}
	}
}
