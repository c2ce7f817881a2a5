package auth

import (
	"context"
	"errors"
	"time"

	"gatehouse/audit"
	"gatehouse/auth/lockout"
	"gatehouse/auth/password"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/ratelimit"
	"gatehouse/store"
)

// BadRequest is what present returns for a body that it refuses. Nothing was looked up and no password was verified.
type BadRequest struct {
	Code problem.Code // problem.BadRequest, problem.TooLarge, problem.CrossSite
	Err  error        // for the log
}

func (e *BadRequest) Error() string { return string(e.Code) + ": " + e.Err.Error() }
func (e *BadRequest) Unwrap() error { return e.Err }

// retryUnavailable is what a client is told to wait when something underneath failed.
const retryUnavailable = 5 * time.Second

// admit is step 2, and reads the body behind it. While there is no place in the pool's line for this client the body comes first: a
// password could not be verified anyway, and a flood is refused without a write; a code needs no place, and draws its token then.
func (f *Flow) admit(ctx context.Context, a *attempt, present func() (Presented, error)) {
	if !f.Pool.Full(f.waiter(a)) {
		f.rateLimit(ctx, a)
		f.present(a, present)
		return
	}
	f.present(a, present)
	switch {
	case a.decided:
	case a.Challenge != "":
		f.rateLimit(ctx, a)
	default:
		a.pass(audit.StepRateLimit, audit.Skipped, audit.ReasonPoolFull)
		a.noPlace()
	}
}

// waiter is the attempt as the pool's line sees it. Of IPv6 a /64 counts as one address.
func (f *Flow) waiter(a *attempt) password.Waiter {
	address := a.Address.String()
	if a.Address.Is6() {
		address = a.Network.String()
	}
	return password.Waiter{Account: a.nameTag, Address: address, Owner: f.Devices.Owner(a.DeviceCookie)}
}

// rateLimit is step 2: a token of the address's bucket.
func (f *Flow) rateLimit(ctx context.Context, a *attempt) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	token, err := f.RateLimit.Take(ctx, a.Address)
	var limited *ratelimit.LimitedError
	switch {
	case err == nil:
		a.token = token
		a.pass(audit.StepRateLimit, audit.Pass, audit.ReasonNone)
	case errors.As(err, &limited):
		a.cheap = true
		a.out.RetryAfter = limited.RetryAfter
		a.stop(audit.StepRateLimit, audit.Fail, audit.ReasonBucketEmpty, problem.RateLimited)
	default:
		f.undecided(a, audit.StepRateLimit, "draw a token", err)
	}
}

// present reads what the client shows. A body that is refused has cost a token and nothing else.
func (f *Flow) present(a *attempt, present func() (Presented, error)) {
	if a.decided {
		return
	}
	shown, err := present()
	if err == nil {
		a.Presented = shown
		return
	}
	code := problem.BadRequest
	var bad *BadRequest
	if errors.As(err, &bad) {
		code = bad.Code
	}
	a.cheap = true
	a.stop(audit.StepPassword, audit.Fail, audit.ReasonMalformed, code)
}

// password is step 1. A login that is resumed from its challenge has passed it before.
func (f *Flow) password(ctx context.Context, a *attempt) {
	if a.Challenge != "" {
		f.resume(ctx, a)
		return
	}
	name, err := user.Canonical(a.Username)
	a.nameTag = f.Users.NameTag(name)
	if err != nil { // no account can have it; it goes through the same work under a tag of its own
		a.nameTag = f.Users.NameTag("\x00" + a.Username)
	}
	place, err := f.Pool.Enter(ctx, f.waiter(a))
	if err != nil {
		f.poolFull(ctx, a)
		return
	}
	defer place.Leave()
	// From here on a client that goes away changes nothing: what was reserved is verified and settled.
	ctx = context.WithoutCancel(ctx)
	ceiling, ok := f.identify(ctx, a)
	if !ok {
		return
	}
	if a.class == lockout.Stranger && place.Stranger() != nil { // the device is known to another account
		f.poolFull(ctx, a)
		return
	}
	reservation, ok := f.reserve(ctx, a, place)
	if !ok {
		return
	}
	f.verify(ctx, a, place, reservation, ceiling)
}

// identify finds the account, its history and its client class. A name that does not exist costs the same operations.
func (f *Flow) identify(ctx context.Context, a *attempt) (ceiling int, ok bool) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	account, err := f.Users.ByTag(ctx, a.nameTag)
	if err != nil && !errors.Is(err, user.ErrNotFound) {
		f.undecided(a, audit.StepPassword, "read the account", err)
		return 0, false
	}
	ceiling, err = f.Users.CostCeiling(ctx)
	if err != nil {
		f.undecided(a, audit.StepPassword, "read the cost ceiling", err)
		return 0, false
	}
	a.account = account
	if err := f.recall(ctx, a); err != nil {
		f.undecided(a, audit.StepPassword, "read the history", err)
		return 0, false
	}
	return ceiling, true
}

// reserve takes a slot in the lockout window. While only the reservations of attempts on other gateways stand in the way it
// waits in the pool's line, as long as the line allows.
func (f *Flow) reserve(ctx context.Context, a *attempt, place *password.Place) (lockout.Reservation, bool) {
	for {
		bounded, cancel := a.bounded(ctx)
		reservation, err := f.Passwords.Reserve(bounded, a.nameTag, a.class)
		cancel()
		var locked *lockout.LockedError
		switch {
		case err == nil:
			return reservation, true
		case errors.As(err, &locked):
			f.locked(a, audit.StepPassword, locked, audit.ReasonLocked)
			return lockout.Reservation{}, false
		case !errors.Is(err, lockout.ErrBusy):
			f.undecided(a, audit.StepPassword, "reserve a slot", err)
			return lockout.Reservation{}, false
		}
		if err := place.Pause(100 * time.Millisecond); err != nil {
			f.poolFull(ctx, a)
			return lockout.Reservation{}, false
		}
	}
}

// verify compares the password on a worker and settles the slot. The same work is done for every account and for none.
func (f *Flow) verify(ctx context.Context, a *attempt, place *password.Place, reservation lockout.Reservation, ceiling int) {
	right := false
	ran := place.Run(func() {
		if a.account.PasswordHash == "" {
			f.Hasher.Dummy(a.Password, ceiling)
			return
		}
		right = f.Hasher.Verify(a.account.PasswordHash, a.Password, ceiling)
	})
	a.ran = ran == nil
	how := lockout.Wrong
	switch {
	case ran != nil:
		how = lockout.NotVerified
	case right && a.account.ID != "" && !a.account.Disabled:
		how = lockout.Right
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	settled, err := f.Passwords.Settle(ctx, reservation, how)
	if ran != nil {
		f.poolFull(ctx, a)
		return
	}
	if err != nil { // the reservation stands and counts as a failure
		f.undecided(a, audit.StepPassword, "settle a slot", err)
		return
	}
	a.detail(audit.StepPassword, "class", a.classWord())
	if how == lockout.Right {
		a.out.Username, a.right = a.account.Name, true
		a.methods = []string{"pwd"}
		a.pass(audit.StepPassword, audit.Pass, audit.ReasonNone)
		a.gather(settled.Failures)
		if a.Code == "" || a.account.TOTP == nil { // else the code decides whether what was presented was right
			f.giveBack(ctx, a)
		}
		return
	}
	f.refusePassword(ctx, a, settled, right)
}

// refusePassword answers a failure that was counted: one answer for a wrong password, an unknown name and a disabled account.
func (f *Flow) refusePassword(ctx context.Context, a *attempt, settled lockout.Settled, right bool) {
	reason := audit.ReasonWrongPassword
	switch {
	case a.account.ID == "":
		reason = audit.ReasonUnknownUser
	case right:
		reason = audit.ReasonAccountDisabled
	}
	f.noteLock(ctx, a, audit.StepPassword, settled)
	a.stop(audit.StepPassword, audit.Fail, reason, problem.InvalidCredentials)
}

// noteLock says in the trace that a failure used up its window, and ends the known device that it was for.
func (f *Flow) noteLock(ctx context.Context, a *attempt, s audit.Step, settled lockout.Settled) {
	if settled.Locked {
		a.detail(s, "locked-until", settled.Until.UTC().Format(time.RFC3339))
		f.forgetDevice(ctx, a)
	}
}

// locked answers an attempt whose window is used up; it was not verified and neither counts nor prolongs. Behind a password
// that was right in the same request it gets a record of its own: somebody knows that password.
func (f *Flow) locked(a *attempt, s audit.Step, locked *lockout.LockedError, reason audit.Reason) {
	if locked.Closed {
		reason = audit.ReasonClosed
	}
	a.cheap = !a.ran
	a.out.RetryAfter = locked.Until.Sub(f.Now())
	a.stop(s, audit.Fail, reason, problem.Locked)
}

// poolFull answers an attempt for which there was no worker in time. It cost the client nothing: the token goes back.
func (f *Flow) poolFull(ctx context.Context, a *attempt) {
	a.noPlace()
	f.giveBack(ctx, a)
}

// noPlace refuses a password that nobody has time to verify.
func (a *attempt) noPlace() {
	a.cheap = true
	a.out.RetryAfter = time.Second
	a.stop(audit.StepPassword, audit.Error, audit.ReasonPoolFull, problem.Unavailable)
}

// giveBack returns the address's token, because everything that was presented was right. Failing to only costs the client a
// token, so it is logged and forgotten.
func (f *Flow) giveBack(ctx context.Context, a *attempt) {
	ctx, cancel := a.bounded(context.WithoutCancel(ctx))
	defer cancel()
	if err := f.RateLimit.GiveBack(ctx, a.token); err != nil {
		f.Logger.WarnContext(ctx, "give back a token", "error", err, "request_id", a.RequestID)
	}
}

// undecided denies because something the step depends on failed.
func (f *Flow) undecided(a *attempt, s audit.Step, what string, err error) {
	reason := audit.ReasonStoreUnavailable
	if errors.Is(err, store.ErrSealed) {
		reason = audit.ReasonRecordSealed
	}
	f.Logger.Warn(what, "error", err, "step", s.String(), "request_id", a.RequestID)
	a.out.RetryAfter = retryUnavailable
	a.cheap = !a.ran
	a.stop(s, audit.Error, reason, problem.Unavailable)
}

func (a *attempt) classWord() string {
	if a.class == lockout.Stranger {
		return "stranger"
	}
	return "known"
}
