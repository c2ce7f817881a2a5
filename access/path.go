package access

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// How a path is read (RFC 3986, section 6.2.2, and what apps make of it).
//
// A path is refused that is not its own normal form: what a server between here and the app might clean up is not matched first and
// cleaned afterwards. Of what is left there is an exact reading, its decoded segments, and a loose one, as an app could take it that
// ignores case, path parameters (";x=1"), trailing dots and blanks, or folds compatibility characters. Both must lead to the same route
// and the same rule.

// maxSegments bounds the work for one path.
const maxSegments = 512

// reading is the segments of one path. A slash at its end leaves no segment: "/a/" and "/a" are both below the prefix "/a".
type reading struct {
	exact   []string // decoded, an encoded slash standing in its segment
	loose   []string
	slashes []string // loose, with encoded slashes read as slashes; nil if there are none
}

// readPath reads a path as it was sent; false if it is not its own normal form.
func readPath(raw string) (reading, bool) {
	if raw == "" || raw[0] != '/' || strings.Count(raw, "/") > maxSegments {
		return reading{}, false
	}
	decoded, encodedSlash, ok := decodePath(raw)
	if !ok {
		return reading{}, false
	}
	var r reading
	if r.exact, ok = segments(decoded); !ok {
		return reading{}, false
	}
	if r.loose, ok = loosen(r.exact); !ok {
		return reading{}, false
	}
	if encodedSlash {
		flat, ok := segments(strings.Split(strings.Join(r.exact, "/"), "/"))
		if !ok {
			return reading{}, false
		}
		if r.slashes, ok = loosen(flat); !ok {
			return reading{}, false
		}
	}
	return r, true
}

// decodePath decodes a path segment by segment. It refuses what has no business in a normal form: bytes that must be encoded and are not,
// those that need not be and are, encoded control characters, backslashes and, of a percent sign, what would decode once more.
func decodePath(raw string) (parts []string, encodedSlash, ok bool) {
	parts = strings.Split(raw[1:], "/")
	for i, part := range parts {
		if !strings.Contains(part, "%") {
			if !printable(part) {
				return nil, false, false
			}
			continue
		}
		text, slash, good := decodeSegment(part)
		if !good {
			return nil, false, false
		}
		parts[i], encodedSlash = text, encodedSlash || slash
	}
	return parts, encodedSlash, true
}

// printable reports whether a text is printable ASCII without a blank and without a backslash, which some servers take for a slash.
func printable(text string) bool {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	return true
}

func decodeSegment(part string) (text string, slash, ok bool) {
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		c := part[i]
		if c != '%' {
			if c <= ' ' || c >= 0x7f || c == '\\' {
				return "", false, false
			}
			b.WriteByte(c)
			continue
		}
		high, low := -1, -1
		if i+2 < len(part) {
			high, low = hexDigit(part[i+1]), hexDigit(part[i+2])
		}
		if high < 0 || low < 0 {
			return "", false, false
		}
		c = byte(high<<4 | low)
		i += 2
		if c < ' ' || c == 0x7f || c == '\\' || unreserved(c) || c == '%' && decodesAgain(part[i+1:]) {
			return "", false, false
		}
		slash = slash || c == '/'
		b.WriteByte(c)
	}
	return b.String(), slash, utf8.ValidString(b.String())
}

// decodesAgain reports whether what follows an encoded percent sign makes it the beginning of another encoded byte.
func decodesAgain(rest string) bool {
	return len(rest) >= 2 && hexDigit(rest[0]) >= 0 && hexDigit(rest[1]) >= 0 || strings.HasPrefix(rest, "%")
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// unreserved reports whether a byte never needs to be encoded (RFC 3986, section 2.3).
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// segments refuses empty segments but the last, which it takes off, and dot segments.
func segments(parts []string) ([]string, bool) {
	if parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	for _, part := range parts {
		if part == "" || isDots(part) {
			return nil, false
		}
	}
	return parts, true
}

// isDots reports whether a segment is "." or "..", with or without path parameters behind.
func isDots(segment string) bool {
	name, _, _ := strings.Cut(segment, ";")
	return name == "." || name == ".."
}

// loosen reads segments as a careless app might. It refuses a segment of which nothing is left, or a dot segment.
func loosen(exact []string) ([]string, bool) {
	loose := make([]string, len(exact))
	for i, segment := range exact {
		loose[i] = looseSegment(segment)
		if loose[i] == "" || isDots(loose[i]) {
			return nil, false
		}
		if strings.IndexByte(segment, '/') < 0 && strings.IndexByte(loose[i], '/') >= 0 {
			return nil, false // a character that some app takes for a slash
		}
	}
	return loose, true
}

func looseSegment(segment string) string {
	if end := strings.IndexAny(segment, ";?#"); end >= 0 {
		segment = segment[:end]
	}
	if !isASCII(segment) {
		segment = strings.Map(func(c rune) rune {
			if unicode.Is(unicode.Cf, c) || unicode.IsControl(c) {
				return -1
			}
			return c
		}, norm.NFKC.String(segment))
		segment = strings.ToUpper(segment) // folds what has no lower case of its own, as the dotless i
	}
	return strings.TrimRight(strings.ToLower(segment), ". \t")
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// prefix is the beginning of paths, by whole segments, in both readings.
type prefix struct{ exact, loose []string }

// newPrefix reads a prefix as an operator writes it: decoded, from the root.
func newPrefix(path string) (prefix, error) {
	if path == "" || path == "/" {
		return prefix{}, nil
	}
	exact, ok := segments(strings.Split(strings.TrimPrefix(path, "/"), "/"))
	if !ok || path[0] != '/' || !utf8.ValidString(path) || strings.ContainsFunc(path, unprefixed) {
		return prefix{}, fmt.Errorf("path %q must begin with a slash, be decoded, and have no empty and no dot segments", path)
	}
	loose, ok := loosen(exact)
	if !ok {
		return prefix{}, fmt.Errorf("path %q has a segment that is no name", path)
	}
	return prefix{exact, loose}, nil
}

// unprefixed reports whether a character cannot stand in a prefix: it would never match, or mean something else.
func unprefixed(c rune) bool { return unicode.IsControl(c) || strings.ContainsRune("\\%?#;", c) }

// covers reports whether a path lies at the prefix or below it.
func (p prefix) covers(segments []string, loose bool) bool {
	own := p.exact
	if loose {
		own = p.loose
	}
	if len(segments) < len(own) {
		return false
	}
	for i := range own {
		if segments[i] != own[i] {
			return false
		}
	}
	return true
}
