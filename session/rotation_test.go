package session_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/session"
	"gatehouse/store"
	"gatehouse/store/storetest"
)

const mail = "https://mail.example.com"

// known gives a jar the device cookie of a browser.
func (j jarOf) known(device string) jarOf {
	j.keep([]*http.Cookie{session.DeviceCookie(device)})
	return j
}

// keepRenewed renews the session on another host than wiki.
func (j jarOf) keepRenewed(t *testing.T, g *gateway, origin string) {
	t.Helper()
	_, cookies, err := g.Renew(t.Context(), j.request(), origin)
	if err != nil {
		t.Fatal(err)
	}
	j.keep(cookies)
}

func (j jarOf) handle() string { return j["__Host-gatehouse-session"].Value }

// visit sends a request to a host as the proxy handles it: renewed when the token has expired.
func (j jarOf) visit(g *gateway, origin string) (session.Principal, []*http.Cookie, error) {
	r := j.request()
	p, err := g.Authenticate(context.Background(), r, origin)
	if !errors.Is(err, session.ErrExpired) {
		return p, nil, err
	}
	return g.Renew(context.Background(), r, origin)
}

// expire takes the access token from a jar, as its Max-Age does.
func (j jarOf) expire() jarOf {
	delete(j, "__Host-gatehouse")
	return j
}

// renewed returns a browser that has signed in and renewed n times.
func renewed(t *testing.T, h *house, g *gateway, n int) jarOf {
	t.Helper()
	b := newJar(h.signIn(t, g, alice).Cookies).known("laptop")
	for range n {
		b.renewOK(t, g)
	}
	return b
}

func (j jarOf) renewOK(t *testing.T, g *gateway) {
	t.Helper()
	if _, _, err := j.renew(t, g); err != nil {
		t.Fatal(err)
	}
}

// use sends requests with a good token, which shows that the browser has its handle, until that is noted: one is enough, but a
// gateway that is out of step leaves it to the next.
func (j jarOf) use(t *testing.T, g *gateway) {
	t.Helper()
	written := func() bool { return session.Writing(g.Manager) == 0 }
	eventually(t, "notes of before", written)
	before := advances(g)
	eventually(t, "the use of the handle to be noted", func() bool {
		if _, err := authenticate(t, g, j.request()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the note", written)
		return advances(g) > before
	})
}

func advances(g *gateway) int {
	g.line.mu.Lock()
	defer g.line.mu.Unlock()
	return g.line.advanced
}

func TestManager_Renew_rotates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		present func(t *testing.T, h *house, g *gateway, b jarOf) jarOf // b was renewed three times; returns who presents what
		same    bool                                                    // gets the handle that b has
		theft   bool
	}{
		{name: "the current one rotates", present: func(_ *testing.T, _ *house, _ *gateway, b jarOf) jarOf { return b.copy() }},
		{name: "the current one by another device rotates", present: func(_ *testing.T, _ *house, _ *gateway, b jarOf) jarOf {
			return b.copy().known("phone")
		}},
		{name: "the former one, the current one never presented", same: true, present: func(t *testing.T, h *house, g *gateway, b jarOf) jarOf {
			former := b.copy()
			b.renewOK(t, g)
			h.clock.move(50 * time.Minute)
			return former
		}},
		{name: "the former one, 30 s after the first use of the current one", same: true, present: func(t *testing.T, h *house, g *gateway, b jarOf) jarOf {
			former := b.copy()
			b.renewOK(t, g)
			h.clock.move(4 * time.Minute)
			b.use(t, g)
			h.clock.move(20 * time.Second)
			if _, err := authenticate(t, g, b.request()); err != nil { // a later use changes nothing
				t.Fatal(err)
			}
			h.clock.move(10 * time.Second)
			return former
		}},
		{name: "the former one, more than 30 s after that", theft: true, present: func(t *testing.T, h *house, g *gateway, b jarOf) jarOf {
			former := b.copy()
			b.renewOK(t, g)
			b.use(t, g)
			h.clock.move(30*time.Second + time.Millisecond)
			return former
		}},
		{name: "the former one by another device", theft: true, present: func(t *testing.T, _ *house, g *gateway, b jarOf) jarOf {
			former := b.copy().known("phone")
			b.renewOK(t, g)
			return former
		}},
		{name: "the former one without the device cookie", theft: true, present: func(t *testing.T, _ *house, g *gateway, b jarOf) jarOf {
			former := b.copy()
			delete(former, "__Host-gatehouse-device")
			b.renewOK(t, g)
			return former
		}},
		{name: "the one before that", theft: true, present: func(t *testing.T, _ *house, g *gateway, b jarOf) jarOf {
			old := b.copy()
			b.renewOK(t, g)
			b.renewOK(t, g)
			return old
		}},
		{name: "the next one, whose write the store lost", same: true, present: func(t *testing.T, h *house, g *gateway, b jarOf) jarOf {
			p, err := authenticate(t, g, b.request())
			if err != nil {
				t.Fatal(err)
			}
			key := store.SessionKey(alice, p.SessionID)
			before, err := h.store.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			b.renewOK(t, g)
			restore(t, h, key, before)
			return b.copy()
		}},
		{name: "one after the next one", theft: true, present: func(t *testing.T, h *house, g *gateway, b jarOf) jarOf {
			p, err := authenticate(t, g, b.request())
			if err != nil {
				t.Fatal(err)
			}
			key := store.SessionKey(alice, p.SessionID)
			before, err := h.store.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			b.renewOK(t, g)
			b.renewOK(t, g)
			restore(t, h, key, before)
			return b.copy()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			g, other := h.running(t), h.running(t)
			b := renewed(t, h, g, 3)
			presenter := c.present(t, h, g, b)
			want := error(nil)
			if c.theft {
				want = session.ErrNoSession
			}
			_, _, err := presenter.renew(t, other)
			wantErr(t, "renewal", err, want)
			if c.theft {
				if len(other.recorder.events) != 1 || other.recorder.events[0].Kind != audit.KindHandleTheft {
					t.Errorf("recorded: got %+v", other.recorder.events)
				}
				wantErr(t, "the owner's handle", renewErr(t, g, b.request()), session.ErrNoSession)
				return
			}
			if same := presenter.handle() == b.handle(); same != c.same {
				t.Errorf("the handle that was given is the current one: got %v, want %v", same, c.same)
			}
			if n := len(other.recorder.events); n != 0 {
				t.Errorf("recorded: got %d events", n)
			}
		})
	}
}

// restore puts a record back as it was: what a store does that lost a write.
func restore(t *testing.T, h *house, key store.Key, before store.Record) {
	t.Helper()
	now, err := h.store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.Put(t.Context(), key, before.Value, now.Version, before.Expires); err != nil {
		t.Fatal(err)
	}
}

// SE-09
func TestManager_Renew_endsAStolenSessionOnAllHostsOnRecord(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g, other := h.running(t, func(o *session.Options) {
		o.Client = func(r *http.Request) audit.Client { return audit.Client{Address: r.RemoteAddr} }
	}), h.running(t)
	b := newJar(h.signIn(t, g, alice).Cookies).known("laptop")
	p, cookies, err := g.Join(t.Context(), session.Joining{Principal: mustAuthenticate(t, g, b), Origin: mail})
	if err != nil {
		t.Fatal(err)
	}
	onMail := newJar(cookies)
	if p, _, err := onMail.visit(other, mail); err != nil || p.Name != "alice" {
		t.Fatalf("the session at the second host: got %+v, %v", p, err)
	}
	thief := b.copy()
	b.renewOK(t, g)
	h.clock.move(time.Minute)
	b.use(t, g)
	h.clock.move(time.Minute)

	g.recorder.set(errors.New("disk full"))
	wantErr(t, "a theft that cannot be recorded", renewErr(t, g, thief.request()), session.ErrUnavailable)
	if _, err := authenticate(t, g, b.request()); err != nil {
		t.Errorf("what could not be recorded had an effect: %v", err)
	}
	g.recorder.set(nil)
	var steps []string
	g.line.set(func() { g.line.steps = &steps })
	g.recorder.steps = &steps
	wantErr(t, "the thief", renewErr(t, g, thief.request()), session.ErrNoSession)
	if len(steps) == 0 || steps[0] != "record" {
		t.Errorf("order: got %v, want the record first", steps)
	}
	e := g.recorder.events[0]
	if e.Kind != audit.KindHandleTheft || e.Severity != audit.High || e.Session != p.PublicID || e.Subject.ID != alice || e.Client.Address == "" ||
		e.Details["host"] != wiki || e.Details["presented"] != "0" || e.Details["current"] != "1" {
		t.Errorf("record: got %+v", e)
	}
	for name, gone := range map[string]func() error{
		"the owner here":                 func() error { _, _, err := b.visit(g, wiki); return err },
		"the owner elsewhere":            func() error { _, _, err := b.visit(other, wiki); return err },
		"the second host here":           func() error { _, _, err := onMail.visit(g, mail); return err },
		"the second host elsewhere":      func() error { _, _, err := onMail.visit(other, mail); return err },
		"the second host with no token":  func() error { _, _, err := onMail.copy().expire().visit(g, mail); return err },
		"the owner's handle by itself":   func() error { _, _, err := b.copy().expire().visit(other, wiki); return err },
		"the thief, who tries once more": func() error { _, _, err := thief.visit(other, wiki); return err },
	} {
		eventually(t, name+" to be signed out", func() bool { return errors.Is(gone(), session.ErrNoSession) })
	}
}

func mustAuthenticate(t *testing.T, g *gateway, b jarOf) session.Principal {
	t.Helper()
	p, err := authenticate(t, g, b.request())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestManager_Join_givesEachHostItsOwnChain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := newJar(h.signIn(t, g, alice).Cookies)
	p := mustAuthenticate(t, g, b)
	_, cookies, err := g.Join(t.Context(), session.Joining{Principal: p, Origin: mail})
	if err != nil {
		t.Fatal(err)
	}
	first := newJar(cookies)
	for range 3 { // one host's renewals do not touch the other's chain
		b.renewOK(t, g)
	}
	onMail := first.copy()
	if _, cookies, err = g.Renew(t.Context(), onMail.request(), mail); err != nil {
		t.Fatal(err)
	}
	onMail.keep(cookies)
	if _, err := g.Authenticate(t.Context(), onMail.request(), wiki); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("cookies of one host at another: %v", err)
	}
	// Tabs that are handed over while the handle is fresh get the same one, in whatever order the answers arrive.
	if _, cookies, err = g.Join(t.Context(), session.Joining{Principal: p, Origin: mail}); err != nil {
		t.Fatal(err)
	}
	if newJar(cookies).handle() != onMail.handle() {
		t.Error("of two hand-offs at once each gave out a handle of its own")
	}
	before := advances(g)
	if _, err := g.Authenticate(t.Context(), onMail.request(), mail); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the use of the handle to be noted", func() bool { return advances(g) > before && session.Writing(g.Manager) == 0 })
	h.clock.move(time.Minute)
	// The browser comes again without its cookies of that host: what it had before is a former handle, not a thief's.
	if _, cookies, err = g.Join(t.Context(), session.Joining{Principal: p, Origin: mail}); err != nil {
		t.Fatal(err)
	}
	again := newJar(cookies)
	if again.handle() == onMail.handle() || again.handle() == first.handle() {
		t.Error("a second hand-off gave out an old handle")
	}
	if _, cookies, err = g.Renew(t.Context(), onMail.request(), mail); err != nil {
		t.Fatalf("a request that was on its way: %v", err)
	}
	onMail.keep(cookies)
	if onMail.handle() != again.handle() {
		t.Error("a request that was on its way got another handle than the current one")
	}
	// The device cookie of a host is of that host and session, so a copy of the other cookies is found out (SE-09).
	thief := onMail.copy()
	thief.keep([]*http.Cookie{session.DeviceCookie(newJar(h.signIn(t, g, alice).Cookies)["__Host-gatehouse"].Value)})
	onMail.keepRenewed(t, g, mail)
	_, _, err = g.Renew(t.Context(), thief.request(), mail)
	wantErr(t, "a copy without the device cookie", err, session.ErrNoSession)
	_, _, err = g.Join(t.Context(), session.Joining{Principal: p, Origin: mail})
	wantErr(t, "join after the end", err, session.ErrNoSession)
	_, _, err = g.Join(t.Context(), session.Joining{Principal: session.Principal{}, Origin: mail})
	wantErr(t, "join of nobody", err, session.ErrNoSession)
}

// SE-12 on a host that a session is handed over to: what was planted there ends.
func TestManager_Join_endsThePlantedSession(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	planted := newJar(h.signIn(t, g, bob).Cookies)
	victim := newJar(h.signIn(t, g, alice).Cookies)
	_, cookies, err := g.Join(t.Context(), session.Joining{Principal: mustAuthenticate(t, g, planted), Origin: mail})
	if err != nil {
		t.Fatal(err)
	}
	onMail := newJar(cookies)
	p, cookies, err := g.Join(t.Context(), session.Joining{
		Principal: mustAuthenticate(t, g, victim), Origin: mail, FormerHandle: onMail.handle(), Client: audit.Client{Address: "192.0.2.9"},
	})
	if err != nil || p.Name != "alice" {
		t.Fatalf("got %+v, %v", p, err)
	}
	_, err = g.Authenticate(t.Context(), onMail.request(), mail)
	wantErr(t, "the planted session", err, session.ErrNoSession)
	_, err = authenticate(t, g, planted.request())
	wantErr(t, "the planted session where it began", err, session.ErrNoSession)
	if p, err := g.Authenticate(t.Context(), newJar(cookies).request(), mail); err != nil || p.Name != "alice" {
		t.Errorf("the session of the browser: %+v, %v", p, err)
	}
}

// Six requests at once with an expired token, over two gateways on one Redis, on two hosts, and the answers to some of them are
// lost, the first one's always: nobody is signed out, and of each host one descendant lives.
func TestManager_parallelTabsWithLostAnswers(t *testing.T) {
	t.Parallel()
	h, _ := newRedisHouse(t)
	one, two := h.running(t), h.running(t)
	b := newJar(h.signIn(t, one, alice).Cookies).known("laptop")
	_, cookies, err := one.Join(t.Context(), session.Joining{Principal: mustAuthenticate(t, one, b), Origin: mail})
	if err != nil {
		t.Fatal(err)
	}
	hosts := map[string]jarOf{wiki: b, mail: newJar(cookies).known("tag of mail")}
	const requests = 6
	random := rand.New(rand.NewPCG(1, 2))
	rounds := storetest.Rounds(20, 500)
	for round := range rounds {
		h.clock.move(time.Duration(300+random.IntN(1000)) * time.Second)
		if round%50 == 49 { // the absolute limit comes near
			hosts = signInAgain(t, h, one, hosts)
		}
		for origin, b := range hosts {
			b.expire()
			lost := random.IntN(requests) // that many besides the first one
			var mu sync.Mutex
			var answers [][]*http.Cookie
			var group sync.WaitGroup
			for tab := range requests {
				g := []*gateway{one, two}[tab%2]
				group.Go(func() {
					_, cookies, err := b.visit(g, origin)
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Errorf("round %d, %s, tab %d: %v", round, origin, tab, err)
					}
					answers = append(answers, cookies)
				})
			}
			group.Wait()
			handles := map[string]bool{}
			for i, cookies := range answers {
				for _, c := range cookies {
					if strings.HasSuffix(c.Name, "-session") {
						handles[c.Value] = true
					}
				}
				if i > lost {
					b.keep(cookies)
				}
			}
			if len(handles) != 1 {
				t.Errorf("round %d, %s: got %d descendants of one handle, want 1", round, origin, len(handles))
			}
		}
		if t.Failed() {
			return
		}
	}
	if n := len(one.recorder.events) + len(two.recorder.events); n != rounds/50 { // those of signInAgain
		t.Errorf("recorded: got %d events, want %d", n, rounds/50)
	}
	t.Logf("%d rounds of %d requests on two hosts", rounds, requests)
}

// signInAgain ends the session and makes another one on both hosts.
func signInAgain(t *testing.T, h *house, g *gateway, hosts map[string]jarOf) map[string]jarOf {
	t.Helper()
	b := hosts[wiki]
	p, _, err := b.visit(g, wiki)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Revoke(t.Context(), alice, p.SessionID, logout); err != nil {
		t.Fatal(err)
	}
	b = newJar(h.signIn(t, g, alice).Cookies).known("laptop")
	_, cookies, err := g.Join(t.Context(), session.Joining{Principal: mustAuthenticate(t, g, b), Origin: mail})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]jarOf{wiki: b, mail: newJar(cookies).known("tag of mail")}
}

// Thefts: at a random moment a thief copies the whole jar, or only the cookies of the session, and owner and thief go on as
// they please. Whoever comes second to a handle that has been in use is found out, at any gateway.
func TestManager_findsThefts(t *testing.T) {
	t.Parallel()
	h, _ := newRedisHouse(t)
	one, two := h.running(t), h.running(t)
	gateways := []*gateway{one, two}
	random := rand.New(rand.NewPCG(3, 4))
	found, rounds := 0, storetest.Rounds(10, 100)
	for round := range rounds {
		events := len(one.recorder.events) + len(two.recorder.events)
		owner := newJar(h.signIn(t, one, alice).Cookies).known("laptop")
		for range random.IntN(4) {
			owner.renewOK(t, gateways[random.IntN(2)])
		}
		thief := owner.copy()
		if random.IntN(2) == 0 {
			delete(thief, "__Host-gatehouse-device")
		}
		who := []jarOf{owner, thief}
		if random.IntN(2) == 0 {
			slices.Reverse(who)
		}
		caught := false
		for turn := 0; turn < 6 && !caught; turn++ {
			h.clock.move(6 * time.Minute)
			b, g := who[turn%2], gateways[random.IntN(2)]
			if _, _, err := b.renew(t, g); errors.Is(err, session.ErrNoSession) {
				caught = true
				break
			} else if err != nil {
				t.Fatal(err)
			}
			b.use(t, gateways[random.IntN(2)])
		}
		if n := len(one.recorder.events) + len(two.recorder.events) - events; !caught || n != 1 {
			t.Errorf("round %d: found %v with %d records, want one", round, caught, n)
			continue
		}
		found++
		for name, b := range map[string]jarOf{"owner": owner, "thief": thief} {
			wantErr(t, fmt.Sprintf("round %d: %s", round, name), renewErr(t, one, b.request()), session.ErrNoSession)
		}
	}
	t.Logf("%d of %d thefts found", found, rounds)
}

// performance.md: at most four commands for a renewal, with all it leaves to be noted; the read of the account is one of them.
func TestManager_Renew_costsFourOperations(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 1)
	b.use(t, g)
	account := 1
	for round := range 5 {
		h.clock.move(6 * time.Minute)
		g.line.operations()
		b.renewOK(t, g)
		b.use(t, g)
		for range 10 {
			if _, err := authenticate(t, g, b.request()); err != nil {
				t.Fatal(err)
			}
		}
		if got := g.line.operations() + account; got > 4 {
			t.Errorf("round %d: got %d operations for a renewal and its use, want at most 4", round, got)
		}
	}
}
