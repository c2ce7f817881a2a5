package session_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"gatehouse/session"
	"gatehouse/store"
)

func TestManager_readsEverySessionAgainAfterAGap(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	ended, lives := h.signIn(t, one, alice), h.signIn(t, one, bob)
	var watched [2]<-chan struct{}
	for i, c := range []session.Credentials{ended, lives} {
		p, err := authenticate(t, two, browser(c))
		if err != nil {
			t.Fatal(err)
		}
		watched[i] = two.Ended(p)
	}
	// The revocation falls into what this gateway never reads: it comes back to a feed that lost it.
	two.line.set(func() { two.line.cut = true })
	eventually(t, "the outage to be seen", func() bool { return !two.InStep() })
	if err := one.Revoke(t.Context(), alice, ended.Principal.SessionID, logout); err != nil {
		t.Fatal(err)
	}
	two.line.operations()
	two.line.set(func() { two.line.cut, two.line.gap = false, true })
	eventually(t, "the gateway to be in step", two.InStep)
	wantErr(t, "ended in the gap", second(authenticate(t, two, browser(ended))), session.ErrNoSession)
	for range 3 {
		if _, err := authenticate(t, two, browser(lives)); err != nil {
			t.Errorf("live session after the gap: %v", err)
		}
	}
	eventually(t, "the stream of the ended session to be cut", func() bool { return isClosed(watched[0]) })
	if isClosed(watched[1]) {
		t.Error("the stream of the live session was cut")
	}
	// One read each for the two tokens, at most one each for the two streams.
	if got := two.line.operations(); got > 4 {
		t.Errorf("operations after the gap: got %d, want at most 4", got)
	}
}

func TestManager_catchesUpAfterAnOutage(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	ended, lives := h.signIn(t, one, alice), h.signIn(t, one, bob)
	for _, c := range []session.Credentials{ended, lives} {
		if _, err := authenticate(t, two, browser(c)); err != nil {
			t.Fatal(err)
		}
	}
	two.line.set(func() { two.line.cut = true })
	eventually(t, "the outage to be seen", func() bool { return !two.InStep() })
	if err := one.Revoke(t.Context(), alice, ended.Principal.SessionID, logout); err != nil {
		t.Fatal(err)
	}
	if _, err := authenticate(t, two, browser(ended)); err != nil {
		t.Errorf("within the written bound: %v", err)
	}
	two.line.set(func() { two.line.cut = false })
	eventually(t, "the gateway to be in step", two.InStep)
	two.line.operations()
	wantErr(t, "in step again", second(authenticate(t, two, browser(ended))), session.ErrNoSession)
	if _, err := authenticate(t, two, browser(lives)); err != nil {
		t.Errorf("live session: %v", err)
	}
	if got := two.line.operations(); got != 0 {
		t.Errorf("operations after an outage without a gap: got %d, want none", got)
	}
}

func TestManager_forgetsWhatItLearnedBeforeAGap(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	c := h.signIn(t, one, alice)
	// A record is read, then comes a gap in which its session ends, and then the reader goes on.
	two.line.set(func() {
		two.line.afterGet = func(store.Key) {
			two.line.set(func() { two.line.cut = true })
			eventually(t, "the outage to be seen", func() bool { return !two.InStep() })
			if err := one.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
				t.Error(err)
			}
			two.line.set(func() { two.line.cut, two.line.gap = false, true })
			eventually(t, "the gateway to be in step", two.InStep)
		}
	})
	p, err := authenticate(t, two, browser(c)) // was good when it was read
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "next request", second(authenticate(t, two, browser(c))), session.ErrNoSession)
	// The same for a stream that is opened with what was read before the gap.
	ended := two.Ended(p)
	eventually(t, "the stream to be cut", func() bool { return isClosed(ended) })
}

func TestManager_forgetsWhatItLearnedBeforeItsStart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.gateway(t)
	c := h.signIn(t, one, alice)
	// A record is read, its session ends, and only then does this gateway begin to follow the feed.
	two.line.set(func() {
		two.line.afterGet = func(store.Key) {
			if err := one.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
				t.Error(err)
			}
			two.start(t)
		}
	})
	if _, err := authenticate(t, two, browser(c)); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "next request", second(authenticate(t, two, browser(c))), session.ErrNoSession)
}

func TestManager_takesAMessageThatItCannotReadForAGap(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	for _, message := range []string{
		"", "null", "{}", `{"kind":"keys-rotated"}`, `{"kind":"sessions-ended","user":"x"}`,
		`{"kind":"sessions-ended","user":"` + alice + `","sessions":["x"]}`,
	} {
		if _, err := authenticate(t, g, browser(c)); err != nil {
			t.Fatal(err)
		}
		g.line.operations()
		if _, err := h.store.Publish(t.Context(), []byte(message)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the verified tokens to be forgotten after "+message, func() bool {
			_, err := authenticate(t, g, browser(c))
			return err == nil && g.line.operations() > 0
		})
		eventually(t, "the gateway to go on", g.InStep)
	}
	// It hears revocations as before.
	other := h.running(t)
	if err := other.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the revocation", gone(t, g, c))
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestManager_Ended_whenRevokedAnywhere(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	c, other := h.signIn(t, one, alice), h.signIn(t, one, alice)
	p, err := authenticate(t, two, browser(c))
	if err != nil {
		t.Fatal(err)
	}
	here, there, beside := one.Ended(c.Principal), two.Ended(p), two.Ended(other.Principal)
	if isClosed(here) || isClosed(there) {
		t.Fatal("closed while the session lives")
	}
	if err := one.Revoke(t.Context(), alice, p.SessionID, logout); err != nil {
		t.Fatal(err)
	}
	if !isClosed(here) {
		t.Error("here: open when Revoke returned")
	}
	eventually(t, "the stream at the other gateway to be cut", func() bool { return isClosed(there) })
	if isClosed(beside) {
		t.Error("another session's stream was cut")
	}
	h.clock.move(time.Second)
	if _, err := one.RevokeUser(t.Context(), alice, "", logout); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all streams of the user to be cut", func() bool { return isClosed(beside) })
}

func TestManager_Ended_whenAlreadyRevoked(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	if err := g.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
		t.Fatal(err)
	}
	if !isClosed(g.Ended(c.Principal)) {
		t.Error("revoked between the request and its upgrade: open")
	}
	if !isClosed(g.Ended(session.Principal{})) {
		t.Error("nobody's stream: open")
	}
}

func TestManager_Ended_atTheAbsoluteLimit(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	ended := g.Ended(c.Principal)
	h.clock.move(24*time.Hour - time.Second)
	if isClosed(ended) {
		t.Error("a second before the limit: closed")
	}
	h.clock.move(time.Second)
	eventually(t, "the stream to be cut", func() bool { return isClosed(ended) })
	if !isClosed(g.Ended(c.Principal)) {
		t.Error("after the limit: open")
	}
}

func TestManager_Ended_whenNothingWasHeardForATokensLife(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	ended := g.Ended(c.Principal)
	g.line.set(func() { g.line.cut = true })
	eventually(t, "the outage to be seen", func() bool { return !g.InStep() })
	h.clock.move(4 * time.Minute)
	time.Sleep(150 * time.Millisecond) // one more try of the gateway, which must not cut it
	if isClosed(ended) {
		t.Error("within the bound: closed")
	}
	h.clock.move(time.Minute)
	eventually(t, "the stream to be cut", func() bool { return isClosed(ended) })
	g.line.set(func() { g.line.cut = false })
	eventually(t, "the gateway to heal", g.InStep)
	if _, _, err := g.Renew(t.Context(), browser(c), wiki); err != nil {
		t.Errorf("the session itself: %v", err)
	}
}

func TestManager_holdsNoMoreTokensThanItsBoundOfManyAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.gateway(t)
	session.Bound(g.Manager, 1000, 20)
	g.start(t)
	who := h.signIn(t, g, alice).Principal
	session.Fill(g.Manager, who, 950, 0)
	var visitors sync.WaitGroup
	for range 16 {
		visitors.Go(func() { session.Fill(g.Manager, who, 500, 0) })
	}
	visitors.Wait()
	if tokens, _ := session.Held(g.Manager); tokens > 1000 || tokens < 900 {
		t.Errorf("verified tokens: got %d, want at most 1000 and hardly less", tokens)
	}
}

func TestManager_holdsNoMoreThanItsBounds(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.gateway(t, func(o *session.Options) { o.PerUser = 1000 })
	session.Bound(g.Manager, 64, 20)
	g.start(t)
	var all []session.Credentials
	for range 100 {
		all = append(all, h.signIn(t, g, alice))
	}
	if tokens, _ := session.Held(g.Manager); tokens > 64 {
		t.Errorf("verified tokens: got %d, want at most 64", tokens)
	}
	for i, c := range all[:50] {
		if err := g.Revoke(t.Context(), alice, c.Principal.SessionID, logout); err != nil {
			t.Fatal(err)
		}
		if _, revoked := session.Held(g.Manager); revoked > 20 {
			t.Fatalf("revocations after %d: got %d, want at most 20", i, revoked)
		}
	}
	for i, c := range all {
		want := error(nil)
		if i < 50 {
			want = session.ErrNoSession
		}
		wantErr(t, "a session beyond the bounds", second(authenticate(t, g, browser(c))), want)
	}
	// Everything ends by time.
	h.clock.move(7 * time.Minute)
	eventually(t, "expired tokens and revocations to be dropped", func() bool {
		tokens, revoked := session.Held(g.Manager)
		return tokens == 0 && revoked == 0
	})
}

func TestManager_isSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t), h.running(t)
	var group sync.WaitGroup
	for i := range 8 {
		here, there := one, two
		if i%2 == 1 {
			here, there = two, one
		}
		group.Go(func() {
			for range 5 {
				prepared, err := here.Prepare(t.Context(), h.grant(alice))
				if err != nil {
					t.Error(err)
					return
				}
				c, err := here.Activate(t.Context(), prepared)
				if err != nil {
					t.Error(err)
					return
				}
				p, err := there.Authenticate(t.Context(), browser(c), wiki)
				if err != nil {
					t.Error(err)
					return
				}
				ended := there.Ended(p)
				_, _, err = there.Renew(t.Context(), browser(c), wiki)
				_, aerr := there.Assertion(p, wiki)
				if err = errors.Join(err, aerr, here.Revoke(t.Context(), alice, p.SessionID, logout)); err != nil {
					t.Error(err)
					return
				}
				<-ended
				if _, err := there.Authenticate(t.Context(), browser(c), wiki); !errors.Is(err, session.ErrNoSession) {
					t.Errorf("after its end: got %v", err)
				}
			}
		})
	}
	group.Wait()
	if list, err := one.List(t.Context(), alice); err != nil || len(list) != 0 {
		t.Errorf("sessions left: got %d, %v", len(list), err)
	}
}
