package lockout_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gatehouse/auth/lockout"
	"gatehouse/store"
)

// model is the rule in its plainest form: every failure since the last reset, never pruned, and the attempts under way.
type model struct {
	failures []time.Time
	flying   map[string]time.Time
	run      int
}

// lose turns attempts of 30 s ago and more into failures.
func (m *model) lose(now time.Time) {
	for name, at := range m.flying {
		if lost := at.Add(30 * time.Second); !lost.After(now) {
			m.fail(lost)
			delete(m.flying, name)
		}
	}
}

func (m *model) fail(at time.Time) {
	m.failures = append(m.failures, at)
	slices.SortFunc(m.failures, time.Time.Compare)
	m.run++
}

// until is the latest end of a lock: 15 minutes after each failure that was the fifth within 15 minutes.
func (m *model) until() (until time.Time) {
	for i, at := range m.failures {
		if i >= 4 && at.Sub(m.failures[i-4]) < 15*time.Minute {
			until = at.Add(15 * time.Minute)
		}
	}
	return until
}

func (m *model) inWindow(now time.Time) (n int) {
	for _, at := range m.failures {
		if now.Sub(at) < 15*time.Minute {
			n++
		}
	}
	return n
}

// verdict is what Reserve must say.
func (m *model) verdict(now time.Time) string {
	switch {
	case m.run >= runLimit:
		return "closed"
	case m.until().After(now):
		return "locked until " + m.until().Format(time.RFC3339Nano)
	case m.inWindow(now)+len(m.flying) >= 5:
		return "busy"
	}
	return "reserved"
}

const runLimit = 12

func verdictOf(err error) string {
	if locked, ok := errors.AsType[*lockout.LockedError](err); ok && locked.Closed {
		return "closed"
	} else if ok {
		return "locked until " + locked.Until.Format(time.RFC3339Nano)
	}
	if errors.Is(err, lockout.ErrBusy) {
		return "busy"
	}
	if err != nil {
		return err.Error()
	}
	return "reserved"
}

func TestWindows_agreeWithTheModel(t *testing.T) {
	c := newClock()
	engine := bolt(t, c)
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		subject := fmt.Sprintf("%064x", round)
		w := lockout.New(lockout.Options{
			Records: engine, Now: c.Now, Key: store.LockoutKey, Shard: store.LockoutShard, RunLimit: runLimit,
		})
		m := model{flying: map[string]time.Time{}}
		held := map[string]lockout.Reservation{} // also what is settled already, or lost
		count := 0
		pick := func(t *rapid.T) string {
			names := make([]string, 0, len(held))
			for name := range held {
				names = append(names, name)
			}
			if len(names) == 0 {
				t.Skip("nothing reserved")
			}
			slices.Sort(names)
			return rapid.SampledFrom(names).Draw(t, "attempt")
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { m.lose(c.Now()) },
			"reserve": func(t *rapid.T) {
				want := m.verdict(c.Now())
				r, err := w.Reserve(t.Context(), subject, lockout.Stranger)
				if got := verdictOf(err); got != want {
					t.Fatalf("got %s, want %s", got, want)
				}
				if err == nil {
					count++
					name := fmt.Sprint(count)
					held[name], m.flying[name] = r, c.Now()
				}
			},
			"wrong": func(t *rapid.T) {
				name := pick(t)
				s, err := w.Settle(t.Context(), held[name], lockout.Wrong)
				if err != nil {
					t.Fatal(err)
				}
				before := m.inWindow(c.Now())
				if _, flying := m.flying[name]; flying {
					delete(m.flying, name)
					m.fail(c.Now())
				}
				want := lockout.Settled{Failures: before, Run: m.run, Closed: m.run >= runLimit}
				if until := m.until(); until.After(c.Now()) {
					want.Locked, want.Until = true, until
				}
				if want.Closed {
					want.Locked, want.Until = true, c.Now().Add(15*time.Minute)
				}
				if s != want {
					t.Fatalf("got %+v, want %+v", s, want)
				}
			},
			"right": func(t *rapid.T) {
				name := pick(t)
				how := rapid.SampledFrom([]lockout.Outcome{lockout.Right, lockout.NotVerified}).Draw(t, "how")
				if _, err := w.Settle(t.Context(), held[name], how); err != nil {
					t.Fatal(err)
				}
				delete(m.flying, name)
			},
			"complete": func(t *rapid.T) {
				if err := w.EndRun(t.Context(), subject, lockout.Stranger); err != nil {
					t.Fatal(err)
				}
				if m.run < runLimit {
					m.run = 0
				}
			},
			"reset": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "rarely") > 0 {
					t.Skip("not this time")
				}
				if _, err := w.Reset(t.Context(), subject); err != nil {
					t.Fatal(err)
				}
				m = model{flying: map[string]time.Time{}}
			},
			"wait": func(t *rapid.T) {
				c.Add(rapid.SampledFrom([]time.Duration{
					time.Microsecond, time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute,
				}).Draw(t, "wait"))
			},
		})
	})
}

// LK-02: guesses sent at once over two gateways that share a store.
func TestWindows_twoHundredGuessesAtOnceRunAtMostFive(t *testing.T) {
	t.Parallel()
	c := newClock()
	engine := bolt(t, c)
	guessAtOnce(t, windows(engine, c), windows(engine, c))
}

// guessAtOnce sends 200 wrong guesses over two gateways. Every one that got a slot is settled; as slots that are settled stay
// used, no more than five may ever get one.
func guessAtOnce(t *testing.T, gateways ...*lockout.Windows) {
	t.Helper()
	var verified, locked, busy atomic.Int64
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			w := gateways[i%len(gateways)]
			r, err := w.Reserve(t.Context(), alice, lockout.Stranger)
			switch verdict := verdictOf(err); {
			case err == nil:
				verified.Add(1)
				if _, err := w.Settle(t.Context(), r, lockout.Wrong); err != nil {
					t.Errorf("settle: %v", err)
				}
			case verdict == "busy":
				busy.Add(1)
			case errors.Is(err, store.ErrUnavailable):
				t.Errorf("reserve: %v", err)
			default:
				locked.Add(1)
			}
		})
	}
	group.Wait()
	if verified.Load() != 5 {
		t.Errorf("got %d verified (%d locked, %d busy), want 5", verified.Load(), locked.Load(), busy.Load())
	}
	if s := status(t, gateways[0], alice, lockout.Stranger); s.Failures != 5 || !s.Locked || s.Run != 5 {
		t.Errorf("got %+v, want five failures and a lock", s)
	}
}
