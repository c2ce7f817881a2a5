package web

import "net/url"

// CheckNext is the check of where to go after signing in, at a login host: the seam of its fuzz target.
func CheckNext(external *url.URL, raw string) (next string, ok bool) {
	e := &Edge{Options: Options{External: external}, origin: external.Scheme + "://" + external.Host}
	return e.checkNext(raw)
}
