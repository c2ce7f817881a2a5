package snippet_test

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
	"gatehouse/proxy"
	"gatehouse/snippet"
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

var fence = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// TestDocs_webServersTakeTheirConfigurations gives every configuration of a web server in the documentation to that server.
func TestDocs_webServersTakeTheirConfigurations(t *testing.T) {
	t.Parallel()
	count := map[string]int{}
	for _, pattern := range []string{"../*.md", "../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, block := range fence.FindAllStringSubmatch(string(text), -1) {
				if _, ours := webServers[block[1]]; ours {
					checkWebServer(t, block[1], file, block[2])
					count[block[1]]++
				}
			}
		}
	}
	if len(count) != len(webServers) {
		t.Errorf("the documentation has configurations of %v only; is the pattern right?", count)
	}
}

// TestText_isTaken gives what is written for sites of every kind to the programs.
func TestText_isTaken(t *testing.T) {
	t.Parallel()
	headers := proxy.PresetForwarded.Headers()
	for name, site := range map[string]snippet.Site{
		"many hosts": {Scheme: "https", Login: "login.example.com", Gateway: "127.0.0.1:8080", Identity: identities(), Apps: []snippet.App{
			{Name: "wiki", Host: "wiki.example.com", Path: "/", Upstreams: []string{"http://127.0.0.1:3000", "http://127.0.0.1:3001"}, Headers: headers},
			{Name: "wiki-api", Host: "wiki.example.com", Path: "/api/über uns", Upstreams: []string{"http://127.0.0.1"}, Headers: headers},
			{Name: "grpc", Host: "wiki.example.com", Path: "/grpc", Upstreams: []string{"h2c://127.0.0.1:3003"}, Headers: headers, Through: true},
			{Name: "any", Host: "*.apps.example.com", Path: "/", Upstreams: []string{"http://[::1]:3004"}, Headers: headers},
			{Name: "elsewhere", Host: "static.example.com:8443", Path: "/", Headers: headers},
		}},
		"one app on the login host": {Scheme: "https", Login: "app.example.com", Gateway: "127.0.0.1:8080", Identity: identities(), Apps: []snippet.App{
			{Name: "app", Host: "app.example.com", Path: "/", Upstreams: []string{"http://127.0.0.1:3000"}, Headers: headers},
		}},
		"an app below the login host": {Scheme: "http", Login: "localhost:8000", Gateway: "127.0.0.1:8080", Identity: identities(), Apps: []snippet.App{
			{Name: "app", Host: "localhost:8000", Path: "/app", Upstreams: []string{"http://127.0.0.1:3000"}, Headers: headers},
		}},
	} {
		for _, program := range snippet.Programs() {
			text, err := snippet.Text(program, site)
			if err != nil {
				t.Fatal(err)
			}
			if _, packaged := webServers[program]; packaged {
				checkWebServer(t, program, name, text)
			}
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
