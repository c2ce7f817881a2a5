// Package gatewaytest runs the whole gateway in one process for tests: real listeners on loopback, a real store, a real
// audit log, with a clock that the test moves and bcrypt at its cheapest.
//
// Addresses of a story are given through a trusted hop: the kit lists 127.0.0.0/8 as proxies, and a Browser says in
// X-Forwarded-For where it comes from.
package gatewaytest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/pquerna/otp/totp"

	"gatehouse/admin/api"
	"gatehouse/admin/client"
	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/gateway"
	"gatehouse/internal/wiretest"
	"gatehouse/secrets"
	"gatehouse/store/storetest"
)

// Password is one that the policy accepts.
const Password = "violet herons wade nine"

// Clock is the gateway's clock; only the test moves it. Safe for concurrent use.
type Clock struct {
	mu      sync.Mutex
	now     time.Time
	elapsed time.Duration
	running time.Time // when Run was called; zero if it was not
}

// NewClock begins on a Monday morning.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)} }

// Now is the wall clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.Add(c.passed())
}

// Elapsed is time that no setting of the wall clock changes.
func (c *Clock) Elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.elapsed + c.passed()
}

// Add lets time pass.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.elapsed = c.now.Add(d), c.elapsed+d
}

// Run makes the clock go on with real time from here on, for tests of what takes how long.
func (c *Clock) Run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = time.Now()
}

// passed is the real time since Run; mu is held.
func (c *Clock) passed() time.Duration {
	if c.running.IsZero() {
		return 0
	}
	return time.Since(c.running)
}

// Set sets the wall clock alone: a jump.
func (c *Clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// Options of Start; the zero Options are one gateway on an embedded store with its own clock, a required second factor, and
// an echo upstream.
type Options struct {
	Clock *Clock
	// Redis is the URL of a shared store; RootKey must then be the same for all gateways on it.
	Redis, RootKey string
	// External is the URL under which several gateways are one; the URL of the listener if empty.
	External string
	// Roots may vouch for an External that is https; the browsers then find the gateway behind every name.
	Roots *x509.CertPool
	// Dir is the data folder; a fresh one if empty.
	Dir string
	// Configure changes the configuration before the start.
	Configure func(*configs.Config)
	// Cost is the bcrypt cost; bcrypt.MinCost if 0.
	Cost int
}

// Gateway is a running gateway with what a test needs of it.
type Gateway struct {
	*gateway.Gateway
	door
	URL      string // the external URL: of the public listener, unless Options.External is another
	Origin   *url.URL
	Dir      string
	Clock    *Clock
	Upstream *wiretest.Upstream
	Admin    *client.Client
	Log      *Output

	t      testing.TB
	config configs.Config // in force
	stop   func()
}

// Output is what the gateway logged. Safe for concurrent use.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// RootKey makes a root key for gateways that share a store.
func RootKey() string { return secrets.NewRootKeyText() }

// Start runs a gateway until the test ends.
func Start(t testing.TB, o Options) *Gateway {
	t.Helper()
	g, err := Try(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Try is Start that returns why the gateway did not start.
func Try(t testing.TB, o Options) (*Gateway, error) {
	t.Helper()
	if o.Clock == nil {
		o.Clock = NewClock()
	}
	if o.Cost == 0 {
		o.Cost = bcrypt.MinCost
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	g := &Gateway{t: t, Dir: o.Dir, Clock: o.Clock, Upstream: wiretest.NewUpstream(t), Log: &Output{}}
	config := g.configure(o)
	g.config = config
	made, err := gateway.New(t.Context(), config, gateway.Deps{
		Now: o.Clock.Now, Elapsed: o.Clock.Elapsed, Workers: 1, BcryptCost: o.Cost,
		Logger: slog.New(slog.NewTextHandler(g.Log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		return nil, err
	}
	g.Gateway = made
	return g, g.run(config)
}

// run starts the listeners and arranges their end.
func (g *Gateway) run(config configs.Config) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(g.t.Context()))
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- g.Run(ctx, func(net.Addr) { close(started) }) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			g.t.Errorf("gateway ended with: %v", err)
		}
	})
	g.t.Cleanup(g.stop)
	select {
	case <-started:
	case err := <-ended:
		g.stop = func() {}
		ended <- nil
		return err
	}
	admin, err := client.New(client.Options{Socket: strings.TrimPrefix(config.AdminListen, configs.UnixPrefix)})
	g.Admin = admin
	return err
}

// configure is the configuration of a test gateway on a free port.
func (g *Gateway) configure(o Options) configs.Config {
	g.t.Helper()
	address := freeAddress(g.t)
	config := configs.Default()
	config.Listen = address
	config.Data = o.Dir
	config.RootKeyFile = filepath.Join(o.Dir, "root.key")
	config.AdminListen = configs.UnixPrefix + socketPath(g.t)
	config.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	g.must(config.ExternalURL.UnmarshalText([]byte(cmp.Or(o.External, "http://"+localhost(address)))))
	g.must(config.Upstream.UnmarshalText([]byte(g.Upstream.URL)))
	if o.Redis != "" {
		g.must(config.Store.UnmarshalText([]byte(o.Redis)))
		config.RootKeyFile = ""
		g.must(config.RootKey.UnmarshalText([]byte(o.RootKey)))
	}
	if o.Configure != nil {
		o.Configure(&config)
	}
	g.URL = config.ExternalURL.String()
	g.door = door{url: g.URL, address: config.Listen, roots: o.Roots}
	g.Origin = config.ExternalURL.URL()
	return config
}

// Reconfigure reloads the configuration with a change.
func (g *Gateway) Reconfigure(change func(*configs.Config)) error {
	config := g.config
	change(&config)
	err := g.Reload(g.t.Context(), func() (configs.Config, error) { return config, nil })
	if err == nil {
		g.config = config
	}
	return err
}

// Address is that of the public listener.
func (g *Gateway) Address() string { return g.door.address }

// Listens is the address of the public listener.
func (g *Gateway) Listens() string { return g.address }

// Stop ends the gateway before the test does.
func (g *Gateway) Stop() { g.stop() }

// AddUser makes an account with Password.
func (g *Gateway) AddUser(name string, groups ...string) {
	g.t.Helper()
	_, err := g.Admin.AddUser(g.t.Context(), api.NewUser{Name: name, Password: Password, Groups: groups})
	g.must(err)
}

// Enrol gives the account a second factor and returns its secret.
func (g *Gateway) Enrol(name string) string {
	g.t.Helper()
	enrolment, err := g.Admin.EnrolTOTP(g.t.Context(), name, "test")
	g.must(err)
	return enrolment.Secret
}

// Code is the current code of a secret, by the gateway's clock.
func (g *Gateway) Code(secret string) string {
	g.t.Helper()
	code, err := totp.GenerateCode(secret, g.Clock.Now())
	g.must(err)
	return code
}

// SignIn makes a browser that has signed in with password and code. The account must exist and be enrolled with secret.
func (g *Gateway) SignIn(name, secret string) *Browser {
	g.t.Helper()
	b := g.NewBrowser()
	g.Clock.Add(time.Minute) // no code is used twice
	answer := b.Login(name, Password, g.Code(secret))
	if answer.StatusCode != 200 {
		g.t.Fatalf("sign in as %s: %d %s", name, answer.StatusCode, answer.Text)
	}
	return b
}

// Records is the audit log so far, after aggregated records were written.
func (g *Gateway) Records() []audit.Record {
	g.t.Helper()
	return readLog(g.t, g.Dir)
}

// readLog reads the audit log in a data folder.
func readLog(t testing.TB, dir string) []audit.Record {
	t.Helper()
	var all []audit.Record
	err := audit.Read(filepath.Join(dir, "audit"), 1, func(r audit.Record) error {
		all = append(all, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Logins are the records of login attempts so far.
func (g *Gateway) Logins() []audit.Record {
	g.t.Helper()
	var logins []audit.Record
	for _, r := range g.Records() {
		if r.Kind == audit.KindLogin {
			logins = append(logins, r)
		}
	}
	return logins
}

func (g *Gateway) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// freeAddress is a loopback address on which nothing listens, with a port that no outgoing connection takes before it is used.
func freeAddress(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", storetest.FreePort(t))
}

// localhost is the address under the name that browsers take for a secure origin.
func localhost(address string) string { return strings.Replace(address, "127.0.0.1", "localhost", 1) }

// socketPath is short enough for a Unix socket (108 bytes), which the folder of a test may not be.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}
