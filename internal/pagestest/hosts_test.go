package pagestest_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"gatehouse/internal/browsertest"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/sampleapp"
)

// apps starts a gateway with a login host and two apps of other names, and makes alice, whose secret it returns.
func apps(t *testing.T) (g *gatewaytest.Gateway, secret string) {
	t.Helper()
	app := httptest.NewServer(sampleapp.New())
	t.Cleanup(app.Close)
	g = gatewaytest.Start(t, gatewaytest.Options{Configure: gatewaytest.Hosts(t, map[string]string{"app.localhost": app.URL, "other.localhost": app.URL})})
	g.AddUser("alice")
	return g, g.Enrol("alice")
}

// signInHere fills in the login page that the tab was sent to, and returns the status of the page behind it.
func signInHere(g *gatewaytest.Gateway, tab *browsertest.Tab, name, secret string) int {
	tab.Type("#username", name)
	tab.Type("#password", gatewaytest.Password)
	tab.Enter()
	tab.Type("#code", g.Code(secret))
	return tab.Enter()
}

func at(tab *browsertest.Tab) string { return browsertest.Eval[string](tab, "location.href") }

// One login, both apps, one logout, in Chromium, over three hosts of different names.
func TestHosts_oneLoginBothAppsOneLogout(t *testing.T) {
	t.Parallel()
	g, secret := apps(t)
	app, other := g.Host("app.localhost"), g.Host("other.localhost")
	browser := browsertest.Start(t)
	tab := browser.NewTab(t, browsertest.Look{})
	tab.Open(app + "/page?a=b")
	if got := at(tab); !strings.HasPrefix(got, g.URL+"/.gatehouse/login?next=") {
		t.Fatalf("sent to %s", got)
	}
	if text := browsertest.Eval[string](tab, "document.querySelector('.going').textContent"); !strings.Contains(text, "app.localhost") {
		t.Errorf("the login page does not say where it leads: %q", text)
	}
	if status := signInHere(g, tab, "alice", secret); status != 200 || at(tab) != app+"/page?a=b" {
		t.Fatalf("after the login: %d at %s", status, at(tab))
	}
	if status := tab.Open(other + "/"); status != 200 || at(tab) != other+"/" {
		t.Fatalf("the other app: %d at %s", status, at(tab))
	}
	if cookies := browsertest.Eval[string](tab, "document.cookie"); cookies != "" {
		t.Errorf("the app's script reads %q", cookies)
	}

	// A code of an attacker's that is planted here changes nothing.
	g.AddUser("mallory")
	mallory := g.NewPerson()
	way := mallory.SignIn(g, mallory.Go(app+"/"), "mallory", g.Enrol("mallory"))
	address := other + "/"
	for !strings.Contains(address, "code=") {
		u, err := url.Parse(address)
		if err != nil || len(way) > 20 {
			t.Fatalf("no code at %s: %v", address, err)
		}
		answer := mallory.At(u.Scheme + "://" + u.Host).Get(address)
		way = append(way, gatewaytest.Hop{Address: address, Answer: answer})
		address = answer.Header.Get("Location")
	}
	tab.Open(address)
	landed := at(tab)
	tab.Open(other + "/.gatehouse/api/v1/session")
	if who := browsertest.Eval[string](tab, "document.body.textContent"); !strings.HasPrefix(landed, other+"/") || !strings.Contains(who, `"alice"`) {
		t.Errorf("a planted code: at %s as %s", landed, who)
	}
	fresh := browser.NewTab(t, browsertest.Look{})
	fresh.Open(address)
	if got := at(fresh); !strings.HasPrefix(got, g.URL+"/.gatehouse/login?") {
		t.Errorf("a planted code in a browser that is not signed in leads to %s", got)
	}

	tab.Open(other + "/.gatehouse/logout")
	check(t, tab, "body")
	if status := tab.Click("form button"); status != 200 {
		t.Errorf("logout: %d", status)
	}
	check(t, tab, "body")
	for _, address := range []string{app + "/", other + "/"} {
		if tab.Open(address); !strings.HasPrefix(at(tab), g.URL+"/.gatehouse/login?") {
			t.Errorf("after the logout %s is at %s", address, at(tab))
		}
	}
}

// A front proxy that takes Set-Cookie away, and one that takes Cookie away from the app alone, end at a page that says so, in Chromium.
func TestHosts_loopPage(t *testing.T) {
	t.Parallel()
	g, secret := apps(t)
	front := func(change func(*httputil.ProxyRequest), answer func(*http.Response) error) string {
		target := &url.URL{Scheme: "http", Host: g.Address()}
		proxy := httptest.NewServer(&httputil.ReverseProxy{
			Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host; change(r) },
			ModifyResponse: answer,
		})
		t.Cleanup(proxy.Close)
		return strings.TrimPrefix(proxy.URL, "http://")
	}
	noSetCookie := front(func(*httputil.ProxyRequest) {}, func(r *http.Response) error { r.Header.Del("Set-Cookie"); return nil })
	noCookie := front(func(r *httputil.ProxyRequest) {
		if !strings.HasPrefix(r.In.URL.Path, "/.gatehouse/") {
			r.Out.Header.Del("Cookie")
		}
	}, func(*http.Response) error { return nil })
	app, other := g.Host("app.localhost"), g.Host("other.localhost")
	browser := browsertest.Start(t, "MAP "+strings.TrimPrefix(app, "http://")+" "+noSetCookie, "MAP "+strings.TrimPrefix(other, "http://")+" "+noCookie)
	for address, looks := range map[string][]browsertest.Look{app: readers[0], other: readers[1]} {
		g.Clock.Add(30 * 60e9)
		tab := browser.NewTab(t, looks[0])
		tab.Open(address + "/page")
		if status := signInHere(g, tab, "alice", secret); status != 400 || !strings.HasPrefix(at(tab), address+"/.gatehouse/handoff?") {
			t.Errorf("%s, %s: %d at %s", address, looks[0], status, at(tab))
			continue
		}
		lines := browsertest.Eval[[]string](tab, "[...document.querySelectorAll('pre')].map(e => e.textContent)")
		if !slices.ContainsFunc(lines, func(text string) bool { return strings.Contains(text, "proxy_set_header Cookie") }) {
			t.Errorf("%s, %s: the page names %q", address, looks[0], lines)
		}
		check(t, tab, "body", looks...)
	}
}

// Somebody who asked for nothing is told that they are signed in.
func TestHosts_signedInPage(t *testing.T) {
	t.Parallel()
	g, secret := apps(t)
	browser := browsertest.Start(t)
	for _, looks := range readers {
		g.Clock.Add(30 * 60e9)
		tab := browser.NewTab(t, looks[0])
		tab.Open(g.URL + "/")
		if status := signInHere(g, tab, "alice", secret); status != 200 || at(tab) != g.URL+"/.gatehouse/login" {
			t.Errorf("%s: %d at %s", looks[0], status, at(tab))
		}
		check(t, tab, "body", looks...)
	}
}
