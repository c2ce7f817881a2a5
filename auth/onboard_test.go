package auth_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/link"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

// in is a client at home with a browser of its own.
func in(browser string) auth.Client {
	c := home
	c.Browser = browser
	return c
}

// codeOf is the current code of a secret.
func (r *rig) codeOf(e auth.Enrolment) string { return r.codeOfAt(e, 0) }

// codeOfAt is the code of a time step before or after the current one.
func (r *rig) codeOfAt(e auth.Enrolment, steps int) string {
	r.t.Helper()
	code, err := totp.GenerateCode(e.Secret, r.clock.Now().Add(time.Duration(steps)*30*time.Second))
	r.must(err)
	return code
}

// setup opens the set-up link.
func (r *rig) setup() string {
	r.t.Helper()
	token, _, open, err := r.onboard.SetupLink(r.t.Context())
	r.must(err)
	if !open {
		r.t.Fatal("the set-up link is closed")
	}
	return token
}

// invite adds an account without a password and returns its link.
func (r *rig) invite(name string) string {
	r.t.Helper()
	u, err := r.users.Add(r.t.Context(), user.User{Name: name, DisplayName: "Invited", Groups: []string{"staff"}})
	r.must(err)
	return r.inviteAgain(u.ID)
}

func (r *rig) inviteAgain(id string) string {
	r.t.Helper()
	token, l, err := r.links.Create(r.t.Context(), id)
	r.must(err)
	r.change(id, func(u *user.User) { u.Invitation = &user.Invitation{Link: link.Hash(token), Until: l.Expires} })
	return token
}

// choose takes the first step.
func (r *rig) choose(c auth.Client, kind link.Kind, token, name string) (auth.Enrolment, error) {
	return r.onboard.Choose(r.t.Context(), c, kind, func() (auth.Choice, error) {
		return auth.Choice{Token: token, Username: name, Password: right}, nil
	})
}

func (r *rig) mustChoose(c auth.Client, kind link.Kind, token, name string) auth.Enrolment {
	r.t.Helper()
	e, err := r.choose(c, kind, token, name)
	r.must(err)
	return e
}

// confirm takes the second step.
func (r *rig) confirm(c auth.Client, kind link.Kind, token, code string) auth.Outcome {
	return r.onboard.Confirm(r.t.Context(), c, kind, func() (auth.Confirmation, error) {
		return auth.Confirmation{Token: token, Code: code}, nil
	})
}

func (r *rig) byName(name string) user.User {
	r.t.Helper()
	u, err := r.users.ByName(r.t.Context(), name)
	r.must(err)
	return u
}

// appended are the kinds of the records that were written one by one.
func (r *rig) appended() []audit.Kind {
	r.spy.mu.Lock()
	defer r.spy.mu.Unlock()
	var kinds []audit.Kind
	for i, e := range r.spy.events {
		if r.spy.how[i] == "appended" {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

func wantRefused(t *testing.T, what string, err error, code problem.Code) *auth.Refused {
	t.Helper()
	var refused *auth.Refused
	if !errors.As(err, &refused) || refused.Code != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
		return &auth.Refused{}
	}
	return refused
}

func wantOutcome(t *testing.T, what string, out auth.Outcome, code problem.Code) {
	t.Helper()
	if out.Code != code || (len(out.Credentials.Cookies) > 0) != (code == "") {
		t.Errorf("%s: got %q with %d cookies, want %q\ntrace %+v", what, out.Code, len(out.Credentials.Cookies), code, out.Trace)
	}
}

// The set-up story: from the link to a signed-in administrator, known by device and network.
func TestOnboarding_makesTheFirstAdministrator(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	token := r.setup()
	a := in("a")
	v, err := r.onboard.View(t.Context(), a, link.Setup, token)
	if err != nil || v.Step != auth.StepAccount || v.Username != "" || !v.Expires.Equal(r.clock.Now().Add(30*time.Minute)) || v.Policy.Min != 12 {
		t.Fatalf("got %+v, %v", v, err)
	}
	e := r.mustChoose(a, link.Setup, token, "Alice")
	if e.Username != "alice" || !strings.Contains(e.URL, e.Secret) {
		t.Fatalf("got %+v", e)
	}
	if _, err := r.users.ByName(t.Context(), "alice"); !errors.Is(err, user.ErrNotFound) {
		t.Fatalf("before the code there is an account: %v", err)
	}
	if v, err := r.onboard.View(t.Context(), a, link.Setup, token); err != nil || v.Step != auth.StepFactor || v.Username != "alice" {
		t.Fatalf("got %+v, %v", v, err)
	}
	out := r.confirm(a, link.Setup, token, r.codeOf(e))
	wantOutcome(t, "confirm", out, "")
	for _, s := range []audit.Step{audit.StepPassword, audit.StepSecondFactor, audit.StepContext} {
		if got := out.Trace.Of(s); got.Verdict != audit.Pass || got.Reason != audit.ReasonOneTimeLink {
			t.Errorf("%s: got %+v", s, got)
		}
	}
	u := r.byName("alice")
	if !slices.Equal(u.Groups, []string{"admins"}) || u.TOTP == nil || u.TOTP.Secret != e.Secret || u.FirstLoginAt.IsZero() || u.Invitation != nil {
		t.Errorf("got %+v", u)
	}
	want := []audit.Kind{audit.KindLogin, audit.KindUserAdded, audit.KindTOTPEnrolled}
	if got := r.appended(); !slices.Equal(got, want) {
		t.Errorf("got records %v, want %v", got, want)
	}
	if r.liveSessions(u.ID) != 1 {
		t.Errorf("got %d sessions, want 1", r.liveSessions(u.ID))
	}

	// The time step is used, the link closed for ever, and the next login from here knows the device.
	known := a
	known.DeviceCookie = out.DeviceCookie
	again := auth.Presented{Username: "alice", Password: right, Code: r.codeOf(e)}
	wantOutcome(t, "the same code", r.try(known, again), problem.CodeInvalid)
	r.clock.add(time.Minute)
	again.Code = r.codeOf(e)
	out = r.try(known, again)
	wantOutcome(t, "the next login", out, "")
	if got := out.Trace.Of(audit.StepContext).Reason; got != audit.ReasonRecognised {
		t.Errorf("got context %s, want recognised", got)
	}
	_, err = r.onboard.View(t.Context(), a, link.Setup, token)
	wantRefused(t, "the link afterwards", err, problem.LinkExpired)
	if _, _, open, err := r.onboard.SetupLink(t.Context()); err != nil || open {
		t.Errorf("a set-up link afterwards: %v, %v", open, err)
	}
}

func TestOnboarding_completesAnInvitedAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	token := r.invite("bob")
	wantOutcome(t, "login before", r.password(home, "bob", right), problem.InvalidCredentials)
	r.clock.add(24 * time.Hour)
	a := in("a")
	if v, err := r.onboard.View(t.Context(), a, link.Invite, token); err != nil || v.Username != "bob" || v.DisplayName != "Invited" {
		t.Fatalf("got %+v, %v", v, err)
	}
	e := r.mustChoose(a, link.Invite, token, "mallory")
	wantOutcome(t, "confirm", r.confirm(a, link.Invite, token, r.codeOf(e)), "")
	u := r.byName("bob")
	if !slices.Equal(u.Groups, []string{"staff"}) || u.DisplayName != "Invited" || u.TOTP == nil || u.Invitation != nil || u.FirstLoginAt.IsZero() {
		t.Errorf("got %+v", u)
	}
	want := []audit.Kind{audit.KindLogin, audit.KindLogin, audit.KindPasswordSet, audit.KindTOTPEnrolled}
	if got := r.appended(); !slices.Equal(got, want) {
		t.Errorf("got records %v, want %v", got, want)
	}
	_, err := r.choose(a, link.Invite, token, "")
	wantRefused(t, "the link afterwards", err, problem.LinkExpired)
}

// What makes an invitation worthless before its time.
func TestOnboarding_endsInvitations(t *testing.T) {
	t.Parallel()
	ends := map[string]func(r *rig, id string){
		"a newer one":      func(r *rig, id string) { r.inviteAgain(id) },
		"the end of it":    func(r *rig, id string) { r.change(id, func(u *user.User) { u.Invitation = nil }) },
		"a disabling":      func(r *rig, id string) { r.change(id, func(u *user.User) { u.Disabled = true }) },
		"a complete login": func(r *rig, id string) { r.change(id, func(u *user.User) { u.FirstLoginAt = r.clock.Now() }) },
		"a deletion":       func(r *rig, id string) { r.must(r.users.Delete(r.t.Context(), id)) },
		"72 hours":         func(r *rig, _ string) { r.clock.add(72 * time.Hour) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, options{})
			token := r.invite("bob")
			e := r.mustChoose(in("a"), link.Invite, token, "")
			end(r, r.byName("bob").ID)
			_, err := r.onboard.View(t.Context(), in("a"), link.Invite, token)
			wantRefused(t, "view", err, problem.LinkExpired)
			_, err = r.onboard.Enrolment(t.Context(), in("a"), link.Invite, token)
			wantRefused(t, "draw", err, problem.LinkExpired)
			_, err = r.choose(in("a"), link.Invite, token, "")
			wantRefused(t, "choose", err, problem.LinkExpired)
			wantOutcome(t, "confirm", r.confirm(in("a"), link.Invite, token, r.codeOf(e)), problem.LinkExpired)
		})
	}
}

// TP-11: begun in one browser it cannot be finished in another; only the secret drawn last counts, and nothing after it did.
func TestOnboarding_bindsTheFactorToOneBrowserAndOneSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	token := r.invite("bob")
	a, b := in("a"), in("b")
	first := r.mustChoose(a, link.Invite, token, "")
	for name, other := range map[string]auth.Client{"another browser": b, "no browser": home} {
		wantOutcome(t, name, r.confirm(other, link.Invite, token, r.codeOf(first)), problem.LinkExpired)
		_, err := r.onboard.Enrolment(t.Context(), other, link.Invite, token)
		wantRefused(t, name, err, problem.LinkExpired)
		if v, err := r.onboard.View(t.Context(), other, link.Invite, token); err != nil || v.Step != auth.StepAccount {
			t.Errorf("%s: got %+v, %v", name, v, err)
		}
	}
	second, err := r.onboard.Enrolment(t.Context(), a, link.Invite, token)
	if err != nil || second.Secret == first.Secret {
		t.Fatalf("drawn again: the same secret, or %v", err)
	}
	out := r.confirm(a, link.Invite, token, r.codeOf(first))
	wantOutcome(t, "a code of the first secret", out, problem.CodeInvalid)
	if out.Enrolment == nil || *out.Enrolment != second {
		t.Errorf("after a wrong code: got %+v, want %+v", out.Enrolment, second)
	}
	// The owner begins again in b: whatever a has is worth nothing.
	third := r.mustChoose(b, link.Invite, token, "")
	wantOutcome(t, "the browser that was left", r.confirm(a, link.Invite, token, r.codeOf(second)), problem.LinkExpired)
	wantOutcome(t, "the browser that went on", r.confirm(b, link.Invite, token, r.codeOf(third)), "")
	_, err = r.onboard.Enrolment(t.Context(), b, link.Invite, token)
	wantRefused(t, "the secret after it was confirmed", err, problem.LinkExpired)
}

func TestOnboarding_endsTheLinkAfterFiveWrongCodes(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	token := r.setup()
	e := r.mustChoose(in("a"), link.Setup, token, "alice")
	for i := range link.MaxTries {
		want := problem.CodeInvalid
		if i == link.MaxTries-1 {
			want = problem.LinkExpired
		}
		out := r.confirm(in("a"), link.Setup, token, "000000000")
		wantOutcome(t, fmt.Sprintf("wrong code %d", i+1), out, want)
		if (out.Enrolment != nil) != (want == problem.CodeInvalid) {
			t.Errorf("wrong code %d: drawn again: %v", i+1, out.Enrolment != nil)
		}
	}
	wantOutcome(t, "then the right one", r.confirm(in("a"), link.Setup, token, r.codeOf(e)), problem.LinkExpired)
	if again := r.setup(); again == token {
		t.Error("the dead link is still printed")
	}
}

func TestOnboarding_saysWhatIsWrongWithAChoice(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.add("taken", true)
	token := r.setup()
	tests := []struct {
		name   string
		choice auth.Choice
		code   problem.Code
		field  string
	}{
		{"no name", auth.Choice{Password: right}, problem.BadRequest, auth.FieldUsername},
		{"a bad name", auth.Choice{Username: "al ice", Password: right}, problem.BadRequest, auth.FieldUsername},
		{"a taken name", auth.Choice{Username: "Taken", Password: right}, problem.Conflict, auth.FieldUsername},
		{"a bad display name", auth.Choice{Username: "alice", DisplayName: "a\nb", Password: right}, problem.BadRequest, auth.FieldDisplayName},
		{"a short password", auth.Choice{Username: "alice", Password: "short"}, problem.PasswordRejected, auth.FieldPassword},
		{"the name as password", auth.Choice{Username: "alice.wonderland", Password: "alice.wonderland"}, problem.PasswordRejected, auth.FieldPassword},
		{"the host as password", auth.Choice{Username: "alice", Password: "login.example.org"}, problem.PasswordRejected, auth.FieldPassword},
		{"another token", auth.Choice{Token: "x", Username: "alice", Password: right}, problem.LinkExpired, ""},
	}
	for i, test := range tests {
		if test.choice.Token == "" {
			test.choice.Token = token
		}
		c := at(i)
		c.Browser = "a"
		_, err := r.onboard.Choose(t.Context(), c, link.Setup, func() (auth.Choice, error) { return test.choice, nil })
		refused := wantRefused(t, test.name, err, test.code)
		if refused.Field != test.field || (len(refused.Reasons) > 0) != (test.code == problem.PasswordRejected) {
			t.Errorf("%s: got %+v", test.name, refused)
		}
	}
	if r.pool.Runs() != 0 {
		t.Errorf("%d hashes were made for nothing", r.pool.Runs())
	}
	if v, err := r.onboard.View(t.Context(), in("a"), link.Setup, token); err != nil || v.Step != auth.StepAccount {
		t.Errorf("got %+v, %v, want nothing chosen", v, err)
	}
	_, err := r.onboard.Choose(t.Context(), in("a"), link.Setup, func() (auth.Choice, error) {
		return auth.Choice{}, &auth.BadRequest{Code: problem.CrossSite, Err: errors.New("no token")}
	})
	wantRefused(t, "no form token", err, problem.CrossSite)
}

// Every step draws a token of its address before it looks at anything; what was right gives it back.
func TestOnboarding_drawsTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	token := r.invite("bob")
	for range 15 {
		r.mustChoose(in("a"), link.Invite, token, "")
	}
	for range 10 {
		_, err := r.choose(in("a"), link.Invite, "unknown", "")
		wantRefused(t, "unknown", err, problem.LinkExpired)
	}
	_, err := r.choose(in("a"), link.Invite, token, "")
	if refused := wantRefused(t, "an empty bucket", err, problem.RateLimited); refused.RetryAfter <= 0 {
		t.Error("no time to wait is given")
	}
	asked := false
	out := r.onboard.Confirm(t.Context(), in("a"), link.Invite, func() (auth.Confirmation, error) {
		asked = true
		return auth.Confirmation{}, nil
	})
	wantOutcome(t, "an empty bucket", out, problem.RateLimited)
	if asked {
		t.Error("the body was read before the address had a token")
	}
}

// story is a link of one kind in a rig, with the choice made and the first code at hand.
type story struct {
	kind  link.Kind
	token string
	e     auth.Enrolment
}

func tell(r *rig, kind link.Kind) story {
	s := story{kind: kind}
	if kind == link.Setup {
		s.token = r.setup()
	} else {
		s.token = r.invite("alice")
	}
	s.e = r.mustChoose(in("a"), kind, s.token, "alice")
	return s
}

// Every call of Confirm fails once, before it happens and after: an administrator or account is there wholly or not at all, and
// the same browser gets in, by the link or by the front door.
func TestOnboarding_canBeRepeatedAfterAnyOutage(t *testing.T) {
	t.Parallel()
	for _, kind := range []link.Kind{link.Setup, link.Invite} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/after=%v", kind, after), func(t *testing.T) {
				t.Parallel()
				n := 1
				for failNth(t, kind, after, n) >= n {
					n++
				}
				if n < 6 {
					t.Errorf("only %d calls were seen", n-1)
				}
			})
		}
	}
}

// failNth has the n-th call fail and returns how many there were.
func failNth(t *testing.T, kind link.Kind, after bool, n int) (calls int) {
	t.Helper()
	r := newRig(t, options{})
	s := tell(r, kind)
	failed := ""
	hook := func(call string) error {
		if calls++; calls != n {
			return nil
		}
		failed = call
		if call == "append record" {
			return audit.ErrUnavailable
		}
		return errDown
	}
	if after {
		r.spy.after = hook
	} else {
		r.spy.before = hook
	}
	out := r.confirm(in("a"), kind, s.token, r.codeOf(s.e))
	r.spy.mu.Lock()
	r.spy.before, r.spy.after = nil, nil
	r.spy.mu.Unlock()
	if out.Code != "" && out.Code != problem.Unavailable {
		t.Errorf("%s: got %s", failed, out.Code)
	}
	if u, err := r.users.ByName(t.Context(), "alice"); err == nil && (u.PasswordHash == "") != (u.TOTP == nil) {
		t.Errorf("%s: half an account: %+v", failed, u)
	}
	r.clock.add(time.Minute)
	again := r.confirm(in("a"), kind, s.token, r.codeOf(s.e))
	if out.Code == "" || again.Code != "" {
		wantOutcome(t, failed+", repeated", again, problem.LinkExpired)
		r.clock.add(time.Minute)
		wantOutcome(t, failed+", by the front door", r.try(abroad, auth.Presented{Username: "alice", Password: right, Code: r.codeOf(s.e)}), "")
	}
	return calls
}

// Without a record there is no account, and with it restored the same link goes on, without its secret being shown again.
func TestOnboarding_makesNothingWithoutARecord(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	s := tell(r, link.Setup)
	r.spy.fail("append record", audit.ErrUnavailable)
	for range 2 * link.MaxTries {
		wantOutcome(t, "without a log", r.confirm(in("a"), link.Setup, s.token, r.codeOf(s.e)), problem.Unavailable)
		r.clock.add(time.Minute)
	}
	if users, err := r.users.List(t.Context()); err != nil || len(users) != 0 {
		t.Fatalf("got accounts %v, %v", users, err)
	}
	r.spy.on(nil)
	e, err := r.onboard.Enrolment(t.Context(), in("a"), link.Setup, s.token)
	if err != nil || e.Secret != "" || e.URL != "" || e.Username != "alice" {
		t.Errorf("drawn after a right code: %+v, %v", e, err)
	}
	_, err = r.choose(in("b"), link.Setup, s.token, "mallory")
	wantRefused(t, "another browser", err, problem.LinkExpired)
	wantOutcome(t, "with the log", r.confirm(in("a"), link.Setup, s.token, r.codeOf(s.e)), "")
}

// gateways are two rigs over one Redis.
func gateways(t *testing.T) (*rig, *rig) {
	t.Helper()
	server := storetest.Redis(t)
	c := &clock{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
	connect := func() engine {
		db, err := redisstore.Open(t.Context(), redisstore.Options{URL: server.URL(), Now: c.Now, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	log := func() *audit.Log {
		log, err := audit.Open(audit.Options{Dir: filepath.Join(t.TempDir(), "audit"), Node: "test", Now: c.Now, Logger: discard, Reserve: 4096})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = log.Close() })
		return log
	}
	return assemble(t, options{}, c, connect(), log()), assemble(t, options{}, c, connect(), log())
}

// Two gateways on an empty Redis: one link, and of many who confirm it at once, on both, with the different codes that are good,
// one gets in and one account is made.
func TestOnboarding_makesOneAdministratorOverTwoGateways(t *testing.T) {
	t.Parallel()
	one, two := gateways(t)
	token := one.setup()
	if other := two.setup(); other != token {
		t.Fatal("the gateways print different links")
	}
	e := one.mustChoose(in("a"), link.Setup, token, "alice")
	var mu sync.Mutex
	signedIn := 0
	race(t, one, two, func(r *rig, i int) {
		if r.confirm(in("a"), link.Setup, token, r.codeOfAt(e, i%3-1)).Code == "" {
			mu.Lock()
			defer mu.Unlock()
			signedIn++
		}
	})
	users, err := two.users.List(context.Background())
	if signedIn != 1 || err != nil || len(users) != 1 || one.liveSessions(users[0].ID) != 1 {
		t.Errorf("%d got in, accounts %v, %v", signedIn, users, err)
	}
}

// Two people have the link and each goes on with a name of their own, again and again: whoever is first is alone.
func TestOnboarding_makesOneAdministratorOfTwoBrowsers(t *testing.T) {
	t.Parallel()
	one, two := gateways(t)
	for round := range 5 {
		token := one.setup()
		var mu sync.Mutex
		signedIn := 0
		race(t, one, two, func(r *rig, i int) {
			browser := fmt.Sprintf("browser-%d", i)
			e, err := r.choose(in(browser), link.Setup, token, fmt.Sprintf("name-%d-%d", round, i))
			if err == nil && r.confirm(in(browser), link.Setup, token, r.codeOf(e)).Code == "" {
				mu.Lock()
				defer mu.Unlock()
				signedIn++
			}
		})
		users, err := one.users.List(t.Context())
		if err != nil || len(users) != signedIn || signedIn > 1 {
			t.Fatalf("round %d: %d got in, %d accounts, %v", round, signedIn, len(users), err)
		}
		if signedIn == 1 {
			return
		}
	}
	t.Error("nobody ever got in")
}

// race runs try six times at once, three on each gateway.
func race(t *testing.T, one, two *rig, try func(r *rig, i int)) {
	t.Helper()
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() { try([]*rig{one, two}[i%2], i) })
	}
	group.Wait()
}

// Neither a token nor a password nor a secret is in a record.
func TestOnboarding_recordsNoSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	s := tell(r, link.Setup)
	r.confirm(in("a"), link.Setup, s.token, "000000")
	wantOutcome(t, "confirm", r.confirm(in("a"), link.Setup, s.token, r.codeOf(s.e)), "")
	err := audit.Read(r.logDir, 1, func(record audit.Record) error {
		line, err := audit.Line(record)
		for _, hidden := range []string{s.token, right, s.e.Secret} {
			if strings.Contains(string(line), hidden) {
				t.Errorf("a record holds %q: %s", hidden, line)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
