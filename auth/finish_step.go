package auth

import (
	"context"
	"errors"
	"maps"

	"gatehouse/audit"
	"gatehouse/auth/link"
	"gatehouse/auth/password"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/session"
	"gatehouse/store"
)

// session is step 5: the pending login is used up and a session prepared. It is not listed, not counted and dead after a
// minute until step 6 has recorded it.
func (f *Flow) session(ctx context.Context, a *attempt) {
	ctx, cancel := a.bounded(context.WithoutCancel(ctx))
	defer cancel()
	err := f.consume(ctx, a)
	if errors.Is(err, store.ErrConflict) || errors.Is(err, link.ErrExpired) {
		a.overtaken()
		return
	}
	if err != nil {
		f.undecided(a, audit.StepSession, "end the pending login", err)
		return
	}
	a.prepared, err = f.Sessions.Prepare(ctx, session.Grant{
		Identity: Identity(a.account), Methods: a.methods, AuthTime: f.Now(), Origin: a.Origin, DeviceID: a.deviceID,
		ClientAddress: a.Address.String(), UserAgent: a.UserAgent, FormerHandle: a.Handle,
	})
	if err != nil {
		f.undecided(a, audit.StepSession, "prepare a session", err)
		return
	}
	a.pass(audit.StepSession, audit.Pass, audit.ReasonNone)
}

// Identity is the account as sessions and apps see it.
func Identity(u user.User) session.Identity {
	return session.Identity{UserID: u.ID, Name: u.Name, DisplayName: u.DisplayName, Email: u.Email, Groups: u.Groups}
}

// record is step 6. It always runs; what it cannot write down does not happen.
func (f *Flow) record(ctx context.Context, a *attempt) {
	ctx, cancel := a.bounded(context.WithoutCancel(ctx))
	defer cancel()
	a.pass(audit.StepAudit, audit.Pass, audit.ReasonNone)
	if a.cheap {
		f.Audit.Count(a.refusal())
		return
	}
	if _, err := f.Audit.Append(ctx, a.event()); err != nil {
		f.Logger.ErrorContext(ctx, "record a login", "error", err, "request_id", a.RequestID)
		a.out.Challenge, a.out.RetryAfter = "", retryUnavailable
		a.stop(audit.StepAudit, audit.Error, audit.ReasonAuditFailed, problem.Unavailable)
		return
	}
	if !a.decided {
		f.begin(ctx, a)
	}
	f.upgradeHash(ctx, a)
}

// begin makes the login real, after its record: device and network become known, the run of failures ends, the session is
// marked live, or fresher. Only then do credentials leave.
func (f *Flow) begin(ctx context.Context, a *attempt) {
	effect := f.settleIn
	if a.held != nil {
		effect = f.raise
	}
	if err := effect(ctx, a); err != nil {
		f.Logger.ErrorContext(ctx, "start a session", "error", err, "request_id", a.RequestID)
		switch {
		case errors.Is(err, errOvertaken):
			a.overtaken()
		case a.held != nil && errors.Is(err, session.ErrNoSession):
			a.stop(audit.StepSession, audit.Fail, audit.ReasonSessionEnded, problem.SessionRequired)
		default:
			a.stop(audit.StepSession, audit.Error, audit.ReasonSessionFailed, problem.Unavailable)
			a.out.RetryAfter = retryUnavailable
		}
		a.out.Credentials, a.out.DeviceCookie = session.Credentials{}, ""
		f.recordNotStarted(ctx, a)
	}
}

// recordNotStarted says in the log that the login recorded before came to nothing. It has time of its own: a store that used up
// all of the login's is the likeliest cause.
func (f *Flow) recordNotStarted(ctx context.Context, a *attempt) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), StoreTimeout)
	defer cancel()
	event := a.event()
	event.Kind, event.Outcome = audit.KindSessionNotStarted, audit.Failed
	if _, err := f.Audit.Append(ctx, event); err != nil {
		f.Logger.ErrorContext(ctx, "record a session that did not start", "error", err, "request_id", a.RequestID)
	}
}

func (f *Flow) settleIn(ctx context.Context, a *attempt) error {
	if err := f.complete(ctx, a); err != nil {
		return err
	}
	deviceID, err := f.Devices.Remember(ctx, a.account.ID, a.deviceID, a.Network, a.UserAgent)
	if err != nil {
		return err
	}
	if a.account.FirstLoginAt.IsZero() {
		_, err = f.Users.Change(ctx, a.account.ID, func(u *user.User) error {
			u.FirstLoginAt, u.Invitation = f.Now(), nil
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := f.Passwords.EndRun(ctx, a.nameTag, a.class); err != nil {
		return err
	}
	if a.codesFailed {
		if err := f.Codes.EndRun(ctx, a.account.ID, a.class); err != nil {
			return err
		}
	}
	credentials, err := f.Sessions.Activate(ctx, a.prepared)
	if err != nil {
		return err
	}
	a.out.Credentials = credentials
	a.out.DeviceCookie = f.Devices.Cookie(a.DeviceCookie, a.account.ID, deviceID)
	return nil
}

// upgradeHash replaces a hash of an older scheme or lower cost by a current one, beside the answer, so that its time says
// nothing. It does not wait for the login to be complete: a browser sends the password in one request and the code in another,
// so at the end of its login the password is not at hand. One runs at a time: on the morning after an import everybody's hash is
// old, and upgrades must not fill the line in which logins wait. Whoever is passed over has the next login's.
func (f *Flow) upgradeHash(ctx context.Context, a *attempt) {
	if !a.right || !f.Hasher.Outdated(a.account.PasswordHash) || !f.Upgrades.running.TryLock() {
		return
	}
	ctx = context.WithoutCancel(ctx)
	id, old, plain := a.account.ID, a.account.PasswordHash, a.Password
	f.Upgrades.all.Go(func() {
		defer f.Upgrades.running.Unlock()
		if err := f.rehash(ctx, id, old, plain); err != nil {
			f.Logger.WarnContext(ctx, "upgrade a password hash", "error", err, "user_id", id)
		}
	})
}

func (f *Flow) rehash(ctx context.Context, userID, old, plain string) error {
	hash, err := f.hash(ctx, password.Waiter{Account: userID, Address: userID}, plain)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), StoreTimeout)
	defer cancel()
	_, err = f.Users.Change(ctx, userID, func(u *user.User) error {
		if u.PasswordHash == old { // a password set meanwhile stays
			u.PasswordHash = hash
		}
		return nil
	})
	return err
}

// event is the record of one attempt.
func (a *attempt) event() audit.Event {
	trace := a.out.Trace
	for i := range trace {
		trace[i].Details = maps.Clone(trace[i].Details)
	}
	e := audit.Event{
		Kind: audit.KindLogin, Outcome: a.outcome(), Severity: a.severity(),
		Actor: audit.Actor{Type: audit.ActorClient}, Subject: a.subject(), Client: a.client(),
		RequestID: a.RequestID, Code: string(a.out.Code), Trace: &trace,
	}
	if a.held != nil {
		e.Kind, e.Session = audit.KindStepUp, a.held.PublicID
	}
	if a.prepared != nil {
		e.Session = a.prepared.PublicID()
	}
	return e
}

// client is where the attempt came from, for records of its own.
func (a *attempt) client() audit.Client {
	return audit.Client{
		Address: a.Address.String(), Network: a.Network.String(), Claimed: a.Claimed, Device: a.classWord(), UserAgent: a.UserAgent,
	}
}

// refusal is the aggregated record of attempts that were refused before anything was verified: everything that differs from
// one to the next is left out. A stored record that does not open is no matter of the client's, so it has a kind of its own.
func (a *attempt) refusal() audit.Event {
	step, _ := a.out.Trace.Deciding()
	e := audit.Event{
		Kind: audit.KindRefused, Outcome: audit.Denied, Actor: audit.Actor{Type: audit.ActorClient}, Subject: a.subject(),
		Client:  audit.Client{Address: a.Address.String(), Network: a.Network.String(), Claimed: a.Claimed},
		Code:    string(a.out.Code),
		Count:   1,
		Details: map[string]string{"step": step.String(), "reason": string(a.out.Trace.Of(step).Reason)},
	}
	if a.out.Trace.Of(step).Verdict == audit.Error {
		e.Outcome = audit.Failed
	}
	if a.sealed() {
		e.Kind, e.Severity = audit.KindStateRefused, audit.High
	}
	return e
}

// sealed reports whether the attempt ended at a stored record that does not open: somebody altered or moved it.
func (a *attempt) sealed() bool {
	step, stopped := a.out.Trace.Deciding()
	return stopped && a.out.Trace.Of(step).Reason == audit.ReasonRecordSealed
}

// subject names an account that exists, and only tags a name that does not.
func (a *attempt) subject() audit.Subject {
	if a.account.ID != "" {
		return audit.Subject{ID: a.account.ID, Name: a.account.Name}
	}
	if a.nameTag == "" {
		return audit.Subject{}
	}
	return audit.Subject{Tag: a.nameTag[:16]}
}

func (a *attempt) outcome() audit.Outcome {
	step, stopped := a.out.Trace.Deciding()
	switch {
	case !stopped:
		return audit.Success
	case a.out.Trace.Of(step).Verdict == audit.Challenge:
		return audit.Challenged
	case a.out.Trace.Of(step).Verdict == audit.Error:
		return audit.Failed
	default:
		return audit.Failure
	}
}

// severity is high where a right password came with what a thief's would look like, and where the store was tampered with.
func (a *attempt) severity() audit.Severity {
	if a.sealed() {
		return audit.High
	}
	for _, s := range a.signals {
		if s == audit.SignalSuccessAfterFailures {
			return audit.High
		}
	}
	if a.outcome() == audit.Failure {
		return audit.Low
	}
	return audit.Info
}
