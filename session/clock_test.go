package session_test

import (
	"testing"
	"time"

	"gatehouse/session"
)

// A clock that was ahead when all sessions of a user were ended, and is set back, must not refuse the user until it has caught
// up: neither by the instant in the store nor by what the gateways remember, and not in the last seconds before that time.
func TestManager_RevokeUser_byAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	h.clock.move(2 * time.Hour)
	old := h.signIn(t, one, alice)
	h.clock.move(time.Second)
	if _, err := one.RevokeUser(t.Context(), alice, "", logout); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the revocation to arrive", gone(t, two, old))

	h.clock.move(-2 * time.Hour)
	for name, g := range map[string]*gateway{"here": one, "there": two} {
		c := h.signIn(t, g, alice)
		for at, g := range map[string]*gateway{"here": one, "there": two} {
			eventually(t, "a session made "+name+" to be good "+at, func() bool {
				_, err := authenticate(t, g, browser(c))
				return err == nil
			})
		}
		wantErr(t, "the ended session", renewErr(t, g, browser(old)), session.ErrNoSession)
	}
	h.clock.move(2*time.Hour - 10*time.Second)
	c := h.signIn(t, one, alice)
	if _, err := authenticate(t, two, browser(c)); err != nil {
		t.Errorf("shortly before the time of the wrong clock: %v", err)
	}

	// A second end counts by the clock that is right.
	h.clock.move(time.Second)
	if n, err := two.RevokeUser(t.Context(), alice, "", logout); err != nil || n != 1 {
		t.Fatalf("ended %d sessions, %v; want the one that is not idle", n, err)
	}
	eventually(t, "the second end to arrive", gone(t, one, c))
	h.clock.move(time.Second)
	if _, err := authenticate(t, one, browser(h.signIn(t, one, alice))); err != nil {
		t.Errorf("a login after the second end: %v", err)
	}
}

// The second end finds what the clock that was ahead has left.
func TestManager_RevokeUser_afterAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	h.clock.move(2 * time.Hour)
	if _, err := g.RevokeUser(t.Context(), alice, "", logout); err != nil {
		t.Fatal(err)
	}
	h.clock.move(-2 * time.Hour)
	if _, err := g.RevokeUser(t.Context(), alice, "", logout); err != nil {
		t.Fatal(err)
	}
	h.clock.move(time.Second)
	c := h.signIn(t, g, alice)
	eventually(t, "the new session to be good", func() bool {
		_, err := authenticate(t, g, browser(c))
		return err == nil
	})
}

func TestManager_Renew_givesNoSessionMoreThanItsLimitsByAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	h.clock.move(2 * time.Hour)
	absolute, idle := h.signIn(t, g, alice), h.signIn(t, g, bob)
	h.clock.move(-2 * time.Hour)
	corrected := h.clock.Now()
	for _, c := range []session.Credentials{absolute, idle} {
		p, _, err := g.Renew(t.Context(), browser(c), wiki)
		if err != nil {
			t.Fatalf("a clock that was set back signed somebody out: %v", err)
		}
		if want := corrected.Add(24 * time.Hour); p.ExpiresAt.After(want) {
			t.Errorf("ends %v, want at most %v", p.ExpiresAt, want)
		}
	}
	for h.clock.Now().Before(corrected.Add(23*time.Hour + 30*time.Minute)) {
		h.clock.move(30 * time.Minute)
		if _, _, err := g.Renew(t.Context(), browser(absolute), wiki); err != nil {
			t.Fatal(err)
		}
		if h.clock.Now().Sub(corrected) == time.Hour {
			wantErr(t, "idle for an hour", renewErr(t, g, browser(idle)), session.ErrNoSession)
		}
	}
	h.clock.move(30 * time.Minute)
	wantErr(t, "at the absolute limit", renewErr(t, g, browser(absolute)), session.ErrNoSession)
}
