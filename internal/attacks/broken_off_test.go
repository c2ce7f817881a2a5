package attacks_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

// broken is a gateway whose line to the store breaks after a number of answers, and one that is well.
type broken struct {
	t          *testing.T
	proxy      *storetest.Proxy
	sick, well *gatewaytest.Gateway
	secret     string
}

func newBroken(t *testing.T) *broken {
	server := storetest.Redis(t)
	proxy := storetest.FaultProxy(t, server.Addr())
	key, clock := gatewaytest.RootKey(), gatewaytest.NewClock()
	b := &broken{t: t, proxy: proxy, sick: startOn(t, proxy.URL(), key, clock), well: startOn(t, server.URL(), key, clock)}
	b.well.AddUser("alice")
	b.secret = b.well.Enrol("alice")
	b.sick.SignIn("alice", b.secret)
	return b
}

// everyAnswer does something with the line broken after the first answer of the store, after the second, and so on, until it
// was done before the break. do calls arm when it is ready, and reports whether it was done.
func (b *broken) everyAnswer(do func(n int, arm func()) (done bool)) {
	b.t.Helper()
	const most = 60
	for n := range most {
		done := do(n, func() { b.proxy.After(n, b.proxy.ResetBeforeReply) })
		b.proxy.Pass()
		eventually(b.t, "the gateway to heal", 10*time.Second, b.healed)
		if done {
			b.t.Logf("done with %d answers", n)
			return
		}
	}
	b.t.Errorf("not done with %d answers of the store", most)
}

func (b *broken) healed() bool {
	answer, err := b.sick.NewBrowser().Try(http.MethodGet, "/.gatehouse/readyz", nil, nil)
	return err == nil && answer.StatusCode == http.StatusOK && !strings.Contains(answer.Text, `"failed"`)
}

// Wherever the store breaks off a failed login: what was verified is counted, if not at once then as a lost attempt.
func TestFaults_thatBreakOffAFailureLoseNoCount(t *testing.T) {
	t.Parallel()
	b := newBroken(t)
	b.everyAnswer(func(n int, arm func()) bool {
		before := b.sick.Verifications()
		arm()
		answer := b.sick.NewBrowser().At("192.0.2."+decimal(n+1)).Login("alice", "not the password", "")
		ran := b.sick.Verifications() - before
		if answer.StatusCode != http.StatusUnauthorized && answer.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("after %d answers: %d %s", n, answer.StatusCode, answer.Text)
		}
		b.sick.Clock.Add(31 * time.Second) // an attempt without a verdict counts from here on
		windows, err := b.well.Admin.Lockout(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		failures := 0
		for _, w := range windows {
			failures += w.Failures
		}
		if failures < int(ran) {
			t.Errorf("after %d answers: %d verifications ran, %d failures are counted (%d)", n, ran, failures, answer.StatusCode)
		}
		if err := b.well.Admin.ResetLockout(t.Context(), "alice", "the next round"); err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode == http.StatusUnauthorized
	})
}

// Wherever the store breaks off a right login: either it is done and on record, or no credential leaves and the log says so.
func TestFaults_thatBreakOffALoginLeaveItWholeOrNot(t *testing.T) {
	t.Parallel()
	b := newBroken(t)
	b.everyAnswer(func(n int, arm func()) bool {
		b.sick.Clock.Add(time.Minute)
		before := len(b.sick.Records())
		browser := b.sick.NewBrowser().At("192.0.2." + decimal(n+1))
		arm()
		answer := browser.Login("alice", gatewaytest.Password, b.sick.Code(b.secret))
		started, notStarted := 0, 0
		for _, r := range b.sick.Records()[before:] {
			if r.Kind == audit.KindLogin && r.Outcome == audit.Success {
				started++
			}
			if r.Kind == audit.KindSessionNotStarted {
				notStarted++
			}
		}
		if err := b.well.Admin.ResetLockout(t.Context(), "alice", "the next round"); err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode == http.StatusOK {
			if started != 1 || notStarted != 0 {
				t.Errorf("after %d answers: signed in, and the log has %d logins and %d that did not start", n, started, notStarted)
			}
			return true
		}
		if answer.StatusCode != http.StatusServiceUnavailable || len(browser.Jar) > 0 || answer.Field("access_token") != "" {
			t.Errorf("after %d answers: %d with cookies %v: %s", n, answer.StatusCode, browser.Jar, answer.Text)
		}
		if started != notStarted {
			t.Errorf("after %d answers: refused, and the log has %d logins of which %d did not start", n, started, notStarted)
		}
		return false
	})
}

// Wherever the store breaks off a logout: it is done everywhere when the answer says so, and can be done again when not.
func TestFaults_thatBreakOffALogoutNeverSayDone(t *testing.T) {
	t.Parallel()
	b := newBroken(t)
	b.everyAnswer(func(n int, arm func()) bool {
		owner := b.well.SignIn("alice", b.secret).Through(b.sick)
		wantStatus(t, "before", owner.Get("/"), http.StatusOK)
		thief := owner.Copy()
		arm()
		answer := owner.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil)
		switch answer.StatusCode {
		case http.StatusNoContent:
		case http.StatusServiceUnavailable:
			if len(answer.Cookies()) > 0 {
				t.Errorf("after %d answers: not done, and sets %v", n, answer.Cookies())
			}
			b.proxy.Pass()
			eventually(t, "the gateway to heal", 10*time.Second, b.healed)
			again := owner.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil)
			if !slices.Contains([]int{http.StatusNoContent, http.StatusUnauthorized}, again.StatusCode) {
				t.Errorf("after %d answers: again: %d %s", n, again.StatusCode, again.Text)
			}
		default:
			t.Errorf("after %d answers: %d %s", n, answer.StatusCode, answer.Text)
		}
		b.proxy.Pass()
		for name, g := range map[string]*gatewaytest.Gateway{"sick": b.sick, "well": b.well} {
			eventually(t, "the session to be dead at the "+name+" gateway", 2*time.Second, func() bool {
				return thief.Through(g).Get("/").StatusCode == http.StatusFound
			})
		}
		return answer.StatusCode == http.StatusNoContent
	})
}
