package gateway_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

// A store whose certificate only store_ca_file vouches for.
func TestGateway_trustsTheAuthorityOfItsStore(t *testing.T) {
	t.Parallel()
	cert, key, _ := storetest.Certificate(t)
	port := storetest.FreePort(t)
	storetest.Redis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{cert: "", "": "certificate", empty: "holds no certificate", "missing.pem": "store_ca_file"} {
		_, err := gatewaytest.Try(t, gatewaytest.Options{
			Redis: "rediss://localhost:" + port, RootKey: gatewaytest.RootKey(),
			Configure: func(c *configs.Config) { c.StoreCAFile = file },
		})
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("store_ca_file %q: %v, want %q", file, err, want)
		}
	}
}
