package admin

import (
	"context"
	"errors"
	"fmt"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth/user"
	"gatehouse/session"
)

// Sessions lists the live sessions of one user, or of everybody by name if name is empty. A page ends with the last session of
// a user, so it can be longer than limit by what one user has; the cursor is that user's name.
func (s *Service) Sessions(ctx context.Context, c Caller, name, after string, limit int) (api.Page[api.Session], error) {
	page := api.Page[api.Session]{Items: []api.Session{}}
	var users []user.User
	err := s.do(ctx, call{
		caller: c, op: SessionList, name: name,
		prepare: func(ctx context.Context, _ *audit.Event) (err error) {
			users, err = s.whose(ctx, name)
			return err
		},
		act: func(ctx context.Context, _ audit.Record) error {
			for _, u := range users {
				if u.Name <= after {
					continue
				}
				if len(page.Items) >= limit {
					page.Next = page.Items[len(page.Items)-1].User
					return nil
				}
				list, err := s.parts.Sessions.List(ctx, u.ID)
				if err != nil {
					return err
				}
				for _, one := range list {
					page.Items = append(page.Items, sessionOf(one, u.Name))
				}
			}
			return nil
		},
	})
	return page, err
}

// whose returns the account with the name, or all of them by name if it is empty.
func (s *Service) whose(ctx context.Context, name string) ([]user.User, error) {
	if name == "" {
		return s.parts.Users.List(ctx)
	}
	u, err := s.find(ctx, name)
	return []user.User{u}, err
}

func sessionOf(one session.Session, name string) api.Session {
	return api.Session{
		ID:        one.PublicID,
		User:      name,
		Methods:   append([]string{}, one.Methods...), // [] and not null
		Origin:    one.Origin,
		Address:   one.ClientAddress,
		UserAgent: one.UserAgent,
		AuthTime:  one.AuthTime,
		CreatedAt: one.CreatedAt,
		SeenAt:    one.LastSeen,
		ExpiresAt: one.ExpiresAt,
	}
}

// RevokeSession ends the session with a public id. If ending it fails half way, it can be ended again.
func (s *Service) RevokeSession(ctx context.Context, c Caller, public, why string) error {
	var found session.Session
	return s.do(ctx, call{
		caller: c, op: SessionRevoke, why: why, recordedByAct: true,
		prepare: func(ctx context.Context, event *audit.Event) (err error) {
			found, err = s.parts.Sessions.Find(ctx, public)
			if errors.Is(err, session.ErrNoSession) {
				return &RefusedError{Detail: fmt.Sprintf("There is no live session with the id %q.", public), Err: ErrNotFound}
			}
			if err == nil {
				event.Session = found.PublicID
				event.Subject = audit.Subject{ID: found.UserID, Name: found.Name}
			}
			return err
		},
		act: func(ctx context.Context, record audit.Record) error {
			return s.parts.Sessions.Revoke(ctx, found.UserID, found.SessionID, record.Event)
		},
	})
}

// RevokeSessions ends every session of a user and returns how many there were.
func (s *Service) RevokeSessions(ctx context.Context, c Caller, name, why string) (int, error) {
	var u user.User
	n := 0
	err := s.do(ctx, call{
		caller: c, op: SessionsRevoke, name: name, why: why, recordedByAct: true,
		prepare: func(ctx context.Context, _ *audit.Event) (err error) {
			u, err = s.find(ctx, name)
			return err
		},
		act: func(ctx context.Context, record audit.Record) (err error) {
			n, err = s.parts.Sessions.RevokeUser(ctx, u.ID, "", record.Event)
			return err
		},
	})
	return n, err
}
