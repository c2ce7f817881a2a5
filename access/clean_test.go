package access_test

import (
	"net/url"
	"path"
	"strings"
)

// cleanings is what apps make of a path before they look it up.
func cleanings(raw string) []string {
	decode := func(s string) string {
		if d, err := url.PathUnescape(s); err == nil {
			return d
		}
		return s
	}
	withoutParameters := func(s string) string {
		parts := strings.Split(s, "/")
		for i, p := range parts {
			parts[i], _, _ = strings.Cut(p, ";")
		}
		return strings.Join(parts, "/")
	}
	backslash := func(s string) string { return strings.ReplaceAll(s, `\`, "/") }
	var all []string
	for _, s := range []string{
		raw, decode(raw), decode(decode(raw)), withoutParameters(raw), withoutParameters(decode(raw)), backslash(decode(raw)),
		strings.ToLower(decode(raw)), strings.ToLower(strings.ToUpper(decode(raw))), strings.ReplaceAll(decode(raw), "\x00", ""),
	} {
		if cut := strings.IndexAny(s, "?#"); cut >= 0 {
			s = s[:cut]
		}
		all = append(all, path.Clean("/"+s))
	}
	return all
}
