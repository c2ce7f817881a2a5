package gateway_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

// tool is a program of Debian's that a test needs.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("there is no %s: install the Debian package %s (make deps)", name, pkg)
	}
	return path
}

// output runs a program and returns what it prints; both is told of a failure.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, name, args...)
	command.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "no_proxy=*")
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// radicale is Debian's calendar server, which takes the user's name from X-Remote-User and lets everybody see their own things only.
func radicale(t *testing.T) string {
	t.Helper()
	path := tool(t, "radicale", "radicale")
	dir, port := t.TempDir(), storetest.FreePort(t)
	config := filepath.Join(dir, "config")
	text := fmt.Sprintf("[server]\nhosts = 127.0.0.1:%s\n[auth]\ntype = http_x_remote_user\ndelay = 0\n[rights]\ntype = owner_only\n[storage]\nfilesystem_folder = %s\n[web]\ntype = none\n",
		port, filepath.Join(dir, "collections"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	command := exec.CommandContext(t.Context(), path, "--config", config)
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("radicale: %s", log.String())
		}
	})
	address := "127.0.0.1:" + port
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return "http://" + address
		}
		if time.Now().After(deadline) {
			t.Fatalf("radicale does not listen: %v", err)
		}
	}
}

// repositories is git's own HTTP server, in which anybody with a name may push.
func repositories(t *testing.T) string {
	t.Helper()
	git := tool(t, "git", "git")
	root := t.TempDir()
	output(t, git, "init", "--quiet", "--bare", "--initial-branch=main", filepath.Join(root, "notes.git"))
	backend := filepath.Join(strings.TrimSpace(output(t, git, "--exec-path")), "git-http-backend")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler := cgi.Handler{
			Path: backend, Dir: root,
			Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=" + r.Header.Get("Remote-User")},
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// nativeApps puts the calendar and the repositories behind one gateway.
func nativeApps(t *testing.T, calendar, repositories string) func(*configs.Config) {
	return func(c *configs.Config) {
		_, port, _ := strings.Cut(c.Listen, ":")
		if err := c.ExternalURL.UnmarshalText([]byte("http://login.localhost:" + port)); err != nil {
			t.Fatal(err)
		}
		c.Upstream = configs.Origin{}
		var at [2]configs.Upstream
		for i, address := range []string{calendar, repositories} {
			if err := at[i].UnmarshalText([]byte(address)); err != nil {
				t.Fatal(err)
			}
		}
		c.Routes = []configs.Route{
			{Name: "caldav", Host: "dav.localhost", Upstreams: at[:1], HeaderPreset: configs.PresetXRemote},
			{Name: "git", Host: "git.localhost", Upstreams: at[1:]},
		}
	}
}

// Programs that never saw a login page, with nothing but a name and an app token: a calendar client (as curl plays it) against Radicale, and git.
func TestAppTokens_ofCalendarsAndGit(t *testing.T) {
	t.Parallel()
	curl, git := tool(t, "curl", "curl"), tool(t, "git", "git")
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: nativeApps(t, radicale(t), repositories(t))})
	_, port, _ := strings.Cut(g.Origin.Host, ":")
	g.AddUser("alice")
	g.AddUser("bob")
	calendar, repository := addToken(t, g, "alice", "caldav").Secret, addToken(t, g, "alice", "git").Secret
	dav := func(user, token, method, path string, more ...string) (status, body string) {
		args := append([]string{"--silent", "--max-time", "20", "--user", user + ":" + token, "--request", method, "--write-out", "\n%{http_code}"}, more...)
		out := output(t, curl, append(args, "http://dav.localhost:"+port+path)...)
		at := strings.LastIndex(out, "\n")
		return out[at+1:], out[:at]
	}

	if status, body := dav("alice", calendar, "MKCALENDAR", "/alice/work/"); status != "201" {
		t.Fatalf("make a calendar: %s %s", status, body)
	}
	event := "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//test//EN\r\nBEGIN:VEVENT\r\nUID:one\r\nDTSTAMP:20261123T100000Z\r\nDTSTART:20261124T100000Z\r\nSUMMARY:Review\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
	if status, body := dav("alice", calendar, "PUT", "/alice/work/one.ics", "--header", "Content-Type: text/calendar", "--data-binary", event); status != "201" {
		t.Fatalf("put an event: %s %s", status, body)
	}
	if status, body := dav("alice", calendar, "PROPFIND", "/alice/", "--header", "Depth: 1"); status != "207" || !strings.Contains(body, "/alice/work/") {
		t.Errorf("list the calendars: %s %s", status, body)
	}
	bobs := addToken(t, g, "bob", "caldav").Secret
	if status, body := dav("bob", bobs, "PROPFIND", "/alice/work/", "--header", "X-Remote-User: alice", "--header", "X_Remote_User: alice"); status == "207" && strings.Contains(body, "one.ics") {
		t.Errorf("bob forged his way to alice's calendar: %s", body)
	}
	if status, _ := dav("alice", repository, "PROPFIND", "/alice/"); status != "401" {
		t.Errorf("with the token of another route: %s", status)
	}
	if status, _ := dav("alice", gatewaytest.Password, "PROPFIND", "/alice/"); status != "401" {
		t.Errorf("with the password: %s", status)
	}

	remote := "http://alice:" + repository + "@git.localhost:" + port + "/notes.git"
	work := filepath.Join(t.TempDir(), "notes")
	output(t, git, "clone", "--quiet", remote, work)
	if err := os.WriteFile(filepath.Join(work, "note"), []byte("kept\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	output(t, git, "-C", work, "add", "note")
	output(t, git, "-C", work, "-c", "user.name=Alice", "-c", "user.email=alice@example.org", "commit", "--quiet", "--message", "Keep a note")
	output(t, git, "-C", work, "push", "--quiet", "origin", "HEAD:main")
	again := filepath.Join(t.TempDir(), "again")
	output(t, git, "clone", "--quiet", "--branch", "main", remote, again)
	if text, err := os.ReadFile(filepath.Join(again, "note")); err != nil || string(text) != "kept\n" {
		t.Errorf("cloned %q, %v", text, err)
	}
}
