package storetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
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

// Load is steady work on a store that fails now and then. Safe for concurrent use.
type Load struct {
	mu           sync.Mutex
	text         strings.Builder
	last         int // round whose record was acknowledged
	rounds       int // that were acknowledged to their end
	errors       int
	lastRound    time.Time
	longest      time.Duration // between the ends of two rounds
	acknowledged int
}

// Run works on s until ctx ends, and goes on after errors. It returns an error that is not ErrUnavailable, if there is one.
func (l *Load) Run(ctx context.Context, s Store) error {
	l.lastRound = time.Now()
	for next := 0; ; {
		err := Work(ctx, s, next, l)
		l.mu.Lock()
		next = max(next+1, l.last+2) // what was under way may be there
		l.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, store.ErrUnavailable) {
			return err
		}
		l.mu.Lock()
		l.errors++
		l.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
}

// Write takes a line from Work, and keeps the pace steady by taking its time.
func (l *Load) Write(line []byte) (int, error) {
	time.Sleep(500 * time.Microsecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acknowledged++
	verb, arg, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	switch verb {
	case "put":
		l.last, _ = strconv.Atoi(arg) // Work prints numbers
	case "publish":
		l.rounds++
		l.longest = max(l.longest, time.Since(l.lastRound))
		l.lastRound = time.Now()
	}
	return l.text.Write(line)
}

// Acknowledged is what Work printed.
func (l *Load) Acknowledged() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Rounds is how many rounds of four operations were acknowledged so far.
func (l *Load) Rounds() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rounds
}

// Outage is how many operations were acknowledged, how many failed, and the longest time without a whole round of them.
func (l *Load) Outage() (acknowledged, failed int, longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acknowledged, l.errors, l.longest
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
	within(t, patience, do)
}

func within(t *testing.T, limit time.Duration, do func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = do(); err == nil {
			return
		}
	}
	t.Fatalf("not within %s: %v", limit, err)
}
