package session

import (
	"crypto/rand"
	"strings"

	"gatehouse/session/token"
)

// Fill adds verified tokens of other sessions of the same person, and revocations of sessions that nobody asks for.
func Fill(m *Manager, p Principal, tokens, revoked int) {
	now := m.o.Now()
	for range tokens {
		e := &entry{
			keys: m.o.Keys.Current(), kid: strings.Clone(m.o.Keys.Current().Signs()), purpose: token.CookieToken,
			audience: strings.Clone("https://wiki.example.com"), expires: now.Add(token.MaxLifetime),
		}
		_, _ = rand.Read(e.key[:])
		q := p
		q.SessionID = newID().String()
		q.PublicID = publicID(q.SessionID)
		q.Name, q.DisplayName, q.Email = strings.Clone(p.Name), strings.Clone(p.DisplayName), strings.Clone(p.Email)
		q.UserID, q.Groups, q.Methods = strings.Clone(p.UserID), append([]string{}, p.Groups...), append([]string{}, p.Methods...)
		m.remember(e, q, m.verified.epoch.Load())
	}
	for range revoked {
		m.revoked.addSession(newID(), now)
	}
}

// SessionIDOf shows the id of a prepared session, which nobody needs to know before it is live.
func SessionIDOf(p *Prepared) string { return p.session.String() }

// Bound replaces the bounds of the tables, before the Manager is used.
func Bound(m *Manager, tokens int, revoked int64) {
	m.verified, m.revoked = newVerified(tokens), newRevocations(revoked)
}

// Held returns how many tokens and revocations are held.
func Held(m *Manager) (tokens int, revoked int64) {
	m.verified.removeIf(func(*entry) bool {
		tokens++
		return false
	})
	return tokens, m.revoked.count.Load() + m.revoked.rules.Load()
}

// Writing returns how many notes are being written.
func Writing(m *Manager) int { return int(m.notes.Load()) }
