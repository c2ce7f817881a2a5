package auth_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/user"
	"gatehouse/problem"
)

// waiting begins a login that has to enrol, and draws its page.
func (r *rig) waiting(c auth.Client) (string, auth.Enrolment) {
	r.t.Helper()
	out := r.password(c, "alice", right)
	if out.Code != problem.EnrolmentRequired || out.Challenge == "" {
		r.t.Fatalf("got %s, challenge %q, trace %+v", out.Code, out.Challenge, out.Trace)
	}
	e, err := r.EnrolView(r.t.Context(), out.Challenge, c.Browser)
	r.must(err)
	return out.Challenge, e
}

func (r *rig) enrol(c auth.Client, challenge, code string) auth.Outcome {
	return r.try(c, auth.Presented{Challenge: challenge, Code: code})
}

// The first login enrols the factor in the same flow, and only after its record.
func TestFlow_enrolsAtTheFirstLogin(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("alice", false)
	a := in("a")
	challenge, e := r.waiting(a)
	if e.Username != "alice" || !strings.Contains(e.URL, e.Secret) || !e.Expires.Equal(r.clock.Now().Add(auth.PendingLifetime)) {
		t.Errorf("got %+v", e)
	}
	if _, err := r.Waiting(t.Context(), challenge, "a"); !errors.Is(err, auth.ErrNotWaiting) {
		t.Errorf("the page for a code would be drawn: %v", err)
	}
	r.spy.fail("append record", audit.ErrUnavailable)
	wantOutcome(t, "without a log", r.enrol(a, challenge, r.codeOf(e)), problem.Unavailable)
	if r.byName("alice").TOTP != nil {
		t.Fatal("enrolled without a record")
	}
	r.spy.on(nil)
	r.clock.add(time.Minute)

	challenge, e = r.waiting(a)
	out := r.enrol(a, challenge, "000000")
	wantOutcome(t, "a wrong code", out, problem.CodeInvalid)
	if out.Enrolment == nil || *out.Enrolment != e {
		t.Errorf("drawn again: got %+v, want %+v", out.Enrolment, e)
	}
	wantOutcome(t, "the right code", r.enrol(a, challenge, r.codeOf(e)), "")
	u := r.byName("alice")
	if u.TOTP == nil || u.TOTP.Secret != e.Secret || u.FirstLoginAt.IsZero() || r.liveSessions(u.ID) != 1 {
		t.Errorf("got %+v with %d sessions", u, r.liveSessions(u.ID))
	}
	if got := r.appended(); got[len(got)-1] != audit.KindTOTPEnrolled {
		t.Errorf("got records %v, the last to be %s", got, audit.KindTOTPEnrolled)
	}
	r.clock.add(time.Minute)
	wantOutcome(t, "the next login", r.try(a, auth.Presented{Username: "alice", Password: right, Code: r.codeOf(e)}), "")
}

// TP-11 and LG-15 for the enrolment of a login.
func TestFlow_bindsAnEnrolmentToItsBrowserStepAndSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("alice", false)
	r.add("carol", true)
	a, b := in("a"), in("b")
	challenge, first := r.waiting(a)
	for name, other := range map[string]auth.Client{"another browser": b, "no browser": home} {
		wantOutcome(t, name, r.enrol(other, challenge, r.codeOf(first)), problem.CodeInvalid)
		if _, err := r.EnrolView(t.Context(), challenge, other.Browser); !errors.Is(err, auth.ErrNotWaiting) {
			t.Errorf("%s draws the secret: %v", name, err)
		}
	}
	second, err := r.EnrolView(t.Context(), challenge, "a")
	if err != nil || second.Secret == first.Secret {
		t.Fatalf("drawn again: the same secret, or %v", err)
	}
	wantOutcome(t, "a code of the first secret", r.enrol(a, challenge, r.codeOf(first)), problem.CodeInvalid)
	if _, err := r.EnrolView(t.Context(), r.password(a, "carol", right).Challenge, "a"); !errors.Is(err, auth.ErrNotWaiting) {
		t.Errorf("a login that waits for a code draws a secret: %v", err)
	}
	undrawn := r.password(a, "alice", right).Challenge
	wantOutcome(t, "a code before a page was drawn", r.enrol(a, undrawn, "000000"), problem.CodeInvalid)
	r.clock.add(auth.PendingLifetime - 10*time.Second)
	wantOutcome(t, "a code of the second secret", r.enrol(a, challenge, r.codeOf(second)), "")
	wantOutcome(t, "the same challenge", r.enrol(a, challenge, r.codeOfAt(second, 1)), problem.CodeInvalid)
	if _, err := r.EnrolView(t.Context(), challenge, "a"); !errors.Is(err, auth.ErrNotWaiting) {
		t.Errorf("the secret after it was confirmed: %v", err)
	}
	if _, err := r.EnrolView(t.Context(), undrawn, "a"); !errors.Is(err, auth.ErrNotWaiting) {
		t.Errorf("a second secret beside an enrolled one: %v", err)
	}
}

// Who may not enrol with the password alone: a program, an account that is no longer new, one from which something was taken, and
// one that has signed in before, from an unknown place.
func TestFlow_refusesEnrolmentByPasswordAlone(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		client auth.Client
		change func(r *rig, u *user.User)
	}{
		"a program":        {home, func(*rig, *user.User) {}},
		"after 14 days":    {in("a"), func(r *rig, _ *user.User) { r.clock.add(14 * 24 * time.Hour) }},
		"an unknown place": {in("a"), func(r *rig, u *user.User) { u.FirstLoginAt = r.clock.Now() }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, options{})
			u := r.add("alice", false)
			r.change(u.ID, func(u *user.User) { test.change(r, u) })
			if out := r.password(test.client, "alice", right); out.Code != problem.EnrolmentRequired || out.Challenge != "" {
				t.Errorf("got %s, challenge %q", out.Code, out.Challenge)
			}
		})
	}
}

// The account is read again with the code: what changed since the password was right ends the enrolment.
func TestFlow_endsEnrolmentsThatTheAccountOvertook(t *testing.T) {
	t.Parallel()
	ends := map[string]func(r *rig, u *user.User){
		"another factor": func(r *rig, u *user.User) {
			u.TOTP = &user.TOTP{ID: "other", Secret: secret, EnrolledAt: r.clock.Now()}
		},
		"another password": func(r *rig, u *user.User) { u.PasswordChangedAt = r.clock.Now().Add(time.Second) },
		"a disabling":      func(_ *rig, u *user.User) { u.Disabled = true },
		"the end of being new": func(r *rig, u *user.User) {
			u.EnrolUntil = r.clock.Now()
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, options{})
			u := r.add("alice", false)
			challenge, e := r.waiting(in("a"))
			r.change(u.ID, func(u *user.User) { end(r, u) })
			before := r.byName("alice").TOTP
			wantOutcome(t, "the code", r.enrol(in("a"), challenge, r.codeOf(e)), problem.CodeInvalid)
			if after := r.byName("alice").TOTP; (after == nil) != (before == nil) || after != nil && *after != *before {
				t.Errorf("got factor %+v, want %+v", after, before)
			}
		})
	}
}

// Several logins of one account enrol at once, each in its browser: one factor stays and one login gets in.
func TestFlow_enrolsOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	u := r.add("alice", false)
	const logins = 5
	challenges, factors := make([]string, logins), make([]auth.Enrolment, logins)
	browser := func(i int) auth.Client {
		c := at(i)
		c.Browser = string(rune('a' + i))
		return c
	}
	for i := range logins {
		challenges[i], factors[i] = r.waiting(browser(i))
	}
	outcomes := make([]auth.Outcome, logins)
	var group sync.WaitGroup
	for i := range logins {
		code := r.codeOf(factors[i])
		group.Go(func() { outcomes[i] = r.enrol(browser(i), challenges[i], code) })
	}
	group.Wait()
	enrolled := r.byName("alice").TOTP
	for i, out := range outcomes {
		won := factors[i].Secret == enrolled.Secret
		if (out.Code == "") != won {
			t.Errorf("login %d: %s, and the factor that stays is its own: %v", i, out.Code, won)
		}
	}
	if n := r.liveSessions(u.ID); n != 1 {
		t.Errorf("got %d sessions, want 1", n)
	}
}

// The wrong codes of an enrolment count in the account's own budget, however many logins there are.
func TestFlow_countsWrongCodesOfEnrolments(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	u := r.add("alice", false)
	for i := range 5 {
		c := at(i)
		c.Browser = "a"
		challenge, _ := r.waiting(c)
		wantOutcome(t, "a wrong code", r.enrol(c, challenge, "not it"), problem.CodeInvalid)
	}
	challenge, e := r.waiting(in("b"))
	wantOutcome(t, "the right code", r.enrol(in("b"), challenge, r.codeOf(e)), problem.Locked)
	if n := r.wrongCodes(u.ID); n != 5 {
		t.Errorf("got %d wrong codes, want 5", n)
	}
}
