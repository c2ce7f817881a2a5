package auth_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/link"
	"gatehouse/problem"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

// story is a link of one kind in a rig, with the choice made and the first code at hand.
type story struct {
	kind  link.Kind
	token string
	e     auth.Enrolment
}

func tell(r *rig, kind link.Kind) story {
	s := story{kind: kind}
	if kind == link.Setup {
		s.token = r.setup()
	} else {
		s.token = r.invite("alice")
	}
	s.e = r.mustChoose(in("a"), kind, s.token, "alice")
	return s
}

// Every call of Confirm fails once, before it happens and after: an administrator or account is there wholly or not at all, and
// the same browser gets in, by the link or by the front door.
func TestOnboarding_canBeRepeatedAfterAnyOutage(t *testing.T) {
	t.Parallel()
	for _, kind := range []link.Kind{link.Setup, link.Invite} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/after=%v", kind, after), func(t *testing.T) {
				t.Parallel()
				n := 1
				for failNth(t, kind, after, n) >= n {
					n++
				}
				if n < 6 {
					t.Errorf("only %d calls were seen", n-1)
				}
			})
		}
	}
}

// failNth has the n-th call fail and returns how many there were.
func failNth(t *testing.T, kind link.Kind, after bool, n int) (calls int) {
	t.Helper()
	r := newRig(t, options{})
	s := tell(r, kind)
	failed := ""
	hook := func(call string) error {
		if calls++; calls != n {
			return nil
		}
		failed = call
		if call == "append record" {
			return audit.ErrUnavailable
		}
		return errDown
	}
	if after {
		r.spy.after = hook
	} else {
		r.spy.before = hook
	}
	out := r.confirm(in("a"), kind, s.token, r.codeOf(s.e))
	r.spy.mu.Lock()
	r.spy.before, r.spy.after = nil, nil
	r.spy.mu.Unlock()
	if out.Code != "" && out.Code != problem.Unavailable {
		t.Errorf("%s: got %s", failed, out.Code)
	}
	if u, err := r.users.ByName(t.Context(), "alice"); err == nil && (u.PasswordHash == "") != (u.TOTP == nil) {
		t.Errorf("%s: half an account: %+v", failed, u)
	}
	r.clock.add(time.Minute)
	again := r.confirm(in("a"), kind, s.token, r.codeOf(s.e))
	if out.Code == "" || again.Code != "" {
		wantOutcome(t, failed+", repeated", again, problem.LinkExpired)
		r.clock.add(time.Minute)
		wantOutcome(t, failed+", by the front door", r.try(abroad, auth.Presented{Username: "alice", Password: right, Code: r.codeOf(s.e)}), "")
	}
	return calls
}

// Without a record there is no account, and with it restored the same link goes on, without its secret being shown again.
func TestOnboarding_makesNothingWithoutARecord(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	s := tell(r, link.Setup)
	r.spy.fail("append record", audit.ErrUnavailable)
	for range 2 * link.MaxTries {
		wantOutcome(t, "without a log", r.confirm(in("a"), link.Setup, s.token, r.codeOf(s.e)), problem.Unavailable)
		r.clock.add(time.Minute)
	}
	if users, err := r.users.List(t.Context()); err != nil || len(users) != 0 {
		t.Fatalf("got accounts %v, %v", users, err)
	}
	r.spy.on(nil)
	e, err := r.onboard.Enrolment(t.Context(), in("a"), link.Setup, s.token)
	if err != nil || e.Secret != "" || e.URL != "" || e.Username != "alice" {
		t.Errorf("drawn after a right code: %+v, %v", e, err)
	}
	_, err = r.choose(in("b"), link.Setup, s.token, "mallory")
	wantRefused(t, "another browser", err, problem.LinkExpired)
	wantOutcome(t, "with the log", r.confirm(in("a"), link.Setup, s.token, r.codeOf(s.e)), "")
}

// gateways are two rigs over one Redis.
func gateways(t *testing.T) (*rig, *rig) {
	t.Helper()
	server := storetest.Redis(t)
	c := &clock{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
	connect := func() engine {
		db, err := redisstore.Open(t.Context(), redisstore.Options{URL: server.URL(), Now: c.Now, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	log := func() *audit.Log {
		log, err := audit.Open(audit.Options{Dir: filepath.Join(t.TempDir(), "audit"), Node: "test", Now: c.Now, Logger: discard, Reserve: 4096})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = log.Close() })
		return log
	}
	return assemble(t, options{}, c, connect(), log()), assemble(t, options{}, c, connect(), log())
}

// Two gateways on an empty Redis: one link, and of many who confirm it at once, on both, with the different codes that are good,
// one gets in and one account is made.
func TestOnboarding_makesOneAdministratorOverTwoGateways(t *testing.T) {
	t.Parallel()
	one, two := gateways(t)
	token := one.setup()
	if other := two.setup(); other != token {
		t.Fatal("the gateways print different links")
	}
	e := one.mustChoose(in("a"), link.Setup, token, "alice")
	var mu sync.Mutex
	signedIn := 0
	race(t, one, two, func(r *rig, i int) {
		if r.confirm(in("a"), link.Setup, token, r.codeOfAt(e, i%3-1)).Code == "" {
			mu.Lock()
			defer mu.Unlock()
			signedIn++
		}
	})
	users, err := two.users.List(context.Background())
	if signedIn != 1 || err != nil || len(users) != 1 || one.liveSessions(users[0].ID) != 1 {
		t.Errorf("%d got in, accounts %v, %v", signedIn, users, err)
	}
}

// Two people have the link and each goes on with a name of their own, again and again: whoever is first is alone.
func TestOnboarding_makesOneAdministratorOfTwoBrowsers(t *testing.T) {
	t.Parallel()
	one, two := gateways(t)
	for round := range 5 {
		token := one.setup()
		var mu sync.Mutex
		signedIn := 0
		race(t, one, two, func(r *rig, i int) {
			browser := fmt.Sprintf("browser-%d", i)
			e, err := r.choose(in(browser), link.Setup, token, fmt.Sprintf("name-%d-%d", round, i))
			if err == nil && r.confirm(in(browser), link.Setup, token, r.codeOf(e)).Code == "" {
				mu.Lock()
				defer mu.Unlock()
				signedIn++
			}
		})
		users, err := one.users.List(t.Context())
		if err != nil || len(users) != signedIn || signedIn > 1 {
			t.Fatalf("round %d: %d got in, %d accounts, %v", round, signedIn, len(users), err)
		}
		if signedIn == 1 {
			return
		}
	}
	t.Error("nobody ever got in")
}

// race runs try six times at once, three on each gateway.
func race(t *testing.T, one, two *rig, try func(r *rig, i int)) {
	t.Helper()
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() { try([]*rig{one, two}[i%2], i) })
	}
	group.Wait()
}

// Neither a token nor a password nor a secret is in a record.
func TestOnboarding_recordsNoSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	s := tell(r, link.Setup)
	r.confirm(in("a"), link.Setup, s.token, "000000")
	wantOutcome(t, "confirm", r.confirm(in("a"), link.Setup, s.token, r.codeOf(s.e)), "")
	err := audit.Read(r.logDir, 1, func(record audit.Record) error {
		line, err := audit.Line(record)
		for _, hidden := range []string{s.token, right, s.e.Secret} {
			if strings.Contains(string(line), hidden) {
				t.Errorf("a record holds %q: %s", hidden, line)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
