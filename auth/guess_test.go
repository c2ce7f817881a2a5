package auth_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/password"
	"gatehouse/auth/user"
	"gatehouse/problem"
)

func (r *rig) disable(id string) {
	r.t.Helper()
	r.change(id, func(u *user.User) { u.Disabled = true })
}

// A client that goes away, wherever its attempt stands, undoes no count: what was verified is counted, and what was not
// verified is not.
func TestFlow_countsWhoeverGoesAway(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"take token", "read body", "get name", "get history", "reserve password", "settle password", "append record"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, options{})
			r.add("alice", true)
			for i := range 5 {
				ctx, cancel := context.WithCancel(t.Context())
				r.spy.on(func(call string) error {
					if call == when {
						cancel()
					}
					return nil
				})
				out := r.Login(ctx, at(i), func() (auth.Presented, error) {
					r.must(r.spy.note("read body"))
					return auth.Presented{Username: "alice", Password: wrong}, nil
				})
				cancel()
				if out.Code == "" {
					t.Fatal("a wrong password signed in")
				}
			}
			counted, verified := r.failures("alice"), int(r.pool.Runs())
			if counted != verified {
				t.Errorf("%d verified, %d counted", verified, counted)
			}
			if gone := when == "take token" || when == "read body"; !gone && verified != 5 {
				t.Errorf("%d verified after the account's turn had come, want 5", verified)
			}
		})
	}
}

// The same for codes.
func TestFlow_countsCodesWhoeverGoesAway(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"reserve code", "settle code", "append record"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, options{})
			alice := r.add("alice", true)
			for i := range 5 {
				ctx, cancel := context.WithCancel(t.Context())
				r.spy.on(func(call string) error {
					if call == when {
						cancel()
					}
					return nil
				})
				r.Login(ctx, at(i), func() (auth.Presented, error) {
					return auth.Presented{Username: "alice", Password: right, Code: "no code"}, nil
				})
				cancel()
			}
			r.spy.on(nil)
			if n := r.wrongCodes(alice.ID); n != 5 {
				t.Errorf("%d counted, want 5", n)
			}
			if out := r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()}); out.Code != problem.Locked {
				t.Errorf("got %s, want locked", out.Code)
			}
		})
	}
}

// parallel runs n attempts at once, spread over flows, and returns the codes of their outcomes.
func parallel(n int, flows []*rig, attempt func(r *rig, i int) auth.Outcome) map[problem.Code]int {
	var mu sync.Mutex
	var group sync.WaitGroup
	codes := map[problem.Code]int{}
	for i := range n {
		group.Go(func() {
			out := attempt(flows[i%len(flows)], i)
			mu.Lock()
			defer mu.Unlock()
			codes[out.Code]++
		})
	}
	group.Wait()
	return codes
}

// second is another gateway on the same store and log.
func (r *rig) second(o options) *rig { return assemble(r.t, o, r.clock, r.store, r.log) }

// The window has five slots and ten attempts come at once: those without a slot wait for one, they are not refused.
func TestFlow_letsTenRightLoginsAtOnceIn(t *testing.T) {
	t.Parallel()
	r := newRig(t, optional)
	alice := r.add("alice", true)
	known := r.signIn(home, "alice")
	if codes := parallel(10, []*rig{r}, func(r *rig, _ int) auth.Outcome { return r.password(known, "alice", right) }); codes[""] != 10 {
		t.Errorf("one gateway: got %v, want ten signed in", codes)
	}
	two := []*rig{r, r.second(optional)}
	codes := parallel(20, two, func(r *rig, i int) auth.Outcome {
		c := known
		c.Address = at(i).Address // a bucket lends ten tokens at a time
		return r.password(c, "alice", right)
	})
	if codes[""] != 20 {
		t.Errorf("two gateways: got %v, want twenty signed in", codes)
	}
	if n := r.liveSessions(alice.ID); n != 31 {
		t.Errorf("got %d sessions, want 31", n)
	}
	if n := r.failures("alice"); n != 0 {
		t.Errorf("got %d failures, want none", n)
	}
}

func TestFlow_verifiesFiveOfManyGuessesAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("alice", true)
	two := []*rig{r, r.second(options{})}
	codes := parallel(40, two, func(r *rig, i int) auth.Outcome { return r.password(at(i), "alice", wrong) })
	verified := two[0].pool.Runs() + two[1].pool.Runs()
	if verified != 5 || codes[problem.InvalidCredentials] != 5 {
		t.Errorf("got %d verifications, codes %v, want five", verified, codes)
	}
}

// A right password between wrong ones takes back its own slot and clears nothing (LK-11 of attacks.md).
func TestFlow_clearsNothingByARightPassword(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("alice", true)
	r.guess("alice", 4)
	if out := r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()}); out.Code != "" {
		t.Fatalf("got %s, trace %+v", out.Code, out.Trace)
	}
	if n := r.failures("alice"); n != 4 {
		t.Errorf("got %d failures, want 4", n)
	}
	r.guess("alice", 1)
	if out := r.password(home, "alice", right); out.Code != problem.Locked {
		t.Errorf("got %s, want locked", out.Code)
	}
}

// The budget of wrong codes is the account's: no new login renews it (TP-04 of attacks.md).
func TestFlow_keepsTheBudgetOfCodesOverLogins(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	alice := r.add("alice", true)
	var checked int
	r.spy.on(func(call string) error {
		if call == "settle code" {
			checked++
		}
		return nil
	})
	for i := range 20 {
		waiting := r.password(at(2*i), "alice", right)
		if waiting.Code != problem.CodeRequired {
			t.Fatalf("login %d: %s", i, waiting.Code)
		}
		want := problem.CodeInvalid
		if i >= 5 {
			want = problem.Locked
		}
		if out := r.try(at(2*i+1), auth.Presented{Challenge: waiting.Challenge, Code: "no code"}); out.Code != want {
			t.Fatalf("code %d: got %s, want %s", i, out.Code, want)
		}
	}
	if checked != 5 {
		t.Errorf("%d codes were checked, want 5", checked)
	}
	out := r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	if out.Code != problem.Locked {
		t.Errorf("the right code: got %s, want locked", out.Code)
	}
	if e, how := r.spy.last(); how != "appended" || e.Trace == nil {
		t.Errorf("the right password behind locked codes was %s, want a record of its own", how)
	}
	if n := r.failures("alice"); n != 0 {
		t.Errorf("%d wrong passwords were counted, want none", n)
	}
	r.clock.add(15 * time.Minute)
	if out := r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()}); out.Code != "" {
		t.Errorf("15 minutes later: %s, want signed in", out.Code)
	}
	if n := r.wrongCodes(alice.ID); n != 0 {
		t.Errorf("%d wrong codes are still counted", n)
	}
}

// Nobody learns that an account is disabled: its right password counts and costs like a wrong one.
func TestFlow_treatsARightPasswordOfADisabledAccountAsWrong(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	carol := r.add("carol", true)
	r.disable(carol.ID)
	for i := range 7 {
		disabled, unknown := r.password(at(i), "carol", right), r.password(at(i), "nobody", right)
		if disabled.Code != unknown.Code || disabled.RetryAfter != unknown.RetryAfter || disabled.Username != "" {
			t.Errorf("attempt %d: got %+v, want as for an unknown name: %+v", i, disabled, unknown)
		}
	}
	if n := r.failures("carol"); n != 5 {
		t.Errorf("got %d failures, want 5", n)
	}
	if runs := r.pool.Runs(); runs != 10 {
		t.Errorf("got %d verifications, want 10", runs)
	}
}

// A stolen device cookie is worth five tries, and five tries only, be it passwords or codes.
func TestFlow_endsAKnownDeviceAtFiveFailures(t *testing.T) {
	t.Parallel()
	for name, guess := range map[string]auth.Presented{
		"passwords": {Username: "alice", Password: wrong},
		"codes":     {Username: "alice", Password: right, Code: "no code"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, options{})
			alice := r.add("alice", true)
			known := r.signIn(home, "alice")
			for i := range 5 {
				c := at(i)
				c.DeviceCookie = known.DeviceCookie
				out := r.try(c, guess)
				if e, _ := r.spy.last(); e.Client.Device != "known" || out.Code == "" {
					t.Fatalf("guess %d: %s as %s, want a failure of the known device", i, out.Code, e.Client.Device)
				}
			}
			history, err := r.devices.Load(t.Context(), alice.ID)
			r.must(err)
			if n := len(history.Devices()); n != 0 {
				t.Errorf("%d devices are still known", n)
			}
			out := r.try(known, auth.Presented{Username: "alice", Password: right, Code: r.code()})
			if e, _ := r.spy.last(); out.Code != "" || e.Client.Device != "stranger" {
				t.Errorf("afterwards: %s as %s, want signed in as a stranger", out.Code, e.Client.Device)
			}
		})
	}
}

// Strangers cannot lock the owner out: a known device has a window of its own.
func TestFlow_letsTheOwnerInWhileStrangersAreLocked(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("alice", true)
	known := r.signIn(home, "alice")
	r.guess("alice", 5)
	if out := r.password(abroad, "alice", right); out.Code != problem.Locked {
		t.Fatalf("a stranger got %s, want locked", out.Code)
	}
	if out := r.try(known, auth.Presented{Username: "alice", Password: right, Code: r.code()}); out.Code != "" {
		t.Errorf("the owner got %s, want signed in", out.Code)
	}
}

// A cookie of one account is nothing to another, and says nothing about names that do not exist.
func TestFlow_takesADeviceCookieForItsAccountOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("alice", true)
	r.add("bob", true)
	known := r.signIn(home, "alice")
	for _, name := range []string{"bob", "nobody"} {
		r.password(known, name, wrong)
		if e, _ := r.spy.last(); e.Client.Device != "stranger" {
			t.Errorf("%s: got %s, want stranger", name, e.Client.Device)
		}
	}
}

// tokens is how many attempts the bucket of a client still has; it uses them up.
func (r *rig) tokens(c auth.Client) int {
	r.t.Helper()
	for n := 0; ; n++ {
		if out := r.password(c, "somebody", wrong); out.Code == problem.RateLimited {
			return n
		}
	}
}

// The token comes back once, and only when everything that was presented was right: a right password does not make the guesses
// of codes behind it free.
func TestFlow_givesTheTokenBackForWhatWasRight(t *testing.T) {
	t.Parallel()
	alice := func(code string) auth.Presented {
		return auth.Presented{Username: "alice", Password: right, Code: code}
	}
	for _, test := range []struct {
		name string
		run  func(r *rig)
		want int // tokens left of ten
	}{
		{"nothing", func(*rig) {}, 10},
		{"wrong password", func(r *rig) { r.password(home, "alice", wrong) }, 9},
		{"right password", func(r *rig) { r.try(home, alice("")) }, 10},
		{"right password and code", func(r *rig) { r.try(home, alice(r.code())) }, 10},
		{"right password and code after three tokens", func(r *rig) {
			for range 3 {
				r.password(home, "nobody", wrong)
			}
			r.try(home, alice(r.code()))
		}, 7},
		{"right password, wrong code", func(r *rig) { r.try(home, alice("no code")) }, 9},
		{"right password, wrong code in a second request", func(r *rig) {
			waiting := r.try(home, alice(""))
			r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: "no code"})
		}, 9},
		{"pool full", func(r *rig) {
			place, err := r.pool.Enter(r.t.Context(), password.Waiter{Account: r.users.NameTag("alice")})
			r.must(err)
			defer place.Leave()
			r.try(home, alice(""))
		}, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, options{perAccount: 1})
			r.add("alice", true)
			test.run(r)
			r.guessElsewhere()
			if n := r.tokens(home); n != test.want {
				t.Errorf("got %d tokens, want %d", n, test.want)
			}
		})
	}
}

// guessElsewhere locks the name that tokens presents, so that asking costs no verification.
func (r *rig) guessElsewhere() { r.guess("somebody", 5) }

// Whatever a client is told, the trace says why, and the client is not told that.
func TestFlow_observesEveryOutcome(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	var seen []problem.Code
	r.Observe = func(out auth.Outcome) { seen = append(seen, out.Code) }
	r.add("alice", true)
	r.password(home, "alice", wrong)
	r.password(home, "alice", right)
	r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	if want := []problem.Code{problem.InvalidCredentials, problem.CodeRequired, ""}; !slices.Equal(seen, want) {
		t.Errorf("got %q, want %q", seen, want)
	}
}

// Steps that were measured by a clock that stands still took no time; with one that moves, the work of each is its own.
func TestFlow_measuresEachStep(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("alice", true)
	r.spy.on(func(call string) error {
		switch call {
		case "take token":
			r.clock.add(time.Millisecond)
		case "reserve password":
			r.clock.add(2 * time.Millisecond)
		case "put pending":
			r.clock.add(3 * time.Millisecond)
		case "append record":
			r.clock.add(4 * time.Millisecond)
		}
		return nil
	})
	out := r.password(home, "alice", right)
	for step, want := range map[audit.Step]int64{
		audit.StepPassword: 2000, audit.StepRateLimit: 1000, audit.StepSecondFactor: 3000, audit.StepSession: 0, audit.StepAudit: 4000,
	} {
		if got := out.Trace.Of(step).Micros; got != want {
			t.Errorf("%s took %d µs, want %d", step, got, want)
		}
	}
}
