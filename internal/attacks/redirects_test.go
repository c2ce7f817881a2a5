package attacks_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
)

// payload is one line of testdata/redirects.txt.
type payload struct {
	number string
	text   string
	query  bool // text is a whole query string
}

// field is the payload as a field of a query or a form, its value made by encode.
func (p payload) field(encode func(string) string) string {
	if p.query {
		return p.text
	}
	return "next=" + encode(p.text)
}

func readPayloads(t *testing.T) []payload {
	t.Helper()
	text, err := os.ReadFile("testdata/redirects.txt")
	if err != nil {
		t.Fatal(err)
	}
	var payloads []payload
	numbers := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		number, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		rest, query := strings.CutPrefix(rest, "query ")
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if size, repeated := strings.CutPrefix(rest[len(quoted):], " x "); repeated {
			n, err := strconv.Atoi(size)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			value += strings.Repeat(value[len(value)-1:], n-len(value))
		}
		payloads = append(payloads, payload{number, value, query})
		numbers[number] = true
	}
	if len(numbers) != 60 {
		t.Fatalf("%d payloads, want 60", len(numbers))
	}
	return payloads
}

// besides are payloads that are not in the catalogue: what is a path once it is decoded, and the end of our own host's name or
// its user info as it stands.
func besides() []payload {
	var payloads []payload
	for _, text := range []string{
		"%2F@evil.test", "%2F@evil.test/", "%2f.evil.test", "%2F%40evil.test", "%2e%2f@evil.test", "@evil.test", ".evil.test", ":1@evil.test", "%2F..%2F@evil.test", "%5C@evil.test",
		"?@evil.test", "#@evil.test", "%3F@evil.test", "%09/evil.test", "%2F", "%2Fa",
	} {
		payloads = append(payloads, payload{number: "besides", text: text})
	}
	return payloads
}

// withOwnHost adds, for each payload that names the host that may be redirected to, the same with ours in its place.
func withOwnHost(payloads []payload, own string) []payload {
	all := payloads
	for _, p := range payloads {
		if strings.Contains(p.text, "app.example.test") {
			p.text = strings.ReplaceAll(p.text, "app.example.test", own)
			all = append(all, p)
		}
	}
	return all
}

// encodings are how a payload is written into a query or a form.
var encodings = map[string]func(string) string{
	"raw":           func(s string) string { return s },
	"encoded":       url.QueryEscape,
	"encoded twice": func(s string) string { return url.QueryEscape(url.QueryEscape(s)) },
}

// redirects plays payloads, and counts how often one was turned into "/".
type redirects struct {
	*bench
	refused int64
}

// lands fails the test unless a browser that is sent to the address stays here, and out of the gateway's own pages.
func (r *redirects) lands(t *testing.T, what, address string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(address, r.URL+"/") || u.Host != r.Origin.Host || u.User != nil || strings.HasPrefix(u.Path, "/.gatehouse") {
		t.Errorf("%s: leads to %.200q", what, address)
	}
	if address == r.URL+"/" {
		r.refused++
	}
}

var nextField = regexp.MustCompile(`name="next" value="([^"]*)"`)

// WB-05, in every place in which a client says where to go.
func TestWB05_redirectsStayHere(t *testing.T) {
	t.Parallel()
	r := &redirects{bench: newBench(t, nil, func(c *configs.Config) { c.Session.PerUser = 1000 })}
	exact := int64(0) // refusals that must be counted
	for _, p := range withOwnHost(append(readPayloads(t), besides()...), r.Origin.Host) {
		before := r.refused
		for encoding, encode := range encodings {
			what := fmt.Sprintf("payload %s %.40q, %s", p.number, p.text, encoding)
			field := p.field(encode)
			r.atPages(t, what, field)
			if encoding != "encoded twice" {
				r.throughLogin(t, what, field)
			}
		}
		if !p.query {
			exact += r.refused - before
			r.asTarget(t, fmt.Sprintf("payload %s as a path", p.number), p.text)
		}
	}
	// What may be followed is followed to the letter.
	for given, want := range map[string]string{
		"/report?year=2026&x=%2F%2Fevil.test": "/report?year=2026&x=%2F%2Fevil.test", r.URL + "/report": "/report", strings.ToUpper(r.URL) + "/a": "/a", "/a%2Fb": "/a%2Fb",
	} {
		if got := r.alice.Get("/.gatehouse/login?next=" + url.QueryEscape(given)).Header.Get("Location"); got != r.URL+want {
			t.Errorf("%q: sent to %q, want %q", given, got, r.URL+want)
		}
	}
	if n := bypasses(r.oracles(t, 0), "foreign-redirect"); n < exact {
		t.Errorf("the log counts %d refused redirects, want at least %d", n, exact)
	}
}

// atPages shows a field to the pages that read it, signed in and not.
func (r *redirects) atPages(t *testing.T, what, field string) {
	t.Helper()
	get := func(path string, who *gatewaytest.Browser) wiretest.Answers {
		return r.raw(t, "GET "+path+"?"+field+" HTTP/1.1\r\n"+r.as(who)+"Accept: text/html\r\nConnection: close\r\n\r\n")
	}
	signedIn := get("/.gatehouse/login", r.alice)
	switch answer := signedIn.All[0]; answer.StatusCode {
	case http.StatusSeeOther:
		r.lands(t, what+", signed in", answer.Header.Get("Location"))
	case http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge: // no request at all
	default:
		t.Errorf("%s, signed in: got %d", what, answer.StatusCode)
	}
	page := get("/.gatehouse/login", nil)
	if page.All[0].StatusCode == http.StatusOK {
		found := nextField.FindStringSubmatch(page.Bodies[0])
		if found == nil {
			t.Fatalf("%s: no next on the page", what)
		}
		r.lands(t, what+", on the page", r.URL+html.UnescapeString(found[1]))
	}
	for _, path := range []string{"/.gatehouse/login/code", "/.gatehouse/login/enrol"} { // nothing waits: back to the login page
		answer := get(path, nil).All[0]
		if to := answer.Header.Get("Location"); answer.StatusCode == http.StatusSeeOther {
			u, err := url.Parse(to)
			if err != nil || u.Host != "" || u.Path != "/.gatehouse/login" {
				t.Errorf("%s, %s: leads to %q", what, path, to)
				continue
			}
			r.lands(t, what+", "+path, r.URL+"/"+strings.TrimPrefix(u.Query().Get("next"), "/"))
		}
	}
	for _, who := range []*gatewaytest.Browser{nil, r.alice} {
		if answers := get("/.gatehouse/logout", who); strings.Contains(answers.Bodies[0], "evil") || answers.All[0].Header.Get("Location") != "" {
			t.Errorf("%s: the logout page repeats it", what)
		}
	}
}

// throughLogin carries a field through a whole login.
func (r *redirects) throughLogin(t *testing.T, what, field string) {
	t.Helper()
	r.Clock.Add(time.Minute)
	who := r.NewBrowser()
	post := func(path, page, fields string) gatewaytest.Answer {
		body := fields + "&form_token=" + url.QueryEscape(gatewaytest.FormToken(t, page)) + "&" + field
		return who.Do(http.MethodPost, path, strings.NewReader(body), http.Header{"Content-Type": {formType}, "Origin": {r.URL}, "Sec-Fetch-Site": {"same-origin"}})
	}
	answer := post("/.gatehouse/login", who.Get("/.gatehouse/login").Text, "username=alice&password="+url.QueryEscape(gatewaytest.Password))
	switch answer.StatusCode {
	case http.StatusSeeOther:
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge: // the form is none
		if who.Jar[handleName] != "" {
			t.Errorf("%s: half a login", what)
		}
		return
	default:
		t.Errorf("%s: password: %d", what, answer.StatusCode)
		return
	}
	to := answer.Header.Get("Location")
	if !strings.HasPrefix(to, "/.gatehouse/login/code") {
		t.Errorf("%s: after the password: %q", what, to)
	}
	answer = post("/.gatehouse/login/code", who.Get(to).Text, "code="+r.Code(r.secret))
	if answer.StatusCode != http.StatusSeeOther {
		t.Errorf("%s: code: %d", what, answer.StatusCode)
	}
	r.lands(t, what+", after the login", answer.Header.Get("Location"))
}

// asTarget asks for the payload as a path, as somebody who is not signed in: by our name and by another spelling of it.
func (r *redirects) asTarget(t *testing.T, what, text string) {
	t.Helper()
	for _, host := range []string{r.Origin.Host, "127.0.0.1"} {
		answers := r.raw(t, "GET "+text+" HTTP/1.1\r\nHost: "+host+"\r\nAccept: text/html\r\nConnection: close\r\n\r\n")
		answer := answers.All[0]
		switch to := answer.Header.Get("Location"); answer.StatusCode {
		case http.StatusFound:
			if !strings.HasPrefix(to, r.URL+"/.gatehouse/login") {
				t.Errorf("%s: sent to %.200q", what, to)
			}
		case http.StatusPermanentRedirect:
			if !strings.HasPrefix(to, r.URL+"/") {
				t.Errorf("%s: sent to %.200q", what, to)
			}
		default:
			if to != "" && !strings.HasPrefix(to, "/.gatehouse/") {
				t.Errorf("%s: %d sent to %.200q", what, answer.StatusCode, to)
			}
		}
	}
}
