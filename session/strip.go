package session

import (
	"net/http"
	"strings"
)

// StripRequest takes our cookies out of the Cookie lines that go to an app. Everything else stays as it was sent, byte for
// byte: other cookies are not parsed, so odd white space, quotes and pairs that are none arrive unchanged. A line that held
// nothing else is removed. h's slices are not written to, so they may be shared with the client's request.
func StripRequest(h http.Header) {
	lines := h["Cookie"]
	var kept []string
	changed := false
	for i, line := range lines {
		rest, stripped := stripLine(line)
		if stripped && !changed {
			kept, changed = append(kept, lines[:i]...), true
		}
		if changed && (!stripped || rest != "") {
			kept = append(kept, rest)
		}
	}
	if !changed {
		return
	}
	if len(kept) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = kept
}

// stripLine returns the line without our pairs, "" if nothing but separators is left, and whether there was one of ours.
func stripLine(line string) (string, bool) {
	var out []byte
	start, stripped := 0, false // line[start:] is not decided yet
	for at := 0; at <= len(line); {
		end := len(line)
		if i := strings.IndexByte(line[at:], ';'); i >= 0 {
			end = at + i
		}
		if isOurs(line[at:end]) {
			out = append(out, line[start:at]...)
			start, stripped = min(end+1, len(line)), true // the separator behind goes with it
		}
		at = end + 1
	}
	if !stripped {
		return line, false
	}
	if start == len(line) && len(out) > 0 && line[len(line)-1] != ';' {
		out = out[:len(out)-1] // ours was the last pair, so the separator before goes
	}
	rest := string(append(out, line[start:]...))
	if strings.Trim(rest, "; \t") == "" {
		return "", true
	}
	if isSpace(rest[0]) && !isSpace(line[0]) {
		rest = strings.TrimLeft(rest, " \t") // ours was first; what is left must not begin with its separator's space
	}
	return rest, true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// StripResponse takes what would set or clear a cookie of ours out of an app's answer: Set-Cookie lines with one of our names
// in any spelling that a browser could take for it, and the "cookies" and "*" directives of Clear-Site-Data. Everything else
// stays as it is.
func StripResponse(h http.Header) {
	filter(h, "Set-Cookie", func(line string) (string, bool) {
		pair, _, _ := strings.Cut(line, ";")
		return line, !isOurs(pair)
	})
	filter(h, "Clear-Site-Data", keepsCookies)
}

// filter replaces the values of a header by what keep makes of them, and leaves out those of which keep says so.
func filter(h http.Header, name string, keep func(string) (string, bool)) {
	lines, ok := h[name]
	if !ok {
		return
	}
	kept := make([]string, 0, len(lines))
	for _, line := range lines {
		if rest, ok := keep(line); ok {
			kept = append(kept, rest)
		}
	}
	if len(kept) == 0 {
		delete(h, name)
		return
	}
	h[name] = kept
}

// keepsCookies takes the directives that end cookies out of a Clear-Site-Data value (W3C Clear Site Data, section 3.1). It is
// generous: whatever names cookies or everything goes, quoted or not.
func keepsCookies(line string) (string, bool) {
	directives := strings.Split(line, ",")
	kept := directives[:0]
	for _, d := range directives {
		if folded := strings.ToLower(d); !strings.Contains(folded, "cookies") && !strings.Contains(folded, "*") {
			kept = append(kept, d)
		}
	}
	rest := strings.TrimSpace(strings.Join(kept, ","))
	return rest, rest != ""
}

// isOurs reports whether a name=value pair could be read as one of our cookies by a browser or an app, now or in an older
// version. Names are compared without regard to case, and without white space, control characters, quotes and bytes beyond
// ASCII, which parsers trim or truncate at. A cookie without a name ("=__Host-gatehouse=x", "__Host-gatehouse") counts by its
// value, because browsers send it back without the leading "=", where it reads as ours.
func isOurs(pair string) bool {
	if len(pair) < len(accessCookie) {
		return false
	}
	for len(pair) > 0 && (ignored(pair[0]) || pair[0] == '=') {
		pair = pair[1:]
	}
	for _, name := range cookieNames {
		if spells(pair, name) {
			return true
		}
	}
	return false
}

// spells reports whether pair begins with name, in any spelling, followed by "=" or nothing.
func spells(pair, name string) bool {
	at := 0
	for i := range len(pair) {
		c := pair[i]
		switch {
		case ignored(c):
			continue
		case c == '=':
			return at == len(name)
		case at == len(name) || lower(c) != lower(name[at]):
			return false
		}
		at++
	}
	return at == len(name)
}

func ignored(c byte) bool { return c <= ' ' || c >= 0x7f || c == '"' }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
