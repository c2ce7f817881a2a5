package web

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"gatehouse/problem"
)

// maxShown is how much of a header the loop page shows, in bytes.
const maxShown = 200

// loopPage says why somebody who signed in is not signed in, to whoever runs this: what arrived here, what that means, and what to change.
type loopPage struct {
	frame
	Why, Origin string
	Causes      []cause
	Received    []string
	Again       string
}

// cause is what may be wrong, with the line of configuration to change.
type cause struct {
	Text message
	Line string
}

// drawLoop ends what would go in a circle. why is the key of what was seen.
func (e *Edge) drawLoop(w http.ResponseWriter, r *http.Request, next, why string) {
	page := &loopPage{
		frame: frame{Title: say("loop.title"), Code: problem.BadRequest, Wide: true}, Why: why, Origin: e.origin,
		Causes: e.causes(r, why), Received: e.received(r), Again: e.origin + next,
	}
	e.render(w, r, "loop", page)
}

// forwarded are the headers in which front proxies say how a request came to them.
var forwarded = []string{"X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-For", "Forwarded"}

// received is the request as it came, as far as it matters here. Of cookies only how many there are.
func (e *Edge) received(r *http.Request) []string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	lines := []string{"Host: " + shown(r.Host), "Scheme: " + scheme + " (external_url: " + e.External.Scheme + ")", "Client: " + e.Visitor(r).Address.String()}
	for _, name := range forwarded {
		values := r.Header.Values(name)
		if len(values) == 0 {
			lines = append(lines, name+": –")
		}
		for _, value := range values[:min(len(values), 5)] {
			lines = append(lines, name+": "+shown(value))
		}
	}
	return append(lines, fmt.Sprintf("Cookie: %d", len(r.Cookies())))
}

func shown(value string) string {
	if len(value) > maxShown {
		value = value[:maxShown] + "…"
	}
	return strings.ToValidUTF8(value, "�")
}

// causes are what the request says about why cookies do not come back, the likeliest first.
func (e *Edge) causes(r *http.Request, why string) []cause {
	var all []cause
	add := func(line, key string, pairs ...any) { all = append(all, cause{say(key, pairs...), line}) }
	v, proto, host := e.Visitor(r), r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Host")
	if host != "" && !strings.EqualFold(host, hostOf(e.origin)) {
		add("proxy_set_header Host $http_host;", "loop.host", "Received", shown(r.Host), "Forwarded", shown(host))
	}
	secure := e.External.Scheme == "https"
	if secure && strings.EqualFold(proto, "http") {
		add("return 308 https://$host$request_uri;", "loop.http", "Origin", e.origin)
	}
	if v.Claimed != "" {
		add("trusted_proxies: ["+v.Address.String()+"]", "loop.untrusted", "Peer", v.Address.String())
	}
	if secure && r.TLS == nil && proto == "" {
		add("proxy_set_header X-Forwarded-Proto $scheme;", "loop.proto-missing")
	}
	switch {
	case why == "loop.circle":
		add("proxy_set_header Cookie $http_cookie;", "loop.app-cookie")
	case len(r.Header["Cookie"]) == 0:
		add("proxy_set_header Cookie $http_cookie;", "loop.cookie-header")
	default:
		add("proxy_hide_header Set-Cookie;", "loop.set-cookie")
	}
	if why != "loop.circle" {
		add("", "loop.browser", "Host", hostOf(e.origin))
	}
	if at, err := url.Parse(e.origin); err == nil && at.Scheme == "http" {
		add("external_url: https://"+e.External.Hostname(), "loop.plain")
	}
	add("timedatectl set-ntp true", "loop.clock")
	return all
}
