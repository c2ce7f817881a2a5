package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Sealer encrypts and authenticates. Implementations are safe for concurrent use.
type Sealer interface {
	// Seal returns plaintext in a form that only Open of the same keys opens, and only with the same additional data.
	Seal(plaintext, additional []byte) ([]byte, error)
	// Open is the inverse of Seal. It returns an error for anything that Seal did not make.
	Open(sealed, additional []byte) ([]byte, error)
}

// SealRecords seals the values that go into records and opens those that come out. A value is bound to its collection, its
// ID and its expiry, so that somebody who can write to the engine can neither forge a record, nor move one to another key,
// nor let it live longer. Putting an older value of the same key back, while that has not expired, is not noticed.
//
// Get and Update return ErrSealed for a record that does not open. List returns the records that open together with an
// error that is ErrSealed, so that one planted record cannot keep the others from being listed and revoked.
func SealRecords(records Records, sealer Sealer) Records { return sealedRecords{records, sealer} }

type sealedRecords struct {
	Records
	sealer Sealer
}

// The labels keep records and messages apart, which the same sealer may seal.
const (
	recordLabel  = "gatehouse record"
	messageLabel = "gatehouse message"
)

// additionalOf binds a value to its place. Each part is preceded by its length, so that no two places read the same.
func additionalOf(key Key, expires time.Time) []byte {
	var b []byte
	for _, part := range []string{recordLabel, string(key.Collection), key.ID} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return binary.BigEndian.AppendUint64(b, uint64(Micros(expires))) // as engines keep it
}

// Get implements Records.
func (s sealedRecords) Get(ctx context.Context, key Key) (Record, error) {
	r, err := s.Records.Get(ctx, key)
	if err != nil {
		return Record{}, err
	}
	return s.open(r)
}

func (s sealedRecords) open(r Record) (Record, error) {
	value, err := s.sealer.Open(r.Value, additionalOf(r.Key, r.Expires))
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w: %w", r.Key, ErrSealed, err)
	}
	r.Value = value
	return r, nil
}

// Put implements Records.
func (s sealedRecords) Put(ctx context.Context, key Key, value []byte, version uint64, expires time.Time) (uint64, error) {
	sealed, err := s.sealer.Seal(value, additionalOf(key, expires))
	if err != nil {
		return 0, fmt.Errorf("seal %s: %w", key, err)
	}
	return s.Records.Put(ctx, key, sealed, version, expires)
}

// List implements Records.
func (s sealedRecords) List(ctx context.Context, collection Collection) ([]Record, error) {
	found, err := s.Records.List(ctx, collection)
	if err != nil {
		return nil, err
	}
	var opened []Record
	var errs []error
	for _, r := range found {
		if r, err = s.open(r); err != nil {
			errs = append(errs, err)
		} else {
			opened = append(opened, r)
		}
	}
	return opened, errors.Join(errs...)
}

// SealFeed seals the messages that go into feed and opens those that come out. Who can write to the engine can repeat or
// leave out messages, but not make one up.
//
// A message that does not open is a gap: Read then returns no messages, the cursor behind what it read, and an error that
// is both ErrGap and ErrSealed.
func SealFeed(feed Feed, sealer Sealer) Feed { return sealedFeed{feed, sealer} }

type sealedFeed struct {
	Feed
	sealer Sealer
}

// Publish implements Feed.
func (s sealedFeed) Publish(ctx context.Context, message []byte) (uint64, error) {
	sealed, err := s.sealer.Seal(message, []byte(messageLabel))
	if err != nil {
		return 0, fmt.Errorf("seal message: %w", err)
	}
	return s.Feed.Publish(ctx, sealed)
}

// Read implements Feed.
func (s sealedFeed) Read(ctx context.Context, after Cursor, wait time.Duration) ([]Message, Cursor, error) {
	messages, next, err := s.Feed.Read(ctx, after, wait)
	if err != nil {
		return nil, next, err
	}
	for i, m := range messages {
		if messages[i].Value, err = s.sealer.Open(m.Value, []byte(messageLabel)); err != nil {
			return nil, next, fmt.Errorf("message %d: %w: %w: %w", m.Number, ErrGap, ErrSealed, err)
		}
	}
	return messages, next, nil
}
