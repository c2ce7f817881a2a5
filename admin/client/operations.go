package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"gatehouse/admin/api"
	"gatehouse/audit"
)

// Users lists every account by name.
func (c *Client) Users(ctx context.Context) ([]api.User, error) {
	return all[api.User](ctx, c, "/v1/users", nil)
}

// User returns one account.
func (c *Client) User(ctx context.Context, name string) (api.User, error) {
	var u api.User
	err := c.call(ctx, http.MethodGet, userPath(name), nil, &u)
	return u, err
}

// AddUser makes an account.
func (c *Client) AddUser(ctx context.Context, user api.NewUser) (api.User, error) {
	var u api.User
	err := c.call(ctx, http.MethodPost, "/v1/users", user, &u)
	return u, err
}

// AddInvited makes an account and the link with which its owner chooses a password.
func (c *Client) AddInvited(ctx context.Context, invitation api.NewInvitation) (api.Invitation, error) {
	var made api.Invitation
	err := c.call(ctx, http.MethodPost, "/v1/invitations", invitation, &made)
	return made, err
}

// Invite makes a new link for an account that never completed a login; the former one ends.
func (c *Client) Invite(ctx context.Context, name, reason string) (api.Invitation, error) {
	var made api.Invitation
	err := c.call(ctx, http.MethodPost, userPath(name)+"/invitation", api.Change{User: name, Reason: reason}, &made)
	return made, err
}

// DisableUser closes an account and ends its sessions.
func (c *Client) DisableUser(ctx context.Context, name, reason string) error {
	return c.call(ctx, http.MethodPost, userPath(name)+"/disable", api.Change{User: name, Reason: reason}, nil)
}

// EnableUser opens a disabled account.
func (c *Client) EnableUser(ctx context.Context, name, reason string) error {
	return c.call(ctx, http.MethodPost, userPath(name)+"/enable", api.Change{User: name, Reason: reason}, nil)
}

// DeleteUser removes an account with everything enrolled.
func (c *Client) DeleteUser(ctx context.Context, name, reason string) error {
	return c.call(ctx, http.MethodDelete, userPath(name), api.Change{User: name, Reason: reason}, nil)
}

// SetPassword sets a password; only an operator on the socket may.
func (c *Client) SetPassword(ctx context.Context, name, password, reason string) error {
	body := api.NewPassword{User: name, Password: password, Reason: reason}
	return c.call(ctx, http.MethodPut, userPath(name)+"/password", body, nil)
}

// SetGroups replaces the groups of an account.
func (c *Client) SetGroups(ctx context.Context, name string, groups []string, reason string) error {
	body := api.NewGroups{User: name, Groups: groups, Reason: reason}
	return c.call(ctx, http.MethodPut, userPath(name)+"/groups", body, nil)
}

// Import brings the accounts of another program.
func (c *Client) Import(ctx context.Context, file api.Import) (api.Imported, error) {
	var done api.Imported
	err := c.call(ctx, http.MethodPost, "/v1/imports", file, &done)
	return done, err
}

// EnrolTOTP gives an account a new second factor in place of the old one.
func (c *Client) EnrolTOTP(ctx context.Context, name, reason string) (api.Enrolment, error) {
	var e api.Enrolment
	err := c.call(ctx, http.MethodPost, userPath(name)+"/totp", api.Change{User: name, Reason: reason}, &e)
	return e, err
}

// ResetTOTP takes an account's second factor away.
func (c *Client) ResetTOTP(ctx context.Context, name, reason string) error {
	return c.call(ctx, http.MethodDelete, userPath(name)+"/totp", api.Change{User: name, Reason: reason}, nil)
}

// Lockouts lists every window in which there are failures.
func (c *Client) Lockouts(ctx context.Context) ([]api.Lockout, error) {
	return all[api.Lockout](ctx, c, "/v1/lockouts", nil)
}

// Lockout lists the windows of one name, which need not be that of an account.
func (c *Client) Lockout(ctx context.Context, name string) ([]api.Lockout, error) {
	var page api.Page[api.Lockout]
	err := c.call(ctx, http.MethodGet, "/v1/lockouts/"+url.PathEscape(name), nil, &page)
	return page.Items, err
}

// ResetLockout clears the windows and the long brake of one name.
func (c *Client) ResetLockout(ctx context.Context, name, reason string) error {
	body := api.Change{User: name, Reason: reason}
	return c.call(ctx, http.MethodDelete, "/v1/lockouts/"+url.PathEscape(name), body, nil)
}

// Sessions lists the live sessions of one user, or of everybody if name is empty.
func (c *Client) Sessions(ctx context.Context, name string) ([]api.Session, error) {
	query := url.Values{}
	if name != "" {
		query.Set("user", name)
	}
	return all[api.Session](ctx, c, "/v1/sessions", query)
}

// RevokeSession ends the session with the public id.
func (c *Client) RevokeSession(ctx context.Context, id, reason string) error {
	return c.call(ctx, http.MethodDelete, "/v1/sessions/"+url.PathEscape(id), api.Change{Reason: reason}, nil)
}

// RevokeSessions ends every session of a user and returns how many there were.
func (c *Client) RevokeSessions(ctx context.Context, name, reason string) (int, error) {
	var done api.Revoked
	err := c.call(ctx, http.MethodDelete, userPath(name)+"/sessions", api.Change{User: name, Reason: reason}, &done)
	return done.Sessions, err
}

// AppTokens lists the app tokens of one user, or of everybody if name is empty.
func (c *Client) AppTokens(ctx context.Context, name string) ([]api.Token, error) {
	query := url.Values{}
	if name != "" {
		query.Set("user", name)
	}
	return all[api.Token](ctx, c, "/v1/tokens", query)
}

// AddToken makes an app token.
func (c *Client) AddToken(ctx context.Context, asked api.NewToken) (api.IssuedToken, error) {
	var made api.IssuedToken
	err := c.call(ctx, http.MethodPost, "/v1/tokens", asked, &made)
	return made, err
}

// RevokeToken ends an app token.
func (c *Client) RevokeToken(ctx context.Context, id, reason string) error {
	return c.call(ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(id), api.Change{Reason: reason}, nil)
}

// Keys lists the signing keys.
func (c *Client) Keys(ctx context.Context) ([]api.Key, error) {
	var page api.Page[api.Key]
	err := c.call(ctx, http.MethodGet, "/v1/keys", nil, &page)
	return page.Items, err
}

// RotateKeys makes the next signing key sign now.
func (c *Client) RotateKeys(ctx context.Context, reason string) error {
	return c.call(ctx, http.MethodPost, "/v1/keys/rotation", api.Change{Reason: reason}, nil)
}

// Tail says which records of the audit log to read.
type Tail struct {
	From   uint64 // the first sequence number; 0: the newest Last records
	Last   int    // with From 0; 0: api.DefaultTail
	Follow bool   // go on with new records until the context ends
}

// AuditTail gives each record, one line of JSON without its line end, to each. It ends with the error of each, or when the
// gateway ends the stream; when ctx ends it returns nil. The line is only valid during the call.
func (c *Client) AuditTail(ctx context.Context, tail Tail, each func(line []byte) error) error {
	query := url.Values{}
	switch {
	case tail.From > 0:
		query.Set("from", strconv.FormatUint(tail.From, 10))
	case tail.Last > 0:
		query.Set("last", strconv.Itoa(tail.Last))
	}
	if tail.Follow {
		query.Set("follow", "true")
	}
	response, err := c.send(ctx, http.MethodGet, "/v1/audit?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewReaderSize(response.Body, audit.MaxLine)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case ctx.Err() != nil, errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF // the connection broke within a record
		case err != nil:
			return err
		}
		if err := each(line[:len(line)-1]); err != nil {
			return err
		}
	}
}

// all reads every page of a list.
func all[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	items := []T{}
	if query == nil {
		query = url.Values{}
	}
	for {
		var page api.Page[T]
		if err := c.call(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if page.Next == "" {
			return items, nil
		}
		query.Set("after", page.Next)
	}
}

func userPath(name string) string { return "/v1/users/" + url.PathEscape(name) }
