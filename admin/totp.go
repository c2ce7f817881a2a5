package admin

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth/user"
)

// EnrolTOTP gives an account a new second factor in place of the old one. It is valid at once: an operator hands it over.
// An invitation ends, and the answer says so.
func (s *Service) EnrolTOTP(ctx context.Context, c Caller, name, why string) (api.Enrolment, error) {
	var shown api.Enrolment
	var enrolled user.TOTP
	var old *user.TOTP
	err := s.change(ctx, call{caller: c, op: TOTPEnrol, name: name, why: why}, change{
		prepare: func(_ context.Context, u user.User, event *audit.Event) error {
			e, err := s.parts.TOTP.Generate(u.Name)
			if err != nil {
				return fmt.Errorf("generate enrolment: %w", err)
			}
			enrolled = user.TOTP{ID: e.ID, Secret: e.Secret, EnrolledAt: s.parts.Now().UTC().Truncate(time.Second)}
			shown = api.Enrolment{User: u.Name, URL: e.URL, Secret: e.Secret}
			event.Details["replaces"] = strconv.FormatBool(u.TOTP != nil)
			event.Details["ends_invitation"] = strconv.FormatBool(u.Invitation != nil)
			return nil
		},
		edit: func(u *user.User) error {
			shown.InvitationEnded = u.Invitation != nil // a link beside the factor would be a second door
			old, u.TOTP, u.Invitation = u.TOTP, &enrolled, nil
			return nil
		},
		sessions: true,
		devices:  true,
		after:    func(ctx context.Context, _ user.User) error { return s.forget(ctx, old) },
	})
	if err != nil {
		return api.Enrolment{}, err // a secret is not shown beside an error: repeat the call for one that is whole
	}
	return shown, nil
}

// ResetTOTP takes an account's second factor away. It is idempotent.
func (s *Service) ResetTOTP(ctx context.Context, c Caller, name, why string) error {
	var old *user.TOTP
	return s.change(ctx, call{caller: c, op: TOTPReset, name: name, why: why}, change{
		edit: func(u *user.User) error {
			old, u.TOTP = u.TOTP, nil
			return nil
		},
		sessions: true,
		devices:  true,
		after:    func(ctx context.Context, _ user.User) error { return s.forget(ctx, old) },
	})
}

// forget ends the counter of an enrolment that is none any more; nothing asks for it again.
func (s *Service) forget(ctx context.Context, old *user.TOTP) error {
	if old == nil {
		return nil
	}
	return s.parts.TOTP.Forget(ctx, old.ID)
}
