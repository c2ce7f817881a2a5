package proxy

import "net/http"

// The seams of the fuzz targets and the tables: pure functions of this package.
var (
	StripClient = func(h http.Header) bool { return stripClient(h) }
	MayClaim    = mayClaim
	MakePrivate = makePrivate
	PlainText   = plainText
)

// ProtectedNames are the folded names and prefixes that no client may send.
func ProtectedNames() (names, prefixes []string) {
	for name := range protected {
		names = append(names, name)
	}
	for _, p := range protectedPrefixes {
		prefixes = append(prefixes, p.prefix)
	}
	return names, prefixes
}

// MaxFold is how much of a name is looked at.
const MaxFold = maxFold

// ReadQuestion shows what a front proxy is taken to ask.
func ReadQuestion(r *http.Request) (method, host, target string, ok bool) {
	q, ok := readQuestion(r)
	return q.method, q.host, q.target, ok
}
