package boltstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"gatehouse/store"
	"gatehouse/store/boltstore"
	"gatehouse/store/storetest"
)

// The test binary runs itself as a child for what cannot be done to one's own process: being killed, and a disk that is
// full. The child's part is named by this variable, its file by the next.
const (
	childPart = "BOLTSTORE_TEST_CHILD"
	childPath = "BOLTSTORE_TEST_PATH"
	childFrom = "BOLTSTORE_TEST_FROM"
)

func TestMain(m *testing.M) {
	switch part := os.Getenv(childPart); part {
	case "":
		goleak.VerifyTestMain(m)
	case "work":
		os.Exit(childWorks())
	case "full":
		os.Exit(childFillsDisk())
	default:
		fmt.Fprintln(os.Stderr, "no such part:", part)
		os.Exit(2)
	}
}

func open(t *testing.T, path string, now func() time.Time) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(t.Context(), boltstore.Options{Path: path, Now: now, LockTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a second time for most; it says nothing then
	return s
}

func child(t *testing.T, part, path string, from int) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childPart+"="+part, childPath+"="+path, childFrom+"="+strconv.Itoa(from))
	return cmd
}

func TestStore_conforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) storetest.Engine {
		path := filepath.Join(t.TempDir(), "store.db")
		s := open(t, path, now)
		return storetest.Engine{Store: s, Reopen: func(t *testing.T) storetest.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, path, now)
		}}
	})
}

// childWorks writes until it is killed, and prints what was acknowledged.
func childWorks() int {
	s, err := boltstore.Open(context.Background(), boltstore.Options{Path: os.Getenv(childPath), Now: time.Now, LockTimeout: 5 * time.Second})
	if err == nil {
		var from int
		if from, err = strconv.Atoi(os.Getenv(childFrom)); err == nil {
			err = storetest.Work(context.Background(), s, from, os.Stdout)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func TestStore_keepsWhatItAcknowledgedWhenKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	var acknowledged bytes.Buffer
	next := 0
	for round := range storetest.Rounds(5, 1000) {
		cmd := child(t, "work", path, next)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Kill in the middle of the work, each time at another byte.
		if _, err := io.CopyN(&acknowledged, out, int64(200+round%700)); err != nil {
			t.Fatalf("the child ended by itself: %v", err)
		}
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(&acknowledged, out); err != nil { // what it had printed by then
			t.Fatal(err)
		}
		_ = cmd.Wait() // "killed"
		acknowledged.WriteByte('\n')

		s := open(t, path, time.Now)
		next = storetest.WantAcknowledged(t, s, acknowledged.String())
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("after kill %d", round+1)
		}
	}
}

// childFillsDisk stands for a disk that is full by a limit on the size of files, which the kernel enforces in the same
// place and which the child can lift again.
func childFillsDisk() int {
	signal.Ignore(syscall.SIGXFSZ) // so that writing beyond the limit is an error and not the end
	if err := fillDisk(os.Getenv(childPath)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func fillDisk(path string) error {
	ctx, k := context.Background(), store.SessionKey("u", "s")
	s, err := boltstore.Open(ctx, boltstore.Options{Path: path, Now: time.Now})
	if err != nil {
		return err
	}
	defer s.Close()
	version, err := s.Put(ctx, k, []byte("before"), 0, time.Time{})
	if err != nil {
		return err
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	full := syscall.Rlimit{Cur: uint64(info.Size()), Max: old.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		return err
	}
	for i := range 3 {
		if _, err = s.Put(ctx, k, bytes.Repeat([]byte("x"), store.MaxValue), version, time.Time{}); !errors.Is(err, store.ErrUnavailable) {
			return fmt.Errorf("Put %d on a full disk: %w", i, err)
		}
	}
	if r, err := s.Get(ctx, k); err != nil || string(r.Value) != "before" {
		return fmt.Errorf("Get on a full disk: %q, %w", r.Value, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	if _, err := s.Put(ctx, k, bytes.Repeat([]byte("x"), store.MaxValue), version, time.Time{}); err != nil {
		return fmt.Errorf("Put after there was space again: %w", err)
	}
	if err := s.Check(ctx); err != nil {
		return fmt.Errorf("Check after there was space again: %w", err)
	}
	return nil
}

func TestStore_healsAfterAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	if out, err := child(t, "full", path, 0).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, err := open(t, path, time.Now).Get(t.Context(), store.SessionKey("u", "s"))
	if err != nil || len(r.Value) != store.MaxValue {
		t.Errorf("reopened: %d bytes, %v", len(r.Value), err)
	}
}

func wantRefused(t *testing.T, path string, want ...string) {
	t.Helper()
	s, err := boltstore.Open(t.Context(), boltstore.Options{Path: path, Now: time.Now, LockTimeout: 60 * time.Millisecond})
	if err == nil {
		_ = s.Close()
		t.Fatalf("Open: no error, want %q", want)
	}
	for _, w := range append(want, path) {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Open: %v; want it to say %q", err, w)
		}
	}
}

func TestOpen_refusesASecondProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path, time.Now)
	wantRefused(t, path, "another process is using it")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path, time.Now)
}

func TestOpen_createsAPrivateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	open(t, path, time.Now)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	wantRefused(t, filepath.Join(t.TempDir(), "nowhere", "store.db"), "no such file or directory")
}

// filled writes a file with a few hundred pages and returns its path and content.
func filled(t *testing.T) (string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path, time.Now)
	for i := range 60 {
		for _, k := range []store.Key{store.SessionKey(strconv.Itoa(i%4), strconv.Itoa(i)), store.HistoryKey(strconv.Itoa(i))} {
			if _, err := s.Put(t.Context(), k, bytes.Repeat([]byte{byte(i)}, 3000), 0, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, content
}

// TestOpen_refusesADamagedFile overwrites one page after the other. A page that is in use must be noticed at Open; one
// that is free may be anything.
func TestOpen_refusesADamagedFile(t *testing.T) {
	path, content := filled(t)
	const page = 4096
	refused := 0
	pages := len(content) / page
	for p := 2; p < pages; p += max(1, pages/storetest.Rounds(40, pages)) {
		damaged := bytes.Clone(content)
		for i := range page {
			damaged[p*page+i] = 0xA5
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := boltstore.Open(t.Context(), boltstore.Options{Path: path, Now: time.Now})
		if err != nil {
			if !strings.Contains(err.Error(), "is damaged") {
				t.Errorf("page %d: %v", p, err)
			}
			refused++
			continue
		}
		if err := s.Close(); err != nil {
			t.Errorf("page %d: close: %v", p, err)
		}
	}
	if refused == 0 {
		t.Error("no damage was noticed")
	}
	t.Logf("%d pages, refused %d", pages, refused)

	for name, content := range map[string][]byte{
		"text":      []byte(strings.Repeat("this is no store\n", 1000)),
		"truncated": content[:3*page+100],
		"meta":      append(bytes.Repeat([]byte{0xA5}, 2*page), content[2*page:]...),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { wantRefused(t, path, "is damaged", "backup") })
	}
}

// TestStore_refusesEverythingOnceItsFileIsDamaged takes the file away under the mapping, which is what a failing disk does.
func TestStore_refusesEverythingOnceItsFileIsDamaged(t *testing.T) {
	for _, first := range []string{"read", "write"} {
		t.Run(first, func(t *testing.T) {
			path, content := filled(t)
			s := open(t, path, time.Now)
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			if first == "read" {
				if _, err := s.Get(t.Context(), store.HistoryKey("1")); !errors.Is(err, store.ErrUnavailable) {
					t.Errorf("Get: %v, want ErrUnavailable", err)
				}
			} else if err := s.Check(t.Context()); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Check: %v, want ErrUnavailable", err)
			}
			storetest.WantUnavailable(t, t.Context(), s)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			storetest.WantUnavailable(t, t.Context(), s) // what it read in between cannot be told apart
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			open(t, path, time.Now) // the lock is free
		})
	}
}

// TestStore_sharesCommits counts the transactions of many writers.
func TestStore_sharesCommits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	commits := func() int {
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		id := 0
		if err := db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil }); err != nil {
			t.Fatal(err)
		}
		return id
	}
	s := open(t, path, time.Now)
	const writers = 200
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			if _, _, err := s.Advance(t.Context(), "c", 0, 1, writers, time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := commits(); n > writers/2 {
		t.Errorf("%d writers took %d commits", writers, n)
	} else {
		t.Logf("%d writers took %d commits", writers, n)
	}
}

// TestStore_collectsGarbage looks at the file's growth: a store that is used for ever with short-lived records and
// counters stays small, and a record that ended without a successor goes by Sweep.
func TestStore_collectsGarbage(t *testing.T) {
	clock := storetest.NewClock(time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC))
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path, clock.Now)
	ctx := t.Context()
	for i := range 400 {
		id := strconv.Itoa(i)
		for _, k := range []store.Key{store.PendingKey(id), store.SessionKey(id, "1"), store.LockoutKey("tag", id)} {
			if _, err := s.Put(ctx, k, make([]byte, 1000), 0, clock.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := s.Advance(ctx, store.CounterKey("bucket/"+id), 0, 1, 10, time.Minute); err != nil {
			t.Fatal(err)
		}
		clock.Move(time.Minute)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 512<<10 {
		t.Errorf("the file has %d bytes after 1.2 MB of short-lived records, %v", info.Size(), err)
	}
	if _, err := s.Put(ctx, store.UserKey("u"), nil, 0, time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, moved := range []time.Duration{store.GarbageMargin - time.Minute, 2 * time.Minute} {
		clock.Move(moved)
		for range 3 {
			if err := s.Sweep(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	clock.Move(-24 * time.Hour) // whatever is still there would be found now
	for i := range 400 {
		id := strconv.Itoa(i)
		for _, k := range []store.Key{store.PendingKey(id), store.SessionKey(id, "1"), store.LockoutKey("tag", id)} {
			if _, err := s.Get(ctx, k); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s is still there: %v", k, err)
			}
		}
		if _, found, err := s.Peek(ctx, store.CounterKey("bucket/"+id)); found || err != nil {
			t.Errorf("bucket %s is still there: %v", id, err)
		}
	}
	if _, err := s.Get(ctx, store.UserKey("u")); err != nil {
		t.Errorf("a record without an end: %v", err)
	}
}
