package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/audit"
	"gatehouse/configs"
)

const (
	// healthTimeout is shorter than the time-out of the usual container runtimes, so that the command says what is wrong.
	healthTimeout = 5 * time.Second
	// maxHealth is the most bytes that are read of the answer.
	maxHealth = 64 << 10
)

func newHealthCommand(m machine) *cobra.Command {
	var ready bool
	command := &cobra.Command{
		Use:   "health",
		Short: "Ask the gateway of this configuration whether it is alive, or ready",
		Long: `Ask the gateway of this configuration whether it is alive, or with --ready whether it can let people in. Exits with 1 if not.
It is made for the health check of a container, where there is no curl, and takes the flags and variables of 'gatehouse serve'.`,
		Example: `  gatehouse health
  gatehouse health --ready --config /etc/gatehouse/gatehouse.yaml`,
		Args: takes(),
	}
	flags := addConfigFlags(command)
	command.Flags().BoolVar(&ready, "ready", false, "ask whether it is ready, and with which parts")
	command.RunE = func(command *cobra.Command, _ []string) error {
		loaded, err := flags.load(m)
		if err != nil {
			return err
		}
		path := "/.gatehouse/healthz"
		if ready {
			path = "/.gatehouse/readyz"
		}
		answer, err := askHealth(command.Context(), loaded.Config, path)
		if err != nil {
			return err
		}
		fmt.Fprintln(m.out, answer)
		return nil
	}
	return command
}

// askHealth asks a listener directly, under the name of the login host, and returns what a healthy gateway says. Where there is one for
// plain HTTP it asks that: the other may be waiting for its first certificate.
func askHealth(ctx context.Context, cfg configs.Config, path string) (string, error) {
	listen, scheme := cfg.Listen, "http://"
	switch {
	case cfg.TLS.On() && cfg.HTTPListen != "":
		listen = cfg.HTTPListen
	case cfg.TLS.On():
		scheme = "https://"
	}
	address, err := reachable(listen)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+address+path, nil)
	if err != nil {
		return "", err
	}
	request.Host = cfg.ExternalURL.Host
	// Neither a proxy of the environment nor a redirect: the answer must be this gateway's own.
	transport := &http.Transport{DialContext: knock(cfg.ProxyProtocol), TLSClientConfig: &tls.Config{
		ServerName: cfg.ExternalURL.URL().Hostname(),
		// The answer is "alive", on this machine: whether browsers like the certificate is another question, and nothing secret is sent.
		InsecureSkipVerify: true, //nolint:gosec // see above
		MinVersion:         tls.VersionTLS12,
	}}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", fmt.Errorf("the gateway at %s does not answer: %w", address, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxHealth))
	if err != nil {
		return "", fmt.Errorf("read the answer of %s: %w", address, err)
	}
	text := audit.Printable(strings.TrimSpace(string(body)))
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the gateway at %s answers %s: %s", address, response.Status, text)
	}
	return text, nil
}

// knock connects as the gateway expects it of where the connection comes from: a peer in proxy_protocol begins with a header, which here
// says that nobody stands behind it.
func knock(proxies []netip.Prefix) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		own, _ := netip.ParseAddrPort(conn.LocalAddr().String())
		if !slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(own.Addr().Unmap()) }) {
			return conn, nil
		}
		if _, err := io.WriteString(conn, "PROXY UNKNOWN\r\n"); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return conn, nil
	}
}

// reachable is where a listener is reached from this machine: one on every address is on loopback too.
func reachable(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	if port == "0" {
		return "", errors.New("the configuration leaves the port of the listener open, so it cannot be asked")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}
