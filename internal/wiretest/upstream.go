// Package wiretest speaks HTTP/1.1 byte by byte, for tests of what a proxy does to a message: an app that keeps every
// request as it stood on the wire, and a client that sends bytes that no HTTP library would write.
//
// The parser here is written for tests only. It is deliberately literal (names keep their case and order, nothing is
// joined or trimmed beyond the single space after the colon) and shares no code with net/http, whose reading of a message
// is what is being tested.
package wiretest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// keepBody is how much of a body is kept as text; the hash covers all of it.
const keepBody = 64 << 10

// Field is one header line.
type Field struct{ Name, Value string }

// Request is a request as it stood on the wire.
type Request struct {
	Line    string  // the request line without its CRLF
	Header  []Field // in order, names as sent
	Trailer []Field
	// Framing is "", "length" or "chunked".
	Framing    string
	Body       string // at most 64 KiB of it
	BodyBytes  int64
	BodySHA256 string
	Conn       int // which connection, from 1
	Number     int // which request of the upstream, from 1
}

// Method is the first word of the request line.
func (r Request) Method() string { return strings.SplitN(r.Line, " ", 2)[0] }

// Target is the second word of the request line.
func (r Request) Target() string {
	words := strings.Split(r.Line, " ")
	if len(words) < 2 {
		return ""
	}
	return words[1]
}

// Values returns the values of the header lines whose name is exactly this, but for case.
func (r Request) Values(name string) []string {
	var values []string
	for _, f := range r.Header {
		if strings.EqualFold(f.Name, name) {
			values = append(values, f.Value)
		}
	}
	return values
}

// CGI returns the header, trailers included, as a CGI program (RFC 3875, section 4.1.18) would see it: HTTP_ and the name
// in upper case, with every byte that is no letter and no digit folded to an underscore.
func (r Request) CGI() map[string][]string {
	folded := make(map[string][]string)
	for _, f := range append(append([]Field(nil), r.Header...), r.Trailer...) {
		name := "HTTP_" + strings.Map(func(c rune) rune {
			switch {
			case 'a' <= c && c <= 'z':
				return c - 'a' + 'A'
			case 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
				return c
			}
			return '_'
		}, f.Name)
		folded[name] = append(folded[name], f.Value)
	}
	return folded
}

// Reply answers one request on its connection. It reports whether the connection stays open for another request.
type Reply func(conn net.Conn, in *bufio.Reader, r Request) (keep bool)

// Upstream is an app that keeps what it was sent.
type Upstream struct {
	// URL is where it listens: http, loopback.
	URL string

	listener net.Listener
	before   Reply // answers before the body is read, if set
	reply    Reply
	serving  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	requests []Request
	conns    map[net.Conn]struct{}
	accepted int
	closed   bool
}

// NewUpstream starts an app that answers each request with its own description as JSON. It stops with the test.
func NewUpstream(t testing.TB) *Upstream { return start(t, nil, EchoJSON) }

// NewScripted starts an app that answers by the given function, once the whole request was read.
func NewScripted(t testing.TB, reply Reply) *Upstream { return start(t, nil, reply) }

// NewEager starts an app that answers by the given function as soon as the header was read; the body, if any, still
// stands in the reader.
func NewEager(t testing.TB, reply Reply) *Upstream { return start(t, reply, nil) }

func start(t testing.TB, before, reply Reply) *Upstream {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	u := &Upstream{
		URL: "http://" + listener.Addr().String(), listener: listener, before: before, reply: reply,
		conns: make(map[net.Conn]struct{}),
	}
	u.serving.Go(u.accept)
	t.Cleanup(u.Close)
	return u
}

// Close stops the app and cuts its connections.
func (u *Upstream) Close() {
	u.mu.Lock()
	u.closed = true
	for conn := range u.conns {
		_ = conn.Close() // may be closed already
	}
	u.mu.Unlock()
	_ = u.listener.Close() // may be closed already
	u.serving.Wait()
}

// Requests returns every request whose header, and body where one was read, came in whole.
func (u *Upstream) Requests() []Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Request(nil), u.requests...)
}

// Last returns the newest request; it fails the test if there is none.
func (u *Upstream) Last(t testing.TB) Request {
	t.Helper()
	all := u.Requests()
	if len(all) == 0 {
		t.Fatal("nothing reached the upstream")
	}
	return all[len(all)-1]
}

// Open returns how many connections are open.
func (u *Upstream) Open() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.conns)
}

func (u *Upstream) accept() {
	for {
		conn, err := u.listener.Accept()
		if err != nil {
			return
		}
		u.mu.Lock()
		if u.closed {
			u.mu.Unlock()
			_ = conn.Close()
			return
		}
		u.accepted++
		id := u.accepted
		u.conns[conn] = struct{}{}
		u.mu.Unlock()
		u.serving.Go(func() { u.serve(conn, id) })
	}
}

func (u *Upstream) serve(conn net.Conn, id int) {
	defer func() {
		_ = conn.Close() // a script may have closed it
		u.mu.Lock()
		delete(u.conns, conn)
		u.mu.Unlock()
	}()
	in := bufio.NewReader(conn)
	for {
		r, err := readHead(in)
		if err != nil {
			return
		}
		r.Conn = id
		if u.before != nil {
			if u.keep(&r); !u.before(conn, in, r) {
				return
			}
			continue
		}
		if hasField(r.Header, "Expect", "100-continue") {
			if _, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return
			}
		}
		if err := readBody(in, &r); err != nil {
			return
		}
		if u.keep(&r); !u.reply(conn, in, r) {
			return
		}
	}
}

func (u *Upstream) keep(r *Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r.Number = len(u.requests) + 1
	u.requests = append(u.requests, *r)
}

// EchoJSON answers 200 with the request's description.
func EchoJSON(conn net.Conn, _ *bufio.Reader, r Request) bool {
	body, err := json.Marshal(r)
	if err != nil {
		return false
	}
	if r.Method() == "HEAD" {
		_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
		return err == nil
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return err == nil
}

// Answer makes a Reply that writes the given bytes and keeps the connection open.
func Answer(raw string) Reply {
	return func(conn net.Conn, _ *bufio.Reader, _ Request) bool {
		_, err := io.WriteString(conn, raw)
		return err == nil
	}
}

// AnswerAndClose makes a Reply that writes the given bytes and closes the connection.
func AnswerAndClose(raw string) Reply {
	return func(conn net.Conn, _ *bufio.Reader, _ Request) bool {
		_, _ = io.WriteString(conn, raw) // the connection ends either way
		return false
	}
}

func readHead(in *bufio.Reader) (Request, error) {
	line, err := readLine(in)
	if err != nil {
		return Request{}, err
	}
	header, err := readFields(in)
	return Request{Line: line, Header: header}, err
}

func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

func readFields(in *bufio.Reader) ([]Field, error) {
	var fields []Field
	for {
		line, err := readLine(in)
		if err != nil || line == "" {
			return fields, err
		}
		name, value, _ := strings.Cut(line, ":")
		fields = append(fields, Field{Name: name, Value: strings.TrimPrefix(value, " ")})
	}
}

func readBody(in *bufio.Reader, r *Request) error {
	body := &bodyKeeper{}
	hash := sha256.New()
	sink := io.MultiWriter(hash, body)
	var err error
	switch {
	case hasField(r.Header, "Transfer-Encoding", "chunked"):
		r.Framing = "chunked"
		err = copyChunks(sink, in, r)
	case len(r.Values("Content-Length")) > 0:
		r.Framing = "length"
		var length int64
		if length, err = strconv.ParseInt(r.Values("Content-Length")[0], 10, 64); err == nil {
			_, err = io.CopyN(sink, in, length)
		}
	}
	r.Body, r.BodyBytes, r.BodySHA256 = string(body.start), body.bytes, hex.EncodeToString(hash.Sum(nil))
	return err
}

func copyChunks(sink io.Writer, in *bufio.Reader, r *Request) error {
	for {
		line, err := readLine(in)
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(strings.SplitN(line, ";", 2)[0], 16, 64)
		if err != nil {
			return err
		}
		if size == 0 {
			r.Trailer, err = readFields(in)
			return err
		}
		if _, err := io.CopyN(sink, in, size); err != nil {
			return err
		}
		if end, err := readLine(in); err != nil || end != "" {
			return errors.Join(err, errors.New("chunk without end"))
		}
	}
}

func hasField(fields []Field, name, value string) bool {
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) && strings.EqualFold(strings.TrimSpace(f.Value), value) {
			return true
		}
	}
	return false
}

// bodyKeeper keeps the start of a body and counts the rest.
type bodyKeeper struct {
	start []byte
	bytes int64
}

func (b *bodyKeeper) Write(p []byte) (int, error) {
	b.bytes += int64(len(p))
	room := max(keepBody-len(b.start), 0)
	b.start = append(b.start, p[:min(room, len(p))]...)
	return len(p), nil
}
