package attacks_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
)

// importHash makes an account with a bcrypt hash of another program's.
func (g *target) importHash(name, password string) {
	g.t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		g.t.Fatal(err)
	}
	_, err = g.Admin.Import(g.t.Context(), api.Import{Format: api.FormatHtpasswd, Content: name + ":" + string(hash) + "\n"})
	if err != nil {
		g.t.Fatal(err)
	}
}

// accepts reports whether a password is right, through the JSON login and through the form; both must agree. The account has no
// second factor and one is required, so a right password ends at that.
func (g *target) accepts(name, password string) bool {
	g.t.Helper()
	defer g.reset(name) // so that many wrong ones can be tried
	answer := g.next().Login(name, password, "")
	byJSON := answer.ProblemCode() == string(problem.EnrolmentRequired)
	if !byJSON {
		refused(g.t, name, answer, problem.InvalidCredentials)
	}
	byForm := g.next().Password(name, password).StatusCode == http.StatusSeeOther // to the enrolment
	if byJSON != byForm {
		g.t.Errorf("%s with %.20q: JSON says %t, the form %t", name, password, byJSON, byForm)
	}
	return byJSON
}

// bcrypt looks at 72 bytes. What comes after them must count, and be refused where it cannot.
func TestLG01_passwordsAreNotCutAt72Bytes(t *testing.T) {
	t.Parallel()
	g := start(t)
	base := "four brown larks dig a well beside nine grey barns, then sing all night!"
	if len(base) != 72 {
		t.Fatalf("%d bytes", len(base))
	}
	if err := g.add("alice", base); err != nil {
		t.Fatal(err)
	}
	imported := strings.Repeat("A", 72)
	g.importHash("imported", imported)
	for name, right := range map[string]string{"alice": base, "imported": imported} {
		for _, wrong := range []string{right + "B", right + "\x00", right + right, right[:71], right[:71] + "B"} {
			if g.accepts(name, wrong) {
				t.Errorf("%s: %d bytes are accepted for 72 others", name, len(wrong))
			}
		}
		if !g.accepts(name, right) {
			t.Errorf("%s: the password itself is refused", name)
		}
	}
}

// Longer passwords are supported in full, to 256 characters. One that is refused changes nothing.
func TestLG02_longPasswordsAreWholeOrRefused(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.AddUser("alice")
	text := strings.Repeat("seven calm otters row past 3 old mills; ", 7)
	for _, password := range []string{
		text[:73], text[:100], text[:200], text[:256], "🦊🐢🎈🌵🍋🚲🧭🎻🪁🦉🐙🌶🍩🛶🎲🔭🧶🪴🐝🥨",
	} {
		g.secret(password)
		if err := g.Admin.SetPassword(t.Context(), "alice", password, "LG-02"); err != nil {
			t.Fatalf("%d bytes: %v", len(password), err)
		}
		runes := []rune(password)
		for _, wrong := range []string{string(runes[:len(runes)-1]), string(runes[:len(runes)-1]) + "x", password + "x"} {
			if g.accepts("alice", wrong) {
				t.Errorf("%d bytes are accepted for %d others", len(wrong), len(password))
			}
		}
		if !g.accepts("alice", password) {
			t.Fatalf("a password of %d bytes is refused", len(password))
		}
	}
	before := text[:256]
	if err := g.Admin.SetPassword(t.Context(), "alice", before, "LG-02"); err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{text[:257], strings.Repeat("🦊🐢", 129), ""} {
		if err := g.Admin.SetPassword(t.Context(), "alice", password, "LG-02"); err == nil {
			t.Errorf("a password of %d bytes was set", len(password))
		}
		if !g.accepts("alice", before) {
			t.Errorf("after %d bytes were refused the password is another", len(password))
		}
	}
}

// Nothing is hashed that name and password run into each other in.
func TestLG03_longNamesDoNotPushPasswordsOut(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, length := range []int{52, 60, 63, 64} {
		name := strings.Repeat("n", length)
		g.AddUser(name)
		for _, wrong := range []string{guess(length), gatewaytest.Password + "x", gatewaytest.Password[1:], name + gatewaytest.Password} {
			if g.accepts(name, wrong) {
				t.Errorf("a name of %d: another password is accepted", length)
			}
		}
		if g.accepts(name[:length-1], "n"+gatewaytest.Password) {
			t.Errorf("a name of %d: the border between name and password moves", length)
		}
		if !g.accepts(name, gatewaytest.Password) {
			t.Errorf("a name of %d: the password itself is refused", length)
		}
	}
}

// bcrypt in C stops at a NUL, and Go's repeats the key around it.
func TestLG05_NULIsACharacter(t *testing.T) {
	t.Parallel()
	g := start(t)
	right := "violet herons\x00wade nine"
	if err := g.add("alice", right); err != nil {
		t.Fatal(err)
	}
	g.importHash("imported", "violet herons")
	for _, password := range []string{"violet herons", "violet herons\x00", "violet herons\x00violet herons", "violet herons\x00wade", "violet heronswade nine"} {
		if g.accepts("alice", password) {
			t.Errorf("%q is accepted for %q", password, right)
		}
		if password != "violet herons" && g.accepts("imported", password) {
			t.Errorf("%q is accepted for a hash of its start", password)
		}
	}
	if !g.accepts("alice", right) || !g.accepts("imported", "violet herons") {
		t.Error("the password itself is refused")
	}
}

func TestLG06_passwordsAreNormalisedOnce(t *testing.T) {
	t.Parallel()
	g := start(t)
	for i, password := range []string{"caf\u00e9 herons wade nine", "\ufb01ne herons wade nine", "violet herons \u212b wade"} {
		name := fmt.Sprintf("alice-%d", i)
		if err := g.add(name, password); err != nil {
			t.Fatal(err)
		}
		for _, spelled := range []string{password, strings.NewReplacer("\u00e9", "e\u0301", "\ufb01", "fi", "\u212b", "A\u030a").Replace(password)} {
			if !g.accepts(name, spelled) {
				t.Errorf("%+q is refused for %+q", spelled, password)
			}
		}
		if g.accepts(name, strings.NewReplacer("\u00e9", "e", "\ufb01", "f", "\u212b", "A").Replace(password)) {
			t.Errorf("another password is accepted for %+q", password)
		}
	}
	before := g.Verifications()
	for _, body := range []string{
		`{"username":"alice","password":"\ud800"}`, `{"username":"alice","password":"\udc00\ud800"}`,
		"{\"username\":\"alice\",\"password\":\"\xff\"}", "{\"username\":\"\xc0\xaf\",\"password\":\"x\"}",
	} {
		answer := g.next().Do(http.MethodPost, loginPath, strings.NewReader(body), http.Header{"Content-Type": {"application/json"}})
		refused(t, body, answer, problem.BadRequest)
	}
	b := g.next()
	page := b.Get("/.gatehouse/login")
	form := url.Values{"username": {"alice"}, "password": {"\xff\xfe"}, "form_token": {gatewaytest.FormToken(t, page.Text)}}
	if answer := b.PostForm("/.gatehouse/login", form); answer.StatusCode != http.StatusBadRequest {
		t.Errorf("invalid UTF-8 in a form: %d", answer.StatusCode)
	}
	if ran := g.Verifications() - before; ran != 0 {
		t.Errorf("%d verifications ran for what cannot be read", ran)
	}
}

// spellings of alice, and whether each is her name.
var spellings = map[string]bool{
	"alice": true, "ALICE": true, "Alice": true, "ａｌｉｃｅ": true, "ＡＬＩＣＥ": true,
	" alice ": false, "alice ": false, "alice\t": false, "alice\n": false, "alice\x00": false, "alice@corp": false,
	"alic\u0435": false, "alice\u200b": false, "a\u0301lice": false, "al\u0131ce": false, "ali\u00adce": false, "": false,
}

// One function makes the name, and the limiter, the lockout, the log and the app all see what it made.
func TestLG07_everySpellingIsOneAccountEverywhereOrNone(t *testing.T) {
	t.Parallel()
	g := start(t)
	seed := g.enrolled("alice")
	for spelled, hers := range spellings {
		if spelled == "" {
			refused(t, "no name", g.next().Login(spelled, gatewaytest.Password, ""), problem.BadRequest)
			continue
		}
		answer := g.next().Login(spelled, gatewaytest.Password, "")
		record := g.last()
		if !hers {
			refused(t, fmt.Sprintf("%+q", spelled), answer, problem.InvalidCredentials)
			if record.Subject.ID != "" || record.Subject.Name != "" || record.Subject.Tag == "" {
				t.Errorf("%+q is in the log as %+v", spelled, record.Subject)
			}
			continue
		}
		refused(t, fmt.Sprintf("%+q", spelled), answer, problem.CodeRequired)
		if record.Subject.Name != "alice" {
			t.Errorf("%+q is in the log as %+v", spelled, record.Subject)
		}
		g.Clock.Add(time.Minute)
		b := g.next()
		signedIn(t, spelled, b.Login(spelled, gatewaytest.Password, g.Code(seed)))
		b.Get("/")
		if seen := g.Upstream.Last(t).Values("Remote-User"); len(seen) != 1 || seen[0] != "alice" {
			t.Errorf("signed in as %+q the app sees %q", spelled, seen)
		}
	}
}

func TestLG08_namesWithTwoReadingsAreNone(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, name := range []string{
		"a@evil.com@corp.com", "a@corp.com\n@evil", `"a@corp.com"@evil.com`, "a@corp.com,b", "a b@corp.com", "@corp.com", "a@corp.com\x00", "<a@corp.com>",
		"a＠evil.com@corp.com",
	} {
		if err := g.add(name, gatewaytest.Password); err == nil {
			t.Errorf("%+q became an account", name)
		}
		refused(t, name, g.next().Login(name, gatewaytest.Password, ""), problem.InvalidCredentials)
	}
	for _, email := range []string{"a@evil.com@corp.com", "a@corp.com\n", `"a@corp.com"@evil.com`, "a@corp.com,b@evil.com"} {
		_, err := g.Admin.AddUser(t.Context(), api.NewUser{Name: "bob", Email: email, Password: gatewaytest.Password})
		if err == nil {
			t.Fatalf("%+q became an e-mail address", email)
		}
	}
	if err := g.add("a@corp.com", gatewaytest.Password); err != nil {
		t.Errorf("a name with one @: %v", err)
	}
}

// Whoever is disabled is told what anybody is told who guessed wrong, whatever was shown.
func TestLG11_disabledAccountsLookLikeWrongPasswords(t *testing.T) {
	t.Parallel()
	g := start(t)
	seed := g.enrolled("carol")
	live := g.next()
	signedIn(t, "before", live.Login("carol", gatewaytest.Password, g.Code(seed)))
	g.Clock.Add(time.Minute)
	waiting := g.next()
	challenge := waiting.Login("carol", gatewaytest.Password, "").Field("challenge")
	if err := g.Admin.DisableUser(t.Context(), "carol", "LG-11"); err != nil {
		t.Fatal(err)
	}
	want := withoutNonces(g.next().Login("carol", guess(0), "").Text)
	for what, answer := range map[string]gatewaytest.Answer{
		"right password":          g.next().Login("carol", gatewaytest.Password, ""),
		"right password and code": g.next().Login("carol", gatewaytest.Password, g.Code(seed)),
		"wrong password and code": g.next().Login("carol", guess(1), g.Code(seed)),
		"unknown name":            g.next().Login("nobody-1", guess(2), ""),
	} {
		refused(t, what, answer, problem.InvalidCredentials)
		if got := withoutNonces(answer.Text); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	refused(t, "a login that waited", waiting.JSON(loginPath, map[string]string{"challenge": challenge, "code": g.Code(seed)}), problem.CodeInvalid)
	refused(t, "a live session", live.Do(http.MethodGet, "/", nil, nil), problem.SessionRequired)
	g.Clock.Add(6 * time.Minute) // the access token has expired: renewal decides
	refused(t, "renewal", live.Do(http.MethodGet, "/.gatehouse/api/v1/session", nil, nil), problem.SessionRequired)
	sessions, err := g.Admin.Sessions(t.Context(), "carol")
	if err != nil || len(sessions) != 0 {
		t.Errorf("carol has %d sessions, %v", len(sessions), err)
	}
	if n := len(g.Upstream.Requests()); n != 0 {
		t.Errorf("the app saw %d requests", n)
	}
}

// There is no default account, and nothing but one well-formed body is a login.
func TestLG12_nothingSignsInWithoutAnAccount(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, name := range []string{"admin", "root", "gatehouse", "user", "test", "guest"} {
		refused(t, name, g.next().Login(name, name, ""), problem.InvalidCredentials)
		refused(t, name, g.next().Login(name, "password", ""), problem.InvalidCredentials)
	}
	ran := g.Verifications()
	g.AddUser("alice")
	right, _ := json.Marshal(gatewaytest.Password)
	pass := string(right)
	for _, body := range []string{
		``, `{}`, `null`, `[]`, `"alice"`, `{"username":"alice"}`, `{"password":` + pass + `}`, `{"username":"","password":` + pass + `}`,
		`{"username":"alice","password":""}`, `{"username":null,"password":null}`, `{"username":["alice"],"password":{}}`, `{"username":"alice","password":[` + pass + `]}`,
		`{"username":"alice","username":"alice","password":` + pass + `}`, `{"username":"alice","password":"x","password":` + pass + `}`,
		`{"username":"alice","Password":"x","password":` + pass + `}`, `{"username":"alice","password":` + pass + `,"admin":true}`,
		`{"username":"alice","password":` + pass + `}{}`, `{"username":"alice","password":` + pass + `,}`, `{"username":{"$ne":null},"password":{"$ne":null}}`,
		`{"username":"alice","password":` + pass + `,"challenge":"x"}`, `{"username":"alice","password":` + pass + `,"code":""}`,
		strings.Repeat(`[`, 1000), `{"username":"alice","password":` + pass + `,"code":` + strings.Repeat(`[`, 1000),
	} {
		answer := g.next().Do(http.MethodPost, loginPath, strings.NewReader(body), http.Header{"Content-Type": {"application/json"}})
		refused(t, body, answer, problem.BadRequest)
	}
	for _, mediaType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "application/json, text/plain"} {
		answer := g.next().Do(http.MethodPost, loginPath, strings.NewReader(`{"username":"alice","password":`+pass+`}`), http.Header{"Content-Type": {mediaType}})
		refused(t, "content type "+mediaType, answer, problem.BadRequest)
	}
	big := `{"username":"alice","password":"` + strings.Repeat("x", 1<<20) + `"}`
	refused(t, "a megabyte", g.next().Do(http.MethodPost, loginPath, strings.NewReader(big), http.Header{"Content-Type": {"application/json"}}), problem.TooLarge)
	answer := g.next().Do(http.MethodPost, loginPath, struct{ *strings.Reader }{strings.NewReader(big)}, http.Header{"Content-Type": {"application/json"}})
	refused(t, "a megabyte in chunks", answer, problem.TooLarge)
	g.refusesForms()
	if after := g.Verifications(); after != ran || ran != 12 {
		t.Errorf("%d verifications ran, want 12, and %d more for what is no login", ran, after-ran)
	}
}

// refusesForms posts forms that are no login.
func (g *target) refusesForms() {
	g.t.Helper()
	for what, body := range map[string]string{
		"twice a name": "username=alice&username=bob&password=x", "twice a password": "username=alice&password=x&password=y", "no name": "password=x",
		"no password": "username=alice", "nothing": "", "semicolons": "username=alice;password=x",
	} {
		b := g.next()
		token := gatewaytest.FormToken(g.t, b.Get("/.gatehouse/login").Text)
		header := gatewaytest.Document()
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		query := "?username=alice&password=" + url.QueryEscape(gatewaytest.Password)
		answer := b.Do(http.MethodPost, "/.gatehouse/login"+query, strings.NewReader(body+"&form_token="+url.QueryEscape(token)), header)
		if answer.StatusCode != http.StatusBadRequest {
			g.t.Errorf("%s: got %d, want 400", what, answer.StatusCode)
		}
	}
}

// A password in an address is in everybody's log; ours takes none there and keeps none.
func TestLG14_passwordsAreNoPartOfAnAddress(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.AddUser("alice")
	query := "?username=alice&password=" + url.QueryEscape(gatewaytest.Password) + "&code=" + canary
	b := g.next()
	answer := b.Do(http.MethodGet, loginPath+query, nil, nil)
	refused(t, "GET", answer, problem.MethodNotAllowed)
	if answer.Header.Get("Allow") != "POST" {
		t.Errorf("Allow is %q", answer.Header.Get("Allow"))
	}
	page := b.Get("/.gatehouse/login" + query)
	if page.StatusCode != http.StatusOK || len(page.Header.Values("Referrer-Policy")) != 1 || page.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("the page: %d, Referrer-Policy %q", page.StatusCode, page.Header.Values("Referrer-Policy"))
	}
	if strings.Contains(page.Text, canary) || strings.Contains(page.Text, gatewaytest.Password) {
		t.Error("the page repeats what the address held")
	}
	refused(t, "POST", b.Do(http.MethodPost, loginPath+query, strings.NewReader("{}"), http.Header{"Content-Type": {"application/json"}}), problem.BadRequest)
	if answer := b.Get("/report" + query); answer.StatusCode != http.StatusFound {
		t.Errorf("the app's address with a password in it: %d", answer.StatusCode)
	}
	// A person who mistakes one field for the other.
	refused(t, "password as the name", b.Login(gatewaytest.Password, "alice", ""), problem.InvalidCredentials)
	refused(t, "guess", b.Login("alice", guess(1), ""), problem.InvalidCredentials)
	b.Password("alice", guess(2))
	if ran := g.Verifications(); ran != 3 {
		t.Errorf("%d verifications ran, want 3", ran)
	}
	if r := g.last(); r.Subject.Name != "alice" {
		t.Errorf("the log names %+v", r.Subject)
	}
	// The oracles look for all of it in the log, the store and the output.
}

// The second step belongs to the first: to its account, its browser, its five minutes, once.
func TestLG15_theSecondStepNeedsTheFirst(t *testing.T) {
	t.Parallel()
	g := start(t)
	seed := g.enrolled("alice")
	other := g.enrolled("bob")
	code := func(b *gatewaytest.Browser, challenge, code string) gatewaytest.Answer {
		return b.JSON(loginPath, map[string]string{"challenge": challenge, "code": code})
	}
	refused(t, "no first step", code(g.next(), strings.Repeat("A", 52), g.Code(seed)), problem.CodeInvalid)
	refused(t, "another account's code", code(g.next(), g.next().Login("bob", gatewaytest.Password, "").Field("challenge"), g.Code(seed)), problem.CodeInvalid)

	// A browser's challenge is in its cookie; it is nothing to another browser, and nothing to a script.
	b := g.next()
	if answer := b.Password("alice", gatewaytest.Password); answer.StatusCode != http.StatusSeeOther {
		t.Fatalf("password: %d", answer.StatusCode)
	}
	_, challenge, _ := strings.Cut(b.Jar[loginCookie(t, b)], ".")
	refused(t, "a browser's challenge in JSON", code(g.next(), challenge, g.Code(seed)), problem.CodeInvalid)
	thief := g.next()
	thief.Get("/.gatehouse/login")
	nonce, _, _ := strings.Cut(thief.Jar[loginCookie(t, thief)], ".")
	token := gatewaytest.FormToken(t, thief.Get("/.gatehouse/login").Text)
	thief.Jar[loginCookie(t, thief)] = nonce + "." + challenge
	answer := thief.PostForm("/.gatehouse/login/code", url.Values{"code": {g.Code(seed)}, "form_token": {token}})
	if answer.StatusCode != http.StatusUnauthorized || len(thief.Jar) != 1 {
		t.Errorf("in another browser: %d, cookies %v", answer.StatusCode, thief.Jar)
	}

	late := g.next()
	challenge = late.Login("alice", gatewaytest.Password, "").Field("challenge")
	g.Clock.Add(auth.PendingLifetime)
	refused(t, "too late", code(late, challenge, g.Code(seed)), problem.CodeInvalid)

	twice := g.next()
	challenge = twice.Login("alice", gatewaytest.Password, "").Field("challenge")
	signedIn(t, "once", code(twice, challenge, g.Code(seed)))
	g.Clock.Add(time.Minute)
	refused(t, "twice", code(g.next(), challenge, g.Code(seed)), problem.CodeInvalid)
	if r := g.last(); r.Trace.Of(audit.StepSecondFactor).Reason != audit.ReasonPendingInvalid || r.Subject.Name != "" {
		t.Errorf("the log says %+v of %+v", r.Trace, r.Subject)
	}

	for _, path := range []string{"login/session", "login/finish", "session", "api/v1/login/code", "login/code/"} {
		answer := g.next().Do(http.MethodPost, "/.gatehouse/"+path, strings.NewReader(`{"username":"alice"}`), http.Header{"Content-Type": {"application/json"}})
		if answer.StatusCode != http.StatusNotFound || len(answer.Cookies()) != 0 {
			t.Errorf("POST %s: %d", path, answer.StatusCode)
		}
	}
	refused(t, "bob after all of it", g.next().Login("bob", gatewaytest.Password, g.Code(seed)), problem.CodeInvalid)
	signedIn(t, "bob with his own code", g.next().Login("bob", gatewaytest.Password, g.Code(other)))
}

// loginCookie is the name of the cookie that holds the pending login, found by what it is called and not spelled here.
func loginCookie(t *testing.T, b *gatewaytest.Browser) string {
	t.Helper()
	for name := range b.Jar {
		if strings.HasSuffix(name, "-login") {
			return name
		}
	}
	t.Fatal("the browser has no login cookie")
	return ""
}

// Names that exist and names that do not cost the same and get the same bytes, in every state.
func TestEN01_unknownNamesCostAndReadTheSame(t *testing.T) {
	t.Parallel()
	g, server := startOnRedis(t)
	g.enrolled("alice-1")
	g.AddUser("bobby-1") // no second factor
	g.enrolled("carol-1")
	if err := g.Admin.DisableUser(t.Context(), "carol-1", "EN-01"); err != nil {
		t.Fatal(err)
	}
	refused(t, "warm up", g.next().Login("somebody", guess(0), ""), problem.InvalidCredentials) // the scripts are loaded now
	monitor := server.Monitor(t)
	var wantAnswers, wantWork []string
	for n, name := range []string{"nobdy-1", "alice-1", "ALICE-1", "bobby-1", "carol-1", "nobdy-2"} {
		for attempt := range 7 { // five failures, then locked
			if name == "ALICE-1" && attempt < 5 { // the same account, which is locked by now
				continue
			}
			work(t, monitor) // what was before
			ran := g.Verifications()
			from := fmt.Sprintf("10.1.%d.%d", n, attempt)
			answer := withoutNonces(g.raw(g.post(loginPath, from, "application/json", fmt.Sprintf(`{"username":%q,"password":%q}`, name, guess(attempt)))))
			did := fmt.Sprintf("%d verifications; %s", g.Verifications()-ran, work(t, monitor))
			if n == 0 {
				wantAnswers, wantWork = append(wantAnswers, answer), append(wantWork, did)
				continue
			}
			if answer != wantAnswers[attempt] {
				t.Errorf("%s, attempt %d: got\n%s\nwant\n%s", name, attempt, answer, wantAnswers[attempt])
			}
			if did != wantWork[attempt] {
				t.Errorf("%s, attempt %d: got %s, want %s", name, attempt, did, wantWork[attempt])
			}
		}
	}
	if ran := g.Verifications(); ran != 1+5*5 {
		t.Errorf("%d verifications ran, want one and five for each of five names", ran)
	}
	if !strings.HasPrefix(wantWork[0], "1 verifications") || !strings.Contains(wantWork[0], "evalsha lockout") {
		t.Fatalf("the oracle counts nothing: %s", wantWork[0])
	}
}

// The page, too, says the same but for the name that was typed.
func TestEN01_thePageReadsTheSame(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.enrolled("alice")
	nonce := regexp.MustCompile(`(?s)name="form_token" value="[^"]*"|[A-Z2-7]{26}`)
	page := func(name string) string {
		answer := g.next().Password(name, guess(0))
		return fmt.Sprint(answer.StatusCode) + nonce.ReplaceAllString(strings.ReplaceAll(answer.Text, name, ""), "")
	}
	if alice, nobody := page("alice"), page("nobody"); alice != nobody {
		t.Errorf("got\n%s\nand\n%s", alice, nobody)
	}
}

// With the full counts the clock of the machine is asked whether it can tell.
func TestEN01_timeTellsNothing(t *testing.T) {
	pairs, cost := rounds(8, 200), rounds(bcrypt.MinCost, 10)
	if !proving() { // what is measured is measured alone
		t.Parallel()
	}
	g := startWith(t, gatewaytest.Options{Cost: cost})
	var known, unknown []float64
	b := g.NewBrowser() // one connection for all
	measure := func(name string, i int) float64 {
		b.From = fmt.Sprintf("10.2.%d.%d", i>>8, i&0xff)
		begun := time.Now()
		refused(t, name, b.Login(name, guess(i), ""), problem.InvalidCredentials)
		return float64(time.Since(begun))
	}
	g.enrolled("alice-0")
	for i := range pairs {
		if i%2 == 0 { // whoever comes first might be slower
			known = append(known, measure("alice-0", i))
			unknown = append(unknown, measure(fmt.Sprintf("nobdy-%d", i), i))
		} else {
			unknown = append(unknown, measure(fmt.Sprintf("nobdy-%d", i), i))
			known = append(known, measure("alice-0", i))
		}
		g.reset("alice-0")
		g.reset(fmt.Sprintf("nobdy-%d", i))
	}
	if !proving() {
		return // a handful of pairs on a busy machine says nothing
	}
	time1, time2, z := median(known), median(unknown), rankSum(known, unknown)
	t.Logf("medians %s and %s, z = %.2f", time.Duration(time1), time.Duration(time2), z)
	// On a machine that does other things too the medians differ by chance; that much is not held against them.
	if d := math.Abs(time1 - time2); d > max(time1/20, medianNoise(known, unknown)) {
		t.Errorf("medians differ by %s of %s", time.Duration(d), time.Duration(time1))
	}
	if z > 3.3 || z < -3.3 { // p < 0.001
		t.Errorf("a rank test tells them apart: z = %.2f", z)
	}
}

// Unknown names lock like known ones: same answers, same Retry-After, same cookies.
func TestEN04_unknownNamesLockTheSame(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.enrolled("alice-1")
	sequence := func(name string, host int) []string {
		var answers []string
		for i := range 8 {
			from := fmt.Sprintf("10.3.%d.%d", host, i)
			answers = append(answers, withoutNonces(g.raw(g.post(loginPath, from, "application/json", fmt.Sprintf(`{"username":%q,"password":%q}`, name, guess(i))))))
		}
		return answers
	}
	known, unknown := sequence("alice-1", 1), sequence("nobdy-1", 2)
	for i := range known {
		if known[i] != unknown[i] {
			t.Errorf("attempt %d: got\n%s\nand\n%s", i, known[i], unknown[i])
		}
		if locked := strings.Contains(known[i], `"code":"locked"`); locked != (i >= 5) {
			t.Errorf("attempt %d: locked %t", i, locked)
		}
	}
	if !strings.Contains(known[5], "Retry-After: 900") {
		t.Errorf("got %s", known[5])
	}
	if ran := g.Verifications(); ran != 10 {
		t.Errorf("%d verifications ran, want five for each name", ran)
	}
}

// That an account has a second factor shows behind the right password only.
func TestEN05_theFactorShowsBehindTheRightPasswordOnly(t *testing.T) {
	t.Parallel()
	for _, policy := range []configs.SecondFactor{configs.Required, configs.Optional} {
		g := start(t, func(c *configs.Config) { c.Login.SecondFactor = policy })
		g.enrolled("alice")
		g.AddUser("bobby")
		try := func(name, password string, host int) string {
			from := fmt.Sprintf("10.4.%d.1", host)
			return withoutNonces(g.raw(g.post(loginPath, from, "application/json", fmt.Sprintf(`{"username":%q,"password":%q}`, name, password))))
		}
		if with, without := try("alice", guess(1), 1), try("bobby", guess(1), 2); with != without || !strings.Contains(with, "invalid-credentials") {
			t.Errorf("%s: wrong passwords: got\n%s\nand\n%s", policy, with, without)
		}
		body := fmt.Sprintf(`{"username":"alice","password":%q,"code":"123456"}`, guess(1))
		if answer := withoutNonces(g.raw(g.post(loginPath, "10.4.3.1", "application/json", body))); answer != try("bobby", guess(1), 4) {
			t.Errorf("%s: a code behind a wrong password: got\n%s", policy, answer)
		}
		if answer := try("alice", gatewaytest.Password, 5); !strings.Contains(answer, "code-required") {
			t.Errorf("%s: right password: got\n%s", policy, answer)
		}
	}
}
