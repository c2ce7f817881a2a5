package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/store"
)

// Records counts and measures what is asked of them.
func (m *Metrics) Records(of store.Records) store.Records {
	return records{of, m.trip("get"), m.trip("put"), m.trip("delete"), m.trip("list")}
}

// Counters counts and measures what is asked of them.
func (m *Metrics) Counters(of store.Counters) store.Counters {
	return counters{of, m.trip("advance"), m.trip("peek"), m.trip("reset")}
}

// Feed counts and measures what is asked of it, but for Read, which waits for messages.
func (m *Metrics) Feed(of store.Feed) store.Feed { return feed{of, m.trip("publish"), m.trip("tail")} }

// trip measures one operation.
type trip struct {
	elapsed func() time.Duration
	took    prometheus.Observer
	failed  prometheus.Counter
}

func (m *Metrics) trip(operation string) trip {
	return trip{m.elapsed, m.storeTime.WithLabelValues(operation), m.storeErrors.WithLabelValues(operation)}
}

// begin returns what to call with the error when the operation is over. That something is not there, or was changed by somebody else, is
// an answer and no failure.
func (t trip) begin() func(error) {
	began := t.elapsed()
	return func(err error) {
		t.took.Observe((t.elapsed() - began).Seconds())
		if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) {
			t.failed.Inc()
		}
	}
}

type records struct {
	store.Records
	get, put, remove, list trip
}

// Get implements store.Records.
func (r records) Get(ctx context.Context, key store.Key) (store.Record, error) {
	end := r.get.begin()
	record, err := r.Records.Get(ctx, key)
	end(err)
	return record, err
}

// Put implements store.Records.
func (r records) Put(ctx context.Context, key store.Key, value []byte, version uint64, expires time.Time) (uint64, error) {
	end := r.put.begin()
	written, err := r.Records.Put(ctx, key, value, version, expires)
	end(err)
	return written, err
}

// Delete implements store.Records.
func (r records) Delete(ctx context.Context, key store.Key, version uint64) error {
	end := r.remove.begin()
	err := r.Records.Delete(ctx, key, version)
	end(err)
	return err
}

// List implements store.Records.
func (r records) List(ctx context.Context, collection store.Collection) ([]store.Record, error) {
	end := r.list.begin()
	all, err := r.Records.List(ctx, collection)
	end(err)
	return all, err
}

type counters struct {
	store.Counters
	advance, peek, reset trip
}

// Advance implements store.Counters.
func (c counters) Advance(ctx context.Context, key store.CounterKey, floor, step, ceil int64, keep time.Duration) (int64, bool, error) {
	end := c.advance.begin()
	value, ok, err := c.Counters.Advance(ctx, key, floor, step, ceil, keep)
	end(err)
	return value, ok, err
}

// Peek implements store.Counters.
func (c counters) Peek(ctx context.Context, key store.CounterKey) (int64, bool, error) {
	end := c.peek.begin()
	value, ok, err := c.Counters.Peek(ctx, key)
	end(err)
	return value, ok, err
}

// Reset implements store.Counters.
func (c counters) Reset(ctx context.Context, key store.CounterKey) error {
	end := c.reset.begin()
	err := c.Counters.Reset(ctx, key)
	end(err)
	return err
}

type feed struct {
	store.Feed
	publish, tail trip
}

// Publish implements store.Feed.
func (f feed) Publish(ctx context.Context, message []byte) (uint64, error) {
	end := f.publish.begin()
	number, err := f.Feed.Publish(ctx, message)
	end(err)
	return number, err
}

// Tail implements store.Feed.
func (f feed) Tail(ctx context.Context) (store.Cursor, error) {
	end := f.tail.begin()
	cursor, err := f.Feed.Tail(ctx)
	end(err)
	return cursor, err
}
