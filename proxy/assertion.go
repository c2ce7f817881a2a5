package proxy

import (
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"gatehouse/session"
	"gatehouse/session/token"
)

const (
	// maxAssertions is how many assertions are kept, about 1 KiB each.
	maxAssertions = 10_000
	// assertionLife is how long an assertion is good, at most; assertionRest, how long one that is handed out again must
	// still be good, so that an app that is slow to look finds it valid.
	assertionLife = token.MaxLifetime
	assertionRest = time.Minute
)

// assertions signs who somebody is for an app, and keeps what it signed: a signature costs a third of what a proxied
// request costs. It is safe for concurrent use.
type assertions struct {
	signer Signer
	issuer string
	now    func() time.Time

	mu   sync.RWMutex // guards kept
	kept map[assertionKey]assertion
}

// assertionKey names an assertion: each app has its own, which is good nowhere else.
type assertionKey struct{ session, audience string }

type assertion struct {
	raw string
	// identity is what the assertion says; a renewal that read other groups makes it out of date.
	identity session.Identity
	until    time.Time
}

func newAssertions(signer Signer, issuer string, now func() time.Time) *assertions {
	return &assertions{signer: signer, issuer: issuer, now: now, kept: make(map[assertionKey]assertion)}
}

// of returns an assertion about the principal for the app at the origin. It never outlives the session's absolute limit.
func (a *assertions) of(p session.Principal, audience string) (string, error) {
	key := assertionKey{p.SessionID, audience}
	now := a.now()
	a.mu.RLock()
	kept, ok := a.kept[key]
	a.mu.RUnlock()
	if ok && now.Before(kept.until) && same(kept.identity, p.Identity) {
		return kept.raw, nil
	}
	expires := now.Add(assertionLife)
	if p.ExpiresAt.Before(expires) {
		expires = p.ExpiresAt
	}
	raw, err := a.signer.Sign(token.Assertion, token.Claims{
		ID: rand.Text(), Issuer: a.issuer, Audience: audience, Subject: p.UserID,
		SessionID: p.PublicID, // the app needs to tell sessions apart, not to name them to us
		Methods:   p.Methods, AuthTime: p.AuthTime, IssuedAt: now, ExpiresAt: expires,
		Name: p.Name, DisplayName: p.DisplayName, Email: p.Email, Groups: p.Groups,
	})
	if err != nil {
		return "", fmt.Errorf("sign assertion: %w", err)
	}
	a.keep(key, assertion{raw: raw, identity: p.Identity, until: expires.Add(-assertionRest)})
	return raw, nil
}

// keep makes room by forgetting what is out of date, and, if nothing is, any other: what is forgotten is signed again.
func (a *assertions) keep(key assertionKey, fresh assertion) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.kept) >= maxAssertions {
		now := a.now()
		for k, old := range a.kept {
			if !now.Before(old.until) {
				delete(a.kept, k)
			}
		}
	}
	for k := range a.kept {
		if len(a.kept) < maxAssertions {
			break
		}
		delete(a.kept, k)
	}
	a.kept[key] = fresh
}

func same(a, b session.Identity) bool {
	return a.UserID == b.UserID && a.Name == b.Name && a.DisplayName == b.DisplayName && a.Email == b.Email &&
		slices.Equal(a.Groups, b.Groups)
}
