package boltstore

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"gatehouse/store"
)

// maxGroup bounds how many writes share a commit.
const maxGroup = 256

// write is one caller's change, waiting to be committed.
type write struct {
	ctx  context.Context
	do   func(*bbolt.Tx) error // an error is a fault of the file and fails the whole group
	done chan error            // holds one, so that the writer never waits for a caller who left
}

// write hands do to the writer and waits until it is on disk. What do finds out it leaves in variables of the caller, who
// may read them only if write returns nil: otherwise the writer may still be at them.
func (s *Store) write(ctx context.Context, do func(*bbolt.Tx) error) error {
	w := &write{ctx: ctx, do: do, done: make(chan error, 1)}
	if ctx.Err() != nil {
		return unavailable(ctx.Err())
	}
	select {
	case s.queue <- w:
	case <-s.ended:
		return unavailable(errClosed)
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done(): // whether the commit that is under way holds the change is unknown
		return unavailable(ctx.Err())
	}
}

// writer commits, until the store closes. While one group is being synced the next one gathers in front of the queue, so
// a lone writer waits for nobody and many share a sync.
func (s *Store) writer() {
	defer close(s.ended)
	for {
		select {
		case w := <-s.queue:
			s.commit(s.gather(w))
		case <-s.closing:
			return
		}
	}
}

// gather adds everybody who waits already.
func (s *Store) gather(first *write) []*write {
	group := []*write{first}
	for len(group) < maxGroup {
		select {
		case w := <-s.queue:
			group = append(group, w)
		default:
			return group
		}
	}
	return group
}

// commit writes a group in one transaction and answers each caller. Callers who left before the transaction began have
// changed nothing.
func (s *Store) commit(group []*write) {
	answers := make([]error, len(group))
	err := s.guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			for i, w := range group {
				if err := w.ctx.Err(); err != nil {
					answers[i] = unavailable(err)
				} else if err := w.do(tx); err != nil {
					return err
				}
			}
			return s.hands.move(tx, s.now(), len(group))
		})
	})
	for i, w := range group {
		if err != nil {
			w.done <- err
		} else {
			w.done <- answers[i]
		}
	}
}

// read runs do over a consistent state of the file. Nothing that do was given may be kept.
func (s *Store) read(ctx context.Context, do func(*bbolt.Tx) error) error {
	if ctx.Err() != nil {
		return unavailable(ctx.Err())
	}
	return s.guard(func() error { return s.db.View(do) })
}

// guard turns every fault of the file into ErrUnavailable. A panic of bbolt, or a read beyond the file, means that the
// file is damaged: from then on nothing is answered, because what else is damaged cannot be known.
func (s *Store) guard(do func() error) (err error) {
	if cause := s.damage.Load(); cause != nil {
		return unavailable(*cause)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			cause := fmt.Errorf("the store file is damaged: %v", p)
			s.damage.CompareAndSwap(nil, &cause)
			err = unavailable(cause)
		}
	}()
	if err := do(); err != nil {
		return unavailable(err)
	}
	return nil
}

// errClosed is the cause of every answer after Close.
var errClosed = errors.New("the store is closed")

// unavailable says that the engine cannot answer, and why.
func unavailable(cause error) error {
	return fmt.Errorf("%w: %w", store.ErrUnavailable, cause)
}
