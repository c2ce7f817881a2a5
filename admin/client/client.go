// Package client talks to a gateway's administration API, over its socket or over TCP with a token.
//
// It follows no redirect and uses no proxy, and it sends a token in clear text to loopback only. An answer that is not a
// success becomes an [*Error], which carries the gateway's problem (RFC 9457). A Client is safe for concurrent use.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"gatehouse/problem"
)

// maxAnswer is the most bytes that are read of an answer that is not a stream.
const maxAnswer = 64 << 20

// ErrNotRunning: nothing listens at the address.
var ErrNotRunning = errors.New("the gateway does not run")

// Error is the gateway's refusal.
type Error struct {
	problem.Problem
}

// Error says what was refused and how to find it in the gateway's log.
func (e *Error) Error() string {
	text := e.Title
	if e.Detail != "" {
		text = e.Detail
	}
	for _, reason := range e.Reasons {
		text += "\n  - " + reason
	}
	if e.RequestID != "" {
		text += fmt.Sprintf("\n(%s, request %s)", e.Code, e.RequestID)
	}
	return text
}

// Client sends requests to one gateway.
type Client struct {
	http  *http.Client
	base  string
	token string
}

// Options say where the gateway is. Exactly one of Socket and URL is set.
type Options struct {
	// Socket is the path of the administration socket.
	Socket string
	// URL is the administration listener: https, or http on loopback.
	URL string
	// Token is the administration token; required with URL.
	Token string
	// Roots may vouch for an https URL, in place of those of the system if it is not nil; a certificate among them vouches for itself.
	Roots *x509.CertPool
	// ServerName is the name that its certificate must be good for; empty is the URL's host.
	ServerName string
	// Timeout is how long the gateway may take to begin its answer; default 60 s.
	Timeout time.Duration
}

// New makes a client. It does not connect yet.
func New(o Options) (*Client, error) {
	transport := &http.Transport{
		ResponseHeaderTimeout: o.Timeout, DisableCompression: true,
		TLSClientConfig: &tls.Config{RootCAs: o.Roots, ServerName: o.ServerName, MinVersion: tls.VersionTLS12},
	}
	if o.Timeout == 0 {
		transport.ResponseHeaderTimeout = time.Minute
	}
	c := &Client{
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		token: o.Token,
	}
	if o.Socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", o.Socket)
		}
		c.base = "http://localhost"
		return c, nil
	}
	if err := checkURL(o.URL); err != nil {
		return nil, err
	}
	if o.Token == "" {
		return nil, errors.New("an administration URL needs a token")
	}
	c.base = strings.TrimSuffix(o.URL, "/")
	return c, nil
}

// checkURL refuses an address to which the token would travel in clear text.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("the administration URL must look like https://gateway.example:9443, got %q", text)
	}
	switch {
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("the administration URL must be https, or http on loopback, got %q", text)
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.Unmap().IsLoopback()
}

// call sends in as JSON, if there is one, and reads the answer into out, if there is one.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	response, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("read answer to %s %s: %w", method, path, err)
	}
	return nil
}

// send returns the answer if it is a success; its body is the caller's to close.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write request %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, connectError(err)
	}
	if response.StatusCode/100 != 2 {
		defer response.Body.Close()
		return nil, readError(response)
	}
	return response, nil
}

// connectError tells a gateway that does not run from every other failure.
func connectError(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	return err
}

// readError reads a problem; an answer of somebody else's server becomes an error that says so.
func readError(response *http.Response) error {
	var refusal Error
	body := io.LimitReader(response.Body, maxAnswer)
	if err := json.NewDecoder(body).Decode(&refusal.Problem); err != nil || refusal.Code == "" {
		return fmt.Errorf("the answer %s is not one of Gatehouse's administration API", response.Status)
	}
	return &refusal
}
