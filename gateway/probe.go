package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"gatehouse/configs"
)

// StoreProbe is what a look at the store found.
type StoreProbe struct {
	Warnings []string      // what could be better about its settings
	Took     time.Duration // to write and read
	Skew     time.Duration // how far this clock is ahead of the store's; 0 where the store has none
}

// ProbeStore opens the store as a start would, writes and reads once, and closes it. The embedded store can be opened by one at a time.
func ProbeStore(ctx context.Context, config configs.Config, deps Deps) (p StoreProbe, err error) {
	s := &state{}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.openEngine(ctx, config, deps); err != nil {
		return p, err
	}
	began := deps.Elapsed()
	if err := s.engine.Check(ctx); err != nil {
		return p, err
	}
	p.Warnings, p.Took = s.warnings, deps.Elapsed()-began
	if clock, ok := s.engine.(interface{ Skew() time.Duration }); ok {
		p.Skew = clock.Skew()
	}
	return p, nil
}

// UpstreamTLS reads the files with which a route speaks TLS to its app.
func UpstreamTLS(t configs.UpstreamTLS) (*tls.Config, error) {
	read, err := upstreamTLS(t)
	config := &tls.Config{RootCAs: read.Roots, ServerName: read.ServerName, MinVersion: tls.VersionTLS12}
	if read.Certificate != nil {
		config.Certificates = []tls.Certificate{*read.Certificate}
	}
	return config, err
}
