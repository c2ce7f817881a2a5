package admin

import (
	"context"

	"gatehouse/audit"
	"gatehouse/auth/user"
)

// change is how an operation changes one account.
type change struct {
	// prepare finds out more and adds it to the event; may be nil.
	prepare func(ctx context.Context, u user.User, event *audit.Event) error
	// edit changes the account, as user.Store.Change does it.
	edit func(*user.User) error
	// sessions: those of the account end. devices: those that are known are forgotten.
	sessions, devices bool
	// after does what is left to do; may be nil.
	after func(ctx context.Context, u user.User) error
}

// change carries out a change of the account that the call names. The account is changed first, so that no session is renewed
// and none begins as it was; then what its former state gave out is taken back.
func (s *Service) change(ctx context.Context, c call, how change) error {
	var u user.User
	c.prepare = func(ctx context.Context, event *audit.Event) (err error) {
		if u, err = s.find(ctx, c.name); err != nil || how.prepare == nil {
			return err
		}
		return how.prepare(ctx, u, event)
	}
	c.act = func(ctx context.Context, record audit.Record) error {
		changed, err := s.parts.Users.Change(ctx, u.ID, how.edit)
		if err != nil {
			return translate(err)
		}
		if how.sessions {
			if _, err := s.parts.Sessions.RevokeUser(ctx, u.ID, "", sessionsEvent(record.Event)); err != nil {
				return err
			}
		}
		if how.devices {
			if err := s.parts.Devices.ForgetAll(ctx, u.ID); err != nil {
				return err
			}
		}
		if how.after == nil {
			return nil
		}
		return translate(how.after(ctx, changed))
	}
	return s.do(ctx, c)
}

// sessionsEvent is the record of the sessions that end because of another record.
func sessionsEvent(because audit.Event) audit.Event {
	because.Kind = audit.KindSessionsRevoked
	because.Details = map[string]string{"operation": because.Details["operation"]}
	return because
}
