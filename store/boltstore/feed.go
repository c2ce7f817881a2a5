package boltstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"gatehouse/store"
)

const (
	// maxMessages is how many messages one Read returns.
	maxMessages = 256
	// maxTrim bounds what one Publish removes: more than it adds, so the feed stays as long as its retention.
	maxTrim = 64
	// tagSize is the length of a tag: rand.Text, 128 bits in base32.
	tagSize = 26
)

// entry is the stored form of a message. It repeats the tag of the message before it, so that a reader is told of a feed
// that lost messages and numbered new ones alike, even after the message it read last was trimmed.
type entry struct {
	at       int64 // when it was published, in microseconds since 1970
	tag      string
	previous string // the tag before; empty before the first
	value    []byte
}

func (e entry) encode() []byte {
	b := append(number(uint64(e.at)), e.tag...)
	b = append(b, byte(len(e.previous)))
	return append(append(b, e.previous...), e.value...)
}

// decodeEntry returns an entry whose value is still part of the file.
func decodeEntry(b []byte) (entry, error) {
	if len(b) < 8+tagSize+1 {
		return entry{}, errEntry
	}
	e := entry{at: int64(binary.BigEndian.Uint64(b)), tag: string(b[8 : 8+tagSize])}
	n, rest := int(b[8+tagSize]), b[8+tagSize+1:]
	if n > len(rest) {
		return entry{}, errEntry
	}
	e.previous, e.value = string(rest[:n]), rest[n:]
	return e, nil
}

// Publish implements store.Feed.
func (s *Store) Publish(ctx context.Context, message []byte) (uint64, error) {
	if err := store.CheckSize(message); err != nil {
		return 0, err
	}
	e := entry{tag: rand.Text(), value: bytes.Clone(message)}
	var published uint64
	err := s.write(ctx, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketFeed)
		last, err := tail(b)
		if err != nil {
			return err
		}
		e.at, e.previous, published = s.now().UnixMicro(), last.Tag, last.Number+1
		if err := b.Put(number(published), e.encode()); err != nil {
			return err
		}
		tx.OnCommit(s.signal.wake)
		return trim(b, s.now().Add(-store.FeedRetention).UnixMicro())
	})
	if err != nil {
		return 0, err
	}
	return published, nil
}

// trim removes what was published before the given time, never the newest message: its number and tag are what the next
// one continues.
func trim(b *bbolt.Bucket, before int64) error {
	c := b.Cursor()
	newest, _ := c.Last()
	for range maxTrim {
		k, v := c.First()
		if bytes.Equal(k, newest) {
			return nil
		}
		e, err := decodeEntry(v)
		if err != nil || e.at >= before {
			return err
		}
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// Tail implements store.Feed.
func (s *Store) Tail(ctx context.Context) (store.Cursor, error) {
	var last store.Cursor
	err := s.read(ctx, func(tx *bbolt.Tx) (err error) {
		last, err = tail(tx.Bucket(bucketFeed))
		return err
	})
	return last, err
}

// tail is the cursor behind the newest message.
func tail(b *bbolt.Bucket) (store.Cursor, error) {
	k, v := b.Cursor().Last()
	if k == nil {
		return store.Cursor{}, nil
	}
	e, err := decodeEntry(v)
	if err != nil || len(k) != 8 {
		return store.Cursor{}, errEntry
	}
	return store.Cursor{Number: binary.BigEndian.Uint64(k), Tag: e.tag}, nil
}

// Read implements store.Feed.
func (s *Store) Read(ctx context.Context, after store.Cursor, wait time.Duration) ([]store.Message, store.Cursor, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		woken := s.signal.next() // taken before looking, so that nothing published in between is slept through
		messages, next, err := s.readNow(ctx, after)
		if err != nil || len(messages) > 0 || wait <= 0 {
			return messages, next, err
		}
		select {
		case <-woken:
		case <-timer.C:
			return nil, after, nil
		case <-ctx.Done():
			return nil, after, unavailable(ctx.Err())
		case <-s.ended:
			return nil, after, unavailable(errClosed)
		}
	}
}

// readNow reads without waiting.
func (s *Store) readNow(ctx context.Context, after store.Cursor) ([]store.Message, store.Cursor, error) {
	var messages []store.Message
	next, gap := after, false
	err := s.read(ctx, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketFeed)
		last, err := tail(b)
		if gap = last.Number < after.Number || last.Number == after.Number && last.Tag != after.Tag; gap || err != nil {
			return err
		}
		c := b.Cursor()
		for k, v := c.Seek(number(after.Number + 1)); k != nil && len(messages) < maxMessages; k, v = c.Next() {
			e, err := decodeEntry(v)
			if err != nil || len(k) != 8 {
				return errEntry
			}
			n := binary.BigEndian.Uint64(k)
			if gap = n != next.Number+1 || e.previous != next.Tag; gap {
				return nil
			}
			messages = append(messages, store.Message{Number: n, Value: append([]byte{}, e.value...)})
			next = store.Cursor{Number: n, Tag: e.tag}
		}
		return nil
	})
	if err != nil {
		return nil, after, err
	}
	if gap {
		return nil, after, store.ErrGap
	}
	return messages, next, nil
}

// signal wakes everybody who waits, without counting them.
type signal struct {
	mu sync.Mutex
	ch chan struct{} // guarded by mu; closed and replaced by wake
}

func newSignal() signal { return signal{ch: make(chan struct{})} }

func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ch
}

func (s *signal) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ch)
	s.ch = make(chan struct{})
}
