package user_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/auth/user"
	"gatehouse/store"
	"gatehouse/store/boltstore"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

// Two hashes of "correct horse battery staple", at costs 4 and 5.
const (
	hash4 = "$2y$04$iraiBMLL3uduptnw6wGVNucJ.ZzLnMP3ABy7W.BLjNk8p7W/yYm5S"
	hash5 = "$2b$05$aGjRRR0r2xY9q.17aqlV6Ot3Givb./n7cG0jYnBe26QsvxmuoZ27W"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func bolt(t *testing.T) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(t.Context(), boltstore.Options{
		Path: filepath.Join(t.TempDir(), "store.db"), Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func redis(t *testing.T) *redisstore.Store {
	t.Helper()
	s, err := redisstore.Open(t.Context(), redisstore.Options{
		URL: storetest.Redis(t).URL(), Now: func() time.Time { return noon }, Timeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func accounts(records store.Records) *user.Store {
	return user.NewStore(user.Options{
		Records: records, Now: func() time.Time { return noon }, NameKey: []byte(strings.Repeat("n", 32)),
	})
}

func add(t *testing.T, s *user.Store, u user.User) user.User {
	t.Helper()
	added, err := s.Add(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	return added
}

func TestStore_addsAnAccountUnderItsCanonicalName(t *testing.T) {
	t.Parallel()
	s := accounts(bolt(t))
	added := add(t, s, user.User{
		Name: "Alice", DisplayName: "Alice Ä", Email: "alice@example.com", Groups: []string{"Dev", "admins", "dev"}, PasswordHash: hash4,
	})
	want := user.User{
		ID: added.ID, Name: "alice", DisplayName: "Alice Ä", Email: "alice@example.com", Groups: []string{"admins", "dev"},
		PasswordHash: hash4, CreatedAt: noon, EnrolUntil: noon.Add(14 * 24 * time.Hour), PasswordChangedAt: noon, Revision: 1,
	}
	if len(added.ID) != 32 || fmt.Sprint(added) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", added, want)
	}
	for _, find := range []func() (user.User, error){
		func() (user.User, error) { return s.ByName(t.Context(), "alice") },
		func() (user.User, error) { return s.ByTag(t.Context(), s.NameTag("alice")) },
		func() (user.User, error) { return s.ByID(t.Context(), added.ID) },
	} {
		if got, err := find(); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if _, err := s.Add(t.Context(), user.User{Name: "ＡＬＩＣＥ"}); !errors.Is(err, user.ErrNameTaken) {
		t.Errorf("got %v, want ErrNameTaken for another spelling", err)
	}
}

func TestStore_refusesWhatIsNotAnAccount(t *testing.T) {
	t.Parallel()
	engine := bolt(t)
	s := accounts(engine)
	for _, test := range []struct {
		name string
		u    user.User
		want error
	}{
		{"no name", user.User{}, user.ErrInvalidName},
		{"name", user.User{Name: "al ice"}, user.ErrInvalidName},
		{"group", user.User{Name: "alice", Groups: []string{"a,b"}}, user.ErrInvalid},
		{"many groups", user.User{Name: "alice", Groups: manyGroups(101)}, user.ErrInvalid},
		{"email", user.User{Name: "alice", Email: "a@b@c"}, user.ErrInvalid},
		{"display name", user.User{Name: "alice", DisplayName: "a\r\nb"}, user.ErrInvalid},
		{"hash", user.User{Name: "alice", PasswordHash: "secret"}, user.ErrInvalid},
	} {
		if _, err := s.Add(t.Context(), test.u); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v, want no account", all, err)
	}
	if _, err := engine.Get(t.Context(), store.NameKey(s.NameTag("alice"))); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want the name free", err)
	}
}

func manyGroups(n int) (groups []string) {
	for i := range n {
		groups = append(groups, fmt.Sprint("group", i))
	}
	return groups
}

func TestStore_changesWithTheNextRevision(t *testing.T) {
	t.Parallel()
	s := accounts(bolt(t))
	alice := add(t, s, user.User{Name: "alice", Groups: []string{"dev"}})
	changed, err := s.Change(t.Context(), alice.ID, func(u *user.User) error {
		u.Disabled = true
		u.Groups = append(u.Groups, "Admins")
		u.TOTP = &user.TOTP{ID: "e1", Secret: "JBSWY3DPEHPK3PXP", EnrolledAt: noon}
		u.ID, u.Name, u.Revision, u.CreatedAt = "other", "other", 99, time.Time{} // not edit's to change
		return nil
	})
	if err != nil || changed.Revision != 2 || changed.ID != alice.ID || changed.Name != "alice" || !changed.CreatedAt.Equal(noon) {
		t.Fatalf("got %+v, %v, want revision 2 of the same account", changed, err)
	}
	got, err := s.ByName(t.Context(), "alice")
	if err != nil || !got.Disabled || !slices.Equal(got.Groups, []string{"admins", "dev"}) || got.TOTP == nil || got.TOTP.ID != "e1" {
		t.Errorf("got %+v, %v", got, err)
	}
	stop := errors.New("stop")
	if _, err := s.Change(t.Context(), alice.ID, func(u *user.User) error { u.Disabled = false; return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want edit's own error", err)
	}
	if _, err := s.Change(t.Context(), alice.ID, func(u *user.User) error { u.Email = "\x00"; return nil }); !errors.Is(err, user.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	if got, _ := s.ByID(t.Context(), alice.ID); got.Revision != 2 || !got.Disabled {
		t.Errorf("got %+v, want nothing changed", got)
	}
	if _, err := s.Change(t.Context(), strings.Repeat("0", 32), func(*user.User) error { return nil }); !errors.Is(err, user.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestStore_concurrentChangesAllCount(t *testing.T) {
	t.Parallel()
	s := accounts(bolt(t))
	alice := add(t, s, user.User{Name: "alice"})
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			_, err := s.Change(t.Context(), alice.ID, func(u *user.User) error {
				u.Groups = append(u.Groups, fmt.Sprint("g", i))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got, _ := s.ByID(t.Context(), alice.ID); got.Revision != 21 || len(got.Groups) != 20 {
		t.Errorf("got revision %d with %d groups, want 21 with 20", got.Revision, len(got.Groups))
	}
}

func TestStore_deletesAndFreesTheName(t *testing.T) {
	t.Parallel()
	engine := bolt(t)
	s := accounts(engine)
	alice := add(t, s, user.User{Name: "alice"})
	if err := s.Delete(t.Context(), alice.ID); err != nil {
		t.Fatal(err)
	}
	_, byName := s.ByName(t.Context(), "alice")
	_, byID := s.ByID(t.Context(), alice.ID)
	again := s.Delete(t.Context(), alice.ID)
	if err := errors.Join(byName, byID, again); !errors.Is(byName, user.ErrNotFound) || !errors.Is(byID, user.ErrNotFound) || !errors.Is(again, user.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound from each", err)
	}
	if _, err := engine.Get(t.Context(), store.NameKey(s.NameTag("alice"))); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want no record of the name", err)
	}
	if second := add(t, s, user.User{Name: "alice"}); second.ID == alice.ID {
		t.Error("the id of a deleted account was used again")
	}
}

func TestStore_costCeilingRisesBeforeTheHashIsStored(t *testing.T) {
	t.Parallel()
	engine := bolt(t)
	spy := &spy{Records: engine}
	s := accounts(spy)
	if got, err := s.CostCeiling(t.Context()); got != 0 || err != nil {
		t.Fatalf("got %d, %v, want 0", got, err)
	}
	alice := add(t, s, user.User{Name: "alice", PasswordHash: hash4})
	if got := spy.puts[0]; got != store.PasswordCostKey().String() {
		t.Errorf("got %s written first, want the ceiling", got)
	}
	for _, step := range []struct {
		hash string
		want int
	}{{hash5, 5}, {hash4, 5}, {"", 5}} {
		_, err := s.Change(t.Context(), alice.ID, func(u *user.User) error { u.PasswordHash = step.hash; return nil })
		if got, _ := s.CostCeiling(t.Context()); err != nil || got != step.want {
			t.Errorf("got ceiling %d, %v, want %d", got, err, step.want)
		}
	}
	var group sync.WaitGroup
	for cost := range 15 {
		group.Go(func() {
			if err := s.RaiseCost(t.Context(), cost); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got, _ := s.CostCeiling(t.Context()); got != 14 {
		t.Errorf("got %d, want the highest of all, 14", got)
	}
}

// spy notes what is asked of a store, and can make it fail.
type spy struct {
	store.Records
	mu       sync.Mutex
	gets     int
	puts     []string
	failFrom int // the number of the first write that fails and all behind it, from 1; 0 is none
	writes   int
}

func (s *spy) Get(ctx context.Context, key store.Key) (store.Record, error) {
	s.mu.Lock()
	s.gets++
	s.mu.Unlock()
	return s.Records.Get(ctx, key)
}

func (s *spy) Put(ctx context.Context, key store.Key, value []byte, version uint64, expires time.Time) (uint64, error) {
	if s.write(key) {
		return 0, store.ErrUnavailable
	}
	return s.Records.Put(ctx, key, value, version, expires)
}

func (s *spy) Delete(ctx context.Context, key store.Key, version uint64) error {
	if s.write(key) {
		return store.ErrUnavailable
	}
	return s.Records.Delete(ctx, key, version)
}

func (s *spy) write(key store.Key) (fails bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	s.puts = append(s.puts, key.String())
	return s.failFrom > 0 && s.writes >= s.failFrom
}

func TestStore_unknownNamesCostTheSameOperations(t *testing.T) {
	t.Parallel()
	spy := &spy{Records: bolt(t)}
	s := accounts(spy)
	alice := add(t, s, user.User{Name: "alice"})
	add(t, s, user.User{Name: "gone"})
	gone, _ := s.ByName(t.Context(), "gone")
	if err := spy.Records.Delete(t.Context(), store.UserKey(gone.ID), 0); err != nil { // half of a Delete
		t.Fatal(err)
	}
	for _, test := range []struct{ name, tag, id string }{
		{"known", s.NameTag("alice"), alice.ID},
		{"unknown", s.NameTag("bob"), ""},
		{"no name at all", s.NameTag("\x00 not a name"), ""},
		{"a name without an account", s.NameTag("gone"), ""},
	} {
		spy.gets = 0
		got, err := s.ByTag(t.Context(), test.tag)
		if got.ID != test.id || (err != nil) != (test.id == "") || err != nil && !errors.Is(err, user.ErrNotFound) {
			t.Errorf("%s: got %q, %v", test.name, got.ID, err)
		}
		if spy.gets != 2 {
			t.Errorf("%s: got %d reads, want 2", test.name, spy.gets)
		}
	}
}

// A process may end between any two writes of Add and Delete. Whatever was left, the name is not burned: it leads to an account
// or can be had, under an id that nobody had before.
func TestStore_survivesACrashBetweenAnyTwoWrites(t *testing.T) {
	t.Parallel()
	for failFrom := 1; failFrom <= 3; failFrom++ {
		t.Run(fmt.Sprint("add, write ", failFrom), func(t *testing.T) {
			spy := &spy{Records: bolt(t), failFrom: failFrom}
			if _, err := accounts(spy).Add(t.Context(), user.User{Name: "alice"}); !errors.Is(err, store.ErrUnavailable) {
				t.Fatalf("got %v, want ErrUnavailable", err)
			}
			wantNameUsable(t, accounts(spy.Records))
		})
	}
	for failFrom := 1; failFrom <= 2; failFrom++ {
		t.Run(fmt.Sprint("delete, write ", failFrom), func(t *testing.T) {
			spy := &spy{Records: bolt(t)}
			alice := add(t, accounts(spy), user.User{Name: "alice"})
			spy.writes, spy.failFrom = 0, failFrom
			if err := accounts(spy).Delete(t.Context(), alice.ID); !errors.Is(err, store.ErrUnavailable) {
				t.Fatalf("got %v, want ErrUnavailable", err)
			}
			s := accounts(spy.Records)
			if failFrom == 1 { // nothing has happened yet
				if err := s.Delete(t.Context(), alice.ID); err != nil {
					t.Fatal(err)
				}
			}
			wantNameUsable(t, s)
			if now, _ := s.ByName(t.Context(), "alice"); now.ID == alice.ID {
				t.Error("the id of a deleted account was used again")
			}
		})
	}
}

// An Add that brings its id succeeds after a crash of another one, whatever id the name was left with, unless that one's account
// was written.
func TestStore_Add_underAnIDThatIsBrought(t *testing.T) {
	t.Parallel()
	for failFrom := 1; failFrom <= 3; failFrom++ {
		spy := &spy{Records: bolt(t), failFrom: failFrom}
		first, second := user.NewID(), user.NewID()
		if _, err := accounts(spy).Add(t.Context(), user.User{ID: first, Name: "alice"}); !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("write %d: got %v, want ErrUnavailable", failFrom, err)
		}
		s := accounts(spy.Records)
		want := second
		if _, err := s.Add(t.Context(), user.User{ID: second, Name: "alice"}); errors.Is(err, user.ErrNameTaken) {
			want = first // its account was written
		} else if err != nil {
			t.Fatal(err)
		}
		if u, err := s.ByName(t.Context(), "alice"); err != nil || u.ID != want {
			t.Errorf("write %d: got %s, %v, want %s", failFrom, u.ID, err, want)
		}
		if _, err := s.Add(t.Context(), user.User{ID: want, Name: "alice"}); !errors.Is(err, user.ErrNameTaken) {
			t.Errorf("write %d, again: got %v, want ErrNameTaken", failFrom, err)
		}
		wantNameUsable(t, s)
	}
}

// wantNameUsable checks that alice is an account or becomes one, and that no other account is left over.
func wantNameUsable(t *testing.T, s *user.Store) {
	t.Helper()
	if _, err := s.ByName(t.Context(), "alice"); errors.Is(err, user.ErrNotFound) {
		add(t, s, user.User{Name: "alice"})
	}
	found, err := s.ByName(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 1 || all[0].ID != found.ID {
		t.Errorf("got %+v, %v, want the one account", all, err)
	}
}

func TestStore_ofManyAddsOfOneNameOneWins(t *testing.T) {
	t.Parallel()
	s := accounts(bolt(t))
	var won, taken atomic.Int64
	var group sync.WaitGroup
	for range 30 {
		group.Go(func() {
			switch _, err := s.Add(t.Context(), user.User{Name: "alice"}); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, user.ErrNameTaken):
				taken.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 || taken.Load() != 29 {
		t.Errorf("got %d added and %d taken, want 1 and 29", won.Load(), taken.Load())
	}
	wantNameUsable(t, s)
}

func TestStore_addsAndDeletesOfOneNameLeaveNoOrphan(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) store.Records{
		"bolt":  func(t *testing.T) store.Records { return bolt(t) },
		"redis": func(t *testing.T) store.Records { return redis(t) },
	} {
		t.Run(name, func(t *testing.T) { addAndDelete(t, accounts(open(t))) })
	}
}

// addAndDelete lets eight clients add and delete one name for a while, and looks at what is left.
func addAndDelete(t *testing.T, s *user.Store) {
	t.Helper()
	var ids sync.Map
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 25 {
				added, err := s.Add(t.Context(), user.User{Name: "alice"})
				if err == nil {
					if _, again := ids.LoadOrStore(added.ID, true); again {
						t.Errorf("id %s was given twice", added.ID)
					}
				} else if !errors.Is(err, user.ErrNameTaken) {
					t.Error(err)
				}
				if found, err := s.ByName(t.Context(), "alice"); err == nil {
					if err := s.Delete(t.Context(), found.ID); err != nil && !errors.Is(err, user.ErrNotFound) {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	if all, err := s.List(t.Context()); err != nil || len(all) > 1 {
		t.Errorf("got %d accounts, %v, want one at most", len(all), err)
	}
	wantNameUsable(t, s)
}

func TestStore_listsByName(t *testing.T) {
	t.Parallel()
	s := accounts(bolt(t))
	for _, name := range []string{"carol", "alice", "bob"} {
		add(t, s, user.User{Name: name})
	}
	all, err := s.List(t.Context())
	if err != nil || len(all) != 3 || all[0].Name != "alice" || all[1].Name != "bob" || all[2].Name != "carol" {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestStore_keepsNoNameInItsKeys(t *testing.T) {
	t.Parallel()
	spy := &spy{Records: bolt(t)}
	add(t, accounts(spy), user.User{Name: "alice"})
	for _, key := range spy.puts {
		if strings.Contains(key, "alice") {
			t.Errorf("got key %q", key)
		}
	}
}
