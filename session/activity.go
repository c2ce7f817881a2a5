package session

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"gatehouse/store"
)

// What a request with a good access token leaves to be written, beside the answer and never before it: that a handle was
// presented for the first time, and that somebody works whose token was renewed by polling. Each is written once for a token.
const (
	pendingUse uint32 = 1 << iota
	pendingActivity
)

const (
	// activeEvery is how often data on an upgraded connection is written as activity, at most.
	activeEvery = 5 * time.Minute
	// maxNotes is how many notes are being written at once; beyond, the next request of the same token tries again.
	maxNotes = 64
	// maxTries is how often a write is begun again because others wrote at the same time.
	maxTries = 16
)

// passive reports whether a request is polling that the operator named: it renews, but does not keep the session alive.
func (m *Manager) passive(r *http.Request) bool {
	for _, prefix := range m.limits.Load().IgnoreActivity {
		rest, ok := strings.CutPrefix(r.URL.Path, prefix)
		if ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(prefix, "/")) {
			return true
		}
	}
	return false
}

// note writes what the first request with a token tells. It does not wait.
func (m *Manager) note(e *entry, j *jar, r *http.Request, origin string, now time.Time) {
	if !m.inStep.Load() {
		return // the store is away; the next request tells the same
	}
	if e.pending.Load()&pendingUse != 0 {
		h, ok := m.openHandle(j.handle(), origin)
		if ok && h.session == e.who.session && h.generation == e.generation && e.claim(pendingUse) {
			m.background(e, pendingUse, func(ctx context.Context) error {
				return m.noteUse(ctx, e.principal, h.session, hostKey(origin), h.generation, now)
			})
		}
	}
	if e.pending.Load()&pendingActivity != 0 && !m.passive(r) && e.claim(pendingActivity) {
		m.background(e, pendingActivity, func(ctx context.Context) error { return m.touch(ctx, e.who, now, 0) })
	}
}

// claim takes one thing to be written from an entry; true for one caller.
func (e *entry) claim(what uint32) bool { return e.pending.And(^what)&what != 0 }

// background writes a note; what could not be written is left to the next request.
func (m *Manager) background(e *entry, what uint32, write func(context.Context) error) {
	if m.notes.Add(1) > maxNotes {
		m.notes.Add(-1)
		e.pending.Or(what)
		return
	}
	go func() {
		defer m.notes.Add(-1)
		ctx, cancel := finish(context.Background())
		defer cancel()
		if err := write(ctx); err != nil && !errors.Is(err, ErrNoSession) {
			e.pending.Or(what)
		}
	}()
}

// touch writes activity, unless a later one is written or one of the last atMost.
func (m *Manager) touch(ctx context.Context, who subject, at time.Time, atMost time.Duration) error {
	for range maxTries {
		doc, version, err := m.live(ctx, handle{user: who.user, session: who.session}, at)
		if err != nil {
			return err
		}
		if at.Sub(time.UnixMicro(doc.Seen)) <= atMost {
			return nil
		}
		if m.idle(doc, at) {
			return ErrNoSession // it ended before this came
		}
		doc.Seen = at.UnixMicro()
		_, err = m.save(ctx, who.session, doc, version, time.UnixMicro(doc.Expires))
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return store.ErrConflict
}

// Activity counts what the client sends on one upgraded connection as activity of its session.
type Activity struct {
	m    *Manager
	who  subject
	next atomic.Int64 // microseconds since 1970; nothing is written before
}

// Activity begins to count for the upgraded connection that r asks for; nil if that is not to be counted.
func (m *Manager) Activity(r *http.Request, p Principal) *Activity {
	who, ok := p.subject()
	if !ok || p.isOutside() || m.passive(r) {
		return nil
	}
	a := &Activity{m: m, who: who}
	a.next.Store(m.o.Now().Add(activeEvery).UnixMicro()) // the request itself was counted
	return a
}

// Note says that the client sent something. It writes at most every five minutes, and does not wait. Safe for concurrent use,
// and on nil.
func (a *Activity) Note() {
	if a == nil {
		return
	}
	now := a.m.o.Now()
	next := a.next.Load()
	if now.UnixMicro() < next || !a.next.CompareAndSwap(next, now.Add(activeEvery).UnixMicro()) {
		return
	}
	if a.m.notes.Add(1) > maxNotes {
		a.m.notes.Add(-1)
		a.next.Store(next)
		return
	}
	go func() {
		defer a.m.notes.Add(-1)
		ctx, cancel := finish(context.Background())
		defer cancel()
		if err := a.m.touch(ctx, a.who, now, activeEvery-time.Second); err != nil && !errors.Is(err, ErrNoSession) {
			a.next.Store(next) // what could not be written is left to what the client sends next
		}
	}()
}
