package gateway_test

import (
	"html"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
)

// The loop page names what a request shows to be wrong, and the line to change. The gateway stands behind a front proxy that speaks TLS.
func TestLoopPage_namesTheCause(t *testing.T) {
	t.Parallel()
	app := wiretest.NewUpstream(t)
	start := func(trusted ...netip.Prefix) *gatewaytest.Gateway {
		hosts := gatewaytest.Hosts(t, map[string]string{"wiki.example.test": app.URL, "mail.example.test": app.URL})
		return gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
			hosts(c)
			if err := c.ExternalURL.UnmarshalText([]byte("https://login.example.test")); err != nil {
				t.Fatal(err)
			}
			c.TrustedProxies = trusted
		}})
	}
	front, alone := start(netip.MustParsePrefix("127.0.0.0/8")), start()
	const mail = "X-Forwarded-Host: wiki.example.test\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.7\r\n"
	for _, c := range []struct {
		name    string
		g       *gatewaytest.Gateway
		headers string
		want    []string
	}{
		{"no cookie arrives", front, mail, []string{"proxy_set_header Cookie $http_cookie;", "Cookie: 0", "X-Forwarded-Proto: https"}},
		{"cookies of others only", front, mail + "Cookie: theme=dark\r\n", []string{"proxy_hide_header Set-Cookie;", "Cookie: 1"}},
		{"plain HTTP", front, strings.ReplaceAll(mail, "https", "http"), []string{"return 308 https://$host$request_uri;", "X-Forwarded-Proto: http"}},
		{"another host", front, strings.ReplaceAll(mail, "wiki", "mail"), []string{"proxy_set_header Host $http_host;", "X-Forwarded-Host: mail.example.test", "Host: wiki.example.test"}},
		{"no X-Forwarded-Proto", front, "X-Forwarded-For: 192.0.2.7\r\n", []string{"proxy_set_header X-Forwarded-Proto $scheme;", "X-Forwarded-Proto: –"}},
		{"a front proxy that is not listed", alone, mail, []string{"trusted_proxies: [127.0.0.1]"}},
		{"a script in a header", front, mail + "X-Forwarded-Proto: <script>alert(1)</script>\r\n", []string{"X-Forwarded-Proto: <script>"}},
	} {
		mark := strconv.FormatInt(c.g.Clock.Now().Unix(), 36)
		_, port, _ := strings.Cut(c.g.Address(), ":")
		answers := wiretest.Raw(t, "127.0.0.1:"+port, "GET /.gatehouse/handoff?next=/a&bounced="+mark+" HTTP/1.1\r\nHost: wiki.example.test\r\nAccept: text/html\r\n"+c.headers+"Connection: close\r\n\r\n")
		if len(answers.All) != 1 || answers.All[0].StatusCode != http.StatusBadRequest || strings.Contains(answers.Bodies[0], "<script") {
			t.Errorf("%s: got %+v", c.name, answers)
			continue
		}
		page := html.UnescapeString(answers.Bodies[0])
		for _, text := range c.want {
			if !strings.Contains(page, text) {
				t.Errorf("%s: the page does not say %q:\n%s", c.name, text, page)
			}
		}
	}
}

// A front proxy that passes cookies on to /.gatehouse/ and not with what the app is asked for makes everybody look signed out to the app.
func TestHandOff_stopsWhenTheAppSeesNoCookies(t *testing.T) {
	t.Parallel()
	h := newTwoApps(t).withAlice()
	alice := h.signedIn(t)
	var last gatewaytest.Hop
	for range 3 { // what the app is asked for never carries a cookie, so each round begins at its redirect
		bare := h.NewPerson().At(h.mail).Get("/box")
		way := alice.Follow(h.mail+"/box", bare)
		if last = way[len(way)-1]; last.StatusCode != http.StatusOK {
			break
		}
	}
	if last.StatusCode != http.StatusBadRequest || !strings.Contains(last.Text, "proxy_set_header Cookie") {
		t.Errorf("got %d at %s\n%s", last.StatusCode, last.Address, last.Text)
	}
}
