package session

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"gatehouse/session/token"
	"gatehouse/store"
)

// writeSeen is how old the last activity on record must be to be written again: of tabs that renew together one writes.
const writeSeen = time.Minute

// Renew trades the handle of the request for a new access token, and returns the cookie that carries it. The access token that
// came with the request, if any, plays no part. The MAC of the handle is checked before the store is asked.
//
// The session goes on if it is live, within its absolute limit, was renewed within the idle limit, and its account, which is
// read again, is enabled; the Principal then has the account's present names and groups. Otherwise ErrNoSession; if the account
// is disabled the session is ended for good, on record. ErrUnavailable leaves everything as it is.
func (m *Manager) Renew(ctx context.Context, r *http.Request, origin string) (Principal, []*http.Cookie, error) {
	j, err := readCookies(r.Header["Cookie"])
	if err != nil {
		return Principal{}, nil, err
	}
	h, ok := m.openHandle(j.handle(), origin)
	if !ok {
		return Principal{}, nil, ErrNoSession
	}
	now := m.o.Now()
	epoch := m.verified.epoch.Load() // before the read
	doc, err := m.prolong(ctx, h, now)
	if err != nil {
		return Principal{}, nil, err
	}
	p := doc.principal(h.session)
	if who, _ := p.subject(); m.revoked.covers(who) || p.ExpiresAt.Sub(now) < time.Second {
		return Principal{}, nil, ErrNoSession
	}
	access, expires, err := m.issue(p, token.CookieToken, origin, now, epoch)
	if err != nil {
		return Principal{}, nil, err
	}
	return p, []*http.Cookie{newCookie(accessCookie, access, seconds(expires.Sub(now)))}, nil
}

// prolong checks a session and notes its activity.
func (m *Manager) prolong(ctx context.Context, h handle, now time.Time) (document, error) {
	doc, version, err := m.live(ctx, h, now)
	if err != nil {
		return document{}, err
	}
	if m.idle(doc, now) {
		// Ended by time, like one beyond its absolute limit; nobody acted, so there is nothing to record.
		_ = m.o.Records.Delete(ctx, store.SessionKey(h.user.String(), h.session.String()), version)
		return document{}, ErrNoSession
	}
	identity, enabled, err := m.o.Accounts.Identity(ctx, h.user.String())
	if err != nil {
		return document{}, unavailable("read account", err)
	}
	if !enabled {
		if err := m.revoke(ctx, h.user, h.session, systemEvent(h.user, doc, "account-disabled")); err != nil {
			return document{}, err
		}
		return document{}, ErrNoSession
	}
	identity.UserID = h.user.String()
	if same(identity, doc.Identity) && now.Sub(time.UnixMicro(doc.Seen)) < writeSeen {
		return doc, nil
	}
	doc.Identity, doc.Seen = identity, now.UnixMicro()
	_, err = m.save(ctx, h.session, doc, version, time.UnixMicro(doc.Expires))
	if errors.Is(err, store.ErrConflict) {
		// Another renewal wrote the same, or the session was ended: a deleted record is never written again.
		doc, _, err = m.live(ctx, h, now)
		return doc, err
	}
	if err != nil {
		return document{}, unavailable("renew session", err)
	}
	return doc, nil
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
	return now.Sub(seen)-m.storeAway(seen, now) >= m.o.Idle
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
