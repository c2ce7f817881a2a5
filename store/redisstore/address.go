package redisstore

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// address is a parsed store URL.
type address struct {
	hosts    []string // host:port; more than one only with the schemes that name several servers
	user     string
	password string
	database int
	tls      bool
}

// parseAddress reads a store URL. Errors never quote it: it may hold a password.
func parseAddress(text string) (address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return address{}, fmt.Errorf("store URL: want redis://[user:password@]host[:port][/database]")
	}
	var a address
	switch u.Scheme {
	case "redis":
	case "rediss":
		a.tls = true
	case "redis+sentinel", "redis+cluster":
		return address{}, fmt.Errorf("store URL: %s:// is not supported by this version; use redis:// or rediss://", u.Scheme)
	default:
		return address{}, fmt.Errorf("store URL: scheme %q: want redis or rediss", u.Scheme)
	}
	if u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return address{}, fmt.Errorf("store URL: want %s://[user:password@]host[:port][/database] and nothing more", u.Scheme)
	}
	port := u.Port()
	if port == "" {
		port = "6379"
	}
	a.hosts = []string{net.JoinHostPort(u.Hostname(), port)}
	a.user = u.User.Username()
	a.password, _ = u.User.Password()
	if a.user != "" && a.password == "" {
		return address{}, fmt.Errorf("store URL: a user without a password; for a password alone write redis://:password@host")
	}
	if path := strings.TrimPrefix(u.Path, "/"); path != "" {
		if a.database, err = strconv.Atoi(path); err != nil || a.database < 0 {
			return address{}, fmt.Errorf("store URL: database %q is not a number", path)
		}
	}
	return a, nil
}

// String names the servers without the credentials.
func (a address) String() string { return strings.Join(a.hosts, ",") }

// loopback reports whether every server is on this machine by its name. A name that is looked up is not: it may lead
// elsewhere tomorrow.
func (a address) loopback() bool {
	for _, hostport := range a.hosts {
		host, _, err := net.SplitHostPort(hostport)
		if err != nil {
			return false
		}
		ip, err := netip.ParseAddr(host)
		if host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
			return false
		}
	}
	return true
}

// options are those of the client library.
func (a address) options(o Options) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:    a.hosts,
		DB:       a.database,
		Username: a.user,
		Password: a.password,
		Dialer:   a.dialer(o),

		Protocol:                 2,  // RESP3 lets a server send what nobody asked for
		MaxRetries:               -1, // a script may not run twice
		DialerRetries:            1,
		DialTimeout:              o.Timeout,
		ReadTimeout:              o.Timeout,
		WriteTimeout:             o.Timeout,
		PoolTimeout:              o.Timeout,
		ContextTimeoutEnabled:    true,
		PipelinePoolSize:         -1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// dialer connects with TLS where the URL asks for it, and guards what the server sends.
func (a address) dialer(o Options) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, o.Timeout)
		defer cancel()
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil || !a.tls {
			return guardConn(conn, conn), err
		}
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if o.TLS != nil {
			config = o.TLS.Clone()
		}
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(addr) // addr is one of ours, made by JoinHostPort
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // the handshake's error says more
			return nil, fmt.Errorf("TLS with %s: %w", addr, err)
		}
		return guardConn(secure, conn), nil
	}
}
