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
