package auth_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/link"
	"gatehouse/auth/user"
	"gatehouse/problem"
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
