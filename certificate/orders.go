package certificate

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"gatehouse/store"
)

const (
	// beat is how often it is seen to that every host has a certificate, and how soon a gateway takes over what another one ordered.
	beat = 2 * time.Second
	// An order that failed is tried again after firstRest, then after twice as long each time, up to longestRest: the best known authority
	// takes five failures of a name in an hour.
	firstRest   = 5 * time.Minute
	longestRest = time.Hour
	// askTimeout bounds one request to the authority.
	askTimeout = 30 * time.Second
)

// OrdersOptions is what Orders are made of.
type OrdersOptions struct {
	// Hosts returns the names to have certificates for, canonical and without ports; it is asked again and again. Names that no authority
	// can check in this way (addresses, wildcards, names of one label) must not be among them.
	Hosts func() []string
	// Directory is the authority's directory URL. Email may be empty.
	Directory, Email string
	// Roots may vouch for the directory itself; nil are those of the system.
	Roots *x509.CertPool
	// Records keep account, certificates and challenges for all gateways on the store.
	Records store.Records
	Now     func() time.Time
	Logger  *slog.Logger
}

// Orders gets certificates from an authority by ACME (RFC 8555), proves the hosts by TLS-ALPN-01 (RFC 8737) and, where Challenges is
// served, by HTTP-01, and renews them when a third of their time is left. Gateways on one store share what one of them ordered; one
// orders at a time. Safe for concurrent use.
type Orders struct {
	o       OrdersOptions
	manager *autocert.Manager
	cache   *cache
	stop    context.CancelFunc // ends what is asked of the authority

	mu    sync.RWMutex
	hosts map[string]*host // guarded by mu
}

// host is what is known of the certificate of one host.
type host struct {
	leaf *x509.Certificate // nil while there is none; guarded by Orders.mu

	rest, pause time.Duration // until the next try, and after the next failure; owned by Run
}

// NewOrders makes Orders. Nothing is ordered before Run.
func NewOrders(o OrdersOptions) *Orders {
	tag := sha256.Sum256([]byte(o.Directory))
	c := &cache{records: o.Records, now: o.Now, directory: hex.EncodeToString(tag[:8]), logger: o.Logger}
	ctx, stop := context.WithCancel(context.Background())
	orders := &Orders{o: o, cache: c, stop: stop, hosts: map[string]*host{}}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute,
	}
	orders.manager = &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: c, Email: o.Email, HostPolicy: orders.policy,
		Client: &acme.Client{
			DirectoryURL: o.Directory, UserAgent: "gatehouse",
			HTTPClient: &http.Client{
				Transport: bound{ctx, transport}, Timeout: askTimeout,
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			},
		},
	}
	return orders
}

// bound ends requests when ctx is done: autocert gives its own ones minutes, and a gateway that stops does not wait for these.
type bound struct {
	ctx  context.Context
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b bound) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := b.ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(b.ctx, cancel)
	response, err := b.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	context.AfterFunc(r.Context(), func() { stop(); cancel() }) // the body is read after this
	return response, nil
}

// policy lets nothing be ordered but for the hosts of the configuration, whoever asks.
func (o *Orders) policy(_ context.Context, name string) error {
	if bare, _, err := net.SplitHostPort(name); err == nil {
		name = bare
	}
	if !slices.Contains(o.o.Hosts(), canonical(name)) {
		return errors.New("no host of this gateway")
	}
	return nil
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// GetCertificate implements the hook of tls.Config. It answers from memory; only the authority's own handshakes, which ask for nothing
// but the challenge, may read the store.
func (o *Orders) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := canonical(hello.ServerName)
	if slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
		if err := o.policy(hello.Context(), name); err != nil {
			return nil, err
		}
		return o.manager.GetCertificate(hello)
	}
	if hosts := o.o.Hosts(); name == "" && len(hosts) > 0 { // who gives no name asks for an address: the first host is the login host
		name = hosts[0]
	}
	o.mu.RLock()
	h := o.hosts[name]
	ready := h != nil && h.leaf != nil
	o.mu.RUnlock()
	if !ready {
		return nil, errors.New("there is no certificate for this host")
	}
	return o.manager.GetCertificate(modern(name))
}

// modern is what a client of today asks with. Certificates are of ECDSA P-256 only: autocert would order another one, of RSA, for every
// host that an old client names.
func modern(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName: name, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256},
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	}
}

// Protocols are what the listener has to offer in a handshake for TLS-ALPN-01, beside its own.
func (o *Orders) Protocols() []string { return []string{acme.ALPNProto} }

// Challenges answers HTTP-01 challenges and leaves everything else to next. Once it was called, HTTP-01 is tried where TLS-ALPN-01 failed.
func (o *Orders) Challenges(next http.Handler) http.Handler { return o.manager.HTTPHandler(next) }

// Trouble says what is wrong with the certificates; empty if nothing is.
func (o *Orders) Trouble() string {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, name := range o.o.Hosts() {
		h := o.hosts[name]
		if h == nil || h.leaf == nil {
			return "a host has no certificate yet, and cannot be reached: the log says why"
		}
		if left, life := h.leaf.NotAfter.Sub(o.o.Now()), h.leaf.NotAfter.Sub(h.leaf.NotBefore); left < life/6 {
			return "a certificate ends soon and was not renewed: the authority cannot be reached or refuses"
		}
	}
	return ""
}

// Run sees to the certificates until ctx is done.
func (o *Orders) Run(ctx context.Context) {
	defer o.stop()
	defer context.AfterFunc(ctx, o.stop)()
	for ctx.Err() == nil {
		for _, name := range o.o.Hosts() {
			o.see(ctx, name)
		}
		select {
		case <-ctx.Done():
		case <-time.After(beat):
		}
	}
}

// see sees to the certificate of one host.
func (o *Orders) see(ctx context.Context, name string) {
	o.mu.Lock()
	h := o.hosts[name]
	if h == nil {
		h = &host{pause: firstRest}
		o.hosts[name] = h
	}
	had := h.leaf != nil
	o.mu.Unlock()
	if h.rest > 0 {
		h.rest -= beat
		return
	}
	certificate, err := o.get(ctx, name, had)
	switch {
	case ctx.Err() != nil || errors.Is(err, errTurn) || errors.Is(err, errAway):
		return // at the next beat
	case err != nil:
		h.rest, h.pause = h.pause, min(2*h.pause, longestRest)
		o.o.Logger.ErrorContext(ctx, "no certificate from the authority", "host", name, "error", err, "next_try_in", h.rest)
		return
	}
	if !had {
		o.o.Logger.InfoContext(ctx, "host has its certificate", "host", name, "expires", certificate.Leaf.NotAfter)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	h.leaf, h.pause = certificate.Leaf, firstRest
}

// errTurn: another gateway is ordering.
var errTurn = errors.New("it is another gateway's turn")

// get returns the certificate of a host from memory or the store, or else orders it. Nobody orders what could not be kept: the turn is
// taken in the store.
func (o *Orders) get(ctx context.Context, name string, had bool) (*tls.Certificate, error) {
	if had {
		return o.manager.GetCertificate(modern(name))
	}
	release, err := o.cache.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	certificate, err := o.manager.GetCertificate(modern(name)) // looks into the store first
	if err != nil {
		return nil, fmt.Errorf("order a certificate: %w", err)
	}
	return certificate, nil
}
