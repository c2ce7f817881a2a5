package gateway

import (
	"net/http"
	"slices"

	"gatehouse/proxy"
	"gatehouse/proxy/clientip"
)

// forwardAuth makes what answers front proxies.
func (g *assembly) forwardAuth(p *proxy.Proxy) http.Handler {
	return p.ForwardAuth(proxy.ForwardAuthOptions{Peers: g.config.ForwardAuth.Peers, Handles: g.sessions})
}

// asking believes, of who asked for what, the front proxies as well as the trusted ones: who may ask names the client too.
func (g *assembly) asking() *clientip.Resolver {
	return clientip.New(slices.Concat(g.config.TrustedProxies, g.config.ForwardAuth.Peers))
}
