// Package boltstore keeps the state of one gateway in one bbolt file, with nothing else to install.
//
// It promises what package store asks of every engine. A write is on disk (fdatasync) before the call returns; writers that
// wait at the same time share one commit. The file is locked: a second process is refused. A file that does not read as a
// whole is refused at Open and never repaired by guessing. A full or read-only disk is store.ErrUnavailable for each call,
// and passes by itself.
//
// Expired records and counters that may be forgotten are collected as other writes go by, a bounded number for each, and by
// Sweep; store.GarbageMargin after their end by the clock given to Open.
package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"gatehouse/store"
)

// The compile-time proof that the engine is whole.
var (
	_ store.Records  = (*Store)(nil)
	_ store.Counters = (*Store)(nil)
	_ store.Feed     = (*Store)(nil)
)

// format is the version of the file's layout. Another one is refused.
const format = 1

// The buckets of the file.
var (
	bucketMeta        = []byte("meta")        // keyFormat, keyChecked
	bucketRecords     = []byte("records")     // records that stand alone: id → header, value
	bucketCollections = []byte("collections") // one bucket each: id → header, value
	bucketCounters    = []byte("counters")    // key → value, until when it must be kept
	bucketFeed        = []byte("feed")        // number → entry

	keyFormat  = []byte("format")
	keyChecked = []byte("checked") // when a check wrote last
)

// Options say how to open a store. Path and Now are required.
type Options struct {
	// Path of the file; created with mode 0600 if there is none.
	Path string
	// Now is the clock that expiries are compared with.
	Now func() time.Time
	// LockTimeout is how long Open waits for another process to let go of the file; 0 is one second.
	LockTimeout time.Duration
}

// Store is an open file. Safe for concurrent use.
type Store struct {
	db   *bbolt.DB
	file *os.File // as bbolt opened it
	now  func() time.Time

	queue   chan *write
	closing chan struct{}
	closed  sync.Once
	ended   chan struct{} // closed when the writer has gone

	hands  hands                 // owned by the writer
	damage atomic.Pointer[error] // set once the file was found damaged: nothing is answered from then on
	signal signal                // wakes readers of the feed
}

// Open opens or creates the file and reads it through once. It returns an error in plain words if another process has
// the file, if the file is damaged, or if it was written by another version.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open store file %s: %w", o.Path, err)
	}
	if o.LockTimeout == 0 {
		o.LockTimeout = time.Second
	}
	s := &Store{
		now:     o.Now,
		queue:   make(chan *write),
		closing: make(chan struct{}),
		ended:   make(chan struct{}),
		signal:  newSignal(),
	}
	if err := s.open(o); err != nil {
		return nil, err
	}
	go s.writer()
	return s, nil
}

// open opens the file and checks it. bbolt panics, or reads beyond its mapping, on pages that make no sense; both end
// here as an error, and the lock is let go.
func (s *Store) open(o Options) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(o.Path, fmt.Errorf("%v", p))
		}
		if err != nil {
			s.letGo()
		}
	}()
	s.db, err = bbolt.Open(o.Path, 0o600, &bbolt.Options{
		Timeout:      o.LockTimeout,
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			s.file = f
			return f, err
		},
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("open store file %s: another process is using it; each data folder serves one gateway", o.Path)
	case s.file == nil || errors.As(err, new(*os.PathError)):
		return fmt.Errorf("open store file: %w", err)
	case err != nil:
		return damaged(o.Path, err)
	}
	if err := s.inspect(); err != nil {
		return damaged(o.Path, err)
	}
	if err := s.prepare(); err != nil {
		return fmt.Errorf("open store file %s: %w", o.Path, err)
	}
	return nil
}

// damaged is the text an operator reads when the file cannot be trusted.
func damaged(path string, cause error) error {
	return fmt.Errorf("store file %s is damaged and was left as it is; restore it from a backup, or move it away to start empty: %w", path, cause)
}

// inspect reads every entry, then lets bbolt account for every page. The walk comes first because it runs on this
// goroutine, where a read beyond the file can be caught.
func (s *Store) inspect() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		if err := tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return walk(b) }); err != nil {
			return err
		}
		var first error
		for err := range tx.Check() { // to the end, or its goroutine stays
			if first == nil {
				first = err
			}
		}
		return first
	})
}

// walk touches every byte under b.
func walk(b *bbolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			return walk(b.Bucket(k))
		}
		_ = crc32.ChecksumIEEE(v)
		return nil
	})
}

// prepare checks the format and makes the buckets, which also proves that the file can be written.
func (s *Store) prepare() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketRecords, bucketCollections, bucketCounters, bucketFeed} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		found := meta.Get(keyFormat)
		if found == nil {
			return meta.Put(keyFormat, number(format))
		}
		if !bytes.Equal(found, number(format)) {
			return fmt.Errorf("its format is %x and this version of Gatehouse reads %d", found, format)
		}
		return nil
	})
}

// Check proves that the store can write, for readiness.
func (s *Store) Check(ctx context.Context) error {
	return s.write(ctx, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keyChecked, number(uint64(s.now().UnixMicro())))
	})
}

// Close waits for the writes that are under way and lets go of the file. Calls that come later get ErrUnavailable.
func (s *Store) Close() error {
	var err error
	s.closed.Do(func() {
		close(s.closing)
		<-s.ended
		if s.damage.Load() != nil {
			s.letGo() // after a panic bbolt's own locks may be held for ever
			return
		}
		err = s.db.Close()
	})
	return err
}

// letGo gives up the file without bbolt's help. Closing alone would not unlock it, because the mapping keeps the file open
// until the process ends. Errors say that there is nothing left to give up.
func (s *Store) letGo() {
	if s.file != nil {
		_ = syscall.Flock(int(s.file.Fd()), syscall.LOCK_UN)
		_ = s.file.Close()
	}
}

// number is how the file spells numbers, so that their order is the order of bytes.
func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
