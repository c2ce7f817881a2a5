package token_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gatehouse/session/token"
)

func states(set *token.KeySet) string {
	var out []string
	for _, k := range set.Keys() {
		out = append(out, k.State)
	}
	return strings.Join(out, " ")
}

func newSet(t *testing.T, now time.Time) *token.KeySet {
	t.Helper()
	set, err := token.NewKeySet(now)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func due(t *testing.T, set *token.KeySet, now time.Time) (*token.KeySet, string) {
	t.Helper()
	next, change, err := set.Due(now)
	if err != nil {
		t.Fatal(err)
	}
	// Whatever it is, it can be stored.
	data, err := next.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := token.ParseKeySet(data)
	if err != nil || !again.Equal(next) {
		t.Fatalf("stored and read: got %v, %v, want %v", again.Keys(), err, next.Keys())
	}
	return next, change
}

func TestKeySet_Due_followsTheSchedule(t *testing.T) {
	t.Parallel()
	set, day := newSet(t, start), 24*time.Hour
	first := set.Signs()
	for _, c := range []struct {
		at     time.Duration
		change string
		states string
	}{
		{0, "", "active"},
		{29*day - 1, "", "active"},
		{29 * day, token.ChangePublished, "active next"},
		{29 * day, "", "active next"},
		{30*day - 1, "", "active next"},
		{30 * day, token.ChangeRotated, "active retired"},
		{30*day + token.KeepRetired - 1, "", "active retired"},
		{30*day + token.KeepRetired, token.ChangeEnded, "active"},
		{59*day - 1, "", "active"},
		{59 * day, token.ChangePublished, "active next"},
	} {
		var change string
		set, change = due(t, set, start.Add(c.at))
		if change != c.change || states(set) != c.states {
			t.Errorf("after %v: got %q, %s; want %q, %s", c.at, change, states(set), c.change, c.states)
		}
	}
	if set.Signs() == first {
		t.Error("the first key still signs")
	}
	// A gateway that was off for months: the next key is published for a day all the same before it signs.
	set, _ = due(t, newSet(t, start), start.Add(100*day))
	if states(set) != "active next" {
		t.Fatalf("after 100 days: got %s", states(set))
	}
	if _, change := due(t, set, start.Add(101*day-1)); change != "" {
		t.Errorf("less than a day after the next key was published: got %q", change)
	}
	if _, change := due(t, set, start.Add(101*day)); change != token.ChangeRotated {
		t.Errorf("a day after the next key was published: got %q", change)
	}
}

// SE-22, for the set itself: which keys are accepted when.
func TestKeySet_Verify_acceptsNextActiveAndRetiredInTheirTime(t *testing.T) {
	t.Parallel()
	before := newSet(t, start)
	published, _ := due(t, before, start.Add(29*24*time.Hour))
	at := start.Add(30 * 24 * time.Hour)
	after, change := due(t, published, at)
	if change != token.ChangeRotated {
		t.Fatalf("got %q", change)
	}
	signAt := func(set *token.KeySet, at time.Time) string {
		c := claims()
		c.IssuedAt, c.AuthTime, c.ExpiresAt = at, at, at.Add(token.MaxLifetime)
		return sign(t, set, token.CookieToken, c)
	}
	good := func(set *token.KeySet, raw string, at time.Time) error {
		_, err := set.Verify(raw, token.CookieToken, issuer, origin, at)
		return err
	}
	old, fresh := signAt(published, at), signAt(after, at)
	if err := good(published, fresh, at); err != nil {
		t.Errorf("a key that is still the next one here: %v", err)
	}
	if err := good(before, fresh, at); !errors.Is(err, token.ErrUnknownKey) || !errors.Is(err, token.ErrInvalid) {
		t.Errorf("a key that is unknown here: got %v", err)
	}
	if err := good(after, old, at.Add(token.MaxLifetime-time.Second)); err != nil {
		t.Errorf("the last token of the retired key, to its end: %v", err)
	}
	late := signAt(published, at.Add(4*time.Minute)) // with a stolen key, or by a gateway that was told late
	if err := good(after, late, at.Add(token.KeepRetired-time.Second)); err != nil {
		t.Errorf("a second before the retired key ends: %v", err)
	}
	if err := good(after, late, at.Add(token.KeepRetired)); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("when the retired key has ended: got %v", err)
	}
	ended, _ := due(t, after, at.Add(token.KeepRetired))
	if err := good(ended, late, at.Add(token.KeepRetired)); !errors.Is(err, token.ErrUnknownKey) {
		t.Errorf("when the retired key is gone: got %v", err)
	}
	for name, set := range map[string]*token.KeySet{"before": before, "published": published, "after": after, "ended": ended} {
		jwks := string(set.JWKS())
		if n := strings.Count(jwks, `"kid"`); n != len(set.Keys()) || strings.Contains(jwks, `"d"`) || strings.Contains(jwks, "seed") {
			t.Errorf("%s: JWKS %s, want the public part of %d keys", name, jwks, len(set.Keys()))
		}
		if !strings.HasPrefix(jwks[strings.Index(jwks, `"kid":"`)+7:], set.Signs()) {
			t.Errorf("%s: the key that signs is not the first: %s", name, jwks)
		}
	}
}

func TestKeySet_Rotate_isBounded(t *testing.T) {
	t.Parallel()
	set := newSet(t, start)
	n := 0
	for ; n < 100; n++ {
		rotated, err := set.Rotate(start)
		if errors.Is(err, token.ErrTooOften) {
			break
		}
		if err != nil || rotated.Signs() == set.Signs() || len(rotated.Keys()) != len(set.Keys())+1 {
			t.Fatalf("got %v, %v", rotated.Keys(), err)
		}
		set = rotated
	}
	if n != 15 {
		t.Errorf("rotations at once: got %d, want 15", n)
	}
	if set, err := set.Rotate(start.Add(token.KeepRetired)); err != nil || states(set) != "active retired" {
		t.Errorf("later: got %v, %v", states(set), err)
	}
	published, _ := due(t, newSet(t, start), start.Add(29*24*time.Hour))
	next := published.Keys()[1].ID
	if rotated, err := published.Rotate(start.Add(29 * 24 * time.Hour)); err != nil || rotated.Signs() != next {
		t.Errorf("on command, with a next key: it does not sign: %v", err)
	}
}
