package boltstore

import (
	"bytes"
	"context"
	"time"

	"go.etcd.io/bbolt"

	"gatehouse/store"
)

const (
	// perWrite is how many entries of each kind are looked at for each write. A write adds at most one, so what has
	// expired stays a fraction of what is there.
	perWrite = 4
	// perSweep is how many entries of each kind Sweep looks at.
	perSweep = 512
)

// hands go round the file like the hand of a clock and remove what has ended. They start anywhere and remember nothing
// over a restart.
type hands struct {
	record, collection, id, counter []byte // where each looks next
}

// Sweep looks at a bounded number of entries, as writes do, for a store to which nobody writes. It is meant to be called
// about once a minute.
func (s *Store) Sweep(ctx context.Context) error {
	return s.write(ctx, func(tx *bbolt.Tx) error { return s.hands.move(tx, s.now(), perSweep/perWrite) })
}

// move goes on by the given number of writes.
func (h *hands) move(tx *bbolt.Tx, now time.Time, writes int) error {
	n, before := writes*perWrite, now.Add(-store.GarbageMargin).UnixMicro()
	ended := func(raw []byte) (bool, error) {
		d, err := decode(raw)
		return d.expires != 0 && d.expires < before, err
	}
	forgettable := func(raw []byte) (bool, error) {
		c, _, err := decodeCounter(raw)
		return c.keep != 0 && c.keep < before, err
	}
	var err error
	if h.record, _, err = collect(tx.Bucket(bucketRecords), h.record, n, ended); err != nil {
		return err
	}
	if h.counter, _, err = collect(tx.Bucket(bucketCounters), h.counter, n, forgettable); err != nil {
		return err
	}
	return h.moveCollections(tx, n, ended)
}

// moveCollections goes through the collections one after the other; each visit costs at least one of n.
func (h *hands) moveCollections(tx *bbolt.Tx, n int, ended func([]byte) (bool, error)) error {
	all := tx.Bucket(bucketCollections)
	for n > 0 {
		name, _ := all.Cursor().Seek(h.collection)
		if name == nil {
			h.collection, h.id = nil, nil // round; the next write begins again
			return nil
		}
		name = bytes.Clone(name)
		if !bytes.Equal(name, h.collection) {
			h.collection, h.id = name, nil
		}
		b := all.Bucket(name)
		next, looked, err := collect(b, h.id, n, ended)
		if err != nil {
			return err
		}
		if h.id = next; next == nil {
			h.collection = append(bytes.Clone(name), 0) // the next name in order
		}
		if err := dropEmpty(tx, store.Collection(name), b); err != nil {
			return err
		}
		n -= max(looked, 1)
	}
	return nil
}

// collect looks at up to n entries of b from the key given and removes those that ended. It returns where to go on, nil
// for the beginning, and how many it looked at.
func collect(b *bbolt.Bucket, from []byte, n int, ended func([]byte) (bool, error)) (next []byte, looked int, err error) {
	var remove [][]byte
	c := b.Cursor()
	k, v := c.Seek(from)
	for ; k != nil && looked < n; k, v = c.Next() {
		looked++
		over, err := ended(v)
		if err != nil {
			return nil, looked, err
		}
		if over {
			remove = append(remove, bytes.Clone(k))
		}
	}
	next = bytes.Clone(k)
	for _, k := range remove { // not while the cursor is at work: deleting moves it
		if err := b.Delete(k); err != nil {
			return nil, looked, err
		}
	}
	return next, looked, nil
}
