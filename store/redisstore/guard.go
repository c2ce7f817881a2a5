package redisstore

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"gatehouse/store"
)

// Bounds of what a server may send in answer to one write. The client library allocates what a header announces before it
// has arrived, and follows nested arrays by recursion, so that a few bytes of a hostile or broken server could end the
// process (case RD-13 of attacks.md); therefore headers are checked before the library sees them.
const (
	maxAnswer   = 64 << 20               // bytes
	maxBulk     = store.MaxValue + 1<<16 // bytes of one string: a value and its header, or INFO
	maxElements = 1 << 20                // of all arrays together
	maxDepth    = 8                      // arrays that begin one right after the other
	maxLine     = 1 << 16                // bytes of a header, a status or an error
)

// errGarbage is the cause of every answer that breaks these bounds or is no RESP2.
var errGarbage = errors.New("the server sent something that is no answer")

// guarded is a connection whose answers are bounded. Reading and writing alternate, as the library does it; it is not for
// pipelines of unbounded length.
type guarded struct {
	net.Conn
	raw net.Conn // the socket below TLS, for the library's check of idle connections

	left     int    // bytes this answer may still have
	elements int    // array elements it may still announce
	depth    int    // arrays that began without an element since
	bulk     int    // bytes still to come of the string that is being read, its line end included
	line     []byte // of the header that is being read
	bad      error  // once set, the connection is dead
}

// guardConn guards conn; nil stays nil.
func guardConn(conn, raw net.Conn) net.Conn {
	if conn == nil {
		return nil
	}
	return &guarded{Conn: conn, raw: raw}
}

// SyscallConn lets the library see that the server has closed an idle connection.
func (g *guarded) SyscallConn() (syscall.RawConn, error) {
	if s, ok := g.raw.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Write begins a new answer.
func (g *guarded) Write(b []byte) (int, error) {
	g.left, g.elements = maxAnswer, maxElements
	return g.Conn.Write(b)
}

// Read passes on what keeps to the bounds.
func (g *guarded) Read(b []byte) (int, error) {
	if g.bad != nil {
		return 0, g.bad
	}
	n, err := g.Conn.Read(b)
	if bad := g.check(b[:n]); bad != nil {
		g.bad = bad
		_ = g.Conn.Close() // nothing that comes after it can be understood
		return 0, bad
	}
	return n, err
}

// check follows the framing of RESP2 through b.
func (g *guarded) check(b []byte) error {
	if g.left -= len(b); g.left < 0 {
		return fmt.Errorf("%w: more than %d bytes", errGarbage, maxAnswer)
	}
	for len(b) > 0 {
		if g.bulk > 0 {
			n := min(g.bulk, len(b))
			g.bulk, b = g.bulk-n, b[n:]
			continue
		}
		c := b[0]
		b = b[1:]
		if g.line = append(g.line, c); len(g.line) > maxLine {
			return fmt.Errorf("%w: a line of more than %d bytes", errGarbage, maxLine)
		}
		if c != '\n' {
			continue
		}
		if err := g.header(g.line); err != nil {
			return err
		}
		g.line = g.line[:0]
	}
	return nil
}

// header checks one line and prepares for what it announces.
func (g *guarded) header(line []byte) error {
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return fmt.Errorf("%w: %.40q", errGarbage, line)
	}
	kind, rest := line[0], string(line[1:len(line)-2])
	switch kind {
	case '+', '-', ':':
		g.depth = 0
		return nil
	case '$', '*':
	default:
		return fmt.Errorf("%w: %.40q", errGarbage, line)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < -1 {
		return fmt.Errorf("%w: %.40q", errGarbage, line)
	}
	if kind == '$' || n <= 0 { // an empty or nil array is no step down: an idle feed is answered with nothing else
		g.depth = 0
	} else {
		g.depth++
	}
	if kind == '$' {
		if n > maxBulk {
			return fmt.Errorf("%w: a string of %d bytes", errGarbage, n)
		}
		if n >= 0 {
			g.bulk = n + len("\r\n")
		}
		return nil
	}
	g.elements -= max(n, 0)
	if g.elements < 0 || g.depth > maxDepth {
		return fmt.Errorf("%w: too many elements, or too deep", errGarbage)
	}
	return nil
}
