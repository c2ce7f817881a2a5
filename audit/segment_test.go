package audit_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatehouse/audit"
)

// segmented is a log of 30 records in several segments, closed; it returns their paths.
func segmented(t *testing.T, dir string) []string {
	t.Helper()
	o := options(dir)
	o.SegmentBytes = 2000
	l := mustOpen(t, o)
	for range 30 {
		mustAppend(t, l, login())
	}
	mustClose(t, l)
	paths := segmentPaths(t, dir)
	if len(paths) < 4 {
		t.Fatalf("got %d segments, want some", len(paths))
	}
	return paths
}

func segmentPaths(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	return paths
}

// tear cuts bytes off the end of the log.
func tear(t *testing.T, dir string, bytes int64) {
	t.Helper()
	paths := segmentPaths(t, dir)
	last := paths[len(paths)-1]
	info, err := os.Stat(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(last, info.Size()-bytes); err != nil {
		t.Fatal(err)
	}
}

func TestLog_runsOverSegments(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	paths := segmented(t, dir)
	if filepath.Base(paths[0]) != "00000000000000000001.jsonl" {
		t.Errorf("got first segment %s", paths[0])
	}
	if n := len(records(t, dir)); n != 30 {
		t.Errorf("got %d records, want 30", n)
	}
	for _, from := range []uint64{0, 1, 2, 17, 30, 31} {
		want := 31 - int(max(1, from))
		n := 0
		err := audit.Read(dir, from, func(audit.Record) error { n++; return nil })
		if err != nil || n != want {
			t.Errorf("from %d: got %d records and %v, want %d", from, n, err, want)
		}
	}
	if last, err := audit.Last(dir); err != nil || last != 30 {
		t.Errorf("got last %d, %v, want 30", last, err)
	}
	l := mustOpen(t, options(dir))
	if r := mustAppend(t, l, login()); r.Sequence != 31 {
		t.Errorf("got sequence %d, want 31", r.Sequence)
	}
}

func TestOpen_repairsATornLastLine(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	mustAppend(t, l, login())
	mustAppend(t, l, logout())
	mustClose(t, l)
	whole, err := os.ReadFile(segmentPaths(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(whole, '\n') + 1
	for end := first + 1; end < len(whole); end++ {
		dir := filepath.Join(t.TempDir(), "audit")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "00000000000000000001.jsonl")
		if err := os.WriteFile(path, whole[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		l := mustOpen(t, options(dir))
		mustAppend(t, l, login())
		mustClose(t, l)
		all := records(t, dir)
		if len(all) != 3 || all[1].Kind != audit.KindLogRepaired || all[2].Kind != audit.KindLogin {
			t.Fatalf("cut at %d: got %d records, want the first, the repair and a new one", end, len(all))
		}
		kept, err := os.ReadFile(filepath.Join(dir, all[1].Details["kept_in"]))
		if err != nil || !bytes.Equal(kept, whole[first:end]) {
			t.Fatalf("cut at %d: got %q kept, %v", end, kept, err)
		}
	}
}

func TestOpen_repairsAgainWithoutForgettingTheFirst(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	mustAppend(t, l, login())
	mustClose(t, l)
	for range 3 {
		tear(t, dir, 5)
		mustClose(t, mustOpen(t, options(dir)))
	}
	kept, err := filepath.Glob(filepath.Join(dir, "*.torn-*"))
	if err != nil || len(kept) != 3 {
		t.Errorf("got %v, %v, want three torn lines", kept, err)
	}
	if all := records(t, dir); len(all) != 1 || all[0].Kind != audit.KindLogRepaired {
		t.Errorf("got %d records, want the last repair", len(all))
	}
}

func TestOpen_goesOnInAnEmptySegment(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	segmented(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "00000000000000000031.jsonl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, options(dir))
	if r := mustAppend(t, l, login()); r.Sequence != 31 {
		t.Errorf("got sequence %d, want 31", r.Sequence)
	}
	if n := len(records(t, dir)); n != 31 {
		t.Errorf("got %d records, want 31", n)
	}
}

func TestOpen_refusesADamagedLog(t *testing.T) {
	t.Parallel()
	edit := func(path string, change func([]byte) []byte) error {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, change(content), 0o600)
	}
	lines := func(change func([][]byte) [][]byte) func([]byte) []byte {
		return func(content []byte) []byte { return bytes.Join(change(bytes.SplitAfter(content, []byte("\n"))), nil) }
	}
	for _, test := range []struct {
		name   string
		damage func(segments []string) error
		want   string // in the error
	}{
		{"last segment: no record", func(s []string) error {
			return edit(s[len(s)-1], lines(func(l [][]byte) [][]byte { l[0] = []byte("hello\n"); return l }))
		}, "line 1: it is not a record"},
		{"last segment: not JSON", func(s []string) error {
			return edit(s[len(s)-1], func(c []byte) []byte { return bytes.Replace(c, []byte(`"epoch"`), []byte(`"epoch`), 1) })
		}, "line 1: it is not a record"},
		{"last segment: record missing", func(s []string) error {
			return edit(s[len(s)-1], lines(func(l [][]byte) [][]byte { return l[1:] }))
		}, "line 1: it is record"},
		{"last segment: record twice", func(s []string) error {
			return edit(s[len(s)-1], lines(func(l [][]byte) [][]byte { return append(l[:1:1], l...) }))
		}, "line 2: it is record"},
		{"earlier segment: cut short", func(s []string) error {
			return edit(s[1], lines(func(l [][]byte) [][]byte { return l[:len(l)-2] }))
		}, "but the next segment begins with"},
		{"earlier segment: torn", func(s []string) error {
			return edit(s[1], func(c []byte) []byte { return c[:len(c)-3] })
		}, "its last line is not a record"},
		{"earlier segment: emptied", func(s []string) error {
			return os.Truncate(s[1], 0)
		}, "line 1: it is not record"},
		{"earlier segment: gone", func(s []string) error { return os.Remove(s[1]) }, "but the next segment begins with"},
		{"first segment: gone", func(s []string) error { return os.Remove(s[0]) }, "the first segment is missing"},
		{"segments swapped", func(s []string) error {
			return errors.Join(os.Rename(s[1], s[1]+"x"), os.Rename(s[2], s[1]), os.Rename(s[1]+"x", s[2]))
		}, "line 1: it is not record"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			if err := test.damage(segmented(t, dir)); err != nil {
				t.Fatal(err)
			}
			_, err := audit.Open(options(dir))
			var damage *audit.DamageError
			if !errors.As(err, &damage) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "put the file back") {
				t.Errorf("got %v, want damage: %s", err, test.want)
			}
			// What was refused is left as it is and unlocked.
			if _, again := audit.Open(options(dir)); again == nil || again.Error() != err.Error() {
				t.Errorf("second time: got %v, want %v", again, err)
			}
		})
	}
}
