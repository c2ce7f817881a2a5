package attacks_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
)

// severalHosts is a gateway in front of the host of the catalogue and one under a wildcard, behind something that ends TLS.
func severalHosts(t *testing.T) (*gatewaytest.Gateway, func(host, target, cookies string) (int, http.Header, string)) {
	t.Helper()
	app := wiretest.NewUpstream(t)
	hosts := gatewaytest.Hosts(t, map[string]string{"app.example.test": app.URL, "*.apps.example.test": app.URL})
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		hosts(c)
		if err := c.ExternalURL.UnmarshalText([]byte("https://login.example.test")); err != nil {
			t.Fatal(err)
		}
		c.Session.PerUser = 1000
	}})
	return g, func(host, target, cookies string) (int, http.Header, string) {
		if cookies != "" {
			cookies = "Cookie: " + cookies + "\r\n"
		}
		answers := wiretest.Raw(t, g.Address(), "GET "+target+" HTTP/1.1\r\nHost: "+host+"\r\n"+cookies+"Accept: text/html\r\nConnection: close\r\n\r\n")
		if len(answers.All) != 1 {
			t.Fatalf("%d answers for %.100q", len(answers.All), target)
		}
		return answers.All[0].StatusCode, answers.All[0].Header, answers.Bodies[0]
	}
}

// allowed reports whether a browser that is sent to an address stays on our hosts.
func allowed(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.User != nil || u.Opaque != "" {
		return false
	}
	one := strings.TrimSuffix(u.Host, ".apps.example.test")
	return u.Host == "login.example.test" || u.Host == "app.example.test" || one != u.Host && one != "" && !strings.Contains(one, ".")
}

// WB-05 with the catalogue's host allowed: at the login page with a session, with and without the nonce of an app host, at the hand-off and
// at the renewal of an app host. Every address that is sent out, and the next that it carries, is one of ours.
func TestWB05_redirectsStayOnOurHosts(t *testing.T) {
	t.Parallel()
	g, get := severalHosts(t)
	g.AddUser("alice")
	body := fmt.Sprintf(`{"username":"alice","password":%q,"code":%q}`, gatewaytest.Password, g.Code(g.Enrol("alice")))
	answers := wiretest.Raw(t, g.Address(), fmt.Sprintf("POST /.gatehouse/api/v1/login HTTP/1.1\r\nHost: login.example.test\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body))
	if len(answers.All) != 1 || answers.All[0].StatusCode != http.StatusOK {
		t.Fatalf("sign in: %+v", answers)
	}
	var alice []string
	for _, c := range answers.All[0].Cookies() {
		alice = append(alice, c.Name+"="+c.Value)
	}
	cookies := strings.Join(alice, "; ")
	nonce := "&nonce=" + strings.Repeat("0a", 32)
	for _, p := range append(readPayloads(t), besides()...) {
		for encoding, encode := range encodings {
			field := p.field(encode)
			for _, at := range []struct{ host, path, more, cookies string }{
				{"login.example.test", "/.gatehouse/login?", "", cookies},
				{"login.example.test", "/.gatehouse/login?", nonce, cookies},
				{"login.example.test", "/.gatehouse/handoff?", "", ""},
				{"app.example.test", "/.gatehouse/handoff?", "", ""},
				{"app.example.test", "/.gatehouse/handoff?", "&code=" + strings.Repeat("A", 43), ""},
				{"one.apps.example.test", "/.gatehouse/renew?", "", ""},
			} {
				what := fmt.Sprintf("payload %s %.40q, %s, %s%s", p.number, p.text, encoding, at.host, at.path)
				status, header, page := get(at.host, at.path+field+at.more, at.cookies)
				to := header.Get("Location")
				switch status {
				case http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge:
					continue
				case http.StatusOK: // refused: the page that says that alice is signed in
					if strings.Contains(page, "evil") || !strings.Contains(page, "alice") {
						t.Errorf("%s: the page is\n%s", what, page)
					}
					continue
				case http.StatusSeeOther:
				default:
					t.Errorf("%s: got %d", what, status)
					continue
				}
				u, err := url.Parse(to)
				if err != nil || !allowed(to) {
					t.Errorf("%s: sent to %.200q", what, to)
					continue
				}
				next := u.Query().Get("next")
				if strings.HasPrefix(next, "/") || next == "" {
					next = "https://" + u.Host + next
				}
				if n, err := url.Parse(next); err != nil || !allowed(next) || strings.HasPrefix(n.Path, "/.gatehouse") {
					t.Errorf("%s: carries on to %.200q", what, next)
				}
			}
		}
	}
}

// WB-07 with several hosts: what is none of ours is 421 whatever headers say, no header chooses among ours, and addresses that we send are of
// the configuration.
func TestWB07_hostsAreThoseOfTheConfiguration(t *testing.T) {
	t.Parallel()
	g, _ := severalHosts(t)
	const lies = "X-Forwarded-Host: login.example.test\r\nX-Forwarded-Proto: javascript\r\nX-Forwarded-Prefix: //evil.test\r\nX-Forwarded-Port: 1\r\nForwarded: host=evil.test\r\n"
	for host, want := range map[string]int{
		"app.example.test": 302, "APP.example.test": 302, "app.example.test.": 302, "app.example.test:443": 302, "one.apps.example.test": 302,
		"evil.test": 421, "app.example.test.evil.test": 421, "evil-app.example.test": 421, "two.one.apps.example.test": 421, ".apps.example.test": 421,
		"apps.example.test": 421, "app.example.test:8443": 421, "127.0.0.1": 421, "[::1]": 421, "login.example.test": 302,
		"app.example.test@evil.test": 400, "app.example.test/x": 400,
	} {
		for _, path := range []string{"/", "/.gatehouse/handoff", "/.gatehouse/login"} {
			answers := wiretest.Raw(t, g.Address(), "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n"+lies+"Accept: text/html\r\nConnection: close\r\n\r\n")
			answer := answers.All[0]
			to := answer.Header.Get("Location")
			if strings.HasPrefix(to, "/") {
				to = "https://login.example.test" + to
			}
			if to != "" && !allowed(to) {
				t.Errorf("%s%s: sent to %q", host, path, to)
			}
			if path == "/" && answer.StatusCode != want || want > 400 && answer.StatusCode != want {
				t.Errorf("%s%s: got %d, want %d", host, path, answer.StatusCode, want)
			}
			login := strings.EqualFold(strings.TrimSuffix(host, "."), "login.example.test")
			if path == "/.gatehouse/login" && !login && answer.StatusCode == http.StatusOK {
				t.Errorf("%s draws a login page", host)
			}
		}
	}
}
