package session_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/session"
	"gatehouse/session/token"
	"gatehouse/store"
)

// keyed is a gateway with keys of its own line to the store.
type keyed struct {
	*gateway
	keys *session.Keys
}

// keyed makes a running gateway that shares its signing keys with the others through the store. Its keys follow nothing by
// themselves unless they run.
func (h *house) keyed(t *testing.T, change ...func(*session.Options)) *keyed {
	t.Helper()
	k := &keyed{}
	k.gateway = h.running(t, append(change, func(o *session.Options) {
		var err error
		k.keys, err = session.OpenKeys(t.Context(), session.KeysOptions{
			Records: o.Records, Feed: o.Feed, Recorder: o.Recorder, Now: o.Now, Logger: o.Logger,
		})
		if err != nil {
			t.Fatal(err)
		}
		o.Keys = k.keys
	})...)
	return k
}

// follow runs the keys until the end of the test.
func (k *keyed) follow(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { k.keys.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

func TestOpenKeys_makesThemOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var group sync.WaitGroup
	kids := make([]string, 8)
	for i := range kids {
		group.Go(func() {
			k, err := session.OpenKeys(t.Context(), session.KeysOptions{
				Records: h.store, Feed: h.store, Recorder: &recorder{}, Now: h.clock.Now, Logger: discardLogger,
			})
			if err != nil {
				t.Error(err)
				return
			}
			kids[i] = k.Current().Signs()
		})
	}
	group.Wait()
	for _, kid := range kids {
		if kid != kids[0] || kid == "" {
			t.Fatalf("keys that sign: got %v, want one", kids)
		}
	}
}

// SE-22: two gateways whose sets differ for a while lose nobody, in either direction.
func TestKeys_Rotate_losesNobody(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.keyed(t), h.keyed(t)
	old := h.signIn(t, one.gateway, alice)
	if _, err := authenticate(t, two.gateway, browser(old)); err != nil {
		t.Fatal(err)
	}
	stale := two.keys.Current()
	if err := one.keys.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if two.keys.Current() != stale {
		t.Fatal("the other gateway learned of it by itself: nothing is shown")
	}
	fresh := h.signIn(t, one.gateway, bob)
	h.clock.move(time.Minute)
	for name, c := range map[string]session.Credentials{"token by the old key": old, "token by the new key": fresh} {
		for at, g := range map[string]*keyed{"the gateway that rotated": one, "the other": two} {
			if _, err := authenticate(t, g.gateway, browser(c)); err != nil {
				t.Errorf("%s at %s: %v", name, at, err)
			}
			if _, err := authenticate(t, g.gateway, request("Authorization", "Bearer "+c.AccessToken)); err != nil {
				t.Errorf("bearer %s at %s: %v", name, at, err)
			}
		}
	}
	if two.keys.Current().Signs() != one.keys.Current().Signs() {
		t.Error("the other gateway goes on to sign with the retired key")
	}
	// By a gateway that had not heard of it yet: good to its end here.
	h.clock.move(5 * time.Minute)
	for _, c := range []session.Credentials{old, fresh} {
		_, _, err := two.Renew(t.Context(), browser(c), wiki)
		wantErr(t, "renewal after the rotation", err, nil)
	}
}

// An unknown kid costs at most one read a second, however many ask and whatever they ask with; those who wait for a read get
// what it found.
func TestKeys_Missing_readsOncePerSecond(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.keyed(t), h.keyed(t)
	if err := one.keys.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := h.signIn(t, one.gateway, alice)
	h.clock.move(time.Second)
	two.line.operations()
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := two.Authenticate(t.Context(), browser(c), wiki); err != nil {
				t.Errorf("token by a key that was unknown: %v", err)
			}
		})
	}
	group.Wait()
	if got := two.line.operations(); got > 1+20 { // of the keys, and of the session at first sight
		t.Errorf("operations: got %d, want at most 21", got)
	}
	foreign, err := token.NewKeySet(h.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	for second, want := range []int{0, 1, 1} { // within the second of the read before, none
		for i := range 200 {
			raw, err := foreign.Sign(token.CookieToken, token.Claims{
				ID: fmt.Sprint(second, i), Issuer: login, Audience: wiki, Subject: alice, SessionID: bob,
				AuthTime: h.clock.Now(), IssuedAt: h.clock.Now(), ExpiresAt: h.clock.Now().Add(time.Minute),
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = authenticate(t, two.gateway, request("Cookie", "__Host-gatehouse="+raw))
			wantErr(t, "token by a foreign key", err, session.ErrNoSession)
		}
		if got := two.line.operations(); got != want {
			t.Errorf("200 tokens by unknown keys in second %d: got %d operations, want %d", second, got, want)
		}
		h.clock.move(time.Second)
	}
	two.line.set(func() { two.line.cut = true })
	if two.keys.Missing(t.Context()) != two.keys.Current() {
		t.Error("the store is away: got other keys than the known ones")
	}
}

// Verified tokens end with their key, exactly.
func TestManager_endsVerifiedTokensWithTheirKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.keyed(t)
	old := g.keys.Current()
	p := h.signIn(t, g.gateway, alice).Principal
	if err := g.keys.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	retired := h.clock.Now()
	h.clock.move(5 * time.Minute) // a token as somebody makes it who has a copy of the retired key
	now := h.clock.Now()
	raw, err := old.Sign(token.CookieToken, token.Claims{
		ID: "x", Issuer: login, Audience: wiki, Subject: p.UserID, SessionID: p.SessionID,
		AuthTime: p.AuthTime, IssuedAt: now, ExpiresAt: now.Add(5 * time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := request("Cookie", "__Host-gatehouse="+raw)
	for range 2 { // verified, and remembered
		if _, err := authenticate(t, g.gateway, r); err != nil {
			t.Fatalf("while the retired key is accepted: %v", err)
		}
	}
	h.clock.move(retired.Add(token.KeepRetired).Sub(h.clock.Now()) - time.Millisecond)
	if _, err := authenticate(t, g.gateway, r); err != nil {
		t.Errorf("a millisecond before its end: %v", err)
	}
	h.clock.move(time.Millisecond)
	wantErr(t, "at the end of its key", second(authenticate(t, g.gateway, r)), session.ErrNoSession)

	// The same for a token that was verified before its key retired.
	h.clock.move(time.Hour)
	c := h.signIn(t, g.gateway, bob)
	if _, err := authenticate(t, g.gateway, browser(c)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.keys.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := authenticate(t, g.gateway, browser(c)); err != nil {
			t.Errorf("after a rotation: %v", err)
		}
	}
	h.clock.move(5*time.Minute - time.Second)
	if _, err := authenticate(t, g.gateway, browser(c)); err != nil {
		t.Errorf("to its own end: %v", err)
	}
}

func TestKeys_Run_followsTheScheduleOnRecord(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.keyed(t), h.keyed(t)
	one.follow(t)
	two.follow(t)
	first := one.keys.Current().Signs()
	recorded := func(change string) int {
		n := 0
		for _, g := range []*keyed{one, two} {
			g.recorder.mu.Lock()
			for _, e := range g.recorder.events {
				switch {
				case e.Kind != audit.KindKeysRotated || e.Details["change"] != change:
				case e.Outcome == audit.Success:
					n++
				case e.Outcome == audit.Failed:
					n-- // the other gateway was faster
				}
			}
			g.recorder.mu.Unlock()
		}
		return n
	}
	for _, step := range []struct {
		wait   time.Duration
		change string
		keys   int
	}{
		{29 * 24 * time.Hour, token.ChangePublished, 2},
		{24 * time.Hour, token.ChangeRotated, 2},
		{token.KeepRetired, token.ChangeEnded, 1},
	} {
		h.clock.move(step.wait)
		for name, g := range map[string]*keyed{"one": one, "two": two} {
			eventually(t, step.change+" at "+name, func() bool { return len(g.keys.Current().Keys()) == step.keys && recorded(step.change) == 1 })
		}
	}
	if one.keys.Current().Signs() == first || one.keys.Current().Signs() != two.keys.Current().Signs() {
		t.Error("the gateways do not sign with the new key")
	}
	// What cannot be recorded does not happen.
	h.clock.move(29 * 24 * time.Hour)
	one.recorder.set(errors.New("disk full"))
	two.recorder.set(errors.New("disk full"))
	one.keys.Changed()
	time.Sleep(50 * time.Millisecond)
	if n := len(one.keys.Current().Keys()); n != 1 {
		t.Errorf("a change that could not be recorded: got %d keys", n)
	}
}

// An announcement reaches the other gateways without a token and without a wait.
func TestKeys_announceChanges(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.keyed(t), h.keyed(t)
	two.follow(t)
	c := h.signIn(t, two.gateway, alice)
	two.line.operations()
	if err := one.keys.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the announcement", func() bool { return two.keys.Current().Signs() == one.keys.Current().Signs() })
	two.line.operations()
	if _, err := authenticate(t, two.gateway, browser(c)); err != nil || two.line.operations() != 0 {
		t.Errorf("a verified token after a rotation: %v, or a look at the store", err)
	}
	one.line.set(func() { one.line.fail["put"] = true })
	wantErr(t, "a store that cannot be written", one.keys.Rotate(t.Context()), session.ErrUnavailable)
	one.line.set(func() { one.line.fail["put"], one.line.fail["publish"] = false, true })
	if err := one.keys.Rotate(t.Context()); err != nil {
		t.Errorf("a rotation that is not announced: %v", err)
	}
	list, err := two.keys.List(t.Context())
	if err != nil || len(list) != 3 || list[0].State != token.Active || list[0].ID != one.keys.Current().Signs() {
		t.Errorf("list: got %v, %v", list, err)
	}
}

// Nothing that leaves the process holds a private part.
func TestKeys_showNoPrivatePart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	k := h.keyed(t)
	record, err := h.store.Get(t.Context(), store.MaterialKey("signing"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(record.Value), `"seed":"`)
	seed, _, _ := strings.Cut(rest, `"`)
	raw, err := base64.StdEncoding.DecodeString(seed)
	if err != nil || len(raw) != 32 {
		t.Fatalf("seed in the record: %q, %v", seed, err)
	}
	list, err := k.keys.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shown := string(k.keys.JWKS()) + fmt.Sprintf("%+v %#v %v", list, list, k.keys.Current())
	for _, form := range []string{seed, base64.RawURLEncoding.EncodeToString(raw), fmt.Sprintf("%x", raw), fmt.Sprint(raw)} {
		if strings.Contains(shown, form) {
			t.Errorf("a private part is shown: %s", shown)
		}
	}
}
