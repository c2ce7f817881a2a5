package boltstore

import (
	"context"
	"encoding/binary"
	"time"

	"go.etcd.io/bbolt"

	"gatehouse/store"
)

// counter is the stored form of a counter.
type counter struct {
	value int64
	keep  int64 // until when it must be kept, in microseconds since 1970; 0 for ever
}

func (c counter) encode() []byte {
	return binary.BigEndian.AppendUint64(number(uint64(c.value)), uint64(c.keep))
}

// decodeCounter reads a counter; false if there is none.
func decodeCounter(b []byte) (counter, bool, error) {
	if b == nil {
		return counter{}, false, nil
	}
	if len(b) != 16 {
		return counter{}, false, errEntry
	}
	return counter{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}, true, nil
}

// Advance implements store.Counters.
func (s *Store) Advance(ctx context.Context, key store.CounterKey, floor, step, ceil int64, keep time.Duration) (int64, bool, error) {
	if err := store.CheckAdvance(key, floor, step, ceil); err != nil {
		return 0, false, err
	}
	var value int64
	var ok bool
	err := s.write(ctx, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketCounters)
		old, found, err := decodeCounter(b.Get([]byte(key)))
		if err != nil {
			return err
		}
		value = floor
		if found {
			value = max(old.value, floor)
		}
		if ok = step < 0 || value+step <= ceil; !ok {
			return nil
		}
		value = max(value+step, -store.MaxCounter)
		return b.Put([]byte(key), counter{value, keepUntil(s.now(), keep)}.encode())
	})
	if err != nil {
		return 0, false, err
	}
	return value, ok, nil
}

// keepUntil is when forgetting begins to be harmless.
func keepUntil(now time.Time, keep time.Duration) int64 {
	if keep == store.Forever {
		return 0
	}
	return max(now.Add(keep).UnixMicro(), 1)
}

// Peek implements store.Counters.
func (s *Store) Peek(ctx context.Context, key store.CounterKey) (int64, bool, error) {
	var c counter
	var found bool
	err := s.read(ctx, func(tx *bbolt.Tx) (err error) {
		c, found, err = decodeCounter(tx.Bucket(bucketCounters).Get([]byte(key)))
		return err
	})
	if err != nil {
		return 0, false, err
	}
	return c.value, found, nil
}

// Reset implements store.Counters.
func (s *Store) Reset(ctx context.Context, key store.CounterKey) error {
	return s.write(ctx, func(tx *bbolt.Tx) error { return tx.Bucket(bucketCounters).Delete([]byte(key)) })
}
