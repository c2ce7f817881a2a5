package boltstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"gatehouse/store"
)

// headerSize is the version and the expiry in front of each value, eight bytes each.
const headerSize = 16

// errEntry is an entry that no version of this package writes.
var errEntry = errors.New("an entry of the store file has the wrong form")

// document is the stored form of a record.
type document struct {
	version uint64
	expires int64 // store.Micros
	value   []byte
}

// expired compares with the caller's clock.
func (d document) expired(now time.Time) bool { return d.expires != 0 && d.expires <= now.UnixMicro() }

// record makes the caller's copy.
func (d document) record(key store.Key) store.Record {
	return store.Record{Key: key, Value: append([]byte{}, d.value...), Version: d.version, Expires: store.FromMicros(d.expires)}
}

func (d document) encode() []byte {
	b := make([]byte, headerSize, headerSize+len(d.value))
	binary.BigEndian.PutUint64(b, d.version)
	binary.BigEndian.PutUint64(b[8:], uint64(d.expires))
	return append(b, d.value...)
}

// decode returns a document whose value is still part of the file.
func decode(b []byte) (document, error) {
	if len(b) < headerSize {
		return document{}, errEntry
	}
	d := document{binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:])), b[headerSize:]}
	if d.version == 0 || d.expires < 0 {
		return document{}, errEntry
	}
	return d, nil
}

// find returns the unexpired document of key, or the zero document.
func find(tx *bbolt.Tx, key store.Key, now time.Time) (document, error) {
	b := bucketOf(tx, key.Collection)
	if b == nil {
		return document{}, nil
	}
	raw := b.Get([]byte(key.ID))
	if raw == nil {
		return document{}, nil
	}
	d, err := decode(raw)
	if err != nil || d.expired(now) {
		return document{}, err
	}
	return d, nil
}

// bucketOf returns where the records of a collection are, or nil if there are none.
func bucketOf(tx *bbolt.Tx, collection store.Collection) *bbolt.Bucket {
	if collection == "" {
		return tx.Bucket(bucketRecords)
	}
	return tx.Bucket(bucketCollections).Bucket([]byte(collection))
}

// Get implements store.Records.
func (s *Store) Get(ctx context.Context, key store.Key) (store.Record, error) {
	var found store.Record
	err := s.read(ctx, func(tx *bbolt.Tx) error {
		d, err := find(tx, key, s.now())
		found = d.record(key)
		return err
	})
	if err != nil {
		return store.Record{}, err
	}
	if found.Version == 0 {
		return store.Record{}, store.ErrNotFound
	}
	return found, nil
}

// Put implements store.Records.
func (s *Store) Put(ctx context.Context, key store.Key, value []byte, version uint64, expires time.Time) (uint64, error) {
	if err := errors.Join(store.CheckKey(key), store.CheckSize(value)); err != nil {
		return 0, err
	}
	d := document{newVersion(), store.Micros(expires), bytes.Clone(value)} // the caller may leave while the writer is at it
	var conflict bool
	err := s.write(ctx, func(tx *bbolt.Tx) error {
		old, err := find(tx, key, s.now())
		if conflict = old.version != version; conflict || err != nil {
			return err
		}
		b := tx.Bucket(bucketRecords)
		if key.Collection != "" {
			b, err = tx.Bucket(bucketCollections).CreateBucketIfNotExists([]byte(key.Collection))
			if err != nil {
				return err
			}
		}
		return b.Put([]byte(key.ID), d.encode())
	})
	if err != nil {
		return 0, err
	}
	if conflict {
		return 0, store.ErrConflict
	}
	return d.version, nil
}

// Delete implements store.Records.
func (s *Store) Delete(ctx context.Context, key store.Key, version uint64) error {
	var conflict bool
	err := s.write(ctx, func(tx *bbolt.Tx) error {
		old, err := find(tx, key, s.now())
		if conflict = version != 0 && old.version != version; conflict || err != nil {
			return err
		}
		b := bucketOf(tx, key.Collection)
		if b == nil {
			return nil
		}
		if err := b.Delete([]byte(key.ID)); err != nil {
			return err
		}
		return dropEmpty(tx, key.Collection, b)
	})
	if err != nil {
		return err
	}
	if conflict {
		return store.ErrConflict
	}
	return nil
}

// dropEmpty removes a collection that has no records left, so that users who went leave nothing.
func dropEmpty(tx *bbolt.Tx, collection store.Collection, b *bbolt.Bucket) error {
	if first, _ := b.Cursor().First(); collection == "" || first != nil {
		return nil
	}
	return tx.Bucket(bucketCollections).DeleteBucket([]byte(collection))
}

// List implements store.Records. bbolt keeps keys in the order of their bytes, which is the order asked for.
func (s *Store) List(ctx context.Context, collection store.Collection) ([]store.Record, error) {
	if collection == "" { // what stands alone is in no collection
		return nil, nil
	}
	var records []store.Record
	err := s.read(ctx, func(tx *bbolt.Tx) error {
		records = nil
		b, now := bucketOf(tx, collection), s.now()
		if b == nil {
			return nil
		}
		return b.ForEach(func(id, raw []byte) error {
			d, err := decode(raw)
			if err == nil && !d.expired(now) {
				records = append(records, d.record(store.Key{Collection: collection, ID: string(id)}))
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return records, nil
}

// newVersion is random, so that a version is never used twice for a key, also not after the record was deleted or the
// file restored from a backup.
func newVersion() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		if v := binary.BigEndian.Uint64(b[:]); v != 0 {
			return v
		}
	}
}
