package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"gatehouse/store"
)

// watches are the sessions on which something long hangs: an upgraded connection, a stream. One channel serves all of a
// session, until it ends; so there are never more than sessions that were used in that way and live.
type watches struct {
	mu   sync.Mutex
	held map[id]watch // guarded by mu
}

type watch struct {
	who     subject
	expires time.Time
	epoch   uint64 // of the verified tokens when the session was last read; an older one has to be read again
	ended   chan struct{}
}

// Ended returns a channel that is closed when the session is revoked or reaches its absolute limit, and also when this gateway
// was out of step with the feed for longer than an access token lives, because it then cannot know (the session itself goes
// on). It is closed already if any of this has happened. It needs Run.
func (m *Manager) Ended(p Principal) <-chan struct{} {
	who, ok := p.subject()
	if !ok {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	ended := m.watches.add(watch{who: who, expires: p.ExpiresAt, epoch: p.epoch, ended: make(chan struct{})})
	// After the watch is there: a revocation that came before it is seen here, a later one sees the watch
	// (TestManager_Ended_whenAlreadyRevoked).
	if m.revoked.covers(who) || !m.o.Now().Before(p.ExpiresAt) {
		m.watches.end(func(w watch) bool { return w.who.session == who.session })
	}
	return ended
}

// subject is what revocations compare a principal with; false for one that no Manager made.
func (p Principal) subject() (subject, bool) {
	user, ok := parseID(p.UserID)
	session, valid := parseID(p.SessionID)
	return subject{user: user, session: session, created: p.CreatedAt, since: p.since}, ok && valid
}

func (w *watches) add(fresh watch) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old, ok := w.held[fresh.who.session]; ok {
		return old.ended
	}
	if w.held == nil {
		w.held = map[id]watch{}
	}
	w.held[fresh.who.session] = fresh
	return fresh.ended
}

// end closes the channels of which over says so.
func (w *watches) end(over func(watch) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for session, held := range w.held {
		if over(held) {
			close(held.ended)
			delete(w.held, session)
		}
	}
}

// stale returns some of those that were last read in another epoch.
func (w *watches) stale(epoch uint64, most int) []watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []watch
	for _, held := range w.held {
		if held.epoch != epoch && len(out) < most {
			out = append(out, held)
		}
	}
	return out
}

// confirm notes that a session was read and lives.
func (w *watches) confirm(session id, epoch uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if held, ok := w.held[session]; ok {
		held.epoch = epoch
		w.held[session] = held
	}
}

// recheckAtOnce bounds the sessions that are read between two reads of the feed.
const recheckAtOnce = 100

// recheck reads the records of watched sessions of which a gap made unsure whether they live, and ends those that are gone. It
// returns an error if the store cannot be read.
func (m *Manager) recheck(ctx context.Context) error {
	epoch := m.verified.epoch.Load()
	for _, unsure := range m.watches.stale(epoch, recheckAtOnce) {
		session := unsure.who.session
		doc, _, err := m.load(ctx, unsure.who.user, session)
		if errors.Is(err, store.ErrUnavailable) {
			return err
		}
		if err == nil && doc.alive(m.o.Now()) {
			m.watches.confirm(session, epoch)
			continue
		}
		m.watches.end(func(held watch) bool { return held.who.session == session })
	}
	return nil
}
