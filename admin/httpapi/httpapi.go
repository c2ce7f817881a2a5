// Package httpapi serves the administration API: HTTP with JSON in front of the service in package admin. openapi.yaml
// describes it, is served by it, and a test holds the two together.
//
// A caller is whoever is at the other end of the connection. On the administration socket that is the uid of the peer, which the kernel tells;
// on TCP it is the holder of a bearer token. Cookies mean nothing here. Because a token or a socket can be within reach of a
// browser on the same machine, a request that a page could have caused is refused: one with an Origin, one that Fetch
// Metadata calls another site's, one under a foreign host name (DNS rebinding), and a body that is not declared as JSON.
//
// Bodies are bounded, and read strictly (package strictjson). Errors are RFC 9457 problems. Whether, and how, a call is
// recorded is the service's business; requests that do not become a call are counted there too.
package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"gatehouse/admin"
	"gatehouse/audit"
	"gatehouse/problem"
)

// retryAfter is what a caller is told to wait while the store or the log is away.
const retryAfter = 5 * time.Second

// maxTails bounds the readings of the log that go on at once.
const maxTails = 16

// Options is what the API is made of. Service and Logger are required.
type Options struct {
	Service *admin.Service
	Logger  *slog.Logger
	// Operators are the uids that may use the socket: the gateway's own and root's. Empty means nobody.
	Operators []uint32
	// Tokens are what callers on TCP present. Empty means nobody.
	Tokens []Token
	// Hosts are the host names, without a port, under which the listener is asked besides localhost and loopback addresses.
	Hosts []string
}

// API is the handler. The server that runs it must have ConnContext set to [ConnContext].
type API struct {
	options Options
	mux     *http.ServeMux
	tails   chan struct{}
}

// New makes the handler.
func New(o Options) *API {
	a := &API{options: o, mux: http.NewServeMux(), tails: make(chan struct{}, maxTails)}
	for path, methods := range byPath() {
		a.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { a.dispatch(w, r, methods) })
	}
	return a
}

// exchange is one request on its way to its handler.
type exchange struct {
	*http.Request
	w      http.ResponseWriter
	api    *API
	caller admin.Caller
}

// ServeHTTP refuses what a browser could have sent, finds out who asks, and hands over to the route.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{Request: r, w: w, api: a, caller: admin.Caller{RequestID: rand.Text(), Client: clientOf(r)}}
	switch {
	case !strings.HasPrefix(r.URL.Path, "/") || path.Clean(r.URL.Path) != r.URL.Path:
		x.refuse(problem.NotFound, "") // the mux would redirect, and two spellings of a path are one too many
		return
	case !a.knownHost(r.Host):
		x.refuse(problem.Misdirected, "This listener does not have that host name.")
		return
	case fromBrowser(r.Header):
		x.refuse(problem.CrossSite, "The administration API is not for browsers.")
		return
	}
	if err := a.identify(x); err != nil {
		a.unidentified(x, err)
		return
	}
	a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
}

// exchangeKey is where the exchange travels through the mux.
type exchangeKey struct{}

// dispatch calls the handler of the method.
func (a *API) dispatch(w http.ResponseWriter, r *http.Request, methods map[string]route) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	x.Request, x.w = r, w // with the values of the path
	route, found := methods[r.Method]
	switch {
	case methods == nil:
		x.refuse(problem.NotFound, "")
		return
	case !found:
		w.Header().Set("Allow", allowed(methods))
		x.refuse(problem.MethodNotAllowed, "")
		return
	}
	if err := checkContentType(r); err != nil {
		x.fail(err)
		return
	}
	if err := route.handle(x); err != nil {
		x.fail(err)
	}
}

// knownHost reports whether the Host header names this listener. A page whose name was rebound to a loopback address sends
// its own name.
func (a *API) knownHost(host string) bool {
	name := host
	if bare, _, err := net.SplitHostPort(host); err == nil {
		name = bare
	}
	name = strings.ToLower(strings.Trim(name, "[]"))
	if address, err := netip.ParseAddr(name); name == "localhost" || err == nil && address.Unmap().IsLoopback() {
		return true
	}
	for _, known := range a.options.Hosts {
		if strings.EqualFold(name, known) {
			return true
		}
	}
	return false
}

// fromBrowser reports whether a page may have caused the request. Browsers send Origin with every request that is not a plain
// GET, and Sec-Fetch-Site with every one; "none" is somebody typing into the address bar.
func fromBrowser(h http.Header) bool {
	_, origin := h["Origin"]
	site := h.Values("Sec-Fetch-Site")
	return origin || len(site) > 1 || len(site) == 1 && site[0] != "none"
}

// clientOf is where the request came from; the peer of a socket has no address.
func clientOf(r *http.Request) audit.Client {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return audit.Client{}
	}
	return audit.Client{Address: peer.Addr().Unmap().String()}
}

// requestError is a request that cannot become a call.
type requestError struct {
	code   problem.Code
	detail string
}

func (e *requestError) Error() string { return e.detail }

func badRequest(format string, args ...any) error {
	return &requestError{problem.BadRequest, fmt.Sprintf(format, args...)}
}

// fail answers with the problem of an error: the one place where errors become statuses.
func (x *exchange) fail(err error) {
	if request := (*requestError)(nil); errors.As(err, &request) {
		x.refuse(request.code, request.detail)
		return
	}
	p := problem.New(admin.Code(err))
	p.Detail = admin.Detail(err)
	var password *admin.PasswordError
	var entries *admin.ImportError
	switch {
	case errors.As(err, &password):
		p.Reasons = password.Reasons
	case errors.As(err, &entries):
		p.Reasons = entries.Reasons
	case p.Code == problem.Unavailable:
		p.RetryAfter = problem.RetrySeconds(retryAfter)
		x.api.options.Logger.Error("administration call is not possible", "request_id", x.caller.RequestID, "error", err)
	}
	x.write(p)
}

// refuse answers a request that did not become a call, and has it counted.
func (x *exchange) refuse(code problem.Code, detail string) {
	x.api.options.Service.Refused(x.caller, code)
	p := problem.New(code)
	p.Detail = detail
	x.write(p)
}

func (x *exchange) write(p problem.Problem) {
	p.RequestID = x.caller.RequestID
	p.Write(x.w)
}
