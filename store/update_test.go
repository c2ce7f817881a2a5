package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"gatehouse/store"
)

func TestUpdate_createsChangesAndDeletes(t *testing.T) {
	engine := openEngine(t)
	k := store.UserKey("u")
	step := func(want string, value []byte, change error) error {
		t.Helper()
		return store.Update(t.Context(), engine, k, func(r store.Record) ([]byte, time.Time, error) {
			if string(r.Value) != want || (r.Version == 0) != (want == "") {
				t.Errorf("change sees %q at version %d, want %q", r.Value, r.Version, want)
			}
			return value, time.Time{}, change
		})
	}
	refused := errors.New("refused")
	for i, s := range []struct {
		sees  string
		value []byte
		err   error
	}{
		{"", nil, nil},
		{"", []byte("one"), nil},
		{"one", []byte("two"), refused},
		{"one", []byte("two"), nil},
		{"two", nil, nil},
		{"", []byte("three"), refused},
		{"", nil, nil},
	} {
		if err := step(s.sees, s.value, s.err); !errors.Is(err, s.err) {
			t.Errorf("step %d: %v, want %v", i, err, s.err)
		}
	}
}

// TestUpdate_triesUntilItsContextEnds: an update that somebody else always wins against fails closed.
func TestUpdate_triesUntilItsContextEnds(t *testing.T) {
	engine := openEngine(t)
	k := store.UserKey("u")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tries := 0
	err := store.Update(ctx, engine, k, func(r store.Record) ([]byte, time.Time, error) {
		if _, err := engine.Put(t.Context(), k, []byte("other"), r.Version, time.Time{}); err != nil {
			t.Fatal(err)
		}
		if tries++; tries == 3 {
			cancel()
		}
		return []byte("mine"), time.Time{}, nil
	})
	if !errors.Is(err, store.ErrUnavailable) || tries != 3 {
		t.Errorf("Update: %v after %d tries; want ErrUnavailable after 3", err, tries)
	}
	if r, err := engine.Get(t.Context(), k); err != nil || string(r.Value) != "other" {
		t.Errorf("Get = %q, %v; want the other's value", r.Value, err)
	}
}
