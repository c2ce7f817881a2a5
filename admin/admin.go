// Package admin is the administration service: what the command line and the administration API do to accounts, second
// factors, lockouts, sessions and the log.
//
// Every operation goes through one gate (gate.go), in this order: it is authorised by one table of operations and roles, and
// what the table does not allow is denied; its record is written, with who, why and what; only then does it act. It promises
// that a call which cannot be recorded changes nothing and shows nothing, that denied calls and calls that come to nothing are recorded
// too, and that an effect that fails half way leaves a second record with the outcome error.
//
// What takes access away does so in an order in which nothing can slip through: the account first, so that no session can be
// renewed, then its sessions, then its devices. Each of these operations can be repeated after an error, and then completes.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"gatehouse/audit"
	"gatehouse/auth/apptoken"
	"gatehouse/auth/device"
	"gatehouse/auth/link"
	"gatehouse/auth/lockout"
	"gatehouse/auth/password"
	"gatehouse/auth/totp"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/session"
	"gatehouse/store"
)

// The time that an operation may take once it began, so that a store that is slow is answered within 2 s. A caller that goes
// away does not stop it half way; what its time cut off can be asked for again. A password's hash takes time of its own.
const (
	operationTimeout = 1500 * time.Millisecond
	passwordTimeout  = 10 * time.Second
	importTimeout    = 100 * time.Second
)

// The errors of operations, besides *InvalidError, *PasswordError and *ImportError. Everything else is an outage.
var (
	// ErrForbidden: the caller's role may not do this.
	ErrForbidden = errors.New("operation not allowed")
	// ErrNotFound: there is no such account, session or app token.
	ErrNotFound = errors.New("no such object")
	// ErrConflict: the name is taken, or there are as many as there may be.
	ErrConflict = errors.New("name is taken")
)

// InvalidError: the caller must ask for something else. It is shown to the caller.
type InvalidError struct{ Detail string }

func (e *InvalidError) Error() string { return e.Detail }

// RefusedError is ErrNotFound or ErrConflict with what is missing or in the way. It is shown to the caller, who may know: only
// calls that are allowed come this far.
type RefusedError struct {
	Detail string
	Err    error
}

func (e *RefusedError) Error() string { return e.Detail }

// Unwrap returns the sentinel.
func (e *RefusedError) Unwrap() error { return e.Err }

// PasswordError: the password policy refuses the password.
type PasswordError struct{ Reasons []string }

func (e *PasswordError) Error() string { return "password rejected" }

// ImportError: nothing was imported, because entries of the file cannot be.
type ImportError struct{ Reasons []string }

func (e *ImportError) Error() string { return "import has entries that cannot be imported" }

// Code is the problem that the caller of an operation is told.
func Code(err error) problem.Code {
	var invalid *InvalidError
	var rejected *PasswordError
	var entries *ImportError
	switch {
	case errors.As(err, &invalid), errors.As(err, &entries):
		return problem.BadRequest
	case errors.As(err, &rejected):
		return problem.PasswordRejected
	case errors.Is(err, ErrForbidden):
		return problem.Forbidden
	case errors.Is(err, ErrNotFound):
		return problem.NotFound
	case errors.Is(err, ErrConflict):
		return problem.Conflict
	}
	return problem.Unavailable // the store, the log, or a record that does not open: deny, and let the caller try again
}

// Detail is what the caller of an operation is told besides its problem; empty if there is nothing more that is safe to say.
func Detail(err error) string {
	var invalid *InvalidError
	var refused *RefusedError
	var entries *ImportError
	switch {
	case errors.As(err, &invalid):
		return invalid.Detail
	case errors.As(err, &refused):
		return refused.Detail
	case errors.As(err, &entries):
		return "Nothing was imported, because some entries cannot be."
	case errors.Is(err, ErrForbidden):
		return "Only an operator on the administration socket may do this."
	case errors.Is(err, audit.ErrUnavailable):
		return "The audit log does not take records; nothing is done without one. The gateway's own log says why."
	case errors.Is(err, store.ErrUnavailable):
		return "The store does not answer; try again when it does. The gateway's own log says why."
	}
	return ""
}

// Log is the audit log.
type Log interface {
	// Append returns when the record is on disk; with an error there is none.
	Append(ctx context.Context, event audit.Event) (audit.Record, error)
	// Count adds to an aggregated record, which is written within a second.
	Count(event audit.Event)
}

// Options is what a Service is made of. All fields are required.
type Options struct {
	Users     *user.Store
	Passwords *lockout.Windows // by name tag
	Codes     *lockout.Windows // by user id
	Devices   *device.Service
	TOTP      *totp.Service
	Sessions  *session.Manager
	Keys      *session.Keys
	Hasher    *password.Hasher
	Policy    password.Policy
	Log       Log
	LogDir    string // of the audit log
	Links     *link.Service
	Tokens    *apptoken.Store
	// Routes are the names of the routes that app tokens can be for.
	Routes func() []string
	// External is the login host: where links lead, and a word that no password may be made of.
	External *url.URL
	Now      func() time.Time
	Logger   *slog.Logger
}

// Service carries out operations. Safe for concurrent use.
type Service struct {
	parts Options
	// hashing lets one password be hashed at a time. The pool of the logins is not used: a flood of logins must not keep an
	// operator from acting, and one comparison's work beside it does not slow the door.
	hashing chan struct{}
}

// New makes a Service.
func New(o Options) *Service {
	return &Service{parts: o, hashing: make(chan struct{}, 1)}
}

// find returns the account with the name.
func (s *Service) find(ctx context.Context, name string) (user.User, error) {
	canonical, err := canonical(name)
	if err != nil {
		return user.User{}, err
	}
	u, err := s.parts.Users.ByName(ctx, canonical)
	return u, translate(err)
}

// translate turns the errors of accounts into those of operations.
func translate(err error) error {
	switch {
	case errors.Is(err, user.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, user.ErrNameTaken):
		return ErrConflict
	case errors.Is(err, user.ErrInvalid), errors.Is(err, user.ErrInvalidName):
		_, why, found := strings.Cut(err.Error(), user.ErrInvalid.Error()+": ") // without the operation in front
		if !found {
			why = err.Error()
		}
		return &InvalidError{Detail: why}
	}
	return err
}

// subject is what a record says about a name. Of a name without an account only its tag is kept, for people type passwords
// into the wrong field.
// A text that is no name at all is no subject.
func (s *Service) subject(ctx context.Context, name string) (audit.Subject, error) {
	canonical, err := canonical(name)
	if err != nil {
		return audit.Subject{}, nil
	}
	u, err := s.parts.Users.ByName(ctx, canonical)
	if err != nil && !errors.Is(err, user.ErrNotFound) {
		return audit.Subject{}, err
	}
	if err == nil {
		return audit.Subject{ID: u.ID, Name: u.Name}, nil
	}
	return audit.Subject{Tag: tag(s.parts.Users.NameTag(canonical))}, nil
}

// tag cuts the HMAC of a name to what records and lists show.
func tag(nameTag string) string { return nameTag[:min(16, len(nameTag))] }

func canonical(name string) (string, error) {
	canonical, err := user.Canonical(name)
	if err != nil {
		return "", &InvalidError{Detail: user.ErrInvalidName.Error()}
	}
	return canonical, nil
}

// hash makes the hash of a new password that the policy accepts. words are what it must not be made of.
func (s *Service) hash(ctx context.Context, plain string, words []string) (string, error) {
	if reasons := s.parts.Policy.Check(plain, words); len(reasons) > 0 {
		return "", &PasswordError{Reasons: reasons}
	}
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return "", fmt.Errorf("hash password: %w", ctx.Err())
	}
	return s.parts.Hasher.Hash(plain)
}
