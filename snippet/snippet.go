// Package snippet writes the configuration of a web server that asks Gatehouse about each request and serves the apps itself.
//
// It promises: on every host of an app `/.gatehouse/` goes to the gateway; a request reaches an app only after the gateway let it
// through, and not at all where the gateway cannot be asked; the client's own spellings of identity headers are removed, and what the
// gateway answered (identity headers, and Cookie and Authorization without its own cookies and tokens) takes their place; nobody but the web server itself
// reaches the addresses at which it asks. What a web server would do
// otherwise than the gateway (TLS to an app, prefixes taken off, limits of bodies) goes through the gateway as a proxy.
//
// The forms are those of each program's documentation: ngx_http_auth_request_module of nginx, forward_auth of Caddy, a Lua action of
// HAProxy (core.httpclient, since 2.5), forwardAuth of Traefik, ext_authz over HTTP of Envoy.
package snippet

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Site is what a configuration is written for.
type Site struct {
	Scheme string // http or https, of every host
	// Login is the login host, with its port unless that is the scheme's own.
	Login string
	// Gateway is the host:port at which the web server reaches the gateway, in plain HTTP.
	Gateway string
	// Identity is the identity headers of all presets, and the assertion.
	Identity []string
	Apps     []App
}

// App is one route.
type App struct {
	Name string // of a-z, 0-9 and hyphens; unique
	Host string // like Login, or with "*." in front
	Path string // a prefix by whole segments; "/" is all
	// Upstreams are http://host:port each. None: somebody has to fill them in.
	Upstreams []string
	// Headers are the identity headers that the app gets.
	Headers []string
	// Through sends the requests of the route through the gateway as a proxy.
	Through bool
}

// The programs that there are configurations for.
const (
	Nginx   = "nginx"
	Caddy   = "caddy"
	HAProxy = "haproxy"
	Traefik = "traefik"
	Envoy   = "envoy"
)

// Programs lists them.
func Programs() []string { return []string{Nginx, Caddy, HAProxy, Traefik, Envoy} }

// placeholder stands where an app has no upstream.
const placeholder = "127.0.0.1:3000"

// Text is the configuration of a program for a site. It returns an error if there is no such program, or no app.
func Text(program string, s Site) (string, error) {
	if len(s.Apps) == 0 {
		return "", errors.New("there is no app to protect")
	}
	var t text
	switch program {
	case Nginx:
		t.nginx(s)
	case Caddy:
		t.caddy(s)
	case HAProxy:
		t.haproxy(s)
	case Traefik:
		t.traefik(s)
	case Envoy:
		t.envoy(s)
	default:
		return "", fmt.Errorf("%q is none of %s", program, strings.Join(Programs(), ", "))
	}
	return t.String(), nil
}

// text is lines.
type text struct{ strings.Builder }

// line writes one line, without blanks at its end.
func (t *text) line(format string, args ...any) {
	t.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " \t"))
	t.WriteByte('\n')
}

// host is the apps of one host, the longest path first.
type host struct {
	name string
	apps []App
}

// hosts groups the apps by host, in the order of their first. The login host comes first, whether it has an app or not.
func (s Site) hosts() []host {
	all := []host{{name: s.Login}}
	for _, a := range s.Apps {
		i := slices.IndexFunc(all, func(h host) bool { return h.name == a.Host })
		if i < 0 {
			i = len(all)
			all = append(all, host{name: a.Host})
		}
		all[i].apps = append(all[i].apps, a)
	}
	for _, h := range all {
		slices.SortStableFunc(h.apps, func(a, b App) int { return cmp.Compare(len(b.Path), len(a.Path)) })
	}
	return all
}

// restIsOurs reports whether what is no app's goes to the gateway: on the login host.
func (s Site) restIsOurs(h host) bool {
	return h.name == s.Login && (len(h.apps) == 0 || h.apps[len(h.apps)-1].Path != "/")
}

// split takes the port off a host; that of the scheme where there is none.
func (s Site) split(name string) (host, port string) {
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, ']') {
		return name[:colon], name[colon+1:]
	}
	if s.Scheme == "http" {
		return name, "80"
	}
	return name, "443"
}

// loopback is the address to listen at for a host that browsers look for on their own machine only (RFC 6761, section 6.3), so that nobody
// else reaches what is tried out there; empty for all other hosts.
func (s Site) loopback(name string) string {
	host, _ := s.split(name)
	host = strings.ToLower(strings.Trim(host, "[]"))
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsLoopback() {
		return addr.String()
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return "127.0.0.1"
	}
	return ""
}

// shared is the address to listen at for several hosts: that of all of them, or empty.
func (s Site) shared(hosts []host) string {
	at := s.loopback(hosts[0].name)
	if slices.ContainsFunc(hosts, func(h host) bool { return s.loopback(h.name) != at }) {
		return ""
	}
	return at
}

// certificate is where the certificate of a host is looked for, together with its key.
func certificate(name string) string {
	return "/etc/ssl/private/" + strings.TrimPrefix(name, "*.") + ".pem"
}

// addresses are host:port of the upstreams.
func (a App) addresses() []string {
	if len(a.Upstreams) == 0 {
		return []string{placeholder}
	}
	all := make([]string, len(a.Upstreams))
	for i, up := range a.Upstreams {
		all[i] = strings.TrimPrefix(up, "http://")
		if !strings.Contains(all[i][strings.LastIndexByte(all[i], ']')+1:], ":") {
			all[i] += ":80"
		}
	}
	return all
}

// variable is a name as variables of the programs may have it.
func variable(name string) string { return strings.ToLower(strings.ReplaceAll(name, "-", "_")) }

// targets are headers by which some apps take another path than the one that was decided about.
var targets = [...]string{"X-Original-URL", "X-Original-Method", "X-Rewrite-URL"}

// forgeries are headers that only who ends TLS may say: client certificates by the names of RFC 9440, ingress-nginx, Apache and HAProxy. Proxy
// is none at all, but CGI makes of it the HTTP_PROXY through which the app would send its own requests (CVE-2016-5385).
var forgeries = [...]string{
	"Proxy", "Client-Cert", "Client-Cert-Chain", "X-Client-Cert",
	"SSL-Client-Cert", "SSL-Client-Verify", "SSL-Client-Subject-DN", "SSL-Client-Issuer-DN", "SSL-Client-S-DN", "SSL-Client-I-DN",
	"X-SSL-Client-Cert", "X-SSL-Client-Verify", "X-SSL-Client-DN", "X-SSL-Client-CN", "X-SSL-Client-S-DN", "X-SSL-Client-I-DN",
	"X-SSL-Client-Serial", "X-SSL-Client-SHA1",
}

// Forgeries are the headers beside the identity headers that no client may send to an app. Caddy and HAProxy take away whatever begins like
// one of a certificate; the others know whole names only.
func Forgeries() []string { return slices.Concat(targets[:], forgeries[:]) }

// others are the headers that an app does not get.
func (s Site) others(a App) []string {
	return slices.DeleteFunc(slices.Concat(s.Identity, Forgeries()), func(name string) bool { return slices.Contains(a.Headers, name) })
}

// head says at the top of a file what it is, and what the gateway's own configuration needs for it.
func (t *text) head(program string) {
	t.line("# %s in front of the apps, asking Gatehouse about each request. Written by `gatehouse config snippet %s`.", program, strings.ToLower(program))
	t.line("#")
	t.line("# The configuration of Gatehouse has to list the address that %s connects from:", program)
	t.line("#   trusted_proxies: [127.0.0.1]")
	t.line("#   forward_auth: {peers: [127.0.0.1]}")
}
