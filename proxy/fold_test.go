package proxy_test

import (
	"net/http"
	"os"
	"regexp"
	"slices"
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
		// What clients of some apps sign in by, and names that only begin like protected ones.
		"X-User-Id", "X-User-Email", "X-User-Token", "X-User-Agent", "X-Username", "X-Access-Token", "X-Id-Token", "X-Emby-Authorization", "X-Hasura-Role",
		"X-Consumer", "X-Credentials", "X-Userinfo-Fields", "Impersonate", "Oidc", "Shibboleth", "Smart-Mode", "Ivy-Id", "Casing", "Ajpx", "Auth-Token",
	} {
		h := http.Header{name: {"1"}}
		if forged := proxy.StripClient(h); forged || len(h) != 1 {
			t.Errorf("%s was taken away", name)
		}
	}
}

// Folding costs more than all the rest of passing a header on, and what browsers and apps send is hardly ever worth it.
func TestMayClaim_endsAtWhatIsUsual(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Access-Control-Request-Method", "Cache-Control", "Connection", "Content-Length", "Content-Type", "Cookie", "Dnt", "Host",
		"If-Match", "If-Modified-Since", "If-None-Match", "Origin", "Pragma", "Priority", "Range", "Referer", "Sec-Ch-Ua", "Sec-Fetch-Dest", "Sec-Fetch-Mode",
		"Sec-Fetch-Site", "Sec-Gpc", "Sec-Websocket-Key", "Te", "Traceparent", "Upgrade", "Upgrade-Insecure-Requests", "User-Agent", "Via",
		"Accept-Ranges", "Age", "Content-Encoding", "Content-Security-Policy", "Date", "Etag", "Expires", "Last-Modified", "Link", "Location",
		"Permissions-Policy", "Referrer-Policy", "Server", "Set-Cookie", "Strict-Transport-Security", "Transfer-Encoding", "Vary",
	} {
		if proxy.MayClaim(name) {
			t.Errorf("%s is folded and looked up", name)
		}
	}
}

var documentedName = regexp.MustCompile("`([A-Za-z0-9_*-]+)`")

// The documentation lists what is taken away, no more and no less. A star there stands for whatever follows.
func TestProtectedNames_areThoseOfTheDocumentation(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "\n| whose | names |\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var names, prefixes []string
	for _, match := range documentedName.FindAllStringSubmatch(list, -1) {
		prefix, open := strings.CutSuffix(match[1], "*")
		if open {
			prefixes = append(prefixes, cgi(prefix))
		} else {
			names = append(names, cgi(prefix))
		}
		h := http.Header{prefix + "x": {"1"}, prefix: {"1"}}
		if proxy.StripClient(h); len(h[prefix]) != 0 || open && len(h) != 0 {
			t.Errorf("%s is documented and passes", match[1])
		}
	}
	protected, open := proxy.ProtectedNames()
	for _, name := range append(protected, open...) {
		covers := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
		if !slices.ContainsFunc(prefixes, covers) && (!slices.Contains(names, name) || slices.Contains(open, name)) {
			t.Errorf("%s is protected and not documented", name)
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
