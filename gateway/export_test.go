package gateway

import "net/http"

// PublicServer is the public listener's server, for a test that brings its own listener.
func (g *Gateway) PublicServer() *http.Server { return g.publicServer() }

// TooMany is how many connections were closed because too many were open.
func (g *Gateway) TooMany() uint64 { return g.tooMany.Load() }
