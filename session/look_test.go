package session_test

import (
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/session"
)

// look asks as a front proxy does, at the host of the login.
func (j jarOf) look(t *testing.T, g *gateway) (session.Principal, bool, error) {
	t.Helper()
	return g.Look(t.Context(), j.request(), wiki)
}

func (j jarOf) lookOK(t *testing.T, g *gateway) (stale bool) {
	t.Helper()
	p, stale, err := j.look(t, g)
	if err != nil || p.Name != "alice" {
		t.Fatalf("look: got %q, %v", p.Name, err)
	}
	return stale
}

func TestManager_Look_goesOnAfterTheTokenExpired(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 1)
	b.use(t, g)
	g.line.operations()
	b.lookOK(t, g)
	if n := g.line.operations(); n != 0 {
		t.Errorf("with a good token: got %d operations of the store, want 0", n)
	}
	handle := b.handle()
	b.expire()
	for range 24 { // two hours: far beyond the idle limit
		h.clock.move(5 * time.Minute)
		b.lookOK(t, g)
		eventually(t, "what is noted to be written", func() bool { return session.Writing(g.Manager) == 0 })
		g.line.operations()
		for range 5 {
			b.lookOK(t, g)
		}
		if n := g.line.operations(); n != 0 {
			t.Errorf("what was looked at just now: got %d operations of the store, want 0", n)
		}
	}
	if b.handle() != handle {
		t.Error("the handle changed")
	}
	b.renewOK(t, g)
}

func TestManager_Look_asksForRenewalOnceAnHour(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := newJar(h.signIn(t, g, alice).Cookies).known("laptop")
	b.expire()
	for minutes := 0; minutes < 180; minutes += 4 {
		if got, want := b.lookOK(t, g), minutes > 0 && minutes%60 == 0; got != want {
			t.Errorf("after %d minutes: stale is %v, want %v", minutes, got, want)
		}
		if minutes%60 == 0 && minutes > 0 {
			b.renewOK(t, g)
			if b.lookOK(t, g) {
				t.Error("stale right after the renewal")
			}
			b.expire()
			if b.lookOK(t, g) {
				t.Error("stale right after the renewal, by the handle")
			}
		}
		h.clock.move(4 * time.Minute)
	}
}

func TestManager_Look_refusesAtOnceWhatWasRevoked(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g, other := h.running(t), h.running(t)
	b := renewed(t, h, g, 1)
	b.expire()
	b.lookOK(t, g)
	b.lookOK(t, other)
	p, _, _ := b.look(t, g)
	if err := g.Revoke(t.Context(), p.UserID, p.SessionID, logout); err != nil {
		t.Fatal(err)
	}
	_, _, err := b.look(t, g)
	wantErr(t, "at the same gateway", err, session.ErrNoSession)
	eventually(t, "the other gateway to hear of it", func() bool {
		_, _, err := b.look(t, other)
		return err != nil
	})
	_, _, err = b.look(t, other)
	wantErr(t, "at the other gateway", err, session.ErrNoSession)
}

func TestManager_Look_endsByTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t, func(o *session.Options) { o.IgnoreActivity = []string{"/poll"} })
	b := newJar(h.signIn(t, g, alice).Cookies).known("laptop")
	b.expire()
	b.lookOK(t, g)
	polling := b.request()
	polling.URL.Path = "/poll"
	for range 12 {
		h.clock.move(5*time.Minute - time.Second)
		if _, _, err := g.Look(t.Context(), polling, wiki); err != nil {
			t.Fatalf("polling within the idle limit: %v", err)
		}
	}
	h.clock.move(13 * time.Second)
	_, _, err := g.Look(t.Context(), polling, wiki)
	wantErr(t, "polling beyond the idle limit", err, session.ErrNoSession)

	b = newJar(h.signIn(t, g, alice).Cookies).known("laptop")
	b.expire()
	for range 24*12 - 1 {
		h.clock.move(5 * time.Minute)
		b.lookOK(t, g)
	}
	h.clock.move(5 * time.Minute)
	_, _, err = b.look(t, g)
	wantErr(t, "at the absolute limit", err, session.ErrNoSession)
}

// The rules of rotation.go, without rotation.
func TestManager_Look_tellsTheft(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 1)
	b.expire()
	copied := b.copy()
	b.renewOK(t, g)
	b.expire()
	copied.lookOK(t, g) // the answer may have been lost: the owner was not seen with what it brought
	b.lookOK(t, g)
	eventually(t, "the use of the handle to be noted", func() bool { return advances(g) > 0 && session.Writing(g.Manager) == 0 })
	copied.lookOK(t, g) // a tab that was slower
	h.clock.move(31 * time.Second)
	_, _, err := copied.look(t, g)
	wantErr(t, "the copy, after the owner was seen", err, session.ErrNoSession)
	_, _, err = b.look(t, g)
	wantErr(t, "the owner, whose session ended", err, session.ErrNoSession)
	g.recorder.mu.Lock()
	defer g.recorder.mu.Unlock()
	if n := len(g.recorder.events); n != 1 || g.recorder.events[0].Kind != audit.KindHandleTheft {
		t.Errorf("records: got %v, want one of theft", g.recorder.events)
	}
}

func TestManager_Look_otherDevice(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 1)
	b.expire()
	thief := b.copy().known("elsewhere")
	b.renewOK(t, g)
	_, _, err := thief.look(t, g)
	wantErr(t, "the handle before, from another device", err, session.ErrNoSession)
	_, _, err = b.expire().look(t, g)
	wantErr(t, "the session", err, session.ErrNoSession)
}

func TestManager_Look_storeAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 1)
	b.expire()
	b.lookOK(t, g)
	eventually(t, "what is noted to be written", func() bool { return session.Writing(g.Manager) == 0 })
	g.line.set(func() { g.line.cut = true })
	b.lookOK(t, g) // found before, like a token that was verified before
	h.clock.move(5 * time.Minute)
	_, _, err := b.look(t, g)
	wantErr(t, "with the store away", err, session.ErrUnavailable)
	g.line.set(func() { g.line.cut = false })
	b.lookOK(t, g)
}

func TestManager_Look_accountAndBadHandles(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 1)
	b.expire()
	_, _, err := g.Look(t.Context(), b.request(), mail)
	wantErr(t, "at another host", err, session.ErrNoSession)
	text := []byte(b.handle())
	text[20] ^= 1
	_, _, err = g.Look(t.Context(), request("Cookie", "__Host-gatehouse-session="+string(text)), wiki)
	wantErr(t, "forged", err, session.ErrNoSession)
	_, _, err = g.Look(t.Context(), request("Cookie", "__Host-gatehouse-session="+b.handle(), "Cookie", "__Host-gatehouse-session="+b.handle()), wiki)
	wantErr(t, "twice", err, session.ErrDuplicate)
	if _, err = g.Authenticate(t.Context(), request("Authorization", "Bearer "+b.handle()), wiki); err == nil {
		t.Error("a handle was taken for a token")
	}

	h.accounts.set(func() {
		h.accounts.identity[alice] = session.Identity{UserID: alice, Name: "alice", Email: "new@example.com"}
	})
	h.clock.move(5 * time.Minute)
	p, _, err := b.look(t, g)
	if err != nil || p.Email != "new@example.com" {
		t.Errorf("after the account changed: got %q, %v", p.Email, err)
	}
	h.accounts.set(func() { h.accounts.disabled[alice] = true })
	h.clock.move(5 * time.Minute)
	_, _, err = b.look(t, g)
	wantErr(t, "after the account was disabled", err, session.ErrNoSession)
}
