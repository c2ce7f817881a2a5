package ratelimit

import (
	"hash/maphash"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// The local line: a fixed number of limiters, so that no number of addresses makes it grow (some 350 kB).
const (
	slots             = 4096
	defaultLocalRate  = 50 // tokens a second
	defaultLocalBurst = 200
)

// table is the first, local line in front of the shared buckets. Prefixes share a limiter where their hashes meet; the hash
// has a random seed, so nobody can choose an address that meets a victim's. Safe for concurrent use.
type table struct {
	seed     maphash.Seed
	limiters [slots]*rate.Limiter
}

func newTable(perSecond float64, burst int) *table {
	t := &table{seed: maphash.MakeSeed()}
	for i := range t.limiters {
		t.limiters[i] = rate.NewLimiter(rate.Limit(perSecond), burst)
	}
	return t
}

func (t *table) of(prefix netip.Prefix) *rate.Limiter {
	return t.limiters[maphash.Comparable(t.seed, prefix)%slots]
}

// take draws a token and reports whether there was one.
func (t *table) take(prefix netip.Prefix, now time.Time) bool {
	return t.of(prefix).AllowN(now, 1)
}

// giveBack returns a token. Reservation.Cancel would not: it restores nothing once the time of the event has passed. Taking
// a negative number adds to the bucket, and the limiter itself cuts that to its burst at the next use.
func (t *table) giveBack(prefix netip.Prefix, now time.Time) {
	t.of(prefix).AllowN(now, -1)
}
