package configs

import (
	"net"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Route is one app: what of which host goes to it, who may pass, and how the app is reached.
type Route struct {
	// Name is what tokens, metrics and logs call the route: 1 to 40 of a-z, 0-9 and hyphens. No two routes have the same. Empty
	// means one made of host and path.
	Name RouteName `config:"name" example:"wiki"`

	// Host is what browsers call the app, as in wiki.example.com, or "*.apps.example.com" for every name with exactly one label
	// before apps.example.com. Without a port it has that of external_url. Empty means the host of external_url, the login host, which
	// carries an app only where that is the only route.
	Host Host `config:"host" example:"wiki.example.com"`

	// Path is the beginning of the paths that the route is for, decoded and by whole segments: /wiki is /wiki and everything below
	// it. Of several routes of a host the longest path that matches decides.
	Path Path `config:"path" default:"/"`

	// Upstreams are the addresses of the app, any of which may serve any request: http://host:port, https:// with TLS, or h2c:// for
	// HTTP/2 without TLS, as gRPC wants it. They have no path of their own. At least one must be given, but where the web servers of
	// forward_auth.peers serve the app themselves.
	Upstreams []Upstream `config:"upstreams" example:"[http://127.0.0.1:3000]"`

	// Rules say who may pass. The first whose paths, methods and networks all match decides; where none does, nobody passes. No rules at
	// all are the same as one that lets everybody through who is signed in.
	Rules []Rule `config:"rules"`

	// EncodedSlashes lets %2F stand in paths, which are refused otherwise where rules tell paths apart. The strictest rule over both
	// readings, as a slash and as a part of a name, then decides.
	EncodedSlashes bool `config:"encoded_slashes"`

	// HeaderPreset says how the app hears who is there: remote (Remote-User, -Name, -Email, -Groups), x-forwarded (X-Forwarded-User …),
	// x-auth-request (X-Auth-Request-User …) or x-remote (X-Remote-User …).
	HeaderPreset HeaderPreset `config:"header_preset" oneof:"remote x-forwarded x-auth-request x-remote" default:"remote"`

	// HostHeader says what the app receives as Host: original, what the browser sent, or upstream, the address of the app itself.
	// X-Forwarded-Host is the name that the browser asked for in any case.
	HostHeader HostHeader `config:"host_header" oneof:"original upstream" default:"original"`

	// StripPrefix takes the path of the route off before the app sees it: with the path /wiki, /wiki/a arrives as /a. The app has to
	// know then what to put in front of its links.
	StripPrefix bool `config:"strip_prefix"`

	// BodyLimit is the longest body of a request, in bytes or as in 512KiB, 10MiB, 2GiB; more is answered with 413. 0 means no limit.
	BodyLimit Size `config:"body_limit"`

	// DialTimeout is the time to connect to the app; after it the answer is 502. 0s means that of proxy.dial_timeout.
	DialTimeout time.Duration `config:"dial_timeout" min:"0s" max:"1m"`

	// ResponseHeaderTimeout is the time until the app's answer begins; after it the answer is 504. 0s means that of
	// proxy.response_header_timeout.
	ResponseHeaderTimeout time.Duration `config:"response_header_timeout" min:"0s" max:"1h"`

	// IdleTimeout is how long an unused connection to the app is kept at most. 0s means that of proxy.idle_timeout.
	IdleTimeout time.Duration `config:"idle_timeout" min:"0s" max:"1h"`

	// TLS is for upstreams that begin with https.
	TLS UpstreamTLS `config:"tls"`

	// WhenStoreIsAway says what happens to people who are signed in while the store cannot be reached: continue, for as long as the access
	// token lives that this gateway has verified before (session.access_token), or refuse, with 503 at once.
	WhenStoreIsAway WhenStoreIsAway `config:"when_store_is_away" oneof:"continue refuse" default:"continue"`

	// WebSocketOrigins are the origins whose pages may open WebSockets to the app beside those of the app's own, as in
	// [https://dash.example.com]. Everybody else's are refused, because browsers send cookies along whoever asks.
	WebSocketOrigins []Origin `config:"websocket_origins"`
}

// Rule is one line of a route's rules. Paths, methods and networks select the requests that it decides.
type Rule struct {
	// Paths are beginnings of paths, decoded and by whole segments, from the root of the host whatever the route's own path is: /admin is
	// /admin and everything below it. Empty means all.
	Paths []Path `config:"paths" example:"[/admin]"`

	// Methods are methods in capitals, as in [GET, POST]; GET includes HEAD. Empty means all.
	Methods []Method `config:"methods"`

	// Networks are addresses or networks that the client is in, as in [10.0.0.0/8]. Behind a proxy they mean something only if that is
	// one of trusted_proxies. Empty means all.
	Networks []Network `config:"networks"`

	// Access is public (everybody, without a login), signed-in, or denied (nobody).
	Access Access `config:"access" oneof:"public signed-in denied" default:"signed-in"`

	// Users are names of users who pass. With groups, whoever is in any of either passes; with neither, everybody who is signed in.
	Users []UserName `config:"users"`

	// Groups are names of groups whose members pass.
	Groups []UserName `config:"groups" example:"[admins]"`

	// SecondFactor asks for a session that has used a second factor; who has not is asked for one.
	SecondFactor bool `config:"second_factor" example:"true"`

	// FactorWithin asks for a second factor that was shown within this time; who has shown one longer ago is asked anew. 0s means at any
	// time.
	FactorWithin time.Duration `config:"factor_within" min:"0s" max:"30d"`
}

// UpstreamTLS holds the settings of TLS towards an app.
type UpstreamTLS struct {
	// CAFile holds the certificates, in PEM, of the authorities that may vouch for the app, in place of those of the system.
	CAFile string `config:"ca_file"`

	// CertFile is the certificate, in PEM, with which the gateway shows the app who it is. With key_file.
	CertFile string `config:"cert_file"`

	// KeyFile is the key of cert_file, in PEM, readable by its owner alone.
	KeyFile string `config:"key_file"`

	// ServerName is the name that the app's certificate must have. Empty means the host of the upstream.
	ServerName string `config:"server_name"`
}

// HeaderPreset names a set of identity headers.
type HeaderPreset string

// The values of HeaderPreset.
const (
	PresetRemote       HeaderPreset = "remote"
	PresetXForwarded   HeaderPreset = "x-forwarded"
	PresetXAuthRequest HeaderPreset = "x-auth-request"
	PresetXRemote      HeaderPreset = "x-remote"
)

// HostHeader says what an app receives as Host.
type HostHeader string

// The values of HostHeader.
const (
	HostUpstream HostHeader = "upstream"
	HostOriginal HostHeader = "original"
)

// WhenStoreIsAway says what becomes of verified tokens while the store is away.
type WhenStoreIsAway string

// The values of WhenStoreIsAway.
const (
	Continue WhenStoreIsAway = "continue"
	Refuse   WhenStoreIsAway = "refuse"
)

// Access says who passes a rule before users, groups and factors are looked at.
type Access string

// The values of Access.
const (
	Public   Access = "public"
	SignedIn Access = "signed-in"
	Denied   Access = "denied"
)

// OnlyRoute is the name of the route where none are configured.
const OnlyRoute RouteName = "app"

// AppRoutes is the routes of the gateway, complete: with names, ports of hosts, and the time limits that proxy gives. Where no routes
// were configured it is one, OnlyRoute, for everything on the login host, whose upstreams are upstream or, for the sample app, none.
func (c Config) AppRoutes() []Route {
	routes := slices.Clone(c.Routes)
	if len(routes) == 0 {
		routes = []Route{{Name: OnlyRoute}}
		if !c.Upstream.IsZero() {
			routes[0].Upstreams = []Upstream{{c.Upstream}}
		}
	}
	for i := range routes {
		c.complete(&routes[i])
		routes[i].Host = routes[i].Host.on(c.ExternalURL)
	}
	return routes
}

// complete fills in what follows from other settings. It leaves a host without a port as it is: which one it has follows from
// external_url, which a browser shows without a port too.
func (c Config) complete(r *Route) {
	if r.Host == "" {
		r.Host = Host(c.ExternalURL.Host)
	}
	orDefault(&r.Path, "/")
	orDefault(&r.HeaderPreset, PresetRemote)
	orDefault(&r.HostHeader, HostOriginal)
	orDefault(&r.WhenStoreIsAway, Continue)
	orDefault(&r.DialTimeout, c.Proxy.DialTimeout)
	orDefault(&r.ResponseHeaderTimeout, c.Proxy.ResponseHeaderTimeout)
	orDefault(&r.IdleTimeout, c.Proxy.IdleTimeout)
	orDefault(&r.Name, nameOf(r.Host, r.Path))
	r.Rules = slices.Clone(r.Rules)
	if len(r.Rules) == 0 {
		r.Rules = []Rule{{}}
	}
	for i := range r.Rules {
		orDefault(&r.Rules[i].Access, SignedIn)
	}
}

func orDefault[T comparable](at *T, value T) {
	var none T
	if *at == none {
		*at = value
	}
}

// maxRouteName is the longest name of a route.
const maxRouteName = 40

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// nameOf makes a name of what tells a route from the others.
func nameOf(host Host, path Path) RouteName {
	text := strings.Replace(string(host), "*", "any", 1) + string(path)
	name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(text), "-"), "-")
	return RouteName(strings.TrimRight(name[:min(len(name), maxRouteName)], "-"))
}

// on is the host as browsers write it beside an external URL: with that one's port unless it has its own, and without the scheme's.
func (h Host) on(external Origin) Host {
	name, port := h.split()
	if port == "" {
		port = external.URL().Port()
	}
	suffix, err := canonicalPort(external.Scheme, port)
	if err != nil {
		return h
	}
	return Host(name + suffix)
}

// split takes a host apart; the port is empty where there is none.
func (h Host) split() (name, port string) {
	text := string(h)
	if colon := strings.LastIndexByte(text, ':'); colon > strings.LastIndexByte(text, ']') {
		return text[:colon], text[colon+1:]
	}
	return text, ""
}

// Wildcard reports whether the host stands for more than one name.
func (h Host) Wildcard() bool { return strings.HasPrefix(string(h), "*.") }

// local reports whether browsers treat every name of the host as this machine.
func (h Host) local() bool {
	name, _ := h.split()
	name = strings.Trim(strings.TrimPrefix(name, "*."), "[]")
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || net.ParseIP(name) != nil && loopbackAddress(name)
}
