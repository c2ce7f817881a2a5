package pagestest_test

import (
	"testing"

	"gatehouse/internal/browsertest"
	"gatehouse/internal/gatewaytest"
)

// story leads a fresh tab to a page and returns its status.
type story struct {
	name   string
	status int
	focus  string // what has the focus then
	lead   func(t *testing.T, tab *browsertest.Tab) int
}

// TestPages_canBeUsedByEverybody leads Chromium to every page for every reader. One gateway serves all of them, so that the burst of
// one address would run out: a story takes few attempts, and the clock goes on between them.
func TestPages_canBeUsedByEverybody(t *testing.T) {
	g := gatewaytest.Start(t, gatewaytest.Options{})
	all := stories(t, g)
	tab := browsertest.Start(t).NewTab(t, browsertest.Look{})
	for _, s := range all {
		for _, looks := range readers {
			t.Run(s.name+"/"+looks[0].String(), func(t *testing.T) {
				g.Clock.Add(30 * 60e9)
				tab = tab.Again(t, looks[0])
				if got := s.lead(t, tab); got != s.status {
					t.Errorf("status %d, want %d", got, s.status)
				}
				check(t, tab, s.focus, looks...)
			})
		}
	}
}

// stories lead to every page of a gateway.
func stories(t *testing.T, g *gatewaytest.Gateway) []story {
	t.Helper()
	invitation := invite(t, g, "grace")
	g.AddUser("alice")
	secret := g.Enrol("alice")
	g.AddUser("bob")
	signIn := func(tab *browsertest.Tab, name, password string) int {
		tab.Open(g.URL + "/.gatehouse/login?next=/report")
		tab.Type("#username", name)
		tab.Type("#password", password)
		return tab.Click("button")
	}
	return []story{
		{"login", 200, "input#username", func(t *testing.T, tab *browsertest.Tab) int {
			return tab.Open(g.URL + "/report")
		}},
		{"login refused", 401, "div#alert", func(t *testing.T, tab *browsertest.Tab) int {
			return signIn(tab, "nobody", "wrong password of nobody")
		}},
		{"code", 200, "input#code", func(t *testing.T, tab *browsertest.Tab) int {
			return signIn(tab, "alice", gatewaytest.Password)
		}},
		{"code refused", 401, "div#alert", func(t *testing.T, tab *browsertest.Tab) int {
			signIn(tab, "alice", gatewaytest.Password)
			tab.Type("#code", "00000")
			return tab.Enter()
		}},
		{"enrolment", 200, "body", func(t *testing.T, tab *browsertest.Tab) int {
			return signIn(tab, "bob", gatewaytest.Password)
		}},
		{"enrolment refused", 401, "div#alert", func(t *testing.T, tab *browsertest.Tab) int {
			signIn(tab, "bob", gatewaytest.Password)
			tab.Type("#code", "00000")
			return tab.Enter()
		}},
		{"set-up", 200, "input#username", func(t *testing.T, tab *browsertest.Tab) int {
			return tab.Open(setupLink(t, g))
		}},
		{"set-up refused", 422, "div#alert", func(t *testing.T, tab *browsertest.Tab) int {
			tab.Open(setupLink(t, g))
			tab.Type("#username", "ada")
			tab.Type("#password", "passwordpassword")
			return tab.Enter()
		}},
		{"set-up factor", 200, "body", func(t *testing.T, tab *browsertest.Tab) int {
			tab.Open(setupLink(t, g))
			tab.Type("#username", "ada")
			tab.Type("#password", gatewaytest.Password)
			return tab.Enter()
		}},
		{"invitation", 200, "input#password", func(t *testing.T, tab *browsertest.Tab) int {
			return tab.Open(invitation)
		}},
		{"expired link", 410, "body", func(t *testing.T, tab *browsertest.Tab) int {
			return tab.Open(g.URL + "/.gatehouse/invite?token=x")
		}},
		{"step-up", 200, "input#code", func(t *testing.T, tab *browsertest.Tab) int {
			signIn(tab, "alice", gatewaytest.Password)
			tab.Type("#code", g.Code(secret))
			tab.Enter()
			return tab.Open(g.URL + "/.gatehouse/login/verify?next=/report")
		}},
		{"step-up refused", 401, "div#alert", func(t *testing.T, tab *browsertest.Tab) int {
			signIn(tab, "alice", gatewaytest.Password)
			tab.Type("#code", g.Code(secret))
			tab.Enter()
			tab.Open(g.URL + "/.gatehouse/login/verify?next=/report")
			tab.Type("#code", g.Code(secret))
			return tab.Enter()
		}},
		{"logout", 200, "body", func(t *testing.T, tab *browsertest.Tab) int {
			signIn(tab, "alice", gatewaytest.Password)
			tab.Type("#code", g.Code(secret))
			tab.Enter()
			return tab.Open(g.URL + "/.gatehouse/logout")
		}},
		{"signed out", 200, "body", func(t *testing.T, tab *browsertest.Tab) int {
			signIn(tab, "alice", gatewaytest.Password)
			tab.Type("#code", g.Code(secret))
			tab.Enter()
			tab.Open(g.URL + "/.gatehouse/logout")
			return tab.Click("button[name=all]")
		}},
		{"not signed in", 200, "body", func(t *testing.T, tab *browsertest.Tab) int {
			return tab.Open(g.URL + "/.gatehouse/logout")
		}},
		{"not found", 404, "body", func(t *testing.T, tab *browsertest.Tab) int {
			return tab.Open(g.URL + "/.gatehouse/nothing")
		}},
	}
}
