package web

import (
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxNext is the longest next that is followed, in bytes.
const maxNext = 2048

// next reads where to go after signing in. What checkNext refuses becomes "/", and is counted as an attempt to get around
// something.
func (e *Edge) next(r *http.Request, given []string) string {
	switch {
	case len(given) == 0, len(given) == 1 && given[0] == "":
		return "/"
	case len(given) == 1:
		if target, ok := e.checkNext(given[0]); ok {
			return target
		}
	}
	e.countBypass(r, "foreign-redirect")
	return "/"
}

// checkNext accepts a path of the host that is served, or the full address of a page there or on an app host, and returns it serialised
// anew: a path with its query, for another host with the origin as it is configured before it. The rule is an allow-list, stricter than
// URLs are: printable ASCII, no backslash, no dot segment, nothing that reads as a control, a slash or a backslash at the start once it is
// decoded, and not a page of the gateway (a loop).
func (e *Edge) checkNext(raw string) (string, bool) {
	if len(raw) > maxNext || strings.ContainsFunc(raw, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '\\' }) {
		return "", false
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.User != nil {
		return "", false
	}
	if u.Host == "" && (u.Scheme != "" || strings.HasPrefix(raw, "//")) {
		return "", false
	}
	origin, ok := e.originOf(u)
	if !ok || !plainPath(u) {
		return "", false
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	if origin == e.origin {
		return path, true
	}
	return origin + path, true
}

// originOf is the origin of an address, as it is configured: the one that is served where the address names none. Another port, scheme or
// spelling than that of the configuration is none of ours, but for upper case, which browsers write in lower case.
func (e *Edge) originOf(u *url.URL) (string, bool) {
	if u.Host == "" {
		return e.origin, true
	}
	named := u.Scheme + "://" + strings.ToLower(u.Host)
	if named == strings.ToLower(e.origin) {
		return e.origin, true
	}
	if e.Hosts == nil {
		return "", false
	}
	origin, ok := e.Hosts.Origin(u.Host)
	return origin, ok && origin == named
}

// split takes a checked next apart.
func (e *Edge) split(next string) (origin, path string) {
	if strings.HasPrefix(next, "/") {
		return e.origin, next
	}
	_, rest, _ := strings.Cut(next, "://")
	slash := len(next) - len(rest) + strings.IndexByte(rest, '/')
	return next[:slash], next[slash:]
}

// hostOf is the host of an origin, for people.
func hostOf(origin string) string {
	_, host, _ := strings.Cut(origin, "://")
	return host
}

// leadsTo says on a page of a login where it leads, and lets the page's form be answered with the way there.
func (e *Edge) leadsTo(f *frame, next string) (host string) {
	origin, _ := e.split(next)
	if origin != e.origin {
		f.leads = origin
	}
	return hostOf(origin)
}

// plainPath reports whether a path reads the same for every browser and server between here and there.
func plainPath(u *url.URL) bool {
	p := u.Path // decoded once
	if u.Host != "" && p == "" {
		return true
	}
	// As it is sent, too: "%2F@evil.test" behind our origin would make our host's name the user information of another host.
	if !strings.HasPrefix(u.EscapedPath(), "/") {
		return false
	}
	if !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.HasPrefix(p, Prefix) || p+"/" == Prefix {
		return false
	}
	if !utf8.ValidString(p) || strings.ContainsFunc(p, func(c rune) bool { return unicode.IsControl(c) || c == '\\' || unicode.Is(unicode.Cf, c) }) {
		return false
	}
	for segment := range strings.SplitSeq(p, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// goTo sends the browser to a checked next. The address is made from a configured origin and what begins with a slash, so nothing in it
// can name another host. A page of an app host is reached through the hand-off, which signs the browser in there.
func (e *Edge) goTo(w http.ResponseWriter, r *http.Request, next string) {
	origin, path := e.split(next)
	switch {
	case origin != e.origin:
		path = onward("handoff", path)
	case path == "/" && e.NoApp:
		path = Prefix + "login" // which says that you are signed in
	}
	redirect(w, r, origin+path)
}

// redirect sends the browser to an address that was made here.
func redirect(w http.ResponseWriter, r *http.Request, to string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// onward is the path of a page of ours on the way to next, with further fields in pairs.
func onward(page, next string, fields ...string) string {
	query := url.Values{}
	if next != "/" {
		query.Set("next", next)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		query.Set(fields[i], fields[i+1])
	}
	if len(query) == 0 {
		return Prefix + page
	}
	return Prefix + page + "?" + query.Encode()
}

// own is the address of a page of ours, with where to go afterwards.
func own(page, next string) string { return onward(page, next) }
