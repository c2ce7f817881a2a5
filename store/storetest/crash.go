package storetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/store"
)

const (
	crashCounter    = store.CounterKey("crash/counter")
	crashCollection = "crash"
)

// Work writes to s without end, numbering its rounds from first, and prints a line to acknowledged after each write has
// returned. It ends at the first error, which it returns. It runs in the process, or against the server, that is killed;
// [WantAcknowledged] then compares.
func Work(ctx context.Context, s Store, first int, acknowledged io.Writer) error {
	for i := first; ; i++ {
		id := strconv.Itoa(i)
		k := key(crashCollection, id)
		if _, err := s.Put(ctx, k, []byte("value "+id), 0, never); err != nil {
			return err
		}
		fmt.Fprintln(acknowledged, "put", id)
		if i%2 == 0 {
			if err := s.Delete(ctx, k, 0); err != nil {
				return err
			}
			fmt.Fprintln(acknowledged, "delete", id)
		}
		n, _, err := s.Advance(ctx, crashCounter, 0, 1, store.MaxCounter, store.Forever)
		if err != nil {
			return err
		}
		fmt.Fprintln(acknowledged, "advance", n)
		m, err := s.Publish(ctx, []byte(id))
		if err != nil {
			return err
		}
		fmt.Fprintln(acknowledged, "publish", m)
	}
}

// WantAcknowledged fails the test unless everything that Work printed is in s. It returns the next free round. What was
// under way when the kill came may be there or not.
func WantAcknowledged(t *testing.T, s Store, acknowledged string) (next int) {
	t.Helper()
	put, deleted := map[string]bool{}, map[string]bool{}
	var counter, published int64
	lines := bufio.NewScanner(strings.NewReader(acknowledged))
	for lines.Scan() {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil {
			continue // the line that was being printed
		}
		switch verb {
		case "put":
			put[arg], next = true, int(n)+1
		case "delete":
			deleted[arg] = true
		case "advance":
			counter = n
		case "publish":
			published = n
		}
	}
	for id := range put {
		r, err := s.Get(t.Context(), key(crashCollection, id))
		switch {
		case deleted[id] && !errors.Is(err, store.ErrNotFound):
			t.Errorf("record %s was deleted, and the deletion acknowledged; it is there: %v", id, err)
		case !deleted[id] && even(id) && errors.Is(err, store.ErrNotFound): // a kill came while its deletion was under way
		case !deleted[id] && (err != nil || string(r.Value) != "value "+id):
			t.Errorf("record %s was acknowledged; it is %q, %v", id, r.Value, err)
		}
	}
	if value, _, err := s.Peek(t.Context(), crashCounter); err != nil || value < counter {
		t.Errorf("the counter is %d, %v; %d was acknowledged", value, err, counter)
	}
	if c, err := s.Tail(t.Context()); err != nil || int64(c.Number) < published {
		t.Errorf("the feed ends at %d, %v; %d was acknowledged", c.Number, err, published)
	}
	return next + 1 // the record after the last acknowledged one may exist too
}

// even reports whether the round is one whose record Work deletes again.
func even(id string) bool { return strings.ContainsAny(id[len(id)-1:], "02468") }

// WithinPatience calls do until it returns no error, and fails the test if that takes too long.
func WithinPatience(t *testing.T, do func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = do(); err == nil {
			return
		}
	}
	t.Fatalf("not within %s: %v", patience, err)
}
