package gateway_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

// careful asks for a fresh second factor under /admin of every app.
func careful(o *gatewaytest.Options) {
	hosts := o.Configure
	o.Configure = func(c *configs.Config) {
		hosts(c)
		for i := range c.Routes {
			c.Routes[i].Rules = []configs.Rule{{Paths: []configs.Path{"/admin"}, FactorWithin: 15 * time.Minute}, {Access: configs.SignedIn}}
		}
	}
}

// stepUp enters the code that the way ended at, and goes on from there.
func stepUp(t *testing.T, person *gatewaytest.Person, g *gatewaytest.Gateway, way []gatewaytest.Hop, code string) []gatewaytest.Hop {
	t.Helper()
	page := way[len(way)-1]
	address, err := url.Parse(page.Address)
	if err != nil || address.Path != "/.gatehouse/login/verify" || page.StatusCode != http.StatusOK {
		t.Fatalf("got %d at %s, want the step-up page", page.StatusCode, page.Address)
	}
	form := url.Values{"code": {code}, "next": {address.Query().Get("next")}, "form_token": {gatewaytest.FormToken(t, page.Text)}}
	answer := person.At(g.URL).PostForm(address.Path, form)
	if answer.StatusCode != http.StatusSeeOther {
		t.Fatalf("code: %d %s", answer.StatusCode, answer.Text)
	}
	return person.Follow(g.URL+address.Path, answer)
}

// A rule of an app asks for a fresh factor: the person enters a code on the login host, is back in the app at once, and is not asked again,
// there or at another app, until the time is over. A program is told where a person would go.
func TestStepUp_overHosts(t *testing.T) {
	t.Parallel()
	h := newTwoApps(t, careful).withAlice()
	alice := h.signedIn(t)
	arrives(t, alice.Go(h.wiki+"/admin?a=b"), h.wiki+"/admin?a=b") // the login is fresh enough
	arrives(t, alice.Go(h.mail+"/"), h.mail+"/")
	h.Clock.Add(16 * time.Minute)
	arrives(t, alice.Go(h.wiki+"/page"), h.wiki+"/page")
	if answer := alice.At(h.wiki).Do(http.MethodGet, h.wiki+"/admin", nil, nil); answer.ProblemCode() != "step-up-required" ||
		answer.Field("login_url") != h.URL+"/.gatehouse/login/verify" {
		t.Errorf("a program: %d %s", answer.StatusCode, answer.Text)
	}
	before := alice.At(h.wiki).Copy()
	delete(before.Jar, handleName) // with which it would be the session
	way := alice.Go(h.wiki + "/admin?a=b")
	arrives(t, stepUp(t, alice, h.Gateway, way, h.Code(h.secret)), h.wiki+"/admin?a=b")
	arrives(t, alice.Go(h.mail+"/admin"), h.mail+"/admin") // where the token is of before
	if answer := before.Do(http.MethodGet, h.wiki+"/admin", nil, nil); answer.StatusCode == http.StatusOK {
		t.Error("an access token of before passes the rule")
	}
	h.Clock.Add(16 * time.Minute)
	if way := alice.Go(h.mail + "/admin"); !strings.Contains(way[len(way)-1].Address, "/.gatehouse/login/verify?next=") {
		t.Errorf("when the time is over: %v", addresses(way))
	}
}

// The same with a balancer that changes the gateway at every step: who has just entered a code is not sent back to enter another.
func TestStepUp_overGateways(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	clock, key := gatewaytest.NewClock(), gatewaytest.RootKey()
	one := newTwoApps(t, careful, func(o *gatewaytest.Options) { o.Redis, o.RootKey, o.Clock = server.URL(), key, clock }).withAlice()
	other := newTwoApps(t, careful, func(o *gatewaytest.Options) {
		o.Redis, o.RootKey, o.Clock = server.URL(), key, clock
		configure := o.Configure
		o.Configure = func(c *configs.Config) {
			configure(c)
			if err := c.ExternalURL.UnmarshalText([]byte(one.URL)); err != nil {
				t.Fatal(err)
			}
		}
	})
	alice := one.signedIn(t)
	there := alice.Through(other.Gateway)
	for range 5 {
		arrives(t, there.Go(one.wiki+"/page"), one.wiki+"/page") // the other gateway remembers her token
		clock.Add(16 * time.Minute)
		arrives(t, there.Go(one.wiki+"/page"), one.wiki+"/page")
		way := there.Go(one.wiki + "/admin")
		page := way[len(way)-1]
		next, err := url.Parse(page.Address)
		if err != nil {
			t.Fatal(err)
		}
		form := url.Values{"code": {one.Code(one.secret)}, "next": {next.Query().Get("next")}, "form_token": {gatewaytest.FormToken(t, page.Text)}}
		answer := alice.At(one.URL).PostForm(next.Path, form) // at the one gateway
		if answer.StatusCode != http.StatusSeeOther {
			t.Fatalf("code: %d %s", answer.StatusCode, answer.Text)
		}
		arrives(t, there.Follow(one.URL+next.Path, answer), one.wiki+"/admin") // at the other, at once
	}
}
