// Package audit is the log of everything that Gatehouse decides: what a record says (event.go, trace.go) and how it gets
// to disk.
//
// The log is a folder of segments of JSON lines, one [Record] each, numbered from 1 without a gap. It promises:
//
//   - A record whose [Log.Append] returned without an error is on disk and survives a kill of the process and a power cut
//     (as far as the disk keeps what it acknowledged). Of an error the caller must assume that there is no record.
//   - Records are only ever appended. A failed write is taken back before the next one; numbers have no gap and no double.
//   - One line holds one record, whatever an attacker put into its strings ([Line]).
//   - One process writes a log ([ErrLocked]); anybody who may read the folder can read it meanwhile ([Read], [Follow]).
//   - While the disk is full only records that take access away are written, from space that was set aside for them.
//
// The package holds no secret and no global state. It knows Linux best: elsewhere the reserve is written instead of
// allocated.
package audit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The defaults of Options.
const (
	DefaultReserve = 16 << 20
	// DefaultSegmentBytes is small enough for the check at the start, which reads one segment, to take some 50 ms.
	DefaultSegmentBytes = 8 << 20
)

// The names of the files beside the segments.
const (
	lockName    = "lock"
	reserveName = "reserve"
)

// maxBatch is how many requests share one fsync at most.
const maxBatch = 256

var (
	// ErrUnavailable: the record is not known to be on disk. The effect that it stands for must not happen.
	ErrUnavailable = errors.New("audit log unavailable")
	// ErrLocked: another process writes this log.
	ErrLocked = errors.New("audit log in use")
)

// errClosed is why a closed log is unavailable.
var errClosed = errors.New("log is closed")

// Options say where a log is and how it grows. Dir, Node, Now and Logger are required.
type Options struct {
	Dir    string // created with mode 0700; refused if others may look into it
	Node   string // name of this gateway, in every record
	Now    func() time.Time
	Logger *slog.Logger
	// Observe is told of every write: its records, and how long it took by Now; or its error. It must not block. nil observes nothing.
	Observe func(records []Record, took time.Duration, err error)
	// Reserve is the space, in bytes, that is kept for records that take access away; 0 means DefaultReserve.
	Reserve int64
	// SegmentBytes is the size at which a new segment is begun; 0 means DefaultSegmentBytes. A segment can be longer by one
	// batch.
	SegmentBytes int64
}

// Log is a log that is open for writing. Safe for concurrent use.
type Log struct {
	options  Options
	lock     *os.File
	counts   counts
	requests chan request
	closing  chan struct{} // closed by Close
	stopped  chan struct{} // closed when the appender goroutine has ended
	close    sync.Once

	mu     sync.Mutex
	health error // guarded by mu; written by the appender goroutine
}

// request is a group of records that are written together or not at all.
type request struct {
	events []Event
	urgent bool        // may use the reserve
	done   chan answer // has room for one
}

type answer struct {
	records []Record
	err     error
}

// Open opens the log in a folder, or begins one. It checks the last segment in full and the first and last line of the
// others. A last line that was torn by a crash is moved into a file beside its segment and recorded (KindLogRepaired);
// any other damage is a *DamageError. ErrLocked if another process has the log. A full disk is no error here, see Healthy.
func Open(o Options) (*Log, error) {
	return open(o, osDisk{})
}

func open(o Options, d disk) (*Log, error) {
	if o.Dir == "" || o.Node == "" || o.Now == nil || o.Logger == nil {
		return nil, errors.New("open audit log: Dir, Node, Now and Logger are required")
	}
	if o.Observe == nil {
		o.Observe = func([]Record, time.Duration, error) {}
	}
	if o.Reserve == 0 {
		o.Reserve = DefaultReserve
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	l := &Log{
		options:  o,
		requests: make(chan request),
		closing:  make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	if err := l.start(d); err != nil {
		return nil, fmt.Errorf("open audit log %s: %w", o.Dir, err)
	}
	return l, nil
}

// start takes the lock, checks what is there, and starts the appender goroutine.
func (l *Log) start(d disk) error {
	if err := makeFolder(l.options.Dir); err != nil {
		return err
	}
	if err := d.SyncFolder(filepath.Dir(l.options.Dir)); err != nil {
		return err
	}
	lock, err := takeLock(filepath.Join(l.options.Dir, lockName))
	if err != nil {
		return err
	}
	l.lock = lock
	a := &appender{log: l, disk: d, epoch: rand.Text()}
	repair, err := a.open()
	if err != nil {
		return errors.Join(err, a.close(), l.lock.Close())
	}
	go a.run()
	if repair == nil {
		return nil
	}
	l.options.Logger.Warn("audit log repaired: its last line was torn", "segment", repair.Details["segment"], "kept_in", repair.Details["kept_in"])
	if _, err := l.submit(context.Background(), []Event{*repair}, true); err != nil {
		return errors.Join(err, l.Close())
	}
	return nil
}

// Append writes one record and returns it when it is on disk. It waits together with everybody else who appends: one
// fsync serves them all. Any error is, or wraps, ErrUnavailable, but for an event that cannot be a line of the log. If ctx
// ends first, the record may or may not come to be in the log. Errors are not sticky: the next Append tries the disk again.
func (l *Log) Append(ctx context.Context, e Event) (Record, error) {
	records, err := l.submit(ctx, []Event{e}, e.Kind.TakesAccessAway())
	if err != nil {
		return Record{}, fmt.Errorf("append %s: %w", e.Kind, err)
	}
	return records[0], nil
}

// submit hands events to the appender goroutine and waits for its answer.
func (l *Log) submit(ctx context.Context, events []Event, urgent bool) ([]Record, error) {
	if ctx.Err() != nil {
		return nil, unavailable(ctx.Err())
	}
	r := request{events: make([]Event, len(events)), urgent: urgent, done: make(chan answer, 1)}
	for i, e := range events {
		r.events[i] = clean(e) // copies: the caller may leave early and use its maps again
	}
	select {
	case l.requests <- r:
	case <-l.closing:
		return nil, unavailable(errClosed)
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	}
	select {
	case a := <-r.done:
		return a.records, a.err
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	}
}

// unavailable says why, in one line.
func unavailable(why error) error { return fmt.Errorf("%w: %w", ErrUnavailable, why) }

// Run writes what was counted, and tries an unhealthy disk again, each second until ctx is done.
func (l *Log) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// Errors show in Healthy and are logged by the appender; what could not be written stays counted.
			_ = l.flush()
			if l.Healthy() != nil {
				_, _ = l.submit(ctx, nil, false)
			}
		}
	}
}

// Healthy returns nil if the log could be written when it was last tried, and else why not. A log that only writes records
// that take access away is not healthy.
func (l *Log) Healthy() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.health
}

// setHealth notes and logs a change of health.
func (l *Log) setHealth(err error) {
	l.mu.Lock()
	before := l.health
	l.health = err
	l.mu.Unlock()
	switch {
	case err != nil && before == nil:
		l.options.Logger.Error("audit log cannot be written", "error", err)
	case err == nil && before != nil:
		l.options.Logger.Info("audit log can be written again")
	}
}

// Close writes what was counted, ends the appender goroutine and gives the log free for another process. Appends that run
// meanwhile end normally or with ErrUnavailable. The second Close does nothing.
func (l *Log) Close() error {
	var err error
	l.close.Do(func() {
		err = l.flush()
		close(l.closing)
		<-l.stopped
		err = errors.Join(err, l.lock.Close())
	})
	return err
}
