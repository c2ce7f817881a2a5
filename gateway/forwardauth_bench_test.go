package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
)

// BenchmarkGateway_asked compares a question of nginx about somebody who is signed in with a direct answer of 1 KiB of a Go server, as
// BenchmarkGateway_authenticated does.
func BenchmarkGateway_asked(b *testing.B) {
	body := []byte(strings.Repeat("x", 1024))
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(body)
	}))
	b.Cleanup(app.Close)
	g := gatewaytest.Start(b, gatewaytest.Options{Configure: func(c *configs.Config) {
		c.ForwardAuth.Peers = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	}})
	g.AddUser("alice", "staff", "wiki")
	alice := g.SignIn("alice", g.Enrol("alice"))
	header := strings.Join([]string{
		" HTTP/1.1", "Host: " + g.Origin.Host, "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Language: en-US,en;q=0.5", "Accept-Encoding: gzip, deflate",
		"Sec-Fetch-Dest: document", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: same-origin", "Cookie: theme=dark; " + alice.Cookies(),
		"X-Original-URL: " + g.URL + "/some/page?of=it", "X-Original-Method: GET", "X-Forwarded-For: 192.0.2.7\r\n\r\n",
	}, "\r\n")
	bare, ours := newVisitor(b, app.URL, "GET /"+header), newVisitor(b, "http://"+g.Origin.Host, "GET /.gatehouse/authz/auth-request"+header)
	var direct, ratios, objects []float64
	const burst = 200 // requests to one before the other's turn
	for b.Loop() {
		of, us := bare.cost(b, burst), ours.cost(b, burst)
		direct = append(direct, of.micros)
		ratios = append(ratios, us.micros/of.micros)
		objects = append(objects, us.objects-of.objects)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(direct), "direct-µs")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(objects), "extra-allocs")
}
