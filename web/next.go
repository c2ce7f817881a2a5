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

// checkNext accepts a path of the login host, or its full address, and returns the path with its query, serialised anew. The
// rule is an allow-list, stricter than URLs are: printable ASCII, no backslash, no dot segment, nothing that reads as a
// control, a slash or a backslash at the start once it is decoded, and not a page of the gateway (a loop).
func (e *Edge) checkNext(raw string) (string, bool) {
	if len(raw) > maxNext || strings.ContainsFunc(raw, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '\\' }) {
		return "", false
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.User != nil {
		return "", false
	}
	if u.Host != "" && !(u.Scheme == e.External.Scheme && strings.EqualFold(u.Host, e.External.Host)) {
		return "", false
	}
	if u.Host == "" && (u.Scheme != "" || strings.HasPrefix(raw, "//")) {
		return "", false
	}
	if !plainPath(u) {
		return "", false
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	return path, true
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

// goTo sends the browser to a checked next. The address is made from the configured origin and what begins with a slash, so
// nothing in it can name another host.
func (e *Edge) goTo(w http.ResponseWriter, r *http.Request, next string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, e.origin+next, http.StatusSeeOther)
}

// own is the address of a page of ours, with where to go afterwards.
func own(page, next string) string {
	if next == "/" {
		return Prefix + page
	}
	return Prefix + page + "?" + url.Values{"next": {next}}.Encode()
}
