package attacks_test

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/problem"
	"gatehouse/web"
)

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

// foreign are the ways in which a browser says, or does not say, that another site's page sent a request.
func foreign(b *bench) map[string]http.Header {
	_, port, _ := strings.Cut(b.Origin.Host, ":")
	own := b.URL
	return map[string]http.Header{
		"Origin null":                       {"Origin": {"null"}},
		"Origin null, cross-site":           {"Origin": {"null"}, "Sec-Fetch-Site": {"cross-site"}},
		"Origin of another scheme":          {"Origin": {"https://" + b.Origin.Host}},
		"Origin of another port":            {"Origin": {"http://localhost:1"}},
		"Origin without the port":           {"Origin": {"http://localhost"}},
		"Origin of another host":            {"Origin": {"http://evil.test"}},
		"Origin of a subdomain":             {"Origin": {"http://evil." + b.Origin.Host}},
		"Origin with our name as its start": {"Origin": {"http://localhost.evil.test:" + port}},
		"Origin by address":                 {"Origin": {"http://127.0.0.1:" + port}},
		"Origin with a slash":               {"Origin": {own + "/"}},
		"Origin with user info":             {"Origin": {"http://x@" + b.Origin.Host}},
		"Origin in upper case":              {"Origin": {strings.ToUpper(own)}},
		"Origin list":                       {"Origin": {own + ", http://evil.test"}},
		"Origin and a forwarded host": {
			"Origin": {"http://evil.test"}, "X-Forwarded-Host": {"evil.test"}, "X-Forwarded-Proto": {"http"},
			"Forwarded": {"host=evil.test"}, "X-Original-Host": {"evil.test"},
		},
		"cross-site, no Origin":          {"Sec-Fetch-Site": {"cross-site"}},
		"same-site, no Origin":           {"Sec-Fetch-Site": {"same-site"}},
		"cross-site, our Origin":         {"Sec-Fetch-Site": {"cross-site"}, "Origin": {own}},
		"same-site, our Origin":          {"Sec-Fetch-Site": {"same-site"}, "Origin": {own}},
		"same-site, Origin of a sibling": {"Sec-Fetch-Site": {"same-site"}, "Origin": {"http://app.localhost:" + port}},
		"unknown site word":              {"Sec-Fetch-Site": {"friendly"}, "Origin": {own}},
	}
}

// WB-01: everything is right but where the request comes from: a session, a form token of this very browser, right
// credentials. Refused, and nothing happened.
func TestWB01_crossSitePostsAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.AddUser("bob")
	bobs := b.Enrol("bob")
	b.Clock.Add(time.Minute)
	alice := b.alice
	aliceToken := gatewaytest.FormToken(t, alice.Get("/.gatehouse/logout").Text)
	stranger := b.NewBrowser()
	strangerToken := gatewaytest.FormToken(t, stranger.Get("/.gatehouse/login").Text)
	waiting := b.NewBrowser()
	waiting.Password("bob", gatewaytest.Password)
	waitingToken := gatewaytest.FormToken(t, waiting.Get("/.gatehouse/login/code").Text)
	before := b.Verifications()

	posts := []struct {
		path, contentType, body string
		from                    *gatewaytest.Browser
	}{
		{"/.gatehouse/login", formType, url.Values{"username": {"bob"}, "password": {gatewaytest.Password}, "form_token": {strangerToken}}.Encode(), stranger},
		{"/.gatehouse/login/code", formType, url.Values{"code": {b.Code(bobs)}, "form_token": {waitingToken}}.Encode(), waiting},
		{"/.gatehouse/logout", formType, url.Values{"form_token": {aliceToken}}.Encode(), alice},
		{"/.gatehouse/logout", formType, url.Values{"form_token": {aliceToken}, "all": {"yes"}}.Encode(), alice},
		{"/.gatehouse/api/v1/login", jsonType, asJSON(t, map[string]string{"username": "bob", "password": gatewaytest.Password, "code": b.Code(bobs)}), stranger},
		{"/.gatehouse/api/v1/logout", jsonType, "", alice},
	}
	refused := int64(0)
	for _, post := range posts {
		for name, header := range foreign(b) {
			header.Set("Content-Type", post.contentType)
			header.Set("Cookie", post.from.Cookies())
			answer := b.NewBrowser().Do(http.MethodPost, post.path, strings.NewReader(post.body), header)
			wantDenied(t, post.path+", "+name, answer.Response, http.StatusForbidden)
			refused++
		}
	}
	for _, path := range postRoutes(t, b) { // whatever is added later
		for name, header := range foreign(b) {
			header.Set("Content-Type", formType)
			if strings.Contains(path, "/api/") {
				header.Set("Content-Type", jsonType)
			}
			wantDenied(t, path+", empty, "+name, b.NewBrowser().Do(http.MethodPost, path, nil, header).Response, http.StatusForbidden)
			refused++
		}
	}
	// Our origin, but not our form.
	noSignIn(t, b, bobs)
	for _, path := range []string{"/.gatehouse/login", "/.gatehouse/logout"} {
		for name, token := range map[string]string{"no token": "", "a made-up one": strings.Repeat("A", 43), "another browser's": waitingToken} {
			answer := b.NewBrowser().Do(http.MethodPost, path, strings.NewReader(url.Values{"username": {"bob"}, "password": {gatewaytest.Password}, "form_token": {token}}.Encode()),
				http.Header{"Content-Type": {formType}, "Origin": {b.URL}, "Sec-Fetch-Site": {"same-origin"}, "Cookie": {stranger.Cookies()}})
			if path == "/.gatehouse/logout" { // a browser that is not signed in
				answer = b.NewBrowser().Do(http.MethodPost, path, strings.NewReader(url.Values{"form_token": {token}}.Encode()),
					http.Header{"Content-Type": {formType}, "Origin": {b.URL}, "Sec-Fetch-Site": {"same-origin"}, "Cookie": {alice.Cookies()}})
			}
			wantDenied(t, path+", "+name, answer.Response, http.StatusForbidden)
		}
	}
	if n := b.Verifications() - before; n != 0 {
		t.Errorf("%d passwords were verified", n)
	}
	if answer := alice.Get("/app"); answer.StatusCode != http.StatusOK {
		t.Errorf("alice was signed out: %d", answer.StatusCode)
	}
	if n := bypasses(b.oracles(t, 1), "cross-site"); n != refused {
		t.Errorf("the log counts %d cross-site requests, want %d", n, refused)
	}
}

// postRoutes are the paths of all POSTs, as the router itself says.
func postRoutes(t *testing.T, b *bench) []string {
	t.Helper()
	edge, err := web.New(web.Options{External: b.Origin, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, route := range edge.Routes() {
		if route.Post != nil {
			paths = append(paths, route.Path)
		}
	}
	if len(paths) < 5 {
		t.Fatalf("the router names only %v", paths)
	}
	return paths
}

// noSignIn tries to reach what only POST does by other ways.
func noSignIn(t *testing.T, b *bench, bobs string) {
	t.Helper()
	credentials := url.Values{"username": {"bob"}, "password": {gatewaytest.Password}, "code": {b.Code(bobs)}}
	text := asJSON(t, map[string]string{"username": "bob", "password": gatewaytest.Password, "code": b.Code(bobs)})
	for name, try := range map[string]struct {
		method, path, body string
		header             http.Header
		want               []int
	}{
		"GET of the JSON login":         {"GET", "/.gatehouse/api/v1/login?" + credentials.Encode(), "", nil, []int{405}},
		"GET with a body":               {"GET", "/.gatehouse/api/v1/login", text, http.Header{"Content-Type": {jsonType}}, []int{405}},
		"GET of the JSON logout":        {"GET", "/.gatehouse/api/v1/logout", "", nil, []int{405}},
		"credentials in the query":      {"POST", "/.gatehouse/login?" + credentials.Encode(), "", http.Header{"Content-Type": {formType}}, []int{403}},
		"credentials in a GET":          {"GET", "/.gatehouse/login?" + credentials.Encode(), "", nil, []int{200}},
		"_method in a GET":              {"GET", "/.gatehouse/api/v1/login?_method=POST&" + credentials.Encode(), "", nil, []int{405}},
		"method override":               {"GET", "/.gatehouse/api/v1/login", text, http.Header{"X-Http-Method-Override": {"POST"}, "X-Method-Override": {"POST"}, "Content-Type": {jsonType}}, []int{405}},
		"method override the other way": {"POST", "/.gatehouse/api/v1/session", "", http.Header{"X-Http-Method-Override": {"GET"}}, []int{405}},
		"JSON as text":                  {"POST", "/.gatehouse/api/v1/login", text, http.Header{"Content-Type": {"text/plain"}}, []int{400}},
		"JSON as a form":                {"POST", "/.gatehouse/api/v1/login", text, http.Header{"Content-Type": {formType}}, []int{400}},
		"JSON undeclared":               {"POST", "/.gatehouse/api/v1/login", text, nil, []int{400}},
		"JSON declared twice":           {"POST", "/.gatehouse/api/v1/login", text, http.Header{"Content-Type": {"text/plain; charset=application/json"}}, []int{400}},
		"form as JSON":                  {"POST", "/.gatehouse/api/v1/login", credentials.Encode(), http.Header{"Content-Type": {jsonType}}, []int{400}},
		"form as multipart":             {"POST", "/.gatehouse/login", credentials.Encode(), http.Header{"Content-Type": {"multipart/form-data; boundary=x"}}, []int{400}},
		"PUT":                           {"PUT", "/.gatehouse/api/v1/login", text, http.Header{"Content-Type": {jsonType}}, []int{405}},
	} {
		answer := b.NewBrowser().Do(try.method, try.path, strings.NewReader(try.body), try.header)
		if !slices.Contains(try.want, answer.StatusCode) || strings.Contains(answer.Header.Get("Set-Cookie"), accessName+"=") {
			t.Errorf("%s: got %d, want %v, cookies %q", name, answer.StatusCode, try.want, answer.Header.Values("Set-Cookie"))
		}
	}
}

// WB-02: nobody is signed in or out by another's page.
func TestWB02_loginAndLogoutNeedTheirOwnForm(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.AddUser("bob")
	victim, mallory := b.NewBrowser(), b.NewBrowser()
	victim.Get("/.gatehouse/login")
	stolen := gatewaytest.FormToken(t, mallory.Get("/.gatehouse/login").Text)
	// The attacker's credentials with the attacker's token, sent by the victim's browser, with a login cookie and without one.
	form := url.Values{"username": {"bob"}, "password": {gatewaytest.Password}, "form_token": {stolen}}
	for name, browser := range map[string]*gatewaytest.Browser{"with a login cookie": victim, "without": b.NewBrowser()} {
		answer := browser.PostForm("/.gatehouse/login", form)
		wantDenied(t, name, answer.Response, http.StatusForbidden)
		if gatewaytest.FormToken(t, answer.Text) == stolen {
			t.Errorf("%s: the fresh form has the stolen token", name)
		}
	}
	// An image, a link, a prefetch, a HEAD, a form: none signs alice out.
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete} {
		for _, path := range []string{"/.gatehouse/logout", "/.gatehouse/logout?all=yes", "/.gatehouse/api/v1/logout", "/.gatehouse/login"} {
			header := http.Header{"Accept": {"image/*"}, "Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}, "Sec-Fetch-Dest": {"image"}, "Cookie": {b.alice.Cookies()}}
			answer := b.NewBrowser().Do(method, path, nil, header)
			for _, line := range answer.Header.Values("Set-Cookie") {
				if strings.Contains(line, "Max-Age=0") {
					t.Errorf("%s %s clears %s", method, path, line)
				}
			}
		}
	}
	for name, token := range map[string]string{"no token": "", "the attacker's": stolen} {
		answer := b.NewBrowser().Do(http.MethodPost, "/.gatehouse/logout", strings.NewReader(url.Values{"form_token": {token}}.Encode()),
			http.Header{"Content-Type": {formType}, "Cookie": {b.alice.Cookies()}})
		wantDenied(t, "logout, "+name, answer.Response, http.StatusForbidden)
	}
	if answer := b.alice.Get("/app"); answer.StatusCode != http.StatusOK {
		t.Errorf("alice was signed out: %d", answer.StatusCode)
	}
	b.oracles(t, 1)
}

// addresses finds what on a page or in a header a browser would follow.
var addresses = regexp.MustCompile(`(?i)(?:href|src|action|content|value)="([^"]*)"`)

// WB-07: no header of a client changes where a link, a redirect or a cookie points.
func TestWB07_onlyTheConfiguredURLCounts(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	own := b.Origin.Host
	_, port, _ := strings.Cut(own, ":")
	spoofs := map[string]string{
		"nothing":            "",
		"forwarded host":     "X-Forwarded-Host: evil.test\r\n",
		"forwarded hosts":    "X-Forwarded-Host: " + own + ", evil.test\r\nX-Forwarded-Host: evil.test\r\n",
		"forwarded proto":    "X-Forwarded-Proto: javascript\r\n",
		"forwarded prefix":   "X-Forwarded-Prefix: //evil.test\r\n",
		"forwarded port":     "X-Forwarded-Port: 1@evil.test\r\n",
		"forwarded":          "Forwarded: host=evil.test;proto=https\r\n",
		"forwarded server":   "X-Forwarded-Server: evil.test\r\nX-Host: evil.test\r\nX-Original-Host: evil.test\r\nX-HTTP-Host-Override: evil.test\r\n",
		"original URL":       "X-Original-URL: //evil.test/\r\nX-Rewrite-URL: //evil.test/\r\nX-Forwarded-Uri: //evil.test/\r\n",
		"referrer and other": "Referer: http://evil.test/\r\nOrigin: http://evil.test\r\nVia: 1.1 evil.test\r\n",
	}
	allowed := 0
	for name, spoof := range spoofs {
		for _, path := range []string{"/.gatehouse/login", "/.gatehouse/logout", "/.gatehouse/nothing", "/.gatehouse/api/v1/session", "/app", "/.gatehouse/jwks.json"} {
			for _, who := range []*gatewaytest.Browser{nil, b.alice} {
				if path == "/app" && who != nil {
					allowed++
				}
				for _, accept := range []string{"text/html", "application/json"} {
					if path == "/app" && who != nil && accept == "text/html" {
						continue // the app's own answer
					}
					answers := b.raw(t, "GET "+path+" HTTP/1.1\r\n"+b.as(who)+spoof+"Accept: "+accept+"\r\nConnection: close\r\n\r\n")
					if path != "/app" || who == nil {
						pointsHome(t, name+", "+path, b, answers)
					}
				}
			}
		}
		b.raw(t, "GET /app HTTP/1.1\r\n"+b.as(b.alice)+spoof+"Connection: close\r\n\r\n")
		allowed++
		if got := b.app.Last(t); !slices.Equal(got.Values("X-Forwarded-Host"), []string{own}) || !slices.Equal(got.Values("X-Forwarded-Proto"), []string{"http"}) || strings.Contains(fmt.Sprint(forwarded(got)), "evil") {
			t.Errorf("%s: the app got %v", name, got.Header)
		}
	}
	for _, host := range []string{
		"evil.test", "evil.test:" + port, own + ".evil.test", "evil.test#" + own, "evil.test?" + own, "x@" + own, own + "@evil.test", own + "/x", own + "\\@evil.test",
		"localhost.:" + port, "localhost:" + port + ":80", "localhost:", "", " ", "[::1]evil", "[evil.test]", "%6cocalhost:" + port, "localhost\t:" + port, "ｌocalhost:" + port,
	} {
		for _, path := range []string{"/.gatehouse/login", "/app"} {
			answers := b.raw(t, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nCookie: "+b.alice.Cookies()+"\r\nAccept: text/html\r\nConnection: close\r\n\r\n")
			if host == "localhost:" && answers.All[0].StatusCode == http.StatusPermanentRedirect {
				pointsHome(t, "host "+host, b, answers)
				continue
			}
			wantDenied(t, fmt.Sprintf("host %q, %s", host, path), answers.All[0], http.StatusBadRequest, http.StatusMisdirectedRequest)
		}
	}
	b.oracles(t, allowed)
}

// forwarded is what the app is told of where a request came from and what it asked for.
func forwarded(r wiretest.Request) []string {
	var values []string
	for name, all := range r.CGI() {
		if strings.Contains(name, "_FORWARDED") || strings.Contains(name, "_ORIGINAL_") || strings.Contains(name, "_REWRITE_") {
			values = append(values, all...)
		}
	}
	return values
}

// pointsHome fails the test if anything in the answer leads a browser elsewhere.
func pointsHome(t *testing.T, what string, b *bench, answers wiretest.Answers) {
	t.Helper()
	for i, answer := range answers.All {
		if strings.Contains(answers.Bodies[i], "evil") || strings.Contains(fmt.Sprint(answer.Header), "evil") {
			t.Errorf("%s: the answer repeats what was sent: %v\n%s", what, answer.Header, answers.Bodies[i])
		}
		to := answer.Header.Values("Location")
		for _, found := range addresses.FindAllStringSubmatch(answers.Bodies[i], -1) {
			if strings.Contains(found[1], "//") {
				to = append(to, found[1])
			}
		}
		for _, address := range to {
			if u, err := url.Parse(address); err != nil || u.Host != b.Origin.Host || u.Scheme != b.Origin.Scheme {
				t.Errorf("%s: leads to %s", what, address)
			}
		}
		for _, line := range answer.Header.Values("Set-Cookie") {
			if !setCookie.MatchString(line) {
				t.Errorf("%s: sets %s", what, line)
			}
		}
	}
}

// WB-08: a header that is made of a client's value stays one header.
func TestWB08_headersAreNeverSplit(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	values := []string{
		"/%0d%0aSet-Cookie:x=1", "/%0D%0A%20Set-Cookie:x=1", "/%0aSet-Cookie:x=1", "/%0dSet-Cookie:x=1", "/%E5%98%8A%E5%98%8DSet-Cookie:x=1", "/%00", "/%7f", "/%e2%80%a8Set-Cookie:x=1",
		"/%c4%8d%c4%8aSet-Cookie:x=1", "/%250d%250aSet-Cookie:x=1", "/a%0d%0a%0d%0a<script>", "/%u000d%u000aSet-Cookie:x=1", "/\x7f", "/\x00", "/\x01", "/a\rSet-Cookie:x=1", "/a\nSet-Cookie: x=1",
	}
	for _, value := range values {
		for name, request := range map[string]string{
			"next, signed in": "GET /.gatehouse/login?next=" + value + " HTTP/1.1\r\n" + b.as(b.alice),
			"next":            "GET /.gatehouse/login/code?next=" + value + " HTTP/1.1\r\n" + b.as(nil),
			"path":            "GET " + value + " HTTP/1.1\r\n" + b.as(nil) + "Accept: text/html\r\n",
			"loopback":        "GET " + value + " HTTP/1.1\r\nHost: 127.0.0.1\r\n",
			"query":           "GET /app?" + value + " HTTP/1.1\r\n" + b.as(nil) + "Accept: text/html\r\n",
		} {
			answers := b.raw(t, request+"Connection: close\r\n\r\n")
			for _, answer := range answers.All {
				for header, lines := range answer.Header {
					for _, line := range lines {
						if header == "Set-Cookie" && !setCookie.MatchString(line) || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) {
							t.Errorf("%q, %s: got %s: %q", value, name, header, line)
						}
					}
				}
				if to := answer.Header.Get("Location"); to != "" && !strings.HasPrefix(to, b.URL+"/") && !strings.HasPrefix(to, "/.gatehouse/") {
					t.Errorf("%q, %s: sent to %q", value, name, to)
				}
			}
		}
	}
	b.oracles(t, 0)
}

// WB-09: a bad next is no reason for half a login.
func TestWB09_aGoodLoginWithABadNextIsALogin(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for _, next := range []string{"//evil.test", "https://evil.test/", "javascript:alert(1)", "/" + strings.Repeat("a", 8<<10), "/%0d%0aSet-Cookie:x=1", "/.gatehouse/logout", "\x00", "/a\\b"} {
		who := b.NewBrowser()
		token := gatewaytest.FormToken(t, who.Get("/.gatehouse/login?next="+url.QueryEscape(next)).Text)
		b.Clock.Add(time.Minute)
		answer := who.PostForm("/.gatehouse/login", url.Values{"username": {"alice"}, "password": {gatewaytest.Password}, "next": {next}, "form_token": {token}})
		if answer.StatusCode != http.StatusSeeOther {
			t.Fatalf("%.20q: password: %d", next, answer.StatusCode)
		}
		token = gatewaytest.FormToken(t, who.Get(answer.Header.Get("Location")).Text)
		answer = who.PostForm("/.gatehouse/login/code", url.Values{"code": {b.Code(b.secret)}, "next": {next}, "form_token": {token}})
		if got := answer.Header.Get("Location"); answer.StatusCode != http.StatusSeeOther || got != b.URL+"/" {
			t.Errorf("%.20q: code: %d to %q", next, answer.StatusCode, got)
		}
		if answer = who.Get("/app"); answer.StatusCode != http.StatusOK {
			t.Errorf("%.20q: the session: %d", next, answer.StatusCode)
		}
	}
	records := b.oracles(t, 8)
	if n := sum(records, func(r audit.Record) bool { return r.Kind == audit.KindLogin && r.Outcome == audit.Success }); n != 9 {
		t.Errorf("the log tells of %d logins, want 9", n)
	}
	if bypasses(records, "foreign-redirect") == 0 {
		t.Error("the log does not tell of the redirects")
	}
}

// whatVaries is what differs between two equal answers.
var whatVaries = regexp.MustCompile(`"request_id":"[^"]*"|name="form_token" value="[^"]*"|[A-Z2-7]{26}`)

// EN-05: whether an account has a second factor shows after a right password and not before.
func TestEN05_wrongPasswordsReadAlikeInEveryPlace(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.AddUser("bob")
	b.AddUser("carol")
	b.Enrol("carol")
	if err := b.Admin.DisableUser(t.Context(), "carol", "test"); err != nil {
		t.Fatal(err)
	}
	said := func(answer gatewaytest.Answer) string {
		header := maps.Clone(answer.Header)
		for _, name := range []string{"Date", "Content-Length", "Set-Cookie", "X-Request-Id"} {
			header.Del(name)
		}
		cookies := 0
		for _, line := range answer.Header.Values("Set-Cookie") {
			if name, _, _ := strings.Cut(line, "="); name != loginName {
				t.Errorf("a refusal sets %s", name)
			}
			cookies++
		}
		return fmt.Sprint(answer.StatusCode, header, cookies, "\n", whatVaries.ReplaceAllString(answer.Text, ""))
	}
	wrong := "not the password of anybody"
	for _, way := range []struct {
		name string
		try  func(name string) gatewaytest.Answer
	}{
		{"JSON", func(name string) gatewaytest.Answer { return b.NewBrowser().Login(name, wrong, "") }},
		{"JSON with a code", func(name string) gatewaytest.Answer { return b.NewBrowser().Login(name, wrong, "123456") }},
		{"page", func(name string) gatewaytest.Answer { return b.NewBrowser().Password(name, wrong) }},
	} {
		unlike := map[string]string{}
		for _, name := range []string{"alice", "bob", "carol", "nobody-1"} {
			unlike[strings.ReplaceAll(said(way.try(name)), name, "NAME")] += name + " "
		}
		if len(unlike) != 1 {
			t.Errorf("%s: the answers to wrong passwords differ: %v", way.name, unlike)
		}
	}
	for name, want := range map[string]problem.Code{"alice": problem.CodeRequired, "bob": problem.EnrolmentRequired, "carol": problem.InvalidCredentials} {
		if got := b.NewBrowser().Login(name, gatewaytest.Password, "").ProblemCode(); got != string(want) {
			t.Errorf("%s with the right password: got %s, want %s", name, got, want)
		}
	}
	b.oracles(t, 0)
}
