package store

import (
	"fmt"
	"time"
)

// maxKey bounds the parts of a key, far above what keys.go can make of ids and tags.
const maxKey = 1 << 10

// CheckKey refuses keys that engines would treat differently. Engines call it before any write.
func CheckKey(key Key) error {
	if key.ID == "" || len(key.ID) > maxKey || len(key.Collection) > maxKey {
		return fmt.Errorf("key of %d and %d bytes: want 1 to %d", len(key.Collection), len(key.ID), maxKey)
	}
	return nil
}

// CheckSize refuses values and messages that are over MaxValue with ErrTooLarge.
func CheckSize(value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("%d bytes, at most %d: %w", len(value), MaxValue, ErrTooLarge)
	}
	return nil
}

// CheckAdvance refuses arguments of Counters.Advance that a double cannot hold, so that every engine computes the same.
func CheckAdvance(key CounterKey, floor, step, ceil int64) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("counter key of %d bytes: want 1 to %d", len(key), maxKey)
	}
	for _, n := range []int64{floor, step, ceil} {
		if n > MaxCounter || n < -MaxCounter {
			return fmt.Errorf("advance %s: %d is beyond ±%d", key, n, int64(MaxCounter))
		}
	}
	return nil
}

// Micros is the form in which engines keep an expiry: microseconds since 1970, 0 for never.
func Micros(expires time.Time) int64 {
	if expires.IsZero() {
		return 0
	}
	return max(expires.UnixMicro(), 1) // what ended before 1970 has ended, and must not read as never
}

// FromMicros is the inverse of Micros.
func FromMicros(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
