package gateway_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/admin/api"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store"
	"gatehouse/store/storetest"
)

// Cases RD-04 and RD-05 of attacks.md over the whole gateway: the primary that holds the accounts is taken away. Who is
// signed in notices nothing, logins are back within 15 s without a restart, and what was answered before holds: failures
// count, a used code stays used, a session that was ended stays ended.
func TestGateway_survivesTheLossOfAPrimary(t *testing.T) {
	faults := map[string]func(*storetest.Node) (mend func()){
		"killed": func(n *storetest.Node) func() { n.Kill(); return n.Restart },
		"paused": func(n *storetest.Node) func() { n.Pause(); return n.Resume },
		"cut":    func(n *storetest.Node) func() { n.Cut(); return n.Mend },
	}
	for name, start := range map[string]func(*testing.T) *storetest.Fleet{"Sentinels": storetest.Sentinels, "Cluster": storetest.Cluster} {
		t.Run(name, func(t *testing.T) {
			fleet := start(t)
			g := gatewaytest.Start(t, gatewaytest.Options{Redis: fleet.URL(), RootKey: gatewaytest.RootKey()})
			t.Cleanup(func() {
				if text := g.Log.String(); t.Failed() {
					t.Logf("the gateway said last:\n%s", text[max(0, len(text)-4000):])
				}
			})
			for _, fault := range []string{"killed", "paused", "cut"}[:storetest.Rounds(1, 3)] {
				for round := range storetest.Rounds(1, 4) {
					whole(t, fleet, g)
					s := newStory(t, g, fmt.Sprintf("%s-%d", fault, round))
					begun := time.Now()
					mend := faults[fault](fleet.Primary(t, store.Prefix+string(store.Users)))
					refused := s.untilALogin()
					t.Logf("%s, primary %s: a login after %s, %d were refused before", name, fault, time.Since(begun).Round(time.Millisecond), refused)
					if away := time.Since(begun); away > 15*time.Second {
						t.Errorf("primary %s: no login for %s", fault, away)
					}
					mend()
					whole(t, fleet, g) // one node may know later than another that all slots are served again
					s.untilALogin()    // and a replica that has just come back may be late to confirm
					s.check()
				}
			}
		})
	}
}

// Case RD-04 of attacks.md: Sentinels replace a primary that lives and goes on taking writes. An account that was made meanwhile, and of
// which the administrator was told so, is there afterwards: its owner is not told that the password is wrong.
func TestGateway_keepsAccountsWhenThePrimaryIsHandedOver(t *testing.T) {
	fleet := storetest.Sentinels(t)
	g := gatewaytest.Start(t, gatewaytest.Options{Redis: fleet.URL(), RootKey: gatewaytest.RootKey()})
	whole(t, fleet, g)
	former := fleet.Primary(t, "any")
	fleet.Sentinels[0].MustDo("SENTINEL", "FAILOVER", storetest.SentinelMaster)
	var made []string
	tried := 0
	storetest.WithinPatience(t, func() error {
		tried++
		name := fmt.Sprintf("user-%d", tried)
		if _, err := g.Admin.AddUser(t.Context(), api.NewUser{Name: name, Password: gatewaytest.Password}); err == nil {
			made = append(made, name)
		}
		if fleet.Primary(t, "any") == former {
			return errors.New("no failover yet")
		}
		return nil
	})
	whole(t, fleet, g)
	for _, name := range made {
		if a := g.NewBrowser().Login(name, gatewaytest.Password, ""); a.ProblemCode() == "invalid-credentials" {
			t.Errorf("%s, who was made while the primary was handed over: %d %s", name, a.StatusCode, a.Text)
		}
	}
}

// whole waits until the fleet is whole and the gateway knows: one that is not in step with the feed yet would ask the store about every
// token once it is.
func whole(t *testing.T, fleet *storetest.Fleet, g *gatewaytest.Gateway) {
	t.Helper()
	fleet.Whole(t)
	storetest.WithinPatience(t, func() error {
		answer := g.NewBrowser().Do(http.MethodGet, "/.gatehouse/readyz", nil, nil)
		if answer.StatusCode != http.StatusOK || !strings.Contains(answer.Text, `"feed":{"state":"ok"`) {
			return errors.New(answer.Text)
		}
		return nil
	})
}

// story is what happened before a primary was lost.
type story struct {
	t           *testing.T
	g           *gatewaytest.Gateway
	name        string // an account with four failures and no more than one left
	user        string // an account that signs in
	once        string // an account that signs in no more
	secret      string // of user
	used        string // the code of once that was used
	in, out     *gatewaytest.Browser
	nextAddress int
}

func newStory(t *testing.T, g *gatewaytest.Gateway, name string) *story {
	t.Helper()
	s := &story{t: t, g: g, name: "victim-" + name, user: "user-" + name, once: "once-" + name}
	for _, name := range []string{s.name, s.user, s.once} {
		g.AddUser(name)
	}
	s.secret = g.Enrol(s.user)
	s.in, s.out = g.SignIn(s.user, s.secret), g.SignIn(s.user, s.secret)
	s.request(http.StatusOK)
	if a := s.out.Submit("/.gatehouse/logout", url.Values{}); a.StatusCode != http.StatusOK {
		t.Fatalf("logout: %d", a.StatusCode)
	}
	for range 4 {
		s.wrong(http.StatusUnauthorized)
	}
	g.Clock.Add(time.Minute) // user's code is a new one
	s.used = g.Code(g.Enrol(s.once))
	if a := s.stranger().Login(s.once, gatewaytest.Password, s.used); a.StatusCode != http.StatusOK {
		t.Fatalf("a code used once: %d %s", a.StatusCode, a.Text)
	}
	return s
}

// stranger is a browser at an address that nobody used before.
func (s *story) stranger() *gatewaytest.Browser {
	s.nextAddress++
	return s.g.NewBrowser().At(fmt.Sprintf("198.51.%d.%d", s.nextAddress/250, s.nextAddress%250))
}

func (s *story) wrong(want int) {
	s.t.Helper()
	if a := s.stranger().Login(s.name, "not the password", ""); a.StatusCode != want {
		s.t.Errorf("a wrong password: %d %s, want %d", a.StatusCode, a.Text, want)
	}
}

func (s *story) request(want int) {
	s.t.Helper()
	if a := s.in.Get("/"); a.StatusCode != want {
		s.t.Errorf("a request of somebody who is signed in: %d, want %d", a.StatusCode, want)
	}
}

// untilALogin tries to sign in until it works, while requests go on, and returns how often it was refused.
func (s *story) untilALogin() (refused int) {
	s.t.Helper()
	for {
		s.request(http.StatusOK)
		a := s.stranger().Login(s.user, gatewaytest.Password, s.g.Code(s.secret))
		switch {
		case a.StatusCode == http.StatusOK:
			return refused
		case a.ProblemCode() == "code-invalid": // an attempt that got no answer may have used the step up
			s.g.Clock.Add(30 * time.Second)
		case a.StatusCode != http.StatusServiceUnavailable:
			s.t.Fatalf("a login without the primary: %d %s, want 503", a.StatusCode, a.Text)
		case refused > 300:
			s.t.Fatalf("no login any more: %s\n%s", a.Text, s.g.Log)
		}
		refused++
		time.Sleep(50 * time.Millisecond)
	}
}

// check wants everything to hold that was answered before.
func (s *story) check() {
	s.t.Helper()
	if a := s.stranger().Login(s.once, gatewaytest.Password, s.used); a.ProblemCode() != "code-invalid" {
		s.t.Errorf("a used code: %d %s", a.StatusCode, a.Text)
	}
	if a := s.out.Get("/"); a.StatusCode == http.StatusOK {
		s.t.Error("a session that was ended is alive")
	}
	s.wrong(http.StatusUnauthorized)
	s.wrong(http.StatusTooManyRequests)
}
