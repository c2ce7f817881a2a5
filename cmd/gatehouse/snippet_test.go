package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"gatehouse/snippet"
)

// fronted is hosts and routes of every kind that a web server can stand in front of.
const fronted = `
listen: ":8080"
external_url: https://login.example.com
forward_auth: {peers: [127.0.0.1]}
routes:
  - {name: wiki, host: wiki.example.com, upstreams: ["http://127.0.0.1:3000", "http://127.0.0.1:3001"]}
  - {name: wiki-api, host: wiki.example.com, path: /api/über uns, upstreams: ["http://127.0.0.1:3002"], header_preset: x-forwarded}
  - {name: grpc, host: wiki.example.com, path: /grpc, upstreams: ["h2c://127.0.0.1:3003"]}
  - {name: any, host: "*.apps.example.com", upstreams: ["http://[::1]:3004"], header_preset: x-auth-request}
  - {name: elsewhere, host: static.example.com:8443}
`

func snippetOf(t *testing.T, content, program string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := runConfig(t, nil, "snippet", program, "--config", file)
	if code != exitDone {
		t.Fatalf("%s: %s", program, errOut)
	}
	return out
}

// TestConfigSnippet_isYAML parses what is printed for the programs whose configuration is YAML; the others are run by the tests of snippet.
func TestConfigSnippet_isYAML(t *testing.T) {
	t.Parallel()
	one := "external_url: https://app.example.com\nupstream: http://127.0.0.1:3000\nforward_auth: {peers: [127.0.0.1]}\n"
	for name, content := range map[string]string{"many hosts": fronted, "one app on the login host": one} {
		for _, program := range []string{snippet.Traefik, snippet.Envoy} {
			out := snippetOf(t, content, program)
			var parsed map[string]any
			if err := yaml.UnmarshalWithOptions([]byte(out), &parsed, yaml.Strict()); err != nil {
				t.Errorf("%s, %s: %v\n%s", name, program, err, out)
			}
		}
	}
}

// TestConfigSnippet_namesEverything looks for what no front proxy may forget.
func TestConfigSnippet_namesEverything(t *testing.T) {
	t.Parallel()
	for _, program := range snippet.Programs() {
		out := strings.ReplaceAll(strings.ToLower(snippetOf(t, fronted, program)), `\`, "") // without the marks of expressions
		for _, want := range []string{
			"127.0.0.1:3000", "127.0.0.1:3002", "3004", "/.gatehouse", "/.gatehouse/authz/", "remote-user", "x-forwarded-user", "cookie",
			"login.example.com", "wiki.example.com", "apps.example.com", "static.example.com",
		} {
			if program == snippet.HAProxy && (strings.Contains(want, "authz") || want == "cookie" || want == "login.example.com" || strings.HasSuffix(want, "-user")) {
				continue // is in the action that is shipped, or the default
			}
			if program == snippet.Envoy && (want == "127.0.0.1:3000" || want == "127.0.0.1:3002") {
				want = want[len("127.0.0.1:"):]
			}
			if !strings.Contains(out, want) {
				t.Errorf("%s: nothing about %s", program, want)
			}
		}
		if strings.Contains(out, "3003") {
			t.Errorf("%s: goes to an app past the gateway that it cannot serve as the gateway would", program)
		}
	}
}

func TestConfigSnippet_refuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		program, content, want string
		code                   int
	}{
		{"apache", fronted, `"apache" is none of nginx, caddy, haproxy, traefik, envoy`, exitUsage},
		{"nginx", "external_url: https://a.example\nupstream: http://h\ntls: {cert_file: a, key_file: b}\n", "speaks TLS itself", exitFailed},
		{"nginx", "", "there is no app", exitFailed},
	} {
		file := filepath.Join(t.TempDir(), "gatehouse.yaml")
		if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, errOut := runConfig(t, nil, "snippet", c.program, "--config", file); code != c.code || !strings.Contains(errOut, c.want) || out != "" {
			t.Errorf("%s: got %d, %q, %q", c.program, code, out, errOut)
		}
	}
}
