// Package doctor examines how a gateway is set up: names, certificates, cookies, clock, store, files, forwarded headers, and its apps, also
// whether they can be reached around the gateway.
//
// It promises: every finding says what, why it matters and what to do; nothing is changed anywhere; it connects to the gateway's own names
// and to the configured upstream hosts, of which this machine may be one, and to nobody else; the scan is bounded in hosts, ports, connections at a time and time; and it
// needs no running gateway, whose absence is a finding like any other.
package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Finding is one thing that was looked at.
type Finding struct {
	Check string `json:"check"` // names, certificates, gateway, …
	OK    bool   `json:"ok"`
	What  string `json:"what"`
	Why   string `json:"why,omitempty"` // it matters; of what is not ok
	Fix   string `json:"fix,omitempty"` // what to do; of what is not ok
}

// Upstream is an app's address as a route has it.
type Upstream struct {
	Route string
	URL   *url.URL
	TLS   *tls.Config // nil: the system's authorities, and no certificate of the gateway's
}

// Store is what is known of the store; a nil *Store is one that only the running gateway can look at.
type Store struct {
	Err      error
	Warnings []string
	Took     time.Duration
	Skew     time.Duration // how far the clock of this machine is ahead
}

// Options say what to examine. Now is required; what is empty is left out.
type Options struct {
	External *url.URL
	// Hosts are those of apps; one that begins with "*." stands for any label.
	Hosts []string
	// Listen is the public listener, where the gateway is asked if the external URL does not lead to it.
	Listen         string
	TrustedProxies []netip.Prefix
	AuditDir       string
	RootKeyFile    string // empty where the key comes from the environment
	Store          *Store
	Upstreams      []Upstream
	// NoScan leaves out the look for ways around the gateway.
	NoScan bool
	// Ports replaces the ports that are scanned beside the configured ones; nil for those of [Ports].
	Ports []int
	// Addresses replaces the addresses of this machine at which apps on loopback should not listen; nil for those of its interfaces.
	Addresses []netip.Addr
	Roots     *x509.CertPool // of the gateway's certificate; nil: the system's
	Now       func() time.Time
}

// patience bounds each single question.
const patience = 5 * time.Second

// examination is the state of one run.
type examination struct {
	Options
	found []Finding
}

// Examine looks at everything. It takes as long as the scan, a minute at most, and some seconds for each name that does not answer.
func Examine(ctx context.Context, o Options) []Finding {
	e := &examination{Options: o}
	e.names(ctx)
	e.certificates(ctx)
	e.gateway(ctx)
	e.store()
	e.files()
	e.upstreams(ctx)
	if !o.NoScan {
		e.around(ctx)
	}
	return e.found
}

func (e *examination) ok(check, format string, args ...any) {
	e.found = append(e.found, Finding{Check: check, OK: true, What: fmt.Sprintf(format, args...)})
}

func (e *examination) finding(check, what, why, fix string) {
	e.found = append(e.found, Finding{Check: check, What: what, Why: why, Fix: fix})
}

// hosts are the login host and those of the apps, without ports, each once. A wildcard stands with a label that somebody could ask for.
func (e *examination) hosts() []string {
	var all []string
	seen := map[string]bool{}
	for _, host := range append([]string{e.External.Host}, e.Hosts...) {
		name := host
		if bare, _, err := net.SplitHostPort(host); err == nil {
			name = bare
		}
		if len(name) > 2 && name[:2] == "*." {
			name = "gatehouse-doctor" + name[1:]
		}
		if !seen[name] {
			seen[name] = true
			all = append(all, name)
		}
	}
	return all
}

// names asks the name service for every host.
func (e *examination) names(ctx context.Context) {
	for _, host := range e.hosts() {
		ctx, cancel := context.WithTimeout(ctx, patience)
		addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", resolvable(host))
		cancel()
		if err != nil || len(addresses) == 0 {
			e.finding("names", fmt.Sprintf("%s has no address here: %v", host, err), "browsers that cannot find the host cannot sign in there",
				"make an A or AAAA record of it that leads to the gateway, or to the web server in front of it")
			continue
		}
		e.ok("names", "%s is %s", host, addresses[0].Unmap())
	}
}

// resolvable is what a host is looked up as: names under localhost are this machine for browsers, whatever its name service says (RFC 6761,
// section 6.3).
func resolvable(host string) string {
	if strings.HasSuffix(host, ".localhost") {
		return "localhost"
	}
	return host
}

// dial connects as a browser does.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(resolvable(host), port))
}
