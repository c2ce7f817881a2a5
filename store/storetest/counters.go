package storetest

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/store"
)

func wantAdvance(t *testing.T, s Store, k store.CounterKey, floor, step, ceil, want int64, wantOK bool) {
	t.Helper()
	got, ok, err := s.Advance(t.Context(), k, floor, step, ceil, time.Hour)
	if err != nil || got != want || ok != wantOK {
		t.Errorf("Advance(floor %d, step %d, ceil %d) = %d, %t, %v; want %d, %t", floor, step, ceil, got, ok, err, want, wantOK)
	}
}

func wantPeek(t *testing.T, s Store, k store.CounterKey, want int64, wantOK bool) {
	t.Helper()
	got, ok, err := s.Peek(t.Context(), k)
	if err != nil || got != want || ok != wantOK {
		t.Errorf("Peek = %d, %t, %v; want %d, %t", got, ok, err, want, wantOK)
	}
}

func advance(t *testing.T, e Engine, _ *Clock) {
	const k = store.CounterKey("count/er")
	wantPeek(t, e.Store, k, 0, false)
	wantAdvance(t, e.Store, k, 10, 5, 14, 10, false)
	wantPeek(t, e.Store, k, 0, false) // what was refused has changed nothing
	wantAdvance(t, e.Store, k, 10, 5, 15, 15, true)
	wantAdvance(t, e.Store, k, 10, 5, 30, 20, true) // 15 is above the floor
	wantAdvance(t, e.Store, k, 100, 1, 200, 101, true)
	wantAdvance(t, e.Store, k, 0, 1, 101, 101, false)
	wantPeek(t, e.Store, k, 101, true)
	wantAdvance(t, e.Store, k, 0, -50, 0, 51, true) // giving back succeeds above ceil
	wantAdvance(t, e.Store, k, 0, 0, 51, 51, true)
	wantAdvance(t, e.Store, k, 0, 0, 50, 51, false)
	wantAdvance(t, e.Store, k, -9, -60, 0, -9, true)
	wantAdvance(t, e.Store, k, -5, 2, 0, -3, true)
	wantPeek(t, e.Store, "count", 0, false)

	wantErr(t, "Reset", e.Store.Reset(t.Context(), k), nil)
	wantErr(t, "Reset of nothing", e.Store.Reset(t.Context(), k), nil)
	wantPeek(t, e.Store, k, 0, false)
	wantAdvance(t, e.Store, k, 3, 1, 4, 4, true)
}

func neverExceed(t *testing.T, e Engine, _ *Clock) {
	const callers, ceil = 64, 40
	for round := range Rounds(3, 50) {
		k := store.CounterKey("race/" + string(rune('a'+round%26)))
		wantErr(t, "Reset", e.Store.Reset(t.Context(), k), nil)
		var allowed atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				value, ok, err := e.Store.Advance(t.Context(), k, 0, 1, ceil, time.Hour)
				if err != nil || value > ceil {
					t.Errorf("Advance = %d, %v", value, err)
				}
				if ok {
					allowed.Add(1)
				}
			})
		}
		wg.Wait()
		if allowed.Load() != ceil {
			t.Errorf("%d of %d callers got one of %d", allowed.Load(), callers, ceil)
		}
		wantPeek(t, e.Store, k, ceil, true)
	}
}

func bounds(t *testing.T, e Engine, _ *Clock) {
	const k, most = store.CounterKey("bounds"), int64(store.MaxCounter)
	wantAdvance(t, e.Store, k, most-2, 1, most, most-1, true)
	wantAdvance(t, e.Store, k, 0, 1, most, most, true)
	wantAdvance(t, e.Store, k, 0, 1, most, most, false)
	wantAdvance(t, e.Store, k, most, most, most, most, false)
	wantPeek(t, e.Store, k, most, true)
	wantAdvance(t, e.Store, k, -most, -most, 0, 0, true)
	wantAdvance(t, e.Store, k, -most, -most, 0, -most, true)
	wantAdvance(t, e.Store, k, -most, -most, 0, -most, true) // no further
	wantPeek(t, e.Store, k, -most, true)
	micros := start.UnixMicro()
	wantAdvance(t, e.Store, k, micros, 1, micros+1, micros+1, true)
	for _, bad := range [][3]int64{{most + 1, 0, 0}, {0, -most - 1, 0}, {0, 0, math.MaxInt64}, {math.MinInt64, 0, 0}} {
		if _, ok, err := e.Store.Advance(t.Context(), k, bad[0], bad[1], bad[2], time.Hour); err == nil || ok {
			t.Errorf("Advance(%v): %t, %v; want an error", bad, ok, err)
		}
	}
	for _, keep := range []time.Duration{-time.Hour, 0, time.Microsecond, store.Forever - 1, store.Forever} {
		if _, ok, err := e.Store.Advance(t.Context(), k, micros, 1, most, keep); err != nil || !ok {
			t.Errorf("Advance with keep %s: %t, %v", keep, ok, err)
		}
	}
}
