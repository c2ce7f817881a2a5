package web_test

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"gatehouse/web"
)

// browserHost is the host, with its port, to which a browser goes for an address, read as carelessly as the URL Standard asks them to:
// control characters at the ends and line ends anywhere are left out, a backslash is a slash, any number of slashes may stand before the
// host, and what stands before an @ is no host.
func browserHost(address string) string {
	address = strings.TrimFunc(address, func(c rune) bool { return c <= ' ' })
	address = strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(address)
	_, rest, _ := strings.Cut(address, ":")
	rest = strings.TrimLeft(rest, "/")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	if decoded, err := url.PathUnescape(rest); err == nil {
		rest = decoded
	}
	return strings.ToLower(rest)
}

// FuzzCheckNext: wherever somebody is sent after signing in, it is the login host to every browser, also when something on the way has
// decoded the address once more, and it is not one of the gateway's own pages.
func FuzzCheckNext(f *testing.F) {
	for _, next := range []string{
		"/", "/wiki?a=b&c=%2F", "https://login.example.test/x", "//evil.test", `/\evil.test`, "/%2f/evil.test", "https:evil.test", "https://login.example.test@evil.test/",
		"https://login.example.test%2F@evil.test", "/\t/evil.test", "/.//evil.test", "/x/..//evil.test", "/%09/evil.test", "///evil.test", "http://login.example.test/",
		"https://login.example.test:443/", "/.gatehouse/login", "/%2egatehouse/login", "javascript:alert(1)", "/\u2028x", "/?next=//evil.test", "https://LOGIN.example.test", "?x", "",
	} {
		f.Add(next)
	}
	external := &url.URL{Scheme: "https", Host: "login.example.test"}
	f.Fuzz(func(t *testing.T, raw string) {
		next, ok := web.CheckNext(external, raw)
		if !ok {
			return
		}
		if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsFunc(next, func(c rune) bool { return c <= ' ' || c >= utf8.RuneSelf || c == '\\' }) {
			t.Fatalf("%q: goes to %q", raw, next)
		}
		path, _, _ := strings.Cut(next, "?")
		for range 2 {
			if host := browserHost("https://login.example.test" + path); host != external.Host {
				t.Fatalf("%q: %q is at %q", raw, next, host)
			}
			if host := browserHost("https:" + path); strings.HasPrefix(path, "//") && host != external.Host { // taken for a reference of its own
				t.Fatalf("%q: %q is at %q", raw, next, host)
			}
			if strings.HasPrefix(path, web.Prefix) {
				t.Fatalf("%q: goes to a page of the gateway's: %q", raw, next)
			}
			decoded, err := url.PathUnescape(path)
			if err != nil {
				break
			}
			path = decoded
		}
		again, ok := web.CheckNext(external, next)
		if !ok || again != next {
			t.Fatalf("%q: %q is not its own next: %q", raw, next, again)
		}
	})
}
