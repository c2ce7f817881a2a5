package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/admin/api"
	"gatehouse/configs"
)

const explained = `external_url: https://login.example.com
routes:
  - name: wiki
    host: wiki.example.com
    upstreams: [http://10.0.0.5]
    rules:
      - {paths: [/public], methods: [GET], access: public}
      - {paths: [/admin], groups: [admins], factor_within: 15m}
      - {paths: [/intern], networks: [10.0.0.0/8]}
      - {paths: [/second], second_factor: true}
      - {paths: [/gone], access: denied}
  - host: "*.apps.example.com"
    path: /api
    upstreams: [http://10.0.0.6]
`

func TestExplain_says(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(file, []byte(explained), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := loadConfiguration(configs.Sources{File: file})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	session := func(methods string, age time.Duration) []api.Session {
		return []api.Session{{Methods: strings.Fields(methods), AuthTime: now.Add(-age)}}
	}
	admin := api.User{Name: "alice", Groups: []string{"admins"}, TOTPEnrolledAt: now}
	staff := api.User{Name: "bob", Groups: []string{"staff"}}
	for _, c := range []struct {
		name, url, method, address string
		user                       *who
		answer, why                string
		rule                       int // that decides; 0: none
	}{
		{"public", "https://wiki.example.com/public?x=/admin", "", "", nil, "pass", "without a login", 1},
		{"HEAD is a GET", "https://wiki.example.com/public", "HEAD", "", nil, "pass", "without a login", 1},
		{"another method", "https://wiki.example.com/public", "POST", "", nil, "forbidden", "no rule of the route matches", 0},
		{"nobody", "https://wiki.example.com/admin", "", "", nil, "sign-in", "401 session-required", 2},
		{"a group", "https://WIKI.example.com:443/admin/x", "", "", subject(admin, session("pwd otp", 5*time.Minute)), "pass", "names the user", 2},
		{"an old factor", "https://wiki.example.com/admin", "", "", subject(admin, session("pwd otp", time.Hour)), "step-up", "of the last 15m0s, and it was used 1h0m0s ago", 2},
		{"no session", "https://wiki.example.com/admin", "", "", subject(admin, nil), "pass", "names the user", 2},
		{"disabled", "https://wiki.example.com/admin", "", "", subject(api.User{Name: "alice", Disabled: true}, nil), "sign-in", "alice is disabled", 2},
		{"another group", "https://wiki.example.com/admin", "", "", subject(staff, nil), "forbidden", "(staff)", 2},
		{"no factor", "https://wiki.example.com/second", "", "", subject(staff, session("pwd", 0)), "step-up", "none was used", 4},
		{"a network", "https://wiki.example.com/intern", "", "10.1.2.3", subject(staff, nil), "pass", "who is signed in", 3},
		{"another network", "https://wiki.example.com/intern", "", "192.0.2.1", subject(staff, nil), "forbidden", "no rule", 0},
		{"denied", "https://wiki.example.com/gone", "", "", subject(staff, nil), "forbidden", "lets nobody pass", 5},
		{"a wildcard", "https://git.apps.example.com/api/x", "", "", subject(staff, nil), "pass", "who is signed in", 1},
		{"no route", "https://git.apps.example.com/", "", "", nil, "not-found", "404", 0},
		{"another host", "https://git.example.com/", "", "", nil, "not-served", "421", 0},
		{"another scheme", "http://wiki.example.com/a?b", "", "", nil, "not-served", "every host is https; scheme and port are those of external_url: ask for https://wiki.example.com/a?b", 0},
		{"another port", "https://wiki.example.com:8443/a", "", "", nil, "not-served", "421; scheme and port are those of external_url: ask for https://wiki.example.com/a", 0},
		{"dots", "https://wiki.example.com/public/../admin", "", "", nil, "bad-path", "400", 0},
		{"an encoded slash", "https://wiki.example.com/public%2F..%2Fadmin", "", "", nil, "bad-path", "encoded_slashes", 0},
		{"ours", "https://wiki.example.com/.gatehouse/logout", "", "", nil, "gateway", "belongs to the gateway", 0},
		{"the login host", "https://login.example.com", "", "", nil, "not-found", "carries no app", 0},
	} {
		method := c.method
		if method == "" {
			method = "GET"
		}
		asked, err := readQuestion(c.url, method, c.address)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got, err := explain(loaded, asked, c.user, now)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		rule := 0
		for _, r := range got.Rules {
			if r.Decides {
				rule = r.Number
			}
		}
		if got.Answer != c.answer || !strings.Contains(got.Why, c.why) || rule != c.rule {
			t.Errorf("%s: got %s by rule %d: %s; want %s by rule %d: …%s…", c.name, got.Answer, rule, got.Why, c.answer, c.rule, c.why)
		}
	}
}

// Who tries Gatehouse out on a port forgets it, and is told.
func TestExplain_saysWhichPortIsMissing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	content := "external_url: http://login.localhost:8080\nroutes: [{host: wiki.localhost, upstreams: ['http://127.0.0.1:1']}, {host: '*.apps.localhost', upstreams: ['http://127.0.0.1:2']}]\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]string{
		"http://wiki.localhost/a?b=/c": "ask for http://wiki.localhost:8080/a?b=/c", "https://wiki.localhost": "ask for http://wiki.localhost:8080",
		"http://git.apps.localhost:80/": "ask for http://git.apps.localhost:8080/", "http://login.localhost/": "ask for http://login.localhost:8080/",
		"http://elsewhere.localhost/": "the answer is 421\n",
	} {
		if code, out, errOut := runConfig(t, nil, "explain", "--config", file, asked); code != exitDone || !strings.Contains(out, want) {
			t.Errorf("%s: got %d, %s%s, want %q", asked, code, out, errOut, want)
		}
	}
	if _, _, errOut := runConfig(t, nil, "explain", "--config", file, "wiki.localhost:8080/a"); !strings.Contains(errOut, "has no scheme") {
		t.Errorf("without a scheme: got %q", errOut)
	}
}

func TestConfigExplain_printsTheRulesOfTheRoute(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(file, []byte(explained), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := runConfig(t, nil, "explain", "--config", file, "https://wiki.example.com/admin")
	want := `answer   sign-in
why      the rule asks for somebody who is signed in; a browser is sent to the login page, everything else gets 401 session-required
request  GET https://wiki.example.com/admin
user     nobody is signed in
route    wiki, wiki.example.com/ (FILE:3:5)
rule 1   paths /public, methods GET: public (FILE:7:10)
rule 2   paths /admin: signed-in, groups admins, second factor within 15m0s (FILE:8:10)  <- decides
rule 3   paths /intern, networks 10.0.0.0/8: signed-in (FILE:9:10)
rule 4   paths /second: signed-in, second factor (FILE:10:10)
rule 5   paths /gone: denied (FILE:11:10)
`
	if got := strings.ReplaceAll(out, file, "FILE"); code != exitDone || errOut != "" || got != want {
		t.Errorf("got %d, %q and\n%s\nwant\n%s", code, errOut, got, want)
	}
	_, out, _ = runConfig(t, nil, "explain", "--config", file, "-o", "json", "--address", "10.0.0.9", "https://wiki.example.com/intern")
	var e explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil || e.Answer != "sign-in" || e.Route.Name != "wiki" || !e.Rules[2].Decides || e.Rules[2].Setting != "routes[0].rules[2]" {
		t.Errorf("got %+v, %v from %s", e, err, out)
	}
	for _, args := range [][]string{{"wiki.example.com/"}, {"https://"}, {"https://a@b/"}, {"--method", "get", "https://a/"}, {"--address", "x", "https://a/"}, {}} {
		if code, _, errOut := runConfig(t, nil, append([]string{"explain"}, args...)...); code != exitUsage {
			t.Errorf("%q: got %d and %q, want a usage error", args, code, errOut)
		}
	}
}
