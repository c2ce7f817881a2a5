package session

// SessionIDOf shows the id of a prepared session, which nobody needs to know before it is live.
func SessionIDOf(p *Prepared) string { return p.session.String() }
