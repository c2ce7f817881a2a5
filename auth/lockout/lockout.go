// Package lockout counts failures of one subject (an account's name, or its second factor) in a sliding window for each class
// of client, and refuses before the next guess is verified.
//
// It promises: an attempt takes its slot before it is verified, in one atomic write, so that of any number of attempts at
// once, on any number of gateways, at most Limit are verified in a window; the fifth failure within 15 minutes locks for 15
// minutes from its own time; refused attempts neither write nor prolong; a right password takes back its own slot and clears
// nothing else; a verdict that never came counts as a failure; and nothing about the client, who may go away, undoes a count.
// A window full only of attempts under way is ErrBusy and never locked.
//
// Strangers share one window and each known device has its own, so that nobody outside can lock the owner out (OWASP, "Slow
// Down Online Guessing Attacks with Device Cookies"). Consecutive failures of strangers are counted apart from the window, and
// at RunLimit the subject is closed to strangers (NIST SP 800-63B-4, section 3.2.2, asks for at most 100).
package lockout

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"gatehouse/store"
)

// Stranger is the class of clients without a known device. Every other class is a device id.
const Stranger = "stranger"

// The defaults, and the bounds that are not options.
const (
	defaultLimit   = 5
	defaultWithin  = 15 * time.Minute
	defaultLockFor = 15 * time.Minute
	// lostAfter is when an attempt whose verdict has not come counts as a failure. A verification takes seconds at the worst.
	lostAfter = 30 * time.Second
	// runKept is how long a run of failures is remembered after its last failure.
	runKept = 30 * 24 * time.Hour
	// patience bounds one write, whose context no longer ends with the client, where the caller gave no deadline.
	patience = 5 * time.Second
)

// ErrBusy says that the window has no slot only because other attempts are being verified. It passes within a moment.
var ErrBusy = errors.New("every slot of the window is being verified")

// LockedError refuses an attempt. It reads the same whether the subject exists or not.
type LockedError struct {
	// Until is when the next attempt may be made; of a closed subject always now + LockFor, so that nobody can tell.
	Until time.Time
	// Closed: the run of strangers' failures reached its limit. Time alone does not open it; Reset does.
	Closed bool
}

func (e *LockedError) Error() string {
	if e.Closed {
		return "closed to strangers"
	}
	return "locked until " + e.Until.UTC().Format(time.RFC3339)
}

// Outcome is what a verification came to. The zero Outcome is Wrong: an outcome somebody forgot to set counts.
type Outcome int

// The outcomes.
const (
	Wrong Outcome = iota
	Right
	// NotVerified: nothing was compared, so nothing was learned and nothing counts.
	NotVerified
)

// Options say what is counted and where. Records, Now, Key and Shard are required.
type Options struct {
	Records store.Records
	Now     func() time.Time
	// Key names the record of a subject and class: store.LockoutKey or store.CodesKey. All classes of one subject are in
	// one collection.
	Key func(subject, class string) store.Key
	// Shard names the collections that Key spreads over, from 0 to store.Shards−1: store.LockoutShard or store.CodesShard.
	Shard func(n int) store.Collection
	// Limit is how many failures within Within lock for LockFor; 0 is 5, 15 minutes and 15 minutes.
	Limit           int
	Within, LockFor time.Duration
	// RunLimit is how many consecutive failures close the subject to strangers; 0 is never.
	RunLimit int
}

// Windows counts. Any number of Windows, in any number of processes, may share one store. Safe for concurrent use.
type Windows struct {
	records store.Records
	now     func() time.Time
	key     func(subject, class string) store.Key
	shard   func(n int) store.Collection
	rules   rules
}

// New makes a Windows.
func New(o Options) *Windows {
	return &Windows{records: o.Records, now: o.Now, key: o.Key, shard: o.Shard, rules: rules{
		limit:    cmp.Or(o.Limit, defaultLimit),
		within:   cmp.Or(o.Within, defaultWithin),
		lockFor:  cmp.Or(o.LockFor, defaultLockFor),
		runLimit: o.RunLimit,
	}}
}

// Reservation is a slot taken for one attempt. It is to be settled once, whatever happens.
type Reservation struct {
	key store.Key
	id  string
	// written is the record with this slot, so that settling it, in the usual case that nobody came in between, needs no read.
	written store.Record
}

// Reserve takes a slot for one attempt, which may be verified only if this returns no error. *LockedError if the window is
// locked or the subject closed; ErrBusy if every slot left is under verification; else the store did not answer.
//
// The write ends when it is done or its deadline comes, not when the client goes away: else a client could leave slots behind
// that nobody settles, and they would count as the owner's failures.
func (w *Windows) Reserve(ctx context.Context, subject, class string) (Reservation, error) {
	if err := ctx.Err(); err != nil {
		return Reservation{}, fmt.Errorf("reserve slot: %w", err)
	}
	ctx, cancel := unhurried(ctx)
	defer cancel()
	r := Reservation{key: w.key(subject, class), id: rand.Text()}
	var refused error
	absent := store.Record{Key: r.key} // as it is unless something went wrong lately
	var err error
	r.written, err = w.update(ctx, absent, func(old store.Record) ([]byte, time.Time, error) {
		now := w.now().UTC()
		win, corrected, err := w.rules.open(old, subject, class, now)
		if err != nil {
			return nil, time.Time{}, err
		}
		if refused = w.rules.refusal(win, now); refused == nil {
			win.Entries = append(win.Entries, entry{ID: r.id, At: now})
		} else if !corrected {
			return nil, time.Time{}, refused
		}
		return w.rules.seal(win, now)
	})
	if refused != nil && err == nil {
		err = refused
	}
	if err != nil {
		return Reservation{}, fmt.Errorf("reserve slot: %w", err)
	}
	return r, nil
}

// update is store.Update that first assumes the record to be as in guess, which saves the read. If it is not, nothing was
// written and store.Update follows. What was written is returned, with version 0 if it is not known: it is a guess again.
func (w *Windows) update(ctx context.Context, guess store.Record, change func(store.Record) ([]byte, time.Time, error)) (store.Record, error) {
	written := store.Record{Key: guess.Key}
	old := store.Record{Key: guess.Key, Value: slices.Clone(guess.Value), Version: guess.Version}
	value, expires, err := change(old)
	switch {
	case err != nil:
		err = store.ErrConflict // what was decided on a guess is decided again
	case value == nil && old.Version == 0:
		return written, nil
	case value == nil:
		err = w.records.Delete(ctx, guess.Key, old.Version)
	default:
		written.Value = value
		written.Version, err = w.records.Put(ctx, guess.Key, value, old.Version, expires)
	}
	if errors.Is(err, store.ErrConflict) {
		return store.Record{Key: guess.Key}, store.Update(ctx, w.records, guess.Key, change)
	}
	return written, err
}

// Settled is the state of the window behind one settled attempt.
type Settled struct {
	// Failures is how many other failures are in the window.
	Failures int
	// Locked: the next attempt is refused, until Until.
	Locked bool
	Until  time.Time
	// Closed: the run has reached its limit.
	Closed bool
	// Run is how many failures of strangers have followed each other; 0 in other classes.
	Run int
}

// Settle ends an attempt. A failure has the time of this call, and if it is the last that fits, it locks from that time on.
// Right and NotVerified take the attempt's own slot back and leave everything else. A reservation that is unknown, because the
// window was reset or the verdict came too late and has counted as lost, settles nothing, so settling twice is settling once.
//
// The write ends when it is done or its deadline comes, not when the client goes away.
func (w *Windows) Settle(ctx context.Context, r Reservation, how Outcome) (Settled, error) {
	ctx, cancel := unhurried(ctx)
	defer cancel()
	var settled Settled
	_, err := w.update(ctx, r.written, func(old store.Record) ([]byte, time.Time, error) {
		now := w.now().UTC()
		win, _, err := w.rules.open(old, "", "", now)
		if err != nil {
			return nil, time.Time{}, err
		}
		i := slices.IndexFunc(win.Entries, func(e entry) bool { return e.ID == r.id && !e.Failed })
		if i < 0 {
			settled = w.rules.settled(win, now)
			return nil, time.Time{}, errUnchanged
		}
		if how == Wrong {
			w.rules.fail(&win, i, now)
		} else {
			win.Entries = slices.Delete(win.Entries, i, i+1)
		}
		settled = w.rules.settled(win, now)
		if how == Wrong {
			settled.Failures--
		}
		return w.rules.seal(win, now)
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return Settled{}, fmt.Errorf("settle slot: %w", err)
	}
	return settled, nil
}

// EndRun ends the run of consecutive failures of a class after a complete login of that class. The window stays as it is. A
// subject that is closed stays closed: a login that had begun before cannot open it, only Reset does.
func (w *Windows) EndRun(ctx context.Context, subject, class string) error {
	if !w.rules.runs(class) {
		return nil
	}
	err := store.Update(ctx, w.records, w.key(subject, class), func(old store.Record) ([]byte, time.Time, error) {
		now := w.now().UTC()
		win, _, err := w.rules.open(old, subject, class, now)
		if err != nil {
			return nil, time.Time{}, err
		}
		if win.Run == 0 || w.rules.closed(win) {
			return nil, time.Time{}, errUnchanged
		}
		win.Run = 0
		return w.rules.seal(win, now)
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return fmt.Errorf("end run of failures: %w", err)
	}
	return nil
}

// Status is one window as an administrator sees it.
type Status struct {
	Subject, Class string
	Failures       int // in the window
	Reserved       int // attempts under way
	Locked         bool
	Until          time.Time // the end of the lock; zero if there is none
	Closed         bool      // to strangers
	Run            int
	Last           time.Time // of the last failure; zero if none is remembered
}

// Status returns the windows of a subject that hold anything, by class. A subject without one has no status and no error.
func (w *Windows) Status(ctx context.Context, subject string) ([]Status, error) {
	all, err := w.list(ctx, w.key(subject, Stranger).Collection)
	if err != nil {
		return nil, fmt.Errorf("status of lockout: %w", err)
	}
	return slices.DeleteFunc(all, func(s Status) bool { return s.Subject != subject }), nil
}

// List returns every window that holds anything, by subject and class.
func (w *Windows) List(ctx context.Context) ([]Status, error) {
	var all []Status
	for n := range store.Shards {
		some, err := w.list(ctx, w.shard(n))
		if err != nil {
			return nil, fmt.Errorf("list lockouts: %w", err)
		}
		all = append(all, some...)
	}
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Class, b.Class))
	})
	return all, nil
}

// Reset clears the windows of a subject in every class, the run of failures with them, and returns what was cleared; also
// beside an error, if some were. Attempts under way were counted before it and settle nothing after it: each is in what is
// returned, or begins in an empty window.
func (w *Windows) Reset(ctx context.Context, subject string) ([]Status, error) {
	held, err := w.Status(ctx, subject)
	if err != nil {
		return nil, fmt.Errorf("reset lockout: %w", err)
	}
	var cleared []Status
	for _, s := range held {
		gone, err := w.clear(ctx, subject, s.Class)
		if err != nil {
			return cleared, fmt.Errorf("reset lockout: %w", err)
		}
		if gone != nil {
			cleared = append(cleared, *gone)
		}
	}
	return cleared, nil
}

// clear removes one window as it is at that moment, and returns it; nil if it held nothing.
func (w *Windows) clear(ctx context.Context, subject, class string) (*Status, error) {
	var gone *Status
	err := store.Update(ctx, w.records, w.key(subject, class), func(old store.Record) ([]byte, time.Time, error) {
		now := w.now().UTC()
		win, _, err := w.rules.open(old, subject, class, now)
		gone = nil
		if err == nil && !win.empty(now) {
			gone = new(w.rules.status(win, now))
		}
		return nil, time.Time{}, err
	})
	return gone, err
}

func (w *Windows) list(ctx context.Context, collection store.Collection) ([]Status, error) {
	records, err := w.records.List(ctx, collection)
	if err != nil {
		return nil, err
	}
	var all []Status
	now := w.now().UTC()
	for _, record := range records {
		win, _, err := w.rules.open(record, "", "", now)
		if err != nil {
			return nil, err
		}
		if !win.empty(now) {
			all = append(all, w.rules.status(win, now))
		}
	}
	return all, nil
}

// errUnchanged ends an Update that has nothing to write.
var errUnchanged = errors.New("nothing to write")

// unhurried is ctx without its cancellation but with its deadline, or with patience if it has none.
func unhurried(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if ok {
		return context.WithDeadline(ctx, deadline)
	}
	return context.WithTimeout(ctx, patience)
}
