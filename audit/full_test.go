package audit_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"gatehouse/audit"
)

func TestLog_onAFullDiskRecordsOnlyWhatTakesAccessAway(t *testing.T) {
	t.Parallel()
	dir, disk := folder(t), newTestDisk(1<<20)
	l := opened(t)(audit.OpenOn(options(dir), disk))
	playFullDisk(t, l, dir, disk.fill)
}

// playFullDisk fills the disk of a log with a reserve of 256 KiB, uses the reserve up, and gives the space back.
func playFullDisk(t *testing.T, l *audit.Log, dir string, fill func() func()) {
	t.Helper()
	mustAppend(t, l, login())
	free := fill()
	written := appendUntilFull(t, l, login())
	if l.Healthy() == nil {
		t.Error("healthy on a full disk")
	}
	for range 100 {
		mustAppend(t, l, logout())
		if _, err := l.Append(t.Context(), login()); !errors.Is(err, audit.ErrUnavailable) {
			t.Fatalf("login while the reserve serves: got %v, want ErrUnavailable", err)
		}
	}
	ended := 100 + appendUntilFull(t, l, logout())
	if ended < 400 {
		t.Errorf("got %d records out of the reserve, want at least 400", ended)
	}
	if info, err := os.Stat(filepath.Join(dir, "reserve")); err != nil || info.Size() != 0 {
		t.Errorf("the reserve was not used up: %v, %v", info, err)
	}

	free()
	mustAppend(t, l, login())
	if err := l.Healthy(); err != nil {
		t.Errorf("with space again: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "reserve")); err != nil || info.Size() != 256<<10 {
		t.Errorf("the reserve was not filled again: %v, %v", info, err)
	}
	mustClose(t, l)
	if n := len(records(t, dir)); n != 1+written+ended+1 {
		t.Errorf("got %d records, want %d", n, 1+written+ended+1)
	}
	mustClose(t, mustOpen(t, options(dir)))
}

// appendUntilFull appends until the log refuses and returns how many went well.
func appendUntilFull(t *testing.T, l *audit.Log, e audit.Event) int {
	t.Helper()
	for n := range 100_000 {
		if _, err := l.Append(t.Context(), e); err != nil {
			if !errors.Is(err, audit.ErrUnavailable) {
				t.Fatalf("got %v, want ErrUnavailable", err)
			}
			return n
		}
	}
	t.Fatal("the disk does not get full")
	return 0
}

func TestLog_opensOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir, disk := folder(t), newTestDisk(1<<20)
	l := opened(t)(audit.OpenOn(options(dir), disk))
	mustAppend(t, l, login())
	disk.fill()
	appendUntilFull(t, l, login())
	mustAppend(t, l, logout())
	mustClose(t, l)

	// The line is torn as well: the copy of it and the record of the repair come out of the reserve.
	tear(t, dir, 10)
	l = opened(t)(audit.OpenOn(options(dir), disk))
	if l.Healthy() == nil {
		t.Error("healthy on a full disk")
	}
	if _, err := l.Append(t.Context(), login()); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("login: got %v, want ErrUnavailable", err)
	}
	mustAppend(t, l, logout())
	if all := records(t, dir); all[len(all)-2].Kind != audit.KindLogRepaired {
		t.Errorf("got %q, want the record of the repair", all[len(all)-2].Kind)
	}
}

func TestLog_beginsASegmentFromTheReserve(t *testing.T) {
	t.Parallel()
	dir, disk := folder(t), newTestDisk(1<<20)
	o := options(dir)
	o.SegmentBytes = 1000
	l := opened(t)(audit.OpenOn(o, disk))
	mustAppend(t, l, login())
	free := disk.fill()
	for range 50 {
		mustAppend(t, l, logout())
	}
	free()
	mustAppend(t, l, login())
	mustClose(t, l)
	if n := len(records(t, dir)); n != 52 {
		t.Errorf("got %d records, want 52", n)
	}
	mustOpen(t, o)
}
