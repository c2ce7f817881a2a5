package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// soon is how long a certificate should be good for at least: authorities renew theirs a month ahead.
	soon = 14 * 24 * time.Hour
	// maxSkew is how far two clocks may differ: codes are bound to time, and the leeway of tokens is 30 s.
	maxSkew = 5 * time.Second
	// forged is an address for documentation (RFC 5737), which no client has.
	forged = "203.0.113.77"
	// maxBody is how much of an answer is read.
	maxBody = 64 << 10
)

// certificates connects to every host as a browser does.
func (e *examination) certificates(ctx context.Context) {
	if e.External.Scheme != "https" {
		e.ok("certificates", "%s is plain HTTP on this machine: there is none", e.External)
		return
	}
	for _, host := range e.hosts() {
		state, err := e.handshake(ctx, host)
		const why = "browsers refuse to go on where the certificate is not good, and people learn to click warnings away"
		unknown, bad := errors.AsType[*tls.CertificateVerificationError](err)
		switch {
		case bad:
			e.finding("certificates", fmt.Sprintf("the certificate of %s is not good: %v", host, unknown.Err), why,
				"serve a certificate for this name with all its intermediates (tls.cert_file of the gateway, or of the web server in front), or use tls.acme")
		case err != nil:
			e.finding("certificates", fmt.Sprintf("no TLS at %s, port %s: %v", host, port(e.External), err), "browsers cannot reach the login page",
				"start the gateway, or let the web server in front of it listen there; look at firewalls between here and there")
		default:
			left := state.PeerCertificates[0].NotAfter.Sub(e.Now())
			if left < soon {
				e.finding("certificates", fmt.Sprintf("the certificate of %s ends in %d days", host, int(left.Hours()/24)), why,
					"renew it now, and see why that did not happen by itself")
				continue
			}
			e.ok("certificates", "%s has a good one for %d days", host, int(left.Hours()/24))
		}
	}
}

func (e *examination) handshake(ctx context.Context, host string) (tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: e.Roots, MinVersion: tls.VersionTLS12, Time: e.Now}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(resolvable(host), port(e.External)))
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// answer is what came back, with its body.
type answer struct {
	*http.Response
	body []byte
}

// ask sends a GET to the external URL or, with direct, to the public listener under the same name. It goes through no proxy of the
// environment and follows nothing.
func (e *examination) ask(ctx context.Context, path string, direct bool, header http.Header) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, e.External.Scheme+"://"+e.External.Host+path, nil)
	if err != nil {
		return answer{}, err
	}
	if header != nil {
		r.Header = header
	}
	// The certificate was looked at; here it must not hide everything else.
	transport := &http.Transport{
		DialContext:     dial,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, //nolint:gosec // nothing secret is sent
	}
	if direct {
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, local(e.Listen))
		}
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	return answer{response, body}, err
}

// local is where a listener is reached from its own machine.
func local(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// The parts of readyz and healthz that are read.
type (
	readiness struct {
		Parts map[string]struct{ State, Note string }
	}
	seen struct {
		Seen *struct {
			Address, Claimed, Host, Proto string
			Proxied, Forwarded, TLS       bool
		}
	}
)

// gateway asks the running gateway.
func (e *examination) gateway(ctx context.Context) {
	ready, err := e.ask(ctx, "/.gatehouse/readyz", false, nil)
	var state readiness
	if err != nil || json.Unmarshal(ready.body, &state) != nil || len(state.Parts) == 0 {
		e.absent(ctx, ready, err)
		return
	}
	bad := false
	for _, name := range sortedKeys(state.Parts) {
		if part := state.Parts[name]; part.State != "ok" {
			bad = true
			e.finding("gateway", fmt.Sprintf("part %s is %s: %s", name, part.State, part.Note), "what depends on it is refused, or goes on with a bound",
				"docs/operating.md, \"Is it well?\", has what to do for each part; the log says more")
		}
	}
	if !bad {
		e.ok("gateway", "it answers at %s and all its parts are well", e.External)
	}
	e.clock(ready)
	e.cookies(ctx)
	e.forwarded(ctx)
}

// absent says why the external URL does not lead to a gateway.
func (e *examination) absent(ctx context.Context, got answer, err error) {
	why := "browsers do not reach the login page"
	said := fmt.Sprint(err)
	if err == nil {
		said = "something else answers, with " + got.Status
	}
	if e.Listen != "" {
		if direct, listenErr := e.askListener(ctx); listenErr == nil && direct.StatusCode == http.StatusOK {
			e.finding("gateway", fmt.Sprintf("it answers on %s but not at %s: %s", e.Listen, e.External, said), why,
				fmt.Sprintf("let the web server at %s pass everything, with its Host header, to %s; or make %s lead to this machine", e.External.Host, e.Listen, e.External.Hostname()))
			return
		}
	}
	e.finding("gateway", fmt.Sprintf("no gateway answers at %s: %s", e.External, said), why,
		"start it (gatehouse serve, or systemctl start gatehouse); what needs a running gateway was not looked at: cookies, forwarded headers, the parts of readyz")
}

func (e *examination) askListener(ctx context.Context) (answer, error) {
	if got, err := e.ask(ctx, "/.gatehouse/healthz", true, nil); err == nil || e.External.Scheme == "http" {
		return got, err
	}
	plain := *e // behind a web server that does the TLS
	external := *e.External
	external.Scheme = "http"
	plain.External = &external
	return plain.ask(ctx, "/.gatehouse/healthz", true, nil)
}

// clock compares this machine's clock with the gateway's, whose Date has whole seconds.
func (e *examination) clock(from answer) {
	date, err := http.ParseTime(from.Header.Get("Date"))
	if err != nil {
		return
	}
	if skew := e.Now().Sub(date).Abs(); skew > maxSkew {
		e.finding("clock", fmt.Sprintf("the clock of this machine and that of the gateway differ by %s", skew.Round(time.Second)),
			"codes are bound to time, to 30 s, and the logs of several machines cannot be put side by side", "synchronise both: timedatectl set-ntp true")
		return
	}
	e.ok("clock", "this machine and the gateway agree")
}

// cookies looks at what the login page sets, as it arrives here: proxies in between rewrite cookies.
func (e *examination) cookies(ctx context.Context) {
	page, err := e.ask(ctx, "/.gatehouse/login", false, http.Header{"Accept": {"text/html"}})
	if err != nil || page.StatusCode != http.StatusOK {
		e.finding("cookies", fmt.Sprintf("the login page does not come: %v %s", err, status(page)), "nobody can sign in", "look at the gateway's log")
		return
	}
	set := page.Cookies()
	broken := slices.ContainsFunc(set, func(c *http.Cookie) bool { return !c.Secure || c.Domain != "" || c.Path != "/" || !c.HttpOnly })
	if len(set) == 0 || broken {
		e.finding("cookies", "the cookie of the login page does not arrive as the gateway sent it (Secure, HttpOnly, Path=/, no Domain)",
			"browsers refuse it, and every login ends at its first page",
			"take rewriting of cookies out of the web server in front (nginx: proxy_cookie_path, proxy_cookie_domain, proxy_cookie_flags; or proxy_hide_header Set-Cookie)")
		return
	}
	if e.External.Scheme == "http" {
		e.ok("cookies", "they arrive; Chromium and Firefox keep Secure cookies on http://localhost, Safari does not")
		return
	}
	e.ok("cookies", "they arrive as they were sent")
}

func status(a answer) string {
	if a.Response == nil {
		return ""
	}
	return a.Status
}

// forwarded sends a forged X-Forwarded-For through the external URL, and asks what it came to.
func (e *examination) forwarded(ctx context.Context) {
	const check = "forwarded headers"
	got, err := e.ask(ctx, "/.gatehouse/healthz?seen", false, http.Header{"X-Forwarded-For": {forged}})
	var told seen
	if err != nil || json.Unmarshal(got.body, &told) != nil || told.Seen == nil {
		e.finding(check, "the gateway does not say what arrived", "whom an attempt is counted for is not known", "is it of this version? compare: gatehouse version")
		return
	}
	s := told.Seen
	found := len(e.found)
	switch address, _ := netip.ParseAddr(s.Address); {
	case s.Address == forged:
		e.finding(check, "a forged X-Forwarded-For is believed: this request was counted for "+forged,
			"anybody can choose the address that limits, records and rules see",
			"let the web server in front append to or set X-Forwarded-For (nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for), and list proxies only in trusted_proxies, never an address that clients have")
	case s.Claimed != "" && s.Claimed != "X-Forwarded-For: "+forged: // which this request would be without a proxy in between
		e.finding(check, fmt.Sprintf("%s says whom it stands in front of (%q) and is not believed", s.Address, s.Claimed),
			"all clients seem to be this one address and share its rate limit, and records name nobody else",
			fmt.Sprintf("if %s is your web server: trusted_proxies: [%s]", s.Address, s.Address))
	case !s.Forwarded && listed(e.TrustedProxies, address):
		e.finding(check, fmt.Sprintf("%s is in trusted_proxies and sets no X-Forwarded-For", s.Address), "all clients seem to be this one address",
			"let the web server set it (nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for)")
	}
	if !strings.EqualFold(s.Host, e.External.Host) {
		e.finding(check, fmt.Sprintf("the gateway was asked for the host %q, not %q", s.Host, e.External.Host), "it answers 421 to hosts that it does not know",
			"let the web server pass the Host header on (nginx: proxy_set_header Host $host)")
	}
	if s.Proxied && s.Proto != "" && s.Proto != e.External.Scheme {
		e.finding(check, fmt.Sprintf("the web server says that the request came by %s, and external_url is %s", s.Proto, e.External.Scheme),
			"apps make links and redirects of it", "let the web server set X-Forwarded-Proto to the scheme that browsers use (nginx: proxy_set_header X-Forwarded-Proto $scheme)")
	}
	if len(e.found) == found {
		e.ok(check, "a forged one is not believed: this request was counted for %s; the host arrives", s.Address)
	}
}

func listed(networks []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(address) })
}
