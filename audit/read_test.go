package audit_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/audit"
)

func TestFollow_deliversWhatComesAcrossSegments(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		o := options(dir)
		o.SegmentBytes = 1500
		l, err := audit.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got []uint64
		ended := make(chan error)
		go func() {
			ended <- audit.Follow(ctx, dir, 3, func(r audit.Record) error {
				got = append(got, r.Sequence)
				return nil
			})
		}()
		for range 20 {
			mustAppend(t, l, login())
			time.Sleep(time.Second)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("after cancel: got %v, want nil", err)
		}
		if len(got) != 18 || got[0] != 3 || got[17] != 20 {
			t.Errorf("got %v, want 3 to 20", got)
		}
	})
}

func TestFollow_endsWithTheCallersError(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	mustAppend(t, l, login())
	stop := errors.New("enough")
	if err := audit.Follow(t.Context(), dir, 1, func(audit.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
}

func TestFollow_reportsDamageThatStays(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	mustAppend(t, l, login())
	mustClose(t, l)
	if err := os.WriteFile(segmentPaths(t, dir)[0], []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var damage *audit.DamageError
		if err := audit.Follow(t.Context(), dir, 1, func(audit.Record) error { return nil }); !errors.As(err, &damage) {
			t.Errorf("got %v, want damage", err)
		}
	})
}

func TestRead_leavesOutALineThatIsBeingWritten(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	mustAppend(t, l, login())
	mustAppend(t, l, login())
	mustClose(t, l)
	tear(t, dir, 1)
	if n := len(records(t, dir)); n != 1 {
		t.Errorf("got %d records, want 1", n)
	}
	if last, err := audit.Last(dir); err != nil || last != 1 {
		t.Errorf("got last %d, %v, want 1", last, err)
	}
}
