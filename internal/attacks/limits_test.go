package attacks_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/store/storetest"
	"gatehouse/web"
)

// forged is every header in which a client could name another address than its own.
var forged = []string{
	"X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "X-Cluster-Client-IP", "X-Originating-IP",
	"X-Remote-IP", "X-Remote-Addr", "Fastly-Client-IP", "X-ProxyUser-Ip", "Via", "x_forwarded_for",
}

// Who is not listed as a proxy counts as its socket's address, whatever it claims; the claim is kept apart.
func TestRL01_claimedAddressesBuyNothing(t *testing.T) {
	t.Parallel()
	g := start(t, trustNobody)
	b := g.NewBrowser()
	tries := 200
	for i := range tries {
		header := http.Header{"Content-Type": {"application/json"}}
		claim := fmt.Sprintf("203.0.%d.%d", i>>8, i&0xff)
		for _, name := range forged {
			header.Set(name, claim)
		}
		header.Set("Forwarded", "for="+claim)
		body := fmt.Sprintf(`{"username":"nobody-%d","password":%q}`, i, guess(i))
		answer := b.Do(http.MethodPost, loginPath, strings.NewReader(body), header)
		want := problem.InvalidCredentials
		if i >= 10 {
			want = problem.RateLimited
		}
		refused(t, "try "+strconv.Itoa(i), answer, want)
	}
	if ran := g.Verifications(); ran != 10 {
		t.Errorf("%d verifications ran, want 10", ran)
	}
	for i, r := range g.Logins() {
		if r.Client.Address != "127.0.0.1" || r.Client.Network != "127.0.0.0/24" {
			t.Errorf("the log says %s in %s, want the socket's peer", r.Client.Address, r.Client.Network)
		}
		if want := fmt.Sprintf("203.0.0.%d", i); !strings.Contains(r.Client.Claimed, want) {
			t.Errorf("the log says %q was claimed, want %s", r.Client.Claimed, want)
		}
	}
	g.Stop()
	if n := g.counted(audit.ReasonBucketEmpty); n != int64(tries-10) {
		t.Errorf("the log counts %d refusals, want %d", n, tries-10)
	}
}

// The default list of proxies is empty, and empty means nobody.
func TestRL02_noListMeansNobody(t *testing.T) {
	t.Parallel()
	if n := len(configs.Default().TrustedProxies); n != 0 {
		t.Fatalf("%d proxies are trusted by default", n)
	}
	g := start(t, func(c *configs.Config) { c.TrustedProxies = configs.Default().TrustedProxies })
	b := g.NewBrowser().At("203.0.113.9")
	b.Header = http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"evil.example"}, "X-Forwarded-Prefix": {"/evil"}}
	refused(t, "guess", b.Login("nobody-1", guess(1), ""), problem.InvalidCredentials)
	if r := g.last(); r.Client.Address != "127.0.0.1" {
		t.Errorf("the log says %s", r.Client.Address)
	}
	answer := b.Get("/report")
	if got := answer.Header.Get("Location"); !strings.HasPrefix(got, g.URL+"/.gatehouse/login?") {
		t.Errorf("sent to %s", got)
	}
	if page := b.Get("/.gatehouse/login"); strings.Contains(page.Text, "evil") {
		t.Error("the page names the host of a header")
	}
}

// from makes browsers connect from an address of loopback.
func from(t *testing.T, local string) func(network, address string) (net.Conn, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
	return func(network, address string) (net.Conn, error) {
		return dialer.DialContext(t.Context(), network, address)
	}
}

// seenFrom sends one guess from a socket address with these lines of X-Forwarded-For, and returns which address was counted.
func (g *target) seenFrom(local string, lines ...string) string {
	g.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
		return from(g.t, local)(network, address)
	}}
	body := fmt.Sprintf(`{"username":"nobody-%d","password":%q}`, len(g.Logins()), guess(1))
	r, err := http.NewRequestWithContext(g.t.Context(), http.MethodPost, "http://"+g.Origin.Host+loginPath, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"application/json"}, "X-Forwarded-For": lines}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		g.t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusUnauthorized {
		g.t.Fatalf("from %s with %q: %d", local, lines, answer.StatusCode)
	}
	return g.last().Client.Address
}

// The walk goes from the right over all lines, as far as the hops are listed, and never past what it cannot read.
func TestRL03_theWalkGoesFromTheRight(t *testing.T) {
	t.Parallel()
	g := start(t, func(c *configs.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
		c.Login.RateLimit.Burst = 1000
	})
	many := strings.Repeat("9.9.9.9, ", 199)
	for _, test := range []struct {
		lines []string
		want  string
	}{
		{nil, "127.0.0.2"},
		{[]string{"9.9.9.9, 10.0.0.1"}, "10.0.0.1"},
		{[]string{"9.9.9.9", "10.0.0.1"}, "10.0.0.1"},
		{[]string{"9.9.9.9, 10.0.0.1", "127.0.0.2"}, "10.0.0.1"},
		{[]string{"9.9.9.9", "10.0.0.1", "127.0.0.2, 127.0.0.2"}, "10.0.0.1"},
		{[]string{"9.9.9.9,"}, "127.0.0.2"},
		{[]string{"9.9.9.9", ""}, "127.0.0.2"},
		{[]string{"9.9.9.9,,127.0.0.2"}, "127.0.0.2"},
		{[]string{"9.9.9.9, 10.0.0.1:4711"}, "10.0.0.1"},
		{[]string{"9.9.9.9, [::1]:80"}, "::1"},
		{[]string{"9.9.9.9, [2001:db8::1]"}, "2001:db8::1"},
		{[]string{"9.9.9.9, fe80::1%eth0"}, "fe80::1"},
		{[]string{"9.9.9.9, unknown"}, "127.0.0.2"},
		{[]string{"9.9.9.9, _hidden"}, "127.0.0.2"},
		{[]string{"9.9.9.9, 10.0.0.1.example"}, "127.0.0.2"},
		{[]string{"9.9.9.9, 010.0.0.1"}, "127.0.0.2"},
		{[]string{"9.9.9.9, \t 10.0.0.1 \t"}, "10.0.0.1"},
		{[]string{many + "10.0.0.1"}, "10.0.0.1"},
		{[]string{"9.9.9.9, " + strings.Repeat("127.0.0.2, ", 199) + "127.0.0.2"}, "127.0.0.2"},
		{[]string{"9.9.9.9, ::ffff:10.0.0.1"}, "10.0.0.1"},
	} {
		if got := g.seenFrom("127.0.0.2", test.lines...); got != test.want {
			t.Errorf("%.60q: counted as %s, want %s", test.lines, got, test.want)
		}
	}
	if got := g.seenFrom("127.0.0.3", "10.0.0.1"); got != "127.0.0.3" {
		t.Errorf("a neighbour of the proxy: counted as %s", got)
	}
}

// One address has one bucket and one answer about trust, however it is written.
func TestRL04_oneAddressHasOneBucket(t *testing.T) {
	t.Parallel()
	for what, trusted := range map[string]string{"plain": "127.0.0.1/32", "mapped": "::ffff:127.0.0.1/128", "mapped net": "::ffff:127.0.0.0/104"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g := start(t, func(c *configs.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(trusted)} })
			for _, spelled := range [][]string{
				{"192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201", "192.0.2.1:80", "[::ffff:192.0.2.1]:443"},
				{"::1", "0:0:0:0:0:0:0:1", "[::1]:80", "0000::0001", "::1%lo"},
			} {
				for i := range 12 {
					answer := g.NewBrowser().At(spelled[i%len(spelled)]).Login(fmt.Sprintf("nobody-%d", i), guess(i), "")
					want := problem.InvalidCredentials
					if i >= 10 {
						want = problem.RateLimited
					}
					refused(t, spelled[i%len(spelled)], answer, want)
					if r := g.last(); r.Client.Address != spelled[0] {
						t.Errorf("%s is in the log as %s", spelled[i%len(spelled)], r.Client.Address)
					}
				}
			}
		})
	}
}

// A delegated prefix buys no more guesses than one line.
func TestRL05_prefixesShareABucket(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, test := range []struct {
		what    string
		address func(i int) string
		allowed int
	}{
		{"one /64", func(i int) string { return fmt.Sprintf("2001:db8:1:1:%x:%x::1", i>>8, i) }, 10},
		{"one /48", func(i int) string { return fmt.Sprintf("2001:db8:2:%x::1", i) }, 40},
	} {
		b, passed := g.NewBrowser(), 0
		for i := range rounds(60, 10_000) {
			answer := b.At(test.address(i)).Login(fmt.Sprintf("nobody-%d", i), guess(i), "")
			if answer.ProblemCode() == string(problem.InvalidCredentials) {
				passed++
				continue
			}
			refused(t, test.what, answer, problem.RateLimited)
		}
		if passed != test.allowed {
			t.Errorf("%s: %d guesses were verified, want %d", test.what, passed, test.allowed)
		}
	}
	if ran := g.Verifications(); ran != 50 {
		t.Errorf("%d verifications ran, want 50", ran)
	}
}

// A failure is on disk before its answer leaves: the program is killed behind each answer, and forgets none. This is the program as
// it is shipped, with its own clock and bcrypt at its full cost.
func TestRL07_failuresSurviveKillsOfTheGateway(t *testing.T) {
	t.Parallel()
	p := gatewaytest.StartProcess(t, gatewaytest.ProcessOptions{Program: gatewaytest.Build(t)})
	seed := p.AddUser("alice")
	for i := range 5 {
		refused(t, "guess "+strconv.Itoa(i), p.NewBrowser().Login("alice", guess(i), ""), problem.InvalidCredentials)
		p.Kill()
		p.Start()
		windows, err := p.Admin.Lockout(t.Context(), "alice")
		if err != nil || len(windows) != 1 || windows[0].Failures != i+1 {
			t.Fatalf("after kill %d: windows %+v, %v; want %d failures", i+1, windows, err, i+1)
		}
	}
	refused(t, "the right password", p.NewBrowser().Login("alice", gatewaytest.Password, p.Code(seed)), problem.Locked)
	told := 0
	for _, r := range p.Records() {
		if r.Kind == audit.KindLogin && r.Trace.Of(audit.StepPassword).Reason == audit.ReasonWrongPassword {
			told++
		}
	}
	if told != 5 {
		t.Errorf("the log holds %d wrong passwords, want 5", told)
	}
}

func TestRL07_failuresSurviveKillsOfRedis(t *testing.T) {
	t.Parallel()
	g, s := startOnRedis(t)
	seed := g.enrolled("alice")
	for i := range 5 {
		refused(t, "guess "+strconv.Itoa(i), g.next().Login("alice", guess(i), ""), problem.InvalidCredentials)
		s.Kill()
		refused(t, "while it is away", g.next().Login("alice", guess(i), ""), problem.Unavailable)
		s.Restart()
		storetest.WithinPatience(t, func() error { _, err := g.Admin.Lockouts(t.Context()); return err })
		if n := g.wrongPasswords("alice"); n != i+1 {
			t.Fatalf("after kill %d: %d failures, want %d", i+1, n, i+1)
		}
	}
	refused(t, "the right password", g.next().Login("alice", gatewaytest.Password, g.Code(seed)), problem.Locked)
	if ran := g.Verifications(); ran != 5 {
		t.Errorf("%d verifications ran, want 5", ran)
	}
}

// Every POST that is served without a session draws from the bucket: asked of the router itself, so that a new route cannot be
// forgotten.
func TestRL08_everyPostDrawsAToken(t *testing.T) {
	t.Parallel()
	g := start(t)
	edge, err := web.New(web.Options{External: g.Origin, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	posts := 0
	for _, route := range slices.Concat(edge.Routes(), edge.HostRoutes()) {
		if route.Post == nil {
			continue
		}
		posts++
		b := g.next()
		for i := range 12 {
			answer := b.Do(http.MethodPost, route.Path, strings.NewReader(emptyBody(route.Path)), postHeader(g, route.Path))
			if limited := answer.StatusCode == http.StatusTooManyRequests; limited != (i >= 10) {
				t.Errorf("POST %s, number %d: %d %.200s", route.Path, i+1, answer.StatusCode, answer.Text)
			}
		}
		if !route.Limited {
			t.Errorf("POST %s is not marked as limited", route.Path)
		}
	}
	if posts < 5 {
		t.Errorf("the router names %d POSTs", posts)
	}
	if ran := g.Verifications(); ran != 0 {
		t.Errorf("%d verifications ran for empty requests", ran)
	}
}

func emptyBody(path string) string {
	if strings.Contains(path, "/api/") {
		return "{}"
	}
	return ""
}

func postHeader(g *target, path string) http.Header {
	if strings.Contains(path, "/api/") {
		return http.Header{"Content-Type": {"application/json"}}
	}
	header := gatewaytest.Document()
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	header.Set("Origin", g.URL)
	header.Set("Sec-Fetch-Site", "same-origin")
	return header
}

// The refusal says when to come again, and that is true to the second. Nothing gets around it.
func TestRL09_theRefusalIsExact(t *testing.T) {
	t.Parallel()
	g := start(t)
	b := g.next()
	for i := range 10 {
		refused(t, "guess", b.Login(fmt.Sprintf("nobody-%d", i), guess(i), ""), problem.InvalidCredentials)
	}
	answer := b.Login("nobody", guess(10), "")
	refused(t, "the eleventh", answer, problem.RateLimited)
	if strings.Contains(answer.Text, "nobody") {
		t.Errorf("the refusal repeats what was sent: %s", answer.Text)
	}
	wait, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	if err != nil || wait != 6 {
		t.Fatalf("Retry-After %q, want 6", answer.Header.Get("Retry-After"))
	}
	for _, method := range []string{http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodPatch, http.MethodDelete, "LOGIN"} {
		answer := b.Do(method, loginPath, strings.NewReader(`{"username":"nobody","password":"x"}`), http.Header{"Content-Type": {"application/json"}})
		if answer.StatusCode != http.StatusMethodNotAllowed || answer.Header.Get("Allow") != "POST" {
			t.Errorf("%s: %d, Allow %q", method, answer.StatusCode, answer.Header.Get("Allow"))
		}
	}
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		header := http.Header{"Content-Type": {"application/json"}, name: {"GET"}}
		refused(t, name, b.Do(http.MethodPost, loginPath, strings.NewReader("{}"), header), problem.RateLimited)
		answer := b.Do(http.MethodGet, loginPath+"?_method=POST", nil, http.Header{name: {"POST"}})
		refused(t, "GET with "+name, answer, problem.MethodNotAllowed)
	}
	g.Clock.Add(time.Duration(wait)*time.Second - time.Millisecond)
	refused(t, "a moment too early", b.Login("nobody", guess(11), ""), problem.RateLimited)
	g.Clock.Add(time.Millisecond)
	refused(t, "in time", b.Login("nobody", guess(12), ""), problem.InvalidCredentials)
	refused(t, "one more", b.Login("nobody", guess(13), ""), problem.RateLimited)
	if ran := g.Verifications(); ran != 11 {
		t.Errorf("%d verifications ran, want 11", ran)
	}
}

// A whole office behind one address signs in, ten at a time: what was right gives its token back.
func TestRL12_anOfficeSignsIn(t *testing.T) {
	t.Parallel()
	const people, atOnce = 30, 10
	g := start(t)
	seeds := make([]string, people)
	for i := range people {
		name := fmt.Sprintf("user-%d", i)
		g.importHash(name, gatewaytest.Password) // so that hashes are upgraded meanwhile
		seeds[i] = g.Enrol(name)
	}
	places := make(chan struct{}, atOnce)
	var group sync.WaitGroup
	for i := range people {
		b, name, code := g.NewBrowser().At("192.0.2.1"), fmt.Sprintf("user-%d", i), g.Code(seeds[i])
		group.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			if answer := b.JSON(loginPath, map[string]string{"username": name, "password": gatewaytest.Password, "code": code}); answer.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %s", name, answer.StatusCode, answer.Text)
			}
		})
	}
	group.Wait()
	// By the page it takes two requests each.
	g.Clock.Add(time.Minute)
	for i := range people {
		b := g.NewBrowser().At("192.0.2.1")
		if answer := b.Password(fmt.Sprintf("user-%d", i), gatewaytest.Password); answer.StatusCode != http.StatusSeeOther {
			t.Errorf("user %d, password: %d", i, answer.StatusCode)
		} else if answer = b.Code(g.Code(seeds[i])); answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != g.URL+"/" {
			t.Errorf("user %d, code: %d to %s", i, answer.StatusCode, answer.Header.Get("Location"))
		}
	}
	// And the bucket is as full as before: ten wrong ones fit.
	b := g.NewBrowser().At("192.0.2.1")
	for i := range 11 {
		want := problem.InvalidCredentials
		if i == 10 {
			want = problem.RateLimited
		}
		refused(t, "afterwards", b.Login(fmt.Sprintf("nobody-%d", i), guess(i), ""), want)
	}
}

// A flood from as many addresses as it likes keeps the line of the password pool full. What finds no place is refused at once; the owner on
// a known device has a line of their own, and signs in while it goes on. What everybody else's requests feel of it is a speed, which `make
// bench` measures beside the same gateway at rest ("while 500 logins a second arrive", internal/bench/flood.go).
func TestRX01_aFloodKeepsNoOwnerOut(t *testing.T) {
	t.Parallel()
	const flooders, line = 48, 32                   // the places of strangers
	g := startWith(t, gatewaytest.Options{Cost: 8}) // slow enough that the line stays full
	seed := g.enrolled("alice")
	owner := g.SignIn("alice", seed)
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	var refusedAtOnce atomic.Int64
	for i := range flooders {
		b := g.NewBrowser().At(fmt.Sprintf("198.18.%d.1", i))
		flood.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				answer := b.Login(fmt.Sprintf("nobody-%d-%d", i, n), guess(n), "")
				if answer.StatusCode == http.StatusServiceUnavailable {
					refusedAtOnce.Add(1)
					time.Sleep(50 * time.Millisecond) // bounded load
				}
			}
		})
	}
	for refusedAtOnce.Load() == 0 { // until the line is full
		time.Sleep(time.Millisecond)
	}
	// The worker has what is left of the machine, which may be so little that no turn comes in 5 s; whose turn it is counts. Some strangers
	// are served while the request is on its way, and not all who wait.
	for try := 1; ; try++ {
		g.Clock.Add(time.Minute) // another code
		ran := g.Verifications()
		answer := owner.Login("alice", gatewaytest.Password, g.Code(seed))
		before := g.Verifications() - ran - 1
		if answer.StatusCode == http.StatusServiceUnavailable && before < line/2 && try < 10 {
			continue
		}
		if answer.StatusCode != http.StatusOK || before >= line/2 {
			t.Errorf("the owner on a known device: %d behind %d strangers, %s", answer.StatusCode, before, answer.ProblemCode())
		}
		break
	}
	stop()
	flood.Wait()
}

// Ten thousand refusals of one client are some lines of the log and not ten thousand, and not one of them is lost.
func TestRX06_refusalsDoNotFillTheDisk(t *testing.T) {
	t.Parallel()
	refusals := rounds(1000, 10_000)
	g := start(t)
	b := g.NewBrowser().At("192.0.2.6")
	for i := range 10 { // the bucket
		b.Login("nobody", guess(i), "")
	}
	before, began := len(g.Records()), time.Now()
	for i := range refusals {
		refused(t, "an empty bucket", b.Login("nobody", guess(i), ""), problem.RateLimited)
	}
	seconds := int(time.Since(began)/time.Second) + 1
	deadline := time.Now().Add(10 * time.Second)
	for g.counted(audit.ReasonBucketEmpty) < int64(refusals) && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond) // until the last second is written
	}
	if got := g.counted(audit.ReasonBucketEmpty); got != int64(refusals) {
		t.Errorf("%d refusals are counted, want %d", got, refusals)
	}
	if lines := len(g.Records()) - before; lines > 2*(seconds+2) {
		t.Errorf("%d records for %d refusals in %d s, want one a second or two", lines, refusals, seconds)
	}
}
