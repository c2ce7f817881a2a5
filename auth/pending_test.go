package auth_test

import (
	"errors"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/user"
	"gatehouse/problem"
)

// A challenge is worth something in the browser that it was given to only, for the account as it was, within five minutes, once.
func TestPending_isBound(t *testing.T) {
	t.Parallel()
	browser := home
	browser.Browser = "the hash of a nonce"
	for _, test := range []struct {
		name string
		// meanwhile happens between password and code; it returns the client that brings the code.
		meanwhile func(r *rig, alice user.User) auth.Client
		want      problem.Code
	}{
		{"the same browser", func(*rig, user.User) auth.Client { return browser }, ""},
		{"another address of the same browser", func(*rig, user.User) auth.Client {
			c := browser
			c.Address, c.Network = abroad.Address, abroad.Network
			return c
		}, ""},
		{"another browser", func(*rig, user.User) auth.Client {
			c := browser
			c.Browser = "the hash of another nonce"
			return c
		}, problem.CodeInvalid},
		{"no browser", func(*rig, user.User) auth.Client { return home }, problem.CodeInvalid},
		{"just in time", func(r *rig, _ user.User) auth.Client {
			r.clock.add(auth.PendingLifetime - time.Second)
			return browser
		}, ""},
		{"too late", func(r *rig, _ user.User) auth.Client {
			r.clock.add(auth.PendingLifetime)
			return browser
		}, problem.CodeInvalid},
		{"account disabled", func(r *rig, alice user.User) auth.Client {
			r.disable(alice.ID)
			return browser
		}, problem.CodeInvalid},
		{"account deleted", func(r *rig, alice user.User) auth.Client {
			r.must(r.users.Delete(r.t.Context(), alice.ID))
			return browser
		}, problem.CodeInvalid},
		{"password changed", func(r *rig, alice user.User) auth.Client {
			r.clock.add(time.Second)
			r.change(alice.ID, func(u *user.User) { u.PasswordChangedAt = r.clock.Now() })
			return browser
		}, problem.CodeInvalid},
		{"enrolled anew", func(r *rig, alice user.User) auth.Client {
			r.change(alice.ID, func(u *user.User) { u.TOTP = &user.TOTP{ID: "another", Secret: secret, EnrolledAt: r.clock.Now()} })
			return browser
		}, problem.CodeInvalid},
		{"factor reset", func(r *rig, alice user.User) auth.Client {
			r.change(alice.ID, func(u *user.User) { u.TOTP = nil })
			return browser
		}, problem.CodeInvalid},
		{"e-mail address changed", func(r *rig, alice user.User) auth.Client {
			r.change(alice.ID, func(u *user.User) { u.Email = "alice@example.com" })
			return browser
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, options{})
			alice := r.add("alice", true)
			waiting := r.password(browser, "alice", right)
			if waiting.Code != problem.CodeRequired || waiting.Challenge == "" {
				t.Fatalf("got %s, challenge %q", waiting.Code, waiting.Challenge)
			}
			c := test.meanwhile(r, alice)
			_, err := r.Waiting(t.Context(), waiting.Challenge, c.Browser)
			if got := err == nil; got != (test.want == "") || (err != nil && !errors.Is(err, auth.ErrNotWaiting)) {
				t.Errorf("waiting: %v", err)
			}
			out := r.try(c, auth.Presented{Challenge: waiting.Challenge, Code: r.code()})
			if out.Code != test.want {
				t.Errorf("got %s, want %q; trace %+v", out.Code, test.want, out.Trace)
			}
			if out.Code != "" && out.Trace.Of(audit.StepSecondFactor).Reason != audit.ReasonPendingInvalid {
				t.Errorf("got trace %+v, want pending-invalid", out.Trace)
			}
			if e, _ := r.spy.last(); out.Code != "" && e.Subject != (audit.Subject{}) {
				t.Errorf("a challenge that is worth nothing names %+v in the log", e.Subject)
			}
		})
	}
}

// A code that was not right does not end the login: people mistype. The end of the flow does.
func TestPending_isConsumedAtTheEndOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	alice := r.add("alice", true)
	waiting := r.password(home, "alice", right)
	for range 2 {
		if out := r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: "no code"}); out.Code != problem.CodeInvalid {
			t.Fatalf("wrong code: got %s", out.Code)
		}
	}
	if out := r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: r.code()}); out.Code != "" {
		t.Fatalf("right code: got %s, trace %+v", out.Code, out.Trace)
	}
	r.clock.add(time.Minute)
	out := r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: r.code()})
	if out.Code != problem.CodeInvalid || out.Trace.Of(audit.StepSecondFactor).Reason != audit.ReasonPendingInvalid {
		t.Errorf("used again: got %s, trace %+v", out.Code, out.Trace)
	}
	if n := r.liveSessions(alice.ID); n != 1 {
		t.Errorf("got %d sessions, want 1", n)
	}
}

// Two codes of two time steps are right at the same time. Behind one challenge one of them signs in.
func TestPending_givesOneSessionToTwoRightCodes(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	alice := r.add("alice", true)
	for round := range 10 {
		waiting := r.password(home, "alice", right)
		if waiting.Code != problem.CodeRequired {
			t.Fatalf("round %d: %s", round, waiting.Code)
		}
		right := []string{r.codeAt(0), r.codeAt(1)}
		codes := parallel(2, []*rig{r}, func(r *rig, i int) auth.Outcome {
			return r.try(at(2*round+i), auth.Presented{Challenge: waiting.Challenge, Code: right[i]})
		})
		if codes[""] > 1 || codes[""]+codes[problem.CodeInvalid] != 2 {
			t.Fatalf("round %d: got %v, want at most one signed in", round, codes)
		}
		if n := r.liveSessions(alice.ID); n > round+1 {
			t.Fatalf("round %d: %d sessions", round, n)
		}
		r.clock.add(16 * time.Minute) // no wrong code of this round counts in the next
	}
}

// The code must be of the account that waits.
func TestPending_takesItsOwnAccountsCodeOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("alice", true)
	bob := r.add("bob", true)
	r.change(bob.ID, func(u *user.User) { u.TOTP.Secret = "KRSXG5CTMVRXEZLUKRSXG5CTMVRXEZLU" })
	waiting := r.password(home, "bob", right)
	if out := r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: r.code()}); out.Code != problem.CodeInvalid {
		t.Errorf("alice's code behind bob's challenge: got %s", out.Code)
	}
}
