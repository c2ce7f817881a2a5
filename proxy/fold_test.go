package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"gatehouse/proxy"
)

// cgi folds a name like a CGI server does, written apart from the code under test.
func cgi(name string) string {
	const kept = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	folded := []byte(name)
	for i, c := range folded {
		if strings.IndexByte("abcdefghijklmnopqrstuvwxyz", c) >= 0 {
			c = kept[c-'a']
		}
		if strings.IndexByte(kept, c) < 0 {
			c = '_'
		}
		folded[i] = c
	}
	return string(folded)
}

// forbidden reports whether an app that folds names could read this one as protected.
func forbidden(name string) bool {
	names, prefixes := proxy.ProtectedNames()
	folded := cgi(name)
	for _, n := range names {
		if folded == n {
			return true
		}
	}
	for _, p := range prefixes {
		if strings.HasPrefix(folded, p) {
			return true
		}
	}
	return false
}

func TestProtectedNames_areShorterThanWhatIsFolded(t *testing.T) {
	t.Parallel()
	names, prefixes := proxy.ProtectedNames()
	for _, name := range append(names, prefixes...) {
		if len(name) >= proxy.MaxFold || name != cgi(name) {
			t.Errorf("%q is too long or not folded", name)
		}
	}
}

func TestStripClient_leavesWhatIsTheApps(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"Accept", "Authorization", "Cookie", "Content-Type", "Origin", "Referer", "User-Agent", "X-Requested-With", "X-Csrf-Token", "X-Api-Key",
		"X-Auth-Token", "X-Auth-User", "X-Http-Method-Override", "X-Request-Id", "X-Gatehouse", "X-Remote", "Remote", "X-Forward", "Forward", "X-Original",
		"Remote-User-Agent", "X-Real-Ip-Address", strings.Repeat("X", 200), "Destination", "Depth", "If", "Lock-Token", "Traceparent",
	} {
		h := http.Header{name: {"1"}}
		if forged := proxy.StripClient(h); forged || len(h) != 1 {
			t.Errorf("%s was taken away", name)
		}
	}
}

func TestPlainText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Bob Müller": "Bob Müller", " a ": "a", "a\r\nRemote-User: root": "aRemote-User: root", "a\x00b\x7f\u0085c": "abc",
		"a\u2028b": "ab", "bad \xff utf": "bad  utf", "\n": "", "日本": "日本",
	} {
		if got := proxy.PlainText(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// Whatever a client calls its header, nothing is left that folds to a protected name, and nothing else is taken away.
func FuzzStripClient(f *testing.F) {
	names, prefixes := proxy.ProtectedNames()
	for _, name := range append(names, prefixes...) {
		f.Add(name)
		f.Add(strings.ReplaceAll(strings.ToLower(name), "_", "-"))
		f.Add(strings.ReplaceAll(name, "_", ".") + "x")
	}
	f.Add("Remote-User" + strings.Repeat("-", 60))
	f.Fuzz(func(t *testing.T, name string) {
		h := http.Header{name: {"1"}, "X-Own": {"1"}}
		proxy.StripClient(h)
		if _, left := h[name]; left == forbidden(name) && name != "X-Own" {
			t.Fatalf("%q: left %v, forbidden %v", name, left, forbidden(name))
		}
		if len(h["X-Own"]) != 1 {
			t.Fatalf("%q took another header away", name)
		}
	})
}
