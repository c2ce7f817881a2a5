package session

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"gatehouse/store"
)

const (
	// feedWait is how long one read of the feed waits for a message. It returns at once when there is one, so it is not the
	// delay of a revocation.
	feedWait = time.Second
	// feedTimeout is how much longer than that a read may take before the feed counts as lost.
	feedTimeout = 2 * time.Second
	// feedBatch is the most that one read returns (store.Feed): a full batch may not be all.
	feedBatch = 256

	backoffFrom = 100 * time.Millisecond
	backoffTo   = 5 * time.Second

	// sweepEvery is how often expired tokens and revocations are dropped.
	sweepEvery = 10 * time.Second
)

// follower is the state of Run; only its goroutine has it.
type follower struct {
	m      *Manager
	cursor store.Cursor
	placed bool // cursor is a place in this feed
	swept  time.Time
}

// Run follows the feed until ctx is done: it applies what other gateways revoke, reconnects when the store was away, and after
// a gap forgets every verified token and reads the watched sessions again. One Run at a time.
func (m *Manager) Run(ctx context.Context) {
	defer m.inStep.Store(false)
	m.mu.Lock()
	m.followed = m.o.Now()
	m.mu.Unlock()
	var finishing sync.WaitGroup
	defer finishing.Wait()
	finishing.Go(func() { m.finishTaken(ctx) })
	f := follower{m: m}
	backoff := backoffFrom
	for ctx.Err() == nil {
		err := f.read(ctx)
		f.sweep(m.o.Now())
		if err == nil {
			backoff = backoffFrom
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if m.inStep.Load() {
			m.o.Logger.WarnContext(ctx, "feed lost: revocations of other gateways do not arrive", "err", err)
		}
		f.lose(err)
		sleep(ctx, backoff)
		backoff = min(2*backoff, backoffTo)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// errMessage: a message on the feed is none that this version understands. It may have been a revocation.
var errMessage = errors.New("feed message cannot be understood")

// lose forgets the place in the feed where it cannot be resumed from: after a gap, and after a message that cannot be read.
func (f *follower) lose(err error) {
	f.m.lose()
	if errors.Is(err, store.ErrGap) || errors.Is(err, store.ErrSealed) || errors.Is(err, errMessage) {
		f.placed = false
		f.m.verified.forget()
	}
}

// read reads the feed once.
func (f *follower) read(ctx context.Context) error {
	m := f.m
	if !f.placed {
		if err := f.place(ctx); err != nil {
			return err
		}
	}
	wait := feedWait
	if !m.inStep.Load() || len(m.watches.stale(m.verified.epoch.Load(), 1)) > 0 {
		wait = 0 // there is something to do that is more urgent than waiting
	}
	reading, cancel := context.WithTimeout(ctx, wait+feedTimeout)
	defer cancel()
	messages, next, err := m.o.Feed.Read(reading, f.cursor, wait)
	if err != nil {
		return err
	}
	for _, message := range messages {
		if err := m.apply(message.Value); err != nil {
			return errors.Join(errMessage, err)
		}
		m.take(message.Value)
	}
	f.cursor = next
	if len(messages) < feedBatch {
		if !m.inStep.Load() {
			m.o.Logger.DebugContext(ctx, "feed in step: revocations of other gateways arrive")
		}
		m.gain(m.o.Now())
	}
	return m.recheck(ctx)
}

// place begins at the end of the feed. What was verified before is forgotten after that: a session that is read from now on was
// either deleted before, or its end is behind the cursor.
func (f *follower) place(ctx context.Context) error {
	placing, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	cursor, err := f.m.o.Feed.Tail(placing)
	if err != nil {
		return err
	}
	f.m.verified.forget()
	f.m.o.Keys.Changed() // it may have been announced in what was missed
	f.cursor, f.placed = cursor, true
	return nil
}

// maxTaken is how many endings wait to be finished here. What does not fit is left to the other gateways.
const maxTaken = 1000

// take notes an ending that has begun, so that it is finished even if who began it has died.
func (m *Manager) take(text []byte) {
	var begun message
	if json.Unmarshal(text, &begun) != nil || !begun.First || begun.By == m.name {
		return
	}
	m.finishLater(begun)
}

// finishLater leaves an ending that was announced to finishTaken.
func (m *Manager) finishLater(begun message) {
	select {
	case m.taken <- begun:
	default:
	}
}

// finishTaken deletes the records of what was announced, and does not give up before they are gone: a record that stays would
// be good again when the revocation is forgotten.
func (m *Manager) finishTaken(ctx context.Context) {
	for {
		var begun message
		select {
		case <-ctx.Done():
			return
		case begun = <-m.taken:
		}
		for backoff := backoffFrom; ctx.Err() == nil; backoff = min(2*backoff, backoffTo) {
			err := m.deleteEnded(ctx, begun)
			if own := begun.By == m.name; err == nil && own {
				begun.First = false
				err = m.announce(ctx, begun)
			}
			if err == nil {
				break
			}
			m.o.Logger.WarnContext(ctx, "ended sessions are not deleted yet", "err", err)
			sleep(ctx, backoff)
		}
	}
}

func (m *Manager) deleteEnded(ctx context.Context, begun message) error {
	user, _ := parseID(begun.User) // apply has read it
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	ended := begun.Sessions
	if begun.Before != 0 {
		// Again, for the clock may have been set back since it was taken: sessions made by the right clock are not meant.
		before := min(begun.Before, m.o.Now().UnixMicro())
		all, err := m.all(ctx, user)
		if err != nil {
			return err
		}
		for _, s := range all {
			if s.doc.Created < before && s.id.String() != begun.Except {
				ended = append(ended, s.id.String())
			}
		}
	}
	for _, session := range ended {
		if err := m.o.Records.Delete(ctx, store.SessionKey(begun.User, session), 0); err != nil {
			return err
		}
	}
	return nil
}

// sweep drops what has expired, and ends watches that have reached their limit or of which nothing has been known for longer
// than an access token lives. Tokens go before revocations, so none outlives the revocation of its session.
func (f *follower) sweep(now time.Time) {
	m := f.m
	since, lost := m.uncertainSince()
	blind := lost && now.Sub(since) >= m.limits.Load().AccessLifetime
	m.watches.end(func(w watch) bool { return blind || !now.Before(w.expires) })
	if !believable(m.revoked.newest(), now) {
		// The clock was set back: what ended by an instant that is now to come would take every new session with it until then.
		// Without the tokens that were verified, no revocation is needed.
		m.verified.forget()
		m.revoked.clear()
	}
	if age := now.Sub(f.swept); age >= 0 && age < sweepEvery {
		return
	}
	f.swept = now
	m.verified.removeIf(func(e *entry) bool { return !now.Before(e.expires) || m.revoked.covers(e.who) })
	m.revoked.sweep(now)
}
