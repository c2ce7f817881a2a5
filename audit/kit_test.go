package audit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatehouse/audit"
)

// childVariable, when set, makes this test binary append to the log in the folder it names until it is killed.
const childVariable = "GATEHOUSE_AUDIT_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		appendForever(dir)
	}
	goleak.VerifyTestMain(m)
}

// noon is the time of every record that a test writes.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.FixedZone("", 3600))

func options(dir string) audit.Options {
	return audit.Options{
		Dir: dir, Node: "gate-1", Now: func() time.Time { return noon }, Logger: slog.New(slog.DiscardHandler),
		Reserve: 256 << 10,
	}
}

// folder is a place for a log that does not exist yet.
func folder(t testing.TB) string { return filepath.Join(t.TempDir(), "audit") }

func mustOpen(t testing.TB, o audit.Options) *audit.Log {
	t.Helper()
	return opened(t)(audit.Open(o))
}

// opened takes what a constructor returns and closes it at the end of the test.
func opened(t testing.TB) func(*audit.Log, error) *audit.Log {
	return func(l *audit.Log, err error) *audit.Log {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
}

func mustAppend(t testing.TB, l *audit.Log, e audit.Event) audit.Record {
	t.Helper()
	r, err := l.Append(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustClose(t testing.TB, l *audit.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// records reads the whole log and checks that the numbers run from 1 without a gap.
func records(t testing.TB, dir string) []audit.Record {
	t.Helper()
	var all []audit.Record
	err := audit.Read(dir, 1, func(r audit.Record) error {
		all = append(all, r)
		if r.Sequence != uint64(len(all)) {
			return fmt.Errorf("got record %d, want %d", r.Sequence, len(all))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func login() audit.Event {
	trace := audit.NewTrace()
	trace.Of(audit.StepPassword).Verdict = audit.Fail
	trace.Of(audit.StepPassword).Reason = audit.ReasonWrongPassword
	return audit.Event{
		Kind: audit.KindLogin, Outcome: audit.Failure,
		Actor:   audit.Actor{Type: audit.ActorClient},
		Subject: audit.Subject{ID: "0123456789abcdef0123456789abcdef", Name: "alice"},
		Client:  audit.Client{Address: "192.0.2.1", Network: "192.0.2.0/24", UserAgent: "test"},
		Trace:   &trace,
	}
}

func logout() audit.Event {
	return audit.Event{Kind: audit.KindLogout, Outcome: audit.Success, Actor: audit.Actor{Type: audit.ActorUser, Name: "alice"}}
}

// testDisk is the operating system's with a limit and with faults. Files keep their content in the real file system.
type testDisk struct {
	audit.OSDisk
	mu          sync.Mutex
	limit, used int64            // bytes
	faults      map[string]error // by operation: write, sync, truncate
	syncs       int
}

func newTestDisk(limit int64) *testDisk {
	return &testDisk{limit: limit, faults: make(map[string]error)}
}

// fail makes an operation fail from now on; nil ends that.
func (d *testDisk) fail(operation string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[operation] = err
}

// fill leaves no byte free, free gives back what fill took.
func (d *testDisk) fill() (free func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := d.limit - d.used
	d.used += taken
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.used -= taken
	}
}

// grow takes as much of n bytes as there is.
func (d *testDisk) grow(n int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n = min(n, d.limit-d.used)
	d.used += n
	return n
}

func (d *testDisk) fault(operation string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if operation == "sync" {
		d.syncs++
	}
	if err := d.faults[operation]; err != nil {
		return &os.PathError{Op: operation, Path: "test", Err: err}
	}
	return nil
}

func (d *testDisk) Open(path string) (audit.File, error) {
	f, err := d.OSDisk.Open(path)
	if err != nil {
		return nil, err
	}
	return &testFile{File: f, disk: d, segment: strings.HasSuffix(path, ".jsonl")}, nil
}

type testFile struct {
	audit.File
	disk    *testDisk
	segment bool // faults are for segments only
}

func (f *testFile) WriteAt(p []byte, at int64) (int, error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	want := max(0, at+int64(len(p))-size)
	got := f.disk.grow(want)
	n, err := f.File.WriteAt(p[:int64(len(p))-(want-got)], at)
	if err == nil && got < want {
		err = syscall.ENOSPC
	}
	if fault := f.disk.fault("write"); f.segment && fault != nil {
		err = fault // after a part was written, as a disk does it
	}
	return n, err
}

func (f *testFile) Truncate(to int64) error {
	if err := f.disk.fault("truncate"); f.segment && err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	f.disk.grow(min(0, to-size))
	return f.File.Truncate(to)
}

func (f *testFile) Allocate(size int64) error {
	has, err := f.Size()
	if err != nil {
		return err
	}
	got := f.disk.grow(size - has)
	if got < size-has {
		return errors.Join(syscall.ENOSPC, f.File.Truncate(has+got))
	}
	return f.File.Allocate(size)
}

func (f *testFile) Sync() error {
	if err := f.disk.fault("sync"); f.segment && err != nil {
		return err
	}
	return f.File.Sync()
}

// appendForever is the child that gets killed. A line on its standard output acknowledges a record.
func appendForever(dir string) {
	o := options(dir)
	o.SegmentBytes = 64 << 10
	l, err := audit.Open(o)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	for range 7 {
		go appendAndTell(l, &mu, out)
	}
	appendAndTell(l, &mu, out)
}

func appendAndTell(l *audit.Log, mu *sync.Mutex, out *bufio.Writer) {
	for {
		r, err := l.Append(context.Background(), login())
		mu.Lock()
		if err != nil {
			fmt.Fprintln(out, "error", err)
		} else {
			fmt.Fprintln(out, r.Sequence, r.ID)
		}
		out.Flush()
		mu.Unlock()
	}
}
