package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gatehouse/audit"
	"gatehouse/auth/user"
	"gatehouse/problem"
)

// errOvertaken ends a login whose account was completed by somebody else since its code was verified.
var errOvertaken = errors.New("the account was completed meanwhile")

// completion is what a login makes besides its session: an account, or the second factor of one. It happens between the record
// of step 6 and the session, in one write, so that an outage leaves all of it or nothing.
type completion struct {
	reason audit.Reason // of step 3, when the code is right
	kinds  []audit.Kind // of what is recorded before apply
	// claim is step 5's: it uses up what the browser came with. nil: that is the pending login.
	claim func(context.Context) error
	// apply returns the account as it then is, or errOvertaken if another login was faster.
	apply func(context.Context) (user.User, error)
	// Of the answer to a login that was overtaken.
	lostReason audit.Reason
	lostCode   problem.Code
}

// reasonOfCode is the reason of a right code; of a login that completes nothing there is none.
func (c *completion) reasonOfCode() audit.Reason {
	if c == nil {
		return audit.ReasonNone
	}
	return c.reason
}

// complete writes the records of what the login makes, and makes it.
func (f *Flow) complete(ctx context.Context, a *attempt) error {
	if a.completes == nil {
		return nil
	}
	for _, kind := range a.completes.kinds {
		event := a.event()
		event.Kind, event.Trace = kind, nil
		event.Details = map[string]string{"by": string(a.completes.reason)}
		if kind == audit.KindUserAdded {
			event.Details["groups"] = strings.Join(a.account.Groups, ",")
		}
		if _, err := f.Audit.Append(ctx, event); err != nil {
			return fmt.Errorf("record %s: %w", kind, err)
		}
	}
	account, err := a.completes.apply(ctx)
	if err != nil {
		return err
	}
	a.account = account
	return nil
}

// overtaken answers a login that lost the race for a link, a pending login or an enrolment: of any number, one gets on.
func (a *attempt) overtaken() {
	reason, code := audit.ReasonPendingInvalid, problem.CodeInvalid
	if a.completes != nil {
		reason, code = a.completes.lostReason, a.completes.lostCode
	}
	a.stop(audit.StepSession, audit.Fail, reason, code)
}
