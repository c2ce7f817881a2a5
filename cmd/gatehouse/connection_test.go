package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/admin/admintest"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

// Administration beyond loopback: by URL with a file that says who may vouch for it, and on the machine itself by its configuration.
func TestConnect_speaksTLSToTheAdministration(t *testing.T) {
	t.Parallel()
	authority := gatewaytest.NewAuthority(t)
	cert, key := authority.Issue("gateway.example.com", "127.0.0.1")
	other := gatewaytest.NewAuthority(t).File
	dir, port := t.TempDir(), storetest.FreePort(t)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := write("token", strings.Repeat("a", 43))
	file := write("gatehouse.yaml", fmt.Sprintf("admin_listen: 0.0.0.0:%s\nadmin_token_file: %s\nadmin_tls: {cert_file: %s, key_file: %s}\n", port, token, cert, key))
	gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		c.AdminListen, c.AdminTokenFile, c.AdminTLS = "0.0.0.0:"+port, token, configs.AdminTLS{CertFile: cert, KeyFile: key}
	}})
	url := "https://127.0.0.1:" + port
	for _, c := range []struct {
		name string
		args []string
		want int
		says string
	}{
		{"with its authority", []string{"--admin", url, "--admin-token-file", token, "--admin-ca-file", authority.File}, exitDone, "NAME"},
		{"without", []string{"--admin", url, "--admin-token-file", token}, exitFailed, "certificate signed by unknown authority"},
		{"with another one", []string{"--admin", url, "--admin-token-file", token, "--admin-ca-file", other}, exitFailed, "certificate signed by unknown authority"},
		{"with no certificate", []string{"--admin", url, "--admin-token-file", token, "--admin-ca-file", token}, exitFailed, "holds no certificate in PEM"},
		{"without TLS", []string{"--admin", "http://127.0.0.1:" + port, "--admin-token-file", token}, exitFailed, "400 Bad Request is not one of Gatehouse's"},
		{"for plain HTTP", []string{"--admin", "http://127.0.0.1:1", "--admin-token-file", token, "--admin-ca-file", other}, exitUsage, "is for --admin https://"},
		{"by the configuration", []string{"--config", file}, exitDone, "NAME"},
	} {
		m, out, errOut := person(&admintest.Server{Dir: t.TempDir()}, "")
		got := run(t.Context(), append([]string{"user", "list"}, c.args...), m)
		if got != c.want || !strings.Contains(out.String()+errOut.String(), c.says) {
			t.Errorf("%s: got %d, %q and %q, want %d with %q", c.name, got, out, errOut, c.want, c.says)
		}
	}
}
