package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
)

const verify = prefix + "login/verify"

// since is when the last factor of a browser's session was presented, as it is told itself.
func since(t *testing.T, b *gatewaytest.Browser) time.Time {
	t.Helper()
	answer := b.Get(prefix + "api/v1/session")
	at, err := time.Parse(time.RFC3339, answer.Field("auth_time"))
	if err != nil {
		t.Fatalf("who am I: %d %s", answer.StatusCode, answer.Text)
	}
	return at
}

func TestVerify_makesTheSessionFresher(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	g.AddUser("alice")
	secret := g.Enrol("alice")
	b := g.SignIn("alice", secret)
	for _, wait := range []time.Duration{time.Minute, 20 * time.Minute} { // with a good access token, and with one that has expired
		g.Clock.Add(wait)
		page := b.Get(verify + "?next=" + url.QueryEscape("/report?page=2"))
		old := b.Copy()
		if page.StatusCode != http.StatusOK || !strings.Contains(page.Text, "as alice, ") {
			t.Fatalf("the page: %d %s", page.StatusCode, page.Text)
		}
		if answer := post(t, b, page, verify, url.Values{"code": {"000000"}, "next": {"/report?page=2"}}); answer.StatusCode != http.StatusUnauthorized ||
			!strings.Contains(answer.Text, `value="/report?page=2"`) {
			t.Errorf("a wrong code: %d %s", answer.StatusCode, answer.Text)
		}
		answer := post(t, b, page, verify, url.Values{"code": {" " + g.Code(secret)}, "next": {"/report?page=2"}})
		if answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != g.URL+"/report?page=2" {
			t.Fatalf("the code: %d to %q", answer.StatusCode, answer.Header.Get("Location"))
		}
		if got := since(t, b); !got.Equal(g.Clock.Now()) {
			t.Errorf("fresh since %v, want %v", got, g.Clock.Now())
		}
		if got := old.Do(http.MethodGet, prefix+"api/v1/session", nil, nil); got.StatusCode != http.StatusUnauthorized {
			t.Errorf("what was there before: %d", got.StatusCode)
		}
		if again := post(t, b, page, verify, url.Values{"code": {g.Code(secret)}}); !strings.Contains(again.Text, "already used") {
			t.Errorf("the same code again: %d %s", again.StatusCode, again.Text)
		}
	}
}

func TestVerify_sendsOthersElsewhere(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) { c.Login.SecondFactor = configs.Optional }})
	g.AddUser("bob")
	nobody := g.NewBrowser()
	if answer := nobody.Get(verify + "?next=/report"); answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != prefix+"login?next=%2Freport" {
		t.Errorf("nobody: %d to %q", answer.StatusCode, answer.Header.Get("Location"))
	}
	page := nobody.Get(prefix + "login")
	if answer := post(t, nobody, page, verify, url.Values{"code": {"123456"}, "next": {"/report"}}); answer.Header.Get("Location") != prefix+"login?next=%2Freport" {
		t.Errorf("a code of nobody: %d to %q", answer.StatusCode, answer.Header.Get("Location"))
	}
	if answer := nobody.Get(verify + "?next=https://evil.example/"); answer.Header.Get("Location") != prefix+"login" {
		t.Errorf("a foreign next: to %q", answer.Header.Get("Location"))
	}
	// Without a second factor the page says what to do, and a POST changes nothing.
	b := g.NewBrowser()
	if answer := b.Password("bob", gatewaytest.Password); answer.StatusCode != http.StatusSeeOther {
		t.Fatalf("bob signs in: %d", answer.StatusCode)
	}
	page = b.Get(verify)
	if page.StatusCode != http.StatusOK || !strings.Contains(page.Text, "gatehouse totp enrol") {
		t.Errorf("no factor: %d %s", page.StatusCode, page.Text)
	}
	answer := post(t, b, b.Get(prefix+"logout"), verify, url.Values{"code": {"123456"}})
	if answer.StatusCode != http.StatusUnauthorized || !strings.Contains(answer.Text, "gatehouse totp enrol") {
		t.Errorf("a code where there is no factor: %d", answer.StatusCode)
	}
	// A bearer token has no session that a browser could go on with.
	bearer := b.Login("bob", gatewaytest.Password, "").Field("access_token")
	program := g.NewBrowser()
	if answer := program.Do(http.MethodGet, verify, nil, http.Header{"Authorization": {"Bearer " + bearer}}); answer.StatusCode != http.StatusSeeOther {
		t.Errorf("with a bearer token: %d", answer.StatusCode)
	}
}

// WB-01 for this form: no token, another site.
func TestVerify_takesItsOwnFormsOnly(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	g.AddUser("alice")
	secret := g.Enrol("alice")
	b := g.SignIn("alice", secret)
	g.Clock.Add(time.Minute)
	before := since(t, b)
	if answer := b.PostForm(verify, url.Values{"code": {g.Code(secret)}, "next": {"/"}}); answer.StatusCode != http.StatusForbidden {
		t.Errorf("without a form token: %d", answer.StatusCode)
	}
	foreign := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}
	form := url.Values{"code": {g.Code(secret)}, "form_token": {gatewaytest.FormToken(t, b.Get(verify).Text)}}
	if answer := b.Do(http.MethodPost, verify, strings.NewReader(form.Encode()), foreign); answer.StatusCode != http.StatusForbidden {
		t.Errorf("from another site: %d", answer.StatusCode)
	}
	if got := since(t, b); !got.Equal(before) {
		t.Error("it counted all the same")
	}
}
