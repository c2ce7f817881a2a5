package gateway

import (
	"net/http"

	"gatehouse/auth"
	"gatehouse/session"
)

// appTokens is app tokens as the proxy asks for them.
type appTokens struct {
	tokens   *auth.AppTokens
	sessions *session.Manager
}

// Authenticate implements proxy.Tokens. Two lines of Authorization are nobody's: the sessions refuse them.
func (t appTokens) Authenticate(r *http.Request, route string) (session.Principal, bool, error) {
	lines := r.Header["Authorization"]
	if len(lines) != 1 {
		return session.Principal{}, false, nil
	}
	return t.tokens.Authenticate(r.Context(), lines[0], route, func() auth.Client {
		v := visitOf(r)
		return auth.Client{Address: v.Address, Network: v.Network, Claimed: v.Claimed, UserAgent: r.UserAgent(), RequestID: v.RequestID}
	})
}

// Claimed implements proxy.Tokens.
func (t appTokens) Claimed(r *http.Request) bool {
	for _, line := range r.Header["Authorization"] {
		if t.tokens.Claimed(line) {
			return true
		}
	}
	return t.sessions.Claimed(r)
}

// routeNames are the names that an app token can be for.
func (g *assembly) routeNames() []string {
	var names []string
	for _, r := range g.config.AppRoutes() {
		names = append(names, string(r.Name))
	}
	return names
}
