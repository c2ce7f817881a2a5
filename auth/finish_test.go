package auth_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/user"
	"gatehouse/problem"
)

// What cannot be written down does not happen.
func TestFlow_signsNobodyInWithoutARecord(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	alice := r.add("alice", true)
	r.spy.fail("append record", audit.ErrUnavailable)
	out := r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	if out.Code != problem.Unavailable || out.RetryAfter <= 0 {
		t.Errorf("got %s, retry after %s, want unavailable", out.Code, out.RetryAfter)
	}
	if len(out.Credentials.Cookies) != 0 || out.Credentials.AccessToken != "" || out.DeviceCookie != "" || out.Challenge != "" {
		t.Errorf("credentials left: %+v", out)
	}
	if n := r.liveSessions(alice.ID); n != 0 {
		t.Errorf("got %d sessions, want none", n)
	}
	history, err := r.devices.Load(t.Context(), alice.ID)
	r.must(err)
	if len(history.Devices())+len(history.Networks()) != 0 {
		t.Errorf("%d devices and %d networks became known", len(history.Devices()), len(history.Networks()))
	}
	u, err := r.users.ByID(t.Context(), alice.ID)
	r.must(err)
	if !u.FirstLoginAt.IsZero() {
		t.Error("the first login was noted")
	}
}

// The log says that the login it tells of came to nothing, even where the store used up all the time there was.
func TestFlow_recordsASessionThatDidNotStart(t *testing.T) {
	t.Parallel()
	for name, cause := range map[string]func(context.CancelFunc) error{
		"store answers with an error": func(context.CancelFunc) error { return errDown },
		"store does not answer": func(context.CancelFunc) error {
			time.Sleep(auth.StoreTimeout + time.Second) // of the bubble: no time passes
			return context.DeadlineExceeded
		},
		"client goes away": func(gone context.CancelFunc) error { gone(); return errDown },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { startNoSession(t, cause) })
		})
	}
}

func startNoSession(t *testing.T, cause func(gone context.CancelFunc) error) {
	r := newRig(t, options{})
	alice := r.add("alice", true)
	ctx, gone := context.WithCancel(t.Context())
	defer gone()
	r.spy.on(func(call string) error {
		if call == "mark session live" {
			return cause(gone)
		}
		return nil
	})
	out := r.Login(ctx, home, func() (auth.Presented, error) {
		return auth.Presented{Username: "alice", Password: right, Code: r.code()}, nil
	})
	if out.Code != problem.Unavailable || len(out.Credentials.Cookies) != 0 || out.DeviceCookie != "" {
		t.Errorf("got %s, %d cookies, want unavailable and none", out.Code, len(out.Credentials.Cookies))
	}
	e, how := r.spy.last()
	if how != "appended" || e.Kind != audit.KindSessionNotStarted || e.Outcome != audit.Failed || e.Session == "" {
		t.Errorf("last record: %s, %+v", how, e)
	}
	if n := r.liveSessions(alice.ID); n != 0 {
		t.Errorf("got %d sessions, want none", n)
	}
}

// An imported hash becomes one of our own at the first right password: also of a browser, which sends the code in a request of
// its own, when the password is no longer at hand; and not at a wrong one.
func TestFlow_upgradesOldHashes(t *testing.T) {
	t.Parallel()
	imported, err := bcrypt.GenerateFromPassword([]byte(right), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		login    func(r *rig) auth.Outcome
		want     problem.Code
		upgraded bool
	}{
		{"password and code at once", func(r *rig) auth.Outcome {
			return r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()})
		}, "", true},
		{"password first", func(r *rig) auth.Outcome { return r.password(home, "alice", right) }, problem.CodeRequired, true},
		{"wrong password", func(r *rig) auth.Outcome { return r.password(home, "alice", wrong) }, problem.InvalidCredentials, false},
		{"no record", func(r *rig) auth.Outcome {
			r.spy.fail("append record", audit.ErrUnavailable)
			return r.password(home, "alice", right)
		}, problem.Unavailable, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, options{cost: bcrypt.MinCost + 1})
			alice := r.add("alice", true)
			r.change(alice.ID, func(u *user.User) { u.PasswordHash = string(imported) })
			if out := test.login(r); out.Code != test.want {
				t.Fatalf("got %s, want %q", out.Code, test.want)
			}
			r.Upgrades.Wait()
			r.spy.on(nil)
			u, err := r.users.ByID(t.Context(), alice.ID)
			r.must(err)
			if got := strings.HasPrefix(u.PasswordHash, "$gatehouse-bcrypt$1$2a$05$"); got != test.upgraded {
				t.Errorf("hash is %.30s…, upgraded %t, want %t", u.PasswordHash, got, test.upgraded)
			}
			if !u.PasswordChangedAt.Equal(alice.PasswordChangedAt) {
				t.Error("the password counts as changed, so that a login that waits for its code would end")
			}
			if out := r.password(abroad, "alice", right); out.Code != problem.CodeRequired {
				t.Errorf("afterwards: got %s, want code-required", out.Code)
			}
		})
	}
}

// After an import everybody's hash is old. One is upgraded at a time, so that the line of the pool is there for logins.
func TestFlow_upgradesOneHashAtATime(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{cost: bcrypt.MinCost + 1})
	old, err := bcrypt.GenerateFromPassword([]byte(right), bcrypt.MinCost)
	r.must(err)
	accounts := []user.User{r.add("alice", true), r.add("bob", true)}
	for _, u := range accounts {
		r.change(u.ID, func(u *user.User) { u.PasswordHash = string(old) })
	}
	upgraded := func(u user.User) bool {
		t.Helper()
		now, err := r.users.ByID(t.Context(), u.ID)
		r.must(err)
		return now.PasswordHash != string(old)
	}
	begun, goOn := make(chan struct{}), make(chan struct{})
	r.spy.on(func(call string) error {
		if call == "put users" {
			close(begun)
			<-goOn
		}
		return nil
	})
	r.password(home, "alice", right)
	<-begun
	r.password(home, "bob", right)
	close(goOn)
	r.Upgrades.Wait()
	r.spy.on(nil)
	if !upgraded(accounts[0]) || upgraded(accounts[1]) {
		t.Errorf("upgraded: alice %t, bob %t; want alice alone", upgraded(accounts[0]), upgraded(accounts[1]))
	}
	r.password(home, "bob", right)
	r.Upgrades.Wait()
	if !upgraded(accounts[1]) {
		t.Error("bob's next login did not upgrade his hash")
	}
}

// A password that was set while the old one was being hashed anew stays.
func TestFlow_upgradesNoHashThatChangedMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{cost: bcrypt.MinCost + 1})
	alice := r.add("alice", true)
	old, err := bcrypt.GenerateFromPassword([]byte(right), bcrypt.MinCost)
	r.must(err)
	fresh, err := r.Hasher.Hash("another password of hers")
	r.must(err)
	r.change(alice.ID, func(u *user.User) { u.PasswordHash = string(old) })
	r.spy.on(func(call string) error {
		if call == "append record" { // verified, and not yet hashed anew
			r.spy.on(nil)
			r.change(alice.ID, func(u *user.User) { u.PasswordHash = fresh })
		}
		return nil
	})
	r.password(home, "alice", right)
	r.Upgrades.Wait()
	u, err := r.users.ByID(t.Context(), alice.ID)
	r.must(err)
	if u.PasswordHash != fresh {
		t.Error("the upgrade wrote the old password over the new one")
	}
}

// Every outcome that hands nothing out says so in the record too, and no record holds what was presented.
func TestFlow_recordsNoSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("alice", true)
	known := r.signIn(home, "alice")
	code := r.code()
	r.try(known, auth.Presented{Username: "alice", Password: right, Code: code})
	r.try(known, auth.Presented{Username: "alice", Password: "canary in a wrong password", Code: "canary code"})
	r.password(home, "canary in the name field", right)
	waiting := r.password(home, "alice", right)
	r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: "canary code"})
	var text strings.Builder
	r.must(audit.Read(r.logDir, 1, func(record audit.Record) error {
		line, err := audit.Line(record)
		text.Write(line)
		return err
	}))
	if !strings.Contains(text.String(), `"name":"alice"`) {
		t.Fatalf("the log does not name alice:\n%s", text.String())
	}
	for _, canary := range []string{"canary", right, waiting.Challenge, known.DeviceCookie, secret, code} {
		if strings.Contains(text.String(), canary) {
			t.Errorf("the log holds %q", canary)
		}
	}
}

// An account that was disabled while its login was under way gets no session.
func TestFlow_signsNobodyInWhoWasDisabledMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	alice := r.add("alice", true)
	r.spy.on(func(call string) error {
		if call == "append record" {
			r.spy.on(nil)
			r.disable(alice.ID)
		}
		return nil
	})
	out := r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	if out.Code != problem.Unavailable || r.liveSessions(alice.ID) != 0 {
		t.Errorf("got %s and %d sessions, want unavailable and none", out.Code, r.liveSessions(alice.ID))
	}
	if e, _ := r.spy.last(); e.Kind != audit.KindSessionNotStarted {
		t.Errorf("last record is %s", e.Kind)
	}
	if out := r.password(home, "alice", right); out.Code != problem.InvalidCredentials {
		t.Errorf("afterwards: got %s", out.Code)
	}
}

func TestBadRequest_unwraps(t *testing.T) {
	t.Parallel()
	err := error(&auth.BadRequest{Code: problem.TooLarge, Err: context.Canceled})
	if !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "too-large: ") {
		t.Errorf("got %v", err)
	}
}
