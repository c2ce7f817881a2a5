// Package listener makes a TCP listener that can be open to everybody.
//
// It promises: no more connections are open than allowed, in all and from one address, and those beyond are closed at once instead of
// waiting, so that an attacker who fills the listener is not helped by its queue; a connection counts for the peer of its socket,
// whatever it says of itself; and a PROXY header (HAProxy's PROXY protocol, versions 1 and 2) is read from the listed peers, who must
// send one within a bounded time, and from nobody else: to all others its bytes are a broken request.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

const (
	// headerTimeout bounds the wait for a PROXY header, which comes with the first packet.
	headerTimeout = 5 * time.Second
	// complaints is how often refusals are logged.
	complaints = time.Minute
)

// Options of New. The zero Options bound nothing and believe nobody.
type Options struct {
	// Max is how many connections may be open, and PerAddress how many of them from one IPv4 address or IPv6 /64; 0 is no bound.
	Max, PerAddress int
	// Exempt reports whether a peer has no bound of its own: a proxy, behind whose one address stand many clients. Those of Proxies have
	// none. It may be nil.
	Exempt func(netip.Addr) bool
	// Proxies are the peers that must send a PROXY header.
	Proxies []netip.Prefix
	// Refused is told of every connection that was closed because too many were open; it may be nil, and must not wait.
	Refused func()
	// Logger is required.
	Logger *slog.Logger
}

// Listener bounds and names the connections of another one. Safe for concurrent use.
type Listener struct {
	net.Listener
	o Options

	mu        sync.Mutex
	all       int                  // guarded by mu: open connections
	by        map[netip.Prefix]int // guarded by mu: of them, those of peers that are not exempt; none is 0
	refused   uint64               // guarded by mu: connections that were closed because too many were open
	complains bool                 // guarded by mu: refusals were logged within complaints
}

// New takes over a TCP listener.
func New(tcp net.Listener, o Options) *Listener {
	return &Listener{Listener: tcp, o: o, by: map[netip.Prefix]int{}}
}

// Accept returns the next connection that may stay. Its RemoteAddr may wait for a PROXY header.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := address(accepted.RemoteAddr())
		proxy := contains(l.o.Proxies, peer)
		release, ok := l.admit(peer, proxy || l.o.Exempt != nil && l.o.Exempt(peer))
		if !ok {
			_ = accepted.Close()
			continue
		}
		if proxy {
			return l.behindProxy(accepted, release), nil
		}
		return counted(accepted, release), nil
	}
}

// admit counts a connection, unless there are too many.
func (l *Listener) admit(peer netip.Addr, exempt bool) (release func(), ok bool) {
	source := bucket(peer)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.o.Max > 0 && l.all >= l.o.Max || !exempt && l.o.PerAddress > 0 && l.by[source] >= l.o.PerAddress {
		l.complain(source)
		return nil, false
	}
	l.all++
	if !exempt {
		l.by[source]++
	}
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all--
		if exempt {
			return
		}
		if l.by[source]--; l.by[source] == 0 {
			delete(l.by, source)
		}
	}), true
}

// complain counts a refusal and says so once a minute; mu is held.
func (l *Listener) complain(source netip.Prefix) {
	l.refused++
	if l.o.Refused != nil {
		l.o.Refused()
	}
	if l.complains {
		return
	}
	l.complains = true
	l.o.Logger.WarnContext(context.Background(), "too many connections are open, further ones are closed at once",
		"open", l.all, "peer", source, "of_peer", l.by[source], "refused_so_far", l.refused)
	time.AfterFunc(complaints, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.complains = false
	})
}

// tcpConn is a counted connection. It embeds the TCP connection itself, so that net/http finds what it can do beyond net.Conn: splicing
// files and other connections, and closing one direction.
type tcpConn struct {
	*net.TCPConn
	release func()
}

// Close implements net.Conn.
func (c *tcpConn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}

// otherConn is a counted connection of another kind.
type otherConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *otherConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

func counted(accepted net.Conn, release func()) net.Conn {
	if tcp, ok := accepted.(*net.TCPConn); ok {
		return &tcpConn{tcp, release}
	}
	return &otherConn{accepted, release}
}

// behindProxy is a connection that begins with a PROXY header. Whoever reads or asks for its address first waits for it.
func (l *Listener) behindProxy(accepted net.Conn, release func()) net.Conn {
	inner := counted(accepted, release)
	return &proxyConn{proxyproto.NewConn(inner,
		proxyproto.WithPolicy(proxyproto.REQUIRE), proxyproto.SetReadHeaderTimeout(headerTimeout), proxyproto.ValidateHeader(validate),
	), inner}
}

// validate refuses a header that names no TCP client. One without a client at all (LOCAL, UNKNOWN) is the proxy's own connection, as
// for a health check, and counts as coming from the proxy.
func validate(h *proxyproto.Header) error {
	if h.Command.IsLocal() || h.TransportProtocol.IsUnspec() {
		return nil
	}
	if _, ok := h.SourceAddr.(*net.TCPAddr); !ok {
		return fmt.Errorf("PROXY header for %v, want TCP", h.TransportProtocol)
	}
	return nil
}

// proxyConn is a connection from behind a proxy that can close one direction.
type proxyConn struct {
	*proxyproto.Conn
	inner net.Conn
}

// CloseWrite lets net/http end an answer before it gives up what the client still sends.
func (c *proxyConn) CloseWrite() error {
	if half, ok := c.inner.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// RemoteAddr implements net.Conn: the client that the header names.
func (c *proxyConn) RemoteAddr() net.Addr {
	if a := c.Conn.RemoteAddr(); a != nil && address(a).IsValid() {
		return a
	}
	return c.inner.RemoteAddr()
}

// address is the IP address of a socket, unmapped and without zone; not valid if it has none.
func address(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// bucket is what a peer is counted with: itself, or for IPv6 its /64, which one subscriber has whole.
func bucket(peer netip.Addr) netip.Prefix {
	bits := peer.BitLen()
	if peer.Is6() {
		bits = 64
	}
	prefix, err := peer.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: all of these together
	}
	return prefix
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool {
		if base := p.Addr(); base.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(base.Unmap(), p.Bits()-96)
		}
		return p.Contains(a)
	})
}
