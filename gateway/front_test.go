package gateway_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
)

// host is the Host of a gateway, as browsers send it.
func host(g *gatewaytest.Gateway) string { return g.Origin.Host }

// What could be framed in two ways is the last request of its connection, whoever answers it: what another proxy takes for
// its body is never read as the next request.
func TestFront_closesAfterWhatIsFramedTwice(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	const next = "GET /.gatehouse/healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	framings := map[string]string{
		"length and chunks": " HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks":            " HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.0":          " HTTP/1.0\r\nHost: HOST\r\nConnection: keep-alive\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
	}
	for _, line := range []string{
		"POST /.gatehouse/login", "GET /.gatehouse/login", "POST /.gatehouse/logout", "POST /.gatehouse/api/v1/login", "POST /.gatehouse/nothing",
		"GET /.gatehouse/healthz", "POST /.gatehouse/healthz", "GET /.gatehouse/jwks.json", "POST /app",
	} {
		for name, rest := range framings {
			for _, host := range []string{host(g), "evil.test", "127.0.0.1:1"} { // ours, misdirected, redirected
				answers := wiretest.Raw(t, g.URL, line+strings.Replace(rest, "HOST", host, 1)+next)
				if len(answers.All) != 1 || !answers.Closed {
					t.Errorf("%s, %s, to %s: got %d answers, closed %v", line, name, host, len(answers.All), answers.Closed)
				}
			}
		}
	}
}

// PX-11: the host decides who answers, and only the host that is asked for in the one place that counts.
func TestFront_servesItsOwnHostOnly(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	own := host(g)
	_, port, _ := strings.Cut(own, ":")
	tests := []struct {
		name, raw string
		want      []int
		location  string
	}{
		{"own", "GET /.gatehouse/login HTTP/1.1\r\nHost: " + own + "\r\n", []int{200}, ""},
		{"own, in another case", "GET /.gatehouse/login HTTP/1.1\r\nHost: LocalHost:" + port + "\r\n", []int{200}, ""},
		{"no host", "GET /.gatehouse/login HTTP/1.1\r\n", []int{400}, ""},
		{"empty host", "GET /.gatehouse/login HTTP/1.1\r\nHost:\r\n", []int{400, 421}, ""},
		{"no host in HTTP/1.0", "GET /.gatehouse/login HTTP/1.0\r\n", []int{421}, ""},
		{"own in HTTP/1.0", "GET /.gatehouse/login HTTP/1.0\r\nHost: " + own + "\r\n", []int{200}, ""},
		{"two hosts", "GET /.gatehouse/login HTTP/1.1\r\nHost: " + own + "\r\nHost: evil.test\r\n", []int{400}, ""},
		{"own host twice", "GET /.gatehouse/login HTTP/1.1\r\nHost: " + own + "\r\nHost: " + own + "\r\n", []int{400}, ""},
		{"another host", "GET /.gatehouse/login HTTP/1.1\r\nHost: evil.test\r\n", []int{421}, ""},
		{"our name as its start", "GET /.gatehouse/login HTTP/1.1\r\nHost: localhost.evil.test:" + port + "\r\n", []int{421}, ""},
		{"our name and port as its start", "GET /.gatehouse/login HTTP/1.1\r\nHost: " + own + ".evil.test\r\n", []int{421}, ""},
		{"two ports", "GET /.gatehouse/login HTTP/1.1\r\nHost: " + own + ":80\r\n", []int{421}, ""},
		{"trailing dot", "GET /.gatehouse/login HTTP/1.1\r\nHost: localhost.:" + port + "\r\n", []int{421}, ""},
		{"user info", "GET /.gatehouse/login HTTP/1.1\r\nHost: x@" + own + "\r\n", []int{400, 421}, ""},
		{"path", "GET /.gatehouse/login HTTP/1.1\r\nHost: " + own + "/x\r\n", []int{400, 421}, ""},
		{"absolute form", "GET http://" + own + "/.gatehouse/login HTTP/1.1\r\nHost: evil.test\r\n", []int{200}, ""}, // RFC 9112, section 3.2.2
		{"absolute form of another", "GET http://evil.test/.gatehouse/login HTTP/1.1\r\nHost: " + own + "\r\n", []int{421}, ""},
		{"forwarded host", "GET /.gatehouse/login HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: " + own + "\r\nForwarded: host=" + own + "\r\n", []int{421}, ""},
		{"options of the server", "OPTIONS * HTTP/1.1\r\nHost: " + own + "\r\n", []int{400}, ""},
		{"options of another server", "OPTIONS * HTTP/1.1\r\nHost: evil.test\r\n", []int{421}, ""},
		{"loopback address", "GET /a%2Fb?c=%2F%2Fd HTTP/1.1\r\nHost: 127.0.0.1:" + port + "\r\n", []int{308}, g.URL + "/a%2Fb?c=%2F%2Fd"},
		{"loopback address of IPv6", "POST /a HTTP/1.1\r\nHost: [::1]:" + port + "\r\nContent-Length: 0\r\n", []int{308}, g.URL + "/a"},
		{"loopback and another origin", "GET /\\evil.test HTTP/1.1\r\nHost: 127.0.0.1\r\n", []int{308}, g.URL + "/%5Cevil.test"},
		{"loopback and two slashes", "GET //evil.test HTTP/1.1\r\nHost: 127.0.0.1\r\n", []int{421}, ""},
		{"other port of our name", "GET /a HTTP/1.1\r\nHost: localhost:1\r\n", []int{308}, g.URL + "/a"},
	}
	for _, tt := range tests {
		answer := wiretest.Raw(t, g.URL, tt.raw+"Connection: close\r\n\r\n").All[0]
		if got := answer.StatusCode; !slices.Contains(tt.want, got) || answer.Header.Get("Location") != tt.location {
			t.Errorf("%s: got %d to %q, want %v to %q", tt.name, got, answer.Header.Get("Location"), tt.want, tt.location)
		}
	}
	if n := len(g.Upstream.Requests()); n != 0 {
		t.Errorf("%d requests reached the app", n)
	}
}

// The header block is bounded at exactly 64 kB (contract, "Defaults"), request line and last line end included.
func TestFront_headerOf64kB(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	for size, want := range map[int]int{64 << 10: http.StatusOK, 64<<10 + 1: http.StatusRequestHeaderFieldsTooLarge} {
		start := "GET /.gatehouse/login HTTP/1.1\r\nHost: " + host(g) + "\r\nConnection: close\r\nX-A: "
		block := start + strings.Repeat("a", size-len(start)-len("\r\n\r\n")) + "\r\n\r\n"
		if got := wiretest.Raw(t, g.URL, block).Status(t); got != want {
			t.Errorf("%d bytes: got %d, want %d", len(block), got, want)
		}
	}
}

// The scheme's own port may stand in a Host or be left out; another one may not.
func TestFront_defaultPort(t *testing.T) {
	t.Parallel()
	address := ""
	gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		address = c.Listen
		if err := c.ExternalURL.UnmarshalText([]byte("https://login.example.test")); err != nil {
			t.Fatal(err)
		}
	}})
	for host, want := range map[string]int{
		"login.example.test": 200, "Login.Example.Test:443": 200, "login.example.test:80": 421, "login.example.test:": 421, "login.example.test:443:443": 421,
		"127.0.0.1": 421, "localhost": 421, // other spellings of loopback belong to nobody here
	} {
		answers := wiretest.Raw(t, address, "GET /.gatehouse/login HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if got := answers.Status(t); got != want {
			t.Errorf("%s: got %d, want %d", host, got, want)
		}
	}
}
