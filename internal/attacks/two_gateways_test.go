package attacks_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/store/storetest"
)

// site is the URL under which the gateways of these tests are one. Nothing listens there: browsers find a gateway's own
// address behind it.
const site = "http://gate.localhost:8080"

// startOn starts a gateway on a shared store, as one of several behind one URL.
func startOn(t *testing.T, redisURL, rootKey string, clock *gatewaytest.Clock, configure ...func(*configs.Config)) *gatewaytest.Gateway {
	t.Helper()
	return gatewaytest.Start(t, gatewaytest.Options{
		Clock: clock, Redis: redisURL, RootKey: rootKey, External: site,
		Configure: func(c *configs.Config) {
			for _, change := range configure {
				change(c)
			}
		},
	})
}

// two starts two gateways with one clock on one Redis.
func two(t *testing.T, configure ...func(*configs.Config)) (one, other *gatewaytest.Gateway, server *storetest.Server) {
	t.Helper()
	server = storetest.Redis(t)
	key, clock := gatewaytest.RootKey(), gatewaytest.NewClock()
	one = startOn(t, server.URL(), key, clock, configure...)
	other = startOn(t, server.URL(), key, clock, configure...)
	return one, other, server
}

// optionalFactor lets accounts without a second factor sign in.
func optionalFactor(c *configs.Config) { c.Login.SecondFactor = configs.Optional }

// eventually waits until what is promised within a time comes to be.
func eventually(t *testing.T, what string, within time.Duration, so func() bool) {
	t.Helper()
	limit := storetest.Within(within)
	for deadline := time.Now().Add(limit); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// wantStatus fails the test if the answer has another status.
func wantStatus(t *testing.T, what string, answer gatewaytest.Answer, want int) {
	t.Helper()
	if answer.StatusCode != want {
		t.Errorf("%s: got %d, want %d: %.300s", what, answer.StatusCode, want, answer.Text)
	}
}

// wantProblem fails the test if the answer is not this problem.
func wantProblem(t *testing.T, what string, answer gatewaytest.Answer, want problem.Code) {
	t.Helper()
	if got := answer.ProblemCode(); got != string(want) || answer.StatusCode != want.Status() {
		t.Errorf("%s: got %d %s, want %s: %.300s", what, answer.StatusCode, got, want, answer.Text)
	}
}

func TestTwoGateways_shareSessionsAndTheirEnd(t *testing.T) {
	t.Parallel()
	one, other, _ := two(t)
	one.AddUser("alice", "staff")
	secret := one.Enrol("alice")

	for _, way := range []struct {
		name string
		end  func(b *gatewaytest.Browser) gatewaytest.Answer
	}{
		{"form", func(b *gatewaytest.Browser) gatewaytest.Answer {
			return b.Submit("/.gatehouse/logout", url.Values{})
		}},
		{"all sessions", func(b *gatewaytest.Browser) gatewaytest.Answer {
			return b.Submit("/.gatehouse/logout", url.Values{"all": {"1"}})
		}},
		{"JSON", func(b *gatewaytest.Browser) gatewaytest.Answer {
			return b.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil)
		}},
	} {
		here := one.SignIn("alice", secret)
		stolen := here.Copy() // what signing out deletes in the owner's browser is still there
		there := stolen.Through(other)
		wantStatus(t, way.name+": made at one, used at the other", there.Get("/"), http.StatusOK)
		if seen := other.Upstream.Last(t).Values("Remote-User"); !slices.Equal(seen, []string{"alice"}) {
			t.Errorf("%s: the app behind the other gateway saw %q", way.name, seen)
		}
		if answer := way.end(here); answer.StatusCode/100 != 2 {
			t.Fatalf("%s: logout: %d %s", way.name, answer.StatusCode, answer.Text)
		}
		ended := time.Now()
		wantStatus(t, way.name+": at the gateway of the logout", stolen.Get("/"), http.StatusFound)
		eventually(t, way.name+": dead at the other gateway", 5*time.Second, func() bool { return there.Get("/").StatusCode == http.StatusFound })
		if took := time.Since(ended); took > storetest.Within(time.Second) {
			t.Errorf("%s: dead at the other gateway after %s", way.name, took)
		}
	}
}

// A balancer may send every request of one login to another gateway.
func TestTwoGateways_serveTheStepsOfOneLoginInTurn(t *testing.T) {
	t.Parallel()
	one, other, _ := two(t)
	one.AddUser("alice")
	secret := one.Enrol("alice")
	here := one.NewBrowser()
	there := here.Through(other)

	page := here.Get("/.gatehouse/login")
	answer := there.PostForm("/.gatehouse/login", url.Values{
		"username": {"alice"}, "password": {gatewaytest.Password}, "form_token": {gatewaytest.FormToken(t, page.Text)},
	})
	wantStatus(t, "password at the other gateway", answer, http.StatusSeeOther)
	page = here.Get("/.gatehouse/login/code")
	answer = there.PostForm("/.gatehouse/login/code", url.Values{"code": {one.Code(secret)}, "form_token": {gatewaytest.FormToken(t, page.Text)}})
	wantStatus(t, "code at the other gateway", answer, http.StatusSeeOther)
	wantStatus(t, "session at the first", here.Get("/"), http.StatusOK)

	// The code was used, whichever gateway is asked.
	again := one.NewBrowser().Login("alice", gatewaytest.Password, one.Code(secret))
	wantProblem(t, "the same code at the first gateway", again, problem.CodeInvalid)
}

func TestTwoGateways_countFailuresTogether(t *testing.T) {
	t.Parallel()
	one, other, _ := two(t)
	for i, name := range []string{"alice", "nobody-1"} {
		from := "192.0.2." + decimal(i+1) // each has its own address bucket
		if name == "alice" {
			one.AddUser(name)
		}
		gateways := []*gatewaytest.Gateway{one, other}
		before := one.Verifications() + other.Verifications()
		for i := range 5 {
			wantProblem(t, name, gateways[i%2].NewBrowser().At(from).Login(name, "not the password", ""), problem.InvalidCredentials)
		}
		for _, g := range gateways {
			wantProblem(t, name+", sixth", g.NewBrowser().At(from).Login(name, gatewaytest.Password, ""), problem.Locked)
		}
		if ran := one.Verifications() + other.Verifications() - before; ran != 5 {
			t.Errorf("%s: %d verifications ran, want 5", name, ran)
		}
	}
}

// 200 guesses at once, over both gateways and two hundred addresses: five are verified.
func TestTwoGateways_verifyFiveOfTwoHundredGuesses(t *testing.T) {
	t.Parallel()
	one, other, _ := two(t)
	one.AddUser("alice")
	answers := atOnce(t, 200, func(i int) gatewaytest.Answer {
		g := []*gatewaytest.Gateway{one, other}[i%2]
		answer, err := tryLogin(g.NewBrowser().At("198.51.100."+decimal(i+1)), "alice", "guess "+decimal(i), "")
		if err != nil {
			t.Error(err)
		}
		return answer
	})
	codes := map[string]int{}
	for _, a := range answers {
		codes[a.ProblemCode()]++
	}
	ran := one.Verifications() + other.Verifications()
	if ran != 5 || codes[string(problem.InvalidCredentials)] != 5 {
		t.Errorf("%d verifications ran, want 5; answers %v", ran, codes)
	}
	if n := codes[string(problem.InvalidCredentials)] + codes[string(problem.Locked)] + codes[string(problem.Unavailable)]; n != 200 {
		t.Errorf("answers %v, want only refusals, locks and full pools", codes)
	}
	wantProblem(t, "afterwards", one.NewBrowser().Login("alice", gatewaytest.Password, ""), problem.Locked)
}

func TestTwoGateways_letTenRightLoginsInAtOnce(t *testing.T) {
	t.Parallel()
	one, other, _ := two(t, optionalFactor)
	one.AddUser("alice")
	known := one.NewBrowser()
	wantStatus(t, "first login", known.Login("alice", gatewaytest.Password, ""), http.StatusOK)
	answers := atOnce(t, 10, func(i int) gatewaytest.Answer {
		b := []*gatewaytest.Gateway{one, other}[i%2].NewBrowser()
		b.Jar[deviceCookie(t, known)] = known.Jar[deviceCookie(t, known)]
		answer, err := tryLogin(b, "alice", gatewaytest.Password, "")
		if err != nil {
			t.Error(err)
		}
		return answer
	})
	for i, a := range answers {
		wantStatus(t, "login "+decimal(i), a, http.StatusOK)
	}
	sessions, err := one.Admin.Sessions(t.Context(), "alice")
	if err != nil || len(sessions) != 11 {
		t.Errorf("got %d sessions, %v; want 11", len(sessions), err)
	}

	// And ten of an account with a second factor all get as far as the code.
	one.AddUser("bob")
	one.Enrol("bob")
	challenges := map[string]bool{}
	for i, a := range atOnce(t, 10, func(i int) gatewaytest.Answer {
		answer, err := tryLogin([]*gatewaytest.Gateway{one, other}[i%2].NewBrowser().At("203.0.113.7"), "bob", gatewaytest.Password, "")
		if err != nil {
			t.Error(err)
		}
		return answer
	}) {
		wantProblem(t, "login "+decimal(i)+" of bob", a, problem.CodeRequired)
		challenges[a.Field("challenge")] = true
	}
	if len(challenges) != 10 {
		t.Errorf("got %d different challenges, want 10", len(challenges))
	}
}

// One code shown at both gateways at once gets one session.
func TestTwoGateways_acceptACodeOnce(t *testing.T) {
	t.Parallel()
	one, other, _ := two(t)
	one.AddUser("alice")
	secret := one.Enrol("alice")
	for range 3 {
		one.Clock.Add(time.Minute)
		code := one.Code(secret)
		entered := 0
		for _, a := range atOnce(t, 4, func(i int) gatewaytest.Answer {
			answer, err := tryLogin([]*gatewaytest.Gateway{one, other}[i%2].NewBrowser(), "alice", gatewaytest.Password, code)
			if err != nil {
				t.Error(err)
			}
			return answer
		}) {
			if a.StatusCode == http.StatusOK {
				entered++
			} else {
				wantProblem(t, "the others", a, problem.CodeInvalid)
			}
		}
		if entered != 1 {
			t.Fatalf("%d logins with one code succeeded, want 1", entered)
		}
		if err := one.Admin.ResetLockout(t.Context(), "alice", "the next round"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwoGateways_anotherRootKeyIsRefusedBeforeAnyWrite(t *testing.T) {
	t.Parallel()
	server, key := storetest.Redis(t), gatewaytest.RootKey()
	g := startOn(t, server.URL(), key, gatewaytest.NewClock())
	g.AddUser("alice")
	g.Stop()
	before := content(server)
	_, err := gatewaytest.Try(t, gatewaytest.Options{Redis: server.URL(), RootKey: gatewaytest.RootKey(), External: site})
	if err == nil || !strings.Contains(err.Error(), "root key") {
		t.Errorf("got %v, want a refusal that names the root key", err)
	}
	if after := content(server); after != before {
		t.Errorf("the refused start changed the store:\n%s\nwas\n%s", after, before)
	}
	again := startOn(t, server.URL(), key, gatewaytest.NewClock())
	wantProblem(t, "the right key opens what is there", again.NewBrowser().Login("alice", gatewaytest.Password, ""), problem.EnrolmentRequired)
}

// Of several that start at once on an empty store one creates the keys; the others read them.
func TestTwoGateways_thatStartAtOnceShareKeys(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	for range storetest.Rounds(2, 50) {
		server.MustDo("FLUSHALL")
		key, clock := gatewaytest.RootKey(), gatewaytest.NewClock()
		gateways := make([]*gatewaytest.Gateway, 3)
		var starting sync.WaitGroup
		for i := range gateways {
			starting.Go(func() {
				g, err := gatewaytest.Try(t, gatewaytest.Options{Clock: clock, Redis: server.URL(), RootKey: key, External: site})
				if err != nil {
					t.Error(err)
					return
				}
				gateways[i] = g
			})
		}
		starting.Wait()
		if t.Failed() {
			return
		}
		gateways[0].AddUser("alice")
		b := gateways[1].SignIn("alice", gateways[2].Enrol("alice"))
		for i, g := range gateways {
			wantStatus(t, "a session made at one gateway, at gateway "+decimal(i), b.Through(g).Get("/"), http.StatusOK)
			if got, want := b.Through(g).Get("/.gatehouse/jwks.json").Text, b.Get("/.gatehouse/jwks.json").Text; got != want {
				t.Errorf("gateway %d publishes %s, another %s", i, got, want)
			}
		}
		for _, g := range gateways {
			g.Stop()
		}
	}
}
