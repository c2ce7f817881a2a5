package auth

import (
	"context"
	"errors"

	"gatehouse/audit"
	"gatehouse/auth/link"
	"gatehouse/auth/password"
	"gatehouse/auth/totp"
	"gatehouse/auth/user"
	"gatehouse/problem"
)

// Confirm takes the second step: one right code makes or completes the account and signs the browser in. The outcome is that of
// a login, with the credentials where Code is empty. Its other codes are those of a Refused, and problem.CodeInvalid: a wrong
// or used code. Then Outcome.Enrolment is the same secret once more, for the page to be drawn again; after link.MaxTries codes
// the link is dead and the code is problem.LinkExpired.
//
// The trace has the reason one-time-link where the link stands for a step: 1, 3 and 4. Steps 2, 5 and 6 are the flow's own.
func (o *Onboarding) Confirm(ctx context.Context, client Client, kind link.Kind, present func() (Confirmation, error)) Outcome {
	f := o.flow
	a := f.attempt(client)
	var c Confirmation
	a.step(audit.StepRateLimit, func() { c = draw(ctx, f, a, present) })
	a.step(audit.StepPassword, func() { o.resume(ctx, a, kind, c) })
	a.step(audit.StepSecondFactor, func() { o.checkCode(ctx, a, kind, c) })
	a.step(audit.StepContext, func() { a.pass(audit.StepContext, audit.Pass, audit.ReasonOneTimeLink) })
	a.step(audit.StepSession, func() { f.session(ctx, a) })
	a.always(audit.StepAudit, func() { f.record(ctx, a) })
	f.Observe(a.out)
	return a.out
}

// draw is how every step begins: a token of the address, then the form.
func draw[T any](ctx context.Context, f *Flow, a *attempt, present func() (T, error)) T {
	var shown T
	f.rateLimit(ctx, a)
	f.present(a, func() (_ Presented, err error) {
		shown, err = present()
		return Presented{}, err
	})
	return shown
}

// open reads a good link and the account that it is for; of a set-up link, the account that was chosen so far.
func (o *Onboarding) open(ctx context.Context, kind link.Kind, token string) (link.Link, user.User, error) {
	l, err := o.Links.Read(ctx, kind, token)
	if err != nil {
		return link.Link{}, user.User{}, err
	}
	if kind == link.Setup {
		there, err := o.administrator(ctx)
		if err == nil && there {
			err = link.ErrExpired
		}
		return l, user.User{ID: l.UserID, Name: l.Name, DisplayName: l.DisplayName, Groups: []string{user.Administrators}}, err
	}
	account, err := o.flow.Users.ByID(ctx, l.UserID)
	if errors.Is(err, user.ErrNotFound) || err == nil && !invited(account, token) {
		err = link.ErrExpired
	}
	if l.DisplayName != "" {
		account.DisplayName = l.DisplayName
	}
	return l, account, err
}

// invited reports whether the account may be completed with this link: it is the newest one, and the account never completed a
// login.
func invited(u user.User, token string) bool {
	return !u.Disabled && u.FirstLoginAt.IsZero() && u.Invitation != nil && u.Invitation.Link == link.Hash(token)
}

// resume is step 1: the link is good, and this browser has chosen.
func (o *Onboarding) resume(ctx context.Context, a *attempt, kind link.Kind, c Confirmation) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	l, account, err := o.open(ctx, kind, c.Token)
	if err == nil && !l.Chosen(a.Browser) {
		err = link.ErrExpired
	}
	if err != nil {
		o.note(ctx, a, err)
		return
	}
	a.account, a.nameTag = account, o.flow.Users.NameTag(account.Name)
	a.out.Username, a.methods = account.Name, []string{"pwd"}
	a.detail(audit.StepPassword, "link", string(kind))
	a.pass(audit.StepPassword, audit.Pass, audit.ReasonOneTimeLink)
}

// checkCode is step 3. The code is counted on the link before it is verified.
func (o *Onboarding) checkCode(ctx context.Context, a *attempt, kind link.Kind, c Confirmation) {
	ctx, cancel := a.bounded(context.WithoutCancel(ctx))
	defer cancel()
	f := o.flow
	l, err := o.Links.Try(ctx, kind, c.Token, a.Browser)
	switch {
	case errors.Is(err, link.ErrExpired), err == nil && l.UserID != a.account.ID: // chosen anew since step 1
		a.cheap = true
		a.stop(audit.StepSecondFactor, audit.Fail, audit.ReasonLinkExpired, problem.LinkExpired)
		return
	case err != nil:
		f.undecided(a, audit.StepSecondFactor, "count a code", err)
		return
	}
	a.ran = true
	a.factor = totp.Enrolment{ID: l.FactorID, Secret: l.FactorSecret, URL: l.FactorURL}
	wrong := f.TOTP.Check(ctx, a.factor.ID, a.factor.Secret, c.Code)
	switch {
	case errors.Is(wrong, totp.ErrUsed):
		o.refuseCode(a, l, audit.ReasonCodeUsed)
	case errors.Is(wrong, totp.ErrWrong):
		o.refuseCode(a, l, audit.ReasonCodeWrong)
	case wrong != nil:
		f.undecided(a, audit.StepSecondFactor, "check a code", wrong)
	default:
		a.verified, a.methods = true, append(a.methods, "otp", "mfa")
		a.completes = o.completion(a, kind, c.Token, l)
		a.pass(audit.StepSecondFactor, audit.Pass, audit.ReasonOneTimeLink)
		f.giveBack(ctx, a)
	}
}

// refuseCode answers a wrong or used code. The page can be drawn again, but for the last try.
func (o *Onboarding) refuseCode(a *attempt, l link.Link, reason audit.Reason) {
	a.stop(audit.StepSecondFactor, audit.Fail, reason, problem.CodeInvalid)
	switch {
	case l.Tries >= link.MaxTries:
		a.out.Code = problem.LinkExpired
	case l.Claimed:
		a.out.Enrolment = &Enrolment{Username: l.Name, Expires: l.Expires}
	default:
		shown := enrolmentOf(l.Name, a.factor, l.Expires)
		a.out.Enrolment = &shown
	}
}

// completion is what a right code does: step 5 claims the link, which makes the choice final, and behind the record the account
// is made or completed in one write. It can all be repeated until that write, which only one attempt can make.
func (o *Onboarding) completion(a *attempt, kind link.Kind, token string, l link.Link) *completion {
	c := &completion{
		reason: audit.ReasonOneTimeLink, kinds: []audit.Kind{audit.KindPasswordSet, audit.KindTOTPEnrolled},
		claim:      func(ctx context.Context) error { return o.Links.Claim(ctx, kind, token, l.FactorID) },
		lostReason: audit.ReasonLinkExpired, lostCode: problem.LinkExpired,
	}
	write := func(ctx context.Context) (user.User, error) { return o.completeAccount(ctx, a, token, l) }
	if kind == link.Setup {
		c.kinds[0] = audit.KindUserAdded
		write = func(ctx context.Context) (user.User, error) { return o.addAdministrator(ctx, a, l) }
	}
	c.apply = func(ctx context.Context) (user.User, error) {
		account, err := write(ctx)
		if err != nil {
			return user.User{}, err
		}
		// The account has used the link up; what is left of it is only waste.
		if err := o.Links.Finish(ctx, kind, token); err != nil {
			o.flow.Logger.WarnContext(ctx, "finish a link", "error", err, "request_id", a.RequestID)
		}
		return account, nil
	}
	return c
}

// addAdministrator makes the first account. Its id is that of the choice, so of several attempts at once one makes it.
func (o *Onboarding) addAdministrator(ctx context.Context, a *attempt, l link.Link) (user.User, error) {
	account := a.account
	account.PasswordHash = l.PasswordHash
	o.flow.enrolled(&account, a.factor)
	account, err := o.flow.Users.Add(ctx, account)
	if errors.Is(err, user.ErrNameTaken) {
		err = errOvertaken
	}
	return account, err
}

// completeAccount gives an invited account what was chosen, and ends its invitation, in one write.
func (o *Onboarding) completeAccount(ctx context.Context, a *attempt, token string, l link.Link) (user.User, error) {
	var former *user.TOTP
	account, err := o.flow.Users.Change(ctx, a.account.ID, func(u *user.User) error {
		if !invited(*u, token) {
			return errOvertaken
		}
		former = u.TOTP
		u.PasswordHash, u.PasswordChangedAt = l.PasswordHash, o.flow.Now().UTC()
		if l.DisplayName != "" {
			u.DisplayName = l.DisplayName
		}
		o.flow.enrolled(u, a.factor)
		return nil
	})
	if err == nil && former != nil {
		if err := o.flow.TOTP.Forget(ctx, former.ID); err != nil {
			o.flow.Logger.WarnContext(ctx, "forget a former enrolment", "error", err, "request_id", a.RequestID)
		}
	}
	return account, err
}

// hash makes the hash of a new password on a worker of the pool, so that it takes its turn with the logins.
func (f *Flow) hash(ctx context.Context, who password.Waiter, plain string) (string, error) {
	place, err := f.Pool.Enter(ctx, who)
	if err != nil {
		return "", err
	}
	defer place.Leave()
	var hash string
	var failed error
	if err := place.Run(func() { hash, failed = f.Hasher.Hash(plain) }); err != nil {
		return "", err
	}
	return hash, failed
}

// note stops the attempt in step 1 with what an error says.
func (o *Onboarding) note(ctx context.Context, a *attempt, err error) {
	switch {
	case errors.Is(err, link.ErrExpired):
		a.cheap = true
		a.stop(audit.StepPassword, audit.Fail, audit.ReasonLinkExpired, problem.LinkExpired)
	case errors.Is(err, password.ErrBusy):
		o.flow.poolFull(ctx, a)
	default:
		o.flow.undecided(a, audit.StepPassword, "read a link", err)
	}
}

// refuse returns what a page is told, and counts what may be somebody who tries tokens.
func (o *Onboarding) refuse(ctx context.Context, a *attempt, err error) error {
	var refused *Refused
	if errors.As(err, &refused) {
		return refused
	}
	if err != nil {
		o.note(ctx, a, err)
	}
	o.flow.Audit.Count(a.refusal())
	return &Refused{Code: a.out.Code, RetryAfter: a.out.RetryAfter}
}
