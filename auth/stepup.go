package auth

import (
	"context"
	"errors"

	"gatehouse/audit"
	"gatehouse/auth/totp"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/session"
)

// StepUp makes a live session fresher by a code. present is called as Login calls it; only the Code of what it returns counts.
//
// It is a login in which the session stands for step 1: the same six lines, the same bucket, the same budget of wrong codes, the same
// record before the effect. So holding somebody's session, or a stolen cookie of it, is no way to guess more often (LG-10).
func (f *Flow) StepUp(ctx context.Context, client Client, held session.Principal, present func() (Presented, error)) Outcome {
	a := f.attempt(client)
	a.held = &held
	a.step(audit.StepRateLimit, func() { f.rateLimit(ctx, a); f.present(a, present) })
	a.step(audit.StepPassword, func() { f.signedIn(ctx, a) })
	a.step(audit.StepSecondFactor, func() { f.freshFactor(ctx, a) })
	a.step(audit.StepContext, func() { f.context(ctx, a) })
	a.step(audit.StepSession, func() { a.pass(audit.StepSession, audit.Pass, audit.ReasonSteppedUp) })
	a.always(audit.StepAudit, func() { f.record(ctx, a) })
	f.Observe(a.out)
	return a.out
}

// signedIn is step 1 where a session stands for the password. The account is read again: the session may have outlived it on this
// gateway for a moment.
func (f *Flow) signedIn(ctx context.Context, a *attempt) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	account, err := f.Users.ByID(ctx, a.held.UserID)
	switch {
	case errors.Is(err, user.ErrNotFound), err == nil && account.Disabled:
		a.stop(audit.StepPassword, audit.Fail, audit.ReasonAccountDisabled, problem.SessionRequired)
		return
	case err != nil:
		f.undecided(a, audit.StepPassword, "read the account", err)
		return
	}
	a.account, a.nameTag, a.out.Username = account, f.Users.NameTag(account.Name), account.Name
	if err := f.recall(ctx, a); err != nil {
		f.undecided(a, audit.StepPassword, "read the history", err)
		return
	}
	a.gather(0)
	a.pass(audit.StepPassword, audit.Skipped, audit.ReasonSignedIn)
}

// freshFactor is step 3 of a step-up.
func (f *Flow) freshFactor(ctx context.Context, a *attempt) {
	if a.account.TOTP == nil {
		a.stop(audit.StepSecondFactor, audit.Fail, audit.ReasonEnrolmentRequired, problem.EnrolmentRequired)
		return
	}
	a.factor = totp.Enrolment{ID: a.account.TOTP.ID, Secret: a.account.TOTP.Secret}
	f.checkCode(context.WithoutCancel(ctx), a)
}

// raise makes the session fresher, after the record.
func (f *Flow) raise(ctx context.Context, a *attempt) error {
	if a.codesFailed {
		if err := f.Codes.EndRun(ctx, a.account.ID, a.class); err != nil {
			return err
		}
	}
	fresh, cookies, err := f.Sessions.StepUp(ctx, session.StepUp{
		Principal: *a.held, Methods: a.methods, AuthTime: f.Now(), Origin: a.Origin, Handle: a.Handle, DeviceCookie: a.DeviceCookie,
		Client: a.client(),
	})
	a.out.Credentials = session.Credentials{Principal: fresh, Cookies: cookies}
	return err
}

// CanStepUp reports whether an account has a second factor that a step-up could ask for. It returns an error of the store.
func (f *Flow) CanStepUp(ctx context.Context, userID string) (bool, error) {
	account, err := f.Users.ByID(ctx, userID)
	if errors.Is(err, user.ErrNotFound) {
		return false, nil
	}
	return account.TOTP != nil, err
}
