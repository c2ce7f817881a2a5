package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	// failuresOut is how many failures in a row leave an upstream out, and backOffFrom and backOffTo for how long: the time doubles with
	// each failure after that.
	failuresOut = 3
	backOffFrom = time.Second
	backOffTo   = time.Minute
	// maxUpstreams bounds the upstreams of a route: which of them a request has tried is kept in the bits of one word.
	maxUpstreams = 64
)

// balancer spreads the requests of a route over its upstreams: each goes to the one with the fewest requests under way, in turn where they
// are equal. An upstream that fails three times in a row (no connection, no answer, or 502, 503 or 504) is left out for a second, which
// doubles up to a minute; then one request tries it. When all are out, requests go to the one whose time ends first: trying is better
// than refusing.
//
// A request is sent to another upstream only where no connection could be made, so that not a byte of it can have been acted on. Beneath that
// safe requests without a body that met a kept connection which the app had just closed are repeated to the same upstream.
//
// It is the http.RoundTripper of requests that belong to an exchange.
type balancer struct {
	route  string
	all    []*upstream
	now    func() time.Time
	logger *slog.Logger
	turn   atomic.Uint32
}

// upstream is one address of an app.
type upstream struct {
	address   url.URL
	http1     *http1 // for most requests; nil if the app does not speak it, or speaks TLS
	transport *http.Transport

	open     atomic.Int64 // requests under way
	failures atomic.Int64 // in a row
	until    atomic.Int64 // when it is tried again, in microseconds; 0 if it is not left out
}

func newBalancer(r Route, now func() time.Time, logger *slog.Logger) (*balancer, error) {
	if len(r.Upstreams) > maxUpstreams {
		return nil, fmt.Errorf("%d upstreams, more than %d", len(r.Upstreams), maxUpstreams)
	}
	b := &balancer{route: r.Name, now: now, logger: logger}
	var withTLS, cleartext *http.Transport // shared by the upstreams that speak alike
	for _, address := range r.Upstreams {
		if address == nil {
			return nil, errors.New("no upstream")
		}
		if err := bare(address); err != nil {
			return nil, fmt.Errorf("upstream: %w", err)
		}
		u := &upstream{address: url.URL{Scheme: address.Scheme, Host: address.Host}}
		switch address.Scheme {
		case "http", "https":
			if withTLS == nil {
				withTLS = newTransport(r, false)
			}
			u.transport = withTLS
			if address.Scheme == "http" {
				u.http1 = &http1{host: net.JoinHostPort(address.Hostname(), cmp.Or(address.Port(), "80")), dial: withTLS.DialContext, keepFor: withTLS.IdleConnTimeout}
			}
		case "h2c":
			if cleartext == nil {
				cleartext = newTransport(r, true)
			}
			u.address.Scheme, u.transport = "http", cleartext
		default:
			return nil, errors.New("upstream: must start with http://, https:// or h2c://")
		}
		b.all = append(b.all, u)
	}
	return b, nil
}

// close ends the unused connections.
func (b *balancer) close() {
	for _, u := range b.all {
		u.transport.CloseIdleConnections()
		if u.http1 != nil {
			u.http1.close()
		}
	}
}

// RoundTrip implements http.RoundTripper.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(b.all) == 1 { // rewrite has made it for this one, and there is no other whose health could matter
		return b.all[0].RoundTrip(r)
	}
	x := exchangeOf(r)
	var tried uint64
	for {
		u, bit := b.pick(tried)
		tried |= bit
		x.moveTo(u)
		attempt, reached := b.address(r, x, u)
		answer, err := u.RoundTrip(attempt)
		switch {
		case err == nil && !failed(answer.StatusCode):
			b.succeeded(r.Context(), u)
			return answer, nil
		case err == nil:
			b.failed(r.Context(), u)
			return answer, nil
		case !x.appFailed(err):
			return nil, err
		}
		b.failed(r.Context(), u)
		if reached.Load() || tried == 1<<len(b.all)-1 || x.upload != nil && x.upload.begun.Load() {
			return nil, err
		}
	}
}

// RoundTrip implements http.RoundTripper.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	if u.http1 != nil && isHTTP1(r) {
		return u.http1.RoundTrip(r)
	}
	return u.transport.RoundTrip(r)
}

// address makes a request for an upstream. reached tells whether there was a connection on which it could have been sent.
func (b *balancer) address(r *http.Request, x *exchange, u *upstream) (attempt *http.Request, reached *atomic.Bool) {
	reached = new(atomic.Bool)
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { reached.Store(true) }}
	attempt = r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
	at := *r.URL
	at.Scheme, at.Host = u.address.Scheme, u.address.Host
	attempt.URL = &at
	if x.route.upstreamHost {
		attempt.Host = u.address.Host
	}
	if r.Body != nil {
		attempt.Body = &attemptBody{reader: r.Body}
	}
	return attempt, reached
}

// attemptBody is the body for one attempt: the transport closes what it was given also where it could not connect.
type attemptBody struct {
	reader io.Reader
	closed atomic.Bool
}

// errClosed is what a transport gets that reads on after it has given up.
var errClosed = errors.New("the body is closed")

// Read implements io.Reader.
func (a *attemptBody) Read(p []byte) (int, error) {
	if a.closed.Load() {
		return 0, errClosed
	}
	return a.reader.Read(p)
}

// Close implements io.Closer.
func (a *attemptBody) Close() error {
	a.closed.Store(true)
	return nil
}

// pick chooses an upstream that was not tried, and returns the bit by which it is known.
func (b *balancer) pick(tried uint64) (best *upstream, bit uint64) {
	now := b.now().UnixMicro()
	start := int(b.turn.Add(1))
	var soonest int64
	var waiting *upstream // the one that is tried again first
	var waitingBit uint64
	for i := range b.all {
		n := (start + i) % len(b.all)
		u := b.all[n]
		if tried&(1<<n) != 0 {
			continue
		}
		ready, trial := u.ready(now)
		if trial {
			return u, 1 << n
		}
		if !ready {
			if until := u.until.Load(); waiting == nil || until < soonest {
				waiting, waitingBit, soonest = u, 1<<n, until
			}
			continue
		}
		if best == nil || u.open.Load() < best.open.Load() {
			best, bit = u, 1<<n
		}
	}
	if best == nil {
		return waiting, waitingBit
	}
	return best, bit
}

// ready reports whether requests may go to the upstream. When the time for which it was left out is over, one is a trial and goes there; the
// next have to wait for its outcome, or as long again. An end that is further away than any is no end: the clock was set back.
func (u *upstream) ready(now int64) (ready, trial bool) {
	until := u.until.Load()
	if until == 0 {
		return true, false
	}
	if now < until && until-now <= backOffTo.Microseconds() {
		return false, false
	}
	return false, u.until.CompareAndSwap(until, now+backOff(u.failures.Load()).Microseconds())
}

// backOff is for how long an upstream with so many failures is left out.
func backOff(failures int64) time.Duration {
	doublings := min(max(failures-failuresOut, 0), 6)
	return min(backOffFrom<<doublings, backOffTo)
}

// failed counts a failure of an upstream, and leaves it out if there were too many.
func (b *balancer) failed(ctx context.Context, u *upstream) {
	n := u.failures.Add(1)
	if n < failuresOut {
		return
	}
	u.until.Store(b.now().Add(backOff(n)).UnixMicro())
	if n == failuresOut {
		b.logger.WarnContext(ctx, "upstream fails and is left out", "route", b.route, "upstream", u.address.Host)
	}
}

// succeeded ends a row of failures.
func (b *balancer) succeeded(ctx context.Context, u *upstream) {
	if u.failures.Load() == 0 { // not written to by every request, which would tear it from processor to processor
		return
	}
	if u.failures.Swap(0) >= failuresOut {
		b.logger.InfoContext(ctx, "upstream is back", "route", b.route, "upstream", u.address.Host)
	}
	u.until.Store(0)
}

// failed reports whether an answer says that the upstream cannot serve.
func failed(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// appFailed reports whether an attempt ended because of the app, and not of the client, its body or its session.
func (x *exchange) appFailed(err error) bool {
	if x.upload != nil && (x.upload.failed.Load() || x.upload.tooLarge.Load()) {
		return false
	}
	return x.Err() == nil || errors.Is(context.Cause(x), errLate) || errors.Is(err, errInterim)
}

// moveTo counts the exchange as under way at an upstream, and at no other. nil: at none.
func (x *exchange) moveTo(u *upstream) {
	if x.upstream != nil {
		x.upstream.open.Add(-1)
	}
	if x.upstream = u; u != nil {
		u.open.Add(1)
	}
}
