package access_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gatehouse/access"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// open and guarded are the rules of PX-16: /public for everybody, /admin for administrators, the rest for whoever is signed in.
func publicAndAdmin(t testing.TB, encoded bool) *access.Table {
	t.Helper()
	table, err := access.New("https", []access.Route{
		{Host: "app.example.test", EncodedSlashes: encoded, Rules: []access.Rule{
			{Paths: []string{"/public"}, Access: access.Public},
			{Paths: []string{"/admin"}, Groups: []string{"admins"}},
			{Paths: []string{"/fi"}, Access: access.Denied},
			{},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

var (
	user  = &access.Subject{Name: "bob", Groups: []string{"staff"}, SecondFactor: true, AuthTime: now.Add(-time.Minute)}
	admin = &access.Subject{Name: "root", Groups: []string{"admins"}, SecondFactor: true, AuthTime: now.Add(-time.Minute)}
)

// TestTable_refusesWhatReadsDifferently replays the paths of PX-16: each is refused, or decided as what it says to the letter.
func TestTable_refusesWhatReadsDifferently(t *testing.T) {
	t.Parallel()
	table := publicAndAdmin(t, false)
	for _, path := range []string{
		"/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public/%252e%252e/admin", "/public/..;/admin", "/public/.%2e/admin",
		"/public%2f..%2fadmin", "//admin", "/./admin", "/admin/.", "/ADMIN", "/%61dmin", "/admin%20", "/admin%00", "/admin;x=1", `/public\..\admin`,
		"/public%5c..%5cadmin", "/%c0%ae%c0%ae/admin", "/public%23/../admin", "/public/x/../../admin", "/admın", "/adm%C4%B1n", "/%EF%AC%81", "/admin.",
		"/public//x", "/admin%09", "/admin%7f", "/a%", "/a%2", "/a%zz", "/public/%2525", "admin", "", "*", "/adm\tin", "/adm in", "/admin%3Fx",
		"/%EF%BC%8Fadmin", "/admin%E2%80%8B", "/public/%EF%BC%8E%EF%BC%8E/admin", "/public%2Fx", "/admin%20/x", "/public;/admin/%2e",
	} {
		if m, err := table.Match(access.Request{Host: "app.example.test", Path: path, Method: "GET"}); !errors.Is(err, access.ErrPath) {
			t.Errorf("%q: %v (public: %v), want ErrPath", path, err, err == nil && m.Public())
		}
	}
}

func TestTable_firstMatchDecides(t *testing.T) {
	t.Parallel()
	table := publicAndAdmin(t, false)
	for _, c := range []struct {
		path    string
		who     *access.Subject
		verdict access.Verdict
		reason  access.Reason
		rule    int
	}{
		{"/public", nil, access.Allow, access.ReasonPublic, 0},
		{"/public/a/b.css", nil, access.Allow, access.ReasonPublic, 0},
		{"/publicity", nil, access.SignIn, access.ReasonNoSession, 3},
		{"/admin", nil, access.SignIn, access.ReasonNoSession, 1},
		{"/admin/", user, access.Deny, access.ReasonNotListed, 1},
		{"/admin/x", admin, access.Allow, access.ReasonListed, 1},
		{"/fi/x", admin, access.Deny, access.ReasonDenied, 2},
		{"/", user, access.Allow, access.ReasonSignedIn, 3},
		{"/caf%C3%A9/a%20b;v=1", user, access.Allow, access.ReasonSignedIn, 3},
		{"/a%25", user, access.Allow, access.ReasonSignedIn, 3},
	} {
		m, err := table.Match(access.Request{Host: "APP.example.test.:443", Path: c.path, Method: "GET"})
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		got := m.Admit(c.who, now)
		if got.Verdict != c.verdict || got.Reason != c.reason || got.Rule != c.rule {
			t.Errorf("%s: got %+v, want %v %v by rule %d", c.path, got, c.verdict, c.reason, c.rule)
		}
		if m.Origin != "https://app.example.test" {
			t.Errorf("%s: origin %q", c.path, m.Origin)
		}
	}
}

func TestTable_encodedSlashesGetTheStricterRule(t *testing.T) {
	t.Parallel()
	table := publicAndAdmin(t, true)
	for _, c := range []struct {
		path    string
		verdict access.Verdict
	}{
		{"/public%2Fx", access.SignIn}, // opaque it is below no rule but the last
		{"/public/a%2Fb", access.Allow},
		{"/admin%2Fx", access.Deny},
		{"/x%2Fy", access.Allow},
	} {
		m, err := table.Match(access.Request{Host: "app.example.test", Path: c.path, Method: "GET"})
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		who := user
		if c.verdict == access.SignIn || strings.HasPrefix(c.path, "/public/") {
			who = nil
		}
		if got := m.Admit(who, now); got.Verdict != c.verdict {
			t.Errorf("%s: got %+v, want %v", c.path, got, c.verdict)
		}
	}
	for _, path := range []string{"/public%2F..%2Fadmin", "/public/%2Fadmin", "/public/..%2fadmin"} {
		if _, err := table.Match(access.Request{Host: "app.example.test", Path: path, Method: "GET"}); !errors.Is(err, access.ErrPath) {
			t.Errorf("%s: %v, want ErrPath", path, err)
		}
	}
}

func TestTable_findsHostsByLabel(t *testing.T) {
	t.Parallel()
	table, err := access.New("https", []access.Route{
		{Host: "*.apps.example.test"}, {Host: "wiki.apps.example.test", Path: "/"}, {Host: "wiki.apps.example.test", Path: "/api/v1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for host, route := range map[string]int{
		"wiki.apps.example.test": 1, "WIKI.apps.example.test:443": 1, "git.apps.example.test": 0, "apps.example.test": -1, ".apps.example.test": -1,
		"a.b.apps.example.test": -1, "evilapps.example.test": -1, "git.apps.example.test.evil.test": -1, "git.apps.example.test:8443": -1,
		"*.apps.example.test": -1, "a@b.apps.example.test": -1, "": -1, "[::1]": -1,
	} {
		m, err := table.Match(access.Request{Host: host, Path: "/", Method: "GET"})
		switch {
		case route < 0 && !errors.Is(err, access.ErrNoHost):
			t.Errorf("%q: route %d, %v, want ErrNoHost", host, m.Route, err)
		case route >= 0 && (err != nil || m.Route != route):
			t.Errorf("%q: route %d, %v, want %d", host, m.Route, err, route)
		}
	}
	m, err := table.Match(access.Request{Host: "wiki.apps.example.test", Path: "/api/v1/x", Method: "GET"})
	if err != nil || m.Route != 2 {
		t.Errorf("the longest path decides: route %d, %v", m.Route, err)
	}
	if _, err := table.Match(access.Request{Host: "wiki.apps.example.test", Path: "/API/v1/x", Method: "GET"}); !errors.Is(err, access.ErrPath) {
		t.Errorf("another case under another route: %v, want ErrPath", err)
	}
}

func TestTable_deniesWhatNothingNames(t *testing.T) {
	t.Parallel()
	table, err := access.New("https", []access.Route{{Host: "app.test", Path: "/app", Rules: []access.Rule{
		{Methods: []string{"GET"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Access: access.Public},
		{Methods: []string{"POST"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	inside, outside := netip.MustParseAddr("::ffff:10.1.2.3"), netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		method  string
		address netip.Addr
		verdict access.Verdict
	}{
		{"GET", inside, access.Allow},
		{"HEAD", inside, access.Allow},
		{"get", inside, access.Deny},
		{"OPTIONS", inside, access.Deny},
		{"GET", outside, access.Deny},
		{"GET", netip.Addr{}, access.Deny},
		{"POST", outside, access.Allow},
	} {
		m, err := table.Match(access.Request{Host: "app.test", Path: "/app/x", Method: c.method, Address: c.address})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Admit(user, now); got.Verdict != c.verdict {
			t.Errorf("%s from %v: %+v, want %v", c.method, c.address, got, c.verdict)
		}
	}
	if _, err := table.Match(access.Request{Host: "app.test", Path: "/other", Method: "GET"}); !errors.Is(err, access.ErrNoRoute) {
		t.Errorf("beside the route: %v, want ErrNoRoute", err)
	}
	if got := (access.Match{}).Admit(user, now); got.Verdict != access.Deny {
		t.Errorf("no match at all: %+v, want deny", got)
	}
}

func TestMatch_asksForAFreshFactor(t *testing.T) {
	t.Parallel()
	table, err := access.New("https", []access.Route{{Host: "app.test", Rules: []access.Rule{{FactorWithin: 15 * time.Minute}}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := table.Match(access.Request{Host: "app.test", Path: "/", Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		who     access.Subject
		verdict access.Verdict
		reason  access.Reason
	}{
		"fresh":                 {access.Subject{SecondFactor: true, AuthTime: now.Add(-15 * time.Minute)}, access.Allow, access.ReasonSignedIn},
		"old":                   {access.Subject{SecondFactor: true, AuthTime: now.Add(-15*time.Minute - 1)}, access.StepUp, access.ReasonFactorTooOld},
		"never":                 {access.Subject{AuthTime: now}, access.StepUp, access.ReasonNoFactor},
		"by a clock far ahead":  {access.Subject{SecondFactor: true, AuthTime: now.Add(time.Hour)}, access.StepUp, access.ReasonFactorTooOld},
		"by a clock just ahead": {access.Subject{SecondFactor: true, AuthTime: now.Add(20 * time.Second)}, access.Allow, access.ReasonSignedIn},
	} {
		if got := m.Admit(&c.who, now); got.Verdict != c.verdict || got.Reason != c.reason {
			t.Errorf("%s: %+v, want %v %v", name, got, c.verdict, c.reason)
		}
	}
}

func TestNew_refusesWhatCannotBeMeant(t *testing.T) {
	t.Parallel()
	for name, routes := range map[string][]access.Route{
		"no host":               {{}},
		"upper case":            {{Host: "App.test"}},
		"own port":              {{Host: "app.test:443"}},
		"half a wildcard":       {{Host: "a*.test"}},
		"inner wildcard":        {{Host: "a.*.test"}},
		"bare wildcard":         {{Host: "*"}},
		"twice":                 {{Host: "app.test"}, {Host: "app.test", Path: "/"}},
		"relative path":         {{Host: "app.test", Path: "a"}},
		"dot segment":           {{Host: "app.test", Path: "/a/../b"}},
		"encoded path":          {{Host: "app.test", Path: "/a%2f"}},
		"public with groups":    {{Host: "app.test", Rules: []access.Rule{{Access: access.Public, Groups: []string{"a"}}}}},
		"denied with a factor":  {{Host: "app.test", Rules: []access.Rule{{Access: access.Denied, FactorWithin: 1}}}},
		"unknown access":        {{Host: "app.test", Rules: []access.Rule{{Access: "all"}}}},
		"rule with a bad path":  {{Host: "app.test", Rules: []access.Rule{{Paths: []string{"//"}}}}},
		"negative factor times": {{Host: "app.test", Rules: []access.Rule{{FactorWithin: -1}}}},
	} {
		if _, err := access.New("https", routes); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestMatch_costsNothing holds the decision on the path of every request to no allocation where its host has one rule.
func TestMatch_costsNothing(t *testing.T) {
	table, err := access.New("https", []access.Route{{Host: "app.test"}})
	if err != nil {
		t.Fatal(err)
	}
	who := *user
	if n := testing.AllocsPerRun(100, func() {
		m, err := table.Match(access.Request{Host: "app.test", Path: "/some/path", Method: "GET"})
		if err != nil || m.Admit(&who, now).Verdict != access.Allow {
			t.Error("not allowed")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// FuzzMatch: whatever is public under its exact reading is so under every way in which an app could clean it up.
func FuzzMatch(f *testing.F) {
	for _, path := range []string{
		"/public/x", "/admin", "/public/%2e%2e/admin", "/public;/..;/admin", "/PUBLIC/../admin", "/public/caf%C3%A9", "/%EF%BD%90ublic", "/public/a%2Fb",
	} {
		f.Add(path, false)
		f.Add(path, true)
	}
	f.Fuzz(func(t *testing.T, path string, encoded bool) {
		m, err := publicAndAdmin(t, encoded).Match(access.Request{Host: "app.example.test", Path: path, Method: "GET"})
		if err != nil || !m.Public() {
			return
		}
		for _, app := range cleanings(path) {
			if app != "/public" && !strings.HasPrefix(app, "/public/") {
				t.Errorf("%q is public, and an app could read %q", path, app)
			}
		}
	})
}
