package apptoken_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/auth/apptoken"
	"gatehouse/store"
	"gatehouse/store/boltstore"
)

// shelf is a Store on a store file of its own, by a clock that the test moves.
type shelf struct {
	*apptoken.Store
	now  time.Time
	file string
	db   *boltstore.Store
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), file: filepath.Join(t.TempDir(), "db")}
	db, err := boltstore.Open(t.Context(), boltstore.Options{Path: s.file, Now: func() time.Time { return s.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s.db = db
	s.Store = apptoken.NewStore(apptoken.Options{Records: db, Now: func() time.Time { return s.now }})
	return s
}

func (s *shelf) create(t *testing.T, user, route string, lifetime time.Duration) (apptoken.Token, string) {
	t.Helper()
	made, text, err := s.Create(t.Context(), user, route, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	return made, text
}

func TestStore_findsUntilItsEnd(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	made, text := s.create(t, "alice", "wiki", 24*time.Hour)
	if got, err := s.Find(t.Context(), text); err != nil || got != made || got.Route != "wiki" || got.UserID != "alice" {
		t.Errorf("found %+v, %v, want %+v", got, err, made)
	}
	if _, err := s.Find(t.Context(), text[:len(text)-1]+"A"); !errors.Is(err, apptoken.ErrNotFound) && text[len(text)-1] != 'A' {
		t.Errorf("another text: %v", err)
	}
	s.now = s.now.Add(24 * time.Hour)
	if _, err := s.Find(t.Context(), text); !errors.Is(err, apptoken.ErrNotFound) {
		t.Errorf("at its end: %v", err)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("listed at its end: %v, %v", all, err)
	}
}

func TestStore_deletes(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	made, text := s.create(t, "alice", "wiki", 0)
	kept, _ := s.create(t, "bob", "wiki", 0)
	for range 2 {
		if err := s.Delete(t.Context(), made.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Find(t.Context(), text); !errors.Is(err, apptoken.ErrNotFound) {
		t.Errorf("after Delete: %v", err)
	}
	if err := s.NoteUse(t.Context(), made); !errors.Is(err, apptoken.ErrNotFound) {
		t.Errorf("a use after Delete: %v", err)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 1 || all[0] != kept {
		t.Errorf("left: %v, %v", all, err)
	}
}

func TestStore_writesTheUseOnceAnHour(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	made, text := s.create(t, "alice", "wiki", 0)
	for _, c := range []struct{ after, used time.Duration }{{time.Minute, time.Minute}, {2 * time.Minute, time.Minute}, {61 * time.Minute, 61 * time.Minute}} {
		s.now = made.Created.Add(c.after)
		found, err := s.Find(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.NoteUse(t.Context(), found); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), made.ID); err != nil || !got.Used.Equal(made.Created.Add(c.used)) {
			t.Errorf("after %v: used at %v, %v", c.after, got.Used, err)
		}
	}
}

func TestStore_bounds(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	for _, lifetime := range []time.Duration{-time.Hour, time.Second, apptoken.MaxLifetime + time.Second} {
		if _, _, err := s.Create(t.Context(), "alice", "wiki", lifetime); !errors.Is(err, apptoken.ErrLifetime) {
			t.Errorf("for %v: %v", lifetime, err)
		}
	}
	for range apptoken.MaxPerUser {
		s.create(t, "alice", "wiki", 0)
	}
	if _, _, err := s.Create(t.Context(), "alice", "wiki", 0); !errors.Is(err, apptoken.ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	s.create(t, "bob", "wiki", 0)
}

// SE-18: tokens are random from the first character after the prefix, none comes twice, and what is stored lets nobody in.
func TestStore_keepsHashesOnly(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	seen := map[string]bool{}
	first := map[byte]bool{}
	for i := range 200 {
		_, text := s.create(t, strings.Repeat("u", i/50+1), "wiki", 0)
		if seen[text] || len(text) != len(sample) {
			t.Fatalf("token %d: %q", i, text)
		}
		seen[text], first[text[len(apptoken.Prefix)]] = true, true
	}
	if len(first) < 16 {
		t.Errorf("only %d first characters", len(first))
	}
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(file, []byte(apptoken.Prefix)) {
		t.Error("a token is in the store file")
	}
}

func TestStore_failsWithTheStore(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	made, text := s.create(t, "alice", "wiki", 0)
	_ = s.db.Close()
	for name, try := range map[string]func() error{
		"find":   func() error { _, err := s.Find(t.Context(), text); return err },
		"list":   func() error { _, err := s.List(t.Context()); return err },
		"create": func() error { _, _, err := s.Create(t.Context(), "alice", "wiki", 0); return err },
		"delete": func() error { return s.Delete(t.Context(), made.ID) },
	} {
		if err := try(); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v, want unavailable", name, err)
		}
	}
}
