// Package ratelimit is the token bucket of each client address, drawn from before any costly work.
//
// It promises: all spellings of one address share one bucket (IPv4-mapped IPv6 is unmapped, a zone is dropped); an IPv4
// address has one bucket, an IPv6 address one for its /64 and one for its /48, so that a whole delegated prefix buys no more
// guesses than one line; an address that cannot be read has a bucket too; a store that does not answer is an error, never a
// free pass; memory is bounded however many addresses come.
//
// The shared buckets follow the generic cell rate algorithm (ITU-T I.371, virtual scheduling): the counter is a time in
// microseconds, at which the bucket will be full again, so that a bucket is one number, advanced in one atomic operation. A
// fixed table of golang.org/x/time/rate limiters in this process stands in front and only keeps a flood from the store.
package ratelimit

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"gatehouse/store"
)

// The defaults: 10 at once and one more every 6 s for an address; 40 at once for an IPv6 /48.
const (
	defaultBurst     = 10
	defaultInterval  = 6 * time.Second
	defaultWideBurst = 40
)

// leeway is how far the clocks of gateways may differ. A stored time further ahead than a full bucket and this was written by
// a clock that was wrong.
const leeway = 30 * time.Second

// Options say how a Limiter counts. Counters and Now are required.
type Options struct {
	Counters store.Counters
	Now      func() time.Time
	// Burst is how many tokens a full bucket of an IPv4 address or IPv6 /64 holds; 0 is 10.
	Burst int
	// Interval is the time in which one token comes back, in every bucket; 0 is 6 s.
	Interval time.Duration
	// WideBurst is how many tokens a full bucket of an IPv6 /48 holds; 0 is 40.
	WideBurst int
	// LocalRate and LocalBurst are the tokens a second and the size of the buckets in this process. They are meant to be far
	// wider than the shared ones; 0 is 50 a second and 200.
	LocalRate  float64
	LocalBurst int
}

// LimitedError says that an address has no token.
type LimitedError struct {
	// RetryAfter is when the next token is there, if nobody else draws it first.
	RetryAfter time.Duration
}

func (e *LimitedError) Error() string {
	return fmt.Sprintf("rate limited: next token in %s", e.RetryAfter)
}

// Token is what Take drew. It is worth one GiveBack. The zero Token is worth nothing.
type Token struct {
	drawn []bucket // from the shared buckets, in the order they were drawn
	local netip.Prefix
}

// Limiter draws and gives back tokens. Safe for concurrent use.
type Limiter struct {
	counters  store.Counters
	now       func() time.Time
	burst     int
	wideBurst int
	interval  time.Duration
	local     *table
}

// New makes a Limiter.
func New(o Options) *Limiter {
	return &Limiter{
		counters:  o.Counters,
		now:       o.Now,
		burst:     orDefault(o.Burst, defaultBurst),
		wideBurst: orDefault(o.WideBurst, defaultWideBurst),
		interval:  orDefault(o.Interval, defaultInterval),
		local:     newTable(orDefault(o.LocalRate, defaultLocalRate), orDefault(o.LocalBurst, defaultLocalBurst)),
	}
}

// Take draws a token for the address from each of its buckets, or none: *LimitedError if one of them is empty, and an error
// of the store if that cannot be decided. Either way the request is to be refused.
func (l *Limiter) Take(ctx context.Context, address netip.Addr) (Token, error) {
	now := l.now()
	buckets := l.buckets(address)
	// The widest prefix, so that fresh /64s of one /48 cannot each bring a bucket of their own past the local line.
	widest := buckets[len(buckets)-1].prefix
	if !l.local.take(widest, now) {
		// What is faster than the local line has an empty shared bucket; its next token is at most an interval away.
		return Token{}, &LimitedError{RetryAfter: l.interval}
	}
	for i, b := range buckets {
		err := l.draw(ctx, b, now)
		if err == nil {
			continue
		}
		// Refused by the /48: the /64 keeps its token, else neighbours could empty it.
		if undo := l.put(ctx, buckets[:i], now); undo != nil {
			return Token{}, undo
		}
		return Token{}, err
	}
	return Token{drawn: buckets, local: widest}, nil
}

// GiveBack returns a token, once, to every bucket that it was drawn from: what was presented was right, or could not be
// looked at. A bucket never holds more than its burst.
func (l *Limiter) GiveBack(ctx context.Context, token Token) error {
	if len(token.drawn) == 0 {
		return nil
	}
	now := l.now()
	l.local.giveBack(token.local, now)
	return l.put(ctx, token.drawn, now)
}

// bucket is one shared bucket of an address.
type bucket struct {
	prefix netip.Prefix
	burst  int
}

// buckets names the buckets of an address, the narrowest first: a flood from one /64 is refused there and costs its
// neighbours in the /48 nothing.
func (l *Limiter) buckets(address netip.Addr) []bucket {
	address = address.Unmap().WithZone("")
	if address.Is6() {
		return []bucket{{masked(address, 64), l.burst}, {masked(address, 48), l.wideBurst}}
	}
	return []bucket{{masked(address, address.BitLen()), l.burst}}
}

// masked is the prefix of an address; of an invalid one the invalid prefix, whose bucket all of them share.
func masked(address netip.Addr, bits int) netip.Prefix {
	prefix, err := address.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// draw takes one token from one shared bucket.
func (l *Limiter) draw(ctx context.Context, b bucket, now time.Time) error {
	at, step := now.UnixMicro(), l.interval.Microseconds()
	full := int64(b.burst) * step
	key := store.BucketKey(b.prefix)
	// After full the counter lies in the past at the latest, and so does one that was forgotten.
	keep := time.Duration(full) * time.Microsecond
	value, ok, err := l.counters.Advance(ctx, key, at, step, at+full, keep)
	if err != nil {
		return fmt.Errorf("draw token of %s: %w", b.prefix, err)
	}
	if ok {
		return nil
	}
	if value > at+full+leeway.Microseconds() {
		// Written by a clock far ahead of ours: without this the bucket would stay empty until that time comes. It becomes
		// an empty bucket of now. With value as the floor, several gateways doing this at once do it once.
		value, _, err = l.counters.Advance(ctx, key, value, at+full-value, at+full, keep)
		if err != nil {
			return fmt.Errorf("correct bucket of %s: %w", b.prefix, err)
		}
	}
	return &LimitedError{RetryAfter: time.Duration(value+step-at-full) * time.Microsecond}
}

// put returns one token to each of the buckets.
func (l *Limiter) put(ctx context.Context, buckets []bucket, now time.Time) error {
	at, step := now.UnixMicro(), l.interval.Microseconds()
	for _, b := range buckets {
		full := int64(b.burst) * step
		// now as the floor: a bucket that has filled up by itself since is full, and stays that.
		_, _, err := l.counters.Advance(ctx, store.BucketKey(b.prefix), at, -step, at+full, time.Duration(full)*time.Microsecond)
		if err != nil {
			return fmt.Errorf("give back token of %s: %w", b.prefix, err)
		}
	}
	return nil
}

// orDefault is value, or fallback where value is zero.
func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
