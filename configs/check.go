package configs

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxSocketPath is the longest path of a Unix socket on Linux: sun_path has 108 bytes, one of them the NUL (unix(7)).
const maxSocketPath = 107

// checker holds settings against one another, which the limits of each alone cannot.
type checker struct {
	cfg      Config
	origins  map[string]Place
	broken   map[string]bool // settings that have a problem of their own
	problems []Problem
}

// check returns what is wrong between the settings. What known problems are about is left out of all comparisons.
func check(cfg Config, origins map[string]Place, known []Problem) []Problem {
	c := &checker{cfg: cfg, origins: origins, broken: map[string]bool{}}
	for _, p := range known {
		c.broken[p.Setting] = true
	}
	for _, one := range []struct {
		run   func()
		reads []string
	}{
		{c.listen, []string{"listen"}},
		{c.externalURL, []string{"external_url", "listen"}},
		{c.upstream, []string{"upstream", "external_url", "listen", "admin_listen"}},
		{c.storeCA, []string{"store_ca_file", "store"}},
		{c.rootKey, []string{"root_key", "root_key_file", "store"}},
		{c.admin, []string{"admin_listen", "admin_token_file", "admin_tls.cert_file", "listen", "data"}},
		{c.adminTLS, []string{"admin_listen", "admin_tls.cert_file", "admin_tls.key_file"}},
		{c.routes, nil},
		{c.tls, []string{"tls.cert_file", "tls.key_file", "external_url", "listen"}},
		{c.acme, []string{"tls.acme.directory", "tls.acme.accept_terms", "external_url", "listen"}},
		{c.hsts, []string{"hsts", "external_url", "listen"}},
		{c.httpListen, []string{"http_listen", "external_url", "admin_listen", "listen"}},
		{c.metricsListen, []string{"metrics_listen", "http_listen", "admin_listen", "listen"}},
		{c.idle, []string{"session.idle", "session.absolute"}},
		{c.accessToken, []string{"session.access_token", "session.idle"}},
	} {
		if !slices.ContainsFunc(one.reads, func(path string) bool { return c.broken[path] }) {
			one.run()
		}
	}
	return c.problems
}

func (c *checker) problem(path, format string, args ...any) {
	c.broken[path] = true
	c.problems = append(c.problems, Problem{Place: c.place(path), Setting: path, Message: fmt.Sprintf(format, args...)})
}

// place is where a setting stands; for one that an element of a list lacks, where the element begins.
func (c *checker) place(path string) Place {
	for {
		place, ok := c.origins[path]
		end := strings.LastIndexAny(path, ".[")
		if ok || end < 0 {
			return place
		}
		path = path[:end]
	}
}

// splitAddress takes host:port apart, with a port in digits: names of services differ between machines.
func splitAddress(addr string) (host, port string, ok bool) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return host, port, err == nil
}

func (c *checker) listen() {
	if _, _, ok := splitAddress(c.cfg.Listen); !ok {
		c.problem("listen", "must be host:port, as in 127.0.0.1:8080 or :8080, not %q", c.cfg.Listen)
	}
}

func (c *checker) externalURL() {
	external := c.cfg.ExternalURL
	switch {
	case external.IsZero():
		if _, port, _ := splitAddress(c.cfg.Listen); port == "0" {
			c.problem("external_url", "must be given, because listen has no fixed port to derive it from")
		}
	case external.Scheme != "https" && !external.Local():
		c.problem("external_url", "must be https: browsers keep sign-in cookies for http only on localhost, and everybody on the way could read the passwords")
	}
}

// upstream refuses an upstream that is the gateway itself: each request would come back until the descriptors run out.
func (c *checker) upstream() {
	up := c.cfg.Upstream
	switch {
	case up.IsZero():
	case up == c.cfg.ExternalURL:
		c.problem("upstream", "is external_url, the address of the gateway itself; give the app's own address")
	case c.ownListener(up) != "":
		c.problem("upstream", "is %s; give the app's own address", c.ownListener(up))
	}
}

// ownListener says which listener of the gateway a connection to the origin ends at; empty for none.
func (c *checker) ownListener(o Origin) string {
	for _, l := range []struct{ addr, what string }{
		{c.cfg.Listen, "listen, the gateway's own listener"},
		{c.cfg.AdminListen, "admin_listen, the gateway's own administration"},
		{c.cfg.HTTPListen, "http_listen, the gateway's own listener"},
		{c.cfg.MetricsListen, "metrics_listen, the gateway's own metrics"},
	} {
		if reaches(o, l.addr) {
			return l.what
		}
	}
	return ""
}

// reaches reports whether a connection to the origin ends at the listener at addr, as far as that can be seen without asking
// for names or interfaces.
func reaches(o Origin, addr string) bool {
	host, port, ok := splitAddress(addr)
	if !ok || port == "0" {
		return false
	}
	dialHost, dialPort, _ := net.SplitHostPort(o.Address())
	if dialPort != port {
		return false
	}
	local := o.Local() || unspecified(dialHost)
	return strings.EqualFold(host, dialHost) || local && (host == "localhost" || loopbackAddress(host) || unspecified(host))
}

// unspecified reports whether a listener's host means every address of the machine.
func unspecified(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.Unmap().IsUnspecified()
}

func (c *checker) rootKey() {
	_, byValue := c.origins["root_key"]
	_, byFile := c.origins["root_key_file"]
	switch {
	case byValue && byFile:
		c.problem("root_key", "and %s are both set; keep one", c.origins["root_key_file"])
	case byValue && c.cfg.RootKey.IsZero():
		c.problem("root_key", "is empty")
	case c.cfg.Store.Shared() && c.cfg.RootKey.IsZero() && c.cfg.RootKeyFile == "":
		c.problem("store", "is shared, so all its gateways need the same root key: give root_key_file or %sROOT_KEY, made once with: openssl rand -base64 32", Prefix)
	}
}

func (c *checker) storeCA() {
	if c.cfg.StoreCAFile != "" && !c.cfg.Store.TLS() {
		c.problem("store_ca_file", "is for a store with TLS; write rediss in place of redis")
	}
}

func (c *checker) admin() {
	addr := c.cfg.AdminListen
	if path, isSocket := strings.CutPrefix(addr, UnixPrefix); isSocket {
		switch {
		case path == "":
			c.problem("admin_listen", "has no path after %s", UnixPrefix)
		case len(path) > maxSocketPath:
			c.problem("admin_listen", "has a path of %d bytes, and a Unix socket takes %d at most; give a shorter one, or a shorter data folder", len(path), maxSocketPath)
		}
		return
	}
	host, port, ok := splitAddress(addr)
	switch {
	case !ok:
		c.problem("admin_listen", "must be unix:PATH or host:port, not %q", addr)
	case host != "localhost" && !loopbackAddress(host) && c.cfg.AdminTLS.CertFile == "":
		c.problem("admin_listen", "is not a loopback address; beyond this machine administration needs admin_tls, or use the Unix socket, or loopback with a tunnel")
	case c.cfg.AdminTokenFile == "":
		c.problem("admin_listen", "is a TCP address, which every process of this machine can reach, so it needs admin_token_file")
	case sameListener(addr, c.cfg.Listen) && port != "0":
		c.problem("admin_listen", "must not be the public listener")
	}
}

func (c *checker) adminTLS() {
	t := c.cfg.AdminTLS
	c.pair("admin_tls.", t.CertFile, t.KeyFile)
	if _, isSocket := strings.CutPrefix(c.cfg.AdminListen, UnixPrefix); isSocket && t.CertFile != "" {
		c.problem("admin_tls.cert_file", "is for a TCP admin_listen; the socket needs no encryption")
	}
}

// sameListener reports whether two listeners would ask for one port of one address.
func sameListener(a, b string) bool {
	hostA, portA, okA := splitAddress(a)
	hostB, portB, okB := splitAddress(b)
	return okA && okB && portA == portB && (hostA == hostB || unspecified(hostA) || unspecified(hostB))
}

func (c *checker) tls() {
	t := c.cfg.TLS
	c.pair("tls.", t.CertFile, t.KeyFile)
	switch {
	case t.CertFile == "":
	case c.cfg.ExternalURL.Scheme != "https":
		c.problem("tls.cert_file", "makes the public listener speak TLS, and external_url %s is not https", c.cfg.ExternalURL)
	case t.ACME.AcceptTerms:
		c.problem("tls.cert_file", "and tls.acme exclude one another; keep one")
	}
}

func (c *checker) acme() {
	a := c.cfg.TLS.ACME
	switch _, err := url.Parse(a.Directory); {
	case err != nil || !strings.HasPrefix(a.Directory, "https://"):
		c.problem("tls.acme.directory", "must be an https URL")
	case !a.AcceptTerms && (a.Email != "" || a.CAFile != "" || a.Directory != LetsEncrypt):
		c.problem("tls.acme.accept_terms", "must be true for ACME to be used: it says that you accept the terms of the authority")
	case a.AcceptTerms && c.cfg.ExternalURL.Scheme != "https":
		c.problem("tls.acme.accept_terms", "gets certificates, and external_url %s is not https", c.cfg.ExternalURL)
	case a.AcceptTerms:
		c.acmeHosts()
	}
}

// acmeHosts refuses hosts for which an authority cannot find out, over HTTP or TLS, whose they are (RFC 8555, section 8.3; RFC 8737).
func (c *checker) acmeHosts() {
	if why := notForACME(c.cfg.ExternalURL.URL().Hostname()); why != "" {
		c.problem("external_url", "%s, for which ACME gives no certificate; use tls.cert_file", why)
	}
	for i, r := range c.cfg.Routes {
		name, _ := r.Host.split()
		if why := notForACME(name); r.Host != "" && why != "" {
			c.problem(element("routes", i)+".host", "%s, for which ACME gives no certificate; name the hosts one by one, or use tls.cert_file", why)
		}
	}
}

func notForACME(name string) string {
	_, err := netip.ParseAddr(strings.Trim(name, "[]"))
	switch {
	case strings.HasPrefix(name, "*."):
		return "is a wildcard"
	case err == nil:
		return "is an address"
	case !strings.Contains(name, "."), strings.HasSuffix(name, ".localhost"):
		return "is a name of this machine or network only"
	}
	return ""
}

func (c *checker) hsts() {
	if c.cfg.HSTS > 0 && c.cfg.ExternalURL.Scheme != "https" {
		c.problem("hsts", "is for https, and external_url %s is not", c.cfg.ExternalURL)
	}
}

func (c *checker) httpListen() {
	addr := c.cfg.HTTPListen
	switch _, _, ok := splitAddress(addr); {
	case addr == "":
	case !ok:
		c.problem("http_listen", "must be host:port, as in :80, not %q", addr)
	case c.cfg.ExternalURL.Scheme != "https":
		c.problem("http_listen", "sends browsers on to https, and external_url %s is not https", c.cfg.ExternalURL)
	case sameListener(addr, c.cfg.Listen) || sameListener(addr, c.cfg.AdminListen):
		c.problem("http_listen", "must not be another of the gateway's listeners")
	}
}

func (c *checker) metricsListen() {
	addr := c.cfg.MetricsListen
	switch _, port, ok := splitAddress(addr); {
	case addr == "":
	case !ok:
		c.problem("metrics_listen", "must be host:port, as in 127.0.0.1:9100, not %q", addr)
	case port != "0" && (sameListener(addr, c.cfg.Listen) || sameListener(addr, c.cfg.AdminListen) || sameListener(addr, c.cfg.HTTPListen)):
		c.problem("metrics_listen", "must not be another of the gateway's listeners")
	}
}

func (c *checker) idle() {
	if s := c.cfg.Session; s.Idle > s.Absolute {
		c.problem("session.idle", "is %s, longer than session.absolute, which is %s", formatDuration(s.Idle), formatDuration(s.Absolute))
	}
}

func (c *checker) accessToken() {
	if s := c.cfg.Session; s.AccessToken > s.Idle {
		c.problem("session.access_token", "is %s, longer than session.idle, which is %s", formatDuration(s.AccessToken), formatDuration(s.Idle))
	}
}

// singleFactorLength is the least length of a password that stands alone (NIST SP 800-63B-4, section 3.1.1.2).
const singleFactorLength = 15

// warnings says what is allowed but should be meant.
func warnings(cfg Config) []string {
	var list []string
	host, _, _ := splitAddress(cfg.Listen)
	if cfg.ExternalURL.Scheme == "http" && host != "localhost" && !loopbackAddress(host) {
		list = append(list, fmt.Sprintf("listen %s can be reached from other machines, and external_url %s is not https", cfg.Listen, cfg.ExternalURL))
	}
	if host, _, ok := splitAddress(cfg.MetricsListen); ok && host != "localhost" && !loopbackAddress(host) {
		list = append(list, fmt.Sprintf("metrics_listen %s can be reached from other machines, and there is no login: it tells the names of routes and how busy they are", cfg.MetricsListen))
	}
	if cfg.Login.SecondFactor == Optional && cfg.Login.PasswordMinLength < singleFactorLength {
		list = append(list, fmt.Sprintf("login.second_factor is optional; where a password stands alone, NIST SP 800-63B-4 asks for login.password_min_length %d", singleFactorLength))
	}
	return list
}
