package admin

import (
	"context"
	"slices"
	"strings"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth/user"
)

// Users lists accounts by name.
func (s *Service) Users(ctx context.Context, c Caller, after string, limit int) (api.Page[api.User], error) {
	var page api.Page[api.User]
	err := s.do(ctx, call{caller: c, op: UserList, act: func(ctx context.Context, _ audit.Record) error {
		all, err := s.parts.Users.List(ctx)
		part := cutPage(all, after, limit, func(u user.User) string { return u.Name })
		page = api.Page[api.User]{Items: make([]api.User, 0, len(part.Items)), Next: part.Next}
		for _, u := range part.Items {
			page.Items = append(page.Items, userOf(u))
		}
		return err
	}})
	return page, err
}

// User returns one account.
func (s *Service) User(ctx context.Context, c Caller, name string) (api.User, error) {
	var found user.User
	err := s.do(ctx, call{
		caller: c, op: UserShow, name: name,
		prepare: func(ctx context.Context, _ *audit.Event) (err error) {
			found, err = s.find(ctx, name)
			return err
		},
		act: func(context.Context, audit.Record) error { return nil },
	})
	if err != nil {
		return api.User{}, err
	}
	return userOf(found), nil
}

func userOf(u user.User) api.User {
	shown := api.User{
		ID:                u.ID,
		Name:              u.Name,
		DisplayName:       u.DisplayName,
		Email:             u.Email,
		Groups:            append([]string{}, u.Groups...), // [] and not null
		Disabled:          u.Disabled,
		HasPassword:       u.PasswordHash != "",
		CreatedAt:         u.CreatedAt,
		EnrolUntil:        u.EnrolUntil,
		FirstLoginAt:      u.FirstLoginAt,
		PasswordChangedAt: u.PasswordChangedAt,
	}
	if u.Invitation != nil {
		shown.InvitedUntil = u.Invitation.Until
	}
	if u.TOTP != nil {
		shown.TOTPEnrolledAt = u.TOTP.EnrolledAt
	}
	return shown
}

// AddUser makes an account with a password.
func (s *Service) AddUser(ctx context.Context, c Caller, n api.NewUser) (api.User, error) {
	u := user.User{DisplayName: n.DisplayName, Email: n.Email, Groups: n.Groups}
	err := s.do(ctx, call{
		caller: c, op: UserAdd, name: n.Name, why: n.Reason, timeout: passwordTimeout,
		prepare: func(ctx context.Context, event *audit.Event) (err error) {
			if u.Name, err = s.unused(ctx, n.Name); err != nil {
				return err
			}
			if u.PasswordHash, err = s.hash(ctx, n.Password, s.words(u)); err != nil {
				return err
			}
			event.Subject = audit.Subject{Name: u.Name} // it is about to exist
			event.Details["groups"] = strings.Join(u.Groups, ",")
			return nil
		},
		act: func(ctx context.Context, _ audit.Record) (err error) {
			if u, err = s.parts.Users.Add(ctx, u); err != nil {
				return translate(err)
			}
			return s.endSetup(ctx, u)
		},
	})
	if err != nil {
		return api.User{}, err
	}
	return userOf(u), nil
}

// endSetup closes the set-up link for ever once there is an administrator, by whatever way: it must not open again when the account is
// gone. Where this fails the account is there, and the next start closes the link.
func (s *Service) endSetup(ctx context.Context, made ...user.User) error {
	if !slices.ContainsFunc(made, func(u user.User) bool { return slices.Contains(u.Groups, user.Administrators) }) {
		return nil
	}
	return s.parts.Links.CloseSetup(ctx)
}

// words are what somebody who guesses the account's password would try first.
func (s *Service) words(u user.User) []string {
	return []string{s.parts.External.Host, u.Name, u.DisplayName, u.Email}
}

// DisableUser closes an account and ends its sessions. It is idempotent.
func (s *Service) DisableUser(ctx context.Context, c Caller, name, why string) error {
	return s.change(ctx, call{caller: c, op: UserDisable, name: name, why: why}, change{
		edit:     func(u *user.User) error { u.Disabled = true; return nil },
		sessions: true,
	})
}

// EnableUser opens a disabled account. It is idempotent.
func (s *Service) EnableUser(ctx context.Context, c Caller, name, why string) error {
	return s.change(ctx, call{caller: c, op: UserEnable, name: name, why: why}, change{
		edit: func(u *user.User) error { u.Disabled = false; return nil },
	})
}

// SetGroups replaces the groups of an account and ends its sessions, which carry the old ones.
func (s *Service) SetGroups(ctx context.Context, c Caller, name string, groups []string, why string) error {
	return s.change(ctx, call{caller: c, op: UserGroups, name: name, why: why}, change{
		prepare: func(_ context.Context, u user.User, event *audit.Event) error {
			event.Details["groups"], event.Details["groups_before"] = strings.Join(groups, ","), strings.Join(u.Groups, ",")
			return nil
		},
		edit:     func(u *user.User) error { u.Groups = groups; return nil },
		sessions: true,
		after:    func(ctx context.Context, u user.User) error { return s.endSetup(ctx, u) },
	})
}

// SetPassword sets a password, ends the account's sessions and forgets its devices.
func (s *Service) SetPassword(ctx context.Context, c Caller, name, plain, why string) error {
	var hash string
	return s.change(ctx, call{caller: c, op: UserPassword, name: name, why: why, timeout: passwordTimeout}, change{
		prepare: func(ctx context.Context, u user.User, _ *audit.Event) (err error) {
			hash, err = s.hash(ctx, plain, s.words(u))
			return err
		},
		edit: func(u *user.User) error {
			u.PasswordHash, u.PasswordChangedAt = hash, s.parts.Now().UTC()
			u.Invitation = nil // the password is handed over; a link beside it would be a second door
			return nil
		},
		sessions: true,
		devices:  true,
	})
}

// DeleteUser removes an account with everything enrolled. The account is closed first and removed last, so that an error on
// the way leaves it closed, and the call can be repeated.
func (s *Service) DeleteUser(ctx context.Context, c Caller, name, why string) error {
	return s.change(ctx, call{caller: c, op: UserDelete, name: name, why: why}, change{
		edit:     func(u *user.User) error { u.Disabled = true; return nil },
		sessions: true,
		devices:  true,
		after: func(ctx context.Context, u user.User) error {
			if _, err := s.parts.Codes.Reset(ctx, u.ID); err != nil {
				return err
			}
			if err := s.forget(ctx, u.TOTP); err != nil {
				return err
			}
			if err := s.dropTokens(ctx, u.ID); err != nil {
				return err
			}
			return s.parts.Users.Delete(ctx, u.ID)
		},
	})
}
