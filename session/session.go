// Package session keeps people signed in: sessions and their records, access tokens and handles, the cookies that carry them,
// and the revocation of all of it on every gateway.
//
// It promises:
//
//   - A request that presents a token which this gateway verified before costs no look at the store: a cookie parse, one
//     look-up and one revocation check.
//   - A session that was revoked is refused here when Revoke returns and on every other gateway as soon as the feed brings it.
//   - A handle is good once. Parallel tabs and a lost answer get the same successor; a copy in other hands ends the session, with
//     a record of high severity (rotation.go).
//   - A gateway accepts without looking at the store only tokens that it saw while in step with the feed. After its start or a
//     gap in the feed it forgets them and reads each session's record again. While the feed cannot be read, what was verified
//     before is good until it expires (5 minutes at most) and nothing else is; that is the bound on a revocation, and InStep
//     says so.
//   - A record is in the audit log before its effect. What could not be recorded, deleted or published is an error, never done;
//     doing it again is safe.
//   - An id of a session is no credential: a handle is good only with its MAC, a token only with its signature, and the keys of
//     both are sealed. Neither is stored, nor anything from which they can be computed, so a copy of the store signs nobody in.
//   - Cookie names are spelled in this package only. None of its cookies reaches an app and no app can set or clear one.
//
// Cookies are those of RFC 6265bis, section 4.1.3.2 (the __Host- prefix).
package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/audit"
	"gatehouse/session/token"
	"gatehouse/store"
)

// The errors of a request that carries no good session. ErrDuplicate is an ErrBadRequest.
var (
	// ErrNoSession: nobody is signed in with what the request carries.
	ErrNoSession = errors.New("no session")
	// ErrExpired: the access token is not good (any more), but there is a handle whose MAC is right: Renew decides.
	ErrExpired = errors.New("access token has expired")
	// ErrBadBearer: Authorization carries what claims to be a token of ours and is not good; it alone decides.
	ErrBadBearer = errors.New("bearer token is not valid")
	// ErrBadRequest: credentials in a form that nobody sends by accident.
	ErrBadRequest = errors.New("bad credentials header")
	// ErrDuplicate: a cookie of ours is there twice, so at least one is not ours.
	ErrDuplicate = fmt.Errorf("cookie is there twice: %w", ErrBadRequest)
	// ErrUnavailable: it cannot be known now; the cookies stay.
	ErrUnavailable = errors.New("sessions unavailable")
)

const (
	idSize = 16 // bytes of a user id and of a session id
	// prepareFor is how long a session that was not activated exists.
	prepareFor = time.Minute
	// finishWithin bounds work that goes on when the client has left.
	finishWithin = 5 * time.Second
	// maxUserAgent is how much of a User-Agent is kept, in bytes.
	maxUserAgent = 160
)

// Identity is an account as apps see it. The Groups must not be changed.
type Identity struct {
	UserID      string   `json:"-"` // 32 hexadecimal digits
	Name        string   `json:"name"`
	DisplayName string   `json:"display,omitempty"`
	Email       string   `json:"email,omitempty"`
	Groups      []string `json:"groups,omitempty"`
}

// Principal is who a request is from. It is a snapshot of the session, at most as old as the access token; slices must not be
// changed.
type Principal struct {
	Identity
	SessionID string    // 32 hexadecimal digits
	PublicID  string    // what lists and logs show
	Methods   []string  // RFC 8176 names of the factors
	AuthTime  time.Time // of the last factor
	CreatedAt time.Time
	ExpiresAt time.Time // the absolute limit
	Bearer    bool      // presented in Authorization, not in a cookie
	// AppToken: there is no session; a program presented an app token, whose id the PublicID is. It never used a second factor.
	AppToken bool

	since      uint64      // of an outside credential: what had arrived when it was verified; 0 of a session
	epoch      uint64      // of the verified tokens when the session was read
	assertions *assertions // nil if this gateway does not remember the token
}

// Accounts is where renewal re-reads an account.
type Accounts interface {
	// Identity returns the account as it is now. enabled is false if it is disabled or there is none.
	Identity(ctx context.Context, userID string) (identity Identity, enabled bool, err error)
}

// Recorder is the audit log.
type Recorder interface {
	// Append returns when the event is on disk.
	Append(ctx context.Context, event audit.Event) (audit.Record, error)
}

// Options of New. Fields without a default are required.
type Options struct {
	Records   store.Records // sealed
	Feed      store.Feed    // sealed
	Counters  store.Counters
	Keys      KeySource
	HandleKey []byte // 32 bytes
	Issuer    string // the external URL
	Accounts  Accounts
	Recorder  Recorder
	Now       func() time.Time
	Logger    *slog.Logger

	Limits
	// Device returns which device of the user a device cookie is, "" if none; nil takes the cookie as it stands.
	Device func(cookie, userID string) string
	// Client describes where a request came from, for records; may be nil.
	Client func(*http.Request) audit.Client
	// Observer may be nil.
	Observer Observer
}

// Observer is told what happens, for metrics. It must not block.
type Observer interface {
	// Renewed reports a renewal, or why it was none.
	Renewed(err error)
	// Heard reports the end of sessions at another gateway, and how long ago that gateway said so, by the clocks of both.
	Heard(after time.Duration)
}

// nobody observes nothing.
type nobody struct{}

func (nobody) Renewed(error)       {}
func (nobody) Heard(time.Duration) {}

// Limits of sessions. The zero value of a field is its default.
type Limits struct {
	AccessLifetime time.Duration // of an access token; default 5 min, which is also the most
	// Idle ends a session in which nothing happened for so long; default 1 h. It is counted from the last activity on record, so
	// a session ends between Idle − AccessLifetime and Idle after the last request: never later.
	Idle     time.Duration
	Absolute time.Duration // ends every session; default 24 h
	PerUser  int           // sessions of one user, the oldest ends; default 100

	// IgnoreActivity lists the beginnings of paths whose requests are polling: they renew, and do not keep a session alive.
	// "/poll" is /poll and everything below it.
	IgnoreActivity []string
}

// complete fills in the defaults, and returns an error if a limit is out of range.
func (l Limits) complete() (*Limits, error) {
	l.AccessLifetime = cmp.Or(l.AccessLifetime, token.MaxLifetime)
	l.Idle = cmp.Or(l.Idle, time.Hour)
	l.Absolute = cmp.Or(l.Absolute, 24*time.Hour)
	l.PerUser = cmp.Or(l.PerUser, 100)
	switch {
	case l.AccessLifetime < time.Second || l.AccessLifetime > token.MaxLifetime:
		return nil, fmt.Errorf("session: access token of %v: want 1 s to %v", l.AccessLifetime, token.MaxLifetime)
	case l.Idle < l.AccessLifetime || l.Absolute < l.Idle || l.PerUser < 1:
		return nil, errors.New("session: limits contradict each other")
	}
	return &l, nil
}

// Manager is the sessions of one gateway. Safe for concurrent use.
type Manager struct {
	o      Options
	limits atomic.Pointer[Limits]

	verified *verified
	revoked  *revocations
	watches  watches
	inStep   atomic.Bool
	notes    atomic.Int32 // being written
	name     string       // of this gateway on the feed, new at each start
	taken    chan message // what was begun to be ended, and is to be finished

	mu       sync.Mutex
	followed time.Time // guarded by mu; when the feed was last read to its end, at first when Run began
	lost     bool      // guarded by mu; the feed could not be read since
	outages  []outage  // guarded by mu; times in which the feed could not be read, oldest first
}

// New returns a Manager, or an error if an option is missing or out of range. Until Run follows the feed, every request is
// answered from the store.
func New(o Options) (*Manager, error) {
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	switch {
	case o.Records == nil || o.Counters == nil || o.Feed == nil || o.Keys == nil || o.Accounts == nil || o.Recorder == nil || o.Now == nil || o.Logger == nil:
		return nil, errors.New("session: an option is missing")
	case len(o.HandleKey) != 32:
		return nil, errors.New("session: the handle key must have 32 bytes")
	case o.Issuer == "":
		return nil, errors.New("session: no issuer")
	}
	m := &Manager{
		o: o, verified: newVerified(maxVerified), revoked: newRevocations(maxRevoked), taken: make(chan message, maxTaken), name: rand.Text(),
	}
	if err := m.SetLimits(o.Limits); err != nil {
		return nil, err
	}
	return m, nil
}

// SetLimits sets other limits. Sessions that there are end by the new idle limit, and by the absolute limit with which they began.
func (m *Manager) SetLimits(limits Limits) error {
	complete, err := limits.complete()
	if err == nil {
		m.limits.Store(complete)
	}
	return err
}

// InStep reports whether revocations of other gateways arrive here at once.
func (m *Manager) InStep() bool { return m.inStep.Load() }

// Verified is how many verified tokens are remembered.
func (m *Manager) Verified() int { return int(m.verified.count.Load()) }

// Revoked is how many ended sessions are remembered.
func (m *Manager) Revoked() int { return int(m.revoked.count.Load()) }

// Followed is when the feed was last read to its end.
func (m *Manager) Followed() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.followed
}

// id is a user id or session id in the form in which tables hold it.
type id [idSize]byte

// newID returns 128 random bits.
func newID() id {
	var x id
	_, _ = rand.Read(x[:]) // never fails: crypto/rand ends the process instead
	return x
}

// parseID reads 32 lower-case hexadecimal digits: an id has one spelling, because it is compared and looked up as text too.
func parseID(text string) (id, bool) {
	var x id
	if len(text) != 2*idSize {
		return x, false
	}
	for i := range len(text) {
		if c := text[i]; 'A' <= c && c <= 'F' {
			return x, false
		}
	}
	_, err := hex.Decode(x[:], []byte(text))
	return x, err == nil
}

func (x id) String() string { return hex.EncodeToString(x[:]) }

// finish is a context for work that must not end half done because a client went away.
func finish(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), finishWithin)
}

// unavailable makes an error of the store one that says only that it cannot be known now.
func unavailable(doing string, err error) error {
	return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
}
