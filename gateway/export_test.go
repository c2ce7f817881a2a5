package gateway

import "net/http"

// PublicServer is the public listener's server, for a test that brings its own listener.
func (g *Gateway) PublicServer() *http.Server { return g.publicServer() }
