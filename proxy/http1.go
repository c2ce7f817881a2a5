package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"syscall"
	"time"
)

// unlimited is more than any answer has.
const unlimited = 1 << 62

var (
	errHeaderTooLarge = fmt.Errorf("the header of the app's answer is larger than %d bytes", maxAnswerHeader)
	errNothingCame    = errors.New("the app closed the connection without an answer")
)

// http1 carries requests without a body to one upstream over HTTP/1.1 without TLS, which is what most requests are. The goroutine that
// serves a request writes it and reads its answer itself. http.Transport has two further goroutines for each connection, so that an answer
// may begin while a body is still on its way; waking them takes more of the processor than all that the gateway does beside.
//
// What goes over the wire is written and read by net/http: [http.Request.Write] and [http.ReadResponse], which http.Transport calls, too.
// What is here is the connections: which are kept while they are unused, and that a safe request which meets one that the app has just closed is
// sent once more. It is safe for concurrent use.
type http1 struct {
	host    string // of the upstream, with its port
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	keepFor time.Duration // at most, and half of that at least, an unused connection

	mu     sync.Mutex
	unused []*http1Conn // the one used last at the end
	sweep  *time.Timer  // every half of keepFor; nil while there are none
	round  uint64       // counts its sweeps
	closed bool         // nothing more is kept
}

// isHTTP1 reports whether a request is of the kind that http1 carries. All others are http.Transport's: those with a body, which the app
// may answer before it has all of it; upgrades; and what binds its connection.
func isHTTP1(r *http.Request) bool {
	return isSafe(r.Method) && r.Body == nil && len(r.Trailer) == 0 && !r.Close && r.Header["Upgrade"] == nil
}

// isSafe reports whether a request of this method may be repeated (RFC 9110, section 9.2.1).
func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// RoundTrip implements http.RoundTripper for what isHTTP1 accepts. When the request's context ends, so does its connection; the error is the
// context's cause.
func (t *http1) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		c, err := t.connection(r.Context())
		if err != nil {
			return nil, causeOf(r.Context(), err)
		}
		if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.GotConn != nil {
			trace.GotConn(httptrace.GotConnInfo{Conn: c.Conn, Reused: c.used})
		}
		again := c.used
		answer, err := c.exchange(r)
		if err == nil {
			return answer, nil
		}
		c.release(false)
		if !again || !errors.Is(err, errNothingCame) || r.Context().Err() != nil {
			return nil, causeOf(r.Context(), err)
		}
	}
}

// causeOf is why a context ended, and err if it has not.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// connection returns one that is not in use, or makes one.
func (t *http1) connection(ctx context.Context) (*http1Conn, error) {
	for c := t.take(); c != nil; c = t.take() {
		if c.isSilent() {
			return c, nil
		}
		_ = c.Close()
	}
	conn, err := t.dial(ctx, "tcp", t.host)
	if err != nil {
		return nil, err
	}
	return newHTTP1Conn(t, conn)
}

// take returns the unused connection that was used last; nil if there is none.
func (t *http1) take() *http1Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := len(t.unused) - 1
	if last < 0 {
		return nil
	}
	c := t.unused[last]
	t.unused[last] = nil
	t.unused = t.unused[:last]
	return c
}

// keep takes a connection back, and reports whether it did.
func (t *http1) keep(c *http1Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.unused) >= maxIdlePerHost {
		return false
	}
	c.unusedSince = t.round
	t.unused = append(t.unused, c)
	if t.sweep == nil {
		t.sweep = time.AfterFunc(t.keepFor/2, t.closeUnused)
	}
	return true
}

// closeUnused closes the connections that were there for two sweeps, and comes back for the others.
func (t *http1) closeUnused() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.round++
	n := 0
	for n < len(t.unused) && t.unused[n].unusedSince+2 <= t.round {
		_ = t.unused[n].Close()
		n++
	}
	t.unused = append(t.unused[:0:0], t.unused[n:]...)
	if t.sweep = nil; len(t.unused) > 0 {
		t.sweep = time.AfterFunc(t.keepFor/2, t.closeUnused)
	}
}

// close ends the unused connections; those in use end with their requests.
func (t *http1) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, c := range t.unused {
		_ = c.Close()
	}
	t.unused = nil
	if t.sweep != nil {
		t.sweep.Stop()
		t.sweep = nil
	}
}

// http1Conn is a connection to an app. One request at a time owns it; only cut may be called beside.
type http1Conn struct {
	net.Conn
	transport   *http1
	raw         syscall.RawConn
	in          *bufio.Reader
	out         *bufio.Writer
	used        bool   // for a request before this one
	unusedSince uint64 // the round of its transport

	budget int64       // of bytes that may still be read
	uncut  func() bool // ends the watch for the end of the request's context; false if that came first

	// Made once for all requests.
	cut    func()             // frees who waits for the app, and ends the connection also where nobody is left to do it
	probe  func(uintptr) bool // sets silent
	silent bool
}

func newHTTP1Conn(t *http1, conn net.Conn) (*http1Conn, error) {
	c := &http1Conn{Conn: conn, transport: t}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.Join(errors.New("the connection is none of the system"), conn.Close())
	}
	var err error
	if c.raw, err = socket.SyscallConn(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.in, c.out = bufio.NewReader(c), bufio.NewWriter(conn)
	c.cut = func() { _ = conn.Close() }
	c.probe = func(fd uintptr) bool {
		var one [1]byte
		_, err := syscall.Read(int(fd), one[:])
		c.silent = errors.Is(err, syscall.EAGAIN)
		return true
	}
	return c, nil
}

// Read implements io.Reader, for in.
func (c *http1Conn) Read(p []byte) (int, error) {
	if c.budget <= 0 {
		return 0, errHeaderTooLarge
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.budget)])
	c.budget -= int64(n)
	return n, err
}

// isSilent reports whether the app has neither closed the connection nor said anything that nobody asked for, and that the next request
// would be answered with.
func (c *http1Conn) isSilent() bool {
	c.silent = false
	return c.raw.Read(c.probe) == nil && c.silent
}

// exchange sends a request and reads its answer up to its body, whose end releases the connection. After an error who called has to; it is
// errNothingCame if the app has closed the connection instead of answering.
func (c *http1Conn) exchange(r *http.Request) (*http.Response, error) {
	c.uncut = context.AfterFunc(r.Context(), c.cut)
	unsent := r.Write(c.out)
	if unsent == nil {
		unsent = c.out.Flush()
	}
	// An app may refuse a request before it has read all of it, and close: its answer counts.
	answer, err := c.answer(r)
	if err != nil {
		return nil, err
	}
	c.used = true
	reusable := unsent == nil && !answer.Close && answer.StatusCode >= 200
	if answer.Body == http.NoBody {
		c.release(reusable)
		return answer, nil
	}
	answer.Body = &http1Body{ReadCloser: answer.Body, conn: c, ctx: r.Context(), reusable: reusable}
	return answer, nil
}

// answer reads the header of the final answer. Those before it go where the request's trace says.
func (c *http1Conn) answer(r *http.Request) (*http.Response, error) {
	c.budget = maxAnswerHeader
	if _, err := c.in.Peek(1); err != nil {
		return nil, fmt.Errorf("%w: %w", errNothingCame, err)
	}
	for {
		answer, err := http.ReadResponse(c.in, r)
		if err != nil {
			return nil, err
		}
		if !isInterim(answer.StatusCode) {
			c.budget = unlimited
			return answer, nil
		}
		if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(answer.StatusCode, textproto.MIMEHeader(answer.Header)); err != nil {
				return nil, err
			}
		}
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		c.budget = maxAnswerHeader
	}
}

// isInterim reports whether another answer comes behind one of this status (RFC 9110, section 15.2).
func isInterim(status int) bool {
	return status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
}

// release gives the connection back after its request, or closes it. One that was cut, or on which the app said more than its answer, is
// of no use to the next.
func (c *http1Conn) release(reusable bool) {
	uncut := c.uncut()
	if !reusable || !uncut || c.in.Buffered() > 0 || !c.transport.keep(c) {
		_ = c.Close()
	}
}

// http1Body is the body of an answer. At its end the connection is free for the next request; whoever still holds the body then cannot
// touch it any more.
type http1Body struct {
	io.ReadCloser // as net/http reads it
	conn          *http1Conn
	ctx           context.Context // of the request
	reusable      bool
	ended         bool
}

// Read implements io.Reader.
func (b *http1Body) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.ended = true
		b.conn.release(b.reusable)
	case err != nil:
		err = causeOf(b.ctx, err)
	}
	return n, err
}

// Close implements io.Closer. What was not read ends with its connection.
func (b *http1Body) Close() error {
	if !b.ended {
		b.ended = true
		b.conn.release(false)
	}
	return nil
}
