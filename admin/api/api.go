// Package api holds the wire types of the administration API: what its handlers answer and its client reads.
//
// Every type is JSON with lower-case member names; times are RFC 3339 in UTC, and a member that is absent is not set. No
// type that is answered holds a password, a hash or a key; the secrets are that of a new [Enrolment], the link of an
// [Invitation] and an [IssuedToken], each answered once. The routes are described in admin/httpapi/openapi.yaml.
package api

import "time"

// Limits of requests.
const (
	// MaxPage is the most entries of one page, and the default.
	MaxPage = 1000
	// MaxBody is the most bytes of a request's body.
	MaxBody = 16 << 10
	// MaxImportBody is the most bytes of the body of an import.
	MaxImportBody = 1 << 20
	// MaxReason is the most bytes of a reason.
	MaxReason = 500
	// DefaultTail is how many records of the audit log are answered when none are asked for by number.
	DefaultTail = 20
)

// Page is one page of a list, in a fixed order.
type Page[T any] struct {
	Items []T `json:"items"`
	// Next, given as after, continues the list; empty on the last page.
	Next string `json:"next,omitempty"`
}

// User is an account.
type User struct {
	ID                string    `json:"id"`
	Name              string    `json:"name"` // canonical
	DisplayName       string    `json:"display_name,omitempty"`
	Email             string    `json:"email,omitempty"`
	Groups            []string  `json:"groups"`
	Disabled          bool      `json:"disabled"`
	HasPassword       bool      `json:"has_password"`
	TOTPEnrolledAt    time.Time `json:"totp_enrolled_at,omitzero"`
	CreatedAt         time.Time `json:"created_at"`
	EnrolUntil        time.Time `json:"enrol_until,omitzero"`   // until then a password alone enrols a second factor
	InvitedUntil      time.Time `json:"invited_until,omitzero"` // the end of the newest invitation, if it was not used
	FirstLoginAt      time.Time `json:"first_login_at,omitzero"`
	PasswordChangedAt time.Time `json:"password_changed_at,omitzero"`
}

// NewUser asks for an account.
type NewUser struct {
	Name        string   `json:"name"`
	DisplayName string   `json:"display_name,omitempty"`
	Email       string   `json:"email,omitempty"`
	Groups      []string `json:"groups,omitempty"`
	Password    string   `json:"password"`
	Reason      string   `json:"reason,omitempty"`
}

// NewInvitation asks for an account whose owner chooses the password.
type NewInvitation struct {
	Name        string   `json:"name"`
	DisplayName string   `json:"display_name,omitempty"`
	Email       string   `json:"email,omitempty"`
	Groups      []string `json:"groups,omitempty"`
	Reason      string   `json:"reason,omitempty"`
}

// Invitation is an account and the link that completes it. The link is answered once and cannot be asked for again.
type Invitation struct {
	User  User      `json:"user"`
	Link  string    `json:"link"` // works once; whoever opens it chooses password and second factor
	Until time.Time `json:"until"`
}

// Change is the body of a request that says all it wants in its method and path.
type Change struct {
	// User may repeat the name in the path; another name is refused.
	User string `json:"user,omitempty"`
	// Reason goes into the audit log. Resetting a lockout requires one.
	Reason string `json:"reason,omitempty"`
}

// NewPassword sets a password.
type NewPassword struct {
	User     string `json:"user,omitempty"`
	Password string `json:"password"`
	Reason   string `json:"reason,omitempty"`
}

// NewGroups replaces the groups of an account.
type NewGroups struct {
	User   string   `json:"user,omitempty"`
	Groups []string `json:"groups"`
	Reason string   `json:"reason,omitempty"`
}

// The formats of an import.
const (
	FormatHtpasswd = "htpasswd"
	FormatAuthelia = "authelia"
)

// Import brings the accounts of another program.
type Import struct {
	Format  string `json:"format"`  // FormatHtpasswd or FormatAuthelia
	Content string `json:"content"` // the file
	// SkipRejected imports what can be imported; without it one entry that cannot be refuses the whole import.
	SkipRejected bool   `json:"skip_rejected,omitempty"`
	Reason       string `json:"reason,omitempty"`
}

// Imported says what an import did.
type Imported struct {
	Added    []string   `json:"added"`
	Existing []string   `json:"existing"` // were there already, and are the same
	Rejected []Rejected `json:"rejected"`
}

// Rejected is an entry of an import that makes no account.
type Rejected struct {
	Name string `json:"name,omitempty"`
	Line int    `json:"line,omitempty"`
	Why  string `json:"why"`
}

// Enrolment is a new second factor. It is answered once and cannot be asked for again.
type Enrolment struct {
	User   string `json:"user"`
	URL    string `json:"url"`    // otpauth://, for the authenticator app
	Secret string `json:"secret"` // base32, to be typed
	// InvitationEnded: the account was invited, and the link of the invitation is no good any more.
	InvitationEnded bool `json:"invitation_ended,omitempty"`
}

// The windows of a Lockout.
const (
	WindowPassword = "password"
	WindowCode     = "code"
)

// Stranger is the client class of everybody without a known device.
const Stranger = "stranger"

// Lockout is the state of one window: the recent failures of one account and client class.
type Lockout struct {
	// User is the name of the account. Of a name without an account only Tag is kept.
	User   string `json:"user,omitempty"`
	Tag    string `json:"tag,omitempty"`
	Window string `json:"window"` // WindowPassword or WindowCode
	Client string `json:"client"` // Stranger, or the id of a known device
	// Failures counts those within the window's length; attempts that are being verified are not among them.
	Failures int       `json:"failures"`
	LastAt   time.Time `json:"last_at,omitzero"` // of the last failure
	// LockedUntil is set while the window is locked.
	LockedUntil time.Time `json:"locked_until,omitzero"`
	// Run counts failures in a row; too many close the account to strangers until it is reset.
	Run    int  `json:"run,omitempty"`
	Closed bool `json:"closed,omitempty"`
}

// Session is a live session.
type Session struct {
	ID        string    `json:"id"` // public: names the session and is no credential
	User      string    `json:"user"`
	Methods   []string  `json:"methods"`          // RFC 8176
	Origin    string    `json:"origin,omitempty"` // of the host that it began on
	Address   string    `json:"address,omitempty"`
	UserAgent string    `json:"user_agent,omitempty"`
	AuthTime  time.Time `json:"auth_time"`
	CreatedAt time.Time `json:"created_at"`
	SeenAt    time.Time `json:"seen_at,omitzero"`
	ExpiresAt time.Time `json:"expires_at"`
}

// NewToken asks for an app token.
type NewToken struct {
	User  string `json:"user"`
	Route string `json:"route"` // the name of a configured route
	// ExpiresIn is how many seconds the token lives; absent or 0 is 90 days, the most is 366 days.
	ExpiresIn int64  `json:"expires_in,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// Token is an app token, without the token itself.
type Token struct {
	ID        string    `json:"id"` // names the token and is no credential
	User      string    `json:"user"`
	Route     string    `json:"route"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	// UsedAt is the last use, up to an hour behind; absent if the token was never used.
	UsedAt time.Time `json:"used_at,omitzero"`
}

// IssuedToken is a new app token. It is answered once and cannot be asked for again.
type IssuedToken struct {
	Token  Token  `json:"token"`
	Secret string `json:"secret"` // what the program presents
}

// Key is a signing key, without anything that is secret.
type Key struct {
	ID        string    `json:"id"`    // kid, as in the published key set
	State     string    `json:"state"` // next, active or retired
	CreatedAt time.Time `json:"created_at"`
	BeganAt   time.Time `json:"began_at,omitzero"` // to sign
	RetiredAt time.Time `json:"retired_at,omitzero"`
	EndsAt    time.Time `json:"ends_at,omitzero"` // when it is no longer accepted
}

// Revoked says how many sessions were ended.
type Revoked struct {
	Sessions int `json:"sessions"`
}
