package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gatehouse/ratelimit"
	"gatehouse/store"
	"gatehouse/store/boltstore"
)

// clock is a clock that tests move.
type clock struct{ micros atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.micros.Store(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC).UnixMicro())
	return c
}

func (c *clock) Now() time.Time      { return time.UnixMicro(c.micros.Load()).UTC() }
func (c *clock) Add(d time.Duration) { c.micros.Add(d.Microseconds()) }

func bolt(t testing.TB, c *clock) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(t.TempDir(), "store.db"), Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func limiter(t testing.TB, c *clock) *ratelimit.Limiter {
	return ratelimit.New(ratelimit.Options{Counters: bolt(t, c), Now: c.Now})
}

// take draws a token; ok is whether there was one, and wait the time until the next.
func take(t testing.TB, l *ratelimit.Limiter, address netip.Addr) (token ratelimit.Token, wait time.Duration, ok bool) {
	t.Helper()
	token, err := l.Take(t.Context(), address)
	if limited, is := errors.AsType[*ratelimit.LimitedError](err); is {
		return token, limited.RetryAfter, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return token, 0, true
}

// takes counts how many of n tokens in a row there are.
func takes(t testing.TB, l *ratelimit.Limiter, n int, address func(i int) netip.Addr) (got int) {
	t.Helper()
	for i := range n {
		if _, _, ok := take(t, l, address(i)); ok {
			got++
		}
	}
	return got
}

func always(address string) func(int) netip.Addr {
	return func(int) netip.Addr { return netip.MustParseAddr(address) }
}

func TestLimiter_refusesAfterBurst(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := limiter(t, c)
	if got := takes(t, l, 12, always("192.0.2.1")); got != 10 {
		t.Fatalf("got %d of 12, want 10", got)
	}
	if _, wait, ok := take(t, l, netip.MustParseAddr("192.0.2.1")); ok || wait != 6*time.Second {
		t.Errorf("got %v, wait %s, want refused for 6s", ok, wait)
	}
	c.Add(4500 * time.Millisecond)
	if _, wait, ok := take(t, l, netip.MustParseAddr("192.0.2.1")); ok || wait != 1500*time.Millisecond {
		t.Errorf("got %v, wait %s, want refused for 1.5s more", ok, wait)
	}
	c.Add(1500 * time.Millisecond)
	if got := takes(t, l, 2, always("192.0.2.1")); got != 1 {
		t.Errorf("after 6s: got %d, want 1", got)
	}
	if got := takes(t, l, 1, always("192.0.2.2")); got != 1 {
		t.Error("a neighbour was refused")
	}
	c.Add(time.Hour)
	if got := takes(t, l, 12, always("192.0.2.1")); got != 10 {
		t.Errorf("after an hour: got %d, want 10", got)
	}
}

// RL-04.
func TestLimiter_spellingsOfOneAddressShareABucket(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		addresses []netip.Addr
	}{
		{"IPv4-mapped", []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:127.0.0.1")}},
		{"loopback, long", []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("0:0:0:0:0:0:0:1")}},
		{"zones", []netip.Addr{netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("fe80::1%1")}},
		{"invalid", []netip.Addr{{}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := limiter(t, newClock())
			got := takes(t, l, 30, func(i int) netip.Addr { return test.addresses[i%len(test.addresses)] })
			if got != 10 {
				t.Errorf("got %d of 30, want 10", got)
			}
		})
	}
}

// RL-05: a line gets a /64 or a /48, so a new address of it buys nothing.
func TestLimiter_prefixesBoundIPv6(t *testing.T) {
	t.Parallel()
	base := netip.MustParseAddr("2001:db8:1::").As16()
	within64 := func(i int) netip.Addr {
		a := base
		a[14], a[15] = byte(i>>8), byte(i)
		return netip.AddrFrom16(a)
	}
	within48 := func(i int) netip.Addr {
		a := base
		a[6], a[7] = byte(i>>8), byte(i)
		return netip.AddrFrom16(a)
	}
	c := newClock()
	l := limiter(t, c)
	if got := takes(t, l, 1000, within64); got != 10 {
		t.Errorf("within a /64: got %d, want 10", got)
	}
	c.Add(time.Hour)
	if got := takes(t, l, 1000, within48); got != 40 {
		t.Errorf("within a /48: got %d, want 40", got)
	}
	// The /64s that the /48 refused kept their tokens: once it has some again, each still has its own ten.
	c.Add(60 * time.Second)
	if got := takes(t, l, 20, always("2001:db8:1:ff::1")); got != 10 {
		t.Errorf("a /64 refused by its /48 before: got %d, want 10", got)
	}
	if got := takes(t, l, 5, always("2001:db8:2::1")); got != 5 {
		t.Errorf("another /48: got %d, want 5", got)
	}
}

func TestLimiter_floodFromOne64LeavesItsNeighboursAlone(t *testing.T) {
	t.Parallel()
	l := limiter(t, newClock())
	takes(t, l, 150, always("2001:db8:1:1::1"))
	if got := takes(t, l, 20, always("2001:db8:1:2::1")); got != 10 {
		t.Errorf("got %d, want 10", got)
	}
}

// RL-12: thirty people behind one address, ten at a time, each right.
func TestLimiter_rightLoginsBehindOneAddressAreNeverRefused(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"192.0.2.1", "2001:db8::1"} {
		l := limiter(t, newClock())
		people := make(chan struct{}, 10)
		var group sync.WaitGroup
		for range 30 {
			people <- struct{}{}
			group.Go(func() {
				defer func() { <-people }()
				token, err := l.Take(t.Context(), netip.MustParseAddr(address))
				if err != nil {
					t.Errorf("%s: %v", address, err)
					return
				}
				if err := l.GiveBack(t.Context(), token); err != nil {
					t.Errorf("%s: %v", address, err)
				}
			})
		}
		group.Wait()
	}
}

func TestLimiter_givingBackNeverMakesABucketLarger(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := limiter(t, c)
	token, _, _ := take(t, l, netip.MustParseAddr("192.0.2.1"))
	c.Add(time.Hour) // full again by itself
	if err := l.GiveBack(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if got := takes(t, l, 20, always("192.0.2.1")); got != 10 {
		t.Errorf("got %d, want 10", got)
	}
	if err := l.GiveBack(t.Context(), ratelimit.Token{}); err != nil {
		t.Errorf("the zero token: %v", err)
	}
}

func TestLimiter_givesBackToTheLocalLineToo(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := ratelimit.New(ratelimit.Options{Counters: bolt(t, c), Now: c.Now, Burst: 1000, LocalBurst: 5})
	for i := range 50 {
		token, err := l.Take(t.Context(), netip.MustParseAddr("192.0.2.1"))
		if err != nil {
			t.Fatalf("take %d: %v", i, err)
		}
		c.Add(10 * time.Millisecond)
		if err := l.GiveBack(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	if got := takes(t, l, 20, always("192.0.2.1")); got != 5 {
		t.Errorf("got %d, want 5: the local line refuses what the bucket would give", got)
	}
}

// A clock that was a year ahead must not empty a bucket for a year, and one that is a little behind must not fill it.
func TestLimiter_clockThatWasAhead(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := ratelimit.New(ratelimit.Options{Counters: twice{bolt(t, c)}, Now: c.Now})
	takes(t, l, 10, always("192.0.2.1"))
	c.Add(-20 * time.Second)
	if got := takes(t, l, 5, always("192.0.2.1")); got != 0 {
		t.Errorf("20s back: got %d tokens, want none", got)
	}
	c.Add(365 * 24 * time.Hour)
	takes(t, l, 10, always("192.0.2.1"))
	c.Add(-365 * 24 * time.Hour)
	if _, wait, ok := take(t, l, netip.MustParseAddr("192.0.2.1")); ok || wait != 6*time.Second {
		t.Errorf("a year back: got %v, wait %s, want an empty bucket", ok, wait)
	}
	c.Add(6 * time.Second)
	if got := takes(t, l, 3, always("192.0.2.1")); got != 1 {
		t.Errorf("6s later: got %d, want 1", got)
	}
}

// twice does every correction twice, as two gateways would that find the same wrong time at once.
type twice struct{ store.Counters }

func (w twice) Advance(ctx context.Context, key store.CounterKey, floor, step, ceil int64, keep time.Duration) (int64, bool, error) {
	if step < 0 {
		if value, ok, err := w.Counters.Advance(ctx, key, floor, step, ceil, keep); err != nil {
			return value, ok, err
		}
	}
	return w.Counters.Advance(ctx, key, floor, step, ceil, keep)
}

// Two gateways whose clocks differ by less than the leeway must not each correct what the other wrote: that would be a spring
// of tokens.
func TestLimiter_gatewaysWithDifferentClocksGiveNoMore(t *testing.T) {
	t.Parallel()
	behind, ahead := newClock(), newClock()
	ahead.Add(20 * time.Second)
	engine := bolt(t, behind)
	slow := ratelimit.New(ratelimit.Options{Counters: engine, Now: behind.Now})
	fast := ratelimit.New(ratelimit.Options{Counters: engine, Now: ahead.Now})
	got := 0
	for range 20 {
		got += takes(t, fast, 5, always("192.0.2.1")) + takes(t, slow, 5, always("192.0.2.1"))
	}
	if got != 10 {
		t.Errorf("got %d tokens, want 10", got)
	}
}

// away is a store that does not answer.
type away struct{ store.Counters }

func (away) Advance(context.Context, store.CounterKey, int64, int64, int64, time.Duration) (int64, bool, error) {
	return 0, false, store.ErrUnavailable
}

func TestLimiter_storeThatIsAwayIsAnErrorAndNoPass(t *testing.T) {
	t.Parallel()
	l := ratelimit.New(ratelimit.Options{Counters: away{}, Now: newClock().Now})
	if _, err := l.Take(t.Context(), netip.MustParseAddr("192.0.2.1")); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// free is a store that gives everything, to measure the local line alone.
type free struct{ calls atomic.Int64 }

func (f *free) Advance(context.Context, store.CounterKey, int64, int64, int64, time.Duration) (int64, bool, error) {
	f.calls.Add(1)
	return 0, true, nil
}
func (*free) Peek(context.Context, store.CounterKey) (int64, bool, error) { return 0, false, nil }
func (*free) Reset(context.Context, store.CounterKey) error               { return nil }

func TestLimiter_localLineKeepsAFloodFromTheStore(t *testing.T) {
	t.Parallel()
	var counters free
	l := ratelimit.New(ratelimit.Options{Counters: &counters, Now: newClock().Now})
	if got := takes(t, l, 5000, always("192.0.2.1")); got != 200 || counters.calls.Load() != 200 {
		t.Errorf("got %d taken and %d calls, want 200", got, counters.calls.Load())
	}
}

// RX-04: a million addresses in a million /64s.
func TestLimiter_memoryDoesNotGrowWithAddresses(t *testing.T) {
	var counters free
	l := ratelimit.New(ratelimit.Options{Counters: &counters, Now: newClock().Now})
	before := heap()
	a := netip.MustParseAddr("2001:db8::1").As16()
	for i := range 1 << 20 {
		a[4], a[5], a[6], a[7] = byte(i>>16), byte(i>>8), byte(i), byte(i>>4)
		_, _ = l.Take(t.Context(), netip.AddrFrom16(a))
	}
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("got %d bytes more, want at most 1 MiB", grown)
	}
	runtime.KeepAlive(l)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// bucket is a token bucket as it is usually told: so many tokens, one more at each interval, never more than the burst.
type bucket struct {
	level, burst, interval int64 // level in tokens × interval
	at                     int64 // microseconds
}

func (b *bucket) refill(now int64) {
	b.level = min(b.level+now-b.at, b.burst*b.interval)
	b.at = now
}

func TestLimiter_agreesWithATokenBucket(t *testing.T) {
	c := newClock()
	engine := bolt(t, c)
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		address := netip.AddrFrom4([4]byte{10, byte(round >> 16), byte(round >> 8), byte(round)})
		burst := rapid.IntRange(1, 12).Draw(t, "burst")
		interval := time.Duration(rapid.IntRange(1, 10_000_000).Draw(t, "interval")) * time.Microsecond
		l := ratelimit.New(ratelimit.Options{
			Counters: engine, Now: c.Now, Burst: burst, Interval: interval, LocalRate: math.MaxInt32, LocalBurst: math.MaxInt32,
		})
		b := bucket{burst: int64(burst), interval: interval.Microseconds(), at: c.Now().UnixMicro()}
		b.level = b.burst * b.interval
		var tokens []ratelimit.Token
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				b.refill(c.Now().UnixMicro())
				want := "taken"
				if b.level >= b.interval {
					b.level -= b.interval
				} else {
					want = fmt.Sprint("refused for ", time.Duration(b.interval-b.level)*time.Microsecond)
				}
				token, err := l.Take(t.Context(), address)
				got := "taken"
				if limited, ok := errors.AsType[*ratelimit.LimitedError](err); ok {
					got = fmt.Sprint("refused for ", limited.RetryAfter)
				} else if err != nil {
					t.Fatal(err)
				} else {
					tokens = append(tokens, token)
				}
				if got != want {
					t.Fatalf("got %s, want %s", got, want)
				}
			},
			"give back": func(t *rapid.T) {
				if len(tokens) == 0 {
					t.Skip("nothing taken")
				}
				if err := l.GiveBack(t.Context(), tokens[0]); err != nil {
					t.Fatal(err)
				}
				tokens = tokens[1:]
				b.refill(c.Now().UnixMicro())
				b.level = min(b.level+b.interval, b.burst*b.interval)
			},
			"wait": func(t *rapid.T) {
				steps := []time.Duration{time.Microsecond, interval / 3, interval, 2*interval - 1, time.Duration(burst) * interval, time.Hour}
				c.Add(rapid.SampledFrom(steps).Draw(t, "wait"))
			},
		})
	})
}

func BenchmarkLimiter_takeLocal(b *testing.B) {
	var counters free
	l := ratelimit.New(ratelimit.Options{
		Counters: &counters, Now: newClock().Now, LocalRate: math.MaxInt32, LocalBurst: math.MaxInt32,
	})
	for _, address := range []string{"192.0.2.1", "2001:db8::1"} {
		a := netip.MustParseAddr(address)
		b.Run("given "+address, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = l.Take(b.Context(), a)
			}
		})
	}
	flooded := ratelimit.New(ratelimit.Options{Counters: &counters, Now: newClock().Now, LocalBurst: 1})
	a := netip.MustParseAddr("192.0.2.1")
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = flooded.Take(b.Context(), a)
		}
	})
}
