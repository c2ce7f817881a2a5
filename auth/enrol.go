package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"gatehouse/audit"
	"gatehouse/auth/totp"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/store"
)

// mayEnrol reports whether an account without a second factor may enrol one with its password alone: it is new, and this is its
// first login or nothing about it is unusual. Afterwards a link or an administrator has to vouch for whoever asks.
func (f *Flow) mayEnrol(a *attempt) bool {
	return f.firstLogin(a) || len(a.signals) == 0 && f.Now().Before(a.account.EnrolUntil)
}

// requireEnrolment stops an account that must have a second factor and has none. A browser that may enrol one now keeps its
// pending login; a program has nowhere to show a QR code, and gets no challenge.
func (f *Flow) requireEnrolment(ctx context.Context, a *attempt) {
	if a.Browser != "" && f.mayEnrol(a) {
		f.challenge(ctx, a, audit.ReasonEnrolmentRequired, problem.EnrolmentRequired)
		return
	}
	a.stop(audit.StepSecondFactor, audit.Challenge, audit.ReasonEnrolmentRequired, problem.EnrolmentRequired)
}

// EnrolView draws the enrolment of a pending login that ended in problem.EnrolmentRequired with a Challenge: an account that
// may still enrol with its password alone. Each call makes a fresh secret and only the last one counts. The code then goes
// through [Flow.Login] with Presented{Challenge, Code}; a wrong one is problem.CodeInvalid with Outcome.Enrolment set, for the
// page to be drawn again. ErrNotWaiting if no login of this browser waits for an enrolment, or an error of the store.
func (f *Flow) EnrolView(ctx context.Context, challenge, browser string) (Enrolment, error) {
	ctx, cancel := context.WithTimeout(ctx, StoreTimeout)
	defer cancel()
	a := &attempt{Client: Client{Browser: browser}, Presented: Presented{Challenge: challenge}}
	p, err := f.load(ctx, a)
	if err == nil && !p.Enrols {
		err = ErrNotWaiting
	}
	if err != nil {
		return Enrolment{}, err
	}
	fresh, err := f.TOTP.Generate(a.account.Name)
	if err != nil {
		return Enrolment{}, err
	}
	err = store.Update(ctx, f.Pending, p.key, func(old store.Record) ([]byte, time.Time, error) {
		if old.Version == 0 {
			return nil, time.Time{}, ErrNotWaiting // the login was completed meanwhile
		}
		if err := json.Unmarshal(old.Value, p); err != nil {
			return nil, time.Time{}, fmt.Errorf("decode a pending login: %w", err)
		}
		p.Factor = fresh
		value, err := json.Marshal(p)
		return value, old.Expires, err
	})
	if err != nil {
		return Enrolment{}, err
	}
	return enrolmentOf(a.account.Name, fresh, p.expires), nil
}

func enrolmentOf(name string, factor totp.Enrolment, expires time.Time) Enrolment {
	return Enrolment{Username: name, Secret: factor.Secret, URL: factor.URL, Expires: expires}
}

// confirmEnrolment is step 3 of a login that enrols: the code is one of the factor that was drawn last, within the account's
// budget of wrong codes.
func (f *Flow) confirmEnrolment(ctx context.Context, a *attempt) {
	a.factor = a.pending.Factor
	if a.factor.ID == "" { // no page was drawn, so nobody can know a code
		a.refusePending()
		return
	}
	f.checkCode(context.WithoutCancel(ctx), a)
	if a.out.Code == problem.CodeInvalid {
		shown := enrolmentOf(a.account.Name, a.factor, a.pending.expires)
		a.out.Enrolment = &shown
	}
}

// completeFactor makes the attempt one that gives its account the factor. Of several that enrol at once the first wins, and the
// others begin again (TestFlow_enrolsOnce).
func (f *Flow) completeFactor(a *attempt, factor totp.Enrolment) {
	id, passwordAt := a.account.ID, a.pending.PasswordAt
	a.completes = &completion{
		reason: audit.ReasonEnrolled, kinds: []audit.Kind{audit.KindTOTPEnrolled},
		lostReason: audit.ReasonPendingInvalid, lostCode: problem.CodeInvalid,
		apply: func(ctx context.Context) (user.User, error) {
			return f.Users.Change(ctx, id, func(u *user.User) error {
				if u.TOTP != nil || u.Disabled || !u.PasswordChangedAt.Equal(passwordAt) {
					return errOvertaken
				}
				f.enrolled(u, factor)
				return nil
			})
		},
	}
}

// enrolled gives an account the factor of its first complete login, and ends its invitation.
func (f *Flow) enrolled(u *user.User, factor totp.Enrolment) {
	now := f.Now().UTC()
	u.TOTP = &user.TOTP{ID: factor.ID, Secret: factor.Secret, EnrolledAt: now.Truncate(time.Second)}
	u.Invitation = nil
	if u.FirstLoginAt.IsZero() {
		u.FirstLoginAt = now
	}
}
