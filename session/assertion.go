package session

import (
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"time"

	"gatehouse/session/token"
)

const (
	// assertionLeft is how long an assertion that is handed out again is good, at least.
	assertionLeft = time.Minute
	// maxAssertions bounds the apps whose assertions are kept beside one access token.
	maxAssertions = 32
)

// assertions are those made for one access token, by origin. They are kept with it and go with it: after a renewal they say
// what the account says now.
type assertions struct {
	list atomic.Pointer[[]assertion] // replaced, never changed
}

type assertion struct {
	origin, raw string
	expires     time.Time
}

// Assertion returns a token that tells the app at origin who the principal is. It has a minute to live at least, unless the
// session ends before, and is the same for requests with the same access token.
func (m *Manager) Assertion(p Principal, origin string) (string, error) {
	now := m.o.Now()
	if raw, ok := p.assertions.get(origin, now.Add(assertionLeft)); ok {
		return raw, nil
	}
	expires := now.Add(token.MaxLifetime)
	if p.ExpiresAt.Before(expires) {
		expires = p.ExpiresAt
	}
	raw, err := m.o.Keys.Current().Sign(token.Assertion, token.Claims{
		ID: rand.Text(), Issuer: m.o.Issuer, Audience: origin, Subject: p.UserID,
		SessionID: p.PublicID, // an app may tell sessions apart, but has no need of the id
		Methods:   p.Methods, AuthTime: p.AuthTime, IssuedAt: now, ExpiresAt: expires,
		Name: p.Name, DisplayName: p.DisplayName, Email: p.Email, Groups: p.Groups,
	})
	if err != nil {
		return "", fmt.Errorf("assert identity: %w", err)
	}
	p.assertions.put(assertion{origin: origin, raw: raw, expires: expires})
	return raw, nil
}

func (a *assertions) get(origin string, goodAt time.Time) (string, bool) {
	if a == nil {
		return "", false
	}
	list := a.list.Load()
	if list == nil {
		return "", false
	}
	for i := range *list {
		if held := &(*list)[i]; held.origin == origin && goodAt.Before(held.expires) {
			return held.raw, true
		}
	}
	return "", false
}

// put adds an assertion in place of the former one of its origin. Of two at once one may be lost, which costs a signature.
func (a *assertions) put(fresh assertion) {
	if a == nil {
		return
	}
	list := []assertion{fresh}
	if old := a.list.Load(); old != nil {
		for _, held := range *old {
			if held.origin != fresh.origin && len(list) < maxAssertions {
				list = append(list, held)
			}
		}
	}
	a.list.Store(&list)
}
