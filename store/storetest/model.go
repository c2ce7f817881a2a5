package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gatehouse/store"
)

// modelled is what the model of the records knows about one.
type modelled struct {
	value   []byte
	version uint64
	expires time.Time
}

// recordsModel drives the engine and a map with the same random operations, under a clock that goes forth and, by less than
// the margin of garbage, back.
func recordsModel(t *testing.T, e Engine, clock *Clock) {
	rapid.Check(t, func(t *rapid.T) {
		m := &recordsMachine{
			engine: e.Store, clock: clock, prefix: fmt.Sprintf("model-%x/", rand.Uint64()), records: map[store.Key]modelled{},
		}
		t.Repeat(map[string]func(*rapid.T){"get": m.get, "put": m.put, "delete": m.delete, "list": m.list, "clock": m.move})
	})
}

// recordsMachine is the map, and what is done to it and to the engine. Its methods draw what they need.
type recordsMachine struct {
	engine  Store
	clock   *Clock
	prefix  string // a part of the engine to itself, for each check
	records map[store.Key]modelled
	ahead   time.Duration // how far the clock was ahead of where it is
}

func (m *recordsMachine) key(t *rapid.T) store.Key {
	id := rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "id")
	if c := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "collection"); c != "" {
		return key(m.prefix+c, id)
	}
	return key("", m.prefix+id)
}

// version is the one that a record has or had, another one, or none.
func (m *recordsMachine) version(t *rapid.T, k store.Key) uint64 {
	last := m.records[k].version
	return rapid.SampledFrom([]uint64{0, last, last, last ^ 1}).Draw(t, "version")
}

func (m *recordsMachine) live(k store.Key) (modelled, bool) {
	r, ok := m.records[k]
	return r, ok && (r.expires.IsZero() || r.expires.After(m.clock.Now()))
}

func (m *recordsMachine) get(t *rapid.T) {
	k := m.key(t)
	got, err := m.engine.Get(context.Background(), k)
	want, ok := m.live(k)
	if !ok {
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("Get = %+v, %v; want ErrNotFound", got, err)
		}
	} else if err != nil || !bytes.Equal(got.Value, want.value) || got.Version != want.version || !got.Expires.Equal(want.expires) {
		t.Fatalf("Get = %+v, %v; want %+v", got, err, want)
	}
}

func (m *recordsMachine) put(t *rapid.T) {
	k := m.key(t)
	v, value := m.version(t, k), rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value")
	var expires time.Time
	if d := rapid.IntRange(-1, 40).Draw(t, "minutes"); d > 0 {
		expires = m.clock.Now().Add(time.Duration(d) * time.Minute)
	}
	next, err := m.engine.Put(context.Background(), k, value, v, expires)
	before, ok := m.live(k)
	if v == before.version && ok || v == 0 && !ok {
		if err != nil || next == 0 || next == before.version {
			t.Fatalf("Put at %d = %d, %v; want a new version", v, next, err)
		}
		m.records[k] = modelled{value, next, expires}
	} else if !errors.Is(err, store.ErrConflict) {
		t.Fatalf("Put at %d = %d, %v; want ErrConflict", v, next, err)
	}
}

func (m *recordsMachine) delete(t *rapid.T) {
	k := m.key(t)
	v := m.version(t, k)
	err := m.engine.Delete(context.Background(), k, v)
	before, ok := m.live(k)
	if v == 0 || v == before.version && ok {
		if err != nil {
			t.Fatalf("Delete at %d: %v", v, err)
		}
		delete(m.records, k)
	} else if !errors.Is(err, store.ErrConflict) {
		t.Fatalf("Delete at %d: %v, want ErrConflict", v, err)
	}
}

func (m *recordsMachine) list(t *rapid.T) {
	c := store.Collection(m.prefix + rapid.SampledFrom([]string{"a", "b"}).Draw(t, "collection"))
	got, err := m.engine.List(context.Background(), c)
	var want, have []string
	for _, k := range slices.SortedFunc(maps.Keys(m.records), func(a, b store.Key) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) }) {
		if r, ok := m.live(k); ok && k.Collection == c {
			want = append(want, fmt.Sprintf("%s %d %x", k.ID, r.version, r.value))
		}
	}
	for _, r := range got {
		have = append(have, fmt.Sprintf("%s %d %x", r.Key.ID, r.Version, r.Value))
	}
	if err != nil || !slices.Equal(have, want) {
		t.Fatalf("List = %q, %v; want %q", have, err, want)
	}
}

// move moves the clock, and never back by as much as would bring garbage to life.
func (m *recordsMachine) move(t *rapid.T) {
	by := time.Duration(rapid.IntRange(-4, 15).Draw(t, "minutes")) * time.Minute
	if by = max(by, m.ahead-store.GarbageMargin/2); by > 0 {
		m.ahead = max(m.ahead-by, 0)
	} else {
		m.ahead -= by
	}
	m.clock.Move(by)
}

// countersModel compares random calls with the rule of the contract in plain arithmetic.
func countersModel(t *testing.T, e Engine, _ *Clock) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := fmt.Sprintf("model-%x/", rand.Uint64())
		model := map[store.CounterKey]int64{}
		keys := rapid.Map(rapid.SampledFrom([]string{"a", "b"}), func(s string) store.CounterKey { return store.CounterKey(prefix + s) })
		numbers := rapid.OneOf(rapid.Int64Range(-20, 20), rapid.Int64Range(-store.MaxCounter, store.MaxCounter))
		t.Repeat(map[string]func(*rapid.T){
			"advance": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				floor, step, ceil := numbers.Draw(t, "floor"), numbers.Draw(t, "step"), numbers.Draw(t, "ceil")
				want := floor
				if c, found := model[k]; found && c > floor {
					want = c
				}
				wantOK := step < 0 || want+step <= ceil
				if wantOK {
					want = max(want+step, -store.MaxCounter)
					model[k] = want
				}
				got, ok, err := e.Store.Advance(context.Background(), k, floor, step, ceil, store.Forever)
				if err != nil || got != want || ok != wantOK {
					t.Fatalf("Advance(%d, %d, %d) = %d, %t, %v; want %d, %t", floor, step, ceil, got, ok, err, want, wantOK)
				}
			},
			"peek": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				want, found := model[k]
				if got, ok, err := e.Store.Peek(context.Background(), k); err != nil || got != want || ok != found {
					t.Fatalf("Peek = %d, %t, %v; want %d, %t", got, ok, err, want, found)
				}
			},
			"reset": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				delete(model, k)
				if err := e.Store.Reset(context.Background(), k); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

// forgetting is rule 2 of section 3 of design.md: token buckets on an engine that collects garbage answer like buckets that
// are never forgotten, whatever the clock does forwards.
func forgetting(t *testing.T, e Engine, clock *Clock) {
	const interval, burst = int64(6e6), 5
	rapid.Check(t, func(t *rapid.T) {
		prefix := fmt.Sprintf("bucket-%x/", rand.Uint64())
		model := map[store.CounterKey]int64{}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				k := store.CounterKey(prefix + rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key"))
				step := rapid.SampledFrom([]int64{interval, interval, -interval}).Draw(t, "step")
				now := clock.Now().UnixMicro()
				want := max(model[k], now)
				wantOK := step < 0 || want+step <= now+burst*interval
				if wantOK {
					want += step
					model[k] = want
				}
				got, ok, err := e.Store.Advance(context.Background(), k, now, step, now+burst*interval, time.Duration(burst*interval)*time.Microsecond)
				if err != nil || got != want || ok != wantOK {
					t.Fatalf("Advance = %d, %t, %v; want %d, %t", got, ok, err, want, wantOK)
				}
			},
			"clock": func(t *rapid.T) {
				clock.Move(time.Duration(rapid.SampledFrom([]int64{1, interval - 1, interval, burst * interval, 3600e6}).Draw(t, "micros")) * time.Microsecond)
			},
		})
	})
}
