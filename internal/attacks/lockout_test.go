package attacks_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/store/storetest"
)

// Five failures lock for fifteen minutes from the fifth; refused attempts neither prolong nor are verified.
func TestLK01_fiveFailuresLockForFifteenMinutes(t *testing.T) {
	t.Parallel()
	g := start(t)
	seed := g.enrolled("alice")
	for i := range 5 {
		refused(t, "guess", g.next().Login("alice", guess(i), ""), problem.InvalidCredentials)
		refused(t, "guess", g.next().Login("nobody-1", guess(i), ""), problem.InvalidCredentials)
	}
	try := func(what string, wait string) {
		t.Helper()
		for _, name := range []string{"alice", "nobody-1"} {
			answer := g.next().Login(name, gatewaytest.Password, g.Code(seed))
			refused(t, what+", "+name, answer, problem.Locked)
			if answer.Header.Get("Retry-After") != wait {
				t.Errorf("%s, %s: Retry-After %q, want %s", what, name, answer.Header.Get("Retry-After"), wait)
			}
		}
	}
	g.Clock.Add(time.Second)
	try("a second later", "899")
	g.Clock.Add(14*time.Minute + 58*time.Second)
	try("just before the end", "1")
	if ran := g.Verifications(); ran != 10 {
		t.Errorf("%d verifications ran, want 10", ran)
	}
	g.Clock.Add(2 * time.Second)
	signedIn(t, "just after the end", g.next().Login("alice", gatewaytest.Password, g.Code(seed)))
	refused(t, "just after the end, nobody-1", g.next().Login("nobody-1", gatewaytest.Password, ""), problem.InvalidCredentials)
	g.Stop()
	if n := g.counted(audit.ReasonLocked); n != 4 {
		t.Errorf("the log counts %d refusals for the lock, want 4", n)
	}
	if n := g.decided(audit.ReasonWrongPassword); n != 5 {
		t.Errorf("the log holds %d wrong passwords, want 5", n)
	}
}

// Two hundred guesses arrive in the same moment, at two gateways, from two hundred addresses.
func TestLK02_twoHundredGuessesAtOnceAreFive(t *testing.T) {
	t.Parallel()
	one, other, _ := pair(t)
	one.enrolled("alice")
	const guesses = 200
	for round, name := range []string{"alice", "nobody-1"} {
		ran := one.Verifications() + other.Verifications()
		codes := volley(t, guesses, func(i int) shot {
			body := fmt.Sprintf(`{"username":%q,"password":%q}`, name, guess(i))
			return shot{[]*target{one, other}[i%2], fmt.Sprintf("10.9.%d.%d", round, i), body}
		}, nil)
		ran = one.Verifications() + other.Verifications() - ran
		if ran != 5 || codes[problem.InvalidCredentials] != 5 {
			t.Errorf("%s: %d verifications ran, answers %v; want five of each", name, ran, codes)
		}
		if codes[problem.InvalidCredentials]+codes[problem.Locked]+codes[problem.Unavailable] != guesses {
			t.Errorf("%s: answers %v", name, codes)
		}
		if n := one.wrongPasswords(name); n != 5 {
			t.Errorf("%s: %d failures are counted, want 5", name, n)
		}
	}
	one.Stop()
	other.Stop()
	if n := one.decided(audit.ReasonWrongPassword) + other.decided(audit.ReasonWrongPassword); n != 5 {
		t.Errorf("the logs hold %d wrong passwords, want 5", n)
	}
	every := int64(2*guesses - 10)
	if n := one.refusals() + other.refusals(); n != every {
		t.Errorf("the logs count %d refusals, want %d", n, every)
	}
}

// refusals is what was refused before anything was verified; the gateway must have been stopped.
func (g *target) refusals() int64 {
	return g.counted(audit.ReasonLocked) + g.counted(audit.ReasonPoolFull)
}

// All spellings of a name share its window.
func TestLK06_spellingsShareOneWindow(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.enrolled("alice")
	var hers []string
	for spelled, is := range spellings {
		if is {
			hers = append(hers, spelled)
		}
	}
	for i := range 5 * len(hers) {
		answer := g.next().Login(hers[i%len(hers)], guess(i), "")
		want := problem.InvalidCredentials
		if i >= 5 {
			want = problem.Locked
		}
		refused(t, fmt.Sprintf("guess %d as %+q", i, hers[i%len(hers)]), answer, want)
	}
	// What only looks like her name counts for nobody else, and not for her.
	g.reset("alice")
	for spelled, is := range spellings {
		if !is && spelled != "" {
			refused(t, spelled, g.next().Login(spelled, guess(1), ""), problem.InvalidCredentials)
		}
	}
	if n := g.wrongPasswords("alice"); n != 0 {
		t.Errorf("%d failures of other names are counted for alice", n)
	}
	if windows, err := g.Admin.Lockouts(t.Context()); err != nil || len(windows) != len(spellings)-len(hers)-1 {
		t.Errorf("%d windows, %v; want one for each other name", len(windows), err)
	}
}

// A Redis that may evict a counter opens a door, so the gateway does not start on one.
func TestLK09_evictionIsRefused(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"allkeys-lru", "allkeys-lfu", "volatile-ttl", "allkeys-random"} {
		s := storetest.Redis(t, "--maxmemory", "64mb", "--maxmemory-policy", policy)
		_, err := gatewaytest.Try(t, gatewaytest.Options{Redis: s.URL(), RootKey: gatewaytest.RootKey()})
		if err == nil || !strings.Contains(err.Error(), "noeviction") {
			t.Errorf("%s: got %v, want a refusal that names the policy to set", policy, err)
		}
		if size := s.MustDo("DBSIZE"); size != ":0" {
			t.Errorf("%s: the refused start left %s keys", policy, size)
		}
	}
}

// A refusal for another reason is no failure of a password.
func TestLK12_otherRefusalsAreNotCounted(t *testing.T) {
	t.Parallel()
	s := storetest.Redis(t)
	line := storetest.FaultProxy(t, s.Addr())
	g := startWith(t, gatewaytest.Options{Redis: line.URL(), RootKey: gatewaytest.RootKey()}, func(c *configs.Config) { c.Session.PerUser = 1 })
	seed := g.enrolled("alice")
	g.AddUser("bob")
	right := fmt.Sprintf(`{"username":"alice","password":%q}`, gatewaytest.Password)
	json := http.Header{"Content-Type": {"application/json"}}
	for i := range 10 {
		refused(t, "malformed", g.next().Do(http.MethodPost, loginPath, strings.NewReader(right[:20]), json), problem.BadRequest)
		foreign := http.Header{"Content-Type": {"application/json"}, "Origin": {"https://evil.example"}}
		refused(t, "cross-site", g.next().Do(http.MethodPost, loginPath, strings.NewReader(right), foreign), problem.CrossSite)
		refused(t, "no factor", g.next().Login("bob", gatewaytest.Password, ""), problem.EnrolmentRequired)
		refused(t, "code missing", g.next().Login("alice", gatewaytest.Password, ""), problem.CodeRequired)
		g.Clock.Add(time.Minute)
		signedIn(t, fmt.Sprintf("one session too many %d", i), g.next().Login("alice", gatewaytest.Password, g.Code(seed)))
	}
	flood := g.next()
	for range 10 {
		flood.Do(http.MethodPost, loginPath, strings.NewReader("{}"), json)
	}
	for range 10 {
		refused(t, "bucket empty", flood.Login("alice", guess(1), ""), problem.RateLimited)
	}
	ran := g.Verifications()
	line.Refuse()
	for range 10 {
		refused(t, "store away", g.next().Login("alice", guess(2), ""), problem.Unavailable)
	}
	line.Pass()
	if after := g.Verifications(); after != ran {
		t.Errorf("%d verifications ran whose failure could not be counted", after-ran)
	}
	storetest.WithinPatience(t, func() error {
		_, err := g.Admin.Lockout(t.Context(), "alice")
		return err
	})
	for _, name := range []string{"alice", "bob"} {
		if n := g.wrongPasswords(name); n != 0 {
			t.Errorf("%d failures are counted for %s, want none", n, name)
		}
	}
	g.Clock.Add(time.Minute)
	signedIn(t, "afterwards", g.next().Login("alice", gatewaytest.Password, g.Code(seed)))
}

// A reset while guesses are under way: each of them counts before it or after it, once.
func TestLK13_aResetLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	one, other, _ := pair(t)
	one.enrolled("alice")
	for round := range rounds(3, 50) {
		ran := one.Verifications() + other.Verifications()
		codes := volley(t, 50, func(i int) shot {
			body := fmt.Sprintf(`{"username":"alice","password":%q}`, guess(i))
			return shot{[]*target{one, other}[i%2], fmt.Sprintf("10.13.%d.%d", round, i), body}
		}, func() {
			if err := one.Admin.ResetLockout(t.Context(), "alice", "LK-13"); err != nil {
				t.Error(err)
			}
		})
		verified := int(one.Verifications() + other.Verifications() - ran)
		if verified > 10 || verified != codes[problem.InvalidCredentials] {
			t.Errorf("round %d: %d verified, answers %v; want at most five before and five after the reset", round, verified, codes)
		}
		counted := one.wrongPasswords("alice")
		if counted > 5 || counted > verified {
			t.Errorf("round %d: %d counted of %d verified", round, counted, verified)
		}
		// From an empty window, exactly five go.
		one.reset("alice")
		for i := range 6 {
			want := problem.InvalidCredentials
			if i == 5 {
				want = problem.Locked
			}
			refused(t, "after the reset", one.next().Login("alice", guess(i), ""), want)
		}
		one.reset("alice")
	}
	found := 0
	for _, g := range []*target{one, other} {
		for _, r := range g.Records() {
			if r.Kind == audit.KindLockoutReset && r.Why == "LK-13" && r.Subject.Name == "alice" && r.Actor.Type == audit.ActorOperator {
				found++
			}
		}
	}
	if found != rounds(3, 50) {
		t.Errorf("%d resets are in the logs, want %d", found, rounds(3, 50))
	}
}
