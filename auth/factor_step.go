package auth

import (
	"context"
	"errors"
	"time"

	"gatehouse/audit"
	"gatehouse/auth/lockout"
	"gatehouse/auth/totp"
	"gatehouse/problem"
)

// secondFactor is step 3. A factor is asked where policy requires one, and, of an account that has one, where step 4 saw
// something unusual.
func (f *Flow) secondFactor(ctx context.Context, a *attempt) {
	unusual := len(a.signals) > 0
	switch {
	case a.completes != nil:
		f.confirmEnrolment(ctx, a)
	case a.account.TOTP == nil && f.FactorRequired:
		f.requireEnrolment(ctx, a)
	case a.account.TOTP == nil, !f.FactorRequired && !unusual && a.pending == nil && a.Code == "":
		a.pass(audit.StepSecondFactor, audit.Skipped, audit.ReasonFactorOptional)
	case a.Code == "":
		f.challenge(ctx, a, audit.ReasonCodeRequired, problem.CodeRequired)
	default:
		a.factor = totp.Enrolment{ID: a.account.TOTP.ID, Secret: a.account.TOTP.Secret}
		f.checkCode(context.WithoutCancel(ctx), a)
	}
}

// challenge keeps the attempt as a pending login and asks for the code.
func (f *Flow) challenge(ctx context.Context, a *attempt, reason audit.Reason, code problem.Code) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	a.stop(audit.StepSecondFactor, audit.Challenge, reason, code)
	challenge, err := f.suspend(ctx, a)
	if err != nil {
		f.undecided(a, audit.StepSecondFactor, "keep the pending login", err)
		return
	}
	a.out.Challenge = challenge
}

// checkCode verifies the code within the account's budget of wrong codes, which no new login renews.
func (f *Flow) checkCode(ctx context.Context, a *attempt) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	reservation, err := f.Codes.Reserve(ctx, a.account.ID, a.class)
	var locked *lockout.LockedError
	switch {
	case errors.As(err, &locked):
		f.locked(a, audit.StepSecondFactor, locked, audit.ReasonCodesLocked)
		return
	case errors.Is(err, lockout.ErrBusy):
		a.out.RetryAfter = time.Second
		a.stop(audit.StepSecondFactor, audit.Error, audit.ReasonPoolFull, problem.Unavailable)
		return
	case err != nil:
		f.undecided(a, audit.StepSecondFactor, "reserve a slot for a code", err)
		return
	}
	a.ran = true
	wrong := f.TOTP.Check(ctx, a.factor.ID, a.factor.Secret, a.Code)
	f.settleCode(ctx, a, reservation, wrong)
}

// settleCode settles the slot by what the check said. A used code counts like a wrong one; a check that could not be made
// counts nothing.
func (f *Flow) settleCode(ctx context.Context, a *attempt, reservation lockout.Reservation, wrong error) {
	how, reason := lockout.Right, audit.ReasonNone
	switch {
	case errors.Is(wrong, totp.ErrUsed):
		how, reason = lockout.Wrong, audit.ReasonCodeUsed
	case errors.Is(wrong, totp.ErrWrong):
		how, reason = lockout.Wrong, audit.ReasonCodeWrong
	case wrong != nil:
		how = lockout.NotVerified
	}
	settled, err := f.Codes.Settle(ctx, reservation, how)
	a.codesFailed = settled.Run > 0
	switch {
	case wrong != nil && how == lockout.NotVerified:
		f.undecided(a, audit.StepSecondFactor, "check a code", wrong)
	case err != nil:
		f.undecided(a, audit.StepSecondFactor, "settle a slot for a code", err)
	case how == lockout.Wrong:
		f.noteLock(ctx, a, audit.StepSecondFactor, settled)
		a.stop(audit.StepSecondFactor, audit.Fail, reason, problem.CodeInvalid)
	default:
		a.verified = true
		a.methods = append(a.methods, "otp", "mfa")
		a.pass(audit.StepSecondFactor, audit.Pass, a.completes.reasonOfCode())
		f.giveBack(ctx, a)
	}
}
