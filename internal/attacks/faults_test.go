package attacks_test

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/admin/api"
	"gatehouse/admin/client"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/store/storetest"
)

// promptly is how long an answer may take while the store fails: the 2 s of docs/design.md, and 800 ms for two cores that run
// several gateways under the race detector. One operation is given up after 1.5 s, so a request that waits for two shows.
const promptly = 2800 * time.Millisecond

// fault is a way in which a Redis fails.
type fault struct {
	name  string
	begin func(*storetest.Proxy, *storetest.Server)
	// reads: what is in the store can still be read. works: everything may still succeed, if slowly.
	reads, works bool
}

// faults are the ways of RD-01 and RD-13, and a server that has become a replica.
func faults() []fault {
	proxied := func(begin func(*storetest.Proxy)) func(*storetest.Proxy, *storetest.Server) {
		return func(p *storetest.Proxy, _ *storetest.Server) { begin(p) }
	}
	answer := func(text string) func(*storetest.Proxy, *storetest.Server) {
		return proxied(func(p *storetest.Proxy) { p.Answer([]byte(text)) })
	}
	delay := func(d time.Duration) func(*storetest.Proxy, *storetest.Server) {
		return proxied(func(p *storetest.Proxy) { p.Delay(d) })
	}
	return []fault{
		{name: "refused", begin: proxied((*storetest.Proxy).Refuse)},
		{name: "black hole", begin: proxied((*storetest.Proxy).BlackHole)},
		{name: "slow 500 ms", begin: delay(500 * time.Millisecond), reads: true, works: true},
		{name: "slow 2 s", begin: delay(2 * time.Second)},
		{name: "slow 30 s", begin: delay(30 * time.Second)},
		{name: "reset before reply", begin: proxied((*storetest.Proxy).ResetBeforeReply)},
		{name: "read-only", reads: true, begin: func(_ *storetest.Proxy, s *storetest.Server) {
			s.MustDo("REPLICAOF", "127.0.0.1", "1")
		}},
		{name: "garbage", begin: answer("HTTP/1.1 200 OK\r\n\r\n<html>")},
		{name: "a string of 512 MB", begin: answer("$536870912\r\n")},
		{name: "messages nobody asked for", begin: answer(strings.Repeat(">2\r\n+message\r\n+x\r\n", 1000))},
	}
}

func heal(p *storetest.Proxy, s *storetest.Server) {
	p.Pass()
	s.MustDo("REPLICAOF", "NO", "ONE")
}

// outage is a gateway behind a line that fails, one that is well, and people in every stage of their login.
type outage struct {
	t          *testing.T
	fault      fault
	proxy      *storetest.Proxy
	server     *storetest.Server
	sick, well *gatewaytest.Gateway

	rootKey                     string
	secrets                     map[string]string
	seen, unseen, renewed       *gatewaytest.Browser
	leaving, leavingByForm      *gatewaytest.Browser
	atForm, atCode              *gatewaytest.Browser
	formToken, codeToken, outID string
	challenge                   string
}

func newOutage(t *testing.T, f fault) *outage {
	o := &outage{t: t, fault: f, server: storetest.Redis(t), secrets: map[string]string{}}
	o.proxy = storetest.FaultProxy(t, o.server.Addr())
	key, clock := gatewaytest.RootKey(), gatewaytest.NewClock()
	o.sick = startOn(t, o.proxy.URL(), key, clock)
	o.well = startOn(t, o.server.URL(), key, clock)
	for _, name := range []string{"alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan"} {
		o.well.AddUser(name)
		o.secrets[name] = o.well.Enrol(name)
	}
	signIn := func(g *gatewaytest.Gateway, name string) *gatewaytest.Browser {
		return g.SignIn(name, o.secrets[name])
	}
	o.rootKey = key
	o.renewed, o.leaving = signIn(o.sick, "bob"), signIn(o.sick, "carol")
	o.leavingByForm, o.seen = signIn(o.sick, "dave"), signIn(o.sick, "alice")
	o.unseen = signIn(o.well, "erin").Through(o.sick)
	for name := range o.renewed.Jar {
		if !strings.Contains(strings.TrimPrefix(name, "__Host-gatehouse"), "-") {
			delete(o.renewed.Jar, name) // the access token
		}
	}
	for _, b := range []*gatewaytest.Browser{o.seen, o.leaving, o.leavingByForm} {
		wantStatus(t, "before the fault", b.Get("/"), http.StatusOK)
	}
	o.outID = gatewaytest.FormToken(t, o.leavingByForm.Get("/.gatehouse/logout").Text)
	o.atForm, o.atCode = o.sick.NewBrowser(), o.sick.NewBrowser()
	o.formToken = gatewaytest.FormToken(t, o.atForm.Get("/.gatehouse/login").Text)
	wantStatus(t, "password before the fault", o.atCode.Password("frank", gatewaytest.Password), http.StatusSeeOther)
	o.codeToken = gatewaytest.FormToken(t, o.atCode.Get("/.gatehouse/login/code").Text)
	for _, name := range []string{"ivan", "ivan", "frank"} {
		wantProblem(t, "before the fault", o.sick.NewBrowser().Login(name, "not the password", ""), problem.InvalidCredentials)
	}
	o.challenge = o.sick.NewBrowser().Login("grace", gatewaytest.Password, "").Field("challenge")
	clock.Add(90 * time.Second) // so that a renewal has something to write
	return o
}

// request is one thing that somebody does during the fault.
type request struct {
	name string
	do   func() (gatewaytest.Answer, error)
	// fine: it needs no store. readable: nor a store that can be written.
	fine, readable bool
}

// requests are the places of RD-01.
func (o *outage) requests() []request {
	get := func(b *gatewaytest.Browser, path string, header http.Header) func() (gatewaytest.Answer, error) {
		return func() (gatewaytest.Answer, error) { return b.Copy().Try(http.MethodGet, path, nil, header) }
	}
	form := func(b *gatewaytest.Browser, path string, fields url.Values) func() (gatewaytest.Answer, error) {
		header := gatewaytest.Document()
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		header.Set("Origin", site)
		header.Set("Sec-Fetch-Site", "same-origin")
		return func() (gatewaytest.Answer, error) {
			return b.Copy().Try(http.MethodPost, path, strings.NewReader(fields.Encode()), header)
		}
	}
	login := func(name, password, code string) func() (gatewaytest.Answer, error) {
		return func() (gatewaytest.Answer, error) { return tryLogin(o.sick.NewBrowser(), name, password, code) }
	}
	return []request{
		{name: "login", do: login("heidi", gatewaytest.Password, o.sick.Code(o.secrets["heidi"]))},
		{name: "wrong password", do: login("ivan", "not the password", "")},
		{name: "unknown name", do: login("nobody-1", "not the password", "")},
		{name: "login form", do: form(o.atForm, "/.gatehouse/login", url.Values{
			"username": {"heidi"}, "password": {gatewaytest.Password}, "form_token": {o.formToken},
		})},
		{name: "code", do: func() (gatewaytest.Answer, error) {
			body := `{"challenge":"` + o.challenge + `","code":"` + o.sick.Code(o.secrets["grace"]) + `"}`
			return o.sick.NewBrowser().Try(http.MethodPost, "/.gatehouse/api/v1/login", strings.NewReader(body), http.Header{"Content-Type": {"application/json"}})
		}},
		{name: "code form", do: form(o.atCode, "/.gatehouse/login/code", url.Values{
			"code": {o.sick.Code(o.secrets["frank"])}, "form_token": {o.codeToken},
		})},
		{name: "code page", do: get(o.atCode, "/.gatehouse/login/code", gatewaytest.Document()), readable: true},
		{name: "login page", do: get(o.sick.NewBrowser(), "/.gatehouse/login", gatewaytest.Document()), fine: true},
		{name: "request with a session verified before", do: get(o.seen, "/", gatewaytest.Document()), fine: true},
		{name: "who am I, verified before", do: get(o.seen, "/.gatehouse/api/v1/session", nil), fine: true},
		{name: "request with a session never seen here", do: get(o.unseen, "/", gatewaytest.Document()), readable: true},
		{name: "the same by a program", do: get(o.unseen, "/", nil), readable: true},
		{name: "renewal", do: get(o.renewed, "/", gatewaytest.Document())},
		{name: "who am I, with renewal", do: get(o.renewed, "/.gatehouse/api/v1/session", nil)},
		{name: "logout", do: func() (gatewaytest.Answer, error) {
			return o.leaving.Copy().Try(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil)
		}},
		{name: "logout form", do: form(o.leavingByForm, "/.gatehouse/logout", url.Values{"form_token": {o.outID}})},
		{name: "logout form, all sessions", do: form(o.leavingByForm, "/.gatehouse/logout", url.Values{"form_token": {o.outID}, "all": {"1"}})},
		{name: "readiness", do: get(o.sick.NewBrowser(), "/.gatehouse/readyz", nil)},
		{name: "liveness", do: get(o.sick.NewBrowser(), "/.gatehouse/healthz", nil), fine: true},
		{name: "keys", do: get(o.sick.NewBrowser(), "/.gatehouse/jwks.json", nil), fine: true},
	}
}

// everything does it all at the same time, as a busy gateway would, and holds each answer to the rules.
func (o *outage) everything() {
	var running sync.WaitGroup
	for _, r := range o.requests() {
		running.Go(func() {
			began := time.Now()
			answer, err := r.do()
			took := time.Since(began)
			if err != nil {
				o.t.Errorf("%s: %v", r.name, err)
				return
			}
			o.judge(r, answer, took)
		})
	}
	for name, do := range o.administration() {
		running.Go(func() {
			began := time.Now()
			err := do()
			if took := time.Since(began); o.late(took, err == nil) {
				o.t.Errorf("%s took %s: %v", name, took, err)
			}
			var refused *client.Error
			reading := strings.HasPrefix(name, "list")
			done := err == nil && (o.fault.works || o.fault.reads && reading)
			if !done && (!errors.As(err, &refused) || refused.Code != problem.Unavailable) {
				o.t.Errorf("%s: got %v, want unavailable", name, err)
			}
		})
	}
	running.Go(o.start)
	running.Wait()
}

// start starts another gateway: it does not come up with a store that it cannot use, and does not hang on it either.
func (o *outage) start() {
	began := time.Now()
	g, err := gatewaytest.Try(o.t, gatewaytest.Options{Redis: o.proxy.URL(), RootKey: o.rootKey, External: site})
	if took := time.Since(began); o.late(took, err == nil) || err == nil && !o.fault.works {
		o.t.Errorf("start: %v after %s", err, took)
	}
	if err == nil {
		g.Stop()
	}
}

// administration is what an operator does, by name.
func (o *outage) administration() map[string]func() error {
	ctx, admin := o.t.Context(), o.sick.Admin
	return map[string]func() error{
		"list users":    func() error { _, err := admin.Users(ctx); return err },
		"list sessions": func() error { _, err := admin.Sessions(ctx, "alice"); return err },
		"list lockout":  func() error { _, err := admin.Lockout(ctx, "ivan"); return err },
		"reset lockout": func() error { return admin.ResetLockout(ctx, "frank", "test") },
		"disable user":  func() error { return admin.DisableUser(ctx, "grace", "test") },
		"add user": func() error {
			_, err := admin.AddUser(ctx, api.NewUser{Name: "judy", Password: gatewaytest.Password})
			return err
		},
	}
}

// late reports whether an answer took too long. What a slow store lets be done may take its time; a refusal may not.
func (o *outage) late(took time.Duration, done bool) bool {
	return took > promptly && !(done && o.fault.works)
}

func (o *outage) judge(r request, answer gatewaytest.Answer, took time.Duration) {
	if o.late(took, answer.StatusCode < http.StatusBadRequest) {
		o.t.Errorf("%s took %s (%d)", r.name, took, answer.StatusCode)
	}
	unavailable := answer.StatusCode == http.StatusServiceUnavailable
	switch {
	case r.fine:
		wantStatus(o.t, r.name, answer, http.StatusOK)
		return
	case !unavailable && (o.fault.works || o.fault.reads && r.readable):
		return // what it is then is not this test's to say
	case !unavailable:
		o.t.Errorf("%s: got %d, want 503: %.200s", r.name, answer.StatusCode, answer.Text)
		return
	}
	if answer.Header.Get("Retry-After") == "" {
		o.t.Errorf("%s: 503 without Retry-After", r.name)
	}
	if got := answer.Header.Get("Cache-Control"); got != "no-store" {
		o.t.Errorf("%s: Cache-Control %q", r.name, got)
	}
	for _, c := range answer.Cookies() {
		// The login form's own cookie is part of drawing the form again; it signs nobody in or out.
		if r.name != "login form" || !strings.HasSuffix(c.Name, "-login") {
			o.t.Errorf("%s: 503 sets a cookie: %s", r.name, c)
		}
	}
	if got := answer.Header.Get("Clear-Site-Data"); got != "" || strings.Contains(answer.Text, "igned out") {
		o.t.Errorf("%s: says that it is done (Clear-Site-Data %q)", r.name, got)
	}
}

func TestFaults_ofTheStore(t *testing.T) {
	t.Parallel()
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			o := newOutage(t, f)
			o.play()
		})
	}
}

// play is the whole story of one fault.
func (o *outage) play() {
	t := o.t
	o.sick.Clock.Run() // the time of an attempt is its own, however many operations it asks for
	verified := o.sick.Verifications()
	o.fault.begin(o.proxy, o.server)
	o.everything()
	ran := o.sick.Verifications() - verified

	// Longer than a token lives, and still away: known sessions end with their tokens, and keep their cookies.
	o.sick.Clock.Add(6 * time.Minute)
	if !o.fault.works {
		before := maps.Clone(o.seen.Jar)
		o.judge(request{name: "after the token's end"}, o.seen.Get("/"), 0)
		if !maps.Equal(o.seen.Jar, before) {
			t.Errorf("after the token's end: the cookies changed")
		}
	}
	heal(o.proxy, o.server)
	eventually(t, "the gateway to heal", 10*time.Second, func() bool {
		answer, err := o.sick.NewBrowser().Try(http.MethodGet, "/.gatehouse/readyz", nil, nil)
		return err == nil && answer.StatusCode == http.StatusOK && !strings.Contains(answer.Text, `"failed"`)
	})
	o.counted(ran)
	o.continued()
	o.leave()
}

// counted holds the verifications that ran against what was counted.
func (o *outage) counted(ran uint64) {
	t := o.t
	failures, right := -2, 2 // of ivan before the fault; heidi's
	if !o.fault.works {
		right = 0
	}
	for _, name := range []string{"ivan", "nobody-1"} {
		windows, err := o.well.Admin.Lockout(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range windows {
			failures += w.Failures
		}
	}
	if int(ran) > failures+right {
		t.Errorf("%d verifications ran, %d right ones among them at most; %d failures are counted", ran, right, failures)
	}
}

// continued shows that nobody has to sign in again.
func (o *outage) continued() {
	for name, b := range map[string]*gatewaytest.Browser{"verified before": o.seen, "never seen here": o.unseen, "to be renewed": o.renewed} {
		wantStatus(o.t, "after the fault, session "+name, b.Get("/"), http.StatusOK)
	}
	o.sick.SignIn("heidi", o.secrets["heidi"])
}

// leave signs out again what could not be signed out, and wants it dead everywhere.
func (o *outage) leave() {
	for _, b := range []*gatewaytest.Browser{o.leaving, o.leavingByForm} {
		b.Get("/") // renews
		stolen := b.Copy()
		answer := b.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil)
		// 401: the first try had ended the session, and only its answer was lost.
		if !slices.Contains([]int{http.StatusNoContent, http.StatusUnauthorized}, answer.StatusCode) {
			o.t.Errorf("logout after the fault: %d %s", answer.StatusCode, answer.Text)
		}
		for name, g := range map[string]*gatewaytest.Gateway{"here": o.sick, "there": o.well} {
			eventually(o.t, "the session to be dead "+name, time.Second, func() bool {
				return stolen.Through(g).Get("/").StatusCode == http.StatusFound
			})
		}
	}
}

// Somebody who was away from the keyboard while the store was away comes back to the session: that time is not idle time.
func TestFaults_areNotIdleTime(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	proxy := storetest.FaultProxy(t, server.Addr())
	key, clock := gatewaytest.RootKey(), gatewaytest.NewClock()
	g, other := startOn(t, proxy.URL(), key, clock), startOn(t, server.URL(), key, clock)
	g.AddUser("alice")
	secret := g.Enrol("alice")
	b, forgotten, left := g.SignIn("alice", secret), g.SignIn("alice", secret), g.SignIn("alice", secret)
	clock.Add(40 * time.Minute)
	// What the other gateway ends reaches this one by the feed: so it was last read after the forty minutes, not before.
	wantStatus(t, "after 40 minutes", left.Get("/"), http.StatusOK)
	wantStatus(t, "logout elsewhere", left.Copy().Through(other).Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil), http.StatusNoContent)
	eventually(t, "the logout to arrive", 5*time.Second, func() bool { return left.Get("/").StatusCode == http.StatusFound })
	proxy.Refuse()
	inStep := func() bool {
		return strings.Contains(g.NewBrowser().Do(http.MethodGet, "/.gatehouse/readyz", nil, nil).Text, `"feed":{"state":"ok"`)
	}
	eventually(t, "the gateway to notice", 10*time.Second, func() bool { return !inStep() })
	g.Clock.Add(3 * time.Hour)
	wantStatus(t, "while the store is away", b.Get("/"), http.StatusServiceUnavailable)
	proxy.Pass()
	eventually(t, "the session to go on", 10*time.Second, func() bool { return b.Get("/").StatusCode == http.StatusOK })
	eventually(t, "the outage to end", 10*time.Second, inStep)
	g.Clock.Add(30 * time.Minute)
	wantStatus(t, "half an hour later, 30 of the 60 minutes", b.Get("/"), http.StatusOK)
	wantStatus(t, "idle for 70 minutes beside the outage", forgotten.Get("/"), http.StatusFound)
}

// Redis is restarted under the gateway, and its scripts are flushed in the middle of a login (RD-06).
func TestFaults_restartAndFlushedScriptsHealByThemselves(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	proxy := storetest.FaultProxy(t, server.Addr())
	g := startOn(t, proxy.URL(), gatewaytest.RootKey(), gatewaytest.NewClock())
	g.AddUser("alice")
	secret := g.Enrol("alice")
	for n := range 12 {
		proxy.After(n, func() { server.MustDo("SCRIPT", "FLUSH") })
		g.SignIn("alice", secret)
		proxy.Pass()
	}
	b := g.SignIn("alice", secret)
	server.Restart()
	wantStatus(t, "a known session right after the restart", b.Get("/"), http.StatusOK)
	eventually(t, "a login to succeed", 10*time.Second, func() bool {
		g.Clock.Add(time.Minute)
		return g.NewBrowser().Login("alice", gatewaytest.Password, g.Code(secret)).StatusCode == http.StatusOK
	})
}
