package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth/apptoken"
	"gatehouse/auth/user"
)

// AddToken makes an app token of an account for a route, and answers it, this once.
func (s *Service) AddToken(ctx context.Context, c Caller, asked api.NewToken) (api.IssuedToken, error) {
	var u user.User
	var made api.IssuedToken
	lifetime := time.Duration(asked.ExpiresIn) * time.Second
	err := s.do(ctx, call{
		caller: c, op: TokenAdd, name: asked.User, why: asked.Reason,
		prepare: func(ctx context.Context, event *audit.Event) (err error) {
			if err := s.checkToken(asked); err != nil {
				return err
			}
			event.Details["route"], event.Details["expires_in"] = asked.Route, lifetime.String()
			if lifetime == 0 {
				event.Details["expires_in"] = apptoken.DefaultLifetime.String()
			}
			u, err = s.find(ctx, asked.User)
			if err == nil && u.Disabled {
				err = &InvalidError{Detail: "The account is disabled; enable it first."}
			}
			return err
		},
		act: func(ctx context.Context, _ audit.Record) error {
			token, text, err := s.parts.Tokens.Create(ctx, u.ID, asked.Route, lifetime)
			if errors.Is(err, apptoken.ErrTooMany) {
				return &RefusedError{Detail: fmt.Sprintf("%s has %d app tokens already; revoke one first.", u.Name, apptoken.MaxPerUser), Err: ErrConflict}
			}
			made = api.IssuedToken{Token: tokenOf(token, u.Name), Secret: text}
			return err
		},
	})
	if err != nil {
		return api.IssuedToken{}, err
	}
	return made, nil
}

// checkToken refuses what no token can be made of. A route that is not configured is most often a typing error.
func (s *Service) checkToken(asked api.NewToken) error {
	if asked.User == "" || asked.Route == "" {
		return &InvalidError{Detail: "user and route are required."}
	}
	if routes := s.parts.Routes(); !slices.Contains(routes, asked.Route) {
		return &InvalidError{Detail: fmt.Sprintf("There is no route %q. The routes are: %s.", asked.Route, strings.Join(routes, ", "))}
	}
	most := int64(apptoken.MaxLifetime / time.Second)
	if asked.ExpiresIn != 0 && (asked.ExpiresIn < 60 || asked.ExpiresIn > most) {
		return &InvalidError{Detail: fmt.Sprintf("An app token lives from one minute to %d days.", most/(24*60*60))}
	}
	return nil
}

// AppTokens lists the app tokens of one user, or of everybody if name is empty, by the time they were made.
func (s *Service) AppTokens(ctx context.Context, c Caller, name string) (api.Page[api.Token], error) {
	page := api.Page[api.Token]{Items: []api.Token{}}
	names := map[string]string{}
	err := s.do(ctx, call{
		caller: c, op: TokenList, name: name,
		prepare: func(ctx context.Context, _ *audit.Event) error {
			users, err := s.whose(ctx, name)
			for _, u := range users {
				names[u.ID] = u.Name
			}
			return err
		},
		act: func(ctx context.Context, _ audit.Record) error {
			all, err := s.parts.Tokens.List(ctx)
			for _, token := range all {
				if owner, wanted := names[token.UserID]; wanted {
					page.Items = append(page.Items, tokenOf(token, owner))
				}
			}
			return err
		},
	})
	return page, err
}

func tokenOf(t apptoken.Token, name string) api.Token {
	return api.Token{ID: t.ID, User: name, Route: t.Route, CreatedAt: t.Created, ExpiresAt: t.Expires, UsedAt: t.Used}
}

// RevokeToken ends an app token on every gateway, and what is open by it. If that fails half way, it can be revoked again.
func (s *Service) RevokeToken(ctx context.Context, c Caller, id, why string) error {
	var found apptoken.Token
	return s.do(ctx, call{
		caller: c, op: TokenRevoke, why: why,
		prepare: func(ctx context.Context, event *audit.Event) (err error) {
			found, err = s.parts.Tokens.Get(ctx, id)
			if errors.Is(err, apptoken.ErrNotFound) {
				return &RefusedError{Detail: fmt.Sprintf("There is no app token with the id %q.", id), Err: ErrNotFound}
			}
			if err != nil {
				return err
			}
			event.Details["token"], event.Details["route"] = found.ID, found.Route
			owner, err := s.parts.Users.ByID(ctx, found.UserID)
			if err != nil && !errors.Is(err, user.ErrNotFound) {
				return err
			}
			event.Subject = audit.Subject{ID: found.UserID, Name: owner.Name}
			return nil
		},
		act: func(ctx context.Context, _ audit.Record) error { return s.dropToken(ctx, found) },
	})
}

// dropToken tells every gateway, deletes, and tells again; session.Manager.Forget says why.
func (s *Service) dropToken(ctx context.Context, t apptoken.Token) error {
	if err := s.parts.Sessions.Forget(ctx, t.UserID, t.Mark()); err != nil {
		return err
	}
	if err := s.parts.Tokens.Delete(ctx, t.ID); err != nil {
		return err
	}
	return s.parts.Sessions.Forget(ctx, t.UserID, t.Mark())
}

// dropTokens removes the app tokens of an account that is being deleted. They are dead without it; this tidies up.
func (s *Service) dropTokens(ctx context.Context, userID string) error {
	all, err := s.parts.Tokens.OfUser(ctx, userID)
	if err != nil {
		return err
	}
	for _, token := range all {
		if err := s.parts.Tokens.Delete(ctx, token.ID); err != nil {
			return err
		}
	}
	return nil
}
