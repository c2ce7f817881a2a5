package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth/link"
	"gatehouse/auth/user"
)

// AddInvited makes an account that no password opens, and a link with which its owner chooses one. An error behind the account
// itself leaves it without a link; Invite then makes one.
func (s *Service) AddInvited(ctx context.Context, c Caller, n api.NewInvitation) (api.Invitation, error) {
	u := user.User{DisplayName: n.DisplayName, Email: n.Email, Groups: n.Groups}
	var made api.Invitation
	err := s.do(ctx, call{
		caller: c, op: UserAddInvited, name: n.Name, why: n.Reason,
		prepare: func(ctx context.Context, event *audit.Event) (err error) {
			if u.Name, err = s.unused(ctx, n.Name); err != nil {
				return err
			}
			if err := user.Check(u); err != nil {
				return translate(err)
			}
			event.Subject = audit.Subject{Name: u.Name} // it is about to exist
			event.Details["groups"], event.Details["invited"] = strings.Join(u.Groups, ","), "true"
			return nil
		},
		act: func(ctx context.Context, _ audit.Record) (err error) {
			if u, err = s.parts.Users.Add(ctx, u); err != nil {
				return translate(err)
			}
			if err = s.endSetup(ctx, u); err != nil {
				return err
			}
			made, err = s.invite(ctx, u)
			return translate(err)
		},
	})
	return made, err
}

// Invite makes a new link for an account that never completed a login, with or without a password; the former link ends. Who has
// signed in has a second factor that a link must not replace: for them there are TOTPEnrol and UserPassword.
func (s *Service) Invite(ctx context.Context, c Caller, name, why string) (api.Invitation, error) {
	var u user.User
	var made api.Invitation
	err := s.do(ctx, call{
		caller: c, op: UserInvite, name: name, why: why,
		prepare: func(ctx context.Context, _ *audit.Event) (err error) {
			if u, err = s.find(ctx, name); err != nil {
				return err
			}
			return mayBeInvited(u)
		},
		act: func(ctx context.Context, _ audit.Record) (err error) {
			made, err = s.invite(ctx, u)
			return translate(err)
		},
	})
	return made, err
}

// invite makes a link and then has the account name it, so that no other link is good for it. A link that no account names is
// worth nothing.
func (s *Service) invite(ctx context.Context, u user.User) (api.Invitation, error) {
	token, l, err := s.parts.Links.Create(ctx, u.ID)
	if err != nil {
		return api.Invitation{}, err
	}
	invited, err := s.parts.Users.Change(ctx, u.ID, func(u *user.User) error {
		u.Invitation = &user.Invitation{Link: link.Hash(token), Until: l.Expires}
		return mayBeInvited(*u)
	})
	if err != nil {
		return api.Invitation{}, err
	}
	return api.Invitation{User: userOf(invited), Link: link.URL(s.parts.External, link.Invite, token), Until: l.Expires}, nil
}

func mayBeInvited(u user.User) error {
	switch {
	case u.Disabled:
		return &InvalidError{Detail: "The account is disabled."}
	case !u.FirstLoginAt.IsZero():
		return &InvalidError{Detail: fmt.Sprintf(
			"%[1]s has signed in before. 'gatehouse totp enrol %[1]s' gives a new second factor to hand over, 'gatehouse user passwd %[1]s' a new password.", u.Name)}
	}
	return nil
}

// unused returns the canonical form of a name that no account has, or ErrConflict.
func (s *Service) unused(ctx context.Context, name string) (string, error) {
	name, err := canonical(name)
	if err != nil {
		return "", err
	}
	switch _, err := s.find(ctx, name); {
	case err == nil:
		return "", ErrConflict
	case !errors.Is(err, ErrNotFound):
		return "", err
	}
	return name, nil
}
