package gateway_test

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/internal/gatewaytest"
	"gatehouse/store"
	"gatehouse/store/storetest"
)

// The budget of performance.md: what the store is asked for a request, a login with password and code, and a renewal.
// What a gateway asks by itself, however many users there are, is not counted: the feed, the signing keys, readiness.
func TestGateway_asksRedisLittle(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	g := gatewaytest.Start(t, gatewaytest.Options{Redis: server.URL(), RootKey: gatewaytest.RootKey()})
	g.AddUser("alice", "staff")
	secret := g.Enrol("alice")
	m := server.Monitor(t)
	count := func(what string, most int) {
		t.Helper()
		var counted []string
		for _, c := range m.Commands(t) {
			c = c[:min(len(c), 160)]
			if !slices.ContainsFunc([]string{store.FeedKey, "check", string(store.Material)}, func(key string) bool {
				return strings.Contains(c, `"`+store.Prefix+key+`"`)
			}) {
				counted = append(counted, c)
			}
		}
		if len(counted) > most {
			t.Errorf("%s: %d commands, want at most %d:\n%s", what, len(counted), most, strings.Join(counted, "\n"))
		}
		t.Logf("%s: %d commands", what, len(counted))
	}
	signIn := func(b *gatewaytest.Browser) {
		t.Helper()
		g.Clock.Add(time.Minute)
		if a := b.Password("alice", gatewaytest.Password); a.StatusCode != 303 {
			t.Fatalf("password: %d\n%s", a.StatusCode, a.Text)
		}
		if a := b.Code(g.Code(secret)); a.StatusCode != 303 {
			t.Fatalf("code: %d\n%s", a.StatusCode, a.Text)
		}
	}
	request := func(b *gatewaytest.Browser) {
		t.Helper()
		if a := b.Get("/report"); a.StatusCode != 200 {
			t.Fatalf("request: %d\n%s", a.StatusCode, a.Text)
		}
	}
	known := func(b *gatewaytest.Browser) *gatewaytest.Browser { // another browser with the device cookie
		other := b.Copy()
		maps.DeleteFunc(other.Jar, func(name, _ string) bool { return !strings.HasSuffix(name, "-device") })
		return other
	}
	b := g.NewBrowser()
	m.Commands(t)
	signIn(b)
	count("the first login of an account, by forms", 31)
	b = known(b)
	signIn(b)
	count("a login by forms, its pages included", 27)
	g.Clock.Add(time.Minute)
	if a := known(b).Login("alice", gatewaytest.Password, g.Code(secret)); a.StatusCode != 200 {
		t.Fatalf("login in one request: %d\n%s", a.StatusCode, a.Text)
	}
	count("a login with password and code", 20)
	for range 20 {
		request(b)
	}
	count("20 requests", 0)
	g.Clock.Add(6 * time.Minute)
	request(b)
	count("a renewal", 4)
	if a := g.NewBrowser().Submit("/.gatehouse/login", url.Values{"username": {"nobody"}, "password": {"wrong"}}); a.StatusCode != 401 {
		t.Errorf("a wrong password: %d", a.StatusCode)
	}
	count("a wrong password", 7)
}
