package session

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"gatehouse/audit"
	"gatehouse/session/token"
	"gatehouse/store"
)

// writeSeen is how old the last activity on record must be to be worth a write of its own.
const writeSeen = time.Minute

// Renew trades the handle of the request for a new access token and the handle's successor, and returns the cookies that carry
// both. The access token that came with the request, if any, plays no part. The MAC of the handle is checked before the store is
// asked.
//
// The session goes on if it is live, within its absolute limit, was active within the idle limit, its account, which is read
// again, is enabled, and the handle is one that its browser may still have (rotation.go); the Principal then has the account's
// present names and groups. Otherwise ErrNoSession; if the account is disabled, or the handle was used by somebody else, the
// session is ended for good, on record. ErrUnavailable leaves everything as it is, or as if the answer had been lost, which the
// next renewal makes good.
//
// The cookies must reach the browser within a few seconds or not at all: set late, an older handle would replace a newer one.
func (m *Manager) Renew(ctx context.Context, r *http.Request, origin string) (Principal, []*http.Cookie, error) {
	who, cookies, err := m.renew(ctx, r, origin)
	m.o.Observer.Renewed(err)
	return who, cookies, err
}

func (m *Manager) renew(ctx context.Context, r *http.Request, origin string) (Principal, []*http.Cookie, error) {
	j, err := readCookies(r.Header["Cookie"])
	if err != nil {
		return Principal{}, nil, err
	}
	h, ok := m.openHandle(j.handle(), origin)
	if !ok {
		return Principal{}, nil, ErrNoSession
	}
	p := presented{
		handle: h, host: hostKey(origin), device: m.deviceTag(j.device(), h, origin), passive: m.passive(r),
		client: func() audit.Client { return m.client(r) },
	}
	now := m.o.Now()
	if err := plausible(now); err != nil {
		return Principal{}, nil, err
	}
	epoch := m.verified.epoch.Load() // before the read
	doc, generation, err := m.prolong(ctx, p, origin, now, m.rotate)
	if err != nil {
		return Principal{}, nil, err
	}
	who := doc.principal(h.session)
	if whose, _ := who.subject(); m.revoked.covers(whose) || who.ExpiresAt.Sub(now) < time.Second {
		return Principal{}, nil, ErrNoSession
	}
	cookies, err := m.cookies(who, origin, generation, now, epoch, doc.Seen)
	return who, cookies, err
}

// client describes where a request came from, for a record.
func (m *Manager) client(r *http.Request) audit.Client {
	if m.o.Client == nil {
		return audit.Client{}
	}
	return m.o.Client(r)
}

// turn is what becomes of a handle that was presented: rotate, or keep.
type turn func(ctx context.Context, doc document, p presented, now time.Time) (document, bool, uint32, error)

// prolong checks a session, rotates the handle, or keeps it, and notes the activity, in one write; of renewals at the same time one writes,
// and the others begin again with what it wrote.
func (m *Manager) prolong(ctx context.Context, p presented, origin string, now time.Time, turn turn) (document, uint32, error) {
	for range maxTries {
		doc, version, err := m.live(ctx, p.handle, now)
		if err != nil {
			return document{}, 0, err
		}
		if m.idle(doc, now) {
			// Ended by time, like one beyond its absolute limit; nobody acted, so there is nothing to record.
			_ = m.o.Records.Delete(ctx, store.SessionKey(p.user.String(), p.session.String()), version)
			return document{}, 0, ErrNoSession
		}
		next, write, generation, err := turn(ctx, doc, p, now)
		if errors.Is(err, errTheft) {
			if err = m.theft(ctx, doc, p, origin); err == nil {
				err = ErrNoSession
			}
		}
		if err != nil {
			return document{}, 0, err
		}
		next, changed, err := m.refresh(ctx, next, p, now)
		if err != nil {
			return document{}, 0, err
		}
		if !write && !changed {
			return next, generation, nil
		}
		_, err = m.save(ctx, p.session, next, version, time.UnixMicro(next.Expires))
		if errors.Is(err, store.ErrConflict) {
			continue // another renewal wrote, or the session was ended: a deleted record is never written again
		}
		if err != nil {
			return document{}, 0, unavailable("renew session", err)
		}
		return next, generation, nil
	}
	return document{}, 0, unavailable("renew session", store.ErrConflict)
}

// refresh brings the account up to date and notes the activity, and reports whether that is worth a write by itself. A session
// whose account is disabled is ended.
func (m *Manager) refresh(ctx context.Context, doc document, p presented, now time.Time) (document, bool, error) {
	identity, enabled, err := m.o.Accounts.Identity(ctx, p.user.String())
	if err != nil {
		return document{}, false, unavailable("read account", err)
	}
	if !enabled {
		if err := m.revoke(ctx, p.user, p.session, systemEvent(p.user, doc, "account-disabled")); err != nil {
			return document{}, false, err
		}
		return document{}, false, ErrNoSession
	}
	identity.UserID = p.user.String()
	worth := !same(identity, doc.Identity)
	doc.Identity = identity
	if !p.passive && doc.Seen < now.UnixMicro() {
		worth = worth || now.Sub(time.UnixMicro(doc.Seen)) >= writeSeen
		doc.Seen = now.UnixMicro()
	}
	// By a clock that was ahead and was set back no session lives longer: neither from an activity that is still to come, nor to
	// an end beyond the limit.
	if !believable(time.UnixMicro(doc.Seen), now) {
		doc.Seen, worth = now.UnixMicro(), true
	}
	if latest := now.Add(m.limits.Load().Absolute); !believable(time.UnixMicro(doc.Expires), latest) {
		doc.Expires, worth = latest.UnixMicro(), true
	}
	return doc, worth, nil
}

// cookies are the access token and the handle of one host.
func (m *Manager) cookies(p Principal, origin string, generation uint32, now time.Time, epoch uint64, seen int64) ([]*http.Cookie, error) {
	who, _ := p.subject()
	active := time.UnixMicro(seen)
	// Polling gets no token that outlives the idle limit.
	until := active.Add(m.limits.Load().Idle + m.storeAway(active, now))
	e := &entry{generation: generation}
	if generation > 0 {
		e.pending.Or(pendingUse)
	}
	if now.Sub(active) >= writeSeen {
		e.pending.Or(pendingActivity)
	}
	access, expires, err := m.issue(e, p, token.CookieToken, origin, now, until, epoch)
	if err != nil {
		return nil, err
	}
	kept := m.sealHandle(handle{user: who.user, session: who.session, generation: generation}, origin)
	return []*http.Cookie{
		newCookie(accessCookie, access, seconds(expires.Sub(now))),
		newCookie(handleCookie, kept, seconds(p.ExpiresAt.Sub(now))),
	}, nil
}

// live reads a session that was started and is within its absolute limit.
func (m *Manager) live(ctx context.Context, h handle, now time.Time) (document, uint64, error) {
	doc, version, err := m.load(ctx, h.user, h.session)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return document{}, 0, ErrNoSession
	case err != nil:
		return document{}, 0, unavailable("read session", err)
	case !doc.alive(now):
		return document{}, 0, ErrNoSession
	}
	return doc, version, nil
}

func same(a, b Identity) bool {
	return a.Name == b.Name && a.DisplayName == b.DisplayName && a.Email == b.Email && slices.Equal(a.Groups, b.Groups)
}

// idle reports whether nothing was heard of a session for longer than the idle limit, not counting the time in which the store
// could not have been written.
func (m *Manager) idle(doc document, now time.Time) bool {
	seen := time.UnixMicro(doc.Seen)
	return now.Sub(seen)-m.storeAway(seen, now) >= m.limits.Load().Idle
}

// outage is a time in which the store was away.
type outage struct{ from, to time.Time }

// maxOutages bounds what is remembered; the oldest is forgotten, and then counts as idle time.
const maxOutages = 100

// storeAway is how much of a time the store was away, as this gateway saw it through the feed. The limit of this: outages
// before the gateway's start are not known, and count as idle time.
func (m *Manager) storeAway(from, to time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var sum time.Duration
	for _, o := range m.outages {
		sum += overlap(o, from, to)
	}
	if m.lost {
		sum += overlap(outage{m.followed, to}, from, to)
	}
	return sum
}

func overlap(o outage, from, to time.Time) time.Duration {
	if o.from.After(from) {
		from = o.from
	}
	if o.to.Before(to) {
		to = o.to
	}
	return max(to.Sub(from), 0)
}

// lose notes that the feed cannot be read.
func (m *Manager) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost = true
	m.inStep.Store(false)
}

// gain notes that everything in the feed was read.
func (m *Manager) gain(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost {
		m.outages = append(m.outages, outage{m.followed, now})
		m.outages = m.outages[max(len(m.outages)-maxOutages, 0):]
	}
	m.lost, m.followed = false, now
	m.inStep.Store(true)
}

// uncertainSince returns since when revocations may not have arrived, and false while in step.
func (m *Manager) uncertainSince() (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.followed, m.lost
}
