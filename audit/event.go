package audit

import "time"

// Kind says what a record is about. The set is closed.
type Kind string

// The kinds of records.
const (
	KindLogin             Kind = "login"               // one request of a login, with its trace
	KindSessionNotStarted Kind = "session-not-started" // a login was recorded but its session could not be marked live, or made fresher
	KindStepUp            Kind = "step-up"             // a code for a session that lives, with its trace
	KindAppToken          Kind = "app-token"           // a program presented an app token: the first time at a gateway, or a wrong one
	KindLogout            Kind = "logout"
	KindSessionRevoked    Kind = "session-revoked"
	KindSessionsRevoked   Kind = "sessions-revoked" // all sessions of a user
	KindHandleTheft       Kind = "handle-theft"     // a session handle was used in a way only a thief's copy can be
	KindRefused           Kind = "refused"          // refusals before any verification, aggregated with Count
	KindBypass            Kind = "bypass-attempt"   // forged headers, tampered cookies, foreign redirects, aggregated with Count
	KindAccessDenied      Kind = "access-denied"    // a rule or a missing right
	KindRequest           Kind = "request"          // one request to an app, where a route asks for it

	KindUserAdded     Kind = "user-added"
	KindUserInvited   Kind = "user-invited" // a one-time link was made that completes the account
	KindUserChanged   Kind = "user-changed"
	KindUserDisabled  Kind = "user-disabled"
	KindUserEnabled   Kind = "user-enabled"
	KindUserDeleted   Kind = "user-deleted"
	KindUsersImported Kind = "users-imported"
	KindPasswordSet   Kind = "password-set"
	KindTOTPEnrolled  Kind = "totp-enrolled"
	KindTOTPReset     Kind = "totp-reset"
	KindLockoutReset  Kind = "lockout-reset"
	KindTokenAdded    Kind = "app-token-added"
	KindTokenRevoked  Kind = "app-token-revoked"
	KindAdminRead     Kind = "admin-read" // an administrator looked at something

	KindStarted      Kind = "started"
	KindStopped      Kind = "stopped"
	KindReloaded     Kind = "configuration-reloaded"
	KindClockJump    Kind = "clock-jump"
	KindLogRepaired  Kind = "log-repaired" // a torn last line was cut at start
	KindKeysCreated  Kind = "keys-created"
	KindKeysRotated  Kind = "keys-rotated"  // a signing key was published, began to sign or ended
	KindStateRefused Kind = "state-refused" // a stored record did not open: altered, moved, or another key
)

// TakesAccessAway reports whether the record's effect only ever removes access. Such records may use the log's reserve when
// the disk is full, so that a full disk never keeps a thief signed in.
func (k Kind) TakesAccessAway() bool {
	switch k {
	case KindLogout, KindSessionRevoked, KindSessionsRevoked, KindHandleTheft, KindUserDisabled, KindUserDeleted, KindTokenRevoked:
		return true
	default:
		return false
	}
}

// Outcome is how the thing recorded ended.
type Outcome string

// The outcomes.
const (
	Success    Outcome = "success"
	Failure    Outcome = "failure"
	Challenged Outcome = "challenge" // refused until something more is presented
	Denied     Outcome = "denied"
	Failed     Outcome = "error" // could not be done
)

// Severity is how much a record matters to somebody on duty.
type Severity string

// The severities. The zero Severity is written as Info.
const (
	Info Severity = "info"
	Low  Severity = "low"
	High Severity = "high"
)

// ActorType says by which door somebody acted.
type ActorType string

// The actor types.
const (
	ActorClient   ActorType = "client"   // somebody at the public listener, whoever that is
	ActorOperator ActorType = "operator" // a peer of the admin socket, by uid
	ActorToken    ActorType = "token"    // a holder of the administration token
	ActorUser     ActorType = "user"     // a signed-in user
	ActorSystem   ActorType = "system"   // the gateway itself
)

// Actor is who acts.
type Actor struct {
	Type ActorType `json:"type"`
	ID   string    `json:"id,omitempty"`   // user id, uid of the peer, token name
	Name string    `json:"name,omitempty"` // canonical user name, where it is a user
}

// Subject is the account that the record is about.
type Subject struct {
	ID string `json:"id,omitempty"`
	// Name is the canonical name of an account that exists. Of a name that does not, only Tag is kept: people type
	// passwords into the name field.
	Name string `json:"name,omitempty"`
	// Tag is the start of the HMAC of a canonical name, so that attempts on one unknown name can be counted.
	Tag string `json:"tag,omitempty"`
}

// Client is where a request came from.
type Client struct {
	Address string `json:"address,omitempty"` // the socket peer, or what a listed proxy says
	Network string `json:"network,omitempty"` // the /24 or /64
	// Claimed is what forwarding headers of a peer that is not listed said, cut to 256 bytes; never believed.
	Claimed   string `json:"claimed,omitempty"`
	Device    string `json:"device,omitempty"` // "known", "stranger"
	UserAgent string `json:"user_agent,omitempty"`
}

// Event is what a record holds besides its place in the log. Strings may come from an attacker: Append cuts each to
// MaxString bytes, with a marker, and makes it valid UTF-8; writing escapes everything that could end a line or drive a
// terminal. An Event never holds a password, code, token, cookie, seed or key.
type Event struct {
	Kind     Kind     `json:"kind"`
	Outcome  Outcome  `json:"outcome"`
	Severity Severity `json:"severity"`
	Actor    Actor    `json:"actor"`
	Subject  Subject  `json:"subject,omitzero"`
	Client   Client   `json:"client,omitzero"`
	// Session is the session's public id (session.PublicID), which is no credential.
	Session   string `json:"session,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	// Code is the problem code that the client got.
	Code string `json:"code,omitempty"`
	// Why is the reason that an administrator gave.
	Why     string            `json:"why,omitempty"`
	Count   int64             `json:"count,omitempty"` // of an aggregated record
	Trace   *Trace            `json:"trace,omitempty"`
	Details map[string]string `json:"details,omitempty"` // flat
}

// Record is an event at its place in the log.
type Record struct {
	Sequence uint64    `json:"seq"`   // from 1, without a gap, over all segments
	Epoch    string    `json:"epoch"` // random, new at each start of the gateway
	ID       string    `json:"id"`    // 128 random bits; stable wherever the record is sent
	Node     string    `json:"node"`
	Time     time.Time `json:"time"` // UTC, microseconds
	Event
}
