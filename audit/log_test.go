package audit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/audit"
)

func TestLog_placesEveryRecord(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	first, second := mustAppend(t, l, login()), mustAppend(t, l, login())
	mustClose(t, l)
	l = mustOpen(t, options(dir))
	third := mustAppend(t, l, login())

	// AU-10: equal events at one time are two records, and a restart goes on with the numbers.
	if first.Sequence != 1 || second.Sequence != 2 || third.Sequence != 3 {
		t.Errorf("got sequences %d, %d, %d, want 1, 2, 3", first.Sequence, second.Sequence, third.Sequence)
	}
	if first.ID == second.ID || len(first.ID) < 26 {
		t.Errorf("got ids %q and %q, want two of 128 random bits", first.ID, second.ID)
	}
	if first.Epoch != second.Epoch || first.Epoch == third.Epoch {
		t.Errorf("got epochs %q, %q and after a restart %q", first.Epoch, second.Epoch, third.Epoch)
	}
	if want := time.Date(2026, 11, 23, 11, 0, 0, 123456000, time.UTC); first.Time != want || first.Node != "gate-1" {
		t.Errorf("got time %v of node %q, want %v of gate-1", first.Time, first.Node, want)
	}
	all := records(t, dir)
	if len(all) != 3 || all[0].ID != first.ID || all[2].ID != third.ID {
		t.Fatalf("got %d records from disk, want the 3 appended", len(all))
	}
	if got := all[0]; got.Severity != audit.Info || got.Trace.Of(audit.StepPassword).Reason != audit.ReasonWrongPassword {
		t.Errorf("got severity %q and trace %v", got.Severity, got.Trace)
	}
}

func TestLog_isForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	mustAppend(t, l, login())
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Open(options(dir)); !errors.Is(err, audit.ErrLocked) {
		t.Errorf("second log on one folder: got %v, want ErrLocked", err)
	}
	mustClose(t, l)
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Open(options(dir)); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("folder open to a group: got %v, want what to do", err)
	}
}

func TestLog_closedIsUnavailable(t *testing.T) {
	t.Parallel()
	l := mustOpen(t, options(folder(t)))
	mustClose(t, l)
	mustClose(t, l)
	if _, err := l.Append(t.Context(), login()); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestLog_cancelledAppendWritesNothing(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := l.Append(ctx, login())
	if !errors.Is(err, audit.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want ErrUnavailable and why", err)
	}
	if n := len(records(t, dir)); n != 0 {
		t.Errorf("got %d records, want 0", n)
	}
}

func TestLog_oneSyncServesAllThatWait(t *testing.T) {
	t.Parallel()
	const writers, each = 32, 20
	dir, disk := folder(t), newTestDisk(1<<30)
	l := opened(t)(audit.OpenOn(options(dir), disk))
	var wait sync.WaitGroup
	for range writers {
		wait.Go(func() {
			for range each {
				if _, err := l.Append(t.Context(), login()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if n := len(records(t, dir)); n != writers*each {
		t.Errorf("got %d records, want %d", n, writers*each)
	}
	if disk.syncs > writers*each/2 {
		t.Errorf("got %d syncs for %d records of %d writers", disk.syncs, writers*each, writers)
	}
}

func TestLog_takesBackAFailedWrite(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"write", "sync"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			dir, disk := folder(t), newTestDisk(1<<30)
			l := opened(t)(audit.OpenOn(options(dir), disk))
			mustAppend(t, l, login())

			disk.fail(operation, syscall.EIO)
			for range 3 {
				if _, err := l.Append(t.Context(), logout()); !errors.Is(err, audit.ErrUnavailable) {
					t.Fatalf("got %v, want ErrUnavailable", err)
				}
			}
			if l.Healthy() == nil {
				t.Error("the log calls itself healthy")
			}
			disk.fail(operation, nil)
			// The one that is written over what failed is shorter: nothing of the failed ones may stay behind it.
			if r := mustAppend(t, l, audit.Event{Kind: audit.KindStarted}); r.Sequence != 2 {
				t.Errorf("got sequence %d, want 2", r.Sequence)
			}
			if err := l.Healthy(); err != nil {
				t.Errorf("after it healed: got %v, want nil", err)
			}
			mustClose(t, l)
			if n := len(records(t, dir)); n != 2 {
				t.Errorf("got %d records, want 2", n)
			}
			mustOpen(t, options(dir))
		})
	}
}

func TestLog_writesNothingBeforeTheFailureIsTakenBack(t *testing.T) {
	t.Parallel()
	dir, disk := folder(t), newTestDisk(1<<30)
	l := opened(t)(audit.OpenOn(options(dir), disk))
	disk.fail("sync", syscall.EIO)
	disk.fail("truncate", syscall.EIO)
	if _, err := l.Append(t.Context(), login()); !errors.Is(err, audit.ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	disk.fail("sync", nil)
	if _, err := l.Append(t.Context(), login()); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("with the failed write still there: got %v, want ErrUnavailable", err)
	}
	disk.fail("truncate", nil)
	if r := mustAppend(t, l, login()); r.Sequence != 1 {
		t.Errorf("got sequence %d, want 1", r.Sequence)
	}
	if n := len(records(t, dir)); n != 1 {
		t.Errorf("got %d records, want 1", n)
	}
}

func TestLog_refusesOnlyTheEventThatIsTooLong(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	huge := login()
	huge.Details = make(map[string]string)
	for i := range 1000 {
		huge.Details[fmt.Sprint(i)] = strings.Repeat("\x1b", audit.MaxString)
	}
	if _, err := l.Append(t.Context(), huge); err == nil {
		t.Error("an event of megabytes was appended")
	}
	if r := mustAppend(t, l, login()); r.Sequence != 1 {
		t.Errorf("got sequence %d, want 1", r.Sequence)
	}
	if err := l.Healthy(); err != nil {
		t.Errorf("got %v, want a healthy log", err)
	}
}

func TestLog_healsUnasked(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		disk := newTestDisk(1 << 30)
		l, err := audit.OpenOn(options(dir), disk)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go l.Run(ctx)
		disk.fail("write", syscall.EIO)
		if _, err := l.Append(ctx, login()); err == nil {
			t.Fatal("appended to a broken disk")
		}
		time.Sleep(5 * time.Second)
		if l.Healthy() == nil {
			t.Error("healthy on a broken disk")
		}
		disk.fail("write", nil)
		time.Sleep(2 * time.Second)
		if err := l.Healthy(); err != nil {
			t.Errorf("a readiness check would keep everybody away for ever: %v", err)
		}
	})
}

func TestLog_keepsWhatItAcknowledgedThroughKill(t *testing.T) {
	t.Parallel()
	rounds := 4
	if os.Getenv("GATEHOUSE_PROVE") == "1" {
		rounds = 500
	}
	dir := folder(t)
	var checked uint64 // by earlier rounds
	for round := range rounds {
		acknowledged := killOneChild(t, dir, 50+37*round%400)
		l, err := audit.Open(options(dir))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		mustClose(t, l)
		err = audit.Read(dir, checked+1, func(r audit.Record) error {
			checked++
			if r.Sequence != checked {
				return fmt.Errorf("got record %d, want %d", r.Sequence, checked)
			}
			if id, found := acknowledged[r.Sequence]; found && id != r.ID {
				return fmt.Errorf("record %d has id %s, acknowledged was %s", r.Sequence, r.ID, id)
			}
			delete(acknowledged, r.Sequence)
			return nil
		})
		if err != nil || len(acknowledged) > 0 {
			t.Fatalf("round %d: %v; acknowledged and lost: %v", round, err, acknowledged)
		}
	}
	if n := len(records(t, dir)); uint64(n) != checked {
		t.Errorf("got %d records in the end, want %d", n, checked)
	}
}

// killOneChild kills a child after it acknowledged some records and returns the ids of all that it had acknowledged by then.
func killOneChild(t *testing.T, dir string, after int) map[uint64]string {
	t.Helper()
	acknowledged := make(map[uint64]string)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	lines := bufio.NewReader(out)
	for n := 1; ; n++ {
		line, err := lines.ReadString('\n')
		if err != nil { // the pipe is empty and the child is dead
			return acknowledged
		}
		var sequence uint64
		var id string
		if _, err := fmt.Sscan(line, &sequence, &id); err != nil {
			t.Fatalf("child says %q", line)
		}
		acknowledged[sequence] = id
		if n == after {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
