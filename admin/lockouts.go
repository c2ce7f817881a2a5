package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth/lockout"
	"gatehouse/auth/user"
)

// Lockouts lists every window in which there are failures, by name.
func (s *Service) Lockouts(ctx context.Context, c Caller, after string, limit int) (api.Page[api.Lockout], error) {
	var page api.Page[api.Lockout]
	err := s.do(ctx, call{caller: c, op: LockoutList, act: func(ctx context.Context, _ audit.Record) error {
		all, err := s.lockouts(ctx)
		page = cutPage(all, after, limit, lockoutCursor)
		return err
	}})
	return page, err
}

// lockouts joins both kinds of windows with the names of accounts: a window knows its name only as an HMAC.
func (s *Service) lockouts(ctx context.Context) ([]api.Lockout, error) {
	users, err := s.parts.Users.List(ctx)
	if err != nil {
		return nil, err
	}
	byTag, byID := make(map[string]string), make(map[string]string)
	for _, u := range users {
		byTag[s.parts.Users.NameTag(u.Name)], byID[u.ID] = u.Name, u.Name
	}
	passwords, err := s.parts.Passwords.List(ctx)
	if err != nil {
		return nil, err
	}
	codes, err := s.parts.Codes.List(ctx)
	if err != nil {
		return nil, err
	}
	var all []api.Lockout
	for _, status := range passwords {
		all = append(all, lockoutOf(status, api.WindowPassword, byTag[status.Subject]))
	}
	for _, status := range codes {
		if name, exists := byID[status.Subject]; exists { // else the account was deleted and this is about to expire
			all = append(all, lockoutOf(status, api.WindowCode, name))
		}
	}
	slices.SortFunc(all, func(a, b api.Lockout) int { return cmp.Compare(lockoutCursor(a), lockoutCursor(b)) })
	return all, nil
}

// lockoutCursor orders lockouts: names first, then tags of names without an account.
func lockoutCursor(l api.Lockout) string {
	return strings.Join([]string{cmp.Or(l.User, "~"+l.Tag), l.Window, l.Client}, "/")
}

func lockoutOf(status lockout.Status, window, name string) api.Lockout {
	l := api.Lockout{
		User:     name,
		Window:   window,
		Client:   status.Class,
		Failures: status.Failures,
		LastAt:   status.Last,
		Run:      status.Run,
		Closed:   status.Closed,
	}
	if name == "" {
		l.Tag = tag(status.Subject)
	}
	if status.Locked {
		l.LockedUntil = status.Until
	}
	return l
}

// Lockout lists the windows of one name, which need not be that of an account.
func (s *Service) Lockout(ctx context.Context, c Caller, name string) ([]api.Lockout, error) {
	list := []api.Lockout{}
	var who subjects
	err := s.do(ctx, call{
		caller: c, op: LockoutShow, name: name,
		prepare: func(ctx context.Context, _ *audit.Event) (err error) {
			who, err = s.subjects(ctx, name)
			return err
		},
		act: func(ctx context.Context, _ audit.Record) error {
			return s.eachWindow(ctx, who, func(status lockout.Status, window string) {
				list = append(list, lockoutOf(status, window, who.name))
			})
		},
	})
	return list, err
}

// ResetLockout clears both kinds of windows and the long brake of one name. It is idempotent, and answers alike for names
// without an account. The record says what it clears.
func (s *Service) ResetLockout(ctx context.Context, c Caller, name, why string) error {
	var who subjects
	return s.do(ctx, call{
		caller: c, op: LockoutReset, name: name, why: why,
		prepare: func(ctx context.Context, event *audit.Event) (err error) {
			if strings.TrimSpace(why) == "" {
				return &InvalidError{Detail: "A reason is required."}
			}
			if who, err = s.subjects(ctx, name); err != nil {
				return err
			}
			// One detail for each window: one for all of them would be cut where an account has many devices.
			return s.eachWindow(ctx, who, func(status lockout.Status, window string) {
				event.Details["cleared/"+window+"/"+status.Class] = describe(status)
			})
		},
		act: func(ctx context.Context, _ audit.Record) error {
			_, err := s.parts.Passwords.Reset(ctx, who.tag)
			if err == nil && who.id != "" {
				_, err = s.parts.Codes.Reset(ctx, who.id)
			}
			return err
		},
	})
}

// subjects is what the windows of one name are kept by.
type subjects struct {
	tag      string
	id, name string // of the account; empty if there is none
}

func (s *Service) subjects(ctx context.Context, name string) (subjects, error) {
	canonical, err := canonical(name)
	if err != nil {
		return subjects{}, err
	}
	who := subjects{tag: s.parts.Users.NameTag(canonical)}
	u, err := s.parts.Users.ByName(ctx, canonical)
	switch {
	case errors.Is(err, user.ErrNotFound):
		return who, nil
	case err != nil:
		return subjects{}, err
	}
	who.id, who.name = u.ID, u.Name
	return who, nil
}

// eachWindow gives every window of a name that holds anything to each.
func (s *Service) eachWindow(ctx context.Context, who subjects, each func(lockout.Status, string)) error {
	passwords, err := s.parts.Passwords.Status(ctx, who.tag)
	if err != nil {
		return err
	}
	for _, status := range passwords {
		each(status, api.WindowPassword)
	}
	if who.id == "" {
		return nil
	}
	codes, err := s.parts.Codes.Status(ctx, who.id)
	for _, status := range codes {
		each(status, api.WindowCode)
	}
	return err
}

// describe says in the log what a reset cleared in one window.
func describe(status lockout.Status) string {
	text := fmt.Sprintf("%d failures", status.Failures)
	if status.Run > status.Failures {
		text += fmt.Sprintf(", %d in a row", status.Run)
	}
	switch {
	case status.Closed:
		text += ", closed"
	case status.Locked:
		text += ", locked"
	}
	return text
}
