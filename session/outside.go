package session

import (
	"context"

	"gatehouse/session/token"
)

// outside is the purpose under which credentials of other packages are remembered. No JWT has it.
const outside token.Purpose = "outside"

// Recall returns whose an outside credential is, if it is remembered for this audience and nothing has happened since to its owner or
// to itself. It takes no look at the store. An outside credential is one that another package verifies, an app token; Manager remembers it as
// it does its own tokens: by its SHA-256, for as long as an access token lives at most, and within the same bounds.
func (m *Manager) Recall(secret, audience string) (Principal, bool) {
	e := m.verified.get(keyOf(secret))
	if e == nil || e.purpose != outside || e.audience != audience {
		return Principal{}, false
	}
	if m.good(e, m.o.Now()) != nil {
		m.verified.remove(e)
		return Principal{}, false
	}
	return e.principal, true
}

// Admit remembers an outside credential after read has verified it. The SessionID of what read returns is 32 hexadecimal digits that
// stand for the credential, as Forget gets them; AuthTime and ExpiresAt are required. Errors of read are returned as they are.
//
// What ends sessions does not end the credential: it makes Recall forget it, so that it is verified and its account read again. What arrives
// while read reads counts, too (TestManager_Admit_whatArrivesMeanwhile). While this gateway is not in step nothing is remembered.
func (m *Manager) Admit(ctx context.Context, secret, audience string, read func(context.Context) (Principal, error)) (Principal, error) {
	now, epoch, since := m.o.Now(), m.verified.epoch.Load(), m.revoked.arrived.Load() // before the read
	p, err := read(ctx)
	if err != nil {
		return Principal{}, err
	}
	p.CreatedAt, p.since = now, since
	keys := m.o.Keys.Current()
	expires := now.Add(m.limits.Load().AccessLifetime)
	if p.ExpiresAt.Before(expires) {
		expires = p.ExpiresAt
	}
	e := &entry{key: keyOf(secret), keys: keys, kid: keys.Signs(), purpose: outside, audience: audience, expires: expires}
	return m.remember(e, p, epoch), nil
}

// Forget makes every gateway verify an outside credential anew, and cuts what is open by it. It is called before the credential is deleted, so
// that whoever dies in between leaves none that is only remembered, and again after it, for gateways that came into step in between.
func (m *Manager) Forget(ctx context.Context, userID, mark string) error {
	return m.announce(ctx, message{Kind: kindEnded, User: userID, Sessions: []string{mark}})
}

// touches reports whether something has arrived about an outside credential since it was verified.
func (r rule) touches(who subject) bool { return r.number > who.since }

// isOutside reports whether a principal stands for no session.
func (p Principal) isOutside() bool { return p.since > 0 }
