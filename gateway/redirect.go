package gateway

import (
	"net"
	"net/http"
	"strings"
	"time"

	"gatehouse/problem"
)

// Limits of http_listen, which answers in a few bytes and takes no body.
const (
	redirectTimeout = 10 * time.Second
	redirectIdle    = 30 * time.Second
	redirectHeader  = 16 << 10 // bytes, of the whole header block
)

// redirectServer makes the server of http_listen: it sends browsers on to https, and answers challenges of an ACME authority.
func (g *Gateway) redirectServer() *http.Server {
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.current.Load().redirect(w, r) })
	if g.encryption.orders != nil {
		handler = g.encryption.orders.Challenges(handler)
	}
	s := g.server(handler)
	s.ReadTimeout, s.WriteTimeout, s.IdleTimeout, s.MaxHeaderBytes = redirectTimeout, redirectTimeout, redirectIdle, redirectHeader-4<<10
	return s
}

// redirect sends a request for a host of ours to the same place over https. Where that is comes from the configuration; the Host only
// chooses.
func (g *assembly) redirect(w http.ResponseWriter, r *http.Request) {
	if healthPath(r.URL.Path) {
		g.health().ServeHTTP(w, r)
		return
	}
	origin, ours := g.secureOrigin(r.Host)
	place := r.URL.RequestURI()
	switch {
	case !ours:
		problem.New(problem.Misdirected).Write(w)
	case !strings.HasPrefix(place, "/"): // as in OPTIONS *: behind the origin it would be another host
		problem.New(problem.BadRequest).Write(w)
	default:
		w.Header().Set("Cache-Control", "no-store")
		http.Redirect(w, r, origin+place, http.StatusPermanentRedirect)
	}
}

// secureOrigin is the https origin of a host that was asked for over HTTP, where it has another port or none.
func (g *assembly) secureOrigin(host string) (string, bool) {
	external := g.config.ExternalURL
	name := hostname(host)
	if strings.EqualFold(name, external.URL().Hostname()) {
		return external.String(), true
	}
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if origin, ok := g.table.Origin(withPort(name, external.URL().Port())); ok {
		return origin, true
	}
	for _, r := range g.config.AppRoutes() { // a route may have a port of its own
		_, port, err := net.SplitHostPort(string(r.Host))
		if err != nil {
			continue
		}
		if origin, ok := g.table.Origin(withPort(name, port)); ok {
			return origin, true
		}
	}
	return "", false
}

func withPort(name, port string) string {
	if port == "" {
		return name
	}
	return name + ":" + port
}
