package gateway

import (
	"net"
	"net/http"
	"net/url"

	"gatehouse/internal/sampleapp"
)

// sampleServer runs the built-in sample app on a free port of the loopback address: an app like any other, which the proxy
// reaches as it reaches all apps.
type sampleServer struct {
	server *http.Server
	url    *url.URL
}

func (g *Gateway) startSample() error {
	if g.sample != nil {
		return nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	g.sample = &sampleServer{server: g.server(sampleapp.New()), url: &url.URL{Scheme: "http", Host: listener.Addr().String()}}
	go func() { _ = g.sample.server.Serve(listener) }() // ends with http.ErrServerClosed
	return nil
}

func (s *sampleServer) close() { _ = s.server.Close() } // it holds nothing
