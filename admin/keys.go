package admin

import (
	"context"
	"errors"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/session/token"
)

// Keys lists the signing keys: the active one, the next one, the retired ones from the newest.
func (s *Service) Keys(ctx context.Context, c Caller) ([]api.Key, error) {
	list := []api.Key{}
	err := s.do(ctx, call{caller: c, op: KeyList, act: func(ctx context.Context, _ audit.Record) error {
		keys, err := s.parts.Keys.List(ctx)
		for _, key := range keys {
			list = append(list, api.Key{
				ID: key.ID, State: key.State, CreatedAt: key.Created, BeganAt: key.Began, RetiredAt: key.Retired, EndsAt: key.Ends,
			})
		}
		return err
	}})
	return list, err
}

// RotateKeys makes the next signing key sign now, a fresh one if there is none; the former one is accepted until its last
// token has expired.
func (s *Service) RotateKeys(ctx context.Context, c Caller, why string) error {
	return s.do(ctx, call{caller: c, op: KeyRotate, why: why, act: func(ctx context.Context, _ audit.Record) error {
		err := s.parts.Keys.Rotate(ctx)
		if errors.Is(err, token.ErrTooOften) {
			return &InvalidError{Detail: token.ErrTooOften.Error()}
		}
		return err
	}})
}
