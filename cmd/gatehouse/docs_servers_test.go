package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatehouse/configs"
)

// nginxFolders lets nginx make its folders where it may.
const nginxFolders = "access_log off; client_body_temp_path DIR/b; proxy_temp_path DIR/p; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;\n"

// webServers is how each web server is asked whether it takes a configuration. FILE is that, and DIR a folder for it alone.
var webServers = map[string]struct {
	whole   string // the configuration, with %s for what the documentation shows of it
	command []string
}{
	"nginx":   {"pid DIR/pid;\nerror_log stderr;\nevents {}\nhttp {\n" + nginxFolders + "%s}\n", []string{"nginx", "-t", "-q", "-c", "FILE"}},
	"caddy":   {"%s", []string{"caddy", "validate", "--adapter", "caddyfile", "--config", "FILE"}},
	"haproxy": {"%s", []string{"haproxy", "-c", "-q", "-f", "FILE"}},
}

// TestDocs_webServersTakeTheirConfigurations gives every configuration of a web server in the documentation to that server.
func TestDocs_webServersTakeTheirConfigurations(t *testing.T) {
	t.Parallel()
	for name := range webServers {
		count := 0
		for _, d := range documents(t) {
			for _, block := range d.blocks(name) {
				checkWebServer(t, name, d.name, block)
				count++
			}
		}
		if count == 0 {
			t.Errorf("no configuration of %s found in the documentation; is the pattern right?", name)
		}
	}
}

// checkWebServer asks a web server, of the Debian package of its name, whether it takes a configuration.
func checkWebServer(t *testing.T, name, from, block string) {
	t.Helper()
	dir := t.TempDir()
	file, certificate := filepath.Join(dir, "config"), filepath.Join(dir, "app.pem")
	writeCertificate(t, certificate)
	action := filepath.Join(dir, "gatehouse.lua")
	if err := os.WriteFile(action, configs.HAProxyAction(), 0o600); err != nil {
		t.Fatal(err)
	}
	server := webServers[name]
	block = regexp.MustCompile(`/etc/ssl/private/[a-z.]*\.pem`).ReplaceAllString(block, certificate)
	block = strings.ReplaceAll(block, "/etc/ssl/private/", certificate)
	block = strings.ReplaceAll(block, "/etc/haproxy/gatehouse.lua", action)
	content := fmt.Sprintf(server.whole, block)
	content = strings.ReplaceAll(content, "DIR", dir)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, arg := range server.command {
		args = append(args, strings.Replace(arg, "FILE", file, 1))
	}
	command := exec.CommandContext(t.Context(), args[0], args[1:]...)
	command.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%s: %s (Debian package %s): %v\n%s\n%s", from, args[0], name, err, out, content)
	}
}

// writeCertificate writes a certificate that nobody vouches for, with its key.
func writeCertificate(t *testing.T, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"app.example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, made, made, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
