package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/certificate"
	"gatehouse/configs"
)

// Limits of HTTP/2 (RFC 9113). net/http itself bounds what is not listed: resets of streams that were just opened, CONTINUATION frames
// beyond the header limit, and control frames that nobody reads the answers of.
const (
	maxStreams   = 100       // open at once on one connection
	headerTable  = 4 << 10   // bytes, of the table for compressed headers, in either direction
	streamWindow = 256 << 10 // bytes that a client may send on one stream before an app has read them; 1 MiB on a connection
	// pingAfter and pingTimeout find clients that are gone without a word, or take nothing more, while they have streams open.
	pingAfter   = time.Minute
	pingTimeout = 30 * time.Second
)

// encryption is what encrypts the listeners. The zero encryption is none.
type encryption struct {
	public certificates        // nil: plain HTTP
	orders *certificate.Orders // public, where it is ACME
	files  *certificate.Files  // public, where it is files
	admin  *certificate.Files  // nil: plain HTTP, or the socket
}

// certificates is where a listener has its certificates from.
type certificates interface {
	GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// Run keeps them fresh until ctx is done.
	Run(ctx context.Context)
	// Trouble says what is wrong with them; empty if nothing is.
	Trouble() string
}

// openEncryption reads the certificate files, or prepares for ordering certificates.
func (g *Gateway) openEncryption() (e encryption, err error) {
	if files := g.start.AdminTLS; files.CertFile != "" {
		if e.admin, err = g.openFiles(files.CertFile, files.KeyFile); err != nil {
			return e, fmt.Errorf("read admin_tls: %w", err)
		}
	}
	switch t := g.start.TLS; {
	case t.CertFile != "":
		if e.files, err = g.openFiles(t.CertFile, t.KeyFile); err != nil {
			return e, fmt.Errorf("read tls: %w", err)
		}
		e.public = e.files
	case t.ACME.AcceptTerms:
		var roots *x509.CertPool
		if t.ACME.CAFile != "" {
			if roots, err = authorities(t.ACME.CAFile); err != nil {
				return e, fmt.Errorf("read tls.acme.ca_file: %w", err)
			}
		}
		e.orders = certificate.NewOrders(certificate.OrdersOptions{
			Hosts: g.certificateHosts, Directory: t.ACME.Directory, Email: t.ACME.Email, Roots: roots,
			Records: g.state.records, Now: g.deps.Now, Logger: g.deps.Logger,
		})
		e.public = e.orders
	}
	return e, nil
}

func (g *Gateway) openFiles(cert, key string) (*certificate.Files, error) {
	return certificate.OpenFiles(certificate.FilesOptions{CertFile: cert, KeyFile: key, Now: g.deps.Now, Logger: g.deps.Logger})
}

// all is the certificates of every listener that encrypts.
func (e encryption) all() (list []certificates) {
	if e.public != nil {
		list = append(list, e.public)
	}
	if e.admin != nil {
		list = append(list, e.admin)
	}
	return list
}

// certificateHosts are the hosts of the configuration in force that can have certificates of their own, the login host first.
func (g *Gateway) certificateHosts() []string { return exactHosts(g.current.Load().config) }

func exactHosts(config configs.Config) []string {
	all := []string{config.ExternalURL.URL().Hostname()}
	for _, r := range config.AppRoutes() {
		if name := hostname(string(r.Host)); !strings.HasPrefix(name, "*.") && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// hostname is a Host without its port and brackets.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// encrypt makes a server speak TLS with these certificates, and HTTP/2 beside HTTP/1.1. Suites and curves are Go's own choice.
func encrypt(s *http.Server, from certificates, protocols ...string) {
	s.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: from.GetCertificate, NextProtos: append([]string{"h2", "http/1.1"}, protocols...),
	}
	s.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams, MaxDecoderHeaderTableSize: headerTable, MaxEncoderHeaderTableSize: headerTable,
		MaxReceiveBufferPerStream: streamWindow, SendPingTimeout: pingAfter, PingTimeout: pingTimeout,
	}
}

// certificatePart warns of certificates that browsers refuse, or soon will.
func (g *Gateway) certificatePart() Part {
	for _, from := range g.encryption.all() {
		if note := from.Trouble(); note != "" {
			return Part{State: stateDegraded, Note: note}
		}
	}
	return Part{State: stateOK}
}

// uncovered warns of hosts for which the certificate of the files is not good.
func (g *assembly) uncovered() (all []string) {
	if g.encryption.files == nil {
		return nil
	}
	hosts := []string{g.config.ExternalURL.URL().Hostname()}
	for _, r := range g.config.AppRoutes() {
		hosts = append(hosts, strings.Replace(hostname(string(r.Host)), "*", "any", 1))
	}
	slices.Sort(hosts)
	for _, host := range slices.Compact(hosts) {
		if !g.encryption.files.Covers(host) {
			all = append(all, fmt.Sprintf("the certificate of tls.cert_file is not good for %s: browsers will refuse it there.", host))
		}
	}
	return all
}

// transportSecurity is the value of Strict-Transport-Security (RFC 6797, section 6.1); empty for none. Subdomains are left out: they need
// not be the gateway's.
func transportSecurity(config configs.Config) string {
	if config.HSTS == 0 || config.ExternalURL.Scheme != "https" {
		return ""
	}
	return "max-age=" + strconv.FormatInt(int64(config.HSTS/time.Second), 10)
}
