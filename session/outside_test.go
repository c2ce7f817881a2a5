package session_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/session"
)

const (
	secret = "ghat_SECRET"
	mark   = "0123456789abcdef0123456789abcdef"
)

// admit lets alice in by an outside credential, and counts how often it was read.
func (h *house) admit(tb testing.TB, g *gateway, reads *int, during func()) session.Principal {
	tb.Helper()
	p, err := g.Admit(tb.Context(), secret, "git", func(context.Context) (session.Principal, error) {
		*reads++
		h.accounts.mu.Lock()
		identity := h.accounts.identity[alice]
		h.accounts.mu.Unlock()
		if during != nil {
			during()
		}
		return session.Principal{
			Identity: identity, SessionID: mark, PublicID: "7f", AuthTime: h.clock.Now(), ExpiresAt: h.clock.Now().Add(time.Hour), Bearer: true,
			AppToken: true,
		}, nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func recalls(g *gateway) bool {
	_, ok := g.Recall(secret, "git")
	return ok
}

func TestManager_Recall_withoutTheStore(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	if recalls(g) {
		t.Error("known before it was verified")
	}
	reads := 0
	var p session.Principal
	eventually(t, "it to be remembered", func() bool { // a feed that is slow for a moment is one that is not followed
		p = h.admit(t, g, &reads, nil)
		return recalls(g)
	})
	g.line.operations()
	got, ok := g.Recall(secret, "git")
	if !ok || got.Name != "alice" || !got.AppToken || g.line.operations() != 0 {
		t.Errorf("recalled %+v, %v", got, ok)
	}
	if _, ok := g.Recall(secret, "wiki"); ok {
		t.Error("known for another audience")
	}
	if _, err := g.Authenticate(t.Context(), request("Authorization", "Bearer "+secret), wiki); !errors.Is(err, session.ErrBadBearer) {
		t.Errorf("as an access token: %v", err)
	}
	if raw, err := g.Assertion(p, wiki); err != nil || raw == "" {
		t.Errorf("assertion: %v", err)
	}
	if g.Activity(&http.Request{}, p) != nil {
		t.Error("activity of what has no session")
	}
	h.clock.move(5 * time.Minute)
	if recalls(g) {
		t.Error("known for longer than an access token lives")
	}
}

// What ends a user's sessions, here or elsewhere, makes the credential be verified again: it is not dead, and what changed counts. Clocks that
// differ change nothing about that, for what counts is the order in which things arrive.
func TestManager_Recall_forgetsWhatChanged(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	here, there := h.running(t), h.running(t)
	behind := h.gateway(t, func(o *session.Options) { o.Now = func() time.Time { return h.clock.Now().Add(-20 * time.Second) } })
	reads := 0
	for _, c := range []struct {
		name string
		end  func() error
	}{
		{"all sessions", func() error { _, err := here.RevokeUser(t.Context(), alice, "", logout); return err }},
		{"all sessions, by a clock that is behind", func() error { _, err := behind.RevokeUser(t.Context(), alice, "", logout); return err }},
		{"the credential", func() error { return here.Forget(t.Context(), alice, mark) }},
	} {
		name, end := c.name, c.end
		open := [2]<-chan struct{}{}
		for i, g := range []*gateway{here, there} {
			eventually(t, "it to be remembered before "+name, func() bool {
				open[i] = g.Ended(h.admit(t, g, &reads, nil))
				return recalls(g)
			})
		}
		if err := end(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i, g := range []*gateway{here, there} {
			eventually(t, name+" to be forgotten", func() bool { return !recalls(g) })
			eventually(t, "what is open to be cut after "+name, func() bool {
				select {
				case <-open[i]:
					return true
				default:
					return false
				}
			})
			if name != "the credential" {
				var p session.Principal
				eventually(t, "it to be remembered again after "+name, func() bool {
					p = h.admit(t, g, &reads, nil)
					return recalls(g)
				})
				select {
				case <-g.Ended(p):
					t.Errorf("%s: what is opened afterwards is cut", name)
				default:
				}
			}
		}
	}
}

// A change that arrives between the read and the memory of it is not overlooked.
func TestManager_Admit_whatArrivesMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.running(t)
	reads := 0
	h.admit(t, g, &reads, func() {
		if _, err := g.RevokeUser(t.Context(), alice, "", audit.Event{Kind: audit.KindUserDisabled}); err != nil {
			t.Error(err)
		}
	})
	if recalls(g) {
		t.Error("what was read before the change is remembered")
	}
}

func TestManager_Admit_onlyInStep(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := h.gateway(t)
	reads := 0
	h.admit(t, g, &reads, nil)
	if recalls(g) {
		t.Error("remembered while not in step")
	}
	boom := errors.New("boom")
	if _, err := g.Admit(t.Context(), secret, "git", func(context.Context) (session.Principal, error) { return session.Principal{}, boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}
