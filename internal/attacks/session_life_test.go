package attacks_test

import (
	"bufio"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/store/storetest"
)

// twoHomes are two gateways as one site, with alice, who has a second factor.
type twoHomes struct {
	one, other *gatewaytest.Gateway
	seed       string
	listens    []string // the addresses of both
}

func newHomes(t *testing.T, configure ...func(*configs.Config)) *twoHomes {
	t.Helper()
	h := &twoHomes{}
	h.one, h.other, _ = two(t, append(configure, func(c *configs.Config) { h.listens = append(h.listens, c.Listen) })...)
	h.one.AddUser("alice", "staff")
	h.seed = h.one.Enrol("alice")
	return h
}

// signIn makes a browser of alice, that both gateways have seen.
func (h *twoHomes) signIn(t *testing.T) *gatewaytest.Browser {
	t.Helper()
	b := h.one.SignIn("alice", h.seed)
	wantStatus(t, "signed in", b.Through(h.other).Get("/"), http.StatusOK)
	wantStatus(t, "signed in", b.Get("/"), http.StatusOK)
	return b
}

// thefts are the records of handles in other hands, of both gateways.
func (h *twoHomes) thefts() []audit.Record {
	return slices.DeleteFunc(append(h.one.Records(), h.other.Records()...), func(r audit.Record) bool { return r.Kind != audit.KindHandleTheft })
}

// cookie is the name of one of the browser's cookies, found by its end; "" is the shortest, the access token.
func cookie(t *testing.T, b *gatewaytest.Browser, end string) string {
	t.Helper()
	names := slices.SortedFunc(maps.Keys(b.Jar), func(a, b string) int { return len(a) - len(b) })
	for _, name := range names {
		if strings.HasSuffix(name, end) {
			return name
		}
	}
	t.Fatalf("the browser has no cookie that ends in %q", end)
	return ""
}

// only is the browser with these cookies alone.
func only(b *gatewaytest.Browser, names ...string) *gatewaytest.Browser {
	other := b.Copy()
	for name := range other.Jar {
		if !slices.Contains(names, name) {
			delete(other.Jar, name)
		}
	}
	return other
}

// upgrade asks for a WebSocket with the browser's cookies, and returns the status.
func upgrade(t *testing.T, b *gatewaytest.Browser) int {
	t.Helper()
	return b.Do(http.MethodGet, "/socket", nil, http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Origin": {site},
	}).StatusCode
}

// SE-07: what a logout ended is refused at once at both gateways, by whatever of it somebody kept, and ten minutes later.
func TestSE07_aLogoutEndsEveryCopyEverywhere(t *testing.T) {
	t.Parallel()
	h := newHomes(t)
	h.one.Clock.Add(time.Minute)
	b := h.one.NewBrowser()
	answer := b.Login("alice", gatewaytest.Password, h.one.Code(h.seed))
	signedIn(t, "alice", answer)
	bearer := answer.Field("access_token")
	wantStatus(t, "at the other gateway", b.Through(h.other).Get("/"), http.StatusOK)
	held := b.Copy()
	wantStatus(t, "logout", b.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil), http.StatusNoContent)
	ended := time.Now()

	access, handle := cookie(t, held, ""), cookie(t, held, "-session")
	kept := map[string]func(g *gatewaytest.Gateway) int{
		"both cookies":     func(g *gatewaytest.Gateway) int { return held.Copy().Through(g).Get("/").StatusCode },
		"the access token": func(g *gatewaytest.Gateway) int { return only(held, access).Through(g).Get("/").StatusCode },
		"the handle":       func(g *gatewaytest.Gateway) int { return only(held, handle).Through(g).Get("/").StatusCode },
		"a WebSocket":      func(g *gatewaytest.Gateway) int { return upgrade(t, held.Copy().Through(g)) },
		"who am I": func(g *gatewaytest.Gateway) int {
			return held.Copy().Through(g).Do(http.MethodGet, "/.gatehouse/api/v1/session", nil, nil).StatusCode
		},
		"the bearer token": func(g *gatewaytest.Gateway) int {
			return g.NewBrowser().Do(http.MethodGet, "/", nil, http.Header{"Authorization": {"Bearer " + bearer}}).StatusCode
		},
	}
	refused := func(status int) bool { return status == http.StatusFound || status == http.StatusUnauthorized }
	for what, send := range kept {
		if status := send(h.one); !refused(status) {
			t.Errorf("%s, at the gateway of the logout: got %d", what, status)
		}
		eventually(t, what+" to be refused at the other gateway", time.Second-time.Since(ended), func() bool { return refused(send(h.other)) })
	}
	h.one.Clock.Add(10 * time.Minute)
	for what, send := range kept {
		for _, g := range []*gatewaytest.Gateway{h.one, h.other} {
			if status := send(g); !refused(status) {
				t.Errorf("%s, ten minutes later: got %d", what, status)
			}
		}
	}
	if n := len(h.thefts()); n != 0 {
		t.Errorf("handles of an ended session: %d thefts recorded, want none", n)
	}
}

// pouring is an app whose answers never end: events on /events, bytes on everything else, echo on a WebSocket.
func pouring(conn net.Conn, in io.Reader, r wiretest.Request) {
	if len(r.Values("Upgrade")) > 0 {
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, in)
		return
	}
	kind, length, piece := "text/event-stream", "", "data: x\n\n"
	if r.Target() != "/events" {
		kind, length = "application/octet-stream", "Content-Length: 1000000000\r\n"
		piece = strings.Repeat("x", 64<<10)
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: "+kind+"\r\n"+length+"Connection: close\r\n\r\n")
	for {
		if _, err := io.WriteString(conn, piece); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// SE-07: what is open is cut, at the gateway of the logout and at the other: a WebSocket, a stream of events, a download.
func TestSE07_aLogoutCutsWhatIsOpen(t *testing.T) {
	t.Parallel()
	h := newHomesOf(t, pouring)
	b := h.signInOnly(t)
	open := map[string]net.Conn{}
	for i, name := range []string{"one", "other"} {
		for what, head := range map[string]string{
			"WebSocket": "GET /socket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: " + site + "\r\n",
			"stream": "GET /events HTTP/1.1\r\n", "download": "GET /file HTTP/1.1\r\n",
		} {
			conn := wiretest.Dial(t, h.listens[i])
			if _, err := io.WriteString(conn, head+"Host: "+strings.TrimPrefix(site, "http://")+"\r\nCookie: "+b.Cookies()+"\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			first := make([]byte, 12)
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.ReadFull(conn, first); err != nil || !strings.HasPrefix(string(first), "HTTP/1.1 101") && !strings.HasPrefix(string(first), "HTTP/1.1 200") {
				t.Fatalf("%s at %s: %q, %v", what, name, first, err)
			}
			open[what+" at "+name] = conn
		}
	}
	time.Sleep(300 * time.Millisecond) // so that each is watched, and is not refused as one that has just begun
	wantStatus(t, "logout", b.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil), http.StatusNoContent)
	ended := time.Now()
	for what, conn := range open {
		_ = conn.SetReadDeadline(ended.Add(20 * time.Second))
		_, err := io.Copy(io.Discard, conn)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Errorf("%s: not cut", what)
		} else if took := time.Since(ended); took > storetest.Within(time.Second) {
			t.Errorf("%s: cut after %v", what, took)
		}
	}
}

// newHomesOf is newHomes before an app of the test's own.
func newHomesOf(t *testing.T, app func(net.Conn, io.Reader, wiretest.Request)) *twoHomes {
	t.Helper()
	up := wiretest.NewScripted(t, func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		app(conn, in, r)
		return false
	})
	return newHomes(t, func(c *configs.Config) {
		if err := c.Upstream.UnmarshalText([]byte(up.URL)); err != nil {
			t.Fatal(err)
		}
	})
}

// signInOnly signs alice in without asking the app for anything.
func (h *twoHomes) signInOnly(t *testing.T) *gatewaytest.Browser {
	t.Helper()
	return h.one.SignIn("alice", h.seed)
}

// SE-08: what an administrator changes about an account counts with the next request of each session, and the next renewal.
func TestSE08_changesOfAnAccountReachEverySession(t *testing.T) {
	t.Parallel()
	h := newHomes(t)
	ctx := t.Context()
	for what, change := range map[string]func() error{
		"groups":   func() error { return h.one.Admin.SetGroups(ctx, "alice", []string{"guests"}, "moved") },
		"password": func() error { return h.one.Admin.SetPassword(ctx, "alice", gatewaytest.Password, "leaked") },
		"factor":   func() error { _, err := h.one.Admin.EnrolTOTP(ctx, "alice", "lost"); return err },
		"disabled": func() error { return h.one.Admin.DisableUser(ctx, "alice", "left") },
		"sessions": func() error { _, err := h.one.Admin.RevokeSessions(ctx, "alice", "stolen"); return err },
	} {
		if what == "disabled" {
			defer func() { _ = h.one.Admin.EnableUser(ctx, "alice", "back") }()
		}
		h.seed = h.one.Enrol("alice")
		browsers := []*gatewaytest.Browser{h.signIn(t), h.signIn(t), h.signIn(t)}
		h.one.Clock.Add(time.Second)
		if err := change(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if what == "disabled" {
			if err := h.one.Admin.EnableUser(ctx, "alice", "back"); err != nil { // what ended does not come back
				t.Fatal(err)
			}
		}
		changed := time.Now()
		for i, b := range browsers {
			wantStatus(t, what+": at the gateway of the change", b.Copy().Get("/"), http.StatusFound)
			there := b.Copy().Through(h.other)
			eventually(t, what+": at the other gateway", time.Second-time.Since(changed), func() bool { return there.Get("/").StatusCode == http.StatusFound })
			renewal := only(b, cookie(t, b, "-session"), cookie(t, b, "-device"))
			wantStatus(t, what+": the next renewal", renewal.Through([]*gatewaytest.Gateway{h.one, h.other}[i%2]).Get("/"), http.StatusFound)
		}
	}
	// Signing in again brings what the account is now.
	h.seed = h.one.Enrol("alice")
	if err := h.one.Admin.SetGroups(ctx, "alice", []string{"guests"}, "moved"); err != nil {
		t.Fatal(err)
	}
	h.one.Clock.Add(time.Second)
	h.signIn(t)
	if seen := h.other.Upstream.Last(t).Values("Remote-Groups"); !slices.Equal(seen, []string{"guests"}) {
		t.Errorf("groups of the next session: got %q", seen)
	}
}

// SE-09: a handle that is used twice, a minute apart and by another client, ends the whole session, on record.
func TestSE09_aHandleThatIsUsedTwiceEndsTheSession(t *testing.T) {
	t.Parallel()
	h := newHomes(t)
	for name, take := range map[string]func(b *gatewaytest.Browser) *gatewaytest.Browser{
		"the whole jar": (*gatewaytest.Browser).Copy,
		"the session's cookies": func(b *gatewaytest.Browser) *gatewaytest.Browser {
			return only(b, cookie(t, b, ""), cookie(t, b, "-session"))
		},
		"the handle": func(b *gatewaytest.Browser) *gatewaytest.Browser { return only(b, cookie(t, b, "-session")) },
	} {
		before := len(h.thefts())
		owner := h.signIn(t)
		thief := take(owner).At("198.51.100.7")
		h.one.Clock.Add(6 * time.Minute)
		wantStatus(t, name+": the owner renews", owner.Get("/"), http.StatusOK)
		owner.Get("/page") // with the new handle
		waitNoted(t)
		h.one.Clock.Add(time.Minute)
		wantStatus(t, name+": the thief", thief.Through(h.other).Get("/"), http.StatusFound)
		thefts := h.thefts()
		if len(thefts) != before+1 {
			t.Fatalf("%s: %d thefts on record, want one", name, len(thefts)-before)
		}
		found := false
		for _, r := range thefts {
			found = found || r.Severity == audit.High && r.Subject.Name == "alice" && r.Client.Address == "198.51.100.7" && r.Session != ""
		}
		if !found {
			t.Errorf("%s: got records %+v", name, thefts)
		}
		for at, g := range map[string]*gatewaytest.Gateway{"one": h.one, "other": h.other} {
			eventually(t, name+": the owner to be signed out at "+at, time.Second, func() bool { return owner.Copy().Through(g).Get("/").StatusCode == http.StatusFound })
		}
	}
}

// waitNoted gives the gateway the time to write down, beside its answer, that a handle was presented.
func waitNoted(t *testing.T) {
	t.Helper()
	time.Sleep(100 * time.Millisecond)
}

// SE-09, the other way round: tabs that renew at the same time over both gateways, and answers that never arrive, are no theft.
func TestSE09_parallelTabsAndLostAnswersAreNoTheft(t *testing.T) {
	t.Parallel()
	h := newHomes(t)
	b := h.signIn(t)
	random := rand.New(rand.NewPCG(5, 6))
	total := rounds(8, 500)
	for round := range total {
		h.one.Clock.Add(time.Duration(6+random.IntN(50)) * time.Minute)
		if round%20 == 19 { // before the absolute limit
			b = h.signIn(t)
			continue
		}
		tabs := make([]*gatewaytest.Browser, 6)
		var group sync.WaitGroup
		for i := range tabs {
			tabs[i] = b.Copy().Through([]*gatewaytest.Gateway{h.one, h.other}[i%2])
			group.Go(func() {
				answer, err := tabs[i].Try(http.MethodGet, "/", nil, gatewaytest.Document())
				if err != nil || answer.StatusCode != http.StatusOK {
					t.Errorf("round %d, tab %d: %d, %v", round, i, answer.StatusCode, err)
				}
			})
		}
		group.Wait()
		handle := cookie(t, tabs[0], "-session")
		for i, tab := range tabs {
			if tab.Jar[handle] != tabs[0].Jar[handle] {
				t.Errorf("round %d: tab %d has another descendant", round, i)
			}
		}
		if t.Failed() {
			return
		}
		if arrived := random.IntN(7); arrived < len(tabs) { // else every answer was lost
			maps.Copy(b.Jar, tabs[arrived].Jar)
		}
	}
	if n := len(h.thefts()); n != 0 {
		t.Errorf("%d thefts on record, want none", n)
	}
}

// SE-19: an hour without activity ends a session, a day ends every one; polling that the operator named does not keep it alive.
func TestSE19_idleAndAbsoluteLimitsHold(t *testing.T) {
	t.Parallel()
	h := newHomes(t, func(c *configs.Config) { c.Session.IgnoreActivity = []configs.PathPrefix{"/poll"} })
	for name, c := range map[string]struct {
		each time.Duration
		path string
		want time.Duration
	}{
		"nothing for an hour":      {each: time.Hour, path: "/", want: time.Hour},
		"a tab that polls":         {each: 30 * time.Second, path: "/poll/7", want: time.Hour},
		"a request each half hour": {each: 30 * time.Minute, path: "/", want: 24 * time.Hour},
	} {
		b := h.signIn(t)
		began := h.one.Clock.Now()
		for status := http.StatusOK; status == http.StatusOK; {
			h.one.Clock.Add(c.each)
			status = b.Through([]*gatewaytest.Gateway{h.one, h.other}[0]).Get(c.path).StatusCode
			if lived := h.one.Clock.Now().Sub(began); lived > 25*time.Hour {
				t.Fatalf("%s: lives after %v", name, lived)
			}
		}
		if lived := h.one.Clock.Now().Sub(began); lived > c.want || lived < c.want-c.each {
			t.Errorf("%s: lived %v, want %v", name, lived, c.want)
		}
	}
}

// SE-22: rotating the signing key signs nobody out, also while the other gateway does not know of it; the key set shows public
// parts only; a retired key ends.
func TestSE22_rotatingTheSigningKeyLosesNobody(t *testing.T) {
	t.Parallel()
	h := newHomes(t)
	jwks := func(g *gatewaytest.Gateway) (kids []string) {
		t.Helper()
		answer := g.NewBrowser().Do(http.MethodGet, "/.gatehouse/jwks.json", nil, nil)
		var set struct{ Keys []map[string]string }
		if err := json.Unmarshal([]byte(answer.Text), &set); err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("jwks: %d %s, %v", answer.StatusCode, answer.Text, err)
		}
		if cache := answer.Header.Get("Cache-Control"); !strings.Contains(cache, "max-age=") {
			t.Errorf("jwks: Cache-Control is %q", cache)
		}
		for _, key := range set.Keys {
			if got := slices.Sorted(maps.Keys(key)); !slices.Equal(got, []string{"alg", "crv", "kid", "kty", "use", "x"}) || key["kty"] != "OKP" {
				t.Errorf("jwks: a key has the members %v", got)
			}
			kids = append(kids, key["kid"])
		}
		return kids
	}
	first := jwks(h.one)
	before := h.signIn(t)
	if err := h.one.Admin.RotateKeys(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	after := h.signIn(t) // by the gateway that rotated; the other is asked at once
	for name, b := range map[string]*gatewaytest.Browser{"signed by the retired key": before, "signed by the new key": after} {
		for _, g := range []*gatewaytest.Gateway{h.one, h.other} {
			wantStatus(t, name, b.Copy().Through(g).Get("/"), http.StatusOK)
		}
	}
	eventually(t, "both key sets to be the same", time.Second, func() bool { return slices.Equal(jwks(h.one), jwks(h.other)) })
	if kids := jwks(h.other); len(kids) != 2 || kids[0] == first[0] || kids[1] != first[0] {
		t.Errorf("jwks after the rotation: got %v, the first key was %v", kids, first)
	}
	h.one.Clock.Add(3 * time.Minute) // signing in takes one, too
	wantStatus(t, "a token of the retired key, to its end", only(before, cookie(t, before, "")).Through(h.other).Get("/"), http.StatusOK)
	h.one.Clock.Add(3 * time.Minute)
	wantStatus(t, "a token of the retired key, after it", only(before, cookie(t, before, "")).Through(h.other).Get("/"), http.StatusFound)
	for _, b := range []*gatewaytest.Browser{before, after} {
		wantStatus(t, "renewed", b.Through(h.other).Get("/"), http.StatusOK)
	}
	// The key itself ends, by the schedule of both gateways.
	h.one.Clock.Add(2 * time.Minute)
	eventually(t, "the retired key to leave the key set", 5*time.Second, func() bool { return len(jwks(h.one)) == 1 && len(jwks(h.other)) == 1 })
	records := h.one.Records()
	if !slices.ContainsFunc(records, func(r audit.Record) bool { return r.Kind == audit.KindKeysRotated && r.Why == "test" }) {
		t.Error("the rotation is not on record")
	}
}
