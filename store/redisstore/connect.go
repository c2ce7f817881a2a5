package redisstore

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// dialer connects to one server.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer connects with TLS where the URL asks for it, and guards what the server sends.
func (a address) dialer(o Options) dialer {
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
			config.ServerName, _, _ = net.SplitHostPort(addr) // made by JoinHostPort, here or in the library
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // the handshake's error says more
			return nil, fmt.Errorf("TLS with %s: %w", addr, err)
		}
		return guardConn(secure, conn), nil
	}
}

// options are those of a connection to one server, which dial makes.
func (a address) options(addr string, o Options, dial dialer) *redis.Options {
	return &redis.Options{
		Addr:     addr,
		DB:       a.database,
		Username: a.user,
		Password: a.password,
		Dialer:   dial,

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

// clusterOptions are those of all connections to a Cluster.
func (a address) clusterOptions(o Options) *redis.ClusterOptions {
	one := a.options("", o, a.dialer(o))
	return &redis.ClusterOptions{
		Addrs:    a.hosts,
		Username: one.Username,
		Password: one.Password,
		Dialer:   one.Dialer,

		Protocol:                   one.Protocol,
		MaxRetries:                 one.MaxRetries,
		MaxRedirects:               -1, // route.go follows them: the library would repeat after a lost answer, too
		DisableRoutingPolicies:     true,
		ClusterStateReloadInterval: 5 * time.Second,
		DialerRetries:              one.DialerRetries,
		DialTimeout:                one.DialTimeout,
		ReadTimeout:                one.ReadTimeout,
		WriteTimeout:               one.WriteTimeout,
		PoolTimeout:                one.PoolTimeout,
		ContextTimeoutEnabled:      true,
		PipelinePoolSize:           one.PipelinePoolSize,
		DisableIdentity:            true,
		MaintNotificationsConfig:   one.MaintNotificationsConfig,
	}
}
