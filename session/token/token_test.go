package token_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/session/token"
)

const (
	issuer = "https://login.example.com"
	origin = "https://wiki.example.com"
	userID = "00112233445566778899aabbccddeeff"
)

var start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// The key of RFC 8037, appendix A.
const (
	vectorSeed       = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
	vectorPublic     = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	vectorThumbprint = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
)

func vectorKeys(t *testing.T) (*token.KeySet, ed25519.PrivateKey) {
	t.Helper()
	seed, err := base64.RawURLEncoding.DecodeString(vectorSeed)
	if err != nil {
		t.Fatal(err)
	}
	stored := fmt.Sprintf(`{"format":1,"active":%q,"keys":[{"kid":%q,"seed":%q,"created":"2026-11-23T10:00:00Z"}]}`,
		vectorThumbprint, vectorThumbprint, base64.StdEncoding.EncodeToString(seed))
	keys, err := token.ParseKeySet([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	return keys, ed25519.NewKeyFromSeed(seed)
}

func claims() token.Claims {
	return token.Claims{
		ID: "jti-1", Issuer: issuer, Audience: origin, Subject: userID, SessionID: "ffeeddccbbaa99887766554433221100",
		Methods: []string{"pwd", "otp"}, AuthTime: start, IssuedAt: start, ExpiresAt: start.Add(5 * time.Minute),
	}
}

func sign(t *testing.T, keys *token.KeySet, p token.Purpose, c token.Claims) string {
	t.Helper()
	raw, err := keys.Sign(p, c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// forge signs any header and payload with the right key: what is refused then is refused for what it says.
func forge(key ed25519.PrivateKey, header, payload string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(text)))
}

func refuse(t *testing.T, keys *token.KeySet, name, raw string) {
	t.Helper()
	got, err := keys.Verify(raw, token.CookieToken, issuer, origin, start)
	if !errors.Is(err, token.ErrInvalid) {
		t.Errorf("%s: got %+v, %v, want ErrInvalid", name, got, err)
	}
}

func header(kid string) string {
	return fmt.Sprintf(`{"alg":"EdDSA","typ":"gatehouse-cookie+jwt","kid":%q}`, kid)
}

// payload is a good payload with some members replaced; a nil value takes the member away.
func payload(t *testing.T, change map[string]any) string {
	t.Helper()
	p := map[string]any{
		"jti": "1", "iss": issuer, "aud": origin, "sub": userID, "sid": "s", "auth_time": start.Unix(),
		"iat": start.Unix(), "exp": start.Unix() + 300,
	}
	for name, value := range change {
		if value == nil {
			delete(p, name)
		} else {
			p[name] = value
		}
	}
	out, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestKeySet_verifiesWhatItSigned(t *testing.T) {
	t.Parallel()
	keys, _ := vectorKeys(t)
	c := claims()
	c.Name, c.Email, c.Groups = "alice", "alice@example.com", []string{"admins"}
	raw := sign(t, keys, token.CookieToken, c)
	got, err := keys.Verify(raw, token.CookieToken, issuer, origin, start)
	if err != nil {
		t.Fatal(err)
	}
	if _, known := keys.Until(got.KeyID); !known {
		t.Errorf("kid of a verified token: got %q", got.KeyID)
	}
	got.KeyID = ""
	if want := fmt.Sprintf("%+v", claims()); fmt.Sprintf("%+v", got) != want {
		t.Errorf("claims of an access token: got %+v, want %s", got, want)
	}
	body, _ := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	if strings.Contains(string(body), "alice") {
		t.Errorf("access token holds a name: %s", body)
	}
	if len(raw) > 1000 {
		t.Errorf("access token: got %d bytes, want a cookie well under 4096", len(raw))
	}
	got, err = keys.Verify(sign(t, keys, token.Assertion, c), token.Assertion, issuer, origin, start)
	if err != nil || got.Name != "alice" || got.Email != "alice@example.com" || got.Groups[0] != "admins" {
		t.Errorf("assertion: got %+v, %v", got, err)
	}
}

func TestKeySet_acceptsAForgeryOnlyWhereItIsNone(t *testing.T) {
	t.Parallel()
	keys, key := vectorKeys(t)
	// The control of every test that forges: unchanged, the forgery is a good token.
	if _, err := keys.Verify(forge(key, header(vectorThumbprint), payload(t, nil)), token.CookieToken, issuer, origin, start); err != nil {
		t.Fatal(err)
	}
}

// SE-01
func TestKeySet_refusesEveryOtherAlgorithm(t *testing.T) {
	t.Parallel()
	keys, key := vectorKeys(t)
	good := payload(t, nil)
	for _, alg := range []string{`"none"`, `"None"`, `"nOnE"`, `""`, `[]`, `null`, `1`, `"HS256"`, `"ES256"`, `"RS256"`, `"PS256"`, `"eddsa"`, `"Ed25519"`} {
		h := fmt.Sprintf(`{"alg":%s,"typ":"gatehouse-cookie+jwt","kid":%q}`, alg, vectorThumbprint)
		refuse(t, keys, "alg "+alg, forge(key, h, good))
		text := strings.Join(strings.Split(forge(key, h, good), ".")[:2], ".")
		refuse(t, keys, "unsigned, alg "+alg, text+".")
	}
	refuse(t, keys, "no alg", forge(key, fmt.Sprintf(`{"typ":"gatehouse-cookie+jwt","kid":%q}`, vectorThumbprint), good))

	public, _ := key.Public().(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string][]byte{
		"raw": public, "DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "JWK set": keys.JWKS(),
	} {
		h := fmt.Sprintf(`{"alg":"HS256","typ":"gatehouse-cookie+jwt","kid":%q}`, vectorThumbprint)
		text := base64.RawURLEncoding.EncodeToString([]byte(h)) + "." + base64.RawURLEncoding.EncodeToString([]byte(good))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		refuse(t, keys, "HS256 keyed with the public key as "+name, text+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	}
	h := fmt.Sprintf(`{"alg":"ES256","typ":"gatehouse-cookie+jwt","kid":%q}`, vectorThumbprint)
	text := base64.RawURLEncoding.EncodeToString([]byte(h)) + "." + base64.RawURLEncoding.EncodeToString([]byte(good))
	refuse(t, keys, "ES256 with r = s = 0", text+"."+base64.RawURLEncoding.EncodeToString(make([]byte, 64)))
}

// SE-02
func TestKeySet_usesNothingOfTheHeaderButItsOwnKid(t *testing.T) {
	t.Parallel()
	keys, key := vectorKeys(t)
	var hits atomic.Int64
	listener := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer listener.Close()
	good := payload(t, nil)
	for _, kid := range []string{
		`"../../../../dev/null"`, `"/proc/self/environ"`, `"' OR 1=1--"`, `"a\r\nSET x y"`, `5`, `null`, `""`, `"unknown"`, `["` + vectorThumbprint + `"]`,
		`"` + strings.Repeat("a", 1<<20) + `"`, `"` + strings.ToUpper(vectorThumbprint) + `"`,
	} {
		refuse(t, keys, "kid "+kid[:min(len(kid), 40)], forge(key, fmt.Sprintf(`{"alg":"EdDSA","typ":"gatehouse-cookie+jwt","kid":%s}`, kid), good))
	}
	refuse(t, keys, "no kid", forge(key, `{"alg":"EdDSA","typ":"gatehouse-cookie+jwt"}`, good))
	for _, extra := range []string{
		`"jku":"` + listener.URL + `"`, `"x5u":"` + listener.URL + `"`, `"jwk":{"kty":"OKP","crv":"Ed25519","x":"` + vectorPublic + `"}`,
		`"x5c":["AAAA"]`, `"crit":["b64"]`, `"crit":["b64"],"b64":false`, `"b64":false`, `"crit":["x"],"x":1`, `"crit":[]`, `"cty":"JWT"`, `"zip":"DEF"`,
	} {
		refuse(t, keys, extra, forge(key, strings.TrimSuffix(header(vectorThumbprint), "}")+","+extra+"}", good))
	}
	if got := hits.Load(); got != 0 {
		t.Errorf("requests to the listener that the header named: got %d, want none", got)
	}
}

// SE-03
func TestKeySet_saysTheSameOfExpiredAndOfBadlySigned(t *testing.T) {
	t.Parallel()
	keys, key := vectorKeys(t)
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	late := start.Add(time.Hour)
	for name, raw := range map[string]string{
		"expired and well signed":  forge(key, header(vectorThumbprint), payload(t, nil)),
		"expired and badly signed": forge(other, header(vectorThumbprint), payload(t, nil)),
	} {
		got, err := keys.Verify(raw, token.CookieToken, issuer, origin, late)
		if !errors.Is(err, token.ErrInvalid) || got.Subject != "" {
			t.Errorf("%s: got %+v, %v, want no claims and ErrInvalid", name, got, err)
		}
	}
	refuse(t, keys, "good but badly signed", forge(other, header(vectorThumbprint), payload(t, nil)))
}

// SE-04
func TestKeySet_refusesBySizeAndShapeBeforeItSplits(t *testing.T) {
	t.Parallel()
	keys, _ := vectorKeys(t)
	part := strings.Repeat("a", 300<<10)
	raws := map[string]string{
		"a megabyte of dots": strings.Repeat(".", 1<<20), "10,000 dots": strings.Repeat(".", 10_000), "4,000 dots": strings.Repeat(".", 4000),
		"three long parts": part + "." + part + "." + part, "empty": "", "one dot": ".", "two dots": "..", "three dots": "...", "no dot": "abc",
	}
	for name, raw := range raws {
		refuse(t, keys, name, raw)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		for _, raw := range raws {
			_, _ = keys.Verify(raw, token.CookieToken, issuer, origin, start)
		}
	}
	runtime.ReadMemStats(&after)
	// Other tests run beside this one; a copy of the input would be a hundred times as much.
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("allocated while refusing: got %d bytes, want next to nothing", got)
	}
}

// SE-05
func TestKeySet_holdsTimesStrictly(t *testing.T) {
	t.Parallel()
	keys, key := vectorKeys(t)
	now := start.Unix()
	for name, change := range map[string]map[string]any{
		"expired a second ago":  {"iat": now - 200, "exp": now - 1},
		"expires now":           {"iat": now - 200, "exp": now},
		"no exp":                {"exp": nil},
		"exp as text":           {"exp": "9999999999"},
		"exp of 1e400":          {"exp": json.Number("1e400")},
		"exp as a fraction":     {"exp": json.Number(fmt.Sprintf("%d.5", now+10))},
		"negative exp":          {"exp": -1},
		"overflowing lifetime":  {"iat": int64(-9e18), "exp": int64(9e18)},
		"nbf in 10 minutes":     {"nbf": now + 600},
		"iat in the future":     {"iat": now + 60, "exp": now + 120},
		"no iat":                {"iat": nil},
		"iat of null":           {"iat": json.RawMessage("null")},
		"exp before iat":        {"iat": now + 20, "exp": now + 10},
		"lifetime over 5 min":   {"exp": now + 301},
		"lifetime of a decade":  {"exp": now + 315360000},
		"no auth_time":          {"auth_time": nil},
		"no session":            {"sid": nil},
		"no subject":            {"sub": nil},
		"no jti":                {"jti": nil},
		"subject as an object":  {"sub": map[string]any{}},
		"methods as one string": {"amr": "pwd"},
	} {
		refuse(t, keys, name, forge(key, header(vectorThumbprint), payload(t, change)))
	}
	for _, body := range []string{`null`, `[]`, `"x"`, `{`, ``, `{}`, payload(t, nil) + payload(t, nil)} {
		refuse(t, keys, "payload "+body, forge(key, header(vectorThumbprint), body))
	}
	for _, h := range []string{`null`, `[]`, `{`, ``, `{}`} {
		refuse(t, keys, "header "+h, forge(key, h, payload(t, nil)))
	}
}

// SE-06
func TestKeySet_keepsPurposesAudiencesAndIssuersApart(t *testing.T) {
	t.Parallel()
	keys, key := vectorKeys(t)
	purposes := []token.Purpose{token.CookieToken, token.BearerToken, token.Assertion}
	for _, made := range purposes {
		raw := sign(t, keys, made, claims())
		for _, asked := range purposes {
			if _, err := keys.Verify(raw, asked, issuer, origin, start); (err == nil) != (made == asked) {
				t.Errorf("%s presented as %s: got %v", made, asked, err)
			}
		}
	}
	for name, change := range map[string]map[string]any{
		"another app":            {"aud": "https://mail.example.com"},
		"a prefix of ours":       {"aud": origin + ".evil.example"},
		"other case":             {"aud": strings.ToUpper(origin)},
		"array":                  {"aud": []string{origin}},
		"superset":               {"aud": []string{origin, "https://mail.example.com"}},
		"empty":                  {"aud": ""},
		"empty array":            {"aud": []string{}},
		"missing":                {"aud": nil},
		"issuer of another door": {"iss": "https://login.staging.example.com"},
		"empty issuer":           {"iss": ""},
		"no issuer":              {"iss": nil},
	} {
		refuse(t, keys, name, forge(key, header(vectorThumbprint), payload(t, change)))
	}
	for _, typ := range []string{`"JWT"`, `"jwt"`, `""`, `null`, `"GATEHOUSE-COOKIE+JWT"`, `"application/gatehouse-cookie+jwt"`, `["gatehouse-cookie+jwt"]`, `"gatehouse-refresh+jwt"`} {
		refuse(t, keys, "typ "+typ, forge(key, fmt.Sprintf(`{"alg":"EdDSA","typ":%s,"kid":%q}`, typ, vectorThumbprint), payload(t, nil)))
	}
	raw := sign(t, keys, token.CookieToken, claims())
	for _, c := range [][2]string{{"", origin}, {issuer, ""}, {"", ""}} {
		if _, err := keys.Verify(raw, token.CookieToken, c[0], c[1], start); !errors.Is(err, token.ErrInvalid) {
			t.Errorf("verified without something to compare with: %v", err)
		}
	}
	other, err := token.NewKeySet(start)
	if err != nil {
		t.Fatal(err)
	}
	refuse(t, keys, "another store's key", sign(t, other, token.CookieToken, claims()))
}

// SE-17
func TestKeySet_acceptsOneSpellingOnly(t *testing.T) {
	t.Parallel()
	keys, _ := vectorKeys(t)
	raw := sign(t, keys, token.CookieToken, claims())
	parts := strings.Split(raw, ".")
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range raw {
		refuse(t, keys, fmt.Sprintf("cut at %d", i), raw[:i])
		if raw[i] != '.' {
			flipped := alphabet[(strings.IndexByte(alphabet, raw[i])+1)%64]
			refuse(t, keys, fmt.Sprintf("next letter at %d", i), raw[:i]+string(flipped)+raw[i+1:])
		}
	}
	for name, again := range map[string]string{
		"padded":             raw + "==",
		"padded header":      parts[0] + "=." + parts[1] + "." + parts[2],
		"line end":           raw + "\n",
		"line end inside":    raw[:20] + "\r\n" + raw[20:],
		"space before":       " " + raw,
		"quoted":             `"` + raw + `"`,
		"extended":           raw + "A",
		"fourth part":        raw + ".",
		"upper case":         strings.ToUpper(raw),
		"NUL":                raw + "\x00",
		"standard alphabet":  strings.NewReplacer("-", "+", "_", "/").Replace(raw) + "+",
		"percent-encoded":    strings.Replace(raw, ".", "%2E", 1),
		"unicode lookalikes": strings.Replace(raw, ".", "．", 1),
	} {
		refuse(t, keys, name, again)
	}
}

// CK-02: gateways whose clocks differ. A token from a clock that is ahead is accepted within the leeway and refused beyond.
func TestKeySet_allowsForClocksThatDiffer(t *testing.T) {
	t.Parallel()
	keys, _ := vectorKeys(t)
	for _, c := range []struct {
		name  string
		ahead time.Duration // of the signer's clock
		good  bool
	}{
		{"same clock", 0, true},
		{"30 s ahead", 30 * time.Second, true},
		{"31 s ahead", 31 * time.Second, false},
		{"80 s ahead", 80 * time.Second, false},
		{"30 s behind", -30 * time.Second, true},
		{"80 s behind", -80 * time.Second, true}, // only ends earlier
		{"5 min behind", -5 * time.Minute, false},
	} {
		made := claims()
		made.IssuedAt, made.ExpiresAt = start.Add(c.ahead), start.Add(c.ahead+5*time.Minute)
		_, err := keys.Verify(sign(t, keys, token.CookieToken, made), token.CookieToken, issuer, origin, start)
		if (err == nil) != c.good {
			t.Errorf("%s: got %v, want good %v", c.name, err, c.good)
		}
	}
}

func TestKeySet_signsNothingIncomplete(t *testing.T) {
	t.Parallel()
	keys, _ := vectorKeys(t)
	for name, change := range map[string]func(*token.Claims){
		"no id":         func(c *token.Claims) { c.ID = "" },
		"no issuer":     func(c *token.Claims) { c.Issuer = "" },
		"no audience":   func(c *token.Claims) { c.Audience = "" },
		"no subject":    func(c *token.Claims) { c.Subject = "" },
		"no session":    func(c *token.Claims) { c.SessionID = "" },
		"no auth time":  func(c *token.Claims) { c.AuthTime = time.Time{} },
		"no end":        func(c *token.Claims) { c.ExpiresAt = time.Time{} },
		"too long":      func(c *token.Claims) { c.ExpiresAt = start.Add(5*time.Minute + time.Second) },
		"ends at once":  func(c *token.Claims) { c.ExpiresAt = c.IssuedAt },
		"clock at 1970": func(c *token.Claims) { c.IssuedAt = time.Unix(1, 0); c.ExpiresAt = time.Unix(60, 0) },
		"clock too early": func(c *token.Claims) {
			c.IssuedAt = time.Unix(token.Earliest-1, 0)
			c.ExpiresAt = time.Unix(token.Earliest+60, 0)
		},
	} {
		c := claims()
		change(&c)
		if raw, err := keys.Sign(token.CookieToken, c); err == nil {
			t.Errorf("%s: got %s, want an error", name, raw)
		}
	}
}

func TestKeySet_publishesOnlyPublicParts(t *testing.T) {
	t.Parallel()
	keys, _ := vectorKeys(t)
	// RFC 8037, appendix A.2 and A.3.
	want := `{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"` + vectorThumbprint + `","x":"` + vectorPublic + `"}]}`
	if got := string(keys.JWKS()); got != want {
		t.Errorf("JWK set: got %s, want %s", got, want)
	}
	asJSON, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := base64.RawURLEncoding.DecodeString(vectorSeed)
	for _, text := range []string{string(asJSON), fmt.Sprint(keys), fmt.Sprintf("%+v %#v %x", keys, keys, keys)} {
		for _, secret := range []string{vectorSeed[:20], base64.StdEncoding.EncodeToString(seed)[:20], fmt.Sprintf("%x", seed)[:20], "seed"} {
			if strings.Contains(text, secret) {
				t.Errorf("printed key set holds a private key: %s", text)
			}
		}
	}
}

func TestParseKeySet_readsWhatMarshalWrote(t *testing.T) {
	t.Parallel()
	keys, err := token.NewKeySet(start)
	if err != nil {
		t.Fatal(err)
	}
	data, err := keys.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := token.ParseKeySet(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Verify(sign(t, keys, token.BearerToken, claims()), token.BearerToken, issuer, origin, start); err != nil {
		t.Errorf("token of the set before it was stored: %v", err)
	}
	for name, bad := range map[string]string{
		"empty": "", "null": "null", "no keys": `{"format":1,"active":"x","keys":[]}`, "another format": strings.Replace(string(data), `"format":1`, `"format":2`, 1),
		"active is not there": strings.Replace(string(data), `"active":"`, `"active":"x`, 1), "kid of another key": strings.Replace(string(data), `"kid":"`, `"kid":"x`, 1),
		"short seed": strings.Replace(string(data), `"seed":"`, `"seed":"AAAA`, 1),
	} {
		if _, err := token.ParseKeySet([]byte(bad)); !errors.Is(err, token.ErrKeySet) {
			t.Errorf("%s: got %v, want ErrKeySet", name, err)
		}
	}
}

func TestOurs_seesWhatClaimsToBeOurs(t *testing.T) {
	t.Parallel()
	keys, key := vectorKeys(t)
	raw := sign(t, keys, token.BearerToken, claims())
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	foreign := forge(key, `{"alg":"EdDSA","typ":"JWT","kid":"1"}`, `{"iss":"https://idp.example","aud":"x"}`)
	for name, c := range map[string]struct {
		raw  string
		want bool
	}{
		"ours":                    {raw, true},
		"ours, cut in the header": {raw[:strings.IndexByte(raw, '.')], true},
		"ours, without signature": {raw[:strings.LastIndexByte(raw, '.')], true},
		"ours, padded":            {raw + "==", true},
		"an assertion":            {sign(t, keys, token.Assertion, claims()), true},
		"our typ in other case":   {part(`{"TYP":"Gatehouse-Bearer+JWT"}`) + ".e30.x", true},
		"our typ, long form":      {part(`{"typ":"application/gatehouse-bearer+jwt"}`) + ".e30.x", true},
		"our iss, any typ":        {part(`{"typ":"JWT"}`) + "." + part(`{"iss":"`+issuer+`"}`) + ".x", true},
		"our iss, padded header":  {base64.URLEncoding.EncodeToString([]byte(`{"typ":"JWT" }`)) + "." + part(`{"iss":"`+issuer+`"}`), true},
		"too long to arrive":      {strings.Repeat("a", 65<<10), true},
		"of another issuer":       {foreign, false},
		"opaque":                  {"ghp_0123456789abcdefghijklmnopqrstuvwxyz", false},
		"empty":                   {"", false},
		"dots":                    {"..", false},
		"iss of another type":     {part(`{}`) + "." + part(`{"iss":["`+issuer+`"]}`) + ".x", false},
		"typ of another type":     {part(`{"typ":{}}`) + ".e30.x", false},
	} {
		if got := token.Ours(c.raw, issuer); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func FuzzKeySet_Verify(f *testing.F) {
	keys, err := token.NewKeySet(start)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := keys.Sign(token.CookieToken, claims())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw + "=")
	f.Add("..")
	f.Add("bnVsbA.bnVsbA.bnVsbA")
	f.Add("eyJhbGciOiJFZERTQSIsInR5cCI6ImdhdGVob3VzZS1jb29raWUrand0Iiwia2lkIjoiMSJ9.bnVsbA.")
	f.Fuzz(func(t *testing.T, candidate string) {
		_ = token.Ours(candidate, issuer)
		// The key is fresh in this process, so nothing but its own token can be good.
		if _, err := keys.Verify(candidate, token.CookieToken, issuer, origin, start); (err == nil) != (candidate == raw) {
			t.Errorf("%q: got %v", candidate, err)
		}
	})
}
