package attacks_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/problem"
	"gatehouse/secrets"
	"gatehouse/store"
	"gatehouse/store/boltstore"
)

// forge makes tokens with the gateway's own signing key, so that what it refuses, it refuses for what the token says.
type forge struct {
	key ed25519.PrivateKey
	kid string
	// The tokens that alice's login gave her, taken apart.
	header, claims map[string]map[string]any // by purpose
}

// The two purposes that are accepted, as typ has them.
const (
	cookieToken = "gatehouse-cookie+jwt"
	bearerToken = "gatehouse-bearer+jwt"
)

// forgeBench is a bench whose signing key the test has stolen.
func forgeBench(t *testing.T) (*bench, *forge) {
	t.Helper()
	dir := t.TempDir()
	clock := gatewaytest.NewClock()
	gatewaytest.Start(t, gatewaytest.Options{Dir: dir, Clock: clock}).Stop() // makes the keys
	f := &forge{header: map[string]map[string]any{}, claims: map[string]map[string]any{}}
	f.steal(t, dir, clock)
	b := &bench{}
	b.Gateway = gatewaytest.Start(t, gatewaytest.Options{Dir: dir, Clock: clock})
	b.app = b.Upstream
	b.AddUser("alice", "staff")
	b.secret = b.Enrol("alice")
	b.alice = b.NewBrowser()
	answer := b.alice.Login("alice", gatewaytest.Password, b.Code(b.secret))
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("sign in: %d %s", answer.StatusCode, answer.Text)
	}
	f.learn(t, cookieToken, b.alice.Jar[accessName])
	f.learn(t, bearerToken, answer.Field("access_token"))
	return b, f
}

// steal reads the signing key out of a data folder.
func (f *forge) steal(t *testing.T, dir string, clock *gatewaytest.Clock) {
	t.Helper()
	engine, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(dir, "gatehouse.db"), Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	root, _, err := secrets.LoadOrCreateRootKey(filepath.Join(dir, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	ring, _, err := secrets.OpenKeyring(t.Context(), engine, root, secrets.Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	nothing := func() ([]byte, error) { return nil, errors.New("there is no signing key") }
	value, _, err := secrets.Material(t.Context(), store.SealRecords(engine, ring.Sealer("records")), "signing", nothing)
	if err != nil {
		t.Fatal(err)
	}
	var stored struct {
		Active string
		Keys   []struct {
			Kid  string
			Seed []byte
		}
	}
	if err := json.Unmarshal(value, &stored); err != nil {
		t.Fatal(err)
	}
	for _, key := range stored.Keys {
		if key.Kid == stored.Active {
			f.kid, f.key = key.Kid, ed25519.NewKeyFromSeed(key.Seed)
		}
	}
}

// learn takes a token of the gateway apart.
func (f *forge) learn(t *testing.T, purpose, raw string) {
	t.Helper()
	parts := strings.Split(raw, ".")
	for i, into := range []map[string]map[string]any{f.header, f.claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		var part map[string]any
		if err := json.Unmarshal(text, &part); err != nil {
			t.Fatal(err)
		}
		into[purpose] = part
	}
	if f.header[purpose]["typ"] != purpose || f.header[purpose]["kid"] != f.kid {
		t.Fatalf("the gateway signs with another header than thought: %v", f.header[purpose])
	}
}

// draft is a token to be: what it says and how it is signed.
type draft struct {
	header, claims map[string]any
	sign           func(message []byte) []byte
}

// draft copies the good token of a purpose.
func (f *forge) draft(purpose string) *draft {
	d := &draft{header: maps.Clone(f.header[purpose]), claims: maps.Clone(f.claims[purpose]), sign: f.sign}
	for _, name := range []string{"exp", "iat", "auth_time"} { // JSON made them floating point
		d.claims[name] = int64(d.claims[name].(float64))
	}
	return d
}

func (f *forge) sign(message []byte) []byte { return ed25519.Sign(f.key, message) }

func (d *draft) token(t *testing.T) string {
	t.Helper()
	message := base64.RawURLEncoding.EncodeToString([]byte(asJSON(t, d.header))) + "." + base64.RawURLEncoding.EncodeToString([]byte(asJSON(t, d.claims)))
	return message + "." + base64.RawURLEncoding.EncodeToString(d.sign([]byte(message)))
}

// showAs is a request to the app with a token where the purpose says that it belongs.
func (b *bench) showAs(t *testing.T, purpose, raw string) wiretest.Answers {
	t.Helper()
	line := "Cookie: " + accessName + "=" + raw
	if purpose == bearerToken {
		line = "Authorization: Bearer " + raw
	}
	return b.raw(t, "GET /app HTTP/1.1\r\nHost: "+b.Origin.Host+"\r\n"+line+"\r\nConnection: close\r\n\r\n")
}

// forgery is one way to change a draft.
type forgery struct {
	name string
	edit func(d *draft)
	good bool // the changed token is accepted: shows where the line is
}

// playForgeries shows each forgery in both places, and that what it was made from is good.
func playForgeries(t *testing.T, b *bench, f *forge, forgeries []forgery) {
	t.Helper()
	allowed := len(b.app.Requests())
	for _, purpose := range []string{cookieToken, bearerToken} {
		for _, forged := range append(forgeries, forgery{"nothing changed", func(*draft) {}, true}) {
			d := f.draft(purpose)
			forged.edit(d)
			answers := b.showAs(t, purpose, d.token(t))
			if forged.good {
				allowed++
				if got := answers.Status(t); got != http.StatusOK {
					t.Errorf("%s, %s: got %d, want it accepted", purpose, forged.name, got)
				}
				continue
			}
			wantDenied(t, purpose+", "+forged.name, answers.All[0], http.StatusUnauthorized, http.StatusRequestHeaderFieldsTooLarge)
		}
	}
	b.oracles(t, allowed)
}

func TestSE01_theTokenDoesNotChooseItsAlgorithm(t *testing.T) {
	t.Parallel()
	b, f := forgeBench(t)
	public := f.key.Public().(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	jwks := b.NewBrowser().Get("/.gatehouse/jwks.json").Text
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rs256 := func(message []byte) []byte {
		sum := sha256.Sum256(message)
		signature, err := rsa.SignPKCS1v15(rand.Reader, other, crypto.SHA256, sum[:])
		if err != nil {
			t.Error(err)
		}
		return signature
	}
	none := func([]byte) []byte { return nil }
	hs256 := func(key []byte) func([]byte) []byte {
		return func(message []byte) []byte {
			mac := hmac.New(sha256.New, key)
			mac.Write(message)
			return mac.Sum(nil)
		}
	}
	named := func(alg any, sign func([]byte) []byte) func(*draft) {
		return func(d *draft) { d.header["alg"], d.sign = alg, sign }
	}
	forgeries := []forgery{
		{"no alg, not signed", func(d *draft) { delete(d.header, "alg"); d.sign = none }, false},
		{"no alg, signed", func(d *draft) { delete(d.header, "alg") }, false},
		{"signed, alg is a list", named([]string{}, f.sign), false},
		{"signed, alg is a list of the right one", named([]string{"EdDSA"}, f.sign), false},
		{"signed, another case", named("eddsa", f.sign), false},
		{"signed, HS256", named("HS256", f.sign), false},
		{"signed, Ed25519", named("Ed25519", f.sign), false}, // RFC 9864 names it so; the key here says EdDSA
		{"HS256 with the key's bytes", named("HS256", hs256(public)), false},
		{"HS256 with the key as DER", named("HS256", hs256(der)), false},
		{"HS256 with the key as PEM", named("HS256", hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))), false},
		{"HS256 with the key as JWK set", named("HS256", hs256([]byte(jwks))), false},
		{"HS256 with the kid", named("HS256", hs256([]byte(f.kid))), false},
		{"HS256 with no key", named("HS256", hs256(nil)), false},
		{"EdDSA as HMAC", named("EdDSA", hs256(public)), false},
		{"ES256 with r = s = 0", named("ES256", func([]byte) []byte { return make([]byte, 64) }), false},
		{"EdDSA with a signature of zeros", named("EdDSA", func([]byte) []byte { return make([]byte, 64) }), false},
		{"RS256 of another's key", named("RS256", rs256), false},
		{"RS256 with a signature of 512 bits", named("RS256", func(m []byte) []byte { return rs256(m)[:64] }), false},
		{"PS256", named("PS256", rs256), false},
		{"EdDSA of another's key", func(d *draft) {
			_, stranger, _ := ed25519.GenerateKey(rand.Reader)
			d.sign = func(m []byte) []byte { return ed25519.Sign(stranger, m) }
		}, false},
	}
	for _, alg := range []any{"none", "None", "nOnE", "NONE", "", nil, []string{}, "EdDSA"} {
		forgeries = append(forgeries, forgery{"not signed, alg " + asJSON(t, alg), named(alg, none), false})
	}
	playForgeries(t, b, f, forgeries)
}

func TestSE02_theHeaderOpensNothing(t *testing.T) {
	t.Parallel()
	b, f := forgeBench(t)
	var hits atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer elsewhere.Close()
	public, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	theirs := func(m []byte) []byte { return ed25519.Sign(stranger, m) }
	jwk := map[string]string{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(public), "kid": f.kid}
	var forgeries []forgery
	for _, kid := range []any{
		"../../../../dev/null", "/proc/self/environ", "' OR 1=1--", "a\r\nSET x y\r\n", strings.Repeat("k", 4<<10), strings.Repeat("k", 30<<10), 1, nil, "",
		"unknown",
		[]string{f.kid},
		map[string]string{"kid": f.kid},
		f.kid + "\x00", f.kid + " ", strings.ToUpper(f.kid), elsewhere.URL, true,
	} {
		name := asJSON(t, kid)
		forgeries = append(forgeries, forgery{"kid " + name[:min(len(name), 40)], func(d *draft) { d.header["kid"] = kid }, false})
	}
	for name, value := range map[string]any{
		"jku": elsewhere.URL + "/jwks.json", "x5u": elsewhere.URL + "/cert.pem", "jwk": jwk, "x5c": []string{"MIIB"}, "x5t": "AAAA", "cty": "JWT",
		"b64": false, "crit": []string{"b64"}, "unknown": 1, "zip": "DEF",
	} {
		forgeries = append(
			forgeries,
			forgery{name + ", signed by us", func(d *draft) { d.header[name] = value }, false},
			forgery{name + ", signed by them", func(d *draft) { d.header[name], d.sign = value, theirs }, false},
		)
	}
	forgeries = append(
		forgeries,
		forgery{"crit names an unknown one", func(d *draft) { d.header["crit"], d.header["exotic"] = []string{"exotic"}, 1 }, false},
		forgery{"crit is empty", func(d *draft) { d.header["crit"] = []string{} }, false},
		forgery{"b64 and crit", func(d *draft) { d.header["crit"], d.header["b64"] = []string{"b64"}, false }, false},
		forgery{"typ in another case", func(d *draft) { d.header["typ"] = strings.ToUpper(d.header["typ"].(string)) }, false},
		forgery{"typ with application/", func(d *draft) { d.header["typ"] = "application/" + d.header["typ"].(string) }, false},
	)
	playForgeries(t, b, f, forgeries)
	if n := hits.Load(); n != 0 {
		t.Errorf("the gateway asked an address in a token %d times", n)
	}
}

// Nothing tells an expired token from a badly signed one, and a renewal takes nothing from either.
func TestSE03_expiredIsNotWellSigned(t *testing.T) {
	t.Parallel()
	b, f := forgeBench(t)
	b.AddUser("bob")
	bob := b.SignIn("bob", b.Enrol("bob"))
	theirs := forge{header: map[string]map[string]any{}, claims: map[string]map[string]any{}, kid: f.kid, key: f.key}
	theirs.learn(t, cookieToken, bob.Jar[accessName])
	now := b.Clock.Now().Unix()
	ended := func(f *forge, sign func([]byte) []byte) string {
		d := f.draft(cookieToken)
		d.claims["iat"], d.claims["exp"] = now-300, now-1
		if sign != nil {
			d.sign = sign
		}
		return d.token(t)
	}
	zeros := func([]byte) []byte { return make([]byte, 64) }
	var texts []string
	for name, raw := range map[string]string{"well signed": ended(f, nil), "badly signed": ended(f, zeros)} {
		answers := b.showAs(t, cookieToken, raw)
		wantDenied(t, name, answers.All[0], http.StatusUnauthorized)
		texts = append(texts, regexp.MustCompile(`"request_id":"[^"]*"`).ReplaceAllString(answers.Bodies[0], ""))
	}
	if texts[0] != texts[1] {
		t.Errorf("the answers differ:\n%s\n%s", texts[0], texts[1])
	}
	// A handle renews whatever the token beside it says, for the handle's own user.
	for name, raw := range map[string]string{
		"another's, badly signed": ended(&theirs, zeros), "another's, well signed": ended(&theirs, nil), "none of ours": "x", "empty": "",
	} {
		answers := b.raw(t, "GET /app HTTP/1.1\r\nHost: "+b.Origin.Host+"\r\nCookie: "+accessName+"="+raw+"; "+handleName+"="+b.alice.Jar[handleName]+"\r\nConnection: close\r\n\r\n")
		if got := answers.Status(t); got != http.StatusOK {
			t.Errorf("%s: got %d", name, got)
			continue
		}
		if who := b.app.Last(t).Values("Remote-User"); who[0] != "alice" {
			t.Errorf("%s: renewed for %s", name, who[0])
		}
	}
	b.oracles(t, 4)
}

func TestSE04_lengthIsBoundedBeforeParsing(t *testing.T) {
	t.Parallel()
	b, _ := forgeBench(t)
	long := map[string]string{
		"1 MB of dots": strings.Repeat(".", 1<<20), "10,000 dots": strings.Repeat(".", 10_000), "two dots": "..", "three dots": "...",
		"parts of 300 kB": strings.Repeat(strings.Repeat("a", 300<<10)+".", 2) + strings.Repeat("a", 300<<10),
		"parts of 10 kB":  strings.Repeat(strings.Repeat("a", 10<<10)+".", 2) + strings.Repeat("a", 10<<10),
		"good and longer": b.alice.Jar[accessName] + strings.Repeat("A", 8<<10), "good and dots": b.alice.Jar[accessName] + strings.Repeat(".", 9<<10),
	}
	for name, raw := range long {
		for _, purpose := range []string{cookieToken, bearerToken} {
			began := time.Now()
			answers := b.showAs(t, purpose, raw)
			wantDenied(t, purpose+", "+name, answers.All[0], http.StatusUnauthorized, http.StatusRequestHeaderFieldsTooLarge)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s, %s: took %s", purpose, name, took)
			}
		}
	}
	b.oracles(t, 0)
}

func TestSE05_timesAreChecked(t *testing.T) {
	t.Parallel()
	b, f := forgeBench(t)
	now := b.Clock.Now().Unix()
	set := func(values map[string]any) func(*draft) {
		return func(d *draft) { maps.Copy(d.claims, values) }
	}
	without := func(name string) func(*draft) { return func(d *draft) { delete(d.claims, name) } }
	playForgeries(t, b, f, []forgery{
		{"ended a second ago", set(map[string]any{"iat": now - 200, "exp": now - 1}), false},
		{"ends now", set(map[string]any{"iat": now - 200, "exp": now}), false},
		{"ends in a second", set(map[string]any{"iat": now - 200, "exp": now + 1}), true},
		{"no exp", without("exp"), false},
		{"exp is text", set(map[string]any{"exp": "9999999999"}), false},
		{"exp is 1e400", set(map[string]any{"exp": json.RawMessage("1e400")}), false},
		{"exp is 1e18", set(map[string]any{"exp": json.RawMessage("1e18")}), false},
		{"exp is negative", set(map[string]any{"exp": -1}), false},
		{"exp is a fraction", set(map[string]any{"exp": json.RawMessage(strconv.FormatInt(now+100, 10) + ".5")}), false},
		{"exp is null", set(map[string]any{"exp": nil}), false},
		{"exp is a list", set(map[string]any{"exp": []int64{now + 100}}), false},
		{"exp overflows", set(map[string]any{"exp": json.RawMessage("9223372036854775808")}), false},
		{"not before ten minutes from now", set(map[string]any{"nbf": now + 600}), false},
		{"not before the leeway's end", set(map[string]any{"nbf": now + 31}), false},
		{"not before, within the leeway", set(map[string]any{"nbf": now + 29}), true},
		{"issued in ten minutes", set(map[string]any{"iat": now + 600, "exp": now + 700}), false},
		{"issued after the leeway", set(map[string]any{"iat": now + 31, "exp": now + 100}), false},
		{"issued within the leeway", set(map[string]any{"iat": now + 29, "exp": now + 100}), true},
		{"lives longer than we let any", set(map[string]any{"iat": now, "exp": now + 301}), false},
		{"lives for years", set(map[string]any{"iat": now, "exp": now + 1e9}), false},
		{"no iat", without("iat"), false},
		{"ends before it was issued", set(map[string]any{"iat": now + 20, "exp": now + 10}), false},
		{"no auth_time", without("auth_time"), false},
	})
}

// A credential is good in its own place only.
func TestSE06_credentialsHaveOnePlace(t *testing.T) {
	t.Parallel()
	b, f := forgeBench(t)
	b.AddUser("bob")
	b.Enrol("bob")
	b.alice.Get("/app") // the app learns an assertion
	pending := b.NewBrowser().Login("bob", gatewaytest.Password, "").Field("challenge")
	if pending == "" {
		t.Fatal("no pending login")
	}
	browser := b.NewBrowser()
	browser.Get("/.gatehouse/login")
	cookie, bearer := f.draft(cookieToken).token(t), f.draft(bearerToken).token(t)
	assertion := b.app.Last(t).Values("X-Gatehouse-Assertion")[0]
	for place, values := range map[string]map[string]string{
		"Cookie: " + accessName + "=": {
			"handle": b.alice.Jar[handleName], "device cookie": b.alice.Jar[deviceName], "login cookie": browser.Jar[loginName],
			"pending login": pending, "assertion": assertion, "bearer token": bearer,
		},
		"Authorization: Bearer ": {
			"handle": b.alice.Jar[handleName], "device cookie": b.alice.Jar[deviceName], "login cookie": browser.Jar[loginName],
			"pending login": pending, "assertion": assertion, "cookie token": cookie,
		},
		"Cookie: " + handleName + "=": {
			"access token": cookie, "bearer token": bearer, "device cookie": b.alice.Jar[deviceName], "pending login": pending, "assertion": assertion,
		},
		"Authorization: Basic ":   {"bearer token": bearer, "alice:password": base64.StdEncoding.EncodeToString([]byte("alice:" + gatewaytest.Password))},
		"X-Gatehouse-Assertion: ": {"assertion": assertion},
		"Remote-User: ":           {"name": "alice"},
	} {
		for name, value := range values {
			answers := b.raw(t, "GET /app HTTP/1.1\r\nHost: "+b.Origin.Host+"\r\n"+place+value+"\r\nConnection: close\r\n\r\n")
			wantDenied(t, place+name, answers.All[0], http.StatusUnauthorized)
		}
	}
	set := func(name string, value any) func(*draft) { return func(d *draft) { d.claims[name] = value } }
	other := "http://other.localhost:8080"
	playForgeries(t, b, f, []forgery{
		{"aud of another origin", set("aud", other), false},
		{"aud is a list", set("aud", []string{b.URL}), false},
		{"aud is a longer list", set("aud", []string{b.URL, other}), false},
		{"aud is empty", set("aud", ""), false},
		{"aud is an empty list", set("aud", []string{}), false},
		{"no aud", func(d *draft) { delete(d.claims, "aud") }, false},
		{"aud with a slash", set("aud", b.URL+"/"), false},
		{"aud in another case", set("aud", strings.ToUpper(b.URL)), false},
		{"iss of another place", set("iss", other), false},
		{"no iss", func(d *draft) { delete(d.claims, "iss") }, false},
		{"another realm of the same key", func(d *draft) { d.claims["iss"], d.claims["aud"] = other, other }, false},
		{"typ of the other place", func(d *draft) {
			d.header["typ"] = map[any]string{cookieToken: bearerToken, bearerToken: cookieToken}[d.header["typ"]]
		}, false},
		{"typ of an assertion", func(d *draft) { d.header["typ"] = "gatehouse-assertion+jwt" }, false},
		{"typ JWT", func(d *draft) { d.header["typ"] = "JWT" }, false},
		{"no typ", func(d *draft) { delete(d.header, "typ") }, false},
		{"no session", func(d *draft) { delete(d.claims, "sid") }, false},
		{"a session that there is not", set("sid", strings.Repeat("0", 32)), false},
		{"another user's id", set("sub", strings.Repeat("0", 32)), false},
		{"no user", func(d *draft) { delete(d.claims, "sub") }, false},
		{"no id", func(d *draft) { delete(d.claims, "jti") }, false},
	})
}

// What a browser had before a step is worth nothing after it.
func TestSE12_nothingPlantedOutlivesALogin(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.AddUser("bob")
	bobs := b.Enrol("bob")
	mallory := b.alice // the attacker is somebody with an account

	// Before the login: the attacker knows the login cookie of the victim's browser, and plants a session of her own.
	victim := b.NewBrowser()
	victim.Get("/.gatehouse/login")
	planted := b.NewBrowser()
	maps.Copy(planted.Jar, victim.Jar)
	maps.Copy(victim.Jar, map[string]string{handleName: mallory.Jar[handleName], accessName: mallory.Jar[accessName]})
	form := url.Values{"username": {"bob"}, "password": {gatewaytest.Password}, "form_token": {gatewaytest.FormToken(t, planted.Get("/.gatehouse/login").Text)}}
	if answer := victim.PostForm("/.gatehouse/login", form); answer.StatusCode != http.StatusSeeOther {
		t.Fatalf("password: %d %s", answer.StatusCode, answer.Text)
	}
	if victim.Jar[loginName] == planted.Jar[loginName] {
		t.Error("the password step kept the planted login cookie")
	}
	between := b.NewBrowser()
	maps.Copy(between.Jar, victim.Jar)
	if answer := planted.Get("/.gatehouse/login/code"); answer.StatusCode != http.StatusSeeOther {
		t.Errorf("the planted login cookie finds the pending login: %d", answer.StatusCode)
	}
	b.Clock.Add(time.Minute)
	if answer := victim.Code(b.Code(bobs)); answer.StatusCode != http.StatusSeeOther {
		t.Fatalf("code: %d %s", answer.StatusCode, answer.Text)
	}
	for _, name := range []string{accessName, handleName, loginName} {
		if victim.Jar[name] == between.Jar[name] || victim.Jar[name] == "" {
			t.Errorf("%s is not new after the code", name)
		}
	}
	if answer := victim.Get("/app"); answer.StatusCode != http.StatusOK || b.app.Last(t).Values("Remote-User")[0] != "bob" {
		t.Errorf("the victim: %d as %s", answer.StatusCode, b.app.Last(t).Values("Remote-User"))
	}
	for name, old := range map[string]*gatewaytest.Browser{"planted": planted, "between the steps": between, "the attacker's own, planted": mallory} {
		if answer := old.Do(http.MethodGet, "/app", nil, nil); answer.ProblemCode() != string(problem.SessionRequired) {
			t.Errorf("%s: %d", name, answer.StatusCode)
		}
	}
	if answer := between.Get("/.gatehouse/login/code"); answer.StatusCode != http.StatusSeeOther {
		t.Errorf("the pending login outlives its end: %d", answer.StatusCode)
	}

	// Somebody else signs in where bob still is.
	before := b.NewBrowser()
	maps.Copy(before.Jar, victim.Jar)
	b.Clock.Add(time.Minute)
	if answer := victim.Login("alice", gatewaytest.Password, b.Code(b.secret)); answer.StatusCode != http.StatusOK {
		t.Fatalf("login while signed in: %d %s", answer.StatusCode, answer.Text)
	}
	if answer := victim.Get("/app"); answer.StatusCode != http.StatusOK || b.app.Last(t).Values("Remote-User")[0] != "alice" {
		t.Errorf("after the second login: %d", answer.StatusCode)
	}
	if answer := before.Do(http.MethodGet, "/app", nil, nil); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("the former session: %d", answer.StatusCode)
	}
	records := b.oracles(t, 2)
	if n := sum(records, func(r audit.Record) bool { return r.Details["cause"] == "signed-in-again" }); n != 2 {
		t.Errorf("%d sessions ended by another login, want 2", n)
	}
}

// setCookie is all that a Set-Cookie line of ours may be.
var setCookie = regexp.MustCompile(`^__Host-gatehouse(-session|-device|-login)?=[A-Za-z0-9._-]*; Path=/(; Max-Age=[0-9]+)?; HttpOnly; Secure; SameSite=Lax$`)

func TestSE14_everyCookieIsAsStrictAsTheLast(t *testing.T) {
	t.Parallel()
	for name, spoof := range map[string]http.Header{
		"plain": {},
		"http":  {"X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {"evil.test"}, "X-Forwarded-Port": {"80"}, "Forwarded": {"proto=http;host=evil.test"}, "X-Forwarded-Ssl": {"off"}, "Front-End-Https": {"off"}},
		"https": {"X-Forwarded-Proto": {"https"}, "X-Forwarded-Prefix": {"/evil"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			set := map[string]bool{}
			look := func(what string, answer gatewaytest.Answer) {
				for _, line := range answer.Header.Values("Set-Cookie") {
					if !setCookie.MatchString(line) || len(line) >= 4096 {
						t.Errorf("%s: Set-Cookie: %s", what, line)
					}
					name, _, _ := strings.Cut(line, "=")
					set[what+" "+name] = true
				}
			}
			who := b.NewBrowser()
			who.Header = spoof
			page := who.Get("/.gatehouse/login")
			look("page", page)
			look("error", who.PostForm("/.gatehouse/login", url.Values{"username": {"alice"}, "password": {"x"}, "form_token": {"forged"}}))
			b.Clock.Add(time.Minute)
			look("password", who.Password("alice", gatewaytest.Password))
			look("code", who.Code(b.Code(b.secret)))
			b.Clock.Add(6 * time.Minute)
			renewed := who.Get("/app")
			look("renewal", renewed)
			if private := renewed.Header.Get("Cache-Control"); !strings.Contains(private, "private") && !strings.Contains(private, "no-store") {
				t.Errorf("the renewal may be stored by a shared cache: %q", private)
			}
			b.Clock.Add(6 * time.Minute)
			look("session", who.Do(http.MethodGet, "/.gatehouse/api/v1/session", nil, nil))
			look("logout", who.Submit("/.gatehouse/logout", url.Values{}))
			b.Clock.Add(time.Minute)
			look("json", who.Login("alice", gatewaytest.Password, b.Code(b.secret)))
			for _, want := range []string{
				"page " + loginName, "password " + loginName, "code " + accessName, "code " + handleName, "code " + deviceName, "renewal " + accessName,
				"session " + accessName, "logout " + accessName, "logout " + handleName, "json " + accessName, "json " + handleName, "json " + deviceName,
			} {
				if !set[want] {
					t.Errorf("not set: %s", want)
				}
			}
			b.oracles(t, 1)
		})
	}
}

// respell gives other spellings of an opaque value, none of which is the value.
func respell(value string) map[string]string {
	last := value[len(value)-1]
	spellings := map[string]string{
		"cut by one": value[:len(value)-1], "cut by four": value[:len(value)-4], "without its start": value[1:], "halved": value[:len(value)/2], "empty": "",
		"longer by one": value + "A", "longer by four": value + "AAAA", "twice": value + value,
		"padded": value + "=", "padded twice": value + "==", "padded, percent-encoded": value + "%3D", "percent-encoded": "%" + "41" + value[1:],
		"in lower case": strings.ToLower(value), "in upper case": strings.ToUpper(value),
		"in quotes": `"` + value + `"`, "with a NUL's name": value + "%00", "with a dot": value + ".",
		"the other alphabet": strings.NewReplacer("-", "+", "_", "/").Replace(value), "last bit flipped": value[:len(value)-1] + string(flip(last)),
	}
	if rest := strings.NewReplacer("-", "+", "_", "/").Replace(value); rest == value {
		delete(spellings, "the other alphabet")
	}
	return spellings
}

// flip changes the lowest of the six bits that a character of base64url stands for: in the last character of most values it
// carries nothing.
func flip(c byte) byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)^1]
}

func TestSE17_opaqueValuesHaveOneSpelling(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for _, name := range []string{handleName, accessName} {
		for spelling, value := range respell(b.alice.Jar[name]) {
			answers := b.raw(t, "GET /app HTTP/1.1\r\nHost: "+b.Origin.Host+"\r\nCookie: "+name+"="+value+"\r\nConnection: close\r\n\r\n")
			wantDenied(t, name+" "+spelling, answers.All[0], http.StatusUnauthorized)
		}
	}
	for spelling, value := range respell(b.alice.Login("alice", gatewaytest.Password, "").Field("challenge")) {
		b.Clock.Add(time.Second)
		answer := b.NewBrowser().JSON("/.gatehouse/api/v1/login", map[string]string{"challenge": value, "code": b.Code(b.secret)})
		if code := answer.ProblemCode(); code != string(problem.CodeInvalid) && code != string(problem.BadRequest) {
			t.Errorf("challenge %s: %d %s", spelling, answer.StatusCode, code)
		}
	}
	// A device cookie in another spelling is a stranger's: the fifth failure locks strangers, and it with them.
	for range 5 {
		b.NewBrowser().Login("alice", "wrong every time", "")
	}
	b.Clock.Add(time.Minute)
	for spelling, value := range respell(b.alice.Jar[deviceName]) {
		who := b.NewBrowser()
		answer := who.Do(http.MethodPost, "/.gatehouse/api/v1/login", strings.NewReader(asJSON(t, map[string]string{"username": "alice", "password": gatewaytest.Password})),
			http.Header{"Content-Type": {"application/json"}, "Cookie": {deviceName + "=" + value}})
		if answer.ProblemCode() != string(problem.Locked) {
			t.Errorf("device cookie %s: %d %s", spelling, answer.StatusCode, answer.Text)
		}
	}
	known := b.NewBrowser()
	known.Jar[deviceName] = b.alice.Jar[deviceName]
	if answer := known.Login("alice", gatewaytest.Password, ""); answer.ProblemCode() != string(problem.CodeRequired) {
		t.Errorf("the device cookie as it is: %d %s", answer.StatusCode, answer.Text)
	}
	b.oracles(t, 0)
}

func TestSE18_idsAreRandom(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil, func(c *configs.Config) { c.Session.PerUser = 1000 })
	drawn := map[string][]string{}
	draw := func(what, value string) { drawn[what] = append(drawn[what], value) }
	for range 80 {
		who := b.NewBrowser()
		page := who.Get("/.gatehouse/login")
		draw("login cookie", who.Jar[loginName])
		draw("form token", gatewaytest.FormToken(t, page.Text))
		draw("request id", who.Do(http.MethodGet, "/.gatehouse/nothing", nil, nil).Field("request_id"))
		draw("challenge", who.Login("alice", gatewaytest.Password, "").Field("challenge"))
	}
	for range 40 {
		who := b.SignIn("alice", b.secret)
		handle, err := base64.RawURLEncoding.DecodeString(who.Jar[handleName])
		if err != nil {
			t.Fatal(err)
		}
		draw("session id", base64.RawURLEncoding.EncodeToString(handle[17:33]))
		draw("MAC of a handle", base64.RawURLEncoding.EncodeToString(handle[45:]))
		var claims struct{ JTI, SID string }
		text, err := base64.RawURLEncoding.DecodeString(strings.Split(who.Jar[accessName], ".")[1])
		if err != nil || json.Unmarshal(text, &claims) != nil {
			t.Fatalf("claims %q: %v", text, err)
		}
		draw("id of a token", claims.JTI)
		draw("session id in a token", claims.SID)
	}
	for what, values := range drawn {
		checkRandom(t, what, values)
	}
	b.oracles(t, 0)
	for path, content := range dataFolder(t, b.Dir) {
		for _, what := range []string{"login cookie", "form token", "challenge"} {
			for _, value := range drawn[what][:10] {
				if bytes.Contains(content, []byte(value)) {
					t.Errorf("%s holds a %s as it is", path, what)
				}
			}
		}
	}
}

// checkRandom fails the test if the values repeat, are shorter than 128 bits in 5 or 6 bits a character, or have a place
// that changes with time or a counter only.
func checkRandom(t *testing.T, what string, values []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, v := range values {
		if len(v) < 22 || len(v) != len(values[0]) || seen[v] {
			t.Fatalf("%s: %q is short, of another length, or there twice", what, v)
		}
		seen[v] = true
	}
	for i := range len(values[0]) - 1 { // the last character may carry few bits
		at := map[byte]int{}
		for _, v := range values {
			at[v[i]]++
		}
		for c, n := range at {
			if n > 2*len(values)/3 {
				t.Errorf("%s: %q stands at %d in %d of %d", what, c, i, n, len(values))
			}
		}
	}
}
