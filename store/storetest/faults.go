package storetest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/store"
)

// calls are all calls that an engine has to refuse when it cannot answer, by name.
func calls(ctx context.Context, s Store, k store.Key, version uint64) map[string]func() error {
	const counter = store.CounterKey("calls")
	return map[string]func() error{
		"Get":     func() error { _, err := s.Get(ctx, k); return err },
		"Put":     func() error { _, err := s.Put(ctx, k, []byte("changed"), version, never); return err },
		"Delete":  func() error { return s.Delete(ctx, k, version) },
		"List":    func() error { _, err := s.List(ctx, k.Collection); return err },
		"Advance": func() error { _, _, err := s.Advance(ctx, counter, 0, 1, 100, time.Hour); return err },
		"Peek":    func() error { _, _, err := s.Peek(ctx, counter); return err },
		"Reset":   func() error { return s.Reset(ctx, counter) },
		"Publish": func() error { _, err := s.Publish(ctx, []byte("x")); return err },
		"Read":    func() error { _, _, err := s.Read(ctx, store.Cursor{}, time.Hour); return err },
		"Tail":    func() error { _, err := s.Tail(ctx); return err },
		"Check":   func() error { return s.Check(ctx) },
		"Update": func() error {
			return store.Update(ctx, s, k, func(store.Record) ([]byte, time.Time, error) { return []byte("changed"), never, nil })
		},
	}
}

// WantUnavailable makes every call of the engine and wants ErrUnavailable from each.
func WantUnavailable(t *testing.T, ctx context.Context, s Store) {
	t.Helper()
	for name, call := range calls(ctx, s, key("c", "id"), 0) {
		wantErr(t, name, call(), store.ErrUnavailable)
	}
}

func cancelled(t *testing.T, e Engine, _ *Clock) {
	k := key("c", "id")
	version := mustPut(t, e.Store, k, "x", 0, never)
	wantAdvance(t, e.Store, "calls", 0, 7, 7, 7, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(ctx, e.Store, k, version) {
		err := call()
		wantErr(t, name, err, store.ErrUnavailable)
		wantErr(t, name, err, context.Canceled)
	}
	if r := wantValue(t, e.Store, k, "x"); r.Version != version {
		t.Error("a cancelled call changed the version")
	}
	wantPeek(t, e.Store, "calls", 7, true)
	wantRead(t, e.Store, store.Cursor{}, "")
}

// cancelledBetween ends contexts while calls are under way. What was acknowledged is there; what was not may be.
func cancelledBetween(t *testing.T, e Engine, _ *Clock) {
	const callers = 16
	var tried, acknowledged atomic.Int64
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range Rounds(20, 500) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration((caller*i)%7)*200*time.Microsecond)
				tried.Add(1)
				_, _, err := e.Store.Advance(ctx, "between", 0, 1, 1<<40, time.Hour)
				if err == nil {
					acknowledged.Add(1)
				} else {
					wantErrorf(t, err, store.ErrUnavailable)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	value, _, err := e.Store.Peek(t.Context(), "between")
	if err != nil || value < acknowledged.Load() || value > tried.Load() {
		t.Errorf("the counter is %d, %v; %d calls were acknowledged of %d", value, err, acknowledged.Load(), tried.Load())
	}
	t.Logf("%d tried, %d acknowledged, %d happened", tried.Load(), acknowledged.Load(), value)
}

func reopened(t *testing.T, e Engine, clock *Clock) {
	mustPut(t, e.Store, key("", "alone"), "1", 0, never)
	version := mustPut(t, e.Store, key("c", "in"), "2", 0, clock.Now().Add(time.Hour))
	wantAdvance(t, e.Store, "counter", 5, 1, 6, 6, true)
	for i := range 3 {
		publish(t, e.Store, strconv.Itoa(i))
	}
	c := tail(t, e.Store)

	s := e.Reopen(t)
	wantValue(t, s, key("", "alone"), "1")
	if r := wantValue(t, s, key("c", "in"), "2"); r.Version != version || !r.Expires.Equal(clock.Now().Add(time.Hour)) {
		t.Errorf("after reopening: %+v", r)
	}
	wantPeek(t, s, "counter", 6, true)
	wantRead(t, s, store.Cursor{}, "0 1 2")
	publish(t, s, "3")
	wantRead(t, s, c, "3")
}

func closed(t *testing.T, e Engine, _ *Clock) {
	mustPut(t, e.Store, key("c", "id"), "x", 0, never)
	wantErr(t, "Close", e.Store.Close(), nil)
	wantErr(t, "Close again", e.Store.Close(), nil)
	WantUnavailable(t, t.Context(), e.Store)
}

// wantErrorf is wantErr for other goroutines than the test's.
func wantErrorf(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
