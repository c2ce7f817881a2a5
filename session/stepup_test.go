package session_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/session"
	"gatehouse/store"
)

// stepUp is a step-up of the session that a jar holds, at the host of its login.
func (j jarOf) stepUp(tb testing.TB, h *house, g *gateway, p session.Principal) (session.Principal, []*http.Cookie, error) {
	tb.Helper()
	r := j.request()
	return g.StepUp(tb.Context(), session.StepUp{
		Principal: p, Methods: []string{"otp", "mfa"}, AuthTime: h.clock.Now(), Origin: wiki,
		Handle: session.ReadHandle(r), DeviceCookie: session.ReadDevice(r),
	})
}

func (j jarOf) stepUpOK(t *testing.T, h *house, g *gateway) session.Principal {
	t.Helper()
	held, err := authenticate(t, g, j.request())
	if err != nil {
		t.Fatal(err)
	}
	p, cookies, err := j.stepUp(t, h, g, held)
	if err != nil {
		t.Fatal(err)
	}
	j.keep(cookies)
	return p
}

// noAccess is a jar without its access token.
func (j jarOf) noAccess() jarOf { return j.copy().expire() }

// TP-10 and SE-12: of what was handed out before a step-up nothing is fresher by it, on any gateway and on any host.
func TestManager_StepUp_oldTokensAreDead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	here, there := h.running(t), h.running(t)
	credentials := h.signIn(t, here, alice)
	old := newJar(credentials.Cookies).known("laptop")
	_, cookies, err := here.Join(t.Context(), session.Joining{Principal: credentials.Principal, Origin: mail})
	if err != nil {
		t.Fatal(err)
	}
	onMail := newJar(cookies).known("laptop at mail")
	bearer := request("Authorization", "Bearer "+credentials.AccessToken)
	for _, g := range []*gateway{here, there} {
		if _, err := authenticate(t, g, bearer); err != nil {
			t.Fatal(err)
		}
		if _, err := authenticate(t, g, old.request()); err != nil {
			t.Fatal(err)
		}
	}
	ended := there.Ended(credentials.Principal)

	h.clock.move(2 * time.Minute)
	now := old.copy()
	p := now.stepUpOK(t, h, here)
	if !p.AuthTime.Equal(h.clock.Now()) || !slices.Equal(p.Methods, []string{"pwd", "otp", "mfa"}) || p.SessionID != credentials.Principal.SessionID {
		t.Errorf("the session became %+v", p)
	}
	if len(here.recorder.events) != 0 { // that is the flow's
		t.Errorf("recorded %+v", here.recorder.events)
	}
	for name, g := range map[string]*gateway{"here": here, "there": there} {
		eventually(t, "the old token to be refused "+name, func() bool {
			_, err := authenticate(t, g, old.request())
			return err != nil
		})
		_, err := authenticate(t, g, old.request())
		wantErr(t, name+", old cookies", err, session.ErrExpired)
		_, err = authenticate(t, g, bearer)
		wantErr(t, name+", old bearer token", err, session.ErrBadBearer)
		_, _, err = old.copy().renew(t, g)
		wantErr(t, name+", old handle", err, session.ErrNoSession)
		fresh, err := authenticate(t, g, now.request())
		if err != nil || !fresh.AuthTime.Equal(p.AuthTime) {
			t.Errorf("%s, new cookies: %v since %v", name, err, fresh.AuthTime)
		}
	}
	// The app host's token is not fresher either; its next request renews it, and then it is.
	if _, err := there.Authenticate(t.Context(), onMail.request(), mail); err == nil {
		t.Error("the token of another host is still good")
	}
	fresh, _, err := onMail.visit(there, mail)
	if err != nil || !fresh.AuthTime.Equal(p.AuthTime) {
		t.Errorf("the other host: %v since %v, want %v", err, fresh.AuthTime, p.AuthTime)
	}
	select {
	case <-ended:
		t.Error("what was open on the session was cut")
	default:
	}
}

func TestManager_StepUp_refusesFormerHandles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		present func(t *testing.T, h *house, g *gateway, old, now jarOf) jarOf
		theft   bool
	}{
		{name: "of a tab that was overtaken", present: func(_ *testing.T, _ *house, _ *gateway, old, _ jarOf) jarOf { return old }},
		{name: "while the answer may have been lost", present: func(_ *testing.T, h *house, _ *gateway, old, _ jarOf) jarOf {
			h.clock.move(50 * time.Minute)
			return old
		}},
		{name: "30 s after the first use of the new one", present: func(t *testing.T, h *house, g *gateway, old, now jarOf) jarOf {
			now.use(t, g)
			h.clock.move(30 * time.Second)
			return old
		}},
		{name: "after that", theft: true, present: func(t *testing.T, h *house, g *gateway, old, now jarOf) jarOf {
			now.use(t, g)
			h.clock.move(30*time.Second + time.Millisecond)
			return old
		}},
		{name: "of another device", theft: true, present: func(_ *testing.T, _ *house, _ *gateway, old, _ jarOf) jarOf {
			return old.known("phone")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			g := h.running(t)
			old := renewed(t, h, g, 2)
			now := old.copy()
			now.stepUpOK(t, h, g)
			_, _, err := c.present(t, h, g, old.noAccess(), now).renew(t, g)
			wantErr(t, "the former handle", err, session.ErrNoSession)
			_, _, err = now.renew(t, g)
			if c.theft {
				wantErr(t, "the session after a theft", err, session.ErrNoSession)
			} else if err != nil {
				t.Errorf("the new handle: %v", err)
			}
		})
	}
}

// After the next renewal everything is as without a step-up: the handle of the step-up is then the former one.
func TestManager_StepUp_rotatesOn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 1)
	b.stepUpOK(t, h, g)
	former := b.noAccess()
	b.renewOK(t, g)
	if _, _, err := former.renew(t, g); err != nil || former.handle() != b.handle() {
		t.Errorf("a parallel tab: %v", err)
	}
}

func TestManager_StepUp_failsWhole(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"get", "publish", "put"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			g := h.running(t)
			b := renewed(t, h, g, 0)
			held, err := authenticate(t, g, b.request())
			if err != nil {
				t.Fatal(err)
			}
			h.clock.move(time.Minute)
			g.line.set(func() { g.line.fail[operation] = true })
			_, _, err = b.stepUp(t, h, g, held)
			wantErr(t, "the step-up", err, session.ErrUnavailable)
			g.line.set(func() { g.line.fail[operation] = false })
			p, err := authenticate(t, g, b.request())
			if err != nil || !p.AuthTime.Equal(held.AuthTime) {
				t.Errorf("afterwards: %v since %v, want since %v", err, p.AuthTime, held.AuthTime)
			}
			if p, _, err = b.copy().stepUp(t, h, g, p); err != nil || !p.AuthTime.Equal(h.clock.Now()) {
				t.Errorf("the next try: %v since %v", err, p.AuthTime)
			}
		})
	}
}

// TP-10: freshness is not lent.
func TestManager_StepUp_isForItsSessionOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	one, other, bobs := renewed(t, h, g, 0), renewed(t, h, g, 0), newJar(h.signIn(t, g, bob).Cookies)
	held, err := authenticate(t, g, one.request())
	if err != nil {
		t.Fatal(err)
	}
	h.clock.move(time.Minute)
	for name, with := range map[string]jarOf{"another session": other, "another user": bobs, "no handle": {}} {
		_, _, err := with.stepUp(t, h, g, held)
		wantErr(t, "with the handle of "+name, err, session.ErrNoSession)
	}
	one.stepUpOK(t, h, g)
	for name, b := range map[string]jarOf{"another session": other, "another user": bobs} {
		if p, err := authenticate(t, g, b.request()); err != nil || !p.AuthTime.Before(h.clock.Now()) {
			t.Errorf("%s is now as fresh: %v since %v", name, err, p.AuthTime)
		}
	}
}

// A session that ended meanwhile stays ended.
func TestManager_StepUp_afterTheEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 0)
	held, err := authenticate(t, g, b.request())
	if err != nil {
		t.Fatal(err)
	}
	g.line.set(func() {
		g.line.afterGet = func(store.Key) { // between the read and the write
			if err := g.Revoke(t.Context(), held.UserID, held.SessionID, logout); err != nil {
				t.Error(err)
			}
		}
	})
	_, _, err = b.stepUp(t, h, g, held)
	wantErr(t, "revoked in between", err, session.ErrNoSession)
	if all, err := g.List(t.Context(), alice); err != nil || len(all) != 0 {
		t.Errorf("%d sessions, %v", len(all), err)
	}
}

// A renewal that wrote in between is not undone, and not taken for a theft.
func TestManager_StepUp_besideARenewal(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 1)
	tab := b.copy()
	held, err := authenticate(t, g, b.request())
	if err != nil {
		t.Fatal(err)
	}
	g.line.set(func() { g.line.afterGet = func(store.Key) { tab.renewOK(t, g) } })
	_, cookies, err := b.stepUp(t, h, g, held)
	if err != nil {
		t.Fatal(err)
	}
	b.keep(cookies)
	b.renewOK(t, g)
	if slices.ContainsFunc(g.recorder.events, func(e audit.Event) bool { return e.Kind == audit.KindHandleTheft }) {
		t.Error("taken for a theft")
	}
}

// Tokens count in whole seconds: one of before must not read like one of after.
func TestManager_StepUp_withinOneSecond(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 0)
	old := b.copy()
	h.clock.move(300 * time.Millisecond)
	b.stepUpOK(t, h, g)
	_, err := authenticate(t, g, old.request())
	wantErr(t, "the old token", err, session.ErrExpired)
	if _, err := authenticate(t, g, b.request()); err != nil {
		t.Errorf("the new token: %v", err)
	}
}

func TestManager_SteppedUp(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	here, behind := h.running(t), h.gateway(t) // one that was not told
	b := renewed(t, h, here, 0)
	held, err := authenticate(t, behind, b.request())
	if err != nil {
		t.Fatal(err)
	}
	if up, err := behind.SteppedUp(t.Context(), held); up || err != nil {
		t.Errorf("before: %v, %v", up, err)
	}
	h.clock.move(time.Minute)
	b.stepUpOK(t, h, here)
	if up, err := behind.SteppedUp(t.Context(), held); !up || err != nil {
		t.Errorf("after: %v, %v", up, err)
	}
	behind.line.set(func() { behind.line.cut = true })
	_, err = behind.SteppedUp(t.Context(), held)
	wantErr(t, "without a store", err, session.ErrUnavailable)
}

// A session that was begun by a clock that was ahead of the truth, and the clock put right. A factor that is shown now counts now, and what
// was handed out before is of another time and worth nothing, as after every step-up.
func TestManager_StepUp_afterTheClockWasAhead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	here, there := h.running(t), h.running(t)
	h.clock.move(2 * time.Hour)
	b := newJar(h.signIn(t, here, alice).Cookies).known("laptop")
	h.clock.move(-2 * time.Hour)
	b = b.noAccess()
	b.renewOK(t, here) // a token of now that tells of a factor to come
	old, kept := b.copy(), b.copy()
	held, err := authenticate(t, there, kept.request())
	if err != nil || !held.AuthTime.After(h.clock.Now()) {
		t.Fatalf("before: %v since %v", err, held.AuthTime)
	}
	p := b.stepUpOK(t, h, here)
	if !p.AuthTime.Equal(h.clock.Now()) {
		t.Errorf("fresh since %v, want %v", p.AuthTime, h.clock.Now())
	}
	if p, err := authenticate(t, here, b.request()); err != nil || !p.AuthTime.Equal(h.clock.Now()) {
		t.Errorf("the new token: %v since %v", err, p.AuthTime)
	}
	if p, err := authenticate(t, here, old.request()); err == nil && p.AuthTime.Equal(h.clock.Now()) {
		t.Error("the old token is as fresh")
	}
	_, err = authenticate(t, h.gateway(t), old.request())
	wantErr(t, "the old token where it was never seen", err, session.ErrExpired)
	if up, err := there.SteppedUp(t.Context(), held); !up || err != nil {
		t.Errorf("where the old token is known: stepped up %v, %v", up, err)
	}
}
