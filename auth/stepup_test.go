package auth_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/session"
)

// seat is a browser in which somebody is signed in.
type seat struct {
	auth.Client
	account user.User
	held    session.Principal
	cookies []*http.Cookie
}

// sit signs an account in with a code, which is used up then; the code of the next step is good.
func (r *rig) sit(name string, enrolled bool) seat {
	r.t.Helper()
	s := seat{Client: home, account: r.add(name, enrolled)}
	p := auth.Presented{Username: name, Password: right}
	if enrolled {
		p.Code = r.code()
	}
	out := r.try(home, p)
	if out.Code != "" {
		r.t.Fatalf("sign in: %s, trace %+v", out.Code, out.Trace)
	}
	r.clock.add(time.Minute)
	s.take(out)
	s.DeviceCookie = out.DeviceCookie
	return s
}

func (s *seat) take(out auth.Outcome) {
	s.held, s.cookies = out.Credentials.Principal, out.Credentials.Cookies
	for _, c := range s.cookies {
		if strings.HasSuffix(c.Name, "-session") {
			s.Handle = c.Value
		}
	}
}

// request is a request with the cookies of the seat.
func (s seat) request() *http.Request {
	r := &http.Request{Header: http.Header{}}
	for _, c := range s.cookies {
		r.AddCookie(c)
	}
	return r
}

func (r *rig) stepUp(s seat, code string) auth.Outcome {
	return r.StepUp(r.t.Context(), s.Client, s.held, func() (auth.Presented, error) { return auth.Presented{Code: code}, nil })
}

func stepUpOf(run func(r *rig, s seat) auth.Outcome) func(r *rig) auth.Outcome {
	return func(r *rig) auth.Outcome { return run(r, r.sit("alice", true)) }
}

func failingStepUp(call string) func(r *rig) auth.Outcome {
	return stepUpOf(func(r *rig, s seat) auth.Outcome {
		r.spy.fail(call, errDown)
		return r.stepUp(s, r.code())
	})
}

// stepUps is every way for a step-up to end that a login does not have, and one for each that it shares with it.
var stepUps = []scenario{
	{"pass/step-up", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome { return r.stepUp(s, r.code()) })},
	{"pass/step-up-after-a-wrong-code", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome {
		r.stepUp(s, "not it")
		return r.stepUp(s, r.code())
	})},
	{"pass/step-up-in-another-network", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome {
		s.Address, s.Network = abroad.Address, abroad.Network
		return r.stepUp(s, r.code())
	})},
	{"1-password/step-up-malformed", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome {
		return r.StepUp(r.t.Context(), s.Client, s.held, func() (auth.Presented, error) {
			return auth.Presented{}, &auth.BadRequest{Code: problem.CrossSite, Err: errDown}
		})
	})},
	{"1-password/step-up-of-a-disabled-account", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome {
		r.change(s.account.ID, func(u *user.User) { u.Disabled = true })
		return r.stepUp(s, r.code())
	})},
	{"1-password/step-up-store-unavailable-account", options{}, failingStepUp("get users")},
	{"1-password/step-up-store-unavailable-history", options{}, failingStepUp("get history")},
	{"2-rate-limit/step-up-bucket-empty", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome {
		for range 10 {
			r.password(home, "nobody", wrong)
		}
		return r.stepUp(s, r.code())
	})},
	{"3-second-factor/step-up-without-a-factor", optional, func(r *rig) auth.Outcome { return r.stepUp(r.sit("alice", false), "123456") }},
	{"3-second-factor/step-up-code-wrong", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome { return r.stepUp(s, "not it") })},
	{"3-second-factor/step-up-code-used", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome {
		code := r.code()
		out := r.stepUp(s, code)
		s.take(out)
		return r.stepUp(s, code)
	})},
	{"3-second-factor/step-up-codes-locked", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome {
		for range 5 {
			r.stepUp(s, "not it")
		}
		s.DeviceCookie = "" // it ended with the fifth; the strangers' window is another one
		for range 5 {
			r.stepUp(s, "not it")
		}
		s.Address = abroad.Address
		return r.stepUp(s, r.code())
	})},
	{"3-second-factor/step-up-store-unavailable-settle", options{}, failingStepUp("settle code")},
	{"5-session/step-up-session-failed", options{}, failingStepUp("step session up")},
	{"5-session/step-up-session-ended", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome {
		r.must(r.sessions.Revoke(r.t.Context(), s.held.UserID, s.held.SessionID, audit.Event{Kind: audit.KindLogout}))
		return r.stepUp(s, r.code())
	})},
	{"6-audit/step-up-audit-failed", options{}, stepUpOf(func(r *rig, s seat) auth.Outcome {
		r.spy.fail("append record", audit.ErrUnavailable)
		return r.stepUp(s, r.code())
	})},
}

// LG-10: a held session is no way to guess more. Its wrong codes are those of a login, and the other way round.
func TestFlow_StepUp_sharesTheBudgetOfLogins(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	s := r.sit("alice", true)
	s.DeviceCookie = "" // the class of strangers, as that of a thief
	for i := range 3 {
		c := at(100 + i)
		if out := r.try(c, auth.Presented{Username: "alice", Password: right, Code: "000000000"}); out.Code != problem.CodeInvalid {
			t.Fatalf("login %d: %s", i, out.Code)
		}
	}
	for i := range 20 {
		s.Address = at(i).Address
		want := problem.Locked
		if i < 2 {
			want = problem.CodeInvalid
		}
		if out := r.stepUp(s, "000000000"); out.Code != want {
			t.Errorf("step-up %d: %s, want %s", i, out.Code, want)
		}
	}
	if got := r.wrongCodes(s.account.ID); got != 5 {
		t.Errorf("%d wrong codes are counted, want 5", got)
	}
	if out := r.stepUp(s, r.code()); out.Code != problem.Locked {
		t.Errorf("the right code: %s, want locked", out.Code)
	}
	if _, err := r.sessions.Authenticate(t.Context(), s.request(), origin); err != nil {
		t.Errorf("the session: %v; it must live on", err)
	}
}

// What cannot be recorded does not happen: the session is as fresh as before, and what the browser holds is good.
func TestFlow_StepUp_failsWhole(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"take token", "get users", "get history", "reserve code", "use up code", "settle code", "append record", "step session up"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, options{})
			s := r.sit("alice", true)
			r.spy.fail(call, errDown)
			out := r.stepUp(s, r.code())
			if out.Code != problem.Unavailable || len(out.Credentials.Cookies) > 0 {
				t.Errorf("%s with %d cookies, want unavailable and none", out.Code, len(out.Credentials.Cookies))
			}
			r.spy.on(nil)
			p, err := r.sessions.Authenticate(t.Context(), s.request(), origin)
			if err != nil || !p.AuthTime.Equal(s.held.AuthTime) {
				t.Errorf("afterwards: %v since %v, want since %v", err, p.AuthTime, s.held.AuthTime)
			}
			r.clock.add(30 * time.Second)
			if out := r.stepUp(s, r.code()); out.Code != "" {
				t.Errorf("the next try: %s", out.Code)
			}
		})
	}
}

// The record of a step-up is there when its effect begins.
func TestFlow_StepUp_recordsBeforeItActs(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	s := r.sit("alice", true)
	ctx, leave := context.WithCancel(t.Context())
	var calls []string
	r.spy.on(func(call string) error {
		switch call {
		case "use up code":
			leave() // a client that goes away changes nothing from here on
		case "append record", "step session up":
			calls = append(calls, call)
		}
		return nil
	})
	code := r.code()
	out := r.StepUp(ctx, s.Client, s.held, func() (auth.Presented, error) { return auth.Presented{Code: code}, nil })
	if got := strings.Join(calls, ", "); got != "append record, step session up" || out.Code != "" {
		t.Errorf("%q after %s", out.Code, got)
	}
}
