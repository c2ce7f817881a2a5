// Package storetest is the conformance suite of package store. Both engines run it, so that a gateway behaves the same on
// either; Redis is a real redis-server that the suite starts. An engine that is not there fails the suite, never skips it.
//
// It also holds what other packages need to test against a store that misbehaves: [Redis], [FaultProxy] and [Clock].
package storetest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"gatehouse/store"
)

// Store is what an engine offers.
type Store interface {
	store.Records
	store.Counters
	store.Feed
	Check(context.Context) error
	Close() error
}

// Engine is one engine, open on an empty state.
type Engine struct {
	Store Store
	// Reopen closes the store and opens the same state again.
	Reopen func(t *testing.T) Store
}

// Clock is a clock that tests move. Safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

// NewClock returns a clock that stands at the given time.
func NewClock(at time.Time) *Clock { return &Clock{now: at} }

// Now is the time on the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Move moves the clock, backwards too.
func (c *Clock) Move(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

// start is where the clocks of the suite begin: not now, so that an engine that uses its own clock is found out.
var start = time.Date(2031, 5, 4, 3, 2, 1, 987654000, time.UTC)

// Rounds is how often a test repeats: few in every run, many where GATEHOUSE_PROVE is 1.
func Rounds(few, many int) int {
	if os.Getenv("GATEHOUSE_PROVE") == "1" {
		return many
	}
	return few
}

// Within is how long a test waits for what is promised within a time: no longer where GATEHOUSE_PROVE is 1, ten times as long in every other
// run, whose machine may be slow and busy with other tests.
func Within(promised time.Duration) time.Duration { return promised * time.Duration(Rounds(10, 1)) }

// Run holds an engine to everything that package store promises. open is called for each test and closes what it opened
// when that test ends.
func Run(t *testing.T, open func(t *testing.T, now func() time.Time) Engine) {
	if err := flag.Set("rapid.checks", strconv.Itoa(Rounds(25, 1000))); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		run  func(*testing.T, Engine, *Clock)
	}{
		{"Records/returns what was put, byte for byte", roundTrip},
		{"Records/limits", limits},
		{"Records/compares versions", compareAndSwap},
		{"Records/deletes by version", deletes},
		{"Records/expires by the caller's clock, both ways", expiry},
		{"Records/lists in order, one collection", listing},
		{"Records/hands out copies", aliasing},
		{"Records/lets one of many writers win", oneWins},
		{"Records/loses no update", updates},
		{"Records/agree with a map", recordsModel},
		{"Counters/advance between floor and ceil", advance},
		{"Counters/never exceed ceil", neverExceed},
		{"Counters/keep what a double holds", bounds},
		{"Counters/agree with a map", countersModel},
		{"Counters/are forgotten only when that changes no answer", forgetting},
		{"Feed/keeps order and resumes", feedOrder},
		{"Feed/wakes those who wait", feedWaits},
		{"Feed/reports a gap", feedGap},
		{"Feed/forgets after its retention", feedTrims},
		{"Feed/serves two readers while many publish", feedReaders},
		{"a cancelled context changes nothing", cancelled},
		{"a context that ends in between loses nothing acknowledged", cancelledBetween},
		{"everything is there after reopening", reopened},
		{"answers nothing when closed", closed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clock := NewClock(start)
			tt.run(t, open(t, clock.Now), clock)
		})
	}
}

// key and counterKey are keys of the suite's own.
func key(collection, id string) store.Key {
	return store.Key{Collection: store.Collection(collection), ID: id}
}

var never time.Time

func mustPut(t *testing.T, s Store, k store.Key, value string, version uint64, expires time.Time) uint64 {
	t.Helper()
	next, err := s.Put(t.Context(), k, []byte(value), version, expires)
	if err != nil {
		t.Fatalf("Put(%s) at version %d: %v", k, version, err)
	}
	return next
}

func wantValue(t *testing.T, s Store, k store.Key, want string) store.Record {
	t.Helper()
	r, err := s.Get(t.Context(), k)
	if err != nil {
		t.Fatalf("Get(%s): %v, want %q", k, err, want)
	}
	if string(r.Value) != want || r.Key != k || r.Version == 0 {
		t.Fatalf("Get(%s) = %+v, want %q", k, r, want)
	}
	return r
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func roundTrip(t *testing.T, e Engine, _ *Clock) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	values := [][]byte{{}, {0}, every, []byte("{\"a\":1}\r\n"), bytes.Repeat(every, 100)}
	for i, value := range values {
		for _, k := range []store.Key{key("", fmt.Sprintf("alone/%d", i)), key("c/ollection", fmt.Sprintf("%d", i)), key("c/ollection", "\x00\xff")} {
			expires := start.Add(time.Duration(i) * time.Hour).Add(time.Second)
			wantErr(t, "Delete of what may not be there", e.Store.Delete(t.Context(), k, 0), nil)
			version, err := e.Store.Put(t.Context(), k, value, 0, expires)
			if err != nil {
				t.Fatal(err)
			}
			got, err := e.Store.Get(t.Context(), k)
			if err != nil || !bytes.Equal(got.Value, value) || got.Value == nil || got.Version != version || got.Key != k || !got.Expires.Equal(expires) {
				t.Errorf("Get(%s) = %+v, %v; want %d bytes at version %d until %s", k, got, err, len(value), version, expires)
			}
		}
	}
	mustPut(t, e.Store, key("", "kept"), "x", 0, never)
	if r := wantValue(t, e.Store, key("", "kept"), "x"); !r.Expires.IsZero() {
		t.Errorf("Expires = %s, want none", r.Expires)
	}
}

func limits(t *testing.T, e Engine, _ *Clock) {
	k := key("c", "large")
	_, err := e.Store.Put(t.Context(), k, make([]byte, store.MaxValue+1), 0, never)
	wantErr(t, "Put of MaxValue+1", err, store.ErrTooLarge)
	if _, err = e.Store.Put(t.Context(), k, make([]byte, store.MaxValue), 0, never); err != nil {
		t.Errorf("Put of MaxValue: %v", err)
	}
	if r, err := e.Store.Get(t.Context(), k); err != nil || len(r.Value) != store.MaxValue {
		t.Errorf("Get: %d bytes, %v; want MaxValue", len(r.Value), err)
	}
	_, err = e.Store.Publish(t.Context(), make([]byte, store.MaxValue+1))
	wantErr(t, "Publish of MaxValue+1", err, store.ErrTooLarge)
	for _, k := range []store.Key{{}, key("c", ""), key("", string(make([]byte, 2000)))} {
		if _, err := e.Store.Put(t.Context(), k, nil, 0, never); err == nil {
			t.Errorf("Put under an ID of %d bytes: no error", len(k.ID))
		}
	}
	if _, _, err := e.Store.Advance(t.Context(), "", 0, 1, 1, time.Hour); err == nil {
		t.Error("Advance of the empty key: no error")
	}
}

func compareAndSwap(t *testing.T, e Engine, clock *Clock) {
	for _, k := range []store.Key{key("", "alone"), key("c", "in")} {
		_, err := e.Store.Put(t.Context(), k, nil, 7, never)
		wantErr(t, "Put of nothing at version 7", err, store.ErrConflict)
		v1 := mustPut(t, e.Store, k, "one", 0, never)
		_, err = e.Store.Put(t.Context(), k, nil, 0, never)
		wantErr(t, "Put of what is there as new", err, store.ErrConflict)
		v2 := mustPut(t, e.Store, k, "two", v1, clock.Now().Add(time.Hour))
		_, err = e.Store.Put(t.Context(), k, nil, v1, never)
		wantErr(t, "Put at the version before", err, store.ErrConflict)
		wantValue(t, e.Store, k, "two")

		wantErr(t, "Delete", e.Store.Delete(t.Context(), k, v2), nil)
		v3 := mustPut(t, e.Store, k, "three", 0, never)
		_, err = e.Store.Put(t.Context(), k, nil, v2, never)
		wantErr(t, "Put at a version from before the deletion", err, store.ErrConflict)
		if v1 == v2 || v2 == v3 || v1 == v3 {
			t.Errorf("versions %d, %d, %d repeat", v1, v2, v3)
		}
	}
}

func deletes(t *testing.T, e Engine, clock *Clock) {
	for _, k := range []store.Key{key("", "alone"), key("c", "in")} {
		wantErr(t, "Delete of nothing", e.Store.Delete(t.Context(), k, 0), nil)
		wantErr(t, "Delete of nothing at version 7", e.Store.Delete(t.Context(), k, 7), store.ErrConflict)
		v := mustPut(t, e.Store, k, "x", 0, clock.Now().Add(time.Hour))
		wantErr(t, "Delete at another version", e.Store.Delete(t.Context(), k, v+1), store.ErrConflict)
		wantValue(t, e.Store, k, "x")
		clock.Move(time.Hour + store.GarbageMargin/2) // expired, but not yet garbage
		wantErr(t, "Delete of what has expired", e.Store.Delete(t.Context(), k, v), store.ErrConflict)
		clock.Move(-time.Hour - store.GarbageMargin/2)
		wantErr(t, "Delete", e.Store.Delete(t.Context(), k, v), nil)
		_, err := e.Store.Get(t.Context(), k)
		wantErr(t, "Get after Delete", err, store.ErrNotFound)
		mustPut(t, e.Store, k, "x", 0, never)
		wantErr(t, "Delete of any version", e.Store.Delete(t.Context(), k, 0), nil)
		_, err = e.Store.Get(t.Context(), k)
		wantErr(t, "Get after Delete", err, store.ErrNotFound)
	}
}

func expiry(t *testing.T, e Engine, clock *Clock) {
	for _, k := range []store.Key{key("", "alone"), key("c", "in")} {
		v := mustPut(t, e.Store, k, "x", 0, clock.Now().Add(time.Hour))
		gone := func(when string) {
			t.Helper()
			_, err := e.Store.Get(t.Context(), k)
			wantErr(t, "Get "+when, err, store.ErrNotFound)
			if list, err := e.Store.List(t.Context(), k.Collection); err != nil || len(list) != 0 {
				t.Errorf("List %s = %v, %v", when, list, err)
			}
		}
		clock.Move(time.Hour - time.Microsecond)
		wantValue(t, e.Store, k, "x")
		clock.Move(time.Microsecond)
		gone("at the end")
		clock.Move(-24 * time.Hour) // a clock that was set right again
		wantValue(t, e.Store, k, "x")
		clock.Move(48 * time.Hour)
		gone("a day later")
		_, err := e.Store.Put(t.Context(), k, nil, v, never)
		wantErr(t, "Put at the version that has expired", err, store.ErrConflict)
		mustPut(t, e.Store, k, "new", 0, never)
		clock.Move(100 * 365 * 24 * time.Hour)
		wantValue(t, e.Store, k, "new")
		clock.Move(-100*365*24*time.Hour - 25*time.Hour)

		k.ID += "/past"
		mustPut(t, e.Store, k, "born dead", 0, time.Unix(-5, 0))
		_, err = e.Store.Get(t.Context(), k)
		wantErr(t, "Get of what expired before 1970", err, store.ErrNotFound)
	}
}

func listing(t *testing.T, e Engine, _ *Clock) {
	ids := []string{"b", "a", "ab", "B", "\x00", "\xff", "a/b", "10", "9", "é"}
	for _, id := range ids {
		mustPut(t, e.Store, key("list/1", id), "of 1 "+id, 0, never)
		mustPut(t, e.Store, key("list/10", id), "of 10 "+id, 0, never)
		mustPut(t, e.Store, key("", "alone/"+id), "alone "+id, 0, never)
	}
	for range 2 {
		list, err := e.Store.List(t.Context(), "list/1")
		if err != nil || len(list) != len(ids) {
			t.Fatalf("List: %d records, %v; want %d", len(list), err, len(ids))
		}
		for i, r := range list {
			if r.Key.Collection != "list/1" || string(r.Value) != "of 1 "+r.Key.ID || r.Version == 0 {
				t.Errorf("List[%d] = %+v", i, r)
			}
			if i > 0 && list[i-1].Key.ID >= r.Key.ID {
				t.Errorf("%q is listed before %q", list[i-1].Key.ID, r.Key.ID)
			}
		}
	}
	for _, empty := range []store.Collection{"list", "list/", "alone", ""} {
		if list, err := e.Store.List(t.Context(), empty); err != nil || len(list) != 0 {
			t.Errorf("List(%q) = %v, %v; want none", empty, list, err)
		}
	}
	for _, id := range ids {
		wantErr(t, "Delete", e.Store.Delete(t.Context(), key("list/1", id), 0), nil)
	}
	if list, err := e.Store.List(t.Context(), "list/1"); err != nil || len(list) != 0 {
		t.Errorf("List of an emptied collection = %v, %v", list, err)
	}
	if list, err := e.Store.List(t.Context(), "list/10"); err != nil || len(list) != len(ids) {
		t.Errorf("List of the other collection: %d, %v; want %d", len(list), err, len(ids))
	}
}

func aliasing(t *testing.T, e Engine, _ *Clock) {
	k, given := key("c", "id"), []byte("given")
	if _, err := e.Store.Put(t.Context(), k, given, 0, never); err != nil {
		t.Fatal(err)
	}
	copy(given, "XXXXX")
	copy(wantValue(t, e.Store, k, "given").Value, "YYYYY")
	list, err := e.Store.List(t.Context(), "c")
	if err != nil || len(list) != 1 {
		t.Fatalf("List = %v, %v", list, err)
	}
	copy(list[0].Value, "ZZZZZ")
	wantValue(t, e.Store, k, "given")

	message := []byte("message")
	if _, err := e.Store.Publish(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	copy(message, "XXXXXXX")
	for range 2 {
		got, _, err := e.Store.Read(t.Context(), store.Cursor{}, 0)
		if err != nil || len(got) != 1 || string(got[0].Value) != "message" {
			t.Fatalf("Read = %v, %v", got, err)
		}
		copy(got[0].Value, "YYYYYYY")
	}
}

func oneWins(t *testing.T, e Engine, _ *Clock) {
	for round := range Rounds(5, 100) {
		k := key("race", strconv.Itoa(round))
		won := make(chan uint64, 16)
		var wg sync.WaitGroup
		for range cap(won) {
			wg.Go(func() {
				if v, err := e.Store.Put(t.Context(), k, []byte("x"), 0, never); err == nil {
					won <- v
				} else if !errors.Is(err, store.ErrConflict) {
					t.Errorf("Put: %v, want ErrConflict", err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d writers created one record, want 1", len(won))
		}
		if v := <-won; wantValue(t, e.Store, k, "x").Version != v {
			t.Error("the record is not the winner's")
		}
	}
}

func updates(t *testing.T, e Engine, _ *Clock) {
	const writers = 8
	each := Rounds(10, 200)
	for _, k := range []store.Key{key("", "sum"), key("c", "sum")} {
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range each {
					err := store.Update(t.Context(), e.Store, k, func(r store.Record) ([]byte, time.Time, error) {
						return append(r.Value, '.'), never, nil
					})
					if err != nil {
						t.Errorf("Update: %v", err)
					}
				}
			})
		}
		wg.Wait()
		if r, err := e.Store.Get(t.Context(), k); err != nil || len(r.Value) != writers*each {
			t.Errorf("%d updates are there, %v; want %d", len(r.Value), err, writers*each)
		}
	}
}
