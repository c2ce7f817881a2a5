package proxy

import (
	"bufio"
	"context"
	"errors"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/problem"
	"gatehouse/session"
)

const (
	// cookiesWithin is how old the cookies of a renewal may be when the answer begins that brings them: well below the time within
	// which session.Manager takes a former handle for one that is still on its way.
	cookiesWithin = 10 * time.Second
	// maxInterim is how many interim answers (1xx) an app may give to one request.
	maxInterim = 32

	bypassIdentity = "identity-header"
	bypassOrigin   = "websocket-origin"
	bypassPath     = "ambiguous-path"
	// bypassForwardAuth: somebody who is no front proxy asked as one.
	bypassForwardAuth = "forward-auth-peer"
)

var (
	errSessionEnded = errors.New("the session ended")
	errInterim      = errors.New("the app gave too many interim answers")
	errLate         = errors.New("the app did not begin its answer in time")
	errUnasked      = errors.New("the app switched protocols unasked")
	errStatus       = errors.New("the app's answer has a status that is none")
)

// exchange is one request on its way through, with what was found out about it. It is the http.ResponseWriter that
// httputil.ReverseProxy writes to: a wrapper by hand, because all that ReverseProxy asks of it beyond the interface goes
// through http.ResponseController and so through Unwrap. It is also the context of the request that ReverseProxy sees, so that one
// ReverseProxy serves all requests of a route and its hooks find what they need; its cause says why the exchange was cut.
type exchange struct {
	http.ResponseWriter
	context.Context

	proxy     *Proxy
	route     *route
	in        *http.Request
	url       url.URL // at the app
	prefix    string  // of the path, that the app does not see
	origin    string  // of the host that was asked for
	who       session.Principal
	signedIn  bool           // who is somebody
	cookies   []*http.Cookie // of a renewal, to add to the answer
	renewed   time.Time      // when they were made
	assertion string
	security  []string // Strict-Transport-Security of the gateway, for an app that has none
	websocket bool

	end      context.CancelCauseFunc
	upload   *upload      // nil if the request has no body
	upstream *upstream    // where it is under way; owned by the handler's goroutine
	begins   atomic.Bool  // the app has begun its answer
	code     problem.Code // with which the gateway answered itself
	interim  int          // owned by the transport until it has the answer

	watching sync.WaitGroup
	mu       sync.Mutex // guards begun, writing, cut, unread, and the writing of hijacked
	begun    bool       // the final answer has begun, or the connection was taken over
	writing  bool       // an interim answer is being written
	cut      bool       // the session ended
	unread   bool       // nothing more is read from the client
	hijacked bool       // written by the handler's goroutine
}

// exchangeKey is where the contexts that net/http makes of an exchange lead back to it.
type exchangeKey struct{}

// Value implements context.Context.
func (x *exchange) Value(key any) any {
	if key == (exchangeKey{}) {
		return x
	}
	return x.Context.Value(key)
}

func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

// newForward makes what carries all requests of a route; every one of them comes from serve.
func newForward(transport http.RoundTripper, buffers httputil.BufferPool, errorLog *log.Logger) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        func(pr *httputil.ProxyRequest) { exchangeOf(pr.In).rewrite(pr) },
		ModifyResponse: func(answer *http.Response) error { return exchangeOf(answer.Request).modify(answer) },
		ErrorHandler:   func(_ http.ResponseWriter, r *http.Request, err error) { exchangeOf(r).fail(err) },
		Transport:      transport, BufferPool: buffers, ErrorLog: errorLog,
	}
}

// serve sends the request to the app and its answer back.
func (x *exchange) serve() {
	x.Context, x.end = context.WithCancelCause(x.in.Context())
	x.security = x.Header()[headerSecurity]
	in := x.incoming()
	x.proxy.lookout.add(x)
	defer func() {
		x.end(nil)
		x.moveTo(nil)
		x.proxy.lookout.remove(x) // the connection may serve another request next: nobody may cut it late
		x.proxy.observe(x.route, x.code)
	}()
	x.route.forward.ServeHTTP(x, in)
}

// incoming is the request as ReverseProxy gets it. Of its header ReverseProxy sees only what it has to act upon; all the rest goes from
// the client's header to the app's in rewrite, and is not copied in between.
func (x *exchange) incoming() *http.Request {
	in := x.in.WithContext(x)
	in.Header = nil
	if x.websocket { // ReverseProxy asks the app for any upgrade that it finds
		in.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": x.in.Header["Upgrade"]}
	}
	if trailers := x.in.Header["Te"]; len(trailers) > 0 && in.Header == nil {
		in.Header = http.Header{"Te": trailers}
	}
	if in.Body != nil && in.ContentLength != 0 {
		x.upload = &upload{ReadCloser: in.Body, in: x.in, limit: x.route.bodyLimit, sent: make(chan struct{})}
		in.Body = x.upload
	}
	return in
}

// rewrite makes the request for the app: what belongs to the connection and what a client may not say stays behind, and what the
// gateway says is set last.
func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	*out.URL = x.url // ReverseProxy made a copy for this request
	header, forged := passOn(x.in.Header)
	maps.Copy(header, out.Header) // what ReverseProxy says to the app's connection
	out.Header = header
	session.StripRequest(out.Header)
	if x.proxy.takesAuthorization(x.in, &x.who, x.signedIn) {
		out.Header.Del("Authorization")
	}
	out.Close = bindsConnection(out.Header["Authorization"])
	if len(out.Trailer) > 0 {
		forged = stripClient(out.Trailer) || forged
		if x.upload != nil {
			x.upload.out = out.Trailer
		}
	}
	if forged {
		x.proxy.bypass(x.in, bypassIdentity)
	}
	if x.route.upstreamHost {
		out.Host = x.url.Host
	}
	identify(out.Header, x)
}

// modify makes the app's answer the client's.
func (x *exchange) modify(answer *http.Response) error {
	x.begins.Store(true)
	if answer.StatusCode == http.StatusSwitchingProtocols && !x.websocket {
		return errUnasked
	}
	if answer.StatusCode < 100 || answer.StatusCode > 999 {
		return errStatus // net/http would panic instead of writing it
	}
	stripApp(answer.Header)
	delete(x.Header(), headerSecurity)
	if x.security != nil && answer.Header[headerSecurity] == nil {
		answer.Header[headerSecurity] = x.security
	}
	if cookies := x.freshCookies(); len(cookies) > 0 {
		addCookies(answer.Header, cookies)
		makePrivate(answer.Header)
	}
	if Ambiguous(x.in) {
		answer.Header.Set("Connection", "close")
	}
	if (answer.ContentLength < 0 || answer.ProtoMajor > 1) && answer.StatusCode != http.StatusSwitchingProtocols {
		stripApp(answer.Trailer)
		if len(answer.Trailer) > 0 && x.in.ProtoMajor == 1 {
			answer.Header.Del("Content-Length") // in HTTP/1.1 only a chunked body has trailers (RFC 9112, section 7.1.2)
		}
		answer.Body = &download{ReadCloser: answer.Body, answer: answer}
	}
	x.handOver(answer)
	return nil
}

// handOver gives the header of the app's answer to the client's as it is. ReverseProxy would copy it line by line, which is left to it
// only where it looks into the header: to switch protocols, and to see that an answer is a stream of events and must not wait.
func (x *exchange) handOver(answer *http.Response) {
	if answer.StatusCode == http.StatusSwitchingProtocols || isEventStream(answer.Header) {
		return
	}
	maps.Copy(x.Header(), answer.Header)
	answer.Header = nil
}

// isEventStream reports whether ReverseProxy could take an answer for server-sent events.
func isEventStream(h http.Header) bool {
	const name = "text/event-stream"
	kind := strings.TrimLeft(h.Get("Content-Type"), " \t")
	return len(kind) >= len(name) && strings.EqualFold(kind[:len(name)], name)
}

// freshCookies are the cookies of a renewal, unless the app took so long to answer that another request may have brought the
// browser newer ones, which these would replace. A browser that had no other request gets them with its next one.
func (x *exchange) freshCookies() []*http.Cookie {
	if age := x.proxy.now().Sub(x.renewed); age > cookiesWithin || age < 0 {
		return nil
	}
	return x.cookies
}

// fail answers a request for which the app gave no answer that can be passed on.
func (x *exchange) fail(err error) {
	if x.hijacked {
		return // the connection is no longer one on which HTTP could be answered
	}
	why := problem.New(x.blame(err))
	if x.upload != nil && !x.upload.complete.Load() {
		x.stopReading()
		if x.in.ProtoMajor == 1 { // of HTTP/2 the stream ends; net/http would take this for the end of all others on the connection, too
			x.Header().Set("Connection", "close")
		}
	}
	switch why.Code {
	case problem.SessionRequired:
		x.Header().Set("WWW-Authenticate", "Bearer")
		why.LoginURL = x.proxy.external + loginPath
	default:
		addCookies(x.Header(), x.freshCookies())
	}
	if why.Code == problem.UpstreamUnavailable || why.Code == problem.UpstreamTimeout {
		x.proxy.logger.WarnContext(x, "app does not answer", "route", x.route.name, "err", err, "request_id", x.proxy.requestID(x.in))
	}
	x.code = why.Code
	x.proxy.draw(x.ResponseWriter, x.in, why)
}

// blame says whose fault it is. If the client is gone, it breaks off: an empty answer would read as the app's.
func (x *exchange) blame(err error) problem.Code {
	switch cause := context.Cause(x); {
	case errors.Is(cause, errSessionEnded):
		return problem.SessionRequired
	case x.in.Context().Err() != nil:
		panic(http.ErrAbortHandler)
	case x.upload != nil && x.upload.tooLarge.Load():
		return problem.TooLarge
	case x.upload != nil && x.upload.failed.Load():
		return problem.BadRequest // a body that ends early or is no chunked body
	}
	if errors.Is(context.Cause(x), errLate) {
		return problem.UpstreamTimeout
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return problem.UpstreamTimeout
	}
	return problem.UpstreamUnavailable
}

// WriteHeader implements http.ResponseWriter.
func (x *exchange) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		x.begin()
		x.ResponseWriter.WriteHeader(status)
		return
	}
	if x.interim++; x.interim > maxInterim {
		x.end(errInterim)
		return
	}
	if status == http.StatusContinue {
		return // the app gets the body now, and net/http says this to a client that waits for it when it is read
	}
	if x.in.ProtoAtLeast(1, 1) { // RFC 9110, section 15.2: never to an HTTP/1.0 client
		h := x.Header()
		stripApp(h)
		for _, hop := range [...]string{"Connection", "Keep-Alive", "Proxy-Connection", "Upgrade"} {
			h.Del(hop)
		}
		x.writeInterim(status)
	}
}

// writeInterim writes an interim answer; a client that reads none of it is not waited for after the end of the session.
func (x *exchange) writeInterim(status int) {
	x.mu.Lock()
	cut := x.cut
	x.writing = !cut
	x.mu.Unlock()
	if cut {
		return
	}
	x.ResponseWriter.WriteHeader(status)
	x.mu.Lock()
	x.writing = false
	x.mu.Unlock()
}

// Hijack implements http.Hijacker, for an upgrade. net/http ends its own read by a deadline that has passed; if takeTime lifted that in
// between, it would wait until the client says something (TestProxy_upgradesAtTheMomentOfTheWatch).
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	x.mu.Lock()
	conn, buffered, err := http.NewResponseController(x.ResponseWriter).Hijack()
	x.hijacked = err == nil
	x.mu.Unlock()
	if err == nil {
		x.begin()
		if !x.signedIn {
			return conn, buffered, nil
		}
		if activity := x.proxy.sessions.Activity(x.in, x.who); activity != nil {
			conn = &activeConn{Conn: conn, activity: activity}
		}
	}
	return conn, buffered, err
}

// activeConn is an upgraded connection on which what the client sends counts as activity of its session.
type activeConn struct {
	net.Conn
	activity *session.Activity
}

// Read implements net.Conn.
func (c *activeConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.activity.Note()
	}
	return n, err
}

// CloseWrite tells the client that the app has nothing more to say; httputil.ReverseProxy asks for it.
func (c *activeConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }
