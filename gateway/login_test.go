package gateway_test

import (
	"testing"

	"gatehouse/internal/gatewaytest"
)

// The whole story once, on the embedded store: a browser is sent to the login page, signs in with password and code, is let
// through with its name, signs out, and is nobody again.
func TestGateway_signsABrowserInAndOut(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	g.AddUser("alice", "staff")
	secret := g.Enrol("alice")
	b := g.NewBrowser()

	answer := b.Get("/report?year=2026")
	if answer.StatusCode != 302 {
		t.Fatalf("not signed in: status %d", answer.StatusCode)
	}
	login := answer.Header.Get("Location")
	if want := g.URL + "/.gatehouse/login?next=%2Freport%3Fyear%3D2026"; login != want {
		t.Fatalf("sent to %s, want %s", login, want)
	}
	page := b.Get(login)
	if page.StatusCode != 200 {
		t.Fatalf("login page: %d %s", page.StatusCode, page.Text)
	}
	answer = b.PostForm("/.gatehouse/login", map[string][]string{
		"username": {"alice"}, "password": {gatewaytest.Password}, "next": {"/report?year=2026"}, "form_token": {gatewaytest.FormToken(t, page.Text)},
	})
	if answer.StatusCode != 303 {
		t.Fatalf("password: %d %s", answer.StatusCode, answer.Text)
	}
	code := b.Get(answer.Header.Get("Location"))
	answer = b.PostForm("/.gatehouse/login/code", map[string][]string{
		"code": {g.Code(secret)}, "next": {"/report?year=2026"}, "form_token": {gatewaytest.FormToken(t, code.Text)},
	})
	if answer.StatusCode != 303 || answer.Header.Get("Location") != g.URL+"/report?year=2026" {
		t.Fatalf("code: %d to %s\n%s", answer.StatusCode, answer.Header.Get("Location"), answer.Text)
	}
	if answer = b.Get("/report?year=2026"); answer.StatusCode != 200 {
		t.Fatalf("signed in: %d %s\n%s", answer.StatusCode, answer.Text, g.Log)
	}
	if seen := g.Upstream.Last(t).Values("Remote-User"); len(seen) != 1 || seen[0] != "alice" {
		t.Fatalf("the app saw %q, want alice", seen)
	}
	if answer = b.Submit("/.gatehouse/logout", map[string][]string{}); answer.StatusCode != 200 {
		t.Fatalf("logout: %d %s", answer.StatusCode, answer.Text)
	}
	if answer = b.Get("/report"); answer.StatusCode != 302 {
		t.Fatalf("after signing out: %d", answer.StatusCode)
	}
}
