package lockout

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"gatehouse/store"
)

// entry is one attempt in a window.
type entry struct {
	ID string `json:"id"`
	// At is when it was reserved or, once Failed, when it failed.
	At     time.Time `json:"at"`
	Failed bool      `json:"failed,omitempty"`
}

// window is one record: the attempts of one subject and class.
type window struct {
	Subject string    `json:"subject"`
	Class   string    `json:"class"`
	Entries []entry   `json:"entries,omitempty"` // at most limit of them
	Until   time.Time `json:"until,omitzero"`    // the end of the lock
	Run     int       `json:"run,omitempty"`     // consecutive failures, of strangers
	Last    time.Time `json:"last,omitzero"`     // the last failure
}

// empty reports whether the window holds nothing that could change an answer.
func (w *window) empty(now time.Time) bool {
	return len(w.Entries) == 0 && w.Run == 0 && !w.Until.After(now)
}

// failures counts the entries that failed.
func (w *window) failures() int {
	n := 0
	for _, e := range w.Entries {
		if e.Failed {
			n++
		}
	}
	return n
}

// rules is what a window is read by. Its methods are pure: the same window at the same time gives the same answer.
type rules struct {
	limit           int
	within, lockFor time.Duration
	runLimit        int
}

// open reads a record as of now: times that cannot be are corrected, attempts whose verdict never came are failures, and what
// is older than the window is gone. corrected says that the record relies on times that are not believed and has to be
// written again. No record is an empty window of subject and class.
func (r rules) open(record store.Record, subject, class string, now time.Time) (w window, corrected bool, err error) {
	w = window{Subject: subject, Class: class}
	if record.Version == 0 {
		return w, false, nil
	}
	if err := json.Unmarshal(record.Value, &w); err != nil {
		return window{}, false, fmt.Errorf("read %s: %w", record.Key, err)
	}
	corrected = r.correct(&w, now)
	r.collectLost(&w, now)
	w.Entries = slices.DeleteFunc(w.Entries, func(e entry) bool { return e.Failed && now.Sub(e.At) >= r.within })
	return w, corrected, nil
}

// correct takes back times that only a clock ahead of now can have written: no attempt was made after now, and no lock ends
// later than a whole lock from now. It has to be written even where the attempt is refused, else the correction would move
// along with now, and a clock that was once a year ahead would lock for a year. After that one write the times are in the past.
func (r rules) correct(w *window, now time.Time) (corrected bool) {
	for i := range w.Entries {
		if w.Entries[i].At.After(now) {
			w.Entries[i].At, corrected = now, true
		}
	}
	if latest := now.Add(r.lockFor); w.Until.After(latest) {
		w.Until, corrected = latest, true
	}
	if w.Last.After(now) {
		w.Last, corrected = now, true
	}
	return corrected
}

// collectLost turns attempts whose verdict never came into failures, in the order in which they were lost. Their verdict is
// not known, so they count like wrong ones: a gateway that dies with every guess would otherwise give guesses away.
func (r rules) collectLost(w *window, now time.Time) {
	slices.SortStableFunc(w.Entries, func(a, b entry) int { return a.At.Compare(b.At) })
	for i, e := range w.Entries {
		if lost := e.At.Add(lostAfter); !e.Failed && !lost.After(now) {
			r.fail(w, i, lost)
		}
	}
}

// fail makes entry i a failure at a time. The one that fills the window sets the lock, from its own time.
func (r rules) fail(w *window, i int, at time.Time) {
	w.Entries[i].Failed, w.Entries[i].At = true, at
	w.Last = later(w.Last, at)
	if r.runs(w.Class) {
		w.Run++
	}
	inWindow := 0
	for _, e := range w.Entries {
		if e.Failed && at.Sub(e.At) < r.within {
			inWindow++
		}
	}
	if inWindow >= r.limit {
		w.Until = later(w.Until, at.Add(r.lockFor))
	}
}

// refusal says why no slot can be taken, or nil.
func (r rules) refusal(w window, now time.Time) error {
	switch until := r.lockedUntil(w, now); {
	case r.closed(w):
		return &LockedError{Until: now.Add(r.lockFor), Closed: true}
	case until.After(now):
		return &LockedError{Until: until}
	case len(w.Entries) >= r.limit:
		return ErrBusy
	}
	return nil
}

// runs reports whether consecutive failures of a class are counted.
func (r rules) runs(class string) bool { return class == Stranger && r.runLimit > 0 }

func (r rules) closed(w window) bool { return r.runLimit > 0 && w.Run >= r.runLimit }

// lockedUntil is when the window takes the next attempt; not after now if it does already. Where a lock is shorter than the
// window, a full window locks until enough of its failures have left it.
func (r rules) lockedUntil(w window, now time.Time) time.Time {
	until := w.Until
	var failed []time.Time
	for _, e := range w.Entries {
		if e.Failed {
			failed = append(failed, e.At)
		}
	}
	if full := len(failed) - r.limit; full >= 0 {
		slices.SortFunc(failed, time.Time.Compare)
		until = later(until, failed[full].Add(r.within))
	}
	return until
}

func (r rules) settled(w window, now time.Time) Settled {
	s := Settled{Failures: w.failures(), Run: w.Run, Closed: r.closed(w)}
	if until := r.lockedUntil(w, now); until.After(now) {
		s.Locked, s.Until = true, until
	}
	if s.Closed {
		s.Locked, s.Until = true, now.Add(r.lockFor)
	}
	return s
}

func (r rules) status(w window, now time.Time) Status {
	s := Status{Subject: w.Subject, Class: w.Class, Failures: w.failures(), Run: w.Run, Closed: r.closed(w), Last: w.Last}
	s.Reserved = len(w.Entries) - s.Failures
	if until := r.lockedUntil(w, now); until.After(now) {
		s.Locked, s.Until = true, until
	}
	return s
}

// seal writes a window with the time after which it holds nothing; an empty one is no record.
func (r rules) seal(w window, now time.Time) ([]byte, time.Time, error) {
	if w.empty(now) {
		return nil, time.Time{}, nil
	}
	ends := w.Until
	for _, e := range w.Entries {
		switch {
		case e.Failed:
			ends = later(ends, e.At.Add(r.within))
		case r.runs(w.Class): // it may yet be lost, and be a failure of the run
			ends = later(ends, e.At.Add(lostAfter+runKept))
		default: // it may yet be lost, and be the failure that locks
			ends = later(ends, e.At.Add(lostAfter+max(r.within, r.lockFor)))
		}
	}
	if w.Run > 0 {
		ends = later(ends, w.Last.Add(runKept))
	}
	value, err := json.Marshal(w)
	return value, ends, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
