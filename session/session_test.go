package session_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/session"
	"gatehouse/session/token"
	"gatehouse/store"
)

func TestManager_aLoginIsGoodOnEveryGateway(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	c := h.signIn(t, one, alice)
	for name, g := range map[string]*gateway{"the gateway of the login": one, "the other": two} {
		p, err := authenticate(t, g, browser(c))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Name != "alice" || p.UserID != alice || p.Groups[0] != "staff" || p.SessionID != c.Principal.SessionID || p.Bearer {
			t.Errorf("%s: got %+v", name, p)
		}
		if !p.ExpiresAt.Equal(h.clock.Now().Add(24*time.Hour)) || !p.AuthTime.Equal(h.clock.Now()) {
			t.Errorf("%s: got end %v and login %v", name, p.ExpiresAt, p.AuthTime)
		}
	}
	if c.ExpiresIn != 5*time.Minute {
		t.Errorf("lifetime of the access token: got %v, want 5 min", c.ExpiresIn)
	}
}

func TestManager_aVerifiedTokenCostsNoLookAtTheStore(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	c := h.signIn(t, one, alice)
	one.line.operations()
	for range 10 {
		if _, err := authenticate(t, one, browser(c)); err != nil {
			t.Fatal(err)
		}
		if _, err := authenticate(t, two, browser(c)); err != nil {
			t.Fatal(err)
		}
	}
	if got := one.line.operations(); got != 0 {
		t.Errorf("operations at the gateway of the login: got %d, want none", got)
	}
	if got := two.line.operations(); got != 1 {
		t.Errorf("operations at the other gateway: got %d, want one read at first sight", got)
	}
}

// SE-14
func TestManager_setsCookiesThatNothingCanWeaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	r := withCookies(c.Cookies[1])
	r.Header.Set("X-Forwarded-Proto", "http")
	_, renewed, err := g.Renew(t.Context(), r, wiki)
	if err != nil {
		t.Fatal(err)
	}
	lifetimes := map[string]int{}
	cookies := append(append(append([]*http.Cookie{
		session.DeviceCookie("d"), session.LoginCookie("l"), session.ClearLoginCookie(),
		session.ClearDeviceCookie(),
	}, c.Cookies...), renewed...), session.ClearCookies()...)
	for _, cookie := range cookies {
		if !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" {
			t.Errorf("%s: got %s", cookie.Name, cookie)
		}
		if !strings.HasPrefix(cookie.Name, "__Host-gatehouse") || len(cookie.String()) > 1024 || cookie.Valid() != nil {
			t.Errorf("cookie is not as it should be: %s", cookie)
		}
		if cookie.Value != "" {
			lifetimes[cookie.Name] = cookie.MaxAge
		} else if cookie.MaxAge >= 0 {
			t.Errorf("cookie that clears: got Max-Age %d", cookie.MaxAge)
		}
	}
	want := fmt.Sprint(map[string]int{
		"__Host-gatehouse": 300, "__Host-gatehouse-session": 86400, "__Host-gatehouse-device": 180 * 86400, "__Host-gatehouse-login": 0,
	})
	if got := fmt.Sprint(lifetimes); got != want {
		t.Errorf("Max-Age: got %s, want %s", got, want)
	}
}

func TestManager_Prepare_isNothingYet(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	p, err := g.Prepare(t.Context(), h.grant(alice))
	if err != nil {
		t.Fatal(err)
	}
	if list, err := g.List(t.Context(), alice); err != nil || len(list) != 0 {
		t.Errorf("list: got %d sessions, %v, want none", len(list), err)
	}
	if _, err := g.Find(t.Context(), p.PublicID()); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("find: got %v, want ErrNoSession", err)
	}
	h.clock.move(time.Minute)
	_, err = g.Activate(t.Context(), p)
	wantErr(t, "activate after a minute", err, session.ErrNoSession)
	for name, change := range map[string]func(*session.Grant){
		"no user":      func(g *session.Grant) { g.Identity.UserID = "" },
		"bad user":     func(g *session.Grant) { g.Identity.UserID = strings.ToUpper(bob) },
		"no origin":    func(g *session.Grant) { g.Origin = "" },
		"no auth time": func(g *session.Grant) { g.AuthTime = time.Time{} },
	} {
		grant := h.grant(alice)
		change(&grant)
		if _, err := g.Prepare(t.Context(), grant); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestManager_Activate_readsTheAccountAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	p, err := g.Prepare(t.Context(), h.grant(alice))
	if err != nil {
		t.Fatal(err)
	}
	h.accounts.set(func() { h.accounts.disabled[alice] = true })
	_, err = g.Activate(t.Context(), p)
	wantErr(t, "activate for a disabled account", err, session.ErrNoSession)
	h.accounts.set(func() { h.accounts.disabled[alice] = false })
	_, err = g.Activate(t.Context(), p)
	if err == nil {
		t.Error("activate after an error: got a session, want none")
	}
}

func TestManager_Activate_leavesNothingWhenTheStoreFails(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	for _, operation := range []string{"get", "put", "list"} {
		p, err := g.Prepare(t.Context(), h.grant(alice))
		if err != nil {
			t.Fatal(err)
		}
		g.line.set(func() { g.line.fail[operation] = true })
		_, err = g.Activate(t.Context(), p)
		wantErr(t, operation+" fails", err, session.ErrUnavailable)
		g.line.set(func() { g.line.fail[operation] = false })
		if list, err := g.List(t.Context(), alice); err != nil || len(list) != 0 {
			t.Errorf("%s fails: got %d sessions, %v, want none", operation, len(list), err)
		}
	}
}

func TestManager_Activate_endsTheOldestBeyondTheLimit(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t, func(o *session.Options) { o.PerUser = 3 })
	var all []session.Credentials
	for range 5 {
		all = append(all, h.signIn(t, g, alice))
		h.clock.move(time.Second)
	}
	for i, c := range all {
		want := error(nil)
		if i < 2 {
			want = session.ErrNoSession
		}
		_, err := authenticate(t, g, browser(c))
		wantErr(t, fmt.Sprintf("session %d", i), err, want)
	}
	list, err := g.List(t.Context(), alice)
	if err != nil || len(list) != 3 || list[0].SessionID != all[4].Principal.SessionID {
		t.Errorf("list: got %d sessions, %v, want 3, the newest first", len(list), err)
	}
	if got := fmt.Sprint(g.recorder.causes()); got != "[session-limit session-limit]" {
		t.Errorf("recorded: got %s", got)
	}
}

// SE-12
func TestManager_Activate_endsTheSessionThatTheBrowserHad(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	planted := h.signIn(t, g, bob)
	grant := h.grant(alice)
	grant.FormerHandle = session.ReadHandle(browser(planted))
	p, err := g.Prepare(t.Context(), grant)
	if err != nil {
		t.Fatal(err)
	}
	g.recorder.set(errors.New("disk full"))
	_, err = g.Activate(t.Context(), p)
	wantErr(t, "the end of the former session cannot be recorded", err, session.ErrUnavailable)
	g.recorder.set(nil)
	if _, err := authenticate(t, g, browser(planted)); err != nil {
		t.Errorf("former session while its end could not be recorded: %v", err)
	}
	if p, err = g.Prepare(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	fresh, err := g.Activate(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	_, err = authenticate(t, g, browser(planted))
	wantErr(t, "former session", err, session.ErrNoSession)
	_, _, err = g.Renew(t.Context(), withCookies(planted.Cookies[1]), wiki)
	wantErr(t, "former handle", err, session.ErrNoSession)
	if got, err := authenticate(t, g, browser(fresh)); err != nil || got.Name != "alice" {
		t.Errorf("new session: got %+v, %v", got, err)
	}
	if got := fmt.Sprint(g.recorder.causes()); got != "[signed-in-again]" {
		t.Errorf("recorded: got %s", got)
	}
	// Junk in its place ends nothing and disturbs nothing.
	grant.FormerHandle = "junk"
	if p, err = g.Prepare(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Activate(t.Context(), p); err != nil {
		t.Errorf("login with a forged handle: %v", err)
	}
}

func TestManager_ListAndFind(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	list, err := g.List(t.Context(), alice)
	if err != nil || len(list) != 1 {
		t.Fatalf("list: got %d sessions, %v", len(list), err)
	}
	s := list[0]
	if s.ClientAddress != "192.0.2.1" || s.UserAgent != "test" || s.DeviceID != "device" || s.Origin != wiki || s.Name != "alice" {
		t.Errorf("list: got %+v", s)
	}
	found, err := g.Find(t.Context(), s.PublicID)
	if err != nil || found.SessionID != c.Principal.SessionID || found.UserID != alice {
		t.Errorf("find: got %+v, %v", found, err)
	}
	for _, id := range []string{"", "0000000000000000", c.Principal.SessionID, "../users"} {
		_, err := g.Find(t.Context(), id)
		if err == nil {
			t.Errorf("find %q: got a session", id)
		}
	}
	if list, err := g.List(t.Context(), "nobody"); err != nil || len(list) != 0 {
		t.Errorf("list of nobody: got %d, %v", len(list), err)
	}
	h.clock.move(time.Hour)
	if list, _ := g.List(t.Context(), alice); len(list) != 0 {
		t.Errorf("list after the idle limit: got %d sessions", len(list))
	}
}

// SE-18: ids and tokens are random from the first byte, and none of 100,000 comes twice.
func TestManager_idsAreRandom(t *testing.T) {
	t.Parallel()
	const n = 100_000
	seen := make(map[string]bool, n)
	var set [32][16]int
	h := newHouse(t)
	g := h.gateway(t, func(o *session.Options) { o.Records = discard{} })
	for range n {
		p, err := g.Prepare(t.Context(), h.grant(alice))
		if err != nil {
			t.Fatal(err)
		}
		id := session.SessionIDOf(p)
		if len(id) != 32 || seen[id] {
			t.Fatalf("id %q is too short or came twice", id)
		}
		seen[id] = true
		for i := range id {
			set[i][strings.IndexByte("0123456789abcdef", id[i])]++
		}
	}
	for i, digits := range set {
		for digit, count := range digits {
			// Expected n/16 = 6250 with a standard deviation of 77; ten of them never happen by chance.
			if count < 5480 || count > 7020 {
				t.Errorf("digit %d is %x %d times of %d", i, digit, count, n)
			}
		}
	}
}

// SE-18: what is stored signs nobody in.
func TestManager_storesNoCredential(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(h.dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("store files: got %d, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{c.AccessToken, c.Cookies[0].Value, c.Cookies[1].Value} {
			if strings.Contains(string(data), secret[len(secret)-30:]) {
				t.Errorf("%s holds a credential", filepath.Base(file))
			}
		}
	}
	// The id of a session, which is stored, is no handle and no token by itself.
	for _, value := range []string{c.Principal.SessionID, c.Principal.PublicID} {
		_, err := authenticate(t, g, request("Cookie", "__Host-gatehouse="+value+"; __Host-gatehouse-session="+value))
		wantErr(t, "an id as a credential", err, session.ErrNoSession)
	}
}

func TestNew_refusesOptionsThatContradict(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.gateway(t)
	for name, change := range map[string]func(*session.Options){
		"no records":      func(o *session.Options) { o.Records = nil },
		"no clock":        func(o *session.Options) { o.Now = nil },
		"short key":       func(o *session.Options) { o.HandleKey = o.HandleKey[:31] },
		"no issuer":       func(o *session.Options) { o.Issuer = "" },
		"long token":      func(o *session.Options) { o.AccessLifetime = token.MaxLifetime + time.Second },
		"idle over limit": func(o *session.Options) { o.Idle = 25 * time.Hour },
		"no sessions":     func(o *session.Options) { o.PerUser = -1 },
	} {
		o := session.Options{
			Records: g.line, Counters: g.line, Feed: g.line, Keys: h.keys, HandleKey: make([]byte, 32), Issuer: login, Accounts: h.accounts,
			Recorder: g.recorder, Now: h.clock.Now, Logger: discardLogger,
		}
		change(&o)
		if _, err := session.New(o); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// What somebody writes into the store as a session opens no door and ends no process.
func TestManager_refusesRecordsThatAreNone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.gateway(t)
	c := h.signIn(t, g, alice)
	for _, value := range []string{"", "null", "[]", "{", `{"live":true}`, `{"live":"yes"}`, `{"live":true,"expires":1e30}`} {
		if _, err := h.store.Put(t.Context(), store.SessionKey(alice, c.Principal.SessionID), []byte(value), version(t, h, c), time.Time{}); err != nil {
			t.Fatal(err)
		}
		if p, err := authenticate(t, g, browser(c)); err == nil {
			t.Errorf("record %q: got %+v", value, p)
		}
		if _, _, err := g.Renew(t.Context(), browser(c), wiki); err == nil {
			t.Errorf("record %q renewed", value)
		}
	}
}

func version(t *testing.T, h *house, c session.Credentials) uint64 {
	t.Helper()
	record, err := h.store.Get(t.Context(), store.SessionKey(alice, c.Principal.SessionID))
	if err != nil {
		t.Fatal(err)
	}
	return record.Version
}
