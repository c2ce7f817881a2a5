package listener_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gatehouse/listener"
)

// peers is a listener whose connections come from the addresses that a test names.
type peers chan net.Conn

func (p peers) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p peers) Close() error   { close(p); return nil }
func (p peers) Addr() net.Addr { return &net.TCPAddr{} }

// peer is the server's end of a connection.
type peer struct {
	net.Conn
	address netip.AddrPort
}

func (p peer) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.address) }

// bounded is a listener under test.
type bounded struct {
	*listener.Listener
	peers    peers
	accepted chan net.Conn
	refused  int
	log      bytes.Buffer
	t        *testing.T
}

func newBounded(t *testing.T, o listener.Options) *bounded {
	b := &bounded{peers: make(peers), accepted: make(chan net.Conn), t: t}
	o.Logger = slog.New(slog.NewTextHandler(&b.log, nil))
	o.Refused = func() { b.refused++ }
	b.Listener = listener.New(b.peers, o)
	t.Cleanup(func() { _ = b.Close() })
	go func() {
		for {
			conn, err := b.Accept()
			if err != nil {
				return
			}
			b.accepted <- conn
		}
	}()
	return b
}

// connect comes from an address. It returns both ends; that of the server is nil if the connection was closed.
func (b *bounded) connect(address string) (client, server net.Conn) {
	b.t.Helper()
	client, far := net.Pipe()
	b.peers <- peer{far, netip.AddrPortFrom(netip.MustParseAddr(address), 4711)}
	closed := make(chan struct{})
	go func() {
		if n, err := client.Read(make([]byte, 1)); n == 0 && err != nil {
			close(closed)
		}
	}()
	select {
	case server = <-b.accepted:
	case <-closed:
	}
	return client, server
}

func TestListener_boundsConnectionsOfOneAddress(t *testing.T) {
	t.Parallel()
	proxy := netip.MustParseAddr("10.0.0.7")
	b := newBounded(t, listener.Options{PerAddress: 2, Exempt: func(a netip.Addr) bool { return a == proxy }})
	first := map[string]net.Conn{}
	for _, c := range []struct {
		address string
		stays   bool
	}{
		{"192.0.2.1", true},
		{"192.0.2.1", true},
		{"192.0.2.1", false},
		{"::ffff:192.0.2.1", false},
		{"192.0.2.2", true},
		{"2001:db8::1", true},
		{"2001:db8::2", true},
		{"2001:db8::ffff:1", false}, // the same /64
		{"2001:db8:0:1::1", true},
		{"10.0.0.7", true},
		{"10.0.0.7", true},
		{"10.0.0.7", true},
	} {
		_, server := b.connect(c.address)
		if (server != nil) != c.stays {
			t.Errorf("%s: accepted %v, want %v", c.address, server != nil, c.stays)
		}
		if first[c.address] == nil {
			first[c.address] = server
		}
	}
	for range 2 { // closing twice gives back once
		_ = first["192.0.2.1"].Close()
	}
	if _, server := b.connect("192.0.2.1"); server == nil {
		t.Error("a closed connection still counts")
	}
	if _, server := b.connect("192.0.2.1"); server != nil {
		t.Error("closing twice gave back twice")
	}
	if b.refused != 4 || strings.Count(b.log.String(), "too many connections") != 1 {
		t.Errorf("%d refused, logged %q; want 4, and once", b.refused, b.log.String())
	}
}

func TestListener_boundsAllConnections(t *testing.T) {
	t.Parallel()
	b := newBounded(t, listener.Options{Max: 2, Exempt: func(netip.Addr) bool { return true }})
	_, first := b.connect("192.0.2.1")
	_, second := b.connect("192.0.2.2")
	if _, third := b.connect("192.0.2.3"); first == nil || second == nil || third != nil {
		t.Error("want two of three")
	}
	_ = first.Close()
	if _, third := b.connect("192.0.2.3"); third == nil {
		t.Error("a place that is free again is not given")
	}
}

// A connection counts for its socket, whatever its PROXY header says.
func TestListener_takesTheAddressOfAProxyHeader(t *testing.T) {
	t.Parallel()
	b := newBounded(t, listener.Options{PerAddress: 1, Proxies: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}})
	for range 3 { // a listed peer has no bound of its own
		client, far := net.Pipe()
		b.peers <- peer{far, netip.MustParseAddrPort("10.0.0.7:1")}
		server := <-b.accepted
		go func() { _, _ = io.WriteString(client, "PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\r\nhello") }()
		if got := server.RemoteAddr().String(); got != "192.0.2.9:4711" {
			t.Errorf("address: got %s", got)
		}
		text := make([]byte, 5)
		if _, err := io.ReadFull(server, text); err != nil || string(text) != "hello" {
			t.Errorf("behind the header: %q, %v", text, err)
		}
	}
	client, far := net.Pipe()
	b.peers <- peer{far, netip.MustParseAddrPort("192.0.2.8:1")}
	server := <-b.accepted
	go func() { _, _ = io.WriteString(client, "PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\r\n") }()
	text := make([]byte, 5)
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(server, text); err != nil || string(text) != "PROXY" || server.RemoteAddr().String() != "192.0.2.8:1" {
		t.Errorf("a peer that is not listed: address %s, read %q, %v", server.RemoteAddr(), text, err)
	}
}

// net/http gives files and other connections to what can take them without copying, and closes one direction at the end.
func TestListener_keepsWhatTCPCanDo(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := listener.New(tcp, listener.Options{Logger: slog.New(slog.DiscardHandler)})
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, ok := server.(io.ReaderFrom); !ok {
		t.Error("no io.ReaderFrom")
	}
	if _, ok := server.(interface{ CloseWrite() error }); !ok {
		t.Error("no CloseWrite")
	}
}
