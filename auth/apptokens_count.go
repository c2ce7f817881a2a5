package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"gatehouse/audit"
	"gatehouse/auth/lockout"
	"gatehouse/problem"
	"gatehouse/ratelimit"
	"gatehouse/store"
)

// draw takes a token of the address's bucket.
func (t *AppTokens) draw(ctx context.Context, a *tokenAttempt) error {
	token, err := t.RateLimit.Take(ctx, a.Address)
	var limited *ratelimit.LimitedError
	switch {
	case errors.As(err, &limited):
		return t.refuse(a, string(audit.ReasonBucketEmpty), problem.RateLimited, limited.RetryAfter)
	case err != nil:
		return t.undecided(a, "draw a token", err)
	}
	a.token, a.drew = token, true
	return nil
}

// giveBack returns what a token drew that is right.
func (t *AppTokens) giveBack(ctx context.Context, a *tokenAttempt) {
	if a.paced {
		a.paced = false
		t.mu.Lock()
		t.paced = t.paced.Add(-newTokensEvery)
		t.mu.Unlock()
	}
	if !a.drew {
		return
	}
	a.drew = false
	if err := t.RateLimit.GiveBack(ctx, a.token); err != nil {
		t.Logger.WarnContext(ctx, "give back a token", "error", err, "request_id", a.RequestID)
	}
}

// reserve takes a slot in the window that strangers have at the name. A window that is full of attempts under way is waited for.
func (t *AppTokens) reserve(ctx context.Context, a *tokenAttempt) error {
	if a.knownHere || a.nameTag == "" {
		return nil
	}
	for {
		reserved, err := t.Passwords.Reserve(ctx, a.nameTag, lockout.Stranger)
		var locked *lockout.LockedError
		switch {
		case err == nil:
			a.reserved, a.counted = reserved, true
			return nil
		case errors.As(err, &locked):
			return t.refuse(a, string(audit.ReasonLocked), problem.Locked, locked.Until.Sub(t.Now()))
		case !errors.Is(err, lockout.ErrBusy):
			return t.undecided(a, "reserve a slot", err)
		}
		pause := time.NewTimer(pauseForSlot)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return t.undecided(a, "wait for a slot", ctx.Err())
		}
	}
}

func (t *AppTokens) settle(ctx context.Context, a *tokenAttempt, how lockout.Outcome) error {
	if !a.counted {
		return nil
	}
	a.counted = false
	_, err := t.Passwords.Settle(ctx, a.reserved, how)
	return err
}

// refuse answers before anything was verified. Such refusals are aggregated.
func (t *AppTokens) refuse(a *tokenAttempt, why string, code problem.Code, wait time.Duration) error {
	e := a.event(audit.Denied, why)
	e.Kind, e.Code, e.Count, e.RequestID, e.Client.UserAgent = audit.KindRefused, string(code), 1, "", ""
	t.Audit.Count(e)
	return &Refused{Code: code, RetryAfter: wait}
}

// undecided denies because something underneath failed.
func (t *AppTokens) undecided(a *tokenAttempt, what string, err error) error {
	t.Logger.Warn(what, "error", err, "request_id", a.RequestID)
	e := a.event(audit.Failed, string(audit.ReasonStoreUnavailable))
	e.Kind, e.Code, e.Count, e.RequestID, e.Client.UserAgent = audit.KindRefused, string(problem.Unavailable), 1, "", ""
	if errors.Is(err, store.ErrSealed) {
		e.Kind, e.Severity, e.Details["reason"] = audit.KindStateRefused, audit.High, string(audit.ReasonRecordSealed)
	}
	t.Audit.Count(e)
	return &Refused{Code: problem.Unavailable, RetryAfter: retryUnavailable}
}

// event is the record of an attempt.
func (a *tokenAttempt) event(how audit.Outcome, why string) audit.Event {
	e := audit.Event{
		Kind: audit.KindAppToken, Outcome: how, Actor: audit.Actor{Type: audit.ActorClient}, RequestID: a.RequestID,
		Client:  audit.Client{Address: a.Address.String(), Network: a.Network.String(), Claimed: a.Claimed, UserAgent: a.UserAgent},
		Details: map[string]string{"route": a.route},
	}
	if how == audit.Failure {
		e.Severity, e.Code = audit.Low, string(problem.InvalidCredentials)
	}
	if why != "" {
		e.Details["reason"] = why
	}
	if a.found.ID != "" {
		e.Details["token"] = a.found.ID
	}
	switch {
	case a.account.ID != "":
		e.Subject = audit.Subject{ID: a.account.ID, Name: a.account.Name}
	case a.nameTag != "":
		e.Subject = audit.Subject{Tag: a.nameTag[:16]}
	}
	return e
}

func (t *AppTokens) isAcquainted(text string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, known := t.acquainted[sha256.Sum256([]byte(text))]
	return known
}

// pace takes a place for one token that is not acquainted, and reports whether there was one.
func (t *AppTokens) pace() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.Now()
	if t.paced.Before(now) || t.paced.Sub(now) > newTokensBurst*newTokensEvery { // the clock was set back
		t.paced = now
	}
	if t.paced.Sub(now) > (newTokensBurst-1)*newTokensEvery {
		return false
	}
	t.paced = t.paced.Add(newTokensEvery)
	return true
}

// acquaint remembers a token that was right.
func (t *AppTokens) acquaint(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.acquainted) >= maxAcquainted {
		for any := range t.acquainted {
			delete(t.acquainted, any)
			break
		}
	}
	t.acquainted[sha256.Sum256([]byte(text))] = struct{}{}
}

func (t *AppTokens) estrange(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.acquainted, sha256.Sum256([]byte(text)))
}
