package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/problem"
)

// Role is what a caller may do, by the door it came through.
type Role string

// The roles. The zero Role may do nothing.
const (
	// Operator is a peer of the administration socket: the gateway's own user, or root.
	Operator Role = "operator"
	// Administrator is a holder of the administration token. It cannot set or see a credential of somebody else, which would
	// let it act under that name.
	Administrator Role = "administrator"
)

// Roles is every role.
var Roles = []Role{Operator, Administrator}

// Caller is who asks for an operation, as the edge identified it.
type Caller struct {
	Role      Role
	Actor     audit.Actor
	Client    audit.Client
	RequestID string
}

// Operation names what can be asked for.
type Operation string

// The operations.
const (
	UserList       Operation = "user-list"
	UserShow       Operation = "user-show"
	UserAdd        Operation = "user-add"
	UserAddInvited Operation = "user-add-invited"
	UserInvite     Operation = "user-invite"
	UserDisable    Operation = "user-disable"
	UserEnable     Operation = "user-enable"
	UserDelete     Operation = "user-delete"
	UserPassword   Operation = "user-password"
	UserGroups     Operation = "user-groups"
	UserImport     Operation = "user-import"
	TOTPEnrol      Operation = "totp-enrol"
	TOTPReset      Operation = "totp-reset"
	LockoutList    Operation = "lockout-list"
	LockoutShow    Operation = "lockout-show"
	LockoutReset   Operation = "lockout-reset"
	SessionList    Operation = "session-list"
	SessionRevoke  Operation = "session-revoke"
	SessionsRevoke Operation = "sessions-revoke"
	TokenAdd       Operation = "token-add"
	TokenList      Operation = "token-list"
	TokenRevoke    Operation = "token-revoke"
	KeyList        Operation = "key-list"
	KeyRotate      Operation = "key-rotate"
	AuditTail      Operation = "audit-tail"
)

// permission is one line of the table: who may, and the kind of the record.
type permission struct {
	roles []Role
	kind  audit.Kind
}

var (
	operators = []Role{Operator}
	both      = []Role{Operator, Administrator}
)

// permissions is the whole authorisation. What is not in it is denied.
var permissions = map[Operation]permission{
	UserList:       {both, audit.KindAdminRead},
	UserShow:       {both, audit.KindAdminRead},
	UserAdd:        {operators, audit.KindUserAdded}, // with a password that the caller knows
	UserAddInvited: {both, audit.KindUserAdded},      // the owner chooses the password
	UserInvite:     {both, audit.KindUserInvited},
	UserDisable:    {both, audit.KindUserDisabled},
	UserEnable:     {both, audit.KindUserEnabled},
	UserDelete:     {both, audit.KindUserDeleted},
	UserPassword:   {operators, audit.KindPasswordSet},
	UserGroups:     {both, audit.KindUserChanged},
	UserImport:     {operators, audit.KindUsersImported}, // with hashes that the caller chose
	TOTPEnrol:      {operators, audit.KindTOTPEnrolled},  // shows the secret
	TOTPReset:      {both, audit.KindTOTPReset},
	LockoutList:    {both, audit.KindAdminRead},
	LockoutShow:    {both, audit.KindAdminRead},
	LockoutReset:   {both, audit.KindLockoutReset},
	SessionList:    {both, audit.KindAdminRead},
	SessionRevoke:  {both, audit.KindSessionRevoked},
	SessionsRevoke: {both, audit.KindSessionsRevoked},
	TokenAdd:       {operators, audit.KindTokenAdded}, // whoever sees it can act under that name
	TokenList:      {both, audit.KindAdminRead},
	TokenRevoke:    {both, audit.KindTokenRevoked},
	KeyList:        {both, audit.KindAdminRead},
	KeyRotate:      {both, audit.KindKeysRotated},
	AuditTail:      {both, audit.KindAdminRead},
}

// Operations lists every operation, in alphabetical order.
func Operations() []Operation { return slices.Sorted(maps.Keys(permissions)) }

// Allowed reports whether the role may ask for the operation.
func Allowed(op Operation, role Role) bool { return slices.Contains(permissions[op].roles, role) }

// call is one operation on its way through the gate.
type call struct {
	caller  Caller
	op      Operation
	name    string // the account it is about; empty if it is about none
	why     string
	timeout time.Duration // operationTimeout if zero

	// prepare finds out what would be done, and adds it to the event. It has no effect. May be nil.
	prepare func(ctx context.Context, event *audit.Event) error
	// act does it. It gets the record that stands for it.
	act func(ctx context.Context, record audit.Record) error
	// recordedByAct says that act hands the event to session.Manager, which records it before it revokes. The record that act
	// gets then has no place in the log yet.
	recordedByAct bool
}

// do is the gate: authorise, record, act. It goes on when the caller has gone.
func (s *Service) do(ctx context.Context, c call) error {
	if c.timeout == 0 {
		c.timeout = operationTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	defer cancel()
	event := c.event()
	if !Allowed(c.op, c.caller.Role) {
		return s.deny(ctx, c, event)
	}
	if err := s.prepare(ctx, c, &event); err != nil {
		return s.failed(ctx, event, c.explain(err))
	}
	record := audit.Record{Event: event}
	if !c.recordedByAct {
		var err error
		if record, err = s.parts.Log.Append(ctx, event); err != nil {
			return fmt.Errorf("%s: %w", c.op, err)
		}
	}
	if err := c.act(ctx, record); err != nil {
		return s.failed(ctx, event, c.explain(err))
	}
	return nil
}

// prepare checks what every call has in common, then what is particular to this one.
func (s *Service) prepare(ctx context.Context, c call, event *audit.Event) error {
	if c.name != "" {
		var err error
		if event.Subject, err = s.subject(ctx, c.name); err != nil {
			return err
		}
	}
	if len(c.why) > api.MaxReason {
		return &InvalidError{Detail: fmt.Sprintf("The reason is over %d bytes.", api.MaxReason)}
	}
	if c.prepare == nil {
		return nil
	}
	return c.prepare(ctx, event)
}

// explain names the account that is missing or in the way. The name is the caller's own word, quoted so that it drives no
// terminal.
func (c call) explain(err error) error {
	if told := (*RefusedError)(nil); c.name == "" || errors.As(err, &told) {
		return err
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return &RefusedError{Detail: fmt.Sprintf("There is no account %q.", c.name), Err: ErrNotFound}
	case errors.Is(err, ErrConflict):
		return &RefusedError{Detail: fmt.Sprintf("The account %q exists already.", c.name), Err: ErrConflict}
	}
	return err
}

// event is the record of a call that is allowed and succeeds.
func (c call) event() audit.Event {
	return audit.Event{
		Kind:      permissions[c.op].kind,
		Outcome:   audit.Success,
		Severity:  audit.Info,
		Actor:     c.caller.Actor,
		Client:    c.caller.Client,
		RequestID: c.caller.RequestID,
		Why:       c.why,
		Details:   map[string]string{"operation": string(c.op)},
	}
}

// deny records that somebody asked for what is not theirs. Its kind may not use the log's reserve, whatever was asked for: a
// caller without the right must not be able to use it up.
func (s *Service) deny(ctx context.Context, c call, event audit.Event) error {
	event.Kind, event.Outcome, event.Severity = audit.KindAccessDenied, audit.Denied, audit.Low
	event.Code = string(problem.Forbidden)
	if c.name != "" {
		event.Subject, _ = s.subject(ctx, c.name) // who was meant is worth knowing, and no reason not to deny
	}
	if _, err := s.parts.Log.Append(ctx, event); err != nil {
		return fmt.Errorf("%s: %w", c.op, err)
	}
	return ErrForbidden
}

// failed records that a call came to nothing, or that its effect, already recorded, did not or not wholly happen.
func (s *Service) failed(ctx context.Context, event audit.Event, err error) error {
	event.Outcome, event.Code = audit.Failed, string(Code(err))
	// The call's time may be what ran out.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
	defer cancel()
	if _, logErr := s.parts.Log.Append(ctx, event); logErr != nil {
		s.parts.Logger.Error("failed operation is not recorded", "operation", event.Details["operation"], "request_id", event.RequestID, "error", logErr)
	}
	return fmt.Errorf("%s: %w", event.Details["operation"], err)
}

// Refused counts a request that never became an operation: without a valid token, from a browser, or malformed. These are
// aggregated, for anybody who reaches the listener can send them.
func (s *Service) Refused(c Caller, code problem.Code) {
	kind := audit.KindRefused
	switch code {
	case problem.SessionRequired, problem.Forbidden, problem.CrossSite, problem.Misdirected:
		kind = audit.KindAccessDenied
	default: // malformed
	}
	s.parts.Log.Count(audit.Event{
		Kind:    kind,
		Outcome: audit.Denied,
		Actor:   c.Actor,
		Client:  c.Client,
		Code:    string(code),
		Count:   1,
	})
}
