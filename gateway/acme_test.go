package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/store/storetest"
)

// pebble is a real ACME authority (Debian package pebble), which checks hosts on ports of this machine: all names lead there.
type pebble struct {
	directory string
	authority *gatewaytest.Authority // that vouches for the directory
	roots     *x509.CertPool         // of the certificates it issues
	log       *gatewaytest.Output
}

// startPebble runs an authority that checks TLS-ALPN-01 at one port and HTTP-01 at another. Its
// certificates are valid for so long.
func startPebble(t *testing.T, tlsPort, httpPort string, validity time.Duration) *pebble {
	t.Helper()
	p := &pebble{authority: gatewaytest.NewAuthority(t), log: &gatewaytest.Output{}}
	cert, key := p.authority.Issue("localhost", "127.0.0.1")
	listen, management := "127.0.0.1:"+storetest.FreePort(t), "127.0.0.1:"+storetest.FreePort(t)
	names := "127.0.0.1:" + storetest.FreePort(t)
	number := func(port string) int {
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": management, "certificate": cert, "privateKey": key,
		"httpPort": number(httpPort), "tlsPort": number(tlsPort), "certificateValidityPeriod": int(validity.Seconds()),
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pebble.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	p.run(t, "pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", names, "-http01", "", "-https01", "",
		"-tlsalpn01", "", "-management", "127.0.0.1:"+storetest.FreePort(t))
	p.run(t, "pebble", "-config", file, "-dnsserver", names, "-strict")
	p.directory = "https://" + listen + "/dir"
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.authority.Roots}, DisableKeepAlives: true}}
	eventually(t, "pebble", func() bool {
		answer, err := client.Get("https://" + management + "/roots/0")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		p.roots = x509.NewCertPool()
		return err == nil && p.roots.AppendCertsFromPEM(text)
	})
	return p
}

// run starts a program until the test ends.
func (p *pebble) run(t *testing.T, program string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is needed: install the Debian package pebble (.ci/packages does)", program)
	}
	command := exec.Command(program, args...)
	command.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0")
	command.Stdout, command.Stderr = p.log, p.log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
}

// issued is how many certificates the authority issued.
func (p *pebble) issued() int { return strings.Count(p.log.String(), "Issued certificate serial") }

// acme configures a gateway to get its certificates there.
func (p *pebble) acme(c *configs.Config) {
	c.TLS.ACME = configs.ACME{AcceptTerms: true, Directory: p.directory, CAFile: p.authority.File, Email: "admin@example.com"}
}

// handshake returns the certificate that a gateway shows for a host; nil if it has none.
func handshake(ctx context.Context, g *gatewaytest.Gateway, roots *x509.CertPool, host string) *x509.Certificate {
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: host}}
	conn, err := dialer.DialContext(ctx, "tcp", g.Address())
	if err != nil {
		return nil
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
}

// gate passes connections on to an address, and lets them wait until it has one.
type gate struct {
	Port string
	came <-chan struct{} // closed when the first connection waits
	open func(address string)
}

func newGate(t *testing.T) gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var to string
	opened, came := make(chan struct{}), make(chan struct{})
	arrive := sync.OnceFunc(func() { close(came) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			arrive()
			go func() {
				defer conn.Close()
				<-opened
				next, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer next.Close()
				go func() { _, _ = io.Copy(next, conn) }()
				_, _ = io.Copy(conn, next)
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	once := sync.OnceFunc(func() { close(opened) })
	t.Cleanup(once)
	return gate{port, came, func(address string) { to = address; once() }}
}

// Two gateways on one Redis: the first orders, the authority's check comes to the second, and both show the same certificate.
func TestACME_isSharedByAllGatewaysOfAStore(t *testing.T) {
	t.Parallel()
	check := newGate(t)
	p := startPebble(t, check.Port, storetest.FreePort(t), 90*24*time.Hour)
	options := gatewaytest.Options{
		External: secureLogin, Redis: storetest.Redis(t).URL(), RootKey: gatewaytest.RootKey(), Roots: p.roots, Clock: gatewaytest.NewClock(),
		Configure: p.acme,
	}
	first := gatewaytest.Start(t, options)
	select {
	case <-check.came:
	case <-time.After(20 * time.Second):
		t.Fatalf("nobody checks the host:\n%s%s", p.log, first.Log)
	}
	second := gatewaytest.Start(t, options)
	if handshake(t.Context(), second, p.roots, "login.example.com") != nil {
		t.Error("there is a certificate before the check")
	}
	check.open(second.Address())

	var shown [2]*x509.Certificate
	for i, g := range []*gatewaytest.Gateway{first, second} {
		eventually(t, "a certificate", func() bool {
			shown[i] = handshake(t.Context(), g, p.roots, "login.example.com")
			return shown[i] != nil
		})
	}
	if shown[0].SerialNumber.Cmp(shown[1].SerialNumber) != 0 || p.issued() != 1 {
		t.Errorf("%d certificates were issued; %v and %v are shown", p.issued(), shown[0].SerialNumber, shown[1].SerialNumber)
	}
	if answer := second.NewBrowser().Get("/.gatehouse/login"); answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 {
		t.Errorf("got %d over %s", answer.StatusCode, answer.Proto)
	}

	// A gateway that starts anew takes what is in the store.
	first.Stop()
	again := gatewaytest.Start(t, options)
	eventually(t, "the certificate after a start", func() bool {
		c := handshake(t.Context(), again, p.roots, "login.example.com")
		return c != nil && c.SerialNumber.Cmp(shown[0].SerialNumber) == 0
	})
	if p.issued() != 1 {
		t.Errorf("%d certificates were issued", p.issued())
	}
}

// Nobody but the configuration decides what is ordered; a host that is added by a reload gets its certificate; and where TLS-ALPN-01
// cannot work, HTTP-01 does.
func TestACME_ordersForConfiguredHostsOnly(t *testing.T) {
	t.Parallel()
	plain := storetest.FreePort(t)
	p := startPebble(t, storetest.FreePort(t), plain, 90*24*time.Hour) // nothing answers TLS-ALPN-01
	g := gatewaytest.Start(t, gatewaytest.Options{External: secureLogin, Roots: p.roots, Configure: func(c *configs.Config) {
		p.acme(c)
		c.HTTPListen = "127.0.0.1:" + plain
		c.Routes = []configs.Route{{Host: "wiki.example.com"}}
	}})
	for _, host := range []string{"login.example.com", "wiki.example.com"} {
		eventually(t, "a certificate for "+host, func() bool { return handshake(t.Context(), g, p.roots, host) != nil })
	}
	for _, host := range []string{"evil.example.com", "x.wiki.example.com", "example.com", "localhost"} {
		if handshake(t.Context(), g, p.roots, host) != nil {
			t.Errorf("a certificate for %s", host)
		}
		answer := wiretest.Raw(t, "127.0.0.1:"+plain, "GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if answer.Status(t) != http.StatusForbidden {
			t.Errorf("a challenge for %s: %d", host, answer.Status(t))
		}
	}
	if p.issued() != 2 || strings.Contains(p.log.String(), "evil") {
		t.Errorf("%d certificates were issued:\n%s", p.issued(), p.log)
	}
	err := g.Reconfigure(func(c *configs.Config) {
		c.Routes = []configs.Route{{Host: "wiki.example.com"}, {Host: "mail.example.com"}}
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a certificate for a new host", func() bool { return handshake(t.Context(), g, p.roots, "mail.example.com") != nil })
}

// A certificate is renewed before it ends, also while nobody asks for it. The authority's clock says when: how long a handshake or an
// order takes on a slow machine is not what is judged.
func TestACME_renewsInTime(t *testing.T) {
	t.Parallel()
	check := newGate(t)
	p := startPebble(t, check.Port, storetest.FreePort(t), 20*time.Second)
	g := gatewaytest.Start(t, gatewaytest.Options{External: secureLogin, Roots: p.roots, Configure: p.acme})
	check.open(g.Address())
	var first, next *x509.Certificate
	eventually(t, "a certificate", func() bool {
		first = handshake(t.Context(), g, p.roots, "login.example.com")
		return first != nil
	})
	time.Sleep(time.Until(first.NotAfter) / 2) // nobody asks
	eventually(t, "the next one", func() bool {
		next = handshake(t.Context(), g, p.roots, "login.example.com")
		if next == nil && time.Now().Before(first.NotAfter) {
			t.Fatal("there is none in between")
		}
		return next != nil && next.SerialNumber.Cmp(first.SerialNumber) != 0
	})
	if next.NotBefore.After(first.NotAfter) {
		t.Errorf("the next one is of %v, and the first had ended at %v", next.NotBefore, first.NotAfter)
	}
}

// An authority that cannot reach the gateway: it goes on, says so, and asks again only after minutes.
func TestACME_saysWhenThereIsNoCertificate(t *testing.T) {
	t.Parallel()
	plain := storetest.FreePort(t)
	p := startPebble(t, storetest.FreePort(t), storetest.FreePort(t), 90*24*time.Hour)
	g := gatewaytest.Start(t, gatewaytest.Options{External: secureLogin, Roots: p.roots, Configure: func(c *configs.Config) {
		p.acme(c)
		c.HTTPListen = "127.0.0.1:" + plain
	}})
	eventually(t, "the failure in the log", func() bool { return strings.Contains(g.Log.String(), "no certificate from the authority") })
	time.Sleep(3 * time.Second) // more than a beat
	if n := strings.Count(g.Log.String(), "no certificate from the authority"); n != 1 {
		t.Errorf("%d orders failed, want 1", n)
	}
	answer := wiretest.Raw(t, "127.0.0.1:"+plain, "GET /.gatehouse/readyz HTTP/1.1\r\nHost: login.example.com\r\nConnection: close\r\n\r\n")
	if answer.Status(t) != http.StatusOK || !strings.Contains(answer.Bodies[0], "has no certificate yet") {
		t.Errorf("readyz: %d %s", answer.Status(t), answer.Bodies)
	}
}
