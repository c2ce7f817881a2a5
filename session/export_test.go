package session

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
