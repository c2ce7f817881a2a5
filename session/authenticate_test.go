package session_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/session"
	"gatehouse/session/token"
	"gatehouse/store"
)

// SE-06: what is good in one place is good in no other.
func TestManager_keepsCredentialsInTheirPlace(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	p, err := authenticate(t, g, browser(c)) // now its tokens are remembered, too: the cache must not mix places either
	if err != nil {
		t.Fatal(err)
	}
	assertion, err := g.Assertion(p, wiki)
	if err != nil {
		t.Fatal(err)
	}
	loginAssertion, err := g.Assertion(p, login)
	if err != nil {
		t.Fatal(err)
	}
	access, handle := c.Cookies[0].Value, c.Cookies[1].Value
	for name, r := range map[string]*http.Request{
		"bearer token in the cookie": request("Cookie", "__Host-gatehouse="+c.AccessToken),
		"assertion in the cookie":    request("Cookie", "__Host-gatehouse="+assertion),
		"handle in the cookie":       request("Cookie", "__Host-gatehouse="+handle),
		"access token as handle":     request("Cookie", "__Host-gatehouse-session="+access),
		"access token as device":     request("Cookie", "__Host-gatehouse-device="+access),
		"name in other case":         request("Cookie", "__host-gatehouse="+access),
		"quoted":                     request("Cookie", `__Host-gatehouse="`+access+`"`),
		"percent-encoded":            request("Cookie", "__Host-gatehouse="+strings.ReplaceAll(access, ".", "%2E")),
		"empty":                      request("Cookie", "__Host-gatehouse="),
		"nothing":                    request(),
	} {
		_, err := authenticate(t, g, r)
		wantErr(t, name, err, session.ErrNoSession)
	}
	for name, value := range map[string]string{
		"cookie token":                   "Bearer " + access,
		"assertion":                      "Bearer " + assertion,
		"assertion for the login host":   "Bearer " + loginAssertion,
		"another scheme":                 "Token " + c.AccessToken,
		"no scheme":                      c.AccessToken,
		"two tokens":                     "Bearer " + c.AccessToken + ", Bearer x",
		"quoted ":                        `Bearer "` + c.AccessToken + `"`,
		"cut":                            "Bearer " + c.AccessToken[:len(c.AccessToken)-1],
		"without signature":              "Bearer " + c.AccessToken[:strings.LastIndexByte(c.AccessToken, '.')],
		"as a parameter":                 "Custom token=" + c.AccessToken,
		"another token before":           "Bearer x " + c.AccessToken,
		"tab":                            "Bearer\t" + c.AccessToken,
		"not ours by signature, our typ": "Bearer eyJ0eXAiOiJnYXRlaG91c2UtYmVhcmVyK2p3dCJ9.e30.AA",
	} {
		// The good cookies beside it do not help: a token of ours in Authorization decides alone.
		r := browser(c)
		r.Header.Set("Authorization", value)
		_, err := authenticate(t, g, r)
		wantErr(t, name, err, session.ErrBadBearer)
		if errors.Is(err, session.ErrNoSession) {
			t.Errorf("%s: error is also ErrNoSession, which leads to the login page", name)
		}
	}
	for _, origin := range []string{login, "https://WIKI.example.com", "http://wiki.example.com", "https://wiki.example.com:8443", ""} {
		_, err := g.Authenticate(t.Context(), browser(c), origin)
		wantErr(t, "cookies of another host at "+origin, err, session.ErrNoSession)
		_, _, err = g.Renew(t.Context(), browser(c), origin)
		wantErr(t, "handle of another host at "+origin, err, session.ErrNoSession)
	}
}

func TestManager_Authenticate_takesBearerTokensOnEveryHost(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	for _, origin := range []string{wiki, login, "https://mail.example.com"} {
		for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
			p, err := g.Authenticate(t.Context(), request("Authorization", scheme+c.AccessToken), origin)
			if err != nil || p.Name != "alice" || !p.Bearer {
				t.Errorf("%sat %s: got %+v, %v", scheme, origin, p, err)
			}
		}
	}
	h.clock.move(5 * time.Minute)
	_, err := g.Authenticate(t.Context(), request("Authorization", "Bearer "+c.AccessToken), wiki)
	wantErr(t, "expired", err, session.ErrBadBearer)
}

func TestManager_Authenticate_leavesTheAppsAuthorizationAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	for _, value := range []string{"Basic YTpi", "Bearer ghp_0123456789", "Bearer eyJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIn0.AA", "Negotiate abc==", "", "x"} {
		r := browser(c)
		r.Header.Set("Authorization", value)
		if p, err := authenticate(t, g, r); err != nil || p.Name != "alice" {
			t.Errorf("%q beside good cookies: got %v", value, err)
		}
		r = request("Authorization", value)
		_, err := authenticate(t, g, r)
		wantErr(t, value+" alone", err, session.ErrNoSession)
	}
	r := browser(c)
	r.Header["Authorization"] = []string{"Basic YTpi", "Basic YTpi"}
	_, err := authenticate(t, g, r)
	wantErr(t, "two Authorization lines", err, session.ErrBadRequest)
}

func TestManager_Authenticate_refusesDuplicatesAndFloods(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	line := browser(c).Header.Get("Cookie")
	for _, name := range []string{"__Host-gatehouse", "__Host-gatehouse-session", "__Host-gatehouse-device", "__Host-gatehouse-login"} {
		for form, r := range map[string]*http.Request{
			"one line":  request("Cookie", name+"=a; "+name+"=a"),
			"two lines": request("Cookie", name+"=a", "Cookie", name+"=b"),
			"no value":  request("Cookie", name+"=a; "+name),
			"spaces":    request("Cookie", name+"=a;\t "+name+" =a"),
		} {
			for _, err := range []error{session.CheckCookies(r), second(authenticate(t, g, r)), renewErr(t, g, r)} {
				wantErr(t, name+" twice, "+form, err, session.ErrDuplicate)
				wantErr(t, name+" twice, "+form, err, session.ErrBadRequest)
			}
			if got := session.ReadDevice(r) + session.ReadLogin(r) + session.ReadHandle(r); got != "" {
				t.Errorf("%s twice, %s: read %q", name, form, got)
			}
		}
	}
	_, err := authenticate(t, g, request("Cookie", line+strings.Repeat("; a=b", 990)))
	wantErr(t, "992 cookies", err, nil)
	for name, flood := range map[string]string{"pairs": strings.Repeat("; a=b", 1000), "separators": strings.Repeat(";", 1000)} {
		_, err = authenticate(t, g, request("Cookie", line+flood))
		wantErr(t, "too many "+name, err, session.ErrBadRequest)
	}
	for name, value := range map[string]string{"a megabyte of dots": strings.Repeat(".", 1<<20), "9 kB": strings.Repeat("a", 9<<10)} {
		_, err = authenticate(t, g, request("Cookie", "__Host-gatehouse="+value))
		wantErr(t, name, err, session.ErrNoSession)
	}
}

func second[T any](_ T, err error) error { return err }

func renewErr(t *testing.T, g *gateway, r *http.Request) error {
	t.Helper()
	_, _, err := g.Renew(t.Context(), r, wiki)
	return err
}

// SE-03: an expired token, well or badly signed, is worth as much as none: the handle decides.
func TestManager_Authenticate_asksForRenewalByTheHandleAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	access, handle := c.Cookies[0].Value, "__Host-gatehouse-session="+c.Cookies[1].Value
	h.clock.move(5 * time.Minute)
	for name, cookie := range map[string]string{
		"expired": "__Host-gatehouse=" + access, "expired and badly signed": "__Host-gatehouse=" + access[:len(access)-2] + "AA",
		"junk": "__Host-gatehouse=junk", "empty": "__Host-gatehouse=", "another cookie": "a=b",
	} {
		_, err := authenticate(t, g, request("Cookie", cookie+"; "+handle))
		wantErr(t, name+" with a handle", err, session.ErrExpired)
		_, err = authenticate(t, g, request("Cookie", cookie))
		wantErr(t, name+" without a handle", err, session.ErrNoSession)
		_, _, err = g.Renew(t.Context(), request("Cookie", cookie), wiki)
		wantErr(t, name+" renewed without a handle", err, session.ErrNoSession)
	}
}

// SE-17 for handles: no other spelling is good, and none that is not costs a look at the store.
func TestManager_forgedHandle(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	other := h.gateway(t, func(o *session.Options) { o.HandleKey = []byte("another handle key of 32 bytes!!") })
	c := h.signIn(t, g, alice)
	foreign := h.signIn(t, other, alice)
	good := c.Cookies[1].Value
	g.line.operations()
	refuse := func(name, value string) {
		t.Helper()
		r := request("Cookie", "__Host-gatehouse-session="+value)
		wantErr(t, name+" authenticated", second(authenticate(t, g, r)), session.ErrNoSession)
		wantErr(t, name+" renewed", renewErr(t, g, r), session.ErrNoSession)
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range good {
		refuse(fmt.Sprintf("cut at %d", i), good[:i])
		for _, step := range []int{1, 32} {
			flipped := alphabet[(strings.IndexByte(alphabet, good[i])+step)%64]
			refuse(fmt.Sprintf("flipped at %d", i), good[:i]+string(flipped)+good[i+1:])
		}
	}
	refuse("padded", good+"==")
	refuse("extended", good+"A")
	refuse("quoted", `"`+good+`"`)
	refuse("other case", strings.ToUpper(good))
	refuse("of another key", foreign.Cookies[1].Value)
	refuse("zeros", strings.Repeat("A", len(good)))
	refuse("1 MB", strings.Repeat("A", 1<<20))
	if got := g.line.operations(); got != 0 {
		t.Errorf("operations for forged handles: got %d, want none", got)
	}
	if _, _, err := g.Renew(t.Context(), request("Cookie", "__Host-gatehouse-session="+good), wiki); err != nil {
		t.Errorf("the handle itself: %v", err)
	}
}

func TestManager_Authenticate_outOfStepReadsEachTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.gateway(t), h.gateway(t) // neither follows the feed
	c := h.signIn(t, one, alice)
	for range 3 {
		if _, err := authenticate(t, two, browser(c)); err != nil {
			t.Fatal(err)
		}
	}
	if got := two.line.operations(); got != 3 {
		t.Errorf("reads: got %d, want 3", got)
	}
	if err := one.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
		t.Fatal(err)
	}
	_, err := authenticate(t, two, browser(c))
	wantErr(t, "revoked at a gateway that this one does not hear", err, session.ErrNoSession)
}

func TestManager_goesOnWithWhatItVerifiedWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	seen, unseen := h.signIn(t, one, alice), h.signIn(t, one, bob)
	if _, err := authenticate(t, two, browser(seen)); err != nil {
		t.Fatal(err)
	}
	two.line.set(func() { two.line.cut = true })
	eventually(t, "readiness to say so", func() bool { return !two.InStep() })
	if _, err := authenticate(t, two, browser(seen)); err != nil {
		t.Errorf("verified before: %v", err)
	}
	wantErr(t, "never seen", second(authenticate(t, two, browser(unseen))), session.ErrUnavailable)
	wantErr(t, "renewal", renewErr(t, two, browser(seen)), session.ErrUnavailable)
	wantErr(t, "logout", two.Revoke(t.Context(), alice, seen.Principal.SessionID, logout), session.ErrUnavailable)
	_, err := two.Prepare(t.Context(), h.grant(alice))
	wantErr(t, "login", err, session.ErrUnavailable)
	h.clock.move(5*time.Minute - time.Second)
	if _, err := authenticate(t, two, browser(seen)); err != nil {
		t.Errorf("a second before its end: %v", err)
	}
	h.clock.move(time.Second)
	wantErr(t, "at its end", second(authenticate(t, two, browser(seen))), session.ErrExpired)
	wantErr(t, "renewal after its end", renewErr(t, two, browser(seen)), session.ErrUnavailable)

	two.line.set(func() { two.line.cut = false })
	eventually(t, "the gateway to heal by itself", two.InStep)
	for _, c := range []session.Credentials{seen, unseen} {
		if _, _, err := two.Renew(t.Context(), browser(c), wiki); err != nil {
			t.Errorf("renewal after the outage: %v", err)
		}
	}
}

// The bound of design.md, section 4, when a clock is set back: no token is good for longer than its lifetime from now.
func TestManager_believesNoTokenFromTheFuture(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	h.clock.move(-2 * time.Hour)
	wantErr(t, "remembered token of two hours ahead", second(authenticate(t, g, browser(c))), session.ErrExpired)
	if _, cookies, err := g.Renew(t.Context(), browser(c), wiki); err != nil {
		t.Errorf("renewal: %v", err)
	} else if _, err := authenticate(t, g, withCookies(cookies...)); err != nil {
		t.Errorf("renewed token: %v", err)
	}
}

func TestManager_Assertion_isKeptForSessionAndOrigin(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	get := func(r *http.Request, origin string) string {
		t.Helper()
		p, err := authenticate(t, g, r)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := g.Assertion(p, origin)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	first := get(browser(c), wiki)
	if get(browser(c), wiki) != first {
		t.Error("second request: got another assertion")
	}
	if get(browser(c), login) == first || get(browser(c), wiki) != first {
		t.Error("another origin: assertions are mixed up")
	}
	claims, err := h.keys.Verify(first, token.Assertion, login, wiki, h.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if claims.Subject != alice || claims.Name != "alice" || claims.DisplayName != "Alice Liddell" || claims.Email != "alice@example.com" ||
		claims.Groups[0] != "staff" || claims.SessionID != c.Principal.PublicID || claims.Methods[1] != "otp" {
		t.Errorf("assertion says %+v", claims)
	}
	h.clock.move(4 * time.Minute)
	if get(browser(c), wiki) == first {
		t.Error("a minute before its end: got the old assertion")
	}
	// A renewal that reads other groups is followed by an assertion that says so.
	h.accounts.set(func() {
		identity := h.accounts.identity[alice]
		identity.Groups = []string{"guests"}
		h.accounts.identity[alice] = identity
	})
	_, cookies, err := g.Renew(t.Context(), browser(c), wiki)
	if err != nil {
		t.Fatal(err)
	}
	claims, err = h.keys.Verify(get(withCookies(cookies...), wiki), token.Assertion, login, wiki, h.clock.Now())
	if err != nil || claims.Groups[0] != "guests" {
		t.Errorf("after the renewal: got %+v, %v", claims, err)
	}
}

func TestManager_refusesWhatWasRevokedWhileItWasRead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	c := h.signIn(t, one, alice)
	// Between the read of the live record at one gateway and what it does next, the other ends the session.
	two.line.set(func() {
		two.line.afterGet = func(store.Key) {
			if err := one.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
				t.Error(err)
			}
		}
	})
	_, _ = authenticate(t, two, browser(c)) // may still be good: it was when it was read
	eventually(t, "the revocation", func() bool {
		_, err := authenticate(t, two, browser(c))
		return errors.Is(err, session.ErrNoSession)
	})
	// A renewal under way does not bring it back.
	c = h.signIn(t, one, alice)
	h.clock.move(2 * time.Minute) // so that the renewal writes
	deaf := h.gateway(t)          // does not follow the feed: only the store can tell it
	deaf.line.set(func() {
		deaf.line.afterGet = func(store.Key) {
			if err := one.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
				t.Error(err)
			}
		}
	})
	wantErr(t, "renewal under way", renewErr(t, deaf, browser(c)), session.ErrNoSession)
	if list, err := two.List(t.Context(), alice); err != nil || len(list) != 0 {
		t.Errorf("sessions: got %d, %v, want none", len(list), err)
	}
}
