package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/admin/httpapi"
	"gatehouse/configs"
	"gatehouse/listener"
)

// Limits of the listeners.
const (
	headerTimeout = 10 * time.Second
	// bodyTimeout bounds a request to the public listener, header and body, from its first byte until the proxy has found
	// out that a session lets it through: an upload to the app may take hours. net/http also applies it to what it reads of
	// a body after a handler that did not, so nobody can hold a connection by owing a body.
	bodyTimeout = 15 * time.Second
	idleTimeout = 2 * time.Minute
	maxHeader   = 64 << 10 // bytes, of the whole header block
	stopTimeout = 10 * time.Second
)

// publicServer makes the public listener's server.
func (g *Gateway) publicServer() *http.Server {
	s := g.server(g.Handler())
	s.ReadTimeout = bodyTimeout
	if g.encryption.orders != nil {
		encrypt(s, g.encryption.public, g.encryption.orders.Protocols()...)
	} else if g.encryption.public != nil {
		encrypt(s, g.encryption.public)
	}
	return s
}

// server makes a server with the limits that all listeners have. The time of an answer is not one of them: downloads from
// an app and readings of the log may take hours.
func (g *Gateway) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		// net/http allows 4 KiB beyond what it is told.
		MaxHeaderBytes: maxHeader - 4<<10,
		// net/http would answer `OPTIONS *` itself, on every host name and to everybody.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(g.deps.Logger.Handler(), slog.LevelDebug),
	}
}

// opened is a listener with the server that answers there.
type opened struct {
	net.Listener
	server *http.Server
}

func (o opened) serve() error {
	if o.server.TLSConfig != nil {
		return o.server.ServeTLS(o.Listener, "", "")
	}
	return o.server.Serve(o.Listener)
}

// listen opens all listeners, the public one first. On an error none stays open.
func (g *Gateway) listen(ctx context.Context) (all []opened, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(all))
		}
	}()
	for _, one := range []struct {
		what   string
		open   func(context.Context) (net.Listener, error)
		server func() *http.Server
	}{
		{"browsers (another address: --listen)", g.listenPublic, g.publicServer},
		{"browsers that come by http (http_listen)", g.listenHTTP, g.redirectServer},
		{"administration", g.listenAdmin, g.adminServer},
		{"Prometheus (another address: --metrics-listen)", g.listenMetrics, g.metricsServer},
	} {
		l, err := one.open(ctx)
		if err != nil {
			return all, fmt.Errorf("listen for %s: %w", one.what, err)
		}
		if l != nil {
			all = append(all, opened{l, one.server()})
		}
	}
	return all, nil
}

func closeAll(listeners []opened) error {
	var all error
	for _, l := range listeners {
		all = errors.Join(all, l.Close())
	}
	return all
}

func (g *Gateway) listenPublic(ctx context.Context) (net.Listener, error) {
	return g.listenBounded(ctx, g.start.Listen)
}

// listenHTTP opens the listener that sends on to https; nil if none is asked for.
func (g *Gateway) listenHTTP(ctx context.Context) (net.Listener, error) {
	if g.start.HTTPListen == "" {
		return nil, nil
	}
	return g.listenBounded(ctx, g.start.HTTPListen)
}

// listenBounded opens a listener for everybody.
func (g *Gateway) listenBounded(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	tcp, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	bounds := g.start.Connections
	if bounds.Max == 0 {
		bounds.Max = min(descriptors()/2, mostConnections)
	}
	return listener.New(tcp, listener.Options{
		Max: bounds.Max, PerAddress: bounds.PerAddress, Exempt: g.manyBehind, Proxies: g.start.ProxyProtocol,
		Refused: func() { g.tooMany.Add(1) }, Logger: g.deps.Logger,
	}), nil
}

// mostConnections is what connections.max is at most where the configuration leaves it open.
const mostConnections = 20000

// descriptors is how many files the process may have open. Go raised that to what the system allows at most.
func descriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return 1 << 30
	}
	return int(limit.Cur)
}

// manyBehind reports whether many clients come from a peer: it is a proxy of the configuration in force.
func (g *Gateway) manyBehind(peer netip.Addr) bool {
	config := g.current.Load().config
	listed := func(p netip.Prefix) bool { return p.Contains(peer) }
	return slices.ContainsFunc(config.TrustedProxies, listed) || slices.ContainsFunc(config.ForwardAuth.Peers, listed)
}

// listenAdmin opens the socket of the administration API, for the gateway's own user only, or a TCP address.
func (g *Gateway) listenAdmin(ctx context.Context) (net.Listener, error) {
	if path, isSocket := strings.CutPrefix(g.start.AdminListen, configs.UnixPrefix); isSocket {
		return httpapi.Listen(path)
	}
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", g.start.AdminListen)
}

// Run listens until ctx is done, then says so in readyz for the stop delay, lets requests end for up to 10 s and closes everything.
// started is called once all listeners are open, with the address of the public one. Run returns nil when it was stopped, and closes
// the gateway.
func (g *Gateway) Run(ctx context.Context, started func(public net.Addr)) (err error) {
	defer func() { err = errors.Join(err, g.Close()) }()
	listeners, err := g.listen(ctx)
	if err != nil {
		return err
	}
	if err := g.recordStart(ctx); err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- l.serve() }()
	}
	stop := g.follow(ctx)
	defer stop()
	started(listeners[0].Addr())
	select {
	case <-ctx.Done():
		err = g.lastCall(failed)
	case err = <-failed:
	}
	return errors.Join(err, g.shutDown(ctx, listeners), g.recordStop(ctx))
}

// lastCall goes on serving for the stop delay while readyz says no, so that a balancer that asks sends nobody here when the listeners
// close. It ends early with the error of a listener that failed.
func (g *Gateway) lastCall(failed <-chan error) error {
	g.stopping.Store(true)
	delay := time.NewTimer(g.current.Load().config.StopDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
		return nil
	case err := <-failed:
		return err
	}
}

// follow starts what runs beside the listeners, and returns what ends it and waits for its end.
func (g *Gateway) follow(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	beside := []func(context.Context){g.sessions.Run, g.state.keys.Run, g.log.Run, g.clock.run, g.sweep}
	for _, c := range g.encryption.all() {
		beside = append(beside, c.Run)
	}
	for _, run := range beside {
		g.running.Go(func() { run(ctx) })
	}
	return func() {
		cancel()
		g.running.Wait()
	}
}

// shutDown lets requests end, then closes what is still open: streams and upgraded connections.
func (g *Gateway) shutDown(ctx context.Context, listeners []opened) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	var all error
	for _, l := range listeners {
		err := l.server.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = l.server.Close()
		}
		all = errors.Join(all, err)
	}
	return all
}
