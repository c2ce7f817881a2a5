package gateway_test

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/store/storetest"
)

const (
	accessName = "__Host-gatehouse"
	handleName = "__Host-gatehouse-session"
	deviceName = "__Host-gatehouse-device"
	nonceName  = "__Host-gatehouse-login"
)

// twoApps is a login host and two apps of other names, the second one under a wildcard.
type twoApps struct {
	*gatewaytest.Gateway
	wiki, mail, secret string // origins
	app                *wiretest.Upstream
}

func newTwoApps(t *testing.T, more ...func(*gatewaytest.Options)) *twoApps {
	t.Helper()
	app := wiretest.NewUpstream(t)
	o := gatewaytest.Options{Configure: gatewaytest.Hosts(t, map[string]string{"wiki.localhost": app.URL, "*.mail.localhost": app.URL})}
	for _, change := range more {
		change(&o)
	}
	g := gatewaytest.Start(t, o)
	return &twoApps{Gateway: g, wiki: g.Host("wiki.localhost"), mail: g.Host("box.mail.localhost"), app: app}
}

// withAlice makes the account of the stories.
func (h *twoApps) withAlice() *twoApps {
	h.AddUser("alice")
	h.secret = h.Enrol("alice")
	return h
}

// signedIn is alice, signed in at the first app.
func (h *twoApps) signedIn(t *testing.T) *gatewaytest.Person {
	t.Helper()
	h.Clock.Add(time.Minute) // no code is used twice
	alice := h.NewPerson()
	arrives(t, alice.SignIn(h.Gateway, alice.Go(h.wiki+"/"), "alice", h.secret), h.wiki+"/")
	return alice
}

// arrives checks that a way ends at an address, with a page of the app.
func arrives(t *testing.T, way []gatewaytest.Hop, want string) {
	t.Helper()
	last := way[len(way)-1]
	if last.Address != want || last.StatusCode != http.StatusOK {
		t.Fatalf("got %d at %s, want the app at %s; the way: %v\n%.1000s", last.StatusCode, last.Address, want, addresses(way), last.Text)
	}
}

func addresses(way []gatewaytest.Hop) (all []string) {
	for _, hop := range way {
		all = append(all, hop.Address)
	}
	return all
}

// One login for apps on hosts of other names, and one logout for all of them.
func TestHandOff_oneLoginAndOneLogoutForAllHosts(t *testing.T) {
	t.Parallel()
	h := newTwoApps(t).withAlice()
	alice := h.NewPerson()
	way := alice.Go(h.wiki + "/page?a=b&c=%2F")
	login := way[len(way)-1]
	if !strings.HasPrefix(login.Address, h.URL+"/.gatehouse/login?next=") || !strings.Contains(login.Text, "wiki.localhost") {
		t.Fatalf("got %s:\n%s", login.Address, login.Text)
	}
	if policy := login.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "form-action 'self' "+h.wiki+";") {
		t.Errorf("the page's form may not lead to the app: %s", policy)
	}
	way = alice.SignIn(h.Gateway, way, "alice", h.secret)
	arrives(t, way, h.wiki+"/page?a=b&c=%2F")
	arrives(t, alice.Go(h.mail+"/"), h.mail+"/") // without a page of ours in between

	cookies, seen := alice.Cookies(), map[string]string{}
	for _, origin := range []string{h.URL, h.wiki, h.mail} {
		names := slices.Sorted(maps.Keys(cookies[origin]))
		if !slices.Equal(names, []string{accessName, deviceName, nonceName, handleName}) {
			t.Errorf("%s: cookies %v", origin, names)
		}
		for name, value := range cookies[origin] {
			if other := seen[value]; other != "" {
				t.Errorf("%s at %s is also a cookie of %s", name, origin, other)
			}
			seen[value] = origin
		}
		if who := alice.At(origin).Get("/.gatehouse/api/v1/session"); who.StatusCode != 200 || who.Field("username") != "alice" {
			t.Errorf("who am I at %s: %d %s", origin, who.StatusCode, who.Text)
		}
	}
	for _, one := range cookies { // the cookies of one host are worth nothing at another (SE-06)
		thief := h.NewPerson()
		for _, origin := range []string{h.URL, h.wiki, h.mail} {
			maps.Copy(thief.At(origin).Jar, one)
		}
		good := 0
		for _, origin := range []string{h.URL, h.wiki, h.mail} {
			if thief.At(origin).Get("/.gatehouse/api/v1/session").StatusCode == 200 {
				good++
			}
		}
		if good != 1 {
			t.Errorf("cookies of one host are good at %d", good)
		}
	}

	page := alice.At(h.mail).Get("/.gatehouse/logout")
	if strings.Contains(page.Text, `name="all"`) {
		t.Error("an app host offers to end sessions of other browsers")
	}
	out := alice.At(h.mail).PostForm("/.gatehouse/logout", url.Values{"form_token": {gatewaytest.FormToken(t, page.Text)}, "all": {"yes"}})
	if out.StatusCode != 200 || out.Header.Get("Clear-Site-Data") != "" || !strings.Contains(out.Text, h.URL+"/.gatehouse/login") {
		t.Errorf("logout: %d %v\n%s", out.StatusCode, out.Header, out.Text)
	}
	if jar := alice.At(h.mail).Jar; len(jar) != 0 {
		t.Errorf("the app host keeps %v", jar)
	}
	for origin, jar := range cookies { // SE-07: what was handed out before is dead, on each host, at once
		thief := h.NewPerson()
		maps.Copy(thief.At(origin).Jar, jar)
		if who := thief.At(origin).Get("/.gatehouse/api/v1/session"); who.StatusCode != 401 {
			t.Errorf("after the logout elsewhere, %s: %d", origin, who.StatusCode)
		}
	}
	way = alice.Go(h.wiki + "/")
	if last := way[len(way)-1]; !strings.HasPrefix(last.Address, h.URL+"/.gatehouse/login") || !strings.Contains(last.Text, `name="password"`) {
		t.Errorf("after the logout: %v", addresses(way))
	}
}

// codeHop stops a hand-off at the moment at which the browser was told a code, and returns its address.
func codeHop(t *testing.T, p *gatewaytest.Person, address string) string {
	t.Helper()
	for range 6 {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		to := p.At(u.Scheme + "://" + u.Host).Get(address).Header.Get("Location")
		if strings.Contains(to, "code=") {
			return to
		}
		if address = to; !strings.HasPrefix(to, "http") {
			t.Fatalf("no hand-off: sent to %q", to)
		}
	}
	t.Fatal("no code")
	return ""
}

// An attacker keeps a code of their own session back and plants it in somebody's browser: nothing happens there, whether that browser has a
// nonce, a session, or nothing. It stays good for its own browser, once.
func TestHandOff_plantedCodeDoesNothing(t *testing.T) {
	t.Parallel()
	h := newTwoApps(t).withAlice()
	h.AddUser("mallory")
	secret := h.Enrol("mallory")
	mallory := h.NewPerson()
	arrives(t, mallory.SignIn(h.Gateway, mallory.Go(h.wiki+"/"), "mallory", secret), h.wiki+"/")
	alice := h.signedIn(t)
	code := codeHop(t, mallory, h.mail+"/box")
	if !strings.HasPrefix(code, h.mail+"/.gatehouse/handoff?") {
		t.Fatalf("the code went to %s", code)
	}

	stranger := h.NewPerson()
	for _, with := range []string{"no nonce", "a nonce"} {
		way := stranger.Go(code)
		if last := way[len(way)-1]; !strings.Contains(last.Text, `name="password"`) || stranger.At(h.mail).Jar[accessName] != "" {
			t.Errorf("a browser with %s: %v, %v", with, addresses(way), stranger.At(h.mail).Jar)
		}
		h.Clock.Add(25 * time.Second)
	}
	arrives(t, alice.Go(code), h.mail+"/box") // by her own session
	if who := alice.At(h.mail).Get("/.gatehouse/api/v1/session").Field("username"); who != "alice" {
		t.Errorf("somebody who is signed in became %q", who)
	}
	arrives(t, mallory.Go(code), h.mail+"/box")
	if who := mallory.At(h.mail).Get("/.gatehouse/api/v1/session").Field("username"); who != "mallory" {
		t.Errorf("in its own browser: %q", who)
	}
	for _, name := range []string{accessName, handleName} {
		delete(mallory.At(h.mail).Jar, name)
	}
	if answer := mallory.At(h.mail).Get(code); slices.ContainsFunc(answer.Cookies(), func(c *http.Cookie) bool { return c.Name == accessName }) {
		t.Error("a code was good twice")
	}
	// A nonce of the attacker's makes no code that the attacker could use: the answer goes to the browser that asked.
	hash := strings.Repeat("ab", 32)
	answer := alice.At(h.URL).Get("/.gatehouse/login?nonce=" + hash + "&next=" + url.QueryEscape(h.mail+"/"))
	if to := answer.Header.Get("Location"); !strings.HasPrefix(to, h.mail+"/.gatehouse/handoff?code=") {
		t.Fatalf("got %d to %q", answer.StatusCode, to)
	} else if planted := alice.Go(to); !strings.HasPrefix(planted[len(planted)-1].Address, h.mail+"/") {
		t.Errorf("ended at %v", addresses(planted))
	}
}

// A code lives for 60 seconds, and the nonce changes with the session.
func TestHandOff_codeEndsAfterAMinute(t *testing.T) {
	t.Parallel()
	h := newTwoApps(t).withAlice()
	alice := h.signedIn(t)
	before := alice.At(h.wiki).Jar[nonceName]
	code := codeHop(t, alice, h.mail+"/box")
	h.Clock.Add(61 * time.Second)
	answer := alice.At(h.mail).Get(code)
	if answer.StatusCode != http.StatusSeeOther || !strings.HasPrefix(answer.Header.Get("Location"), h.URL+"/.gatehouse/login?") {
		t.Errorf("a code after 61 s: %d to %s", answer.StatusCode, answer.Header.Get("Location"))
	}
	arrives(t, alice.Follow(code, answer), h.mail+"/box")
	nonce := alice.At(h.mail).Jar[nonceName]
	if nonce == before || nonce == "" {
		t.Error("the nonce did not change with the session")
	}
}

// SE-12: whoever plants a session of theirs at an app host finds it ended when the browser is handed over.
func TestHandOff_endsAPlantedSession(t *testing.T) {
	t.Parallel()
	h := newTwoApps(t).withAlice()
	h.AddUser("mallory")
	secret := h.Enrol("mallory")
	mallory := h.NewPerson()
	arrives(t, mallory.SignIn(h.Gateway, mallory.Go(h.mail+"/"), "mallory", secret), h.mail+"/")
	alice := h.signedIn(t)
	maps.Copy(alice.At(h.mail).Jar, mallory.At(h.mail).Jar)
	arrives(t, alice.Go(h.mail+"/.gatehouse/handoff"), h.mail+"/")
	if who := alice.At(h.mail).Get("/.gatehouse/api/v1/session").Field("username"); who != "alice" {
		t.Errorf("signed in as %q", who)
	}
	if status := mallory.At(h.mail).Get("/.gatehouse/api/v1/session").StatusCode; status != 401 {
		t.Errorf("the planted session: %d", status)
	}
	ended := slices.ContainsFunc(h.Records(), func(r audit.Record) bool {
		return r.Kind == audit.KindSessionRevoked && r.Subject.Name == "mallory" && r.Details["cause"] == "signed-in-again"
	})
	if !ended {
		t.Error("no record of it")
	}
}

// Handles rotate on each host by itself, the device cookie of that host tells its browser from a copy, and renewal goes on for as long as
// somebody works.
func TestHandOff_renewsOnEachHost(t *testing.T) {
	t.Parallel()
	h := newTwoApps(t).withAlice()
	alice := h.signedIn(t)
	arrives(t, alice.Go(h.mail+"/"), h.mail+"/")
	for range 3 {
		h.Clock.Add(6 * time.Minute) // the access token has expired
		for _, origin := range []string{h.wiki, h.mail} {
			b := alice.At(origin)
			old := b.Jar[handleName]
			if answer := b.Get("/"); answer.StatusCode != 200 || b.Jar[handleName] == old {
				t.Fatalf("%s: %d, handle rotated: %v", origin, answer.StatusCode, b.Jar[handleName] != old)
			}
		}
	}
	h.Clock.Add(6 * time.Minute)
	late := alice.At(h.mail).Copy() // a tab whose answer was lost
	alice.At(h.mail).Get("/")
	if answer := late.Get("/"); answer.StatusCode != 200 {
		t.Errorf("a second tab: %d", answer.StatusCode)
	}
	h.Clock.Add(6 * time.Minute)
	thief := alice.At(h.mail).Copy()
	thief.Jar[deviceName] = alice.At(h.wiki).Jar[deviceName] // of another host: no proof here
	alice.At(h.mail).Get("/")
	if answer := thief.Get("/"); answer.StatusCode == 200 {
		t.Error("a copy without the device cookie of the host was renewed")
	}
	if !slices.ContainsFunc(h.Records(), func(r audit.Record) bool { return r.Kind == audit.KindHandleTheft }) {
		t.Error("no record of the theft")
	}
}

// The renewal route gives a fresh token and handle, shows that they were kept, and goes back; a browser that keeps none is told so once.
func TestRenewal_neverGoesInACircle(t *testing.T) {
	t.Parallel()
	h := newTwoApps(t).withAlice()
	alice := h.signedIn(t)
	h.Clock.Add(30 * time.Minute)
	old := maps.Clone(alice.At(h.wiki).Jar)
	way := alice.Go(h.wiki + "/.gatehouse/renew?next=%2Fa%3Fb%3Dc")
	arrives(t, way, h.wiki+"/a?b=c")
	if now := alice.At(h.wiki).Jar; len(way) != 3 || now[accessName] == old[accessName] || now[handleName] == old[handleName] {
		t.Errorf("renewed over %v", addresses(way))
	}
	h.Clock.Add(10 * time.Minute)
	arrives(t, alice.Go(h.wiki+"/.gatehouse/renew?next=/x&bounced="+"tlo2rd"), h.wiki+"/x") // an address that somebody kept
	way = h.NewPerson().Go(h.wiki + "/.gatehouse/renew?next=/a")
	if last := way[len(way)-1]; last.Address != h.URL+"/.gatehouse/login?next="+url.QueryEscape(h.wiki+"/a") {
		t.Errorf("somebody who is not signed in: %v", addresses(way))
	}
	// A front proxy takes Set-Cookie away: the browser has the old cookies for ever.
	h.Clock.Add(6 * time.Minute)
	kept := maps.Clone(alice.At(h.wiki).Jar)
	answer := alice.At(h.wiki).Get("/.gatehouse/renew?next=/a")
	to := answer.Header.Get("Location")
	h.Clock.Add(time.Second)
	alice.At(h.wiki).Jar = map[string]string{}
	if answer := alice.At(h.wiki).Get(to); answer.StatusCode != http.StatusBadRequest || !strings.Contains(answer.Text, "/.gatehouse/") && !strings.Contains(answer.Text, "proxy_set_header Cookie") {
		t.Errorf("no cookies: %d\n%s", answer.StatusCode, answer.Text)
	}
	alice.At(h.wiki).Jar = kept
	for _, payload := range []string{"https://evil.test/", "//evil.test", h.mail + "/", h.URL + "/.gatehouse/login", "/\\evil.test"} {
		answer := alice.At(h.wiki).Get("/.gatehouse/renew?next=" + url.QueryEscape(payload))
		if to := answer.Header.Get("Location"); !strings.HasPrefix(to, h.wiki+"/.gatehouse/renew?bounced=") {
			t.Errorf("%s: sent to %s", payload, to)
		}
	}
}

// Ten tabs that are opened at once after a login all arrive, in whatever order the answers come.
func TestHandOff_tabsAtOnce(t *testing.T) {
	t.Parallel()
	h := newTwoApps(t).withAlice()
	alice := h.signedIn(t)
	const tabs = 10
	at := make([]string, tabs)
	for i := range at {
		at[i] = h.mail + "/tab"
	}
	for range 8 { // each round, each tab gets one answer
		for i := range at {
			u, err := url.Parse(at[i])
			if err != nil {
				t.Fatal(err)
			}
			answer := alice.At(u.Scheme + "://" + u.Host).Get(at[i])
			switch {
			case answer.StatusCode/100 == 3:
				at[i] = answer.Header.Get("Location")
			case answer.StatusCode != 200 || at[i] != h.mail+"/tab":
				t.Fatalf("tab %d: %d at %s\n%s", i, answer.StatusCode, at[i], answer.Text)
			}
		}
	}
	h.Clock.Add(6 * time.Minute)
	arrives(t, alice.Go(h.mail+"/"), h.mail+"/")
}

// Two gateways on one Redis are one: each step of the way goes to the other one.
func TestHandOff_overTwoGateways(t *testing.T) {
	t.Parallel()
	redis, key, app := storetest.Redis(t).URL(), gatewaytest.RootKey(), wiretest.NewUpstream(t)
	share := func(o *gatewaytest.Options) {
		configure := gatewaytest.Hosts(t, map[string]string{"wiki.localhost": app.URL, "*.mail.localhost": app.URL})
		o.Redis, o.RootKey, o.Configure = redis, key, configure
	}
	one := newTwoApps(t, share).withAlice()
	two := newTwoApps(t, share, func(o *gatewaytest.Options) {
		configure := o.Configure
		o.Clock = one.Clock
		o.Configure = func(c *configs.Config) {
			configure(c)
			if err := c.ExternalURL.UnmarshalText([]byte(one.URL)); err != nil {
				t.Fatal(err)
			}
		}
	})
	alice := one.NewPerson()
	gateways, turn := []*gatewaytest.Gateway{one.Gateway, two.Gateway}, 0
	hop := func(address string) (gatewaytest.Answer, string) {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		turn++
		answer := alice.At(u.Scheme + "://" + u.Host).Through(gateways[turn%2]).Get(address)
		return answer, answer.Header.Get("Location")
	}
	one.Clock.Add(time.Minute)
	arrives(t, alice.SignIn(one.Gateway, alice.Go(one.wiki+"/"), "alice", one.secret), one.wiki+"/")
	for address, hops := one.mail+"/box", 0; ; hops++ {
		answer, to := hop(address)
		if answer.StatusCode == 200 && address == one.mail+"/box" {
			break
		}
		if hops > 8 || to == "" {
			t.Fatalf("got %d at %s\n%s", answer.StatusCode, address, answer.Text)
		}
		address = to
	}
	for i, g := range gateways {
		if status := alice.At(one.mail).Through(g).Get("/.gatehouse/api/v1/session").StatusCode; status != 200 {
			t.Errorf("gateway %d: %d", i, status)
		}
	}
	if answer := alice.At(one.wiki).Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil); answer.StatusCode != http.StatusNoContent {
		t.Fatalf("logout: %d %s", answer.StatusCode, answer.Text)
	}
	deadline := time.Now().Add(storetest.Within(time.Second))
	for i, g := range gateways { // SE-07
		for alice.At(one.mail).Through(g).Get("/.gatehouse/api/v1/session").StatusCode != 401 {
			if time.Now().After(deadline) {
				t.Fatalf("gateway %d: still signed in", i)
			}
		}
	}
}
