package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/admin/client"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/store/storetest"
)

const secureLogin = "https://login.example.com"

// secure is a gateway that speaks TLS itself, with its authority.
type secure struct {
	*gatewaytest.Gateway
	authority *gatewaytest.Authority
	cert, key string
}

func startSecure(t *testing.T, configure func(*configs.Config)) *secure {
	t.Helper()
	s := &secure{authority: gatewaytest.NewAuthority(t)}
	s.cert, s.key = s.authority.Issue("login.example.com", "wiki.example.com", "127.0.0.1")
	s.Gateway = gatewaytest.Start(t, gatewaytest.Options{External: secureLogin, Roots: s.authority.Roots, Configure: func(c *configs.Config) {
		c.TLS.CertFile, c.TLS.KeyFile = s.cert, s.key
		c.HSTS = 365 * 24 * time.Hour
		if configure != nil {
			configure(c)
		}
	}})
	return s
}

// dial shakes hands as login.example.com's browser.
func (s *secure) dial(t *testing.T, config *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := s.tryDial(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (s *secure) tryDial(ctx context.Context, config *tls.Config) (*tls.Conn, error) {
	config.RootCAs, config.ServerName = s.authority.Roots, "login.example.com"
	raw, err := s.Dial(ctx, "tcp", "login.example.com:443")
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

func TestTLS_speaksHTTP2AndHTTP1AndNothingOld(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	for _, c := range []struct {
		offer []string
		want  string
	}{{[]string{"h2", "http/1.1"}, "h2"}, {[]string{"http/1.1"}, "http/1.1"}, {nil, ""}} {
		if got := s.dial(t, &tls.Config{NextProtos: c.offer}).ConnectionState().NegotiatedProtocol; got != c.want {
			t.Errorf("offering %q got %q, want %q", c.offer, got, c.want)
		}
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if _, err := s.tryDial(t.Context(), &tls.Config{MinVersion: version, MaxVersion: version}); err == nil {
			t.Errorf("%s was accepted", tls.VersionName(version))
		}
	}
	if answer := wiretest.Raw(t, s.Address(), "GET / HTTP/1.1\r\nHost: login.example.com\r\n\r\n"); answer.Status(t) != http.StatusBadRequest {
		t.Errorf("plain HTTP on the TLS port: got %d", answer.Status(t))
	}
}

// A whole login and a request to the app over HTTP/2.
func TestTLS_signsInOverHTTP2(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	s.AddUser("alice")
	b := s.SignIn("alice", s.Enrol("alice"))
	answer := b.Get("/page?a=1")
	if answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 {
		t.Fatalf("got %d over %s: %s", answer.StatusCode, answer.Proto, answer.Text)
	}
	app := s.Upstream.Last(t)
	if got := app.Values("Remote-User"); len(got) != 1 || got[0] != "alice" {
		t.Errorf("the app got Remote-User %q", got)
	}
	if got := app.Values("X-Forwarded-Proto"); len(got) != 1 || got[0] != "https" {
		t.Errorf("the app got X-Forwarded-Proto %q", got)
	}
	for name := range b.Jar {
		if !strings.HasPrefix(name, "__Host-") {
			t.Errorf("cookie %s", name)
		}
	}
}

// Bodies of HTTP/2 have the listener's time limit only until a session lets them through.
func TestTLS_letsAnUploadTakeItsTimeOverHTTP2(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	s.AddUser("alice")
	b := s.SignIn("alice", s.Enrol("alice"))
	reader, writer := io.Pipe()
	go func() {
		for range 17 { // more than bodyTimeout
			_, _ = writer.Write([]byte("x"))
			time.Sleep(time.Second)
		}
		_ = writer.Close()
	}()
	if answer := b.Do(http.MethodPost, "/upload", reader, nil); answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 {
		t.Errorf("got %d over %s", answer.StatusCode, answer.Proto)
	}
}

// WB-03: on every answer of ours, and on an app's only where it says nothing itself.
func TestHSTS_isOursUnlessTheAppHasItsOwn(t *testing.T) {
	t.Parallel()
	const ours = "max-age=31536000"
	apps := wiretest.NewScripted(t, func(conn net.Conn, _ *bufio.Reader, r wiretest.Request) bool {
		extra, before := "", ""
		switch r.Target() {
		case "/own":
			extra = "Strict-Transport-Security: max-age=1\r\n"
		case "/hints":
			before = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
		case "/events":
			extra = "Content-Type: text/event-stream\r\n"
		}
		_, err := io.WriteString(conn, before+"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"+extra+"\r\n")
		return err == nil
	})
	s := startSecure(t, func(c *configs.Config) {
		_ = c.Upstream.UnmarshalText([]byte(apps.URL))
	})
	s.AddUser("alice")
	b := s.SignIn("alice", s.Enrol("alice"))
	for path, want := range map[string]string{
		"/.gatehouse/login": ours, "/.gatehouse/healthz": ours, "/.gatehouse/nothing": ours, "/": ours, "/hints": ours, "/events": ours, "/own": "max-age=1",
	} {
		if got := b.Get(path).Header.Values("Strict-Transport-Security"); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	stranger := s.NewBrowser()
	for _, path := range []string{"/", "/%ff%00"} {
		if got := stranger.Get(path).Header.Values("Strict-Transport-Security"); len(got) != 1 || got[0] != ours {
			t.Errorf("%s of a stranger: got %q", path, got)
		}
	}
}

// A certificate that changes while requests run: none fails, connections stay, and new handshakes get the new one.
func TestTLS_readsItsCertificateAnewWithoutADroppedConnection(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	open := s.dial(t, &tls.Config{})
	first := serial(open)
	ctx, cancel := context.WithCancel(t.Context())
	var served atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			b := s.NewBrowser()
			for ctx.Err() == nil {
				if answer, err := b.Try(http.MethodGet, "/.gatehouse/healthz", nil, http.Header{"Connection": {"close"}}); err != nil || answer.StatusCode != http.StatusOK {
					t.Errorf("a request failed: %v", err)
					return
				}
				served.Add(1)
			}
		})
	}
	want := s.authority.Renew(s.cert, s.key, "login.example.com")
	eventually(t, "the new certificate", func() bool { return serial(s.dial(t, &tls.Config{})) == want })
	cancel()
	clients.Wait()
	if first == want || served.Load() == 0 {
		t.Errorf("certificate %d, then %d, %d requests", first, want, served.Load())
	}
	if _, err := fmt.Fprintf(open, "GET /.gatehouse/healthz HTTP/1.1\r\nHost: login.example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(open), nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("the connection from before: %v", err)
	}

	// A key that does not belong to it: the former pair stays, and readiness says so until it is mended.
	_, strange := s.authority.Issue("login.example.com")
	text, err := os.ReadFile(strange)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.key, text, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the trouble in readyz", func() bool { return s.part(t, "certificate").State == "degraded" })
	if got := serial(s.dial(t, &tls.Config{})); got != want {
		t.Errorf("a broken pair was taken: certificate %d, want %d", got, want)
	}
	if !strings.Contains(s.Log.String(), "certificate files cannot be used") {
		t.Error("the log says nothing")
	}
	s.authority.Renew(s.cert, s.key, "login.example.com")
	eventually(t, "the end of the trouble", func() bool { return s.part(t, "certificate").State == "ok" })
}

type part struct{ State, Note string }

// part is a part of readyz.
func (s *secure) part(t *testing.T, name string) part {
	t.Helper()
	var ready struct{ Parts map[string]part }
	if err := json.Unmarshal([]byte(s.NewBrowser().Get("/.gatehouse/readyz").Text), &ready); err != nil {
		t.Fatal(err)
	}
	return ready.Parts[name]
}

func serial(c *tls.Conn) int64 { return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64() }

// eventually waits for what another goroutine, or another process, does in its own time.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func TestTLS_refusesToStartWithFilesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	a := gatewaytest.NewAuthority(t)
	cert, _ := a.Issue("login.example.com")
	_, key := a.Issue("login.example.com")
	_, err := gatewaytest.Try(t, gatewaytest.Options{External: secureLogin, Configure: func(c *configs.Config) { c.TLS.CertFile, c.TLS.KeyFile = cert, key }})
	if err == nil || !strings.Contains(err.Error(), "private key does not match") {
		t.Errorf("got %v", err)
	}
}

func TestTLS_warnsOfAHostWithoutCertificate(t *testing.T) {
	t.Parallel()
	s := startSecure(t, func(c *configs.Config) {
		c.Routes = []configs.Route{{Host: "wiki.example.com"}, {Host: "*.apps.example.com"}}
	})
	summary, err := s.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(summary.Warnings, "\n")
	if !strings.Contains(all, "not good for any.apps.example.com") || strings.Contains(all, "wiki.example.com") {
		t.Errorf("warnings: %s", all)
	}
}

func TestHTTPListen_sendsKnownHostsToHTTPS(t *testing.T) {
	t.Parallel()
	plain := "127.0.0.1:" + storetest.FreePort(t)
	startSecure(t, func(c *configs.Config) {
		c.HTTPListen = plain
		c.Routes = []configs.Route{{Host: "wiki.example.com"}, {Host: "*.apps.example.com"}, {Host: "mail.example.com:8443"}}
	})
	for _, c := range []struct {
		line, host string
		status     int
		location   string
	}{
		{"GET /a?b=c", "login.example.com", 308, "https://login.example.com/a?b=c"},
		{"POST /a", "LOGIN.example.com:80", 308, "https://login.example.com/a"},
		{"GET /", "wiki.example.com", 308, "https://wiki.example.com/"},
		{"GET /%2F%0d%0aX:y", "wiki.example.com", 308, "https://wiki.example.com/%2F%0d%0aX:y"},
		{"GET //evil.example/x", "wiki.example.com", 308, "https://wiki.example.com//evil.example/x"},
		{"GET /", "one.apps.example.com", 308, "https://one.apps.example.com/"},
		{"GET /", "mail.example.com", 308, "https://mail.example.com:8443/"},
		{"GET /", "two.one.apps.example.com", 421, ""},
		{"GET /", "evil.example", 421, ""},
		{"GET /", "login.example.com.evil.example", 421, ""},
		{"OPTIONS *", "login.example.com", 400, ""},
		{"GET /.gatehouse/healthz", "10.0.0.1", 200, ""},
	} {
		answer := wiretest.Raw(t, plain, c.line+" HTTP/1.1\r\nHost: "+c.host+"\r\nConnection: close\r\n\r\n")
		if answer.Status(t) != c.status {
			t.Errorf("%s of %s: got %d, want %d", c.line, c.host, answer.Status(t), c.status)
			continue
		}
		header := answer.All[0].Header
		if got := header.Get("Location"); got != c.location {
			t.Errorf("%s of %s: sent to %q, want %q", c.line, c.host, got, c.location)
		}
		if header.Get("Strict-Transport-Security") != "" { // RFC 6797, section 7.2
			t.Errorf("%s of %s: HSTS without TLS", c.line, c.host)
		}
	}
}

// Connections of a listed peer take the address that its PROXY header names; nobody else's header is one.
func TestProxyProtocol_isBelievedOfListedPeersOnly(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		c.TrustedProxies = nil
		c.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.7/32")}
	}})
	const body = `{"username":"nobody","password":"whatever"}`
	login := fmt.Sprintf("POST /.gatehouse/api/v1/login HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"Connection: close\r\n\r\n%s", strings.TrimPrefix(g.URL, "http://"), len(body), body)
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\xc6\x33\x64\x08" + "\x7f\x00\x00\x01" + "\x30\x39\x01\xbb" // 198.51.100.8
	for _, c := range []struct {
		name, from, header string
		status             int // 0: closed without an answer
		address            string
	}{
		{"version 1 of a listed peer", "127.0.0.7", "PROXY TCP4 198.51.100.7 127.0.0.1 4711 443\r\n", 401, "198.51.100.7"},
		{"version 2 of a listed peer", "127.0.0.7", v2, 401, "198.51.100.8"},
		{"version 1 over IPv6", "127.0.0.7", "PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n", 401, "2001:db8::9"},
		{"the peer's own connection", "127.0.0.7", "PROXY UNKNOWN\r\n", 401, "127.0.0.7"},
		{"nothing of a listed peer", "127.0.0.7", "", 0, ""},
		{"nonsense of a listed peer", "127.0.0.7", "PROXY TCP4 no address at all\r\n", 0, ""},
		{"a datagram of a listed peer", "127.0.0.7", strings.Replace(v2, "\x21\x11", "\x21\x12", 1), 0, ""},
		{"a peer that is not listed", "127.0.0.8", "", 401, "127.0.0.8"},
		{"a forged version 1", "127.0.0.8", "PROXY TCP4 198.51.100.9 127.0.0.1 4711 443\r\n", 400, ""},
		{"a forged version 2", "127.0.0.8", v2, 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(g.Logins())
			conn := wiretest.DialFrom(t, c.from, g.Address())
			_, _ = io.WriteString(conn, c.header+login)
			answers := wiretest.ReadAnswers(t, conn, http.MethodPost)
			if c.status == 0 && len(answers.All) != 0 || c.status != 0 && answers.Status(t) != c.status {
				t.Fatalf("got %v, want status %d", answers, c.status)
			}
			if c.address == "" {
				if n := len(g.Logins()); n != before {
					t.Errorf("%d logins were tried", n-before)
				}
				return
			}
			eventually(t, "the record", func() bool { return len(g.Logins()) > before })
			logins := g.Logins()
			if got := logins[len(logins)-1].Client.Address; got != c.address {
				t.Errorf("recorded as %s, want %s", got, c.address)
			}
		})
	}
}

// The header comes within a bounded time, and comes before TLS.
func TestProxyProtocol_standsBeforeTheHandshake(t *testing.T) {
	t.Parallel()
	s := startSecure(t, func(c *configs.Config) {
		c.TrustedProxies = nil
		c.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	silent := wiretest.Dial(t, s.Address())
	began := time.Now()
	raw := wiretest.Dial(t, s.Address())
	_, _ = io.WriteString(raw, "PROXY TCP4 198.51.100.7 127.0.0.1 4711 443\r\n")
	conn := tls.Client(raw, &tls.Config{RootCAs: s.authority.Roots, ServerName: "login.example.com"})
	_, _ = fmt.Fprintf(conn, "GET /.gatehouse/healthz HTTP/1.1\r\nHost: login.example.com\r\nConnection: close\r\n\r\n")
	if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("behind the header: %v", err)
	}
	_ = silent.SetReadDeadline(time.Now().Add(15 * time.Second))
	if n, err := silent.Read(make([]byte, 1)); n != 0 || isTimeout(err) {
		t.Errorf("a peer that sends no header is kept: %v after %s", err, time.Since(began))
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error) //nolint:errorlint // the connection's own
	return ok && timeout.Timeout()
}

func TestAdmin_beyondLoopbackSpeaksTLS(t *testing.T) {
	t.Parallel()
	a := gatewaytest.NewAuthority(t)
	cert, key := a.Issue("gateway.example.com", "127.0.0.1")
	token := t.TempDir() + "/token"
	if err := os.WriteFile(token, []byte(strings.Repeat("a", 43)), 0o600); err != nil {
		t.Fatal(err)
	}
	address := "0.0.0.0:" + storetest.FreePort(t)
	gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		c.AdminListen, c.AdminTokenFile, c.AdminTLS = address, token, configs.AdminTLS{CertFile: cert, KeyFile: key}
	}})
	url := "https://" + strings.Replace(address, "0.0.0.0", "127.0.0.1", 1)
	for _, c := range []struct {
		name    string
		options client.Options
		works   bool
	}{
		{"its authority", client.Options{Roots: a.Roots}, true},
		{"the system's authorities", client.Options{}, false},
		{"another name of it", client.Options{Roots: a.Roots, ServerName: "gateway.example.com"}, true},
		{"a name that it has not", client.Options{Roots: a.Roots, ServerName: "evil.example.com"}, false},
	} {
		c.options.URL, c.options.Token = url, strings.Repeat("a", 43)
		admin, err := client.New(c.options)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Users(t.Context()); (err == nil) != c.works {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
