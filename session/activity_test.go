package session_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"gatehouse/session"
)

func polling(o *session.Options) { o.IgnoreActivity = []string{"/api/poll", "/live/"} }

// at is a request of the jar for a path.
func (j jarOf) at(path string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header = j.request().Header
	return r
}

// visitPath is visit for a path; it keeps the cookies.
func (j jarOf) visitPath(t *testing.T, g *gateway, path string) error {
	t.Helper()
	r := j.at(path)
	_, err := g.Authenticate(t.Context(), r, wiki)
	if err == nil {
		return nil
	}
	_, cookies, renewErr := g.Renew(t.Context(), r, wiki)
	j.keep(cookies)
	return renewErr
}

// lastSeen is the last activity on record.
func lastSeen(t *testing.T, g *gateway) time.Time {
	t.Helper()
	list, err := g.List(t.Context(), alice)
	if err != nil || len(list) != 1 {
		t.Fatalf("list: got %d sessions, %v", len(list), err)
	}
	return list[0].LastSeen
}

// SE-19: a tab that polls does not keep a session alive.
func TestManager_Renew_pollingIsNoActivity(t *testing.T) {
	t.Parallel()
	for path, passive := range map[string]bool{
		"/api/poll": true, "/api/poll/": true, "/api/poll/7?x=1": true, "/live/feed": true,
		"/api/polls": false, "/live": false, "/": false, "/x?y=/api/poll": false,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			g := h.running(t, polling)
			b := newJar(h.signIn(t, g, alice).Cookies)
			began := h.clock.Now()
			ended := time.Duration(0)
			for ended == 0 && h.clock.Now().Sub(began) < 2*time.Hour {
				h.clock.move(30 * time.Second)
				if b.visitPath(t, g, path) != nil {
					ended = h.clock.Now().Sub(began)
				}
			}
			want := time.Duration(0)
			if passive {
				want = time.Hour
			}
			if ended != want {
				t.Errorf("polling each 30 s: signed out after %v, want %v (0 is never)", ended, want)
			}
		})
	}
}

// Polling renews the token most of the time, and the work between two polls counts all the same.
func TestManager_Authenticate_notesWorkBetweenPolls(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t, polling), h.running(t, polling)
	b := newJar(h.signIn(t, one, alice).Cookies)
	for minute := range 4 * 60 {
		h.clock.move(time.Minute)
		if err := b.visitPath(t, one, "/api/poll"); err != nil {
			t.Fatalf("poll in minute %d: %v", minute, err)
		}
		if minute%20 == 10 {
			before := lastSeen(t, one)
			if err := b.visitPath(t, []*gateway{one, two}[minute/20%2], "/work"); err != nil {
				t.Fatalf("work in minute %d: %v", minute, err)
			}
			// Written beside the answer, unless the last activity on record is younger than a token.
			if h.clock.Now().Sub(before) > 6*time.Minute {
				eventually(t, "the work to be noted", func() bool { return lastSeen(t, one).Equal(h.clock.Now()) })
			}
		}
	}
}

// Requests with a token that was renewed by work write nothing.
func TestManager_Authenticate_writesNothingForTheSameToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t, polling)
	b := renewed(t, h, g, 1)
	b.use(t, g)
	g.line.operations()
	for range 100 {
		h.clock.move(2 * time.Second)
		if err := b.visitPath(t, g, "/work"); err != nil {
			t.Fatal(err)
		}
	}
	if got := g.line.operations(); got != 0 {
		t.Errorf("operations: got %d, want none", got)
	}
}

// What could not be noted because the store was away is noted by the next request.
func TestManager_Authenticate_notesAgainWhatFailed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	b := renewed(t, h, g, 1)
	g.line.set(func() { g.line.fail["advance"] = true })
	if err := b.visitPath(t, g, "/"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the note to fail", func() bool { return session.Writing(g.Manager) == 0 })
	if advances(g) != 0 {
		t.Fatal("noted although the store failed")
	}
	g.line.set(func() { g.line.fail["advance"] = false })
	b.use(t, g)
}

func TestManager_Activity_countsWhatAnUpgradedConnectionBrings(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t, polling)
	b := newJar(h.signIn(t, g, alice).Cookies)
	p := mustAuthenticate(t, g, b)
	if a := g.Activity(b.at("/live/socket"), p); a != nil {
		t.Error("a connection that is to be ignored is counted")
	}
	if a := g.Activity(b.at("/socket"), session.Principal{}); a != nil {
		t.Error("a connection of nobody is counted")
	}
	var ignored *session.Activity
	ignored.Note()
	a := g.Activity(b.at("/socket"), p)
	began := h.clock.Now()
	writes := func() int {
		g.line.mu.Lock()
		defer g.line.mu.Unlock()
		return g.line.counts["put"]
	}
	before := writes()
	for range 3 * 60 * 2 { // three hours of data each 30 s, and nothing else
		h.clock.move(30 * time.Second)
		a.Note()
		a.Note()
		eventually(t, "the note to be written", func() bool { return session.Writing(g.Manager) == 0 })
	}
	if got := writes() - before; got < 30 || got > 36 {
		t.Errorf("writes in three hours: got %d, want one in five minutes", got)
	}
	if err := b.visitPath(t, g, "/"); err != nil {
		t.Errorf("after three hours of data from the client: %v", err)
	}
	// Without data from the client the session goes idle, however much is downloaded.
	h.clock.move(time.Hour + time.Second)
	a.Note()
	if err := b.visitPath(t, g, "/"); err == nil {
		t.Errorf("after an hour without data from the client: signed in, %v after the beginning", h.clock.Now().Sub(began))
	}
}

// An outage of ten seconds with 200 browsers that are signed in: tokens that were verified go on, tokens that expire get
// ErrUnavailable and keep their cookies, and afterwards nobody has to sign in again; however close they were to the idle limit.
func TestManager_anOutageSignsNobodyOut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := h.running(t, func(o *session.Options) { o.PerUser = 1000 }), h.running(t, func(o *session.Options) { o.PerUser = 1000 })
	const browsers = 200
	jars := make([]jarOf, browsers)
	for i := range jars {
		jars[i] = newJar(h.signIn(t, one, alice).Cookies).known(fmt.Sprint("laptop ", i))
		h.clock.move(time.Second)
	}
	h.clock.move(time.Hour - browsers*time.Second - 5*time.Second) // the first ones are five seconds short of idle
	for _, g := range []*gateway{one, two} {
		g.line.set(func() { g.line.cut = true })
		eventually(t, "the outage to be seen", func() bool { return !g.InStep() })
	}
	unavailable := 0
	for second := range 10 {
		h.clock.move(time.Second)
		for i, b := range jars {
			if i%10 != second {
				continue
			}
			_, cookies, err := b.visit([]*gateway{one, two}[i%2], wiki)
			if err != nil {
				wantErr(t, "during the outage", err, session.ErrUnavailable)
				unavailable++
			}
			if len(cookies) != 0 {
				t.Error("an answer during the outage sets cookies")
			}
		}
	}
	for _, g := range []*gateway{one, two} {
		g.line.set(func() { g.line.cut = false })
		eventually(t, "the gateway to heal", g.InStep)
	}
	for i, b := range jars {
		if _, cookies, err := b.visit([]*gateway{two, one}[i%2], wiki); err != nil {
			t.Errorf("browser %d after the outage: %v", i, err)
		} else {
			b.keep(cookies)
		}
	}
	if n := len(one.recorder.events) + len(two.recorder.events); n != 0 {
		t.Errorf("recorded: got %d events", n)
	}
	t.Logf("%d browsers, %d requests had to wait", browsers, unavailable)
}
