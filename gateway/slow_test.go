package gateway_test

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gatehouse/configs"
	"gatehouse/gateway"
)

// pipes is a listener in memory, so that the time limits of the connections run on the time of a synctest bubble.
type pipes struct {
	waiting chan net.Conn
	closed  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.waiting:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return peer }

// dial connects to the listener.
func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.waiting <- addressed{theirs}
	return ours
}

// addressed is a pipe whose other end has an address.
type addressed struct{ net.Conn }

var peer = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1234}

func (addressed) RemoteAddr() net.Addr { return peer }

// A body that does not come holds no connection for longer than a body may take, whoever answers: a page of ours that reads
// it, one that has answered without reading it, and the proxy for somebody who is not signed in.
func TestGateway_endsBodiesThatDoNotCome(t *testing.T) {
	t.Parallel()
	const limit = 15 * time.Second
	form := "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nusername="
	tests := map[string]string{
		"read":                "POST /.gatehouse/login HTTP/1.1\r\nHost: localhost:8080\r\n" + form,
		"not read":            "POST /.gatehouse/nothing HTTP/1.1\r\nHost: localhost:8080\r\n" + form,
		"health":              "POST /.gatehouse/healthz HTTP/1.1\r\nHost: localhost:8080\r\n" + form,
		"another host":        "POST /.gatehouse/login HTTP/1.1\r\nHost: evil.test\r\n" + form,
		"app, not signed in":  "POST /app HTTP/1.1\r\nHost: localhost:8080\r\n" + form,
		"header that stalls":  "POST /app HTTP/1.1\r\nHost: local",
		"chunks, not read":    "POST /app HTTP/1.1\r\nHost: localhost:8080\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
		"chunked form, stall": "POST /.gatehouse/login HTTP/1.1\r\nHost: localhost:8080\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
	}
	for name, request := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				listener := serveInMemory(t)
				conn := listener.dial()
				if _, err := io.WriteString(conn, request); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if err := conn.SetReadDeadline(began.Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
				in := bufio.NewReader(conn)
				if answer, err := http.ReadResponse(in, nil); err == nil && answer.StatusCode < 400 {
					t.Errorf("got %d", answer.StatusCode)
				}
				_, _ = io.Copy(io.Discard, in) // until the gateway closes
				// net/http waits another half second, so that the answer is read before the connection is reset.
				if took := time.Since(began); took > limit+time.Second {
					t.Errorf("held for %s, want at most %s", took, limit)
				}
			})
		})
	}
}

// serveInMemory runs a gateway's public server in the bubble of the test.
func serveInMemory(t *testing.T) *pipes {
	t.Helper()
	config := configs.Default()
	config.Data = t.TempDir()
	config.RootKeyFile = filepath.Join(config.Data, "root.key")
	// The sample app would listen on a real socket, on which the time of a bubble stands still.
	if err := config.Upstream.UnmarshalText([]byte("http://127.0.0.1:1")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	g, err := gateway.New(t.Context(), config, gateway.Deps{
		Now: time.Now, Elapsed: func() time.Duration { return time.Since(began) }, Logger: slog.New(slog.DiscardHandler),
		Workers: 1, BcryptCost: bcrypt.MinCost,
	})
	if err != nil {
		t.Fatal(err)
	}
	listener := &pipes{waiting: make(chan net.Conn), closed: make(chan struct{})}
	server := g.PublicServer()
	go func() { _ = server.Serve(listener) }() // ends with http.ErrServerClosed
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return listener
}
