package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/admin/admintest"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

func TestHealth_asksTheListenerUnderTheExternalName(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host != "login.example.org":
			http.Redirect(w, r, "https://login.example.org/", http.StatusPermanentRedirect)
		case r.URL.Path == "/.gatehouse/healthz":
			_, _ = io.WriteString(w, "alive\n")
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"store":"away"}`)
		}
	}))
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "http://")
	tests := []struct {
		name string
		args []string
		want int
		says string
	}{
		{"alive", []string{"--external-url", "https://login.example.org"}, exitDone, "alive\n"},
		{"not ready", []string{"--external-url", "https://login.example.org", "--ready"}, exitFailed, `503 Service Unavailable: {"store":"away"}`},
		{"somebody else's answer", []string{"--external-url", "https://other.example.org"}, exitFailed, "308 Permanent Redirect"},
	}
	for _, test := range tests {
		m, out, errOut := person(&admintest.Server{Dir: t.TempDir()}, "")
		got := run(t.Context(), append([]string{"health", "--listen", address}, test.args...), m)
		if got != test.want || !strings.Contains(out.String()+errOut.String(), test.says) {
			t.Errorf("%s: got %d, %q and %q, want %d with %q", test.name, got, out, errOut, test.want, test.says)
		}
	}
}

// A gateway that speaks TLS itself, and one that expects a PROXY header from this machine.
func TestHealth_asksAGatewayThatEncrypts(t *testing.T) {
	t.Parallel()
	authority := gatewaytest.NewAuthority(t)
	cert, key := authority.Issue("login.example.org")
	for _, c := range []struct {
		name    string
		proxies []netip.Prefix
		plain   bool
	}{
		{"TLS", nil, false},
		{"TLS behind a balancer", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, false},
		{"with http_listen", nil, true},
		{"with http_listen behind a balancer", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, true},
	} {
		file := filepath.Join(t.TempDir(), "gatehouse.yaml")
		gatewaytest.Start(t, gatewaytest.Options{External: "https://login.example.org", Configure: func(cfg *configs.Config) {
			cfg.TLS.CertFile, cfg.TLS.KeyFile, cfg.ProxyProtocol = cert, key, c.proxies
			text := fmt.Sprintf("listen: %s\nexternal_url: https://login.example.org\ntls: {cert_file: %s, key_file: %s}\n", cfg.Listen, cert, key)
			if c.plain {
				cfg.HTTPListen = "127.0.0.1:" + storetest.FreePort(t)
				text += "http_listen: " + cfg.HTTPListen + "\n"
			}
			if c.proxies != nil {
				text += "proxy_protocol: [127.0.0.0/8]\n"
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}})
		m, out, errOut := person(&admintest.Server{Dir: t.TempDir()}, "")
		if got := run(t.Context(), []string{"health", "--config", file}, m); got != exitDone || !strings.Contains(out.String(), "alive") {
			t.Errorf("%s: got %d, %q and %q", c.name, got, out, errOut)
		}
	}
}
