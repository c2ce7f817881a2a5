package session

// SessionIDOf shows the id of a prepared session, which nobody needs to know before it is live.
func SessionIDOf(p *Prepared) string { return p.session.String() }

// Bound replaces the bounds of the tables, before the Manager is used.
func Bound(m *Manager, tokens int, revoked int64) {
	m.verified, m.revoked = newVerified(tokens), newRevocations(revoked)
}

// Held returns how many tokens and revocations are held.
func Held(m *Manager) (tokens int, revoked int64) {
	for i := range m.verified.shards {
		s := &m.verified.shards[i]
		s.mu.RLock()
		tokens += len(s.entries)
		s.mu.RUnlock()
	}
	return tokens, m.revoked.count.Load() + m.revoked.rules.Load()
}
