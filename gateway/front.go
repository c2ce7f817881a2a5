package gateway

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"gatehouse/access"
	"gatehouse/accesslog"
	"gatehouse/audit"
	"gatehouse/problem"
	"gatehouse/proxy"
	"gatehouse/proxy/clientip"
	"gatehouse/web"
)

// front is the public listener's handler: it names each request and its client, and sends it to the login edge or, for
// everything that is not ours, to the proxy.
type front struct {
	clients  *clientip.Resolver
	external string // host[:port] of the external URL, as browsers send it
	address  string // the same with its port in any case
	loopback bool   // the external host is a loopback name, so its other spellings are sent there
	origin   string
	security string // Strict-Transport-Security; empty for none
	apps     *access.Table
	carries  bool // the login host carries an app
	login    *web.Edge
	app      http.Handler
	authz    http.Handler       // forward-auth
	asking   *clientip.Resolver // believes the front proxies that ask there, too
	health   http.Handler
	log      *slog.Logger
	access   *accesslog.Log
	now      func() time.Time
	elapsed  func() time.Duration
}

// visit is what is known of a request's client. It is the context of the request, so that whoever has the request can ask; it is
// made in ServeHTTP and nowhere else.
type visit struct {
	context.Context
	web.Visitor
	client clientip.Client
	logged *logged // nil if no line is written of it
}

type visitKey struct{}

// Value implements context.Context.
func (v *visit) Value(key any) any {
	if key == (visitKey{}) {
		return v
	}
	return v.Context.Value(key)
}

// visitor is what the login edge learns of a request's client.
func visitor(r *http.Request) web.Visitor { return visitOf(r).Visitor }

// visitOf is the visit of a request that came through the front, and that of nobody for any other.
func visitOf(r *http.Request) *visit {
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
		return v
	}
	return &visit{}
}

// recordedClient is what a record says of a request's client.
func recordedClient(r *http.Request) audit.Client {
	v := visitOf(r)
	return audit.Client{Address: v.Address.String(), Network: v.Network.String(), Claimed: v.Claimed, UserAgent: r.UserAgent()}
}

// front makes the public handler.
func (g *assembly) front(login *web.Edge, app http.Handler) http.Handler {
	external := g.config.ExternalURL
	return &front{
		clients: clientip.New(g.config.TrustedProxies), authz: g.forwardAuth(g.proxied), asking: g.asking(), external: external.Host, address: external.Address(),
		loopback: external.Local(), origin: external.String(), apps: g.table, carries: LoginHostHasApp(g.config),
		security: transportSecurity(g.config), login: login, app: app, health: g.health(), log: g.deps.Logger, access: g.access,
		now: g.deps.Now, elapsed: g.deps.Elapsed,
	}
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	clients := f.clients
	if strings.HasPrefix(r.URL.Path, proxy.AuthzPath) {
		clients = f.asking
	}
	client := clients.Resolve(r)
	v := &visit{Context: r.Context(), client: client, Visitor: web.Visitor{
		RequestID: rand.Text(), Address: client.Address, Network: clientip.Network(client.Address), Claimed: client.Claimed,
	}}
	r = r.WithContext(v)
	if line := f.begin(w, r, v); line != nil {
		w = line
		defer f.end(line)
	}
	defer f.lastResort(w, r)
	if f.security != "" {
		w.Header().Set("Strict-Transport-Security", f.security) // the proxy leaves an app's own in its place
	}
	handler, ours := f.choose(r)
	if ours { // the proxy sees to its own answers
		w.Header()[proxy.HeaderRequestID] = []string{v.RequestID}
		if proxy.Ambiguous(r) {
			w.Header().Set("Connection", "close")
		}
	}
	handler.ServeHTTP(w, r)
}

// choose finds who answers, and whether that is one of our own handlers and not the proxy. The login host comes first: no wildcard of
// the apps makes it one of theirs.
func (f *front) choose(r *http.Request) (handler http.Handler, ours bool) {
	if twoHosts(r) {
		return f.problem(problem.BadRequest), true
	}
	if healthPath(r.URL.Path) {
		return f.health, true
	}
	if strings.HasPrefix(r.URL.Path, proxy.AuthzPath) { // on every host: front proxies send what they call the gateway
		return f.authz, true
	}
	reserved := strings.HasPrefix(r.URL.Path, web.Prefix) || r.URL.Path == strings.TrimSuffix(web.Prefix, "/")
	switch login := f.known(r.Host); {
	case login && reserved:
		return f.login, true
	case login && f.carries:
		return f.app, false
	case login && r.URL.Path == "/":
		return http.RedirectHandler(web.Prefix+"login", http.StatusFound), true // which also says that somebody is signed in
	case login:
		return f.problem(problem.NotFound), true
	}
	switch origin, app := f.apps.Origin(r.Host); {
	case !app, origin == f.origin: // or the login host in a spelling that no browser sends
		return http.HandlerFunc(f.elsewhere), true
	case reserved:
		return f.login.OnHost(origin), true
	default:
		return f.app, false
	}
}

// twoHosts reports whether a request of HTTP/2 names another host beside its :authority (RFC 9113, section 8.3.1): somebody may decide by
// the one and somebody else by the other. Of HTTP/1 net/http takes the line out of the header.
func twoHosts(r *http.Request) bool {
	named := r.Header["Host"]
	return len(named) > 1 || len(named) == 1 && !strings.EqualFold(named[0], r.Host)
}

// problem is a handler that answers with a problem.
func (f *front) problem(code problem.Code) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.login.Problem(w, r, problem.New(code)) })
}

// known reports whether a Host names the login host (RFC 9110, section 7.2), with its port or, where that is the scheme's
// own, without.
func (f *front) known(host string) bool {
	return strings.EqualFold(host, f.external) || strings.EqualFold(host, f.address)
}

// elsewhere answers for a host that is not ours: another spelling of loopback is sent to the external URL, where the
// cookies are; everything else is misdirected.
func (f *front) elsewhere(w http.ResponseWriter, r *http.Request) {
	if f.loopback && isLoopback(r.Host) && strings.HasPrefix(r.URL.Path, "/") && !strings.HasPrefix(r.URL.Path, "//") {
		w.Header().Set("Cache-Control", "no-store")
		http.Redirect(w, r, f.origin+r.URL.RequestURI(), http.StatusPermanentRedirect)
		return
	}
	f.login.Problem(w, r, problem.New(problem.Misdirected))
}

// lastResort answers a request whose handler panicked, and keeps the process (ASVS 16.5.4).
func (f *front) lastResort(w http.ResponseWriter, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler { //nolint:errorlint // net/http panics with this very value
		panic(cause)
	}
	f.log.ErrorContext(r.Context(), "handler panicked", "cause", cause, "request_id", visitOf(r).RequestID, "stack", string(debug.Stack()))
	problem.New(problem.Internal).Write(w)
}

// isLoopback reports whether a Host is a loopback address or localhost, whatever its port.
func isLoopback(hostport string) bool {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	} else if strings.Trim(port, "0123456789") != "" {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}
