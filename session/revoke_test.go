package session_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/session"
	"gatehouse/store"
	"gatehouse/store/storetest"
)

// gone reports whether a session is refused at a gateway.
func gone(t *testing.T, g *gateway, c session.Credentials) func() bool {
	return func() bool {
		_, err := authenticate(t, g, browser(c))
		return errors.Is(err, session.ErrNoSession)
	}
}

func TestManager_Revoke_endsEverywhereWithinASecond(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	c := h.signIn(t, one, alice)
	if _, err := authenticate(t, two, browser(c)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := one.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
		t.Fatal(err)
	}
	if !gone(t, one, c)() {
		t.Error("here: still good when Revoke returned")
	}
	eventually(t, "the revocation to arrive", gone(t, two, c))
	if took := time.Since(began); took > storetest.Within(time.Second) {
		t.Errorf("there: took %v", took)
	}
	for name, g := range map[string]*gateway{"here": one, "there": two, "at a gateway that starts later": h.running(t)} {
		wantErr(t, "access token "+name, second(authenticate(t, g, browser(c))), session.ErrNoSession)
		wantErr(t, "handle "+name, renewErr(t, g, withCookies(c.Cookies[1])), session.ErrNoSession)
		_, err := authenticate(t, g, request("Authorization", "Bearer "+c.AccessToken))
		wantErr(t, "bearer token "+name, err, session.ErrBadBearer)
	}
}

func TestManager_Revoke_recordsBeforeItActs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	var steps []string
	g.line.set(func() { g.line.steps = &steps })
	g.recorder.steps = &steps
	if err := g.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
		t.Fatal(err)
	}
	if want := []string{"record", "publish", "delete", "publish", "delete"}; !slices.Equal(steps, want) { // the last one: the index
		t.Errorf("order: got %v, want %v", steps, want)
	}
	e := g.recorder.events[0]
	if e.Kind != audit.KindLogout || e.Session != c.Principal.PublicID || e.Subject.ID != alice {
		t.Errorf("record: got %+v", e)
	}
}

func TestManager_Revoke_isNeverDoneWhenItFailed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, operation := range []string{"record", "delete", "publish"} {
		one, two := h.running(t), h.running(t)
		c := h.signIn(t, one, alice)
		if _, err := authenticate(t, two, browser(c)); err != nil {
			t.Fatal(err)
		}
		if operation == "record" {
			one.recorder.set(errors.New("disk full"))
		}
		one.line.set(func() { one.line.fail[operation] = true })
		wantErr(t, operation+" fails", one.Revoke(t.Context(), alice, c.Principal.SessionID, logout), session.ErrUnavailable)
		if operation == "record" {
			if _, err := authenticate(t, one, browser(c)); err != nil {
				t.Errorf("what could not be recorded had an effect: %v", err)
			}
			if list, _ := one.List(t.Context(), alice); len(list) != 1 {
				t.Errorf("what could not be recorded had an effect on the store: %d sessions", len(list))
			}
		}
		// An administrator still finds it, and the user's own request still reaches the button.
		if found, err := one.Find(t.Context(), c.Principal.PublicID); err != nil || found.SessionID != c.Principal.SessionID {
			t.Errorf("%s failed: find: got %+v, %v", operation, found, err)
		}
		if _, err := authenticate(t, one, browser(c)); err != nil {
			t.Errorf("%s failed: the second try is refused: %v", operation, err)
		}
		one.recorder.set(nil)
		one.line.set(func() { one.line.fail[operation] = false })
		if err := one.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
			t.Fatalf("%s failed: second try: %v", operation, err)
		}
		eventually(t, "the second try to arrive", gone(t, two, c))
		if err := one.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
			t.Errorf("third try: %v", err)
		}
		_, err := one.Find(t.Context(), c.Principal.PublicID)
		wantErr(t, "find after the end", err, session.ErrNoSession)
	}
}

func TestManager_Revoke_refusesIDsThatAreNone(t *testing.T) {
	t.Parallel()
	g := newHouse(t).gateway(t)
	for _, id := range []string{"", "x", "00112233445566778899AABBCCDDEEFF", "00112233445566778899aabbccddeeff0", "../../../../../../../etc/passwd."} {
		wantErr(t, "session "+id, g.Revoke(t.Context(), alice, id, logout), session.ErrNoSession)
		wantErr(t, "user "+id, g.Revoke(t.Context(), id, alice, logout), session.ErrNoSession)
		_, err := g.RevokeUser(t.Context(), id, "", logout)
		wantErr(t, "all of user "+id, err, session.ErrNoSession)
	}
	if len(g.recorder.events) != 0 {
		t.Errorf("recorded: got %d events, want none", len(g.recorder.events))
	}
}

func TestManager_RevokeUser_endsAllButTheExceptedOne(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	var all []session.Credentials
	for range 3 {
		all = append(all, h.signIn(t, one, alice))
	}
	other := h.signIn(t, one, bob)
	for _, c := range append(slices.Clone(all), other) {
		if _, err := authenticate(t, two, browser(c)); err != nil {
			t.Fatal(err)
		}
	}
	h.clock.move(time.Second)
	n, err := one.RevokeUser(t.Context(), alice, all[1].Principal.SessionID, logout)
	if err != nil || n != 2 {
		t.Fatalf("got %d sessions, %v, want 2", n, err)
	}
	for i, c := range all {
		if i == 1 {
			continue
		}
		if !gone(t, one, c)() {
			t.Errorf("session %d is good here", i)
		}
		eventually(t, "the end to arrive", gone(t, two, c))
	}
	for name, c := range map[string]session.Credentials{"excepted": all[1], "another user's": other} {
		for _, g := range []*gateway{one, two} {
			if _, err := authenticate(t, g, browser(c)); err != nil {
				t.Errorf("%s session: %v", name, err)
			}
		}
	}
	if n, err = one.RevokeUser(t.Context(), alice, "", logout); err != nil || n != 1 {
		t.Fatalf("all of them: got %d, %v, want 1", n, err)
	}
	eventually(t, "the end to arrive", gone(t, two, all[1]))
	// Signing in again works at once.
	if _, err := authenticate(t, two, browser(h.signIn(t, two, alice))); err != nil {
		t.Errorf("login after that: %v", err)
	}
}

func TestManager_RevokeUser_reachesWhatAFirstTryDeletedAndDidNotAnnounce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	c := h.signIn(t, one, alice)
	if _, err := authenticate(t, two, browser(c)); err != nil {
		t.Fatal(err)
	}
	h.clock.move(time.Second)
	one.line.set(func() { one.line.fail["publish"] = true })
	_, err := one.RevokeUser(t.Context(), alice, "", logout)
	wantErr(t, "first try", err, session.ErrUnavailable)
	one.line.set(func() { one.line.fail["publish"] = false })
	if _, err := one.RevokeUser(t.Context(), alice, "", logout); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of a session whose record was gone before", gone(t, two, c))
}

func TestManager_RevokeUser_endsLoginsUnderWay(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)

	// Prepared before: found in the list and deleted.
	before, err := two.Prepare(t.Context(), h.grant(alice))
	if err != nil {
		t.Fatal(err)
	}
	// Complete before, prepared after: refused for its instant.
	late := h.grant(alice)
	h.clock.move(time.Millisecond)
	if _, err := one.RevokeUser(t.Context(), alice, "", logout); err != nil {
		t.Fatal(err)
	}
	after, err := two.Prepare(t.Context(), late)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*session.Prepared{"prepared before": before, "prepared after": after} {
		_, err := two.Activate(t.Context(), p)
		wantErr(t, name, err, session.ErrNoSession)
	}
	// Deleted between the checks and the mark.
	p, err := two.Prepare(t.Context(), h.grant(alice))
	if err != nil {
		t.Fatal(err)
	}
	two.line.set(func() {
		two.line.afterGet = func(store.Key) {
			if _, err := one.RevokeUser(t.Context(), alice, "", logout); err != nil {
				t.Error(err)
			}
		}
	})
	_, err = two.Activate(t.Context(), p)
	wantErr(t, "ended while it was activated", err, session.ErrNoSession)
	if list, err := one.List(t.Context(), alice); err != nil || len(list) != 0 {
		t.Errorf("sessions: got %d, %v, want none", len(list), err)
	}
}

func TestManager_Renew_prolongsWithinItsLimits(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	handle := newJar(c.Cookies[1:])
	h.clock.move(59 * time.Minute)
	p, cookies, err := handle.renew(t, g)
	if err != nil || p.Name != "alice" || len(cookies) != 2 {
		t.Fatalf("after 59 minutes: got %+v, %d cookies, %v", p, len(cookies), err)
	}
	if _, err := authenticate(t, g, withCookies(cookies...)); err != nil {
		t.Errorf("renewed token: %v", err)
	}
	for range 23 { // 59 min + 23 × 60 min − 23 s < 24 h
		h.clock.move(time.Hour - time.Second)
		if _, _, err = handle.renew(t, g); err != nil {
			t.Fatal(err)
		}
	}
	// The last token ends with the session.
	h.clock.move(time.Minute + 13*time.Second)
	_, cookies, err = handle.renew(t, g)
	if err != nil || cookies[0].MaxAge > 10 {
		t.Fatalf("10 s before the absolute limit: got %v, %v", cookies, err)
	}
	h.clock.move(10 * time.Second)
	wantErr(t, "token at the absolute limit", second(authenticate(t, g, withCookies(cookies[0]))), session.ErrNoSession)
	wantErr(t, "handle at the absolute limit", renewErr(t, g, handle.request()), session.ErrNoSession)
}

func TestManager_Renew_refusesAfterTheIdleLimit(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	h.clock.move(time.Hour)
	wantErr(t, "after an hour", renewErr(t, g, browser(c)), session.ErrNoSession)
	h.clock.move(-30 * time.Minute)
	wantErr(t, "a clock that is set back", renewErr(t, g, browser(c)), session.ErrNoSession)
}

func TestManager_Renew_doesNotCountAnOutageAsIdle(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c, d := h.signIn(t, g, alice), h.signIn(t, g, bob)
	h.clock.move(30 * time.Minute)
	g.line.set(func() { g.line.cut = true })
	eventually(t, "the outage to be seen", func() bool { return !g.InStep() })
	h.clock.move(3 * time.Hour)
	g.line.set(func() { g.line.cut = false })
	// At once, perhaps before the feed is back, and later.
	if _, _, err := g.Renew(t.Context(), browser(c), wiki); err != nil {
		t.Fatalf("right after the outage: %v", err)
	}
	eventually(t, "the gateway to heal", g.InStep)
	h.clock.move(29 * time.Minute)
	if _, _, err := g.Renew(t.Context(), browser(d), wiki); err != nil {
		t.Fatalf("idle for 59 minutes, not counting the outage: %v", err)
	}
	h.clock.move(31 * time.Minute)
	wantErr(t, "idle for an hour, after the outage", renewErr(t, g, browser(c)), session.ErrNoSession)
}

func TestManager_Renew_readsTheAccountAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	h.accounts.set(func() {
		h.accounts.identity[alice] = session.Identity{UserID: alice, Name: "alice", DisplayName: "Alice L.", Groups: []string{"admins"}}
	})
	p, cookies, err := g.Renew(t.Context(), browser(c), wiki)
	if err != nil || p.DisplayName != "Alice L." || p.Groups[0] != "admins" || p.Email != "" {
		t.Fatalf("renewed: got %+v, %v", p, err)
	}
	// Another gateway reads it from the session.
	if p, err := authenticate(t, h.running(t), withCookies(cookies...)); err != nil || p.Groups[0] != "admins" {
		t.Errorf("at another gateway: got %+v, %v", p, err)
	}
	h.accounts.set(func() { h.accounts.err = store.ErrUnavailable })
	wantErr(t, "account cannot be read", renewErr(t, g, browser(c)), session.ErrUnavailable)
	h.accounts.set(func() { h.accounts.err, h.accounts.disabled[alice] = nil, true })
	wantErr(t, "disabled account", renewErr(t, g, browser(c)), session.ErrNoSession)
	wantErr(t, "its access token", second(authenticate(t, g, browser(c))), session.ErrNoSession)
	if got := fmt.Sprint(g.recorder.causes()); got != "[account-disabled]" {
		t.Errorf("recorded: got %s", got)
	}
	h.accounts.set(func() { h.accounts.disabled[alice] = false })
	wantErr(t, "account enabled again", renewErr(t, g, browser(c)), session.ErrNoSession)
}

func TestManager_Renew_writesOncePerMinute(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	writes := func() int {
		g.line.mu.Lock()
		defer g.line.mu.Unlock()
		n := g.line.counts["put"]
		g.line.counts["put"] = 0
		return n
	}
	writes()
	b := newJar(c.Cookies)
	for minute := range 3 {
		tabs := b.request() // with the same handle
		for range 6 {
			_, cookies, err := g.Renew(t.Context(), tabs, wiki)
			if err != nil {
				t.Fatal(err)
			}
			b.keep(cookies)
		}
		if got := writes(); got != 1 {
			t.Errorf("six renewals in minute %d: got %d writes, want 1", minute, got)
		}
		h.clock.move(time.Minute)
	}
	// performance.md: at most four operations, the read of the account, which is outside, being one.
	g.line.operations()
	if _, _, err := g.Renew(t.Context(), b.request(), wiki); err != nil {
		t.Fatal(err)
	}
	if got := g.line.operations(); got > 3 {
		t.Errorf("operations of a renewal: got %d, want at most 3", got)
	}
}
