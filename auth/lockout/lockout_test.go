package lockout_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gatehouse/auth/lockout"
	"gatehouse/store"
	"gatehouse/store/boltstore"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const (
	alice = "a11ce00000000000000000000000000000000000000000000000000000000000"
	bob   = "b0b0000000000000000000000000000000000000000000000000000000000000"
	phone = "d0000000000000000000000000000001" // a device id
)

// bolt opens a store in a folder of the test.
func bolt(t *testing.T, c *clock) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(t.TempDir(), "store.db"), Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func windows(records store.Records, c *clock) *lockout.Windows {
	return lockout.New(lockout.Options{
		Records: records, Now: c.Now, Key: store.LockoutKey, Shard: store.LockoutShard, RunLimit: 100,
	})
}

func reserve(t *testing.T, w *lockout.Windows, subject, class string) lockout.Reservation {
	t.Helper()
	r, err := w.Reserve(t.Context(), subject, class)
	if err != nil {
		t.Fatalf("reserve %s: %v", class, err)
	}
	return r
}

func settle(t *testing.T, w *lockout.Windows, r lockout.Reservation, how lockout.Outcome) lockout.Settled {
	t.Helper()
	s, err := w.Settle(t.Context(), r, how)
	if err != nil {
		t.Fatalf("settle: %v", err)
	}
	return s
}

// fail makes n verified failures at this moment.
func fail(t *testing.T, w *lockout.Windows, subject, class string, n int) (last lockout.Settled) {
	t.Helper()
	for range n {
		last = settle(t, w, reserve(t, w, subject, class), lockout.Wrong)
	}
	return last
}

func wantLocked(t *testing.T, w *lockout.Windows, subject, class string) *lockout.LockedError {
	t.Helper()
	_, err := w.Reserve(t.Context(), subject, class)
	locked, ok := errors.AsType[*lockout.LockedError](err)
	if !ok {
		t.Fatalf("got %v, want a LockedError", err)
	}
	return locked
}

func status(t *testing.T, w *lockout.Windows, subject, class string) lockout.Status {
	t.Helper()
	all, err := w.Status(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Class == class {
			return s
		}
	}
	return lockout.Status{}
}

// LK-01.
func TestWindows_fifthFailureLocksForFifteenMinutes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		after  time.Duration
		locked bool
	}{
		{"a second later", time.Second, true},
		{"a second before its end", 15*time.Minute - time.Second, true},
		{"at its end", 15 * time.Minute, false},
		{"a second after its end", 15*time.Minute + time.Second, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClock()
			w := windows(bolt(t, c), c)
			var until time.Time
			for i := range 5 {
				s := fail(t, w, alice, lockout.Stranger, 1)
				if got, want := s.Locked, i == 4; got != want || s.Failures != i || s.Run != i+1 {
					t.Fatalf("failure %d: got %+v", i+1, s)
				}
				until = c.Now().Add(15 * time.Minute)
				if i < 4 {
					c.Add(time.Minute)
				}
			}
			c.Add(test.after)
			if !test.locked {
				settle(t, w, reserve(t, w, alice, lockout.Stranger), lockout.Right)
				return
			}
			if got := wantLocked(t, w, alice, lockout.Stranger); !got.Until.Equal(until) || got.Closed {
				t.Errorf("got %+v, want until %s", got, until)
			}
		})
	}
}

func TestWindows_failureOlderThanTheWindowDoesNotCount(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	fail(t, w, alice, lockout.Stranger, 1)
	c.Add(10 * time.Minute)
	fail(t, w, alice, lockout.Stranger, 3)
	c.Add(5 * time.Minute) // the first is gone
	if s := fail(t, w, alice, lockout.Stranger, 1); s.Locked || s.Failures != 3 {
		t.Fatalf("got %+v, want 3 others and no lock", s)
	}
	if s := fail(t, w, alice, lockout.Stranger, 1); !s.Locked {
		t.Fatalf("got %+v, want locked", s)
	}
}

func TestWindows_refusedAttemptsNeitherWriteNorProlong(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := bolt(t, c)
	w := windows(s, c)
	fail(t, w, alice, lockout.Stranger, 5)
	before, err := s.Get(t.Context(), store.LockoutKey(alice, lockout.Stranger))
	if err != nil {
		t.Fatal(err)
	}
	for range 14 {
		c.Add(time.Minute)
		wantLocked(t, w, alice, lockout.Stranger)
	}
	after, err := s.Get(t.Context(), before.Key)
	if err != nil || after.Version != before.Version {
		t.Errorf("got version %d (%v), want %d: nothing written", after.Version, err, before.Version)
	}
	c.Add(time.Minute)
	reserve(t, w, alice, lockout.Stranger)
}

func TestWindows_classesAndSubjectsAreApart(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	fail(t, w, alice, lockout.Stranger, 5)
	wantLocked(t, w, alice, lockout.Stranger)
	settle(t, w, reserve(t, w, alice, phone), lockout.Right)
	settle(t, w, reserve(t, w, bob, lockout.Stranger), lockout.Right)
	fail(t, w, alice, phone, 5)
	wantLocked(t, w, alice, phone)
}

func TestWindows_rightTakesBackItsOwnSlotOnly(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	fail(t, w, alice, lockout.Stranger, 4)
	for range 3 {
		if s := settle(t, w, reserve(t, w, alice, lockout.Stranger), lockout.Right); s.Failures != 4 || s.Locked {
			t.Fatalf("got %+v, want the 4 failures before it", s)
		}
		settle(t, w, reserve(t, w, alice, lockout.Stranger), lockout.NotVerified)
	}
	fail(t, w, alice, lockout.Stranger, 1)
	wantLocked(t, w, alice, lockout.Stranger)
}

func TestWindows_rightAloneLeavesNoRecord(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := bolt(t, c)
	w := windows(s, c)
	settle(t, w, reserve(t, w, alice, lockout.Stranger), lockout.Right)
	if _, err := s.Get(t.Context(), store.LockoutKey(alice, lockout.Stranger)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want no record", err)
	}
}

func TestWindows_fullOfReservationsIsBusyNotLocked(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	fail(t, w, alice, lockout.Stranger, 2)
	var held []lockout.Reservation
	for range 3 {
		held = append(held, reserve(t, w, alice, lockout.Stranger))
	}
	if _, err := w.Reserve(t.Context(), alice, lockout.Stranger); !errors.Is(err, lockout.ErrBusy) {
		t.Fatalf("got %v, want ErrBusy", err)
	}
	settle(t, w, held[0], lockout.Right)
	reserve(t, w, alice, lockout.Stranger)
}

func TestWindows_settlingTwiceIsSettlingOnce(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	r := reserve(t, w, alice, lockout.Stranger)
	for range 3 {
		settle(t, w, r, lockout.Wrong)
	}
	settle(t, w, r, lockout.Right)
	if s := status(t, w, alice, lockout.Stranger); s.Failures != 1 || s.Run != 1 || s.Reserved != 0 {
		t.Errorf("got %+v, want one failure", s)
	}
}

func TestWindows_lostAttemptIsAFailure(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	lost := reserve(t, w, alice, lockout.Stranger)
	fail(t, w, alice, lockout.Stranger, 4)
	c.Add(30*time.Second - 1)
	if _, err := w.Reserve(t.Context(), alice, lockout.Stranger); !errors.Is(err, lockout.ErrBusy) {
		t.Fatalf("got %v, want ErrBusy: it may still be settled", err)
	}
	c.Add(1)
	until := c.Now().Add(15 * time.Minute)
	if got := wantLocked(t, w, alice, lockout.Stranger); !got.Until.Equal(until) {
		t.Fatalf("got until %s, want %s: from when it was lost", got.Until, until)
	}
	// The four written failures leave the window before the lock of the fifth, which nobody wrote, has ended.
	c.Add(15*time.Minute - time.Second)
	wantLocked(t, w, alice, lockout.Stranger)
	// Its verdict comes too late and changes nothing.
	settle(t, w, lost, lockout.Right)
	wantLocked(t, w, alice, lockout.Stranger)
	c.Add(time.Second)
	reserve(t, w, alice, lockout.Stranger)
}

func TestWindows_lostAttemptCountsInTheWindowOfItsOwnTime(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	fail(t, w, alice, lockout.Stranger, 1)
	c.Add(14*time.Minute + 30*time.Second)
	reserve(t, w, alice, lockout.Stranger)
	fail(t, w, alice, lockout.Stranger, 3)
	c.Add(30 * time.Second) // it is lost at the very moment at which the first failure leaves the window
	if s := status(t, w, alice, lockout.Stranger); s.Failures != 4 || s.Locked {
		t.Errorf("got %+v, want four failures and no lock", s)
	}
	reserve(t, w, alice, lockout.Stranger)
}

func TestWindows_hundredFailuresCloseToStrangers(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	tries := 0
	for range 96 { // LK-10: every quarter of an hour, a day long
		for range 5 {
			r, err := w.Reserve(t.Context(), alice, lockout.Stranger)
			if err != nil {
				break
			}
			tries++
			settle(t, w, r, lockout.Wrong)
		}
		c.Add(15 * time.Minute)
	}
	if tries != 100 {
		t.Fatalf("got %d verified guesses in a day, want 100", tries)
	}
	if got, want := wantLocked(t, w, alice, lockout.Stranger), c.Now().Add(15*time.Minute); !got.Closed || !got.Until.Equal(want) {
		t.Errorf("got %+v, want closed, until %s", got, want)
	}
	reserve(t, w, alice, phone)
	// A login of a stranger that was under way does not open it.
	if err := w.EndRun(t.Context(), alice, lockout.Stranger); err != nil {
		t.Fatal(err)
	}
	if !wantLocked(t, w, alice, lockout.Stranger).Closed {
		t.Error("EndRun opened a closed subject")
	}
	if _, err := w.Reset(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	reserve(t, w, alice, lockout.Stranger)
}

func TestWindows_runIsKeptThirtyDays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		after time.Duration
		run   int
	}{
		{"just before", 30*24*time.Hour - time.Second, 2},
		{"just after", 30*24*time.Hour + time.Second, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClock()
			w := windows(bolt(t, c), c)
			fail(t, w, alice, lockout.Stranger, 1)
			c.Add(test.after)
			if s := fail(t, w, alice, lockout.Stranger, 1); s.Run != test.run {
				t.Errorf("got run %d, want %d", s.Run, test.run)
			}
		})
	}
}

func TestWindows_completeLoginEndsTheRunAndNotTheWindow(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	fail(t, w, alice, lockout.Stranger, 3)
	settle(t, w, reserve(t, w, alice, lockout.Stranger), lockout.Right)
	if s := status(t, w, alice, lockout.Stranger); s.Run != 3 {
		t.Fatalf("got run %d, want 3: a right password alone ends nothing", s.Run)
	}
	if err := w.EndRun(t.Context(), alice, phone); err != nil {
		t.Fatal(err)
	}
	if s := status(t, w, alice, lockout.Stranger); s.Run != 3 {
		t.Fatalf("got run %d, want 3: a known device ends no run of strangers", s.Run)
	}
	if err := w.EndRun(t.Context(), alice, lockout.Stranger); err != nil {
		t.Fatal(err)
	}
	if s := status(t, w, alice, lockout.Stranger); s.Run != 0 || s.Failures != 3 {
		t.Errorf("got %+v, want no run and 3 failures", s)
	}
}

// A clock that was once a year ahead must lock nobody for a year.
func TestWindows_clockThatWasAheadLocksOnlyOnce(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	c.Add(365 * 24 * time.Hour)
	fail(t, w, alice, lockout.Stranger, 5)
	for range 5 {
		reserve(t, w, bob, lockout.Stranger) // never settled
	}
	c.Add(-365 * 24 * time.Hour)

	until := c.Now().Add(15 * time.Minute)
	if got := wantLocked(t, w, alice, lockout.Stranger); !got.Until.Equal(until) {
		t.Errorf("got until %s, want %s", got.Until, until)
	}
	if _, err := w.Reserve(t.Context(), bob, lockout.Stranger); !errors.Is(err, lockout.ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	c.Add(14 * time.Minute)
	if got := wantLocked(t, w, alice, lockout.Stranger); !got.Until.Equal(until) {
		t.Errorf("got until %s, want %s: it must not move along", got.Until, until)
	}
	wantLocked(t, w, bob, lockout.Stranger) // lost, so failures
	c.Add(time.Minute)
	reserve(t, w, alice, lockout.Stranger)
	c.Add(time.Minute)
	reserve(t, w, bob, lockout.Stranger)
}

// Clocks of gateways differ a little: that must not open a lock that the other one has set.
func TestWindows_clockSlightlyBehindKeepsTheLock(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	fail(t, w, alice, lockout.Stranger, 5)
	c.Add(-2 * time.Second)
	wantLocked(t, w, alice, lockout.Stranger)
	c.Add(15*time.Minute - time.Second)
	wantLocked(t, w, alice, lockout.Stranger)
}

func TestWindows_resetClearsEveryClassAndSaysWhat(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	fail(t, w, alice, lockout.Stranger, 5)
	fail(t, w, alice, phone, 2)
	fail(t, w, bob, lockout.Stranger, 1)
	cleared, err := w.Reset(t.Context(), alice)
	if err != nil || len(cleared) != 2 {
		t.Fatalf("got %+v, %v, want two windows", cleared, err)
	}
	for _, s := range cleared {
		if s.Subject != alice || s.Failures != map[string]int{lockout.Stranger: 5, phone: 2}[s.Class] {
			t.Errorf("got %+v", s)
		}
	}
	if s := fail(t, w, alice, lockout.Stranger, 1); s.Run != 1 || s.Failures != 0 {
		t.Errorf("got %+v, want to begin anew", s)
	}
	if s := status(t, w, bob, lockout.Stranger); s.Failures != 1 {
		t.Errorf("got %+v, want bob's window untouched", s)
	}
	if cleared, err := w.Reset(t.Context(), "nobody"); err != nil || len(cleared) != 0 {
		t.Errorf("got %+v, %v, want nothing to clear and no error", cleared, err)
	}
}

// LK-13: none of the attempts in flight is lost or counted twice.
func TestWindows_attemptsInFlightSettleNothingAfterReset(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	var mu sync.Mutex
	var flying []lockout.Reservation
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if r, err := w.Reserve(t.Context(), alice, lockout.Stranger); err == nil {
				mu.Lock()
				defer mu.Unlock()
				flying = append(flying, r)
			}
		})
	}
	group.Wait()
	cleared, err := w.Reset(t.Context(), alice)
	if err != nil || len(cleared) != 1 || cleared[0].Reserved != 5 || len(flying) != 5 {
		t.Fatalf("got %+v, %v with %d in flight, want 5 cleared", cleared, err, len(flying))
	}
	for _, r := range flying {
		if s := settle(t, w, r, lockout.Wrong); s != (lockout.Settled{}) {
			t.Errorf("got %+v, want nothing settled", s)
		}
	}
	if s := fail(t, w, alice, lockout.Stranger, 5); s.Failures != 4 || s.Run != 5 || !s.Locked {
		t.Errorf("got %+v, want the fifth of five", s)
	}
}

func TestWindows_listShowsWhatHoldsSomething(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := bolt(t, c)
	w := windows(s, c)
	codes := lockout.New(lockout.Options{Records: s, Now: c.Now, Key: store.CodesKey, Shard: store.CodesShard})
	fail(t, w, bob, phone, 1)
	fail(t, w, alice, lockout.Stranger, 5)
	fail(t, codes, bob, lockout.Stranger, 5)
	list := func(w *lockout.Windows) (names []string) {
		all, err := w.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			names = append(names, s.Subject[:3]+" "+s.Class)
		}
		return names
	}
	if got := list(w); len(got) != 2 || got[0] != "a11 stranger" || got[1] != "b0b "+phone {
		t.Errorf("got %q", got)
	}
	c.Add(15 * time.Minute)
	if got := list(w); len(got) != 1 || got[0] != "a11 stranger" { // its run is remembered
		t.Errorf("after the window: got %q", got)
	}
	if got := list(codes); len(got) != 0 {
		t.Errorf("codes have no run, got %q", got)
	}
}

func TestWindows_clientThatGoesAwayUndoesNothing(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(bolt(t, c), c)
	r := reserve(t, w, alice, lockout.Stranger)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Settle(gone, r, lockout.Wrong); err != nil {
		t.Fatalf("settle for a client that went away: %v", err)
	}
	if _, err := w.Reserve(gone, alice, lockout.Stranger); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want no slot for a client that is gone", err)
	}
	if s := status(t, w, alice, lockout.Stranger); s.Failures != 1 || s.Reserved != 0 {
		t.Errorf("got %+v, want one failure", s)
	}
}

// broken refuses every call, like a store that is away.
type broken struct{ store.Records }

func (broken) Get(context.Context, store.Key) (store.Record, error) {
	return store.Record{}, store.ErrUnavailable
}

func (broken) Put(context.Context, store.Key, []byte, uint64, time.Time) (uint64, error) {
	return 0, store.ErrUnavailable
}

func (broken) List(context.Context, store.Collection) ([]store.Record, error) {
	return nil, store.ErrUnavailable
}

func TestWindows_storeThatIsAwayIsAnError(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := windows(broken{}, c)
	_, reserving := w.Reserve(t.Context(), alice, lockout.Stranger)
	_, settling := w.Settle(t.Context(), lockout.Reservation{}, lockout.Right)
	_, resetting := w.Reset(t.Context(), alice)
	_, listing := w.List(t.Context())
	ending := w.EndRun(t.Context(), alice, lockout.Stranger)
	for name, err := range map[string]error{
		"Reserve": reserving, "Settle": settling, "Reset": resetting, "List": listing, "EndRun": ending,
	} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrUnavailable", name, err)
		}
	}
}
