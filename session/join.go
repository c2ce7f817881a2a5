package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"time"

	"gatehouse/audit"
	"gatehouse/store"
)

// joinLabel keeps the MAC of a host's device cookie apart from those of handles, which begin with their version.
const joinLabel = "gatehouse device of a host, version 1\x00"

// Joining is a session that comes to another host. Principal and Origin are required; of the Principal only the ids are looked at.
type Joining struct {
	Principal Principal
	Origin    string // of the host whose cookies are set
	// FormerHandle is the handle that the request brought (ReadHandle), checked or not: if it is another session's, that one ends, so
	// that neither a planted handle nor a forgotten one stays good (SE-12).
	FormerHandle string
	Client       audit.Client // for the record of that
}

// Join gives a session cookies of another host, which the caller has made sure is the same browser's (the hand-off between
// hosts): access token, handle, and a device cookie that is good for this host and session only. Where the session is on that host
// already and its handle there was not used yet, or just now, the answer carries that one again: tabs that are handed over at the same
// time get the same. Otherwise what it had there becomes the previous handle. It returns ErrNoSession or ErrUnavailable.
func (m *Manager) Join(ctx context.Context, j Joining) (Principal, []*http.Cookie, error) {
	who, ok := j.Principal.subject()
	if !ok {
		return Principal{}, nil, ErrNoSession
	}
	ctx, cancel := finish(ctx)
	defer cancel()
	now, host := m.o.Now(), hostKey(j.Origin)
	at := handle{user: who.user, session: who.session}
	for range maxTries {
		epoch := m.verified.epoch.Load() // before the read
		doc, version, err := m.live(ctx, at, now)
		if err != nil {
			return Principal{}, nil, err
		}
		if err := m.endOther(ctx, j.FormerHandle, j.Origin, who.session, doc.Identity, j.Client); err != nil {
			return Principal{}, nil, err
		}
		next, changed, err := m.joined(ctx, doc, at, j.Origin, now)
		if err != nil {
			return Principal{}, nil, err
		}
		if changed {
			_, err = m.save(ctx, who.session, next, version, time.UnixMicro(next.Expires))
		}
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return Principal{}, nil, unavailable("join host", err)
		}
		fresh := next.principal(who.session)
		if whose, _ := fresh.subject(); m.revoked.covers(whose) || fresh.ExpiresAt.Sub(now) < time.Second {
			return Principal{}, nil, ErrNoSession
		}
		cookies, err := m.cookies(fresh, j.Origin, next.Hosts[host].Generation, now, epoch, next.Seen)
		return fresh, append(cookies, newCookie(deviceCookie, m.joinTag(at, j.Origin), seconds(fresh.ExpiresAt.Sub(now)))), err
	}
	return Principal{}, nil, unavailable("join host", store.ErrConflict)
}

// joined returns the document of a session that is on a host, and whether it has to be written.
func (m *Manager) joined(ctx context.Context, doc document, at handle, origin string, now time.Time) (document, bool, error) {
	host := hostKey(origin)
	held, was := doc.Hosts[host]
	next := doc.renewed(held.Generation, m.deviceTag(m.joinTag(at, origin), at, origin), now)
	switch {
	case !was && len(doc.Hosts) >= maxHosts:
		return doc, false, errors.New("join host: the session is on too many")
	case !was:
		return doc.withChain(host, next), true, nil
	}
	used, first, err := m.firstUse(ctx, doc, at.session, host, held.Generation)
	if err != nil {
		return doc, false, err
	}
	if !used || now.Sub(first) <= replayWithin {
		return doc, false, nil
	}
	if next.Generation++; next.Generation > maxGeneration {
		return doc, false, ErrNoSession
	}
	return doc.withChain(host, next), true, nil
}

// joinTag is the device cookie of a session on a host that it was handed over to. It follows from session and host alone, so a browser has
// the same however often it comes, and no other session or host takes it for its own. A login's device cookie never leaves the login host.
func (m *Manager) joinTag(h handle, origin string) string {
	mac := hmac.New(sha256.New, m.o.HandleKey)
	mac.Write([]byte(joinLabel))
	mac.Write(h.user[:])
	mac.Write(h.session[:])
	mac.Write(hostTag(origin))
	return encoding.EncodeToString(mac.Sum(nil)[:macSize])
}

// joinedWith reports whether a device cookie is the one that a session has on a host.
func (m *Manager) joinedWith(cookie string, h handle, origin string) bool {
	return subtle.ConstantTimeCompare([]byte(cookie), []byte(m.joinTag(h, origin))) == 1
}
