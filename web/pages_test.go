package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatehouse/admin/api"
	"gatehouse/auth/password"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
)

const prefix = "/.gatehouse/"

func setup(t *testing.T, g *gatewaytest.Gateway) string {
	t.Helper()
	summary, err := g.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return summary.Setup
}

// invite makes an account and returns its invitation.
func invite(t *testing.T, g *gatewaytest.Gateway, name string) string {
	t.Helper()
	made, err := g.Admin.AddInvited(t.Context(), api.NewInvitation{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return made.Link
}

// tokenOf is the token in a link.
func tokenOf(t *testing.T, link string) string {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("token")
}

// post sends the form that is on a page.
func post(t *testing.T, b *gatewaytest.Browser, page gatewaytest.Answer, action string, fields url.Values) gatewaytest.Answer {
	t.Helper()
	fields.Set("form_token", gatewaytest.FormToken(t, page.Text))
	return b.PostForm(action, fields)
}

// WB-03, without HSTS. Every answer of ours that a browser draws has these, whatever its status.
func TestPages_haveTheirHeaders(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		_ = c.Upstream.UnmarshalText([]byte("http://127.0.0.1:9")) // the discard port: nothing listens
	}})
	g.AddUser("alice")
	secret := g.Enrol("alice")
	wrong := func(name, address string) gatewaytest.Answer {
		return g.NewBrowser().At(address).Password(name, "wrong")
	}
	for status, answer := range map[int]func() gatewaytest.Answer{
		200: func() gatewaytest.Answer { return g.NewBrowser().Get(prefix + "login") },
		401: func() gatewaytest.Answer { return wrong("nobody", "192.0.2.1") },
		403: func() gatewaytest.Answer {
			return g.NewBrowser().PostForm(prefix+"login", url.Values{"username": {"alice"}})
		},
		404: func() gatewaytest.Answer { return g.NewBrowser().Get(prefix + "nothing") },
		405: func() gatewaytest.Answer { return g.NewBrowser().PostForm(prefix+"jwks.json", url.Values{}) },
		410: func() gatewaytest.Answer { return g.NewBrowser().Get(prefix + "setup?token=x") },
		429: func() gatewaytest.Answer {
			for range 12 {
				wrong("somebody", "192.0.2.2")
			}
			return wrong("somebody", "192.0.2.2")
		},
		502: func() gatewaytest.Answer { return g.SignIn("alice", secret).Get("/") },
	} {
		a := answer()
		if a.StatusCode != status {
			t.Errorf("status %d, want %d: %s", a.StatusCode, status, a.Text)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy":      "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "no-referrer",
			"Cache-Control":                "no-store",
			"Content-Language":             "en",
			"Content-Type":                 "text/html; charset=utf-8",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%d: %s is %q, want %q", status, name, got, want)
			}
		}
		if status >= 400 && a.Header.Get("Set-Cookie") != "" && strings.Contains(a.Header.Get("Set-Cookie"), "session=") {
			t.Errorf("%d: a session cookie came with an error", status)
		}
	}
}

// TestPages_loadNothingFromElsewhere follows what the login page loads and weighs it.
func TestPages_loadNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	b := g.NewBrowser()
	page := b.Get(prefix + "login")
	weight := len(page.Text)
	seen := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page.Text, -1) {
		address := strings.ReplaceAll(found[1], "&amp;", "&")
		if seen[address] {
			continue
		}
		seen[address] = true
		if !strings.HasPrefix(address, prefix+"assets/") {
			t.Errorf("the login page refers to %s", address)
			continue
		}
		asset := b.Get(address)
		if asset.StatusCode != 200 || !strings.Contains(asset.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d, kept as %q", address, asset.StatusCode, asset.Header.Get("Cache-Control"))
		}
		weight += len(asset.Text)
	}
	if weight > 30_000 {
		t.Errorf("the login page weighs %d bytes, want 30 kB at most", weight)
	}
	for _, forbidden := range []string{"<script", "style=", "<style", "javascript:", "http-equiv"} {
		if strings.Contains(strings.ToLower(page.Text), forbidden) {
			t.Errorf("the login page has %q", forbidden)
		}
	}
}

// evil are strings that run, break out or are evaluated where a page forgets to escape them (WB-04).
var evil = []string{
	`"><script>alert(1)</script>`, `' onfocus=alert(1) autofocus '`, `</title><img src=x onerror=alert(1)>`, `{{.FormToken}}`, `{{7}}`,
	`javascript:alert(1)`, `"><meta http-equiv=refresh content=0;url=//evil>`, "<svg/onload=alert(1)>", `<!--`, "\u202e\u2066<b>",
}

// WB-04: wherever a page repeats what came with a request, it comes out as text.
func TestPages_escapeWhatTheyRepeat(t *testing.T) {
	t.Parallel()
	for i, text := range evil {
		g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) { c.Pages.Name = text }})
		b := g.NewBrowser()
		b.Header = http.Header{"Referer": {text}, "User-Agent": {text}, "Accept-Language": {text}, "X-Forwarded-Host": {text}}
		if i == len(evil)-1 { // not ASCII: no header value
			b.Header = http.Header{}
		}
		query := url.Values{"next": {"/" + text}, "token": {text}, "step": {text}, "lang": {text}, "v": {text}}.Encode()
		link := setup(t, g)
		token := tokenOf(t, link)
		pages := map[string]gatewaytest.Answer{
			"login":        b.Get(prefix + "login?" + query),
			"login failed": b.Submit(prefix+"login", url.Values{"username": {text}, "password": {text}, "next": {"/" + text}}),
			"code":         b.Get(prefix + "login/code?" + query),
			"set-up":       b.Get(link + "&step=" + url.QueryEscape(text)),
			"expired":      b.Get(prefix + "invite?" + query),
			"not found":    b.Get(prefix + url.PathEscape(text)),
			"logout":       b.Get(prefix + "logout?" + query),
		}
		b = g.NewBrowser()
		pages["set-up failed"] = post(t, b, b.Get(link), prefix+"setup?step=account", url.Values{
			"token": {token}, "username": {text}, "display_name": {text}, "password": {gatewaytest.Password},
		})
		pages["set-up failed by link"] = post(t, b, b.Get(link), prefix+"setup?step=account", url.Values{"token": {text}, "username": {text}, "password": {text}})
		for name, page := range pages {
			for _, raw := range []string{"<script", "<img src=x", "<svg/on", "<meta http", "<b>", "onfocus=alert(1) autofocus '", `"javascript:`} {
				if strings.Contains(page.Text, raw) && !(raw == `"javascript:` && strings.Contains(page.Text, `value="javascript:`)) {
					t.Errorf("%s, with %q: %q came out as it was", name, text, raw)
				}
			}
			if strings.Count(page.Text, "<!--") > 0 {
				t.Errorf("%s, with %q: a comment", name, text)
			}
		}
	}
}

// EN-06, of the invitation: a token that never was, one that was used and one that expired are one answer.
func TestLinks_thatCannotBeUsedAreOneAnswer(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	expired := invite(t, g, "bob")
	g.Clock.Add(73 * time.Hour)
	used := invite(t, g, "alice")
	complete(t, g, used)
	requestID := regexp.MustCompile(`Request [A-Z0-9]+`)
	var first string
	for i, link := range []string{g.URL + prefix + "invite?token=x", expired, used, g.URL + prefix + "invite", used + "&token=x"} {
		a := g.NewBrowser().Get(link)
		text := requestID.ReplaceAllString(a.Text, "")
		if first == "" {
			first = text
		}
		if a.StatusCode != http.StatusGone || text != first {
			t.Errorf("link %d: %d, and another text than that of a link that never was:\n%s", i, a.StatusCode, text)
		}
		b := g.NewBrowser()
		b.Get(prefix + "login")
		posted := b.PostForm(prefix+"invite?step=account", url.Values{
			"token": {tokenOf(t, link)}, "password": {gatewaytest.Password}, "form_token": {gatewaytest.FormToken(t, b.Get(prefix+"login").Text)},
		})
		if posted.StatusCode != http.StatusGone {
			t.Errorf("post with link %d: %d", i, posted.StatusCode)
		}
	}
}

var secretOnPage = regexp.MustCompile(`<code id="secret">(.*?)</code>`)

// secretOf is the secret that a page shows as text.
func secretOf(t *testing.T, page gatewaytest.Answer) string {
	t.Helper()
	found := secretOnPage.FindStringSubmatch(page.Text)
	if found == nil {
		t.Fatalf("no secret on the page (%d):\n%s", page.StatusCode, page.Text)
	}
	return regexp.MustCompile(`</?span>`).ReplaceAllString(found[1], "")
}

// complete goes through an invitation to its end.
func complete(t *testing.T, g *gatewaytest.Gateway, link string) *gatewaytest.Browser {
	t.Helper()
	b := g.NewBrowser()
	chosen := post(t, b, b.Get(link), prefix+"invite?step=account", url.Values{"token": {tokenOf(t, link)}, "password": {gatewaytest.Password}})
	if chosen.StatusCode != http.StatusSeeOther {
		t.Fatalf("choose: %d %s", chosen.StatusCode, chosen.Text)
	}
	page := b.Get(chosen.Header.Get("Location"))
	done := post(t, b, page, prefix+"invite?step=factor", url.Values{"token": {tokenOf(t, link)}, "code": {g.Code(secretOf(t, page))}})
	if done.StatusCode != http.StatusSeeOther || done.Header.Get("Location") != g.URL+"/" {
		t.Fatalf("confirm: %d to %s\n%s", done.StatusCode, done.Header.Get("Location"), done.Text)
	}
	return b
}

func TestSetup_endsWithWhatToDoNext(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	link, b := setup(t, g), g.NewBrowser()
	chosen := post(t, b, b.Get(link), prefix+"setup?step=account", url.Values{
		"token": {tokenOf(t, link)}, "username": {"ada"}, "display_name": {"Ada L."}, "password": {gatewaytest.Password},
	})
	page := b.Get(chosen.Header.Get("Location"))
	again := post(t, b, page, prefix+"setup?step=factor", url.Values{"token": {tokenOf(t, link)}, "code": {"00000"}})
	if again.StatusCode != http.StatusUnauthorized || secretOf(t, again) != secretOf(t, page) {
		t.Errorf("wrong code: %d, with another secret", again.StatusCode)
	}
	done := post(t, b, again, prefix+"setup?step=factor", url.Values{"token": {tokenOf(t, link)}, "code": {g.Code(secretOf(t, page))}})
	if done.StatusCode != http.StatusSeeOther {
		t.Fatalf("confirm: %d %s", done.StatusCode, done.Text)
	}
	last := b.Get(done.Header.Get("Location"))
	for _, want := range []string{"ada", "Open your apps", "gatehouse user add", "gatehouse audit tail"} {
		if last.StatusCode != 200 || !strings.Contains(last.Text, want) {
			t.Errorf("the last page (%d) does not name %q", last.StatusCode, want)
		}
	}
	if a := g.NewBrowser().Get(link); a.StatusCode != http.StatusGone {
		t.Errorf("the link again: %d, want 410", a.StatusCode)
	}
	if strings.Contains(g.Log.String(), tokenOf(t, link)) {
		t.Error("the log holds the token of the link")
	}
}

// TP-11: the secret is that of the browser that chose, and only the one drawn last counts.
func TestEnrolment_belongsToOneBrowserAndOneSecret(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	link := invite(t, g, "alice")
	token := tokenOf(t, link)
	a, b := g.NewBrowser(), g.NewBrowser()
	chosen := post(t, a, a.Get(link), prefix+"invite?step=account", url.Values{"token": {token}, "password": {gatewaytest.Password}})
	first := a.Get(chosen.Header.Get("Location"))
	second := a.Get(chosen.Header.Get("Location"))
	if secretOf(t, first) == secretOf(t, second) {
		t.Error("the secret was shown twice")
	}
	elsewhere := b.Get(link)
	if secretOnPage.MatchString(elsewhere.Text) {
		t.Fatal("another browser sees the secret")
	}
	stolen := post(t, b, elsewhere, prefix+"invite?step=factor", url.Values{"token": {token}, "code": {g.Code(secretOf(t, second))}})
	if stolen.StatusCode < 400 || !strings.Contains(stolen.Text, `name="password"`) {
		t.Errorf("finished in another browser: %d", stolen.StatusCode)
	}
	old := post(t, a, second, prefix+"invite?step=factor", url.Values{"token": {token}, "code": {g.Code(secretOf(t, first))}})
	if old.StatusCode != http.StatusUnauthorized {
		t.Errorf("the first secret's code: %d, want 401", old.StatusCode)
	}
	right := post(t, a, old, prefix+"invite?step=factor", url.Values{"token": {token}, "code": {g.Code(secretOf(t, second))}})
	if right.StatusCode != http.StatusSeeOther {
		t.Errorf("the second secret's code: %d, want 303\n%s", right.StatusCode, right.Text)
	}
	if again := a.Get(link); again.StatusCode != http.StatusGone || secretOnPage.MatchString(again.Text) {
		t.Errorf("after it was confirmed: %d", again.StatusCode)
	}
}

// LG-13, on the form: what is refused comes with its reason in the reader's language, and what is good is taken as it is.
func TestPassword_isRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	link := invite(t, g, "margaret")
	policy := password.DefaultPolicy
	for text, reason := range map[string]string{
		"password":                 "mindestens 12 Zeichen",
		"12345678":                 "mindestens 12 Zeichen",
		"short77":                  "mindestens 12 Zeichen",
		strings.Repeat("a", 15):    "mehr als ein einziges Zeichen",
		"margaret-gate":            "Lassen Sie Ihren Namen",
		"gatehousegatehouse":       "Lassen Sie Ihren Namen",
		"passwordpassword":         "schwerer zu erraten",
		strings.Repeat("ab c", 70): "höchstens 256 Zeichen",
	} {
		g.Clock.Add(time.Minute)
		b := g.NewBrowser()
		b.Header.Set("Accept-Language", "de")
		a := post(t, b, b.Get(link), prefix+"invite?step=account", url.Values{"token": {tokenOf(t, link)}, "password": {text}})
		if a.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(a.Text, reason) || strings.Contains(a.Text, "Use ") {
			t.Errorf("%q: %d without %q\n%s", text, a.StatusCode, reason, a.Text)
		}
		if strings.Contains(a.Text, `value="`+text) {
			t.Errorf("%q: the password came back", text)
		}
		if len(policy.Check(text, []string{"margaret"})) == 0 {
			t.Errorf("%q: the policy itself accepts it", text)
		}
	}
	b := g.NewBrowser()
	page := b.Get(link)
	if !strings.Contains(page.Text, "At least 12 characters") || strings.Contains(page.Text, `type="password" maxlength`) {
		t.Error("the rules do not stand before the field, or the field cuts what is pasted")
	}
	long := "the quiet river keeps nine lanterns under grey willow bridges 64"
	if a := post(t, b, page, prefix+"invite?step=account", url.Values{"token": {tokenOf(t, link)}, "password": {long}}); a.StatusCode != http.StatusSeeOther {
		t.Errorf("a passphrase of %d characters: %d", len(long), a.StatusCode)
	}
}

// example is the file of texts in docs/pages.md.
func example(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/pages.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(page), "```json\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatal("docs/pages.md has no example of texts")
	}
	return block
}

func TestPages_speakTheReadersLanguage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"fr.json": example(t),
		"ar.json": `{"login": {"title": "تسجيل الدخول"}}`,
		"en.json": `{"login": {"submit": "Let me in"}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) { c.Pages.TextsDir = dir }})
	for accept, want := range map[string]string{
		"":                          `lang="en" dir="ltr"|<h1>Sign in</h1>|Let me in`,
		"de-AT,de;q=0.9,en;q=0.8":   `lang="de" dir="ltr"|<h1>Anmelden</h1>`,
		"ja, fr-CA;q=0.5":           `lang="fr" dir="ltr"|<h1>Connexion</h1>|pour continuer vers <strong>|Let me in`,
		"ar":                        `lang="ar" dir="rtl"|تسجيل`,
		"ja":                        `lang="en"`,
		";;q=,,":                    `lang="en"`,
		strings.Repeat("de,", 4000): `lang="en"`,
	} {
		b := g.NewBrowser()
		b.Header.Set("Accept-Language", accept)
		page := b.Get(prefix + "login")
		for part := range strings.SplitSeq(want, "|") {
			if !strings.Contains(page.Text, part) {
				t.Errorf("%.40q: no %q in\n%s", accept, part, page.Text)
			}
		}
	}
}

// TestSite_isRefusedBeforeAnythingListens gives each kind of mistake that an operator can make.
func TestSite_isRefusedBeforeAnythingListens(t *testing.T) {
	t.Parallel()
	svg := func(inside string) string { return `<svg xmlns="http://www.w3.org/2000/svg">` + inside + `</svg>` }
	for name, c := range map[string]struct{ logo, texts, language, want string }{
		"no picture":            {logo: "GIF89a", want: "neither a PNG nor an SVG"},
		"too large":             {logo: svg(strings.Repeat(" ", 70<<10)), want: "more than 65536 bytes"},
		"svg with a script":     {logo: svg(`<script>1</script>`), want: `"script"`},
		"svg with a handler":    {logo: svg(`<g onclick="1"/>`), want: `"onclick"`},
		"svg with HTML":         {logo: svg(`<foreignObject/>`), want: `"foreignObject"`},
		"svg that links":        {logo: svg(`<use href="https://x/#a"/>`), want: `"href"`},
		"svg that loads":        {logo: svg(`<rect fill="url(https://x)"/>`), want: `"fill"`},
		"svg that animates":     {logo: svg(`<set attributeName="href"/>`), want: `"set"`},
		"svg with entities":     {logo: `<!DOCTYPE svg [<!ENTITY a "b">]>` + svg(""), want: "document type"},
		"not XML":               {logo: "<svg", want: "neither"},
		"unknown text":          {texts: `{"login": {"titel": "x"}}`, want: `"login.titel"`},
		"template in a text":    {texts: `{"login": {"title": "{{printf \"%s\" .}}"}}`, want: "login.title"},
		"value of another text": {texts: `{"login": {"title": "{{.Name}}"}}`, want: "login.title"},
		"no JSON":               {texts: `login:`, want: "fr.json"},
		"unknown language":      {language: "tlh", want: `"tlh"`},
	} {
		_, err := gatewaytest.Try(t, gatewaytest.Options{Configure: func(config *configs.Config) {
			dir := t.TempDir()
			if c.logo != "" {
				config.Pages.LogoFile = filepath.Join(dir, "logo")
				_ = os.WriteFile(config.Pages.LogoFile, []byte(c.logo), 0o600)
			}
			if c.texts != "" {
				config.Pages.TextsDir = dir
				_ = os.WriteFile(filepath.Join(dir, "fr.json"), []byte(c.texts), 0o600)
			}
			if c.language != "" {
				config.Pages.Language = c.language
			}
		}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestSite_showsTheOperatorsNameColourAndLogo(t *testing.T) {
	t.Parallel()
	logo := `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><rect width="1" height="1" fill="red"/></svg>`
	file := filepath.Join(t.TempDir(), "logo.svg")
	if err := os.WriteFile(file, []byte(logo), 0o600); err != nil {
		t.Fatal(err)
	}
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		c.Pages.Name, c.Pages.LogoFile, c.Pages.Accent = "Müller & Söhne", file, "#ffd400"
	}})
	b := g.NewBrowser()
	page := b.Get(prefix + "login")
	if !strings.Contains(page.Text, "<span>Müller &amp; Söhne</span>") || !strings.Contains(page.Text, "– Müller &amp; Söhne</title>") {
		t.Errorf("the name is not on the page:\n%s", page.Text)
	}
	if style := b.Get(prefix + "assets/gatehouse.css"); !strings.Contains(style.Text, "--accent:#ffd400;--on-accent:#000000") {
		t.Error("yellow does not have black on it")
	}
	picture := b.Get(prefix + "assets/logo")
	if picture.Text != logo || picture.Header.Get("Content-Type") != "image/svg+xml" || !strings.Contains(picture.Header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("the logo: %v\n%s", picture.Header, picture.Text)
	}
}

// TestForms_helpPasswordManagersAndReaders pins the markup that browsers, managers and screen readers work by.
func TestForms_helpPasswordManagersAndReaders(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	g.AddUser("alice")
	g.Enrol("alice")
	b := g.NewBrowser()
	login := b.Get(prefix + "login?next=/report")
	refused := b.Password("Alice", "wrong")
	b.Password("alice", gatewaytest.Password)
	code := b.Get(prefix + "login/code")
	for name, c := range map[string]struct{ text, want string }{
		"username": {login.Text, `<input id="username" name="username" type="text" value="" autocomplete="username" autocapitalize="none" autocorrect="off" spellcheck="false" maxlength="256" required autofocus>`},
		"password": {login.Text, `<input id="password" name="password" type="password" autocomplete="current-password" required>`},
		"code":     {code.Text, `type="text" inputmode="numeric" autocomplete="one-time-code" pattern="[0-9 ]*" maxlength="16"`},
		"summary":  {refused.Text, `<div class="alert" id="alert" role="alert" tabindex="-1" autofocus>`},
		"kept":     {refused.Text, `value="Alice"`},
		"invalid":  {refused.Text, `autocomplete="current-password" required aria-invalid="true" aria-describedby="alert">`},
		"title":    {refused.Text, `<title>Error: Sign in – Gatehouse</title>`},
		"where":    {login.Text, fmt.Sprintf("to continue to <strong>%s</strong>", g.Origin.Host)},
		"who":      {code.Text, "as alice, to continue"},
	} {
		if !strings.Contains(c.text, c.want) {
			t.Errorf("%s: no %s in\n%s", name, c.want, c.text)
		}
	}
	if strings.Count(refused.Text, "autofocus") != 1 {
		t.Error("not exactly one element asks for the focus")
	}
}

// TestForms_sayWhyACookieIsMissing: without our cookie no form is ever valid, and a browser that keeps none would not learn why.
func TestForms_sayWhyACookieIsMissing(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	a := g.NewBrowser().PostForm(prefix+"login", url.Values{"username": {"alice"}, "password": {"x"}, "form_token": {"x"}})
	if a.StatusCode != http.StatusForbidden || !strings.Contains(a.Text, "open it at "+g.URL) {
		t.Errorf("%d\n%s", a.StatusCode, a.Text)
	}
}

// TestVerify_saysWhatToDo: a right password from a place that nothing vouches for, of an account without a second factor.
func TestVerify_saysWhatToDo(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) { c.Login.SecondFactor = configs.Optional }})
	g.AddUser("alice")
	if a := g.NewBrowser().At("192.0.2.1").Password("alice", gatewaytest.Password); a.StatusCode != http.StatusSeeOther {
		t.Fatalf("first login: %d", a.StatusCode)
	}
	a := g.NewBrowser().At("198.51.100.1").Password("alice", gatewaytest.Password)
	if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, "We don’t recognise this sign-in") || !strings.Contains(a.Text, "verification-required") {
		t.Errorf("%d\n%s", a.StatusCode, a.Text)
	}
}
