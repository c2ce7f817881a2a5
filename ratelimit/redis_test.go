package ratelimit_test

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/ratelimit"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

// Two gateways that share a Redis have one bucket between them, also when they draw at once.
func TestLimiter_gatewaysShareABucketOnRedis(t *testing.T) {
	t.Parallel()
	c := newClock()
	server := storetest.Redis(t)
	var gateways []*ratelimit.Limiter
	for range 2 {
		s, err := redisstore.Open(t.Context(), redisstore.Options{URL: server.URL(), Now: c.Now, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		gateways = append(gateways, ratelimit.New(ratelimit.Options{Counters: s, Now: c.Now}))
	}
	for _, address := range []string{"192.0.2.1", "2001:db8::1"} {
		var given atomic.Int64
		var group sync.WaitGroup
		for i := range 60 {
			group.Go(func() {
				if _, _, ok := take(t, gateways[i%2], netip.MustParseAddr(address)); ok {
					given.Add(1)
				}
			})
		}
		group.Wait()
		if given.Load() != 10 {
			t.Errorf("%s: got %d, want 10", address, given.Load())
		}
	}
	c.Add(-365 * 24 * time.Hour)
	for range 3 { // corrected once, whoever comes first
		for _, l := range gateways {
			if _, wait, ok := take(t, l, netip.MustParseAddr("192.0.2.1")); ok || wait != 6*time.Second {
				t.Errorf("a year back: got %v, wait %s, want an empty bucket", ok, wait)
			}
		}
	}
	c.Add(6 * time.Second)
	if got := takes(t, gateways[0], 3, always("192.0.2.1")); got != 1 {
		t.Errorf("6s later: got %d, want 1", got)
	}
}
