package proxy

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Route says where the requests of one route of the table go, and how.
type Route struct {
	// Name is what logs, records and metrics call it; required.
	Name string
	// Upstreams are the app: http, https or h2c (HTTP/2 without TLS, from the first byte), host and port, nothing else. Of several each
	// request goes to the one with the fewest requests under way, in turn where they are equal. None: the route is there for
	// forward-auth alone, and what is sent here answers 404.
	Upstreams []*url.URL
	// TLS is how https upstreams are spoken to.
	TLS UpstreamTLS
	// DialTimeout bounds connecting to the app, TLS included; default 5 s.
	DialTimeout time.Duration
	// AnswerTimeout bounds the wait for the header of an answer, after the request was sent whole; default 60 s.
	// The body may take as long as it takes.
	AnswerTimeout time.Duration
	// IdleTimeout is how long an unused connection to the app is kept at most, and half of it is the least; default 90 s.
	IdleTimeout time.Duration
	// HeaderPreset names the headers that say who is there; default PresetRemote.
	HeaderPreset Preset
	// UpstreamHost gives the app the upstream's address as Host. By default it gets the Host that the browser sent.
	UpstreamHost bool
	// StripPrefix is a prefix of the paths that this route has, decoded and by whole segments, which the app does not see. Empty: none.
	StripPrefix string
	// BodyLimit is the most bytes that the body of a request may have; more is 413. 0: no limit.
	BodyLimit int64
	// WebSocketOrigins are further origins whose pages may open WebSockets, as browsers write them.
	WebSocketOrigins []string
	// RefuseWhileStoreAway answers 503 while revocations do not arrive, instead of going on with verified tokens until they expire.
	// What is public goes on.
	RefuseWhileStoreAway bool
}

// UpstreamTLS is how an app is known and what it is shown. The app's certificate is verified always.
type UpstreamTLS struct {
	// Roots are the authorities that the app's certificate may come from; nil: those of the system.
	Roots *x509.CertPool
	// Certificate is the gateway's own; nil: none.
	Certificate *tls.Certificate
	// ServerName is the name in the app's certificate; empty: that of the upstream.
	ServerName string
}

func (t UpstreamTLS) config() *tls.Config {
	config := &tls.Config{RootCAs: t.Roots, ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.Certificate != nil {
		config.Certificates = []tls.Certificate{*t.Certificate}
	}
	return config
}

// route is a Route, ready to be used.
type route struct {
	name           string
	balancer       *balancer     // nil if the route has no upstreams
	patience       time.Duration // for the header of an answer
	names          identityNames
	upstreamHost   bool
	strip          int // segments that the app does not see
	bodyLimit      int64
	origins        []string // that may open WebSockets, beside the host's own
	refuseWhenAway bool
	forward        *httputil.ReverseProxy
}

// newRoute makes what a Route needs to be served, but for its forward.
func newRoute(r Route, now func() time.Time, logger *slog.Logger) (*route, error) {
	if r.Name == "" {
		return nil, errors.New("no name")
	}
	names, err := r.HeaderPreset.names()
	if err != nil {
		return nil, err
	}
	if r.BodyLimit < 0 {
		return nil, errors.New("the limit of bodies is negative")
	}
	for _, origin := range r.WebSocketOrigins {
		if err := isOrigin(origin); err != nil {
			return nil, fmt.Errorf("origin %q of WebSockets: %w", origin, err)
		}
	}
	strip := strings.Trim(r.StripPrefix, "/")
	ready := &route{
		name: r.Name, patience: cmp.Or(r.AnswerTimeout, time.Minute), names: names, upstreamHost: r.UpstreamHost, bodyLimit: r.BodyLimit,
		origins: slices.Clone(r.WebSocketOrigins), refuseWhenAway: r.RefuseWhileStoreAway,
	}
	if strip != "" {
		ready.strip = strings.Count(strip, "/") + 1
	}
	if len(r.Upstreams) > 0 {
		ready.balancer, err = newBalancer(r, now, logger)
	}
	return ready, err
}

// isOrigin refuses what no browser would send as the origin of a page.
func isOrigin(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("must start with http:// or https://")
	}
	if err := bare(u); err != nil {
		return err
	}
	if text != u.Scheme+"://"+u.Host || u.Host != strings.ToLower(u.Host) {
		return errors.New("browsers write scheme, host in lower case, and port only")
	}
	return nil
}

// bare refuses an address that is more than scheme, host and port.
func bare(u *url.URL) error {
	switch {
	case u.Hostname() == "":
		return errors.New("has no host")
	case u.User != nil:
		return errors.New("must not hold a user name or password")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "", u.Opaque != "":
		return errors.New("must be scheme, host and port only")
	}
	return nil
}
