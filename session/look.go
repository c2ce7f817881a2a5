package session

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"gatehouse/audit"
	"gatehouse/session/token"
)

// A front proxy passes no cookie of ours from the answer that it gets here to the browser. So where it asks, a handle stands for the
// access token that expired: it is looked at as a renewal would, with the same rules about who may still have it (rotation.go), and not
// rotated. What was found is good for as long as an access token would be, and refused at once when it is revoked, as one is.

const (
	// renewEvery is how long a browser may go on with one handle before it is to be sent where it gets another: a copy of it in other
	// hands shows itself no later than that.
	renewEvery = time.Hour
	// lookedAt marks what was found behind a handle, in the table of verified tokens: no token has this purpose.
	lookedAt token.Purpose = "handle"
)

// Look returns who sends the request, as Authenticate does, and instead of ErrExpired what Renew would say, without setting cookies.
// stale reports that the browser should be sent to the renewal route at the next occasion. The errors are those of both, but for
// ErrExpired.
func (m *Manager) Look(ctx context.Context, r *http.Request, origin string) (p Principal, stale bool, err error) {
	p, err = m.Authenticate(ctx, r, origin)
	if !errors.Is(err, ErrExpired) {
		return p, false, err
	}
	j, err := readCookies(r.Header["Cookie"])
	if err != nil {
		return Principal{}, false, err
	}
	now, key := m.o.Now(), keyOf(j.handle())
	e := m.verified.get(key)
	if e != nil && e.purpose == lookedAt && e.audience == origin {
		switch err := m.good(e, now); {
		case err == nil:
			m.presents(e, &j, r, origin, now)
			return e.principal, !now.Before(e.stale), nil
		case !errors.Is(err, errNotGood): // what is only too old, or overtaken by a step-up, is looked at again
			return Principal{}, false, err
		}
		m.verified.remove(e)
	}
	return m.lookUp(ctx, r, &j, key, origin, now)
}

// LookAgain is Look that reads the session in any case, whatever the access token and a look of before said.
func (m *Manager) LookAgain(ctx context.Context, r *http.Request, origin string) (p Principal, stale bool, err error) {
	j, err := readCookies(r.Header["Cookie"])
	if err != nil {
		return Principal{}, false, err
	}
	return m.lookUp(ctx, r, &j, keyOf(j.handle()), origin, m.o.Now())
}

// lookUp reads the session behind a handle.
func (m *Manager) lookUp(ctx context.Context, r *http.Request, j *jar, key tokenKey, origin string, now time.Time) (Principal, bool, error) {
	h, ok := m.openHandle(j.handle(), origin)
	if !ok {
		return Principal{}, false, ErrNoSession
	}
	p := presented{
		handle: h, host: hostKey(origin), device: m.deviceTag(j.device(), h, origin), passive: m.passive(r),
		client: func() audit.Client { return m.client(r) },
	}
	epoch := m.verified.epoch.Load() // before the read
	doc, current, err := m.prolong(ctx, p, origin, now, m.keep)
	if err != nil {
		return Principal{}, false, err
	}
	who := doc.principal(h.session)
	if whose, _ := who.subject(); m.revoked.covers(whose) {
		return Principal{}, false, ErrNoSession
	}
	seen, limits := time.UnixMicro(doc.Seen), m.limits.Load()
	keys := m.o.Keys.Current()
	e := &entry{
		key: key, purpose: lookedAt, audience: origin, keys: keys, kid: keys.Signs(), generation: h.generation,
		expires: earliest(now.Add(limits.AccessLifetime), who.ExpiresAt, seen.Add(limits.Idle+m.storeAway(seen, now))), // polling ends with the idle limit
		stale:   time.UnixMicro(doc.Created).Add(time.Duration(doc.Hosts[p.host].Renewed)*time.Second + renewEvery),
	}
	if current != h.generation { // the one before: good for a moment only, which is looked at each time
		return who, !now.Before(e.stale), nil
	}
	if h.generation > 0 {
		e.pending.Or(pendingUse)
	}
	if now.Sub(seen) >= writeSeen {
		e.pending.Or(pendingActivity)
	}
	who = m.remember(e, who, epoch)
	m.presents(e, j, r, origin, now)
	return who, !now.Before(e.stale), nil
}

// presents writes what a request with a handle tells, beside the answer.
func (m *Manager) presents(e *entry, j *jar, r *http.Request, origin string, now time.Time) {
	if e.pending.Load() != 0 {
		m.note(e, j, r, origin, now)
	}
}

// keep is rotate without its effect: it says whether the handle may still be used, and which is the current one.
func (m *Manager) keep(ctx context.Context, doc document, p presented, now time.Time) (document, bool, uint32, error) {
	_, _, generation, err := m.rotate(ctx, doc, p, now)
	if err == nil && p.generation >= doc.Hosts[p.host].Generation {
		generation = p.generation // the one that rotate would have replaced
	}
	return doc, false, generation, err
}

func earliest(times ...time.Time) time.Time { return slices.MinFunc(times, time.Time.Compare) }
