package configs_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"gatehouse/configs"
)

// twoApps is a configuration with most of what routes can have.
const twoApps = `
external_url: https://login.example.com:8443
routes:
  - name: wiki
    host: Wiki.example.com
    upstreams: [http://10.0.0.5:3000, h2c://10.0.0.6]
    rules:
      - {paths: [/public], methods: [GET], networks: [0.0.0.0/0, "::/0"], access: public}
      - paths:
          - /admin
          - /api/admin
        groups: [admins]
        users: [alice]
        factor_within: 15m
      - access: signed-in
    body_limit: 10MiB
    encoded_slashes: true
  - host: "*.apps.example.com:443"
    path: /api
    upstreams:
      - https://10.0.0.7
    tls: {ca_file: ca.pem, server_name: app.internal}
    dial_timeout: 2s
    strip_prefix: true
`

func TestLoad_readsRoutes(t *testing.T) {
	t.Parallel()
	loaded := load(t, twoApps)
	upstream := func(scheme, host string) configs.Upstream {
		return configs.Upstream{Origin: configs.Origin{Scheme: scheme, Host: host}}
	}
	want := []configs.Route{
		{
			Name: "wiki", Host: "wiki.example.com:8443", Path: "/",
			Upstreams: []configs.Upstream{upstream("http", "10.0.0.5:3000"), upstream("h2c", "10.0.0.6")},
			Rules: []configs.Rule{
				{
					Paths: []configs.Path{"/public"}, Methods: []configs.Method{"GET"}, Access: configs.Public,
					Networks: []configs.Network{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}},
				},
				{
					Paths: []configs.Path{"/admin", "/api/admin"}, Groups: []configs.UserName{"admins"}, Users: []configs.UserName{"alice"},
					Access: configs.SignedIn, FactorWithin: 15 * time.Minute,
				},
				{Access: configs.SignedIn},
			},
			EncodedSlashes: true, HeaderPreset: configs.PresetRemote, HostHeader: configs.HostOriginal, BodyLimit: 10 << 20,
			DialTimeout: 5 * time.Second, ResponseHeaderTimeout: time.Minute, IdleTimeout: 90 * time.Second, WhenStoreIsAway: configs.Continue,
		},
		{
			Name: "any-apps-example-com-443-api", Host: "*.apps.example.com", Path: "/api", Upstreams: []configs.Upstream{upstream("https", "10.0.0.7")},
			Rules: []configs.Rule{{Access: configs.SignedIn}}, HeaderPreset: configs.PresetRemote, HostHeader: configs.HostOriginal,
			DialTimeout: 2 * time.Second, ResponseHeaderTimeout: time.Minute, IdleTimeout: 90 * time.Second, StripPrefix: true,
			TLS: configs.UpstreamTLS{CAFile: "ca.pem", ServerName: "app.internal"}, WhenStoreIsAway: configs.Continue,
		},
	}
	if got := loaded.Config.AppRoutes(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if address := want[0].Upstreams[1].Address(); address != "10.0.0.6:80" {
		t.Errorf("h2c: got address %s, want port 80", address)
	}
	for setting, place := range map[string]string{
		"routes": "4:3", "routes[0]": "4:5", "routes[0].rules[0].access": "8:83", "routes[0].rules[1].paths": "10:11", "routes[1].tls.ca_file": "22:20",
	} {
		at := loaded.Origins[setting]
		if got := fmt.Sprintf("%d:%d", at.Line, at.Column); got != place {
			t.Errorf("%s: got place %s, want %s", setting, got, place)
		}
	}
}

func TestLoaded_showsEverySettingOfARoute(t *testing.T) {
	t.Parallel()
	shown := map[string]string{}
	for _, s := range load(t, twoApps).Settings() {
		shown[s.Name] = s.Value
	}
	for name, want := range map[string]string{
		"routes[0].host": "wiki.example.com", "routes[0].upstreams": "http://10.0.0.5:3000, h2c://10.0.0.6", "routes[0].body_limit": "10MiB",
		"routes[0].rules[0].networks": "0.0.0.0/0, ::/0", "routes[0].rules[1].groups": "admins", "routes[0].rules[2].access": "signed-in",
		"routes[1].name": "any-apps-example-com-443-api", "routes[1].dial_timeout": "2s", "routes[1].idle_timeout": "1m30s",
		"routes[1].rules[0].access": "signed-in", "routes[1].tls.server_name": "app.internal",
	} {
		if shown[name] != want {
			t.Errorf("%s: got %q, want %q", name, shown[name], want)
		}
	}
}

func TestConfig_hasOneRouteWithoutRoutes(t *testing.T) {
	t.Parallel()
	for content, upstreams := range map[string]string{"": "[]", "upstream: http://127.0.0.1:9": "[http://127.0.0.1:9]"} {
		routes := load(t, content).Config.AppRoutes()
		if len(routes) != 1 || routes[0].Host != "localhost:8080" || routes[0].Path != "/" || routes[0].Name != "app" ||
			fmt.Sprint(routes[0].Upstreams) != upstreams || len(routes[0].Rules) != 1 || routes[0].Rules[0].Access != configs.SignedIn {
			t.Errorf("%q: got %+v", content, routes)
		}
	}
}

func TestLoad_reportsEverythingInRoutesAtOnce(t *testing.T) {
	t.Parallel()
	got := problems(t, configs.Sources{
		File: write(t, `external_url: https://login.example.com
routes:
  - hots: wiki.example.com
    upstream: http://10.0.0.5
    rules:
      - paths: [/a, b]
        path: /a
        access: everybody
      - groups: [Admins]
        groups: [staff]
      - admins
    body_limit: 10MB
    paths: [/x]
    tls: yes
  - host: a.example.com
    upstreams: [http://10.0.0.5]
    rules: {access: public}
    encoded_slashes: on
  - name: b
rules: []
`),
		Environ: []string{"GATEHOUSE_ROUTES=x", "GATEHOUSE_ROUTES__0__HOST=y"},
		Flags:   map[string]string{"routes": "x"},
	})
	want := []string{
		`gatehouse.yaml:3:5 unknown key "routes[0].hots" — did you mean "routes[0].host"?`,
		`gatehouse.yaml:3:5 routes[0].host must be given: without one a route is on the login host, which carries an app only where that is the only route`,
		`gatehouse.yaml:3:5 routes[0].upstreams must be given: the address of the app, as in [http://127.0.0.1:3000]`,
		`gatehouse.yaml:4:5 unknown key "routes[0].upstream" — did you mean "routes[0].upstreams"?`,
		`gatehouse.yaml:6:21 routes[0].rules[0].paths "b" must begin with /`,
		`gatehouse.yaml:7:9 unknown key "routes[0].rules[0].path" — did you mean "routes[0].rules[0].paths"?`,
		`gatehouse.yaml:8:17 routes[0].rules[0].access must be public, signed-in or denied, not "everybody"`,
		`gatehouse.yaml:9:18 routes[0].rules[1].groups "Admins" is no name: 1 to 64 of a-z, 0-9 and ._@+-, in lower case, beginning with a letter or digit`,
		`gatehouse.yaml:10:9 "routes[0].rules[1].groups" stands here again; it was set on line 9`,
		`gatehouse.yaml:11:9 routes[0].rules[2] must be a group of settings, as in - paths: [/admin]`,
		`gatehouse.yaml:12:17 routes[0].body_limit must be a number of bytes, as in 65536, 512KiB, 10MiB or 2GiB`,
		`gatehouse.yaml:13:5 unknown key "routes[0].paths" — did you mean "routes[0].path"?`,
		`gatehouse.yaml:14:10 routes[0].tls is a group: its settings stand below it, indented`,
		`gatehouse.yaml:17:12 routes[1].rules is a list of groups: each begins with a hyphen, and its settings stand below one another`,
		`gatehouse.yaml:18:22 routes[1].encoded_slashes must be true or false, not "on"`,
		`gatehouse.yaml:19:5 routes[2].host must be given: without one a route is on the login host, which carries an app only where that is the only route`,
		`gatehouse.yaml:19:5 routes[2].upstreams must be given: the address of the app, as in [http://127.0.0.1:3000]`,
		`gatehouse.yaml:20:1 unknown key "rules" — did you mean "routes[].rules"?`,
		`GATEHOUSE_ROUTES cannot be set by a variable: routes stand in the configuration file only`,
		`GATEHOUSE_ROUTES__0__HOST cannot be set by a variable: routes stand in the configuration file only`,
		`--routes cannot be set by a flag: routes stand in the configuration file only`,
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("problem %d:\n got %s\nwant %s", i+1, strings.Join(got[min(i, len(got)):], "\n     "), strings.Join(want[min(i, len(want)):], "\n     "))
		}
	}
}

func TestLoad_refusesRoutes(t *testing.T) {
	t.Parallel()
	// one makes a configuration with one sound route and what is given.
	one := func(more string) string {
		return "external_url: https://login.example.com\nroutes:\n  - {name: a, host: a.example.com, upstreams: [http://10.0.0.5], " + more + "}\n"
	}
	host := func(host string) string {
		return "external_url: https://login.example.com\nroutes: [{upstreams: [http://10.0.0.5], host: '" + host + "'}]\n"
	}
	upstream := func(u string) string {
		return "external_url: https://login.example.com\nlisten: ':8443'\nhttp_listen: ':80'\nroutes: [{host: a.example.com, upstreams: ['" + u + "']}]\n"
	}
	for _, c := range []struct{ name, content, want string }{
		{"a name in capitals", strings.Replace(one("path: /"), "name: a", "name: Wiki", 1), "must be 1 to 40 of a-z"},
		{"a host with a scheme", host("https://a.example.com"), "must be a host alone"},
		{"a host with a path", host("a.example.com/wiki"), "must be a host alone"},
		{"a wildcard within", host("a.*.example.com"), "whole first label"},
		{"part of a label", host("a*.example.com"), "whole first label"},
		{"everything", host("*"), "whole first label"},
		{"two wildcards", host("*.*.example.com"), "whole first label"},
		{"a wildcard before an address", host("*.10.0.0.1"), "whole first label"},
		{"a top-level domain", host("*.com"), "which nobody owns"},
		{"a host with a dot at its end", host("a.example.com."), "must not end its host in a dot"},
		{"a host with a port in words", host("a.example.com:https"), "port that is not between"},
		{"an international host", host("bücher.example"), "xn-- form"},
		{"two routes on the login host", "external_url: https://a.example\nroutes: [{host: 'a.example:443', upstreams: [http://10.0.0.5]}, {host: b.example, upstreams: [http://10.0.0.5]}]", "is a.example, the login host"},
		{"a route without a host beside others", "external_url: https://a.example\nroutes: [{upstreams: [http://10.0.0.5]}, {host: b.example, upstreams: [http://10.0.0.5]}]", "host must be given"},
		{"a host beyond this machine", "routes: [{host: a.example, upstreams: [http://10.0.0.5]}]", "end in .localhost"},
		{"a wildcard beyond this machine", "routes: [{host: '*.a.example', upstreams: [http://10.0.0.5]}]", "end in .localhost"},
		{"the same host and path", one("path: /b") + "  - {name: b, host: 'A.example.com:443', path: /b, upstreams: [http://10.0.0.5]}", "has host a.example.com and path /b, as routes[0] (line 3) has"},
		{"the same name", one("path: /b") + "  - {name: a, host: b.example.com, upstreams: [http://10.0.0.5]}", `is "a", as that of routes[0]`},
		{"upstream and routes", one("path: /") + "upstream: http://10.0.0.5\n", "upstream and routes exclude one another"},
		{"a path without a slash", one("path: wiki"), "must begin with /"},
		{"a slash at the end", one("path: /wiki/"), "write /wiki"},
		{"a star", one("path: /wiki/*"), "no wildcard here"},
		{"an encoded path", one("path: /a%20b"), "written decoded"},
		{"dots", one("path: /a/../b"), "segment"},
		{"empty segments", one("path: /a//b"), "segment"},
		{"only slashes", one("path: //"), "ends in a slash"},
		{"a query", one("rules: [{paths: ['/a?b']}]"), "must be a path alone"},
		{"no upstream", "external_url: https://l.example\nroutes: [{host: a.example, upstreams: []}]", "must be given"},
		{"an empty upstream", upstream(""), "must not hold an empty value"},
		{"a WebSocket upstream", upstream("ws://10.0.0.5"), "must start with http"},
		{"an upstream with a path", upstream("h2c://10.0.0.5/x"), "must not have a path"},
		{"an upstream that is the listener", upstream("h2c://127.0.0.1:8443"), "which is listen"},
		{"an upstream that is the other listener", upstream("http://localhost"), "which is http_listen"},
		{"an upstream that is the login host", upstream("https://login.example.com"), "the gateway itself"},
		{"an upstream that is an app host", upstream("https://a.example.com"), "the gateway itself"},
		{"the same upstream twice", strings.Replace(one("path: /"), "[http://10.0.0.5]", "[http://10.0.0.5, 'http://10.0.0.5:80']", 1), "holds http://10.0.0.5 twice"},
		{"TLS without TLS", one("tls: {ca_file: a}"), "none of the route begins with https"},
		{"a certificate without a key", strings.Replace(one("tls: {cert_file: a}"), "http:", "https:", 1), "needs routes[0].tls.key_file"},
		{"a key without a certificate", strings.Replace(one("tls: {key_file: a}"), "http:", "https:", 1), "needs routes[0].tls.cert_file"},
		{"nothing to strip", one("strip_prefix: true"), "nothing to take off"},
		{"an unknown preset", one("header_preset: forwarded"), "must be remote, x-forwarded, x-auth-request or x-remote"},
		{"a negative body", one("body_limit: -1"), "number of bytes"},
		{"a body beyond numbers", one("body_limit: 9000000TiB"), "number of bytes"},
		{"an origin with a path", one("websocket_origins: [https://a.example/x]"), "must not have a path"},
		{"a method in small letters", one("rules: [{methods: [get]}]"), "must be written GET"},
		{"a method that is not passed on", one("rules: [{methods: [TRACE]}]"), "no method that is passed on"},
		{"a name with two @", one("rules: [{users: [a@b@c]}]"), "is no name"},
		{"public for groups", one("rules: [{access: public, groups: [a]}]"), "means nothing where access is public"},
		{"denied for users", one("rules: [{access: denied, users: [a]}]"), "means nothing where access is denied"},
		{"public with a factor", one("rules: [{access: public, second_factor: true}]"), "second_factor means nothing"},
		{"public with a fresh factor", one("rules: [{access: public, factor_within: 5m}]"), "factor_within means nothing"},
		{"a rule after one for all", one("rules: [{}, {paths: [/a]}]"), "rules[1] can never match, because routes[0].rules[0] (line 3)"},
		{"a rule below another", one("rules: [{paths: [/a, /b]}, {paths: [/b/c], groups: [x]}]"), "can never match"},
		{"a rule with fewer methods", one("rules: [{methods: [GET, POST]}, {methods: [HEAD], paths: [/a]}]"), "can never match"},
		{"a rule with a narrower network", one("rules: [{networks: [10.0.0.0/8]}, {networks: [10.1.0.0/16]}]"), "can never match"},
		{"a rule after one for the route", one("path: /a, rules: [{paths: [/a]}, {paths: [/a/b]}]"), "can never match"},
		{"a rule outside its route", one("path: /a, rules: [{paths: [/admin]}]"), "are not below /a"},
		{"routes that are none", "routes: wiki", "is a list of groups"},
		{"routes without a value", "routes:", "is a list of groups"},
		{"a route without a value", "routes:\n  -\n", "must be a group of settings"},

		{"everybody as a peer", "forward_auth: {peers: [0.0.0.0/0]}", "as good as everybody"},
		{"everybody with a PROXY header", "proxy_protocol: ['::/1']", "as good as everybody"},
		{"a certificate alone", "external_url: https://a.example\ntls: {cert_file: a}", "needs tls.key_file"},
		{"a key alone", "external_url: https://a.example\ntls: {key_file: a}", "needs tls.cert_file"},
		{"a certificate for http", "tls: {cert_file: a, key_file: b}", "is not https"},
		{"files and ACME", "external_url: https://a.example\ntls: {cert_file: a, key_file: b, acme: {accept_terms: true}}", "exclude one another"},
		{"ACME without the terms", "external_url: https://a.example\ntls: {acme: {email: a@b.c}}", "accept_terms must be true"},
		{"ACME for http", "tls: {acme: {accept_terms: true}}", "is not https"},
		{"ACME without TLS", "external_url: https://a.example\ntls: {acme: {accept_terms: true, directory: http://a}}", "must be an https URL"},
		{"HSTS for http", "hsts: 1d", "hsts is for https"},
		{"two years and a day", "external_url: https://a.example\nhsts: 731d", "must be from 0s to 730d"},
		{"ACME for an address", "external_url: https://192.0.2.1\ntls: {acme: {accept_terms: true}}", "external_url is an address"},
		{"ACME for a name of this machine", "external_url: https://gatehouse\ntls: {acme: {accept_terms: true}}", "of this machine or network only"},
		{"ACME for a wildcard", "external_url: https://l.example\ntls: {acme: {accept_terms: true}}\nroutes: [{host: '*.a.example', upstreams: ['http://h']}]", "routes[0].host is a wildcard"},
		{"administration with half a certificate", "admin_listen: 127.0.0.1:9\nadmin_token_file: t\nadmin_tls: {cert_file: a}", "needs admin_tls.key_file"},
		{"a socket with a certificate", "admin_tls: {cert_file: a, key_file: b}", "the socket needs no encryption"},
		{"redirects to http", "http_listen: ':80'", "is not https"},
		{"redirects from the public listener", "external_url: https://a.example\nlisten: ':80'\nhttp_listen: 127.0.0.1:80", "another of the gateway's listeners"},
		{"redirects from nowhere", "external_url: https://a.example\nhttp_listen: '80'", "must be host:port"},
		{"metrics on the public listener", "metrics_listen: 127.0.0.1:8080", "another of the gateway's listeners"},
		{"metrics nowhere", "metrics_listen: prometheus", "must be host:port"},
		{"an unknown access log", "access_log: {format: combined}", "must be json or common"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := problems(t, configs.Sources{File: write(t, c.content)})
			if len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("got %q, want one problem with %q", got, c.want)
			}
		})
	}
}

func TestLoad_acceptsRoutes(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"no routes":                  "routes: []",
		"one app on the login host":  "external_url: https://a.example\nroutes: [{upstreams: [http://10.0.0.5]}]",
		"wildcards of this machine":  "routes: [{host: '*.localhost', upstreams: [http://10.0.0.5]}]",
		"the same path elsewhere":    "external_url: https://l.example\nroutes: [{host: a.example, path: /x, upstreams: [http://h]}, {host: b.example, path: /x, upstreams: [http://h]}]",
		"paths below one another":    "external_url: https://l.example\nroutes: [{host: a.example, path: /x, upstreams: [http://h]}, {host: a.example, path: /x/y, upstreams: [http://i]}]",
		"rules that overlap":         "external_url: https://l.example\nroutes: [{host: a.example, upstreams: [http://h], rules: [{paths: [/a], methods: [GET]}, {paths: [/a]}, {}]}]",
		"a rule for all of IPv4":     "external_url: https://l.example\nroutes: [{host: a.example, upstreams: [http://h], rules: [{networks: [0.0.0.0/0]}, {networks: ['::/0']}]}]",
		"a rule over a route's path": "external_url: https://l.example\nroutes: [{host: a.example, path: /x, upstreams: [http://h], rules: [{paths: [/]}]}]",
		"blanks and letters":         "external_url: https://l.example\nroutes: [{host: a.example, path: /Über uns, upstreams: [http://h]}]",
		"an app behind its own door": "external_url: https://l.example\nforward_auth: {peers: [127.0.0.1]}\nroutes: [{host: a.example}]",
		"administration beyond":      "admin_listen: ':9443'\nadmin_token_file: t\nadmin_tls: {cert_file: a, key_file: b}",
		"a certificate":              "external_url: https://l.example\ntls: {cert_file: a, key_file: b}\nhttp_listen: ':80'\nhsts: 0s",
		"ACME":                       "external_url: https://l.example\ntls: {acme: {accept_terms: true}}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			load(t, content)
		})
	}
}

func TestConfig_hstsFollowsTheScheme(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]time.Duration{
		"": 0, "hsts: 0s": 0, "external_url: https://a.example": 365 * 24 * time.Hour, "external_url: https://a.example\nhsts: 0s": 0,
		"external_url: https://a.example\nhsts: 30d": 30 * 24 * time.Hour,
	} {
		if got := load(t, content).Config.HSTS; got != want {
			t.Errorf("%q: got %s, want %s", content, got, want)
		}
	}
}

func TestSize_isRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]configs.Size{"0": 0, "65537": 65537, "512KiB": 512 << 10, "1024KiB": 1 << 20, "2GiB": 2 << 30} {
		var s, again configs.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: got %d and %v, want %d", text, s, err, want)
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%q: reads its own text %q as %d and %v", text, s, again, err)
		}
	}
}

// checkRoutes holds accepted routes to what security depends on.
func checkRoutes(t *testing.T, cfg configs.Config) {
	t.Helper()
	seen := map[string]bool{}
	for _, r := range cfg.AppRoutes() {
		at := string(r.Host) + " " + string(r.Path)
		if seen[at] || seen[string(r.Name)] || r.Name == "" || r.Path == "" || r.Path[0] != '/' {
			t.Errorf("route %q %q is not unique, or not complete", r.Name, at)
		}
		seen[at], seen[string(r.Name)] = true, true
		if len(cfg.Routes) > 1 && string(r.Host) == cfg.ExternalURL.Host {
			t.Errorf("route %q is on the login host", r.Name)
		}
		for _, rule := range r.Rules {
			if rule.Access == configs.Public && len(rule.Users)+len(rule.Groups) > 0 {
				t.Errorf("route %q has a public rule with users", r.Name)
			}
		}
	}
}
