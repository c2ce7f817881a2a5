package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// The sizes of the answers of the app, in bytes.
const (
	small = 1 << 10
	large = 64 << 10
)

// serveUpstream is the app behind every proxy: /large answers 64 KiB, everything else 1 KiB.
func serveUpstream(ctx context.Context, listen string) error {
	answer := func(size int) http.HandlerFunc {
		body := make([]byte, size)
		for i := range body {
			body[i] = 'x'
		}
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write(body) // an error means that the client has gone
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/", answer(small))
	mux.Handle("/large", answer(large))
	return serve(ctx, listen, mux)
}

// serveFloor is the least that a proxy of this kind costs: httputil.ReverseProxy tuned as ours is, that asks nobody anything and
// adds no header.
func serveFloor(ctx context.Context, listen, upstream string) error {
	target, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	return serve(ctx, listen, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		Transport:  &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, IdleConnTimeout: 90 * time.Second},
		BufferPool: &buffers{},
	})
}

// serveRedirect is the least that the redirect of somebody who is not signed in costs.
func serveRedirect(ctx context.Context, listen string) error {
	return serve(ctx, listen, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://localhost/.gatehouse/login?next=%2Fsome%2Fpage")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusFound)
	}))
}

// serve runs a server with the gateway's own limits until it is told to end.
func serve(ctx context.Context, listen string, handler http.Handler) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	if !listener.Addr().(*net.TCPAddr).IP.IsLoopback() {
		return fmt.Errorf("%s is not a loopback address", listen)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 60 << 10}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

// buffers is a httputil.BufferPool, the same as the gateway's.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if kept, ok := b.pool.Get().(*[32 << 10]byte); ok {
		return kept[:]
	}
	return make([]byte, 32<<10)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buffer []byte) { b.pool.Put((*[32 << 10]byte)(buffer)) }
