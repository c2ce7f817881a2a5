package auth_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/password"
	"gatehouse/problem"
)

// watch writes down every call from now on, each with what the pool is doing: whether the account has its place, and how many
// verifications were begun. The rig's pool must have one place for each account.
func (r *rig) watch(name string) *[]string {
	r.t.Helper()
	calls, tag := &[]string{}, r.users.NameTag(name)
	r.spy.on(func(call string) error {
		place := "in the pool"
		if p, err := r.pool.Enter(r.t.Context(), password.Waiter{Account: tag}); err == nil {
			p.Leave()
			place = "outside"
		}
		*calls = append(*calls, fmt.Sprintf("%s (%s, %d verified)", call, place, r.pool.Runs()))
		return nil
	})
	return calls
}

// The order is a promise, because everything that costs little stands before what costs much, and everything that counts
// stands before what it counts. A bcrypt comparison takes some 250 ms of processor time, so:
//
//   - the token of the address comes first, before the body is even read: a flood is refused for the price of one counter,
//     and where the pool's line is full for none (TestFlow_refusesPasswordsWithoutAWriteWhileTheLineIsFull);
//   - the body comes before the pool: what is malformed must not stand in the line;
//   - the place in the pool comes before the store is asked, so that the number of new lockout records is bounded by the line;
//   - the slot is reserved before the verification: of any number of guesses at once no more are verified than have slots;
//   - it is settled, on disk, before anything is answered;
//   - the code's slot likewise stands before the code;
//   - the pending login is used up before a session is prepared;
//   - the record is on disk before the device becomes known and the session live.
func TestFlow_runsInThisOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{perAccount: 1})
	r.add("alice", true)
	calls := r.watch("alice")
	waiting := r.Login(t.Context(), home, func() (auth.Presented, error) {
		r.must(r.spy.note("read body"))
		return auth.Presented{Username: "alice", Password: right}, nil
	})
	want := []string{
		"take token (outside, 0 verified)",
		"read body (outside, 0 verified)",
		"get name (in the pool, 0 verified)",
		"get users (in the pool, 0 verified)",
		"get password-cost (in the pool, 0 verified)",
		"get history (in the pool, 0 verified)",
		"reserve password (in the pool, 0 verified)",
		"settle password (in the pool, 1 verified)",
		"give back token (in the pool, 1 verified)",
		"put pending (outside, 1 verified)",
		"append record (outside, 1 verified)",
	}
	if !slices.Equal(*calls, want) {
		t.Errorf("password: got\n%s\nwant\n%s", strings.Join(*calls, "\n"), strings.Join(want, "\n"))
	}

	calls = r.watch("alice")
	if out := r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: r.code()}); out.Code != "" {
		t.Fatalf("got %s, trace %+v", out.Code, out.Trace)
	}
	want = []string{
		"take token (outside, 1 verified)",
		"get pending (outside, 1 verified)",
		"get users (outside, 1 verified)",
		"reserve code (outside, 1 verified)",
		"use up code (outside, 1 verified)",
		"settle code (outside, 1 verified)",
		"give back token (outside, 1 verified)",
		"delete pending (outside, 1 verified)",
		"prepare session (outside, 1 verified)",
		"append record (outside, 1 verified)",
		"get history (outside, 1 verified)",
		"put history (outside, 1 verified)",
		"get users (outside, 1 verified)", // the first login is noted
		"put users (outside, 1 verified)",
		"mark session live (outside, 1 verified)",
		"get users (outside, 1 verified)", // the session reads the account again
	}
	if !slices.Equal(*calls, want) {
		t.Errorf("code: got\n%s\nwant\n%s", strings.Join(*calls, "\n"), strings.Join(want, "\n"))
	}
}

// Whoever asks, and whatever becomes of it, the same is asked of the store in the same order: else a clock tells names that
// exist from names that do not.
func TestFlow_asksTheSameForEveryName(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{perAccount: 1})
	r.add("alice", true)
	r.add("bob", false)
	carol := r.add("carol", true)
	r.disable(carol.ID)
	var first []string
	for i, name := range []string{"alice", "bob", "carol", "nobody", "not a name", "ALICE", strings.Repeat("x", 5000)} {
		for failure := range 7 { // open, then locked
			calls := r.watch(strings.ToLower(name))
			out := r.password(at(100*i+failure), name, wrong)
			got := []string{string(out.Code), out.RetryAfter.String()}
			for _, call := range *calls {
				call, _, _ = strings.Cut(call, " (")
				got = append(got, call)
			}
			if name == "ALICE" { // the same account as alice, which is locked by now
				failure = 6
			}
			if i == 0 {
				first = append(first, strings.Join(got, "\n"))
			} else if strings.Join(got, "\n") != first[failure] {
				t.Errorf("%.10q, attempt %d: got\n%s\nwant as of alice\n%s", name, failure+1, strings.Join(got, "\n"), first[failure])
			}
		}
	}
	if runs := r.pool.Runs(); runs != 6*5 {
		t.Errorf("got %d verifications, want five for each of six names", runs)
	}
}

// What is refused before the pool costs no verification and leaves no slot behind.
func TestFlow_refusesCheaplyFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("alice", true)
	for range 10 { // the whole bucket
		out := r.Login(t.Context(), home, func() (auth.Presented, error) {
			return auth.Presented{}, &auth.BadRequest{Code: problem.BadRequest, Err: context.Canceled}
		})
		if out.Code != problem.BadRequest || out.Trace.Of(audit.StepPassword).Reason != audit.ReasonMalformed {
			t.Fatalf("got %s, trace %+v", out.Code, out.Trace)
		}
	}
	read := false
	out := r.Login(t.Context(), home, func() (auth.Presented, error) {
		read = true
		return auth.Presented{Username: "alice", Password: right}, nil
	})
	if out.Code != problem.RateLimited || read {
		t.Errorf("got %s, body read %t, want rate-limited before the body", out.Code, read)
	}
	if r.pool.Runs() != 0 || r.failures("alice") != 0 {
		t.Errorf("got %d verifications and %d failures, want none", r.pool.Runs(), r.failures("alice"))
	}
}

// fillLine takes the one place of a pool whose line has no more.
func (r *rig) fillLine() *password.Place {
	r.t.Helper()
	place, err := r.pool.Enter(r.t.Context(), password.Waiter{Account: "somebody", Address: "elsewhere"})
	r.must(err)
	return place
}

// A flood keeps the line full. Its passwords are refused without a single write; a code, which needs no place, draws its token as ever.
func TestFlow_refusesPasswordsWithoutAWriteWhileTheLineIsFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{line: 1, perAccount: 1})
	r.add("alice", true)
	waiting := r.password(home, "alice", right)
	place := r.fillLine()
	calls := r.watch("alice")
	if out := r.password(home, "alice", right); out.Code != problem.Unavailable || out.RetryAfter == 0 {
		t.Errorf("password: %q with Retry-After %v, want unavailable", out.Code, out.RetryAfter)
	}
	if len(*calls) > 0 {
		t.Errorf("password: got %v, want that nothing is asked and nothing written", *calls)
	}
	if out := r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: r.code()}); out.Code != "" {
		t.Errorf("code: %q, trace %+v", out.Code, out.Trace)
	}
	if len(*calls) == 0 || !strings.HasPrefix((*calls)[0], "take token") {
		t.Errorf("code: got %v, want a token first", *calls)
	}
	place.Leave()
	if out := r.password(home, "alice", right); out.Code != problem.CodeRequired {
		t.Errorf("with a place free again: %q", out.Code)
	}
}
