package redisstore

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/store"
)

// advanceScript: floor, step, ceil, time to live in ms (0 none), smallest value. Numbers travel as text because an integer
// reply of Lua is fine but its own text form of a large number is not ("%.0f" is exact up to 2^53).
var advanceScript = redis.NewScript(`
local floor, step, ceil = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local value = floor
local old = redis.call('GET', KEYS[1])
if old then
  if #old > 17 or not string.match(old, '^%-?%d+$') then return redis.error_reply('GATEHOUSE not a counter') end
  value = math.max(tonumber(old), floor)
end
if step >= 0 and value + step > ceil then return {0, string.format('%.0f', value)} end
value = string.format('%.0f', math.max(value + step, tonumber(ARGV[5])))
if ARGV[4] == '0' then redis.call('SET', KEYS[1], value) else redis.call('SET', KEYS[1], value, 'PX', ARGV[4]) end
return {1, value}
`)

// Advance implements store.Counters.
func (s *Store) Advance(ctx context.Context, key store.CounterKey, floor, step, ceil int64, keep time.Duration) (int64, bool, error) {
	if err := store.CheckAdvance(key, floor, step, ceil); err != nil {
		return 0, false, err
	}
	answer, err := s.script(ctx, advanceScript, counterName(key), s.confirmations(step, keep), floor, step, ceil, keepMillis(keep),
		-store.MaxCounter)
	if err != nil {
		return 0, false, err
	}
	pair, ok := answer.([]any)
	if !ok || len(pair) != 2 {
		return 0, false, unavailable(errShape)
	}
	done, ok := pair[0].(int64)
	text, isText := pair[1].(string)
	if !ok || !isText {
		return 0, false, unavailable(errShape)
	}
	value, err := parseCounter(text)
	return value, done == 1 && err == nil, err
}

// confirmations is how many replicas must have a step. What is kept for ever says that something was used, and must not be
// forgotten; what ends by itself is an address's bucket, of which a failover gives back one burst at most.
func (s *Store) confirmations(step int64, keep time.Duration) int {
	if step < 0 || keepMillis(keep) != 0 {
		return 0
	}
	return s.replicas
}

// keepMillis is the time to live of a counter; 0 is for ever.
func keepMillis(keep time.Duration) int64 {
	if keep > store.Forever-store.GarbageMargin {
		return 0
	}
	return (max(keep, 0) + store.GarbageMargin).Milliseconds()
}

func counterName(key store.CounterKey) string { return store.Prefix + string(key) }

// parseCounter reads a stored value.
func parseCounter(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > store.MaxCounter || n < -store.MaxCounter {
		return 0, unavailable(errShape)
	}
	return n, nil
}

// Peek implements store.Counters.
func (s *Store) Peek(ctx context.Context, key store.CounterKey) (int64, bool, error) {
	name := counterName(key)
	text, err := read(ctx, s, name, func(ctx context.Context, c redis.Cmdable) *redis.StringCmd { return c.Get(ctx, name) })
	if errors.Is(err, redis.Nil) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	value, err := parseCounter(text)
	return value, err == nil, err
}

// Reset implements store.Counters. A reset that a failover undoes leaves the counter higher than it should be.
func (s *Store) Reset(ctx context.Context, key store.CounterKey) error {
	name := counterName(key)
	return s.limit(ctx, func(ctx context.Context) error {
		return s.run(ctx, name, 0, func(c redis.Cmdable) redis.Cmder { return c.Del(ctx, name) })
	})
}
