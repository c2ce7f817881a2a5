// Package store declares where Gatehouse keeps its state: documents with compare-and-swap ([Records]), numbers that
// advance atomically ([Counters]) and an ordered stream of small messages to every gateway ([Feed]).
//
// It promises, for every engine and held by the suite in store/storetest:
//
//   - Expiry is data. It is compared with the clock that the engine was opened with; an engine's own time-to-live only
//     collects garbage, with a margin ([GarbageMargin]).
//   - Values are copies. A context that is done before the call changes nothing.
//   - A write that was acknowledged survives a kill of the process (Redis: with the persistence that its start check asks for).
//   - Every operation touches one key, so a Redis Cluster needs no cross-slot transaction.
//   - Whatever the engine cannot answer is [ErrUnavailable]; callers deny.
//
// keys.go is the only file that spells a key. The package has no other state than what an engine holds.
package store

import (
	"context"
	"errors"
	"time"
)

// Limits that every engine keeps to.
const (
	// MaxValue is the largest value of a record and the largest message of the feed, in bytes, sealing included.
	MaxValue = 1 << 20
	// MaxCounter is the largest absolute value of a counter: Redis computes in IEEE 754 doubles (2^53−1). Counters that
	// hold a time hold microseconds since 1970.
	MaxCounter = 1<<53 - 1
	// GarbageMargin is how much longer than its expiry an engine keeps what has expired, measured by the engine's own clock.
	GarbageMargin = 10 * time.Minute
	// FeedRetention is how long a message of the feed can be read.
	FeedRetention = 15 * time.Minute
	// Forever as the keep of a counter: it is never forgotten, only reset.
	Forever time.Duration = 1<<63 - 1
)

// The errors that callers branch on. Engines wrap them.
var (
	// ErrNotFound: there is no record, or it has expired.
	ErrNotFound = errors.New("record not found")
	// ErrConflict: the record is not at the version that the caller read.
	ErrConflict = errors.New("record changed meanwhile")
	// ErrSealed: the stored bytes do not open with this store's keys and this record's key: they were altered, moved or
	// written by somebody else.
	ErrSealed = errors.New("record cannot be opened")
	// ErrUnavailable: the engine did not answer, is read-only, or is out of space. Whether a write took effect is unknown.
	ErrUnavailable = errors.New("store unavailable")
	// ErrGap: the feed cannot be resumed from the cursor without missing messages.
	ErrGap = errors.New("feed has a gap")
	// ErrTooLarge: a value is over MaxValue.
	ErrTooLarge = errors.New("value too large")
)

// Record is one document. Its Value belongs to whoever holds the Record.
type Record struct {
	Key   Key
	Value []byte
	// Version names this state of the record; it is never 0 and never used again for the same key.
	Version uint64
	// Expires is when the record ends, by the caller's clock; the zero time is never.
	Expires time.Time
}

// Records are documents with compare-and-swap. Safe for concurrent use.
type Records interface {
	// Get returns the record, or ErrNotFound if there is none or it has expired.
	Get(ctx context.Context, key Key) (Record, error)
	// Put writes value if the record is still at version (0: there must be none, or an expired one) and returns the new
	// version. ErrConflict if it is not; ErrTooLarge; the write is durable on return.
	Put(ctx context.Context, key Key, value []byte, version uint64, expires time.Time) (uint64, error)
	// Delete removes the record if it is at version: ErrConflict if it is not, or is gone. Version 0 removes whatever is
	// there and is no error if nothing is. Durable on return.
	Delete(ctx context.Context, key Key, version uint64) error
	// List returns the unexpired records of a collection, ordered by ID. It never scans beyond the collection.
	List(ctx context.Context, collection Collection) ([]Record, error)
}

// Counters are numbers that advance atomically, in one round trip. Safe for concurrent use. Absolute values are at most
// MaxCounter. A counter that was never advanced, or was forgotten, counts as absent: max(c, floor) is then floor.
type Counters interface {
	// Advance sets c = max(c, floor) + step unless that exceeds ceil, and returns the new c and true. If it would exceed
	// ceil nothing is changed and max(c, floor) and false are returned. A negative step gives back and always succeeds.
	// keep is how long, from now, forgetting c could change an answer.
	Advance(ctx context.Context, key CounterKey, floor, step, ceil int64, keep time.Duration) (int64, bool, error)
	// Peek returns the value, and false if there is none.
	Peek(ctx context.Context, key CounterKey) (int64, bool, error)
	// Reset forgets the counter; no error if there is none.
	Reset(ctx context.Context, key CounterKey) error
}

// Cursor is a place in the feed, to be kept by the reader and given back. The zero Cursor is before the first message.
type Cursor struct {
	Number uint64 // of the last message read
	Tag    string // that message's tag: a feed that lost messages and numbered new ones alike is a gap, not a match
}

// Message is one entry of the feed.
type Message struct {
	Number uint64
	Value  []byte
}

// Feed is an ordered, numbered, resumable stream of small messages to every gateway, kept for FeedRetention. Safe for
// concurrent use.
type Feed interface {
	// Publish appends a message and returns its number. Durable on return.
	Publish(ctx context.Context, message []byte) (uint64, error)
	// Read returns up to 256 messages after the cursor and the cursor behind them, waiting up to wait for the first one; none
	// came: no messages, the same cursor, no error. ErrGap if messages after the cursor were already removed or lost.
	Read(ctx context.Context, after Cursor, wait time.Duration) ([]Message, Cursor, error)
	// Tail returns the cursor behind the newest message.
	Tail(ctx context.Context) (Cursor, error)
}

// Update reads the record, lets change compute the new value, and writes it; on ErrConflict it begins again, until ctx is
// done, and then returns ErrUnavailable. change sees a zero Record (Version 0) if there is none; it may run several times
// and must not have effects. An error of change ends Update with that error. A nil value with no error deletes the record.
func Update(ctx context.Context, records Records, key Key, change func(Record) (value []byte, expires time.Time, err error)) error {
	for {
		old, err := records.Get(ctx, key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		value, expires, err := change(old)
		if err != nil {
			return err
		}
		if value == nil && old.Version == 0 {
			return nil
		}
		if value == nil {
			err = records.Delete(ctx, key, old.Version)
		} else {
			_, err = records.Put(ctx, key, value, old.Version, expires)
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(ErrUnavailable, ctx.Err())
		}
	}
}
