package gateway_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse/configs"
	"gatehouse/internal/wiretest"
)

// flood is a client that speaks HTTP/2 frame by frame.
type flood struct {
	*http2.Framer
	headers []byte // of a good request, compressed without a table
	big     []byte // of a field that is longer than any header may be
	stream  uint32 // the last one
}

func (f *flood) next() uint32 { f.stream += 2; return f.stream }

func newFlood(t *testing.T, s *secure) *flood {
	t.Helper()
	conn := s.dial(t, &tls.Config{NextProtos: []string{"h2"}})
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := &flood{Framer: http2.NewFramer(conn, conn), stream: 1<<32 - 1}
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }() // the answers; a flood that does not read them is bounded by the queue of these
	var text bytes.Buffer
	encoder := hpack.NewEncoder(&text)
	for _, field := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "login.example.com"}, {Name: ":path", Value: "/.gatehouse/login"},
	} {
		field.Sensitive = true // never put into the table
		_ = encoder.WriteField(field)
	}
	f.headers = bytes.Clone(text.Bytes())
	text.Reset()
	_ = encoder.WriteField(hpack.HeaderField{Name: "x-big", Value: strings.Repeat("\x01", 12<<10), Sensitive: true})
	f.big = text.Bytes()
	return f
}

// PX-22: whatever one client does with frames, the others are served.
func TestFlood_ofHTTP2FramesLeavesOthersServed(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	request := func(f *flood, end bool) (uint32, error) {
		id := f.next()
		return id, f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.headers, EndHeaders: end, EndStream: true})
	}
	for _, c := range []struct {
		name string
		// one sends one piece of the flood.
		one func(f *flood) error
		// closed says that the gateway ends the connection.
		closed bool
	}{
		{"rapid reset (CVE-2023-39325)", func(f *flood) error {
			id, err := request(f, true)
			if err != nil {
				return err
			}
			return f.WriteRSTStream(id, http2.ErrCodeCancel)
		}, false},
		{"CONTINUATION without end (CVE-2023-45288)", func(f *flood) error {
			if f.stream == 1<<32-1 {
				if _, err := request(f, false); err != nil {
					return err
				}
			}
			return f.WriteContinuation(f.stream, false, f.big)
		}, true},
		{"SETTINGS", func(f *flood) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16})
		}, false},
		{"PING", func(f *flood) error { return f.WritePing(false, [8]byte{}) }, false},
		{"a header table that is filled again and again (CVE-2022-41717)", func(f *flood) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 1 << 30})
		}, false},
		{"empty DATA on a stream that is closed", func(f *flood) error {
			if f.stream == 1<<32-1 {
				if _, err := request(f, true); err != nil {
					return err
				}
			}
			return f.WriteData(f.stream, false, nil)
		}, false},
		{"more streams than allowed", func(f *flood) error {
			_, err := request(f, true)
			return err
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			others := s.NewBrowser()
			others.Get("/.gatehouse/healthz") // the connection of others is there
			var ended error
			done := make(chan struct{})
			go func() {
				defer close(done)
				f := newFlood(t, s)
				patience := time.Second
				if c.closed {
					patience = 10 * time.Second
				}
				for began := time.Now(); time.Since(began) < patience && ended == nil; {
					ended = c.one(f)
				}
			}()
			var slowest time.Duration
			for running := true; running; {
				began := time.Now()
				if answer := others.Get("/.gatehouse/login"); answer.StatusCode != http.StatusOK {
					t.Errorf("another client got %d", answer.StatusCode)
				}
				slowest = max(slowest, time.Since(began))
				select {
				case <-done:
					running = false
				default:
				}
			}
			if slowest > 10*time.Second { // some hundred milliseconds; whoever is starved waits for as long as the flood lasts
				t.Errorf("another client waited %s", slowest)
			}
			if c.closed && ended == nil {
				t.Error("the connection is still open")
			}
			t.Logf("others waited %s at most; the flood ended with: %v", slowest, ended)
		})
	}
}

// PX-24 over HTTP/2.
func TestFlood_ofHeadersIsRefused(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	b := s.NewBrowser()
	for _, header := range []http.Header{{"X-Big": {strings.Repeat("a", 100<<10)}}, {"Cookie": {strings.Repeat("a=; ", 20000)}}} {
		answer, err := b.Try(http.MethodGet, "/.gatehouse/login", nil, header)
		if err == nil && answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("got %d", answer.StatusCode)
		}
	}
	if answer := b.Get("/.gatehouse/login"); answer.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d", answer.StatusCode)
	}
}

// PX-23: who opens many connections and says little gets his share and not more, each for a bounded time, in the handshake too.
func TestFlood_ofSlowConnectionsLeavesOthersServed(t *testing.T) {
	t.Parallel()
	const share = 40
	s := startSecure(t, func(c *configs.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		c.Connections.PerAddress = share
	})
	for range 10 * share {
		conn := wiretest.DialFrom(t, "127.0.0.66", s.Address())
		_, _ = io.WriteString(conn, "\x16\x03\x01\x02") // the beginning of a ClientHello
	}
	slow := wiretest.DialFrom(t, "127.0.0.67", s.Address())
	inHeader := tls.Client(slow, &tls.Config{RootCAs: s.authority.Roots, ServerName: "login.example.com"})
	if _, err := io.WriteString(inHeader, "GET / HTTP/1.1\r\nHost: lo"); err != nil {
		t.Fatal(err)
	}
	inHandshake := wiretest.DialFrom(t, "127.0.0.68", s.Address())
	for range 5 {
		began := time.Now()
		b := s.NewBrowser() // a new connection
		if answer := b.Get("/.gatehouse/login"); answer.StatusCode != http.StatusOK {
			t.Errorf("another client got %d", answer.StatusCode)
		}
		if waited := time.Since(began); waited > 5*time.Second { // what is slow stays for 10 s
			t.Errorf("another client waited %s", waited)
		}
	}
	if got := s.TooMany(); got != 9*share {
		t.Errorf("%d connections were refused, want %d", got, 9*share)
	}
	for name, conn := range map[string]io.Reader{"in the header": inHeader, "in the handshake": inHandshake} {
		_ = slow.SetReadDeadline(time.Now().Add(15 * time.Second))
		_ = inHandshake.SetReadDeadline(time.Now().Add(15 * time.Second))
		if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
			t.Errorf("slow %s: still open after 15 s", name)
		}
	}
}

// PX-11 over HTTP/2: one request names one host, in a form that has one reading.
func TestHTTP2_refusesARequestThatNamesTwoHosts(t *testing.T) {
	t.Parallel()
	s := startSecure(t, func(c *configs.Config) {
		c.Routes = []configs.Route{{Host: "wiki.example.com", Upstreams: []configs.Upstream{{Origin: c.Upstream}}, Rules: []configs.Rule{{Access: configs.Public}}}}
	})
	for _, c := range []struct {
		name   string
		fields []string // names and values in turn, after :method and :scheme
		want   string   // a status, or "" for a stream or connection that ends
	}{
		{"one", []string{":authority", "wiki.example.com", ":path", "/"}, "200"},
		{"host alone", []string{":path", "/", "host", "wiki.example.com"}, "200"},
		{"the same twice", []string{":authority", "wiki.example.com", ":path", "/", "host", "wiki.example.com"}, "200"},
		{"two that differ", []string{":authority", "wiki.example.com", ":path", "/", "host", "login.example.com"}, "400"},
		{"two, the second unknown", []string{":authority", "login.example.com", ":path", "/.gatehouse/login", "host", "evil.example"}, "400"},
		{"host with blank", []string{":authority", "wiki.example.com x", ":path", "/"}, "421"},
		{"host with a user", []string{":authority", "login.example.com@wiki.example.com", ":path", "/"}, ""},
		{"no slash", []string{":authority", "wiki.example.com", ":path", "x"}, ""},
		{"no path", []string{":authority", "wiki.example.com", ":path", ""}, ""},
	} {
		conn := s.dial(t, &tls.Config{NextProtos: []string{"h2"}})
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, http2.ClientPreface)
		framer := http2.NewFramer(conn, conn)
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = framer.WriteSettings()
		var text bytes.Buffer
		encoder := hpack.NewEncoder(&text)
		for i, fields := 0, append([]string{":method", "GET", ":scheme", "https"}, c.fields...); i < len(fields); i += 2 {
			_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: text.Bytes(), EndHeaders: true, EndStream: true})
		if got := answerStatus(framer); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// answerStatus reads the answer on the first stream; "" if it has none.
func answerStatus(framer *http2.Framer) string {
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return ""
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return ""
		}
	}
}
