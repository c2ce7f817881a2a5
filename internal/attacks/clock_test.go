package attacks_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/session/token"
	"gatehouse/store/storetest"
)

// jump sets the wall clock alone, as an administrator or a bad time server does.
func jump(g *gatewaytest.Gateway, by time.Duration) { g.Clock.Set(g.Clock.Now().Add(by)) }

// retryAfter is the Retry-After of an answer.
func retryAfter(t *testing.T, answer gatewaytest.Answer) time.Duration {
	t.Helper()
	seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	if err != nil {
		t.Fatalf("Retry-After: %v", err)
	}
	return time.Duration(seconds) * time.Second
}

// The jumps of CK-01, and one as long as a wrong year.
const (
	twoHours = 2 * time.Hour
	aYear    = 365 * 24 * time.Hour
)

func TestClock_setBackLocksNobodyForEver(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{twoHours, aYear} {
		g := gatewaytest.Start(t, gatewaytest.Options{})
		jump(g, by) // the clock is ahead
		for range 5 {
			wantProblem(t, "failure", g.NewBrowser().At("192.0.2.1").Login("nobody-1", "not the password", ""), problem.InvalidCredentials)
		}
		jump(g, -by)
		locked := g.NewBrowser().At("192.0.2.2").Login("nobody-1", "not the password", "")
		wantProblem(t, "after the clock was set back", locked, problem.Locked)
		if wait := retryAfter(t, locked); wait > 15*time.Minute {
			t.Errorf("set back by %s: locked for %s", by, wait)
		}
		g.Clock.Add(15 * time.Minute)
		wantProblem(t, "15 minutes later", g.NewBrowser().At("192.0.2.2").Login("nobody-1", "not the password", ""), problem.InvalidCredentials)
	}
}

func TestClock_setForwardCanEndALockEarly(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	for range 5 {
		g.NewBrowser().At("192.0.2.1").Login("nobody-1", "not the password", "")
	}
	jump(g, twoHours)
	// The stated limit; five more tries and it locks again.
	for range 5 {
		wantProblem(t, "after the jump", g.NewBrowser().At("192.0.2.2").Login("nobody-1", "not the password", ""), problem.InvalidCredentials)
	}
	wantProblem(t, "then", g.NewBrowser().At("192.0.2.2").Login("nobody-1", "not the password", ""), problem.Locked)
}

func TestClock_setBackLeavesNoAddressWithoutTokens(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	empty := func() gatewaytest.Answer {
		for i := range 20 {
			answer := g.NewBrowser().At("192.0.2.1").Login("nobody-"+decimal(i), "not the password", "")
			if answer.StatusCode == problem.RateLimited.Status() {
				return answer
			}
		}
		t.Fatal("the bucket does not get empty")
		return gatewaytest.Answer{}
	}
	jump(g, aYear)
	empty()
	jump(g, -aYear)
	limited := g.NewBrowser().At("192.0.2.1").Login("nobody-30", "not the password", "")
	wantProblem(t, "after the clock was set back", limited, problem.RateLimited)
	if wait := retryAfter(t, limited); wait > time.Minute {
		t.Errorf("the address has to wait %s", wait)
	}
	g.Clock.Add(time.Minute)
	wantProblem(t, "a minute later", g.NewBrowser().At("192.0.2.1").Login("nobody-31", "not the password", ""), problem.InvalidCredentials)
}

func TestClock_jumpsKeepUsedCodesUsed(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	g.AddUser("alice")
	secret := g.Enrol("alice")
	start := g.Clock.Now()
	code := g.Code(secret)
	wantStatus(t, "first", g.NewBrowser().Login("alice", gatewaytest.Password, code), http.StatusOK)
	for _, by := range []time.Duration{-twoHours, twoHours, -time.Second, -twoHours} {
		jump(g, by)
		g.Clock.Set(start) // and back to where the code is good
		wantProblem(t, "the used code", g.NewBrowser().At("192.0.2."+decimal(int(by/time.Second)&127)).Login("alice", gatewaytest.Password, code), problem.CodeInvalid)
	}
	// A clock that was ahead uses steps that are still to come; a new enrolment begins anew.
	jump(g, twoHours)
	if err := g.Admin.ResetLockout(t.Context(), "alice", "test"); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "with the clock ahead", g.NewBrowser().Login("alice", gatewaytest.Password, g.Code(secret)), http.StatusOK)
	jump(g, -twoHours+5*time.Minute)
	wantProblem(t, "an earlier step", g.NewBrowser().At("192.0.2.200").Login("alice", gatewaytest.Password, g.Code(secret)), problem.CodeInvalid)
	secret = g.Enrol("alice")
	wantStatus(t, "with a new enrolment", g.NewBrowser().At("192.0.2.200").Login("alice", gatewaytest.Password, g.Code(secret)), http.StatusOK)
}

func TestClock_jumpsKeepPeopleSignedIn(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	g.AddUser("alice")
	secret := g.Enrol("alice")
	b := g.SignIn("alice", secret)
	for _, by := range []time.Duration{29 * time.Second, -29 * time.Second, -twoHours, 30 * time.Minute} {
		jump(g, by)
		wantStatus(t, "after a jump by "+by.String(), b.Get("/"), http.StatusOK)
		g.Clock.Add(time.Minute)
		wantStatus(t, "a minute later", b.Get("/"), http.StatusOK)
	}
	// Signing out by a clock that is ahead, and by one that was: it is out, and can come back.
	jump(g, twoHours)
	b = g.SignIn("alice", g.Enrol("alice"))
	if _, err := g.Admin.RevokeSessions(t.Context(), "alice", "test"); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "after the end of all sessions", b.Get("/"), http.StatusFound)
	jump(g, -twoHours)
	back := g.NewBrowser().At("192.0.2.200") // the bucket of the other address has to fill up first
	wantStatus(t, "signing in again", back.Login("alice", gatewaytest.Password, g.Code(g.Enrol("alice"))), http.StatusOK)
	eventually(t, "the new session to be good", 5*time.Second, func() bool { return back.Get("/").StatusCode == http.StatusOK })
	wantStatus(t, "the ended one", b.Get("/"), http.StatusFound)
	// A jump forward past the absolute limit ends it, and nothing is served.
	jump(g, 25*time.Hour)
	wantStatus(t, "a day later", back.Get("/"), http.StatusFound)
}

func TestClock_jumpsAreRecordedAndShown(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	jumps := func() (by []string) {
		for _, r := range g.Records() {
			if r.Kind == audit.KindClockJump {
				by = append(by, r.Details["by"])
				if r.Severity != audit.High {
					t.Errorf("a jump has severity %s", r.Severity)
				}
			}
		}
		return by
	}
	g.Clock.Add(3 * time.Hour) // time that passes is no jump
	for i, by := range []time.Duration{-twoHours, twoHours, aYear} {
		jump(g, by)
		eventually(t, "the record of a jump by "+by.String(), 10*time.Second, func() bool { return len(jumps()) == i+1 })
		if got := jumps()[i]; got != by.String() {
			t.Errorf("recorded %s, want %s", got, by)
		}
	}
	ready := g.NewBrowser().Do(http.MethodGet, "/.gatehouse/readyz", nil, nil)
	if ready.StatusCode != http.StatusOK || !strings.Contains(ready.Text, `"clock":{"state":"degraded"`) {
		t.Errorf("readiness: %d %s", ready.StatusCode, ready.Text)
	}
	// Records are ordered by their number, whatever their time says.
	for i, r := range g.Records() {
		if r.Sequence != uint64(i+1) {
			t.Fatalf("record %d has the number %d", i+1, r.Sequence)
		}
	}
}

// CK-04: a clock that begins at 1970, as after a start without a battery, signs nothing and signs nobody out; one of the far future
// breaks nothing.
func TestCK04_aClockThatCannotBeRightSignsNothing(t *testing.T) {
	t.Parallel()
	g := start(t)
	seed := g.enrolled("alice")
	b := g.SignIn("alice", seed)
	fresh := g.enrolled("bob") // whose codes are all still to come
	right := g.Clock.Now()
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(100, 0), time.Unix(token.Earliest-1, 0)} {
		g.Clock.Set(at)
		wantProblem(t, at.String(), g.next().Login("bob", gatewaytest.Password, g.Code(fresh)), problem.Unavailable)
		page := b.Copy()
		wantStatus(t, at.String()+": somebody who is signed in", page.Get("/"), http.StatusServiceUnavailable)
		if len(page.Jar) != len(b.Jar) {
			t.Errorf("%s: the cookies were touched", at)
		}
		ready := b.Copy().Do(http.MethodGet, "/.gatehouse/readyz", nil, nil)
		if ready.StatusCode != http.StatusServiceUnavailable || !strings.Contains(ready.Text, `"clock":{"state":"failed"`) {
			t.Errorf("%s: readiness: %d %s", at, ready.StatusCode, ready.Text)
		}
	}
	g.Clock.Set(right)
	wantStatus(t, "with the right clock", b.Get("/"), http.StatusOK)
	for _, at := range []time.Time{time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC), time.Date(2106, 2, 7, 6, 28, 16, 0, time.UTC)} {
		g.Clock.Set(at)
		signedIn(t, at.String(), g.next().Login("alice", gatewaytest.Password, g.Code(seed)))
	}
}

// CK-02: what one gateway signs another accepts within the leeway. Beyond it a program has to sign in again, and a browser,
// whose session is in the store, gets a token of the gateway it came to.
func TestClock_gatewaysMayDifferByTheLeeway(t *testing.T) {
	t.Parallel()
	server, key := storetest.Redis(t), gatewaytest.RootKey()
	early, late := gatewaytest.NewClock(), gatewaytest.NewClock()
	ahead, behind := startOn(t, server.URL(), key, early), startOn(t, server.URL(), key, late)
	ahead.AddUser("alice")
	secret := ahead.Enrol("alice")
	for _, test := range []struct {
		name       string
		difference time.Duration
		bearer     int
	}{
		{"within the leeway", token.Leeway - time.Second, http.StatusOK},
		{"40 s each way", 80 * time.Second, http.StatusUnauthorized},
	} {
		early.Add(2 * time.Minute)
		late.Set(early.Now().Add(-test.difference))
		b := ahead.NewBrowser()
		answer := b.Login("alice", gatewaytest.Password, ahead.Code(secret))
		wantStatus(t, test.name+": sign in", answer, http.StatusOK)
		program := behind.NewBrowser().Do(http.MethodGet, "/", nil, http.Header{"Authorization": {"Bearer " + answer.Field("access_token")}})
		wantStatus(t, test.name+": the bearer token at the late gateway", program, test.bearer)
		for range 2 {
			wantStatus(t, test.name+": the browser at the late gateway", b.Through(behind).Get("/"), http.StatusOK)
			wantStatus(t, test.name+": and at the early one", b.Get("/"), http.StatusOK)
		}
	}
}

func TestClock_differenceFromTheStoreIsShown(t *testing.T) {
	t.Parallel()
	server, key := storetest.Redis(t), gatewaytest.RootKey()
	for difference, want := range map[time.Duration]string{0: "ok", 40 * time.Second: "degraded", -40 * time.Second: "degraded"} {
		clock := gatewaytest.NewClock()
		clock.Set(time.Now().Add(difference)) // Redis has the machine's
		ready := startOn(t, server.URL(), key, clock).NewBrowser().Do(http.MethodGet, "/.gatehouse/readyz", nil, nil)
		if ready.StatusCode != http.StatusOK || !strings.Contains(ready.Text, `"clock":{"state":"`+want) {
			t.Errorf("with a difference of %s: %d %s, want the clock %s", difference, ready.StatusCode, ready.Text, want)
		}
	}
}
