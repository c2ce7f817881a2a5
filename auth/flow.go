// Package auth is the login: six steps over one attempt, in [Flow.Login].
//
// It promises: the order of the steps is fixed (one test pins it); a step that cannot be decided denies; nothing leaves this
// package as a credential before the record of step 6 is on disk; a verified failure is on disk before the answer; and no
// client that goes away undoes a count. Every attempt comes with its trace, one result for each step.
//
// The steps keep their numbers everywhere. Step 2 is executed first although it is numbered second: a bcrypt comparison
// costs some 250 ms of processor time, so what can be refused cheaply is refused before it.
package auth

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"gatehouse/audit"
	"gatehouse/auth/lockout"
	"gatehouse/auth/password"
	"gatehouse/auth/totp"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/ratelimit"
	"gatehouse/session"
	"gatehouse/store"
)

// StoreTimeout bounds everything that one attempt asks of the store and the log, the wait for a worker and its comparison not
// counted. A store that is away or slow is so answered within 2 s (docs/design.md, "When something fails").
const StoreTimeout = 1500 * time.Millisecond

// lastShare is what a phase of an attempt has at least, however slow the phases before it were: enough for a store that works
// to settle what was reserved and to record what was decided.
const lastShare = 250 * time.Millisecond

// RateLimit is step 2, and what gives a token back when what was presented was right.
type RateLimit interface {
	// Take draws a token of the address; *ratelimit.LimitedError if it has none.
	Take(ctx context.Context, address netip.Addr) (ratelimit.Token, error)
	GiveBack(ctx context.Context, token ratelimit.Token) error
}

// Windows count verified failures of one subject and client class, reserved before they are verified.
type Windows interface {
	// Reserve takes a slot; *lockout.LockedError, or lockout.ErrBusy if only other reservations stand in the way.
	Reserve(ctx context.Context, subject, class string) (lockout.Reservation, error)
	Settle(ctx context.Context, r lockout.Reservation, how lockout.Outcome) (lockout.Settled, error)
	// EndRun ends the run of consecutive failures of a class, after a complete login of that class.
	EndRun(ctx context.Context, subject, class string) error
}

// Sessions is step 5: a session is prepared, which is nothing yet, and marked live after the record is on disk; one that lives is
// made fresher after it.
type Sessions interface {
	Prepare(ctx context.Context, grant session.Grant) (*session.Prepared, error)
	Activate(ctx context.Context, prepared *session.Prepared) (session.Credentials, error)
	StepUp(ctx context.Context, s session.StepUp) (session.Principal, []*http.Cookie, error)
}

// Recorder is step 6.
type Recorder interface {
	// Append returns when the record is on disk.
	Append(ctx context.Context, event audit.Event) (audit.Record, error)
	// Count adds to an aggregated record of refusals that cost nothing.
	Count(event audit.Event)
}

// Options is what a Flow is made of. All fields but Observe are required.
type Options struct {
	RateLimit RateLimit
	Pool      *password.Pool
	Hasher    *password.Hasher
	Users     *user.Store
	Passwords Windows // subject: the HMAC of the canonical name
	Codes     Windows // subject: the user id
	TOTP      *totp.Service
	Devices   Devices
	Sessions  Sessions
	Audit     Recorder
	Pending   store.Records
	Upgrades  *Upgrades
	// FactorRequired asks every account for a second factor. Without it an enrolled account is asked only when step 4 sees
	// something new.
	FactorRequired bool
	Now            func() time.Time
	Logger         *slog.Logger
	// Observe gets every finished attempt, for metrics; it must not block.
	Observe func(Outcome)
}

// Flow runs logins. Safe for concurrent use.
type Flow struct {
	Options
}

// Upgrades are the replacements of old password hashes, which go on after the answers. The flows of a process share one. The zero value is
// ready, and safe for concurrent use.
type Upgrades struct {
	all     sync.WaitGroup
	running sync.Mutex // held by the one that runs
}

// Wait returns when none is left. No login may begin meanwhile.
func (u *Upgrades) Wait() { u.all.Wait() }

// New makes a Flow.
func New(o Options) *Flow {
	if o.Observe == nil {
		o.Observe = func(Outcome) {}
	}
	return &Flow{Options: o}
}

// Client is who asks, as far as the connection shows it.
type Client struct {
	Address   netip.Addr
	Network   netip.Prefix // the /24 or /64 of Address
	Claimed   string       // what an unlisted peer's forwarding headers said
	UserAgent string
	RequestID string
	// Origin is the host that gets the session, as scheme://host[:port].
	Origin string
	// Browser is the hash of the browser's login nonce; empty for the JSON login, whose challenge alone binds.
	Browser string
	// DeviceCookie is the raw value of the device cookie, if there is one.
	DeviceCookie string
	// Handle is the session handle the browser already has; that session ends when a new one begins.
	Handle string
}

// Presented is what the client shows: a name and a password and perhaps a code, or a challenge and a code.
type Presented struct {
	Username, Password string
	Challenge          string
	Code               string
}

// Outcome is how an attempt ended.
type Outcome struct {
	Trace audit.Trace
	// Code is what the client is told; empty when it is signed in.
	Code       problem.Code
	RetryAfter time.Duration
	// Challenge continues the login, with Code problem.CodeRequired, and problem.EnrolmentRequired where the browser may enrol now.
	Challenge string
	// Enrolment is what a wrong code was for, where one is being confirmed: the page can be drawn again with it.
	Enrolment *Enrolment
	// Username is the canonical name, once a password was right.
	Username string
	// Credentials and DeviceCookie are what leaves the process when the client is signed in.
	Credentials  session.Credentials
	DeviceCookie string
}

// Login runs one attempt. present is called once, after the address had a token, or before one is drawn where the pool's line is full
// (admit says why), and reads and checks the body; its error makes the attempt a bad request (or what problem code a *BadRequest
// names).
//
// The six lines below are the whole order. A step that finds the attempt decided does nothing, except step 6, which always
// runs.
func (f *Flow) Login(ctx context.Context, client Client, present func() (Presented, error)) Outcome {
	a := f.attempt(client)
	a.step(audit.StepRateLimit, func() { f.admit(ctx, a, present) })
	a.step(audit.StepPassword, func() { f.password(ctx, a) })
	a.step(audit.StepSecondFactor, func() { f.secondFactor(ctx, a) })
	a.step(audit.StepContext, func() { f.context(ctx, a) })
	a.step(audit.StepSession, func() { f.session(ctx, a) })
	a.always(audit.StepAudit, func() { f.record(ctx, a) })
	f.Observe(a.out)
	return a.out
}

// attempt is one request of a login on its way through the steps. It belongs to one goroutine.
type attempt struct {
	Client
	Presented
	now     func() time.Time
	out     Outcome
	decided bool
	// cheap: refused before any verification, so it is counted, not recorded one by one.
	cheap bool
	spent time.Duration // of StoreTimeout
	// ran: a password or code was verified.
	ran bool
	// right: the password was verified in this request, and is at hand.
	right bool

	token       ratelimit.Token
	nameTag     string
	account     user.User // zero for a name that does not exist
	class       string    // lockout.Stranger or a device id
	history     History
	signals     []audit.Signal
	pending     *pending // of a resumed login
	verified    bool     // a second factor was right in this login
	codesFailed bool     // a run of wrong codes stands before the right one, for EndRun to end
	methods     []string // RFC 8176 names of what was right
	prepared    *session.Prepared
	deviceID    string
	factor      totp.Enrolment // whose code step 3 checks; zero where none is enrolled or being enrolled
	// completes is what this login makes besides a session: an account, or its second factor. nil of most logins.
	completes *completion
	// held is the session that is stepped up; nil of a login.
	held *session.Principal
}

func (f *Flow) attempt(client Client) *attempt {
	a := &attempt{Client: client, now: f.Now, class: lockout.Stranger}
	a.out.Trace = audit.NewTrace()
	return a
}

// bounded gives a phase of the attempt what is left of its StoreTimeout. done must be called when the phase ends.
func (a *attempt) bounded(ctx context.Context) (bounded context.Context, done func()) {
	began := a.now()
	bounded, cancel := context.WithTimeout(ctx, max(StoreTimeout-a.spent, lastShare))
	return bounded, func() {
		a.spent += a.now().Sub(began)
		cancel()
	}
}

// step runs one step unless an earlier one decided, and measures it.
func (a *attempt) step(s audit.Step, run func()) {
	if a.decided {
		return
	}
	a.always(s, run)
}

func (a *attempt) always(s audit.Step, run func()) {
	began := a.now()
	run()
	a.out.Trace.Of(s).Micros += a.now().Sub(began).Microseconds()
}

// pass notes that a step let the attempt through.
func (a *attempt) pass(s audit.Step, verdict audit.Verdict, reason audit.Reason) {
	r := a.out.Trace.Of(s)
	r.Verdict, r.Reason = verdict, reason
}

// stop notes that a step decided the attempt, and what the client is told.
func (a *attempt) stop(s audit.Step, verdict audit.Verdict, reason audit.Reason, code problem.Code) {
	a.pass(s, verdict, reason)
	a.decided, a.out.Code = true, code
}

// detail adds one detail to a step's result.
func (a *attempt) detail(s audit.Step, name, value string) {
	r := a.out.Trace.Of(s)
	if r.Details == nil {
		r.Details = map[string]string{}
	}
	r.Details[name] = value
}

// newChallenge is 256 random bits in base32 text.
func newChallenge() string { return rand.Text() + rand.Text() }
