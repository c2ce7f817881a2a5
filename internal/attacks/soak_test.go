package attacks_test

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

// RX-07: everything at once for half an hour (seconds, where nothing is proved), on an embedded store and on two gateways that
// share a Redis: nothing races, nothing panics, and goroutines, descriptors and memory do not grow.
func TestRX07_everythingAtOnceLeavesNothingBehind(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(app.Close)
	clock := gatewaytest.NewClock()
	before := func(c *configs.Config) {
		c.Proxy.IdleTimeout = time.Second // connections to the app that are only kept are no growth
		if err := c.Upstream.UnmarshalText([]byte(app.URL)); err != nil {
			t.Fatal(err)
		}
	}
	server, key := storetest.Redis(t), gatewaytest.RootKey()
	alone := gatewaytest.Start(t, gatewaytest.Options{Clock: clock, External: site, Configure: before})
	shared := []*gatewaytest.Gateway{startOn(t, server.URL(), key, clock, before), startOn(t, server.URL(), key, clock, before)}

	c := &crowd{t: t, clock: clock, done: map[string]int{}}
	for i := range 6 {
		c.visitors = append(c.visitors, newVisitor(c, i, alone), newVisitor(c, 100+i, shared...))
	}
	whole := time.Duration(storetest.Rounds(4, 30*60)) * time.Second
	c.live(max(whole/10, 2*time.Second)) // opens what is kept
	held := settled(t)
	c.live(whole)
	backTo(t, held, whole.String()+" of everything at once")
	t.Logf("proof: in %s: %v", whole, c.done)
	for _, act := range []string{"200 request", "200 login", "401 wrong login", "101 WebSocket", "200 bearer", "204 logout", "revocation", "renewal"} {
		if c.done[act] == 0 {
			t.Errorf("none of: %s; there were %v", act, c.done)
		}
	}
	for _, g := range append(shared, alone) {
		c.soundAfter(g)
	}
}

// echo is an app that sends back what it gets, on a WebSocket too.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		_, _ = io.Copy(w, r.Body)
		return
	}
	conn, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, _ = io.Copy(conn, in)
}

// crowd is many visitors at once.
type crowd struct {
	t        *testing.T
	clock    *gatewaytest.Clock
	visitors []*visitor

	mu   sync.Mutex
	done map[string]int // guarded by mu: how often each came out, as in "200 login"
}

func (c *crowd) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[what]++
}

// live lets everybody do what they like for a while. The clock goes forty times as fast as real time and leaps once a second, so that
// tokens are renewed, sessions and windows end, and keys change by their schedule.
func (c *crowd) live(how time.Duration) {
	var over atomic.Bool
	var group sync.WaitGroup
	for _, v := range c.visitors {
		group.Go(func() {
			for at := range v.homes { // so that it holds a connection by each of its browsers
				v.page(at)
				v.request(v.tabs[at], http.MethodGet, nil)
			}
			for !over.Load() {
				v.act()
			}
			v.hangUp()
		})
	}
	for tick, end := 0, time.Now().Add(how); time.Now().Before(end); tick++ {
		time.Sleep(50 * time.Millisecond)
		c.clock.Add(2 * time.Second)
		if tick%20 == 19 {
			c.clock.Add(6 * time.Minute)
		}
	}
	over.Store(true)
	group.Wait()
}

// soundAfter checks a gateway that has been through it.
func (c *crowd) soundAfter(g *gatewaytest.Gateway) {
	c.t.Helper()
	g.AddUser("late-" + g.Dir[strings.LastIndex(g.Dir, "/")+1:])
	name := "late-" + g.Dir[strings.LastIndex(g.Dir, "/")+1:]
	wantStatus(c.t, "afterwards", g.SignIn(name, g.Enrol(name)).Get("/"), http.StatusOK)
	if strings.Contains(g.Log.String(), "panic") {
		c.t.Errorf("something panicked:\n%s", g.Log)
	}
	if thefts := slices.DeleteFunc(g.Records(), func(r audit.Record) bool { return r.Kind != audit.KindHandleTheft }); len(thefts) != 0 {
		c.t.Errorf("%d thefts on record, want none", len(thefts))
	}
}

// visitor is an account with one browser, which a balancer sends to any of the gateways, and a second one without a cookie. It
// belongs to one goroutine.
type visitor struct {
	*crowd
	name, seed string
	used       string // the last code
	homes      []*gatewaytest.Gateway
	tabs       []*gatewaytest.Browser // one jar, through each gateway
	strangers  []*gatewaytest.Browser // no jar
	random     *rand.Rand
	address    int
	bearer     string
	socket     net.Conn
}

func newVisitor(c *crowd, number int, homes ...*gatewaytest.Gateway) *visitor {
	name := "visitor-" + decimal(number)
	homes[0].AddUser(name)
	v := &visitor{crowd: c, name: name, seed: homes[0].Enrol(name), homes: homes, random: rand.New(rand.NewPCG(7, uint64(number))), address: number << 13}
	first := homes[0].NewBrowser()
	for _, g := range homes {
		v.tabs = append(v.tabs, first.Through(g))
		v.strangers = append(v.strangers, g.NewBrowser())
	}
	return v
}

// act does one thing, most often what people do most.
func (v *visitor) act() {
	at := v.random.IntN(len(v.homes))
	switch n := v.random.IntN(100); {
	case n < 55:
		v.request(v.tabs[at], http.MethodGet, nil)
	case n < 65:
		v.request(v.tabs[at], http.MethodPost, strings.NewReader("a comment"))
	case n < 75:
		v.token(at)
	case n < 82:
		v.openSocket(at)
	case n < 90:
		v.guess(at)
	case n < 94:
		v.logout(v.tabs[at])
	case n < 96:
		v.administer(v.homes[at])
	default:
		v.page(at)
	}
}

// request asks the app for something, and signs in where the session has ended.
func (v *visitor) request(tab *gatewaytest.Browser, method string, body io.Reader) {
	before := maps.Clone(tab.Jar)
	answer := v.try("request", tab, method, "/page", body, gatewaytest.Document())
	switch {
	case answer.Response == nil:
	case answer.StatusCode == http.StatusOK && !maps.Equal(before, tab.Jar):
		v.count("renewal")
	case answer.StatusCode == http.StatusFound || answer.StatusCode == http.StatusUnauthorized:
		v.login(tab)
	}
}

// login signs in from another address each time, unless there is no new code yet. Its step may have gone by with a leap of the clock.
func (v *visitor) login(tab *gatewaytest.Browser) {
	code := v.homes[0].Code(v.seed)
	if code == v.used {
		return
	}
	v.used = code
	answer := v.post("login", v.from(tab), fmt.Sprintf(`{"username":%q,"password":%q,"code":%q}`, v.name, gatewaytest.Password, code))
	if answer.Response != nil && answer.StatusCode == http.StatusOK {
		v.bearer = answer.Field("access_token")
	}
}

// guess is a wrong password, of this account or of one that does not exist.
func (v *visitor) guess(at int) {
	name := v.name
	if v.random.IntN(4) > 0 {
		name = "nobody-" + decimal(v.random.IntN(1000))
	}
	v.post("wrong login", v.from(v.strangers[at]), fmt.Sprintf(`{"username":%q,"password":"not the password"}`, name))
}

// token presents the bearer token of the last login.
func (v *visitor) token(at int) {
	v.try("bearer", v.strangers[at], http.MethodGet, "/api", nil, http.Header{"Authorization": {"Bearer " + v.bearer}})
}

// page opens the login page and goes away.
func (v *visitor) page(at int) {
	stranger := v.strangers[at]
	v.try("page", stranger, http.MethodGet, "/.gatehouse/login?next=/page", nil, gatewaytest.Document())
	clear(stranger.Jar)
}

func (v *visitor) logout(tab *gatewaytest.Browser) {
	if len(tab.Jar) > 0 {
		v.try("logout", tab, http.MethodPost, "/.gatehouse/api/v1/logout", nil, http.Header{"Origin": {site}, "Sec-Fetch-Site": {"same-origin"}})
	}
}

// administer ends the visitor's sessions, or takes its lockout away; rarely it changes the keys.
func (v *visitor) administer(g *gatewaytest.Gateway) {
	var err error
	switch n := v.random.IntN(20); {
	case n < 10:
		_, err = g.Admin.RevokeSessions(v.t.Context(), v.name, "soak")
		v.count("revocation")
	case n < 19:
		err = g.Admin.ResetLockout(v.t.Context(), v.name, "soak")
	default:
		err = g.Admin.RotateKeys(v.t.Context(), "soak")
	}
	if err != nil {
		v.count("administration: " + err.Error())
	}
}

// openSocket opens a WebSocket, which stays until the next one if nothing cuts it, and says something on it.
func (v *visitor) openSocket(at int) {
	v.hangUp()
	conn, err := v.homes[at].Dial(v.t.Context(), "tcp", v.homes[at].Origin.Host)
	if err != nil {
		v.t.Error(err)
		return
	}
	v.socket = conn
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: %s\r\n\r\n", v.homes[at].Origin.Host, v.tabs[at].Cookies(), site)
	head := make([]byte, len("HTTP/1.1 101"))
	if _, err := io.ReadFull(conn, head); err != nil {
		v.t.Errorf("WebSocket: %v", err)
		return
	}
	v.count(string(head[len("HTTP/1.1 "):]) + " WebSocket")
	_, _ = io.WriteString(conn, "hello") // may be cut
}

func (v *visitor) hangUp() {
	if v.socket != nil {
		_ = v.socket.Close()
		v.socket = nil
	}
}

// from sends a browser to another network.
func (v *visitor) from(b *gatewaytest.Browser) *gatewaytest.Browser {
	v.address++
	return b.At(address(v.address))
}

// post sends a JSON body to the JSON login.
func (v *visitor) post(what string, b *gatewaytest.Browser, body string) gatewaytest.Answer {
	return v.try(what, b, http.MethodPost, loginPath, strings.NewReader(body), http.Header{"Content-Type": {"application/json"}})
}

// try counts what comes out of a request; an error of the gateway's own, or of the way to the app, fails the test.
func (v *visitor) try(what string, b *gatewaytest.Browser, method, path string, body io.Reader, header http.Header) gatewaytest.Answer {
	answer, err := b.Try(method, path, body, header)
	if err != nil {
		v.t.Errorf("%s: %v", what, err)
		return answer
	}
	v.count(fmt.Sprintf("%d %s", answer.StatusCode, what))
	if answer.StatusCode == http.StatusInternalServerError || answer.StatusCode == http.StatusBadGateway || answer.StatusCode == http.StatusGatewayTimeout {
		v.t.Errorf("%s: %d %.300s", what, answer.StatusCode, answer.Text)
	}
	return answer
}
