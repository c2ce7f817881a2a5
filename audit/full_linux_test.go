package audit_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The same story as on the test disk, on a real file system that is really full. Where mounting is not permitted, only
// the other one is told.
func TestLog_onAFullFileSystem(t *testing.T) {
	place := t.TempDir()
	err := unix.Mount("tmpfs", place, "tmpfs", 0, "size=1m")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Log("mounting is not permitted here")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	dir := filepath.Join(place, "audit")
	l := mustOpen(t, options(dir))
	playFullDisk(t, l, dir, func() func() {
		ballast := filepath.Join(place, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill the disk: got %v, want no space left", err)
		}
		return func() {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
		}
	})
}
