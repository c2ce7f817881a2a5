package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// target is what a client asked for, byte for byte.
type target struct {
	path     string // starts with a slash
	query    string
	hasQuery bool // a question mark stood there, even with nothing behind it
}

// readTarget takes the path and the query out of the request line as they were sent. net/url decodes them, and what it
// writes back is not always what it read (`"`, `|`, `^`, bytes beyond ASCII): an app would see another path than the
// client sent. It refuses what is no path: "*", the authority of CONNECT, addresses that are not HTTP's, and a fragment,
// which has no place in a request (RFC 9112, section 3.2) and which apps cut off or keep as they please.
func readTarget(r *http.Request) (target, bool) {
	raw := r.RequestURI
	if r.URL.Scheme != "" { // the absolute form (RFC 9112, section 3.2.2): its authority has become r.Host
		if r.URL.Scheme != "http" && r.URL.Scheme != "https" || r.URL.Host == "" {
			return target{}, false // RFC 9110, section 4.2.1: without a host it is invalid
		}
		_, rest, _ := strings.Cut(raw, "://")
		if start := strings.IndexAny(rest, "/?"); start >= 0 {
			raw = rest[start:]
		} else {
			raw = "/"
		}
		if raw[0] == '?' {
			raw = "/" + raw
		}
	}
	if !strings.HasPrefix(raw, "/") || strings.Contains(raw, "#") {
		return target{}, false
	}
	var t target
	t.path, t.query, t.hasQuery = strings.Cut(raw, "?")
	return t, true
}

// String is the target as it stands in a request line.
func (t target) String() string {
	if t.hasQuery {
		return t.path + "?" + t.query
	}
	return t.path
}

// at is the target at an upstream, such that net/http writes exactly the bytes of the target; false if there is no such
// URL.
func (t target) at(upstream *url.URL, decodedPath string) (url.URL, bool) {
	u := url.URL{Scheme: upstream.Scheme, Host: upstream.Host, RawQuery: t.query, ForceQuery: t.hasQuery && t.query == ""}
	u.Path, u.RawPath = decodedPath, t.path
	if u.EscapedPath() == t.path {
		return u, true
	}
	u.Path, u.RawPath, u.Opaque = "", "", t.path
	// An opaque part that starts with two slashes would be written as an address with another host.
	return u, !strings.HasPrefix(t.path, "//")
}

// without is the target without the first segments of its path, and of the path decoded, and what was taken off: what comes behind is left as
// it was sent. The path was matched with these segments, so each of them stands for itself in both.
func (t target) without(segments int, decoded string) (rest target, restDecoded, prefix string) {
	if segments == 0 {
		return t, decoded, ""
	}
	full := t.path
	t.path, decoded = cutSegments(t.path, segments), cutSegments(decoded, segments)
	return t, decoded, strings.TrimSuffix(strings.TrimSuffix(full, t.path), "/")
}

func cutSegments(path string, segments int) string {
	for range segments {
		next := strings.IndexByte(path[1:], '/')
		if next < 0 {
			return "/"
		}
		path = path[1+next:]
	}
	return path
}
