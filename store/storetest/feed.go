package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/store"
)

// patience bounds how long a test waits for what must come, on a machine that has much else to do.
const patience = time.Minute

func publish(t *testing.T, s Store, message string) uint64 {
	t.Helper()
	n, err := s.Publish(t.Context(), []byte(message))
	if err != nil {
		t.Fatalf("Publish(%q): %v", message, err)
	}
	return n
}

// wantRead reads once and compares the messages, joined by blanks.
func wantRead(t *testing.T, s Store, after store.Cursor, want string) store.Cursor {
	t.Helper()
	messages, next, err := s.Read(t.Context(), after, 0)
	if err != nil {
		t.Fatalf("Read after %d: %v, want %q", after.Number, err, want)
	}
	var got []string
	for i, m := range messages {
		got = append(got, string(m.Value))
		if m.Number != after.Number+uint64(i)+1 {
			t.Errorf("message %d after %d has number %d", i, after.Number, m.Number)
		}
	}
	if strings.Join(got, " ") != want || next.Number != after.Number+uint64(len(got)) {
		t.Fatalf("Read after %d = %q and cursor %d, want %q", after.Number, got, next.Number, want)
	}
	return next
}

func tail(t *testing.T, s Store) store.Cursor {
	t.Helper()
	c, err := s.Tail(t.Context())
	if err != nil {
		t.Fatalf("Tail: %v", err)
	}
	return c
}

func feedOrder(t *testing.T, e Engine, _ *Clock) {
	if c := tail(t, e.Store); c != (store.Cursor{}) {
		t.Errorf("Tail of an empty feed = %v", c)
	}
	if c := wantRead(t, e.Store, store.Cursor{}, ""); c != (store.Cursor{}) {
		t.Errorf("cursor of an empty feed = %v", c)
	}
	for i, m := range []string{"a", "", "c\x00\xff"} {
		if n := publish(t, e.Store, m); n != uint64(i+1) {
			t.Errorf("Publish = %d, want %d", n, i+1)
		}
	}
	c := wantRead(t, e.Store, store.Cursor{}, "a  c\x00\xff")
	if c != tail(t, e.Store) {
		t.Errorf("cursor %v, Tail %v", c, tail(t, e.Store))
	}
	wantRead(t, e.Store, c, "")
	publish(t, e.Store, "d")
	wantRead(t, e.Store, c, "d")

	const many = 300 // more than one Read returns
	c = tail(t, e.Store)
	for i := range many {
		publish(t, e.Store, fmt.Sprint(i))
	}
	seen := 0
	for reads := 0; seen < many && reads < many; reads++ {
		messages, next, err := e.Store.Read(t.Context(), c, 0)
		if err != nil || len(messages) == 0 || len(messages) > 256 {
			t.Fatalf("Read: %d messages, %v", len(messages), err)
		}
		for _, m := range messages {
			if string(m.Value) != fmt.Sprint(seen) {
				t.Fatalf("message %d is %q", seen, m.Value)
			}
			seen++
		}
		c = next
	}
}

func feedWaits(t *testing.T, e Engine, _ *Clock) {
	type result struct {
		messages []store.Message
		err      error
	}
	read := func(ctx context.Context, wait time.Duration) chan result {
		c, done := tail(t, e.Store), make(chan result, 1)
		go func() {
			m, _, err := e.Store.Read(ctx, c, wait)
			done <- result{m, err}
		}()
		return done
	}
	await := func(done chan result) result {
		t.Helper()
		select {
		case r := <-done:
			return r
		case <-time.After(patience):
			t.Fatal("the reader does not come back")
			return result{}
		}
	}
	for range Rounds(5, 200) { // published before, while or after the reader begins to wait: it must come
		done := read(t.Context(), patience)
		publish(t, e.Store, "now")
		if r := await(done); r.err != nil || len(r.messages) != 1 {
			t.Fatalf("Read = %v, %v; want the message", r.messages, r.err)
		}
	}
	if r := await(read(t.Context(), 30*time.Millisecond)); r.err != nil || len(r.messages) != 0 {
		t.Errorf("Read of nothing = %v, %v; want none and no error", r.messages, r.err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := read(ctx, patience)
	cancel()
	wantErr(t, "Read when its context ends", await(done).err, store.ErrUnavailable)
}

func feedGap(t *testing.T, e Engine, _ *Clock) {
	gap := func(what string, c store.Cursor) {
		t.Helper()
		for _, wait := range []time.Duration{0, time.Millisecond} {
			messages, next, err := e.Store.Read(t.Context(), c, wait)
			wantErr(t, what, err, store.ErrGap)
			if len(messages) != 0 || next != c {
				t.Errorf("%s: %v and cursor %v, want none and the same", what, messages, next)
			}
		}
	}
	gap("a cursor into an empty feed", store.Cursor{Number: 3, Tag: "x"})
	publish(t, e.Store, "a")
	first := tail(t, e.Store)
	publish(t, e.Store, "b")
	second := tail(t, e.Store)
	gap("a cursor ahead of the feed", store.Cursor{Number: 3, Tag: second.Tag})
	gap("the newest message with another tag", store.Cursor{Number: 2, Tag: first.Tag})
	gap("an older message with another tag", store.Cursor{Number: 1, Tag: second.Tag})
	gap("a cursor with a tag and no number", store.Cursor{Tag: "x"})
	wantRead(t, e.Store, first, "b")
}

func feedTrims(t *testing.T, e Engine, clock *Clock) {
	publish(t, e.Store, "a")
	first := tail(t, e.Store)
	clock.Move(store.FeedRetention / 2)
	publish(t, e.Store, "b")
	second := tail(t, e.Store)
	wantRead(t, e.Store, store.Cursor{}, "a b")
	clock.Move(store.FeedRetention/2 + time.Second)
	publish(t, e.Store, "c") // takes a away
	if _, _, err := e.Store.Read(t.Context(), store.Cursor{}, 0); err == nil {
		t.Error("Read from before what was taken away: no error")
	} else {
		wantErr(t, "Read from before what was taken away", err, store.ErrGap)
	}
	wantRead(t, e.Store, first, "b c") // a was read, so nothing is missing
	forged := first
	forged.Tag = second.Tag
	_, _, err := e.Store.Read(t.Context(), forged, 0)
	wantErr(t, "Read with the tag of another message in the place of the one taken away", err, store.ErrGap)

	third := tail(t, e.Store)
	clock.Move(100 * store.FeedRetention) // nothing was published for long: the newest stays, nobody has a gap
	wantRead(t, e.Store, third, "")
	publish(t, e.Store, "d")
	wantRead(t, e.Store, third, "d")
	_, _, err = e.Store.Read(t.Context(), first, 0)
	wantErr(t, "Read from before what was taken away", err, store.ErrGap)
}

func feedReaders(t *testing.T, e Engine, _ *Clock) {
	const publishers = 4
	each := Rounds(10, 200)
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for range each {
				publish(t, e.Store, "x")
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			var c store.Cursor
			for c.Number < uint64(publishers*each) {
				messages, next, err := e.Store.Read(t.Context(), c, patience)
				if err != nil || len(messages) == 0 {
					t.Errorf("Read after %d: %d messages, %v", c.Number, len(messages), err)
					return
				}
				for i, m := range messages {
					if m.Number != c.Number+uint64(i)+1 {
						t.Errorf("number %d came after %d", m.Number, c.Number+uint64(i))
					}
				}
				c = next
			}
		})
	}
	wg.Wait()
}
