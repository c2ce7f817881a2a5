package auth_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/apptoken"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/session"
)

// keyRing is app tokens over the parts of a rig.
type keyRing struct {
	*rig
	*auth.AppTokens
	tokens *apptoken.Store
}

func newKeyRing(t *testing.T) keyRing {
	t.Helper()
	r := newRig(t, options{})
	k := keyRing{rig: r, tokens: apptoken.NewStore(apptoken.Options{Records: spyRecords{r.store, r.spy}, Now: r.clock.Now})}
	k.AppTokens = auth.NewAppTokens(auth.AppTokenOptions{
		RateLimit: r.RateLimit, Users: r.users, Passwords: r.Passwords, Tokens: k.tokens, Outside: r.sessions, Audit: spyLog{r.log, r.spy},
		Now: r.clock.Now, Logger: discard,
	})
	return k
}

// cut makes an app token of an account for the route caldav.
func (k keyRing) cut(u user.User) (apptoken.Token, string) {
	k.t.Helper()
	made, text, err := k.tokens.Create(k.t.Context(), u.ID, "caldav", time.Hour)
	k.must(err)
	return made, text
}

func byName(name, text string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+text))
}

// unknown is a token in the right form that nobody made.
var unknown = apptoken.Prefix + strings.Repeat("ABCD2345Z7MNO", 4)

func (k keyRing) present(c auth.Client, authorization, route string) (session.Principal, problem.Code) {
	k.t.Helper()
	p, claimed, err := k.Authenticate(k.t.Context(), authorization, route, func() auth.Client { return c })
	if !claimed {
		k.t.Fatalf("%q is not taken for an app token", authorization)
	}
	var refused *auth.Refused
	switch {
	case err == nil:
		return p, ""
	case !errors.As(err, &refused):
		k.t.Fatalf("%v is no *Refused", err)
	case p.Name != "":
		k.t.Errorf("refused, and let in as %s", p.Name)
	case refused.Code != problem.InvalidCredentials && refused.RetryAfter <= 0:
		k.t.Errorf("%s without a time to wait", refused.Code)
	}
	return p, refused.Code
}

func TestAppTokens_letIn(t *testing.T) {
	t.Parallel()
	k := newKeyRing(t)
	alice := k.add("alice", true)
	made, text := k.cut(alice)
	for name, value := range map[string]string{"bearer": "Bearer " + text, "basic": byName("alice", text), "basic, as people write it": byName("Alice", text)} {
		p, code := k.present(home, value, "caldav")
		if code != "" || p.UserID != alice.ID || !p.AppToken || !p.Bearer || p.PublicID != made.ID || strings.Join(p.Methods, ",") != "apptoken" {
			t.Errorf("%s: %q, %+v", name, code, p)
		}
	}
	if got := k.failures("alice"); got != 0 || k.pool.Runs() != 0 {
		t.Errorf("%d failures, %d comparisons", got, k.pool.Runs())
	}
	if e, how := k.spy.last(); how != "appended" || e.Kind != audit.KindAppToken || e.Subject.Name != "alice" || e.Details["token"] != made.ID || e.Details["route"] != "caldav" {
		t.Errorf("recorded %s %+v", how, e)
	}
	if len(k.spy.events) != 1 {
		t.Errorf("%d records, want one for the first use", len(k.spy.events))
	}
	for range 30 { // what is right costs the address nothing
		if _, code := k.present(home, byName("alice", text), "caldav"); code != "" {
			t.Fatalf("refused with %s", code)
		}
	}
	if found, err := k.tokens.Get(t.Context(), made.ID); err != nil || !found.Used.Equal(k.clock.Now()) {
		t.Errorf("used at %v, %v", found.Used, err)
	}
	if _, claimed, _ := k.Authenticate(t.Context(), byName("alice", right), "caldav", nil); claimed {
		t.Error("a password was taken for an app token")
	}
}

// wrongTokens is every way for a token to be wrong. Each returns what is presented, with the name alice where it is Basic.
var wrongTokens = []struct {
	name, reason string
	counted      bool // in the window of alice
	make         func(k keyRing, alice user.User) string
}{
	{"unknown, with a name", "unknown", true, func(keyRing, user.User) string { return byName("alice", unknown) }},
	{"unknown", "unknown", false, func(keyRing, user.User) string { return "Bearer " + unknown }},
	{"of somebody else", "other-name", true, func(k keyRing, _ user.User) string {
		_, text := k.cut(k.add("bob", false))
		return byName("alice", text)
	}},
	{"of another route", "other-route", false, func(k keyRing, alice user.User) string {
		_, text, err := k.tokens.Create(k.t.Context(), alice.ID, "git", 0)
		k.must(err)
		return "Bearer " + text
	}},
	{"of a disabled account", "account-disabled", true, func(k keyRing, alice user.User) string {
		_, text := k.cut(alice)
		k.disable(alice.ID)
		return "Bearer " + text
	}},
	{"deleted", "unknown", true, func(k keyRing, alice user.User) string {
		made, text := k.cut(alice)
		k.must(k.tokens.Delete(k.t.Context(), made.ID))
		return byName("alice", text)
	}},
	{"ended", "unknown", true, func(k keyRing, alice user.User) string {
		_, text := k.cut(alice)
		k.clock.add(time.Hour)
		return byName("alice", text)
	}},
	{"of a deleted account", "unknown", false, func(k keyRing, _ user.User) string {
		bob := k.add("bob", false)
		_, text := k.cut(bob)
		k.must(k.users.Delete(k.t.Context(), bob.ID))
		return "Bearer " + text
	}},
	{"deleted after it was used", "unknown", true, func(k keyRing, alice user.User) string {
		made, text := k.cut(alice)
		if _, code := k.present(home, byName("alice", text), "caldav"); code != "" {
			k.t.Fatal(code)
		}
		k.must(k.tokens.Delete(k.t.Context(), made.ID))
		return byName("alice", text)
	}},
}

func TestAppTokens_refuse(t *testing.T) {
	t.Parallel()
	for _, c := range wrongTokens {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := newKeyRing(t)
			value := c.make(k, k.add("alice", false))
			if _, code := k.present(home, value, "caldav"); code != problem.InvalidCredentials {
				t.Errorf("got %s", code)
			}
			want := 0
			if c.counted {
				want = 1
			}
			if got := k.failures("alice"); got != want {
				t.Errorf("%d failures counted, want %d", got, want)
			}
			e, how := k.spy.last()
			if how != "appended" || e.Kind != audit.KindAppToken || e.Outcome != audit.Failure || e.Details["reason"] != c.reason {
				t.Errorf("recorded %s %+v", how, e)
			}
			if (c.counted || c.reason == "other-route") && e.Subject.Name != "alice" {
				t.Errorf("the record is about %+v", e.Subject)
			}
		})
	}
}

// LG-09, LK-14, EN-04: the window is that of passwords, for names that exist and for those that do not.
func TestAppTokens_shareTheLimitsOfPasswords(t *testing.T) {
	t.Parallel()
	k := newKeyRing(t)
	alice := k.add("alice", false)
	_, text := k.cut(alice)
	_, used := k.cut(alice)
	if _, code := k.present(home, byName("alice", used), "caldav"); code != "" {
		t.Fatal(code)
	}
	for name, value := range map[string]string{"alice": byName("alice", unknown), "nobody": byName("nobody", unknown), " no name": byName(" no name", unknown)} {
		for i := range 7 {
			want := problem.InvalidCredentials
			if i >= 5 {
				want = problem.Locked
			}
			if _, code := k.present(at(i), value, "caldav"); code != want {
				t.Errorf("%s, try %d: %s, want %s", name, i, code, want)
			}
		}
	}
	if _, code := k.present(at(8), byName("alice", text), "caldav"); code != problem.Locked {
		t.Errorf("the right token behind the lock: %s", code)
	}
	if _, code := k.present(at(8), "Bearer "+text, "caldav"); code != problem.Locked {
		t.Errorf("the right token behind the lock, without a name: %s", code)
	}
	if out := k.password(at(9), "alice", right); out.Code != problem.Locked {
		t.Errorf("the right password behind the lock: %s", out.Code)
	}
	if _, code := k.present(home, byName("alice", used), "caldav"); code != "" {
		t.Errorf("a token that was at work before the lock: %s", code)
	}
	k.clock.add(15 * time.Minute)
	if _, code := k.present(at(8), byName("alice", text), "caldav"); code != "" {
		t.Errorf("after the lock: %s", code)
	}
	k.guess("alice", 5)
	_, late := k.cut(alice)
	if _, code := k.present(at(10), byName("alice", late), "caldav"); code != problem.Locked {
		t.Errorf("after five wrong passwords: %s", code)
	}
}

func TestAppTokens_drawFromTheBucket(t *testing.T) {
	t.Parallel()
	k := newKeyRing(t)
	for i, value := range []string{"Bearer " + unknown, "token " + unknown, byName(unknown, "")} {
		for n := range 12 {
			want := problem.InvalidCredentials
			if n >= 10 {
				want = problem.RateLimited
			}
			if _, code := k.present(at(i), value, "caldav"); code != want {
				t.Errorf("%q, try %d: %s, want %s", value, n, code, want)
			}
		}
	}
}

// However many addresses they come from, no more new tokens are verified than passwords could be; those at work go on.
func TestAppTokens_areVerifiedAtAPace(t *testing.T) {
	t.Parallel()
	k := newKeyRing(t)
	alice := k.add("alice", false)
	_, used := k.cut(alice)
	if _, code := k.present(home, byName("alice", used), "caldav"); code != "" {
		t.Fatal(code)
	}
	refused := 0
	for i := range 120 {
		if _, code := k.present(at(i), byName("nobody-"+at(i).Address.String(), unknown), "caldav"); code == problem.Unavailable {
			refused++
		}
	}
	if refused != 20 {
		t.Errorf("%d were refused, want 20", refused)
	}
	if _, code := k.present(home, byName("alice", used), "caldav"); code != "" {
		t.Errorf("a token at work: %s", code)
	}
	k.clock.add(time.Second)
	_, text := k.cut(alice)
	if _, code := k.present(home, byName("alice", text), "caldav"); code != "" {
		t.Errorf("a second later: %s", code)
	}
}

// Twenty connections of one client at once: a window of five slots must not get in their way.
func TestAppTokens_manyAtOnce(t *testing.T) {
	t.Parallel()
	k := newKeyRing(t)
	_, text := k.cut(k.add("alice", false))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, _, err := k.Authenticate(t.Context(), byName("alice", text), "caldav", func() auth.Client { return at(i) }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestAppTokens_failClosed(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"take token", "reserve password", "get app-token", "get users", "settle password", "append record"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			k := newKeyRing(t)
			_, text := k.cut(k.add("alice", false))
			k.spy.fail(call, errDown)
			if _, code := k.present(home, byName("alice", text), "caldav"); code != problem.Unavailable {
				t.Errorf("the right token: %q", code)
			}
			if call != "get users" {
				if _, code := k.present(at(1), byName("alice", unknown), "caldav"); code != problem.Unavailable {
					t.Errorf("a wrong one: %q", code)
				}
			}
			k.spy.on(nil)
			if _, code := k.present(home, byName("alice", text), "caldav"); code != "" {
				t.Errorf("afterwards: %q", code)
			}
		})
	}
}

// What changes in the account counts at once: a token is no copy of what was true when it was made.
func TestAppTokens_followTheAccount(t *testing.T) {
	t.Parallel()
	k := newKeyRing(t)
	alice := k.add("alice", false)
	_, text := k.cut(alice)
	k.change(alice.ID, func(u *user.User) { u.Groups = []string{"staff"} })
	if p, code := k.present(home, byName("alice", text), "caldav"); code != "" || strings.Join(p.Groups, ",") != "staff" {
		t.Errorf("%q, groups %v", code, p.Groups)
	}
	k.change(alice.ID, func(u *user.User) { u.Groups = nil })
	if p, _ := k.present(home, byName("alice", text), "caldav"); len(p.Groups) != 0 {
		t.Errorf("groups %v", p.Groups)
	}
}
