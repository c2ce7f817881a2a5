package admintest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/admin/httpapi"
)

// Token is what the TCP listener of a Server asks for.
const Token = "an-administration-token-of-the-tests"

// Server is the administration API of a kit, on a real socket and on loopback.
type Server struct {
	Dir    string // the data folder
	Socket string // in Dir
	URL    string
}

// Serve runs the API until the test ends. This process's own uid may use the socket.
func (k *Kit) Serve(t testing.TB) *Server {
	t.Helper()
	return k.serve(t, []uint32{uint32(os.Getuid())})
}

// ServeOthers runs the API on a socket that this process may not use.
func (k *Kit) ServeOthers(t testing.TB) *Server {
	t.Helper()
	return k.serve(t, nil)
}

func (k *Kit) serve(t testing.TB, operators []uint32) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "gatehouse") // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, err := httpapi.Listen(filepath.Join(dir, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	token, err := httpapi.NewToken("main", Token)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: httpapi.New(httpapi.Options{
			Service: k.Service, Logger: k.Logger, Operators: operators, Tokens: []httpapi.Token{token}, Hosts: []string{"admin.example.org"},
		}),
		ConnContext:       httpapi.ConnContext,
		ReadHeaderTimeout: time.Minute,
	}
	for _, listener := range []net.Listener{socket, tcp} {
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("serve administration API: %v", err)
			}
		}()
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("stop administration API: %v", err)
		}
	})
	return &Server{Dir: dir, Socket: filepath.Join(dir, "admin.sock"), URL: "http://" + tcp.Addr().String()}
}
