package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// The ways in which front proxies ask, by path (contract, section 3).
const (
	// AuthzPath is where all of them begin.
	AuthzPath       = "/.gatehouse/authz/"
	forwardAuthPath = AuthzPath + "forward-auth" // Traefik, Caddy
	authRequestPath = AuthzPath + "auth-request" // nginx; HAProxy through configs/haproxy/gatehouse.lua
	extAuthzPath    = AuthzPath + "ext-authz/"   // Envoy, with the original path behind
)

// question is the request that a front proxy asks about. Each way has its own headers, and only those are read: what a client sends of
// another way's says nothing.
type question struct {
	method, host string
	target       string   // path and query, as they were sent
	url          *url.URL // of the target
	nginx        bool     // which takes 200, 401 and 403 only
}

// readQuestion reads what a front proxy asks; false if it is not exactly what its way prescribes.
func readQuestion(r *http.Request) (question, bool) {
	var q question
	ok := true
	one := func(name string) string {
		lines := r.Header[name]
		ok = ok && len(lines) == 1
		if !ok {
			return ""
		}
		return lines[0]
	}
	path, _, _ := strings.Cut(r.RequestURI, "?") // Caddy leaves the query of the original there too
	switch {
	case path == forwardAuthPath:
		q.method, q.host, q.target = one("X-Forwarded-Method"), one("X-Forwarded-Host"), one("X-Forwarded-Uri")
		ok = ok && isScheme(one("X-Forwarded-Proto"))
	case path == authRequestPath:
		q.nginx = true
		q.method = one("X-Original-Method")
		q.host, q.target, ok = splitURL(one("X-Original-Url"), ok)
	case strings.HasPrefix(r.RequestURI, extAuthzPath):
		q.method, q.host, q.target = r.Method, r.Host, r.RequestURI[len(extAuthzPath)-1:]
	default:
		return question{}, false
	}
	if !ok || !isAuthority(q.host) || !isTarget(q.target) {
		return q, false
	}
	var err error
	q.url, err = url.ParseRequestURI(q.target)
	return q, err == nil
}

// isScheme accepts the schemes that front proxies name. Which one it is says nothing about the decision: external_url does.
func isScheme(text string) bool {
	switch text {
	case "http", "https", "ws", "wss":
		return true
	}
	return false
}

// splitURL takes an absolute URL apart without decoding anything.
func splitURL(text string, ok bool) (host, target string, good bool) {
	scheme, rest, absolute := strings.Cut(text, "://")
	slash := strings.IndexByte(rest, '/')
	if !ok || !absolute || !isScheme(scheme) || slash < 0 {
		return "", "", false
	}
	return rest[:slash], rest[slash:], true
}

// isAuthority reports whether a text is a host as a browser sends one, with or without a port (RFC 9110, section 7.2): no user, no list.
func isAuthority(text string) bool {
	for i := range len(text) {
		c := text[i]
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && strings.IndexByte("-._:[]", c) < 0 {
			return false
		}
	}
	return text != "" && len(text) <= 300
}

// isTarget reports whether a text could stand in a request line as the origin form (RFC 9112, section 3.2.1).
func isTarget(text string) bool {
	if !strings.HasPrefix(text, "/") {
		return false
	}
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// request is the request that the question is about, with the header that the front proxy passed on.
func (q question) request(r *http.Request) *http.Request {
	r.Method, r.Host, r.RequestURI, r.URL = q.method, q.host, q.target, q.url
	return r
}
