package attacks_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
)

// hostile are texts that a log, a terminal, a spreadsheet or a collector could take for something else.
var hostile = []string{
	"\r\n{\"event\":\"login_success\",\"kind\":\"login\",\"outcome\":\"success\"}", "a\nkind=login", "\u2028\u2029", "\x1b[2J\x1b[1;1H", "\x1b]8;;http://evil.test\x07click\x1b]8;;\x07",
	"\x1b]52;c;aGk=\x07", "\u009b31m", "\x9b31m", "\u202eevisrever\u202c", "\u2066\u2069\u200f\ufeff", "%0a%0d", strings.Repeat("A", 9_000), "\xff\xfe\xc3(", "</script><script>alert(1)</script>",
	"=cmd()|'/C calc'!A0", "@SUM(1)", "<0>1 2026-11-23T12:00:00Z evil app - - -", "\x00", "\x7f", "\"\\]", strings.Repeat("\xff", 2_000), strings.Repeat("é", 2_000), `\u000a`, "\t",
}

// sayEverywhere puts a text into every field that a client, or an operator for somebody, can set.
func (b *bench) sayEverywhere(t *testing.T, text string) {
	t.Helper()
	who := b.NewBrowser()
	who.Login(text, text, "")
	who.Login("alice", text, text)
	who.JSON("/.gatehouse/api/v1/login", map[string]string{"challenge": text, "code": text})
	who.Do(http.MethodPost, "/.gatehouse/api/v1/login", strings.NewReader(`{"username":"`+text+`","`+text+`":1`), http.Header{"Content-Type": {jsonType}})
	page := who.Get("/.gatehouse/login?next=" + url.QueryEscape(text)).Text
	who.PostForm("/.gatehouse/login", url.Values{"username": {text}, "password": {text}, "next": {text}, "form_token": {gatewaytest.FormToken(t, page)}})
	who.PostForm("/.gatehouse/login", url.Values{"username": {text}, text: {text}, "form_token": {text}})
	// As a header it may be no request at all; then there is nothing to log.
	for _, name := range []string{"User-Agent", "X-Forwarded-For", "Forwarded", "X-Real-IP", "Referer", "Origin", "Sec-Fetch-Site", "Authorization", "Content-Type", "Remote-User", "Cookie", "Accept"} {
		body := `{"username":"alice","password":"wrong all the time"}`
		b.raw(t, fmt.Sprintf("POST /.gatehouse/api/v1/login HTTP/1.1\r\n%s%s: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", b.as(nil), name, text, len(body), body))
	}
	b.raw(t, "GET /app HTTP/1.1\r\n"+b.as(nil)+"User-Agent: "+text+"\r\nRemote-User: "+text+"\r\nConnection: close\r\n\r\n")
	b.raw(t, "GET /"+text+"?"+text+" HTTP/1.1\r\n"+b.as(nil)+"Connection: close\r\n\r\n")
	b.raw(t, text+" /app HTTP/1.1\r\n"+b.as(nil)+"Connection: close\r\n\r\n")
	b.raw(t, "GET /app HTTP/1.1\r\nHost: "+text+"\r\nConnection: close\r\n\r\n")
	b.raw(t, "GET /app HTTP/1.1\r\n"+b.as(nil)+"Cookie: "+accessName+"="+text+"; "+handleName+"="+text+"; "+loginName+"="+text+"; "+deviceName+"="+text+"\r\nConnection: close\r\n\r\n")
	// What an operator is made to type. Most of it is refused; what is accepted is shown again.
	ctx := t.Context()
	_ = b.Admin.ResetLockout(ctx, "alice", text)
	_ = b.Admin.ResetLockout(ctx, text, "test")
	_ = b.Admin.DisableUser(ctx, text, text)
	_, _ = b.Admin.AddUser(ctx, api.NewUser{Name: text, Password: gatewaytest.Password, Reason: text})
	_, _ = b.Admin.AddUser(ctx, api.NewUser{Name: "u" + hex.EncodeToString([]byte(text[:min(len(text), 12)])), Password: gatewaytest.Password, DisplayName: text, Email: text, Reason: text})
	_, _ = b.Admin.AddUser(ctx, api.NewUser{Name: "v" + hex.EncodeToString([]byte(text[:min(len(text), 12)])), Password: gatewaytest.Password, DisplayName: "d " + text})
	_ = b.Admin.SetGroups(ctx, "alice", []string{text}, text)
	_, _ = b.Admin.Import(ctx, api.Import{Format: api.FormatHtpasswd, Content: text + ":$2y$05$" + text, Reason: text})
}

// AU-01 and AU-02: one record, one line, nothing that ends a line or drives a terminal, nothing longer than a record allows, no
// record of what did not happen; and what the commands of the program show of it does nothing to a terminal either.
func TestAU01_AU02_hostileTextIsOneRecordAndNoEscape(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "gh") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := newBench(t, nil, trustNobody, func(c *configs.Config) { c.AdminListen = configs.UnixPrefix + filepath.Join(dir, "admin.sock") })
	logins := int64(1)
	for _, text := range hostile { // sessions with this User-Agent, as far as a header can be it
		b.Clock.Add(time.Minute)
		body := asJSON(t, map[string]string{"username": "alice", "password": gatewaytest.Password, "code": b.Code(b.secret)})
		answers := b.raw(t, fmt.Sprintf("POST /.gatehouse/api/v1/login HTTP/1.1\r\n%sUser-Agent: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", b.as(nil), text, len(body), body))
		if answers.All[0].StatusCode == http.StatusOK {
			logins++
		}
	}
	for _, text := range hostile {
		b.sayEverywhere(t, text)
	}
	showAll(t, dir)
	records := b.oracles(t, 0)
	lines := logLines(t, b.Dir)
	if len(lines) != len(records) {
		t.Errorf("%d lines for %d records", len(lines), len(records))
	}
	for _, line := range lines {
		text := bytes.TrimSuffix(line, []byte("\n"))
		if bad := bytes.IndexFunc(text, func(c rune) bool { return c < ' ' || c > '~' || strings.ContainsRune("<>&", c) }); bad >= 0 {
			t.Errorf("%q in %.300s", text[bad], line)
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Errorf("%v: %.300s", err, line)
		}
		each(value, func(s string) {
			if len(s) > audit.MaxString || !utf8.ValidString(s) {
				t.Errorf("a string of %d bytes: %.100q", len(s), s)
			}
		})
	}
	if n := sum(records, func(r audit.Record) bool { return r.Kind == audit.KindLogin && r.Outcome == audit.Success }); n != logins || n < 10 {
		t.Errorf("the log tells of %d logins, want %d", n, logins)
	}
	if cut := sum(records, func(r audit.Record) bool { return strings.HasSuffix(r.Client.UserAgent, " bytes]") }); cut == 0 {
		t.Error("no long text was cut with a marker")
	}
	if claimed := sum(records, func(r audit.Record) bool { return r.Client.Claimed != "" }); claimed == 0 {
		t.Error("no record says what was claimed")
	}
	for line := range strings.Lines(b.Log.String()) {
		wantPlain(t, "the program's log", line)
	}
}

// each calls fn with every string of a JSON value, names included.
func each(v any, fn func(string)) {
	switch v := v.(type) {
	case string:
		fn(v)
	case []any:
		for _, item := range v {
			each(item, fn)
		}
	case map[string]any:
		for name, item := range v {
			fn(name)
			each(item, fn)
		}
	}
}

// wantPlain fails the test if a text would do anything to a terminal but fill lines.
func wantPlain(t *testing.T, what, text string) {
	t.Helper()
	for _, c := range strings.TrimSuffix(text, "\n") {
		if !unicode.IsPrint(c) && c != '\n' || c == utf8.RuneError && !utf8.ValidString(text) {
			t.Errorf("%s holds %q: %.200q", what, c, text)
			return
		}
	}
}

// showAll shows what the commands of the program, as it is shipped, print.
func showAll(t *testing.T, dir string) {
	t.Helper()
	program := gatewaytest.Build(t)
	for _, command := range []string{"audit tail -n 10000", "user list", "session list", "lockout list", "user show alice", "user show \x1b[2J", "session revoke \u009b2J"} {
		for _, format := range []string{"table", "json"} {
			args := append(strings.Split(command, " "), "--data", dir, "-o", format)
			out, _ := exec.CommandContext(t.Context(), program, args...).CombinedOutput() // some ask for what there is not
			if len(out) == 0 {
				t.Errorf("%q says nothing", args)
			}
			wantPlain(t, strings.Join(args, " "), string(out))
		}
	}
}

// traces are the forms in which a text could lie somewhere.
func traces(text string) []string {
	forms := []string{text, strings.ToLower(text), strings.ToUpper(text), url.QueryEscape(text), hex.EncodeToString([]byte(text)), strings.ToUpper(hex.EncodeToString([]byte(text)))}
	for shift := range 3 { // wherever it began in what was encoded
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			coded := encoding.EncodeToString([]byte(strings.Repeat("x", shift) + text))
			forms = append(forms, coded[(shift*8+5)/6:len(coded)-2]) // without the characters that neighbours share
		}
	}
	return forms
}

// AU-03 and LG-14: what is secret, wherever somebody puts it, is nowhere: not in the data folder with the audit log and the access log, not in
// the program's output, not in what the administration API tells.
func TestAU03_LG14_noSecretIsKept(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil, trustNobody, func(c *configs.Config) { c.AccessLog.File = filepath.Join(c.Data, "access.log") })
	b.AddUser("bob")
	canaries := map[string]string{
		"right password": gatewaytest.Password, "seed": b.secret, "access token": b.alice.Jar[accessName], "signature": b.alice.Jar[accessName][strings.LastIndexByte(b.alice.Jar[accessName], '.')+1:],
		"handle": b.alice.Jar[handleName], "device cookie": b.alice.Jar[deviceName],
	}
	plant := func(where string) string {
		canary := "Canary-" + strings.ReplaceAll(where, " ", "-") + "-9f3c71"
		canaries[where] = canary
		return canary
	}
	plantEverywhere(t, b, plant)
	who := b.NewBrowser()
	canaries["form token"] = gatewaytest.FormToken(t, who.Get("/.gatehouse/login").Text)
	canaries["login cookie"] = who.Jar[loginName]
	canaries["challenge"] = who.Login("alice", gatewaytest.Password, "").Field("challenge")
	b.Clock.Add(time.Minute)
	answer := who.Login("alice", gatewaytest.Password, b.Code(b.secret))
	canaries["bearer token"] = answer.Field("access_token")
	wantDenied(t, "a code is good once", who.Login("alice", gatewaytest.Password, b.Code(b.secret)).Response, http.StatusUnauthorized)
	if err := b.Admin.SetPassword(t.Context(), "bob", plant("new password"), "test"); err != nil {
		t.Fatal(err)
	}
	enrolment, err := b.Admin.EnrolTOTP(t.Context(), "bob", "test")
	if err != nil {
		t.Fatal(err)
	}
	canaries["other seed"] = enrolment.Secret

	told := b.tellAll(t)
	b.oracles(t, 0)
	places := dataFolder(t, b.Dir)
	if lines := bytes.Count(places[filepath.Join(b.Dir, "access.log")], []byte("\n")); lines < 40 {
		t.Errorf("the access log has %d lines", lines)
	}
	delete(places, filepath.Join(b.Dir, "root.key"))
	for path, content := range places {
		places[path] = bytes.TrimRight(content, "\x00") // the log's reserve is empty
	}
	places["the program's output"], places["the administration API"] = []byte(b.Log.String()), []byte(told)
	for what, canary := range canaries {
		if len(canary) < 16 {
			t.Fatalf("%s: %q is too short to be looked for", what, canary)
		}
		for place, content := range places {
			for _, form := range traces(canary) {
				if at := bytes.Index(content, []byte(form)); at >= 0 {
					t.Errorf("%s is in %s: %.200q", what, place, content[max(0, at-80):])
					break
				}
			}
		}
	}
}

// plantEverywhere sends a canary in each place in which somebody could put a secret, rightly or by mistake.
func plantEverywhere(t *testing.T, b *bench, plant func(string) string) {
	t.Helper()
	const api = "/.gatehouse/api/v1/login"
	who := b.NewBrowser()
	post := func(body string) {
		who.Do(http.MethodPost, api, strings.NewReader(body), http.Header{"Content-Type": {jsonType}})
	}
	who.Login("alice", plant("wrong password"), "")
	who.Login("alice", gatewaytest.Password, plant("wrong code"))
	who.Login(plant("name"), plant("password of nobody"), "")
	who.Login("alice "+plant("name and more"), "x", "")
	who.JSON(api, map[string]string{"challenge": plant("unknown challenge"), "code": plant("code of nothing")})
	post(`{"username":"alice","password":"` + plant("cut off"))
	post(`{"username":"alice","password":` + plant("no quotes") + `}`)
	post(`{"username":"alice","password":"x","` + plant("a member") + `":1}`)
	post(`{"username":"alice","password":"x"}` + plant("after the end"))
	post(`{"username":"alice","password":["` + plant("in a list") + `"]}`)
	post(`{"username":"alice","password":"` + plant("twice") + `","password":"` + plant("and again") + `"}`)
	post(`{"username":"alice","password":31415926535897932384626}`)
	post(`{"username":"alice","password":"\u0043\ud800` + plant("half a surrogate") + `"}`)
	post(plant("no JSON"))
	post("username=alice&password=" + plant("a form for JSON"))
	token := gatewaytest.FormToken(t, who.Get("/.gatehouse/login").Text)
	who.PostForm("/.gatehouse/login", url.Values{"username": {plant("name in a form")}, "password": {plant("password in a form")}, "form_token": {token}})
	who.PostForm("/.gatehouse/login", url.Values{"username": {"alice"}, "password": {plant("password without a token")}, "form_token": {plant("form token that is none")}})
	who.PostForm("/.gatehouse/login", url.Values{"username": {"alice"}, "password": {"x", plant("password twice in a form")}, "form_token": {token}})
	who.PostForm("/.gatehouse/login", url.Values{"username": {"alice"}, "password": {"\xff" + plant("password in no UTF-8")}, "form_token": {token}, plant("field name"): {"1"}})
	who.PostForm("/.gatehouse/login/code", url.Values{"code": {plant("code in a form")}, "form_token": {token}})
	for _, path := range []string{"/.gatehouse/login", "/app"} {
		who.Get(path + "?password=" + plant("query of "+path[1:4]) + "&token=x&next=//" + plant("next of "+path[1:4]))
		for _, name := range []string{accessName, handleName, deviceName, loginName, "other"} {
			b.raw(t, "GET "+path+" HTTP/1.1\r\n"+b.as(nil)+"Cookie: "+name+"="+plant("cookie "+name+path[1:4])+"\r\nConnection: close\r\n\r\n")
		}
		for _, scheme := range []string{"Bearer", "Basic", "Digest", "Token"} {
			b.raw(t, "GET "+path+" HTTP/1.1\r\n"+b.as(nil)+"Authorization: "+scheme+" "+plant(scheme+path[1:4])+"\r\nConnection: close\r\n\r\n")
		}
	}
	b.raw(t, "GET /app HTTP/1.1\r\n"+b.as(nil)+"Authorization: Bearer "+plant("first of two")+"\r\nAuthorization: Bearer "+plant("second of two")+"\r\nConnection: close\r\n\r\n")
	b.raw(t, "GET /app HTTP/1.1\r\n"+b.as(nil)+plant("no header line")+"\r\nConnection: close\r\n\r\n")
	b.raw(t, plant("no request")+"\r\n\r\n")
	ctx := t.Context()
	_ = b.Admin.SetPassword(ctx, "bob", plant("password")[:8], "too short")
	_ = b.Admin.SetPassword(ctx, "nobody-1", plant("password for nobody"), "test")
	_, _ = b.Admin.AddUser(ctx, apiUser("alice", plant("password of a name that is taken")))
	_, _ = b.Admin.AddUser(ctx, apiUser("no name", plant("password of no name")))
	_, _ = b.Admin.Import(ctx, apiImport("mallory:"+plant("no hash")+"\n"))
}

func apiUser(name, password string) api.NewUser { return api.NewUser{Name: name, Password: password} }

func apiImport(content string) api.Import {
	return api.Import{Format: api.FormatHtpasswd, Content: content}
}

// tellAll is everything that the administration API tells when it is asked.
func (b *bench) tellAll(t *testing.T) string {
	t.Helper()
	ctx := t.Context()
	users, err := b.Admin.Users(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := b.Admin.Sessions(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	lockouts, err := b.Admin.Lockouts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return asJSON(t, users) + asJSON(t, sessions) + asJSON(t, lockouts)
}
