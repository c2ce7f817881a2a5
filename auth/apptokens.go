package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"time"

	"gatehouse/audit"
	"gatehouse/auth/apptoken"
	"gatehouse/auth/lockout"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/ratelimit"
	"gatehouse/session"
)

// AppTokenMethod is what a principal's methods, and the amr of its assertion, say of an app token. RFC 8176 has no name for it.
const AppTokenMethod = "apptoken"

// The reasons for which an app token is refused, as records have them. The client never sees one.
const (
	tokenMalformed = "malformed"
	tokenUnknown   = "unknown" // or ended: there is no record of either
	tokenElsewhere = "other-route"
	tokenOtherName = "other-name"
	tokenDisabled  = "account-disabled"
)

const (
	// maxAcquainted bounds the tokens that stay acquainted; beyond it one is forgotten, and is counted at its next use as a new one is.
	maxAcquainted = 10_000
	// newTokensEvery and newTokensBurst bound how many tokens that are not acquainted are verified: as many as a bcrypt would allow passwords, so
	// that the windows of names that do not exist fill the store no faster than logins can. One that is right gives its place back.
	newTokensEvery = 50 * time.Millisecond
	newTokensBurst = 100
	// turnsOfTokens is over how many lines the attempts of different names spread.
	turnsOfTokens = 64
	// pauseForSlot is between two looks whether other attempts have left a slot of the window.
	pauseForSlot = 50 * time.Millisecond
)

// Outside remembers what was verified, until a revocation reaches it. *session.Manager does.
type Outside interface {
	// Recall returns whose a credential is if it was admitted for the audience and nothing happened since. It costs no look at the store.
	Recall(secret, audience string) (session.Principal, bool)
	// Admit remembers what read verified.
	Admit(ctx context.Context, secret, audience string, read func(context.Context) (session.Principal, error)) (session.Principal, error)
}

// AppTokenOptions is what AppTokens is made of. All fields are required.
type AppTokenOptions struct {
	RateLimit RateLimit
	Users     *user.Store
	Passwords Windows // subject: the HMAC of the canonical name; those of the login
	Tokens    *apptoken.Store
	Outside   Outside
	Audit     Recorder
	Now       func() time.Time
	Logger    *slog.Logger
}

// AppTokens lets programs in that present an app token, each on the one route that it is for.
//
// It promises what the login does: a token is counted before it is checked, in the buckets and windows of passwords, and a failure is on
// disk before the answer; names that do not exist count and answer like those that do; a token that is right gives back what it drew; and what
// cannot be counted or recorded is refused. It runs no bcrypt, for nobody can guess 256 bits, and it starts no session.
//
// A token that was right once on this gateway is acquainted: it is verified again without being counted, as a session is renewed, so
// that strangers who lock an account do not stop the owner's programs. What is remembered of it beside that is the Outside's, and costs a request
// neither a look at the store nor a record. Safe for concurrent use.
type AppTokens struct {
	AppTokenOptions
	turns [turnsOfTokens]chan struct{} // of one name one attempt is verified at a time, as the pool's line sees to for passwords

	mu         sync.Mutex
	acquainted map[[sha256.Size]byte]struct{} // guarded by mu
	paced      time.Time                      // guarded by mu; when all that was verified is paid for (GCRA)
}

// NewAppTokens makes an AppTokens.
func NewAppTokens(o AppTokenOptions) *AppTokens {
	t := &AppTokens{AppTokenOptions: o, acquainted: map[[sha256.Size]byte]struct{}{}}
	for i := range t.turns {
		t.turns[i] = make(chan struct{}, 1)
	}
	return t
}

// Claimed reports whether a value of Authorization claims to be an app token. Such a value never reaches an app, also where nobody has
// to be signed in.
func (t *AppTokens) Claimed(authorization string) bool {
	_, claimed := apptoken.Read(authorization)
	return claimed
}

// Authenticate returns who presents an app token for a route, and false if the value of Authorization does not claim to be one; then
// somebody else decides, and if it does, this alone does. The error is a *Refused with problem.InvalidCredentials, RateLimited, Locked or
// Unavailable. client is called where the request costs something.
func (t *AppTokens) Authenticate(ctx context.Context, authorization, route string, client func() Client) (session.Principal, bool, error) {
	shown, claimed := apptoken.Read(authorization)
	if !claimed {
		return session.Principal{}, false, nil
	}
	if p, ok := t.recall(shown, route); ok {
		return p, true, nil
	}
	p, err := t.verify(ctx, &tokenAttempt{Client: client(), Presented: shown, route: route})
	return p, true, err
}

// recall finds a token that was verified before, with the same name beside it.
func (t *AppTokens) recall(shown apptoken.Presented, route string) (session.Principal, bool) {
	if shown.Text == "" {
		return session.Principal{}, false
	}
	p, ok := t.Outside.Recall(shown.Text, route)
	return p, ok && (!shown.Basic || names(shown.Name, p.Name))
}

// names reports whether a name, as it was presented, is the account's.
func names(presented, canonical string) bool {
	if presented == canonical {
		return true
	}
	read, err := user.Canonical(presented)
	return err == nil && read == canonical
}

// tokenAttempt is one token on its way. It belongs to one goroutine.
type tokenAttempt struct {
	Client
	apptoken.Presented
	route string

	token     ratelimit.Token
	drew      bool // token is to be given back if what was presented is right, as
	paced     bool // the place among new tokens is
	counted   bool // reserved is to be settled
	reserved  lockout.Reservation
	nameTag   string
	found     apptoken.Token
	account   user.User
	knownHere bool // acquainted: nothing is counted
}

// verify decides about a token that is not remembered. Once it was counted it is decided, whether the client stays or not.
func (t *AppTokens) verify(ctx context.Context, a *tokenAttempt) (session.Principal, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), StoreTimeout)
	defer cancel()
	if err := t.count(ctx, a); err != nil {
		return session.Principal{}, err
	}
	leave, err := t.takeTurn(ctx, a)
	if err != nil {
		return session.Principal{}, err
	}
	defer leave()
	if p, ok := t.recall(a.Presented, a.route); ok { // whoever had the turn before presented the same
		t.giveBack(ctx, a)
		return p, nil
	}
	return t.Outside.Admit(ctx, a.Text, a.route, func(ctx context.Context) (session.Principal, error) { return t.read(ctx, a) })
}

// count draws what a token costs before anything is looked up. One that is acquainted costs nothing.
func (t *AppTokens) count(ctx context.Context, a *tokenAttempt) error {
	if a.knownHere = t.isAcquainted(a.Text); a.knownHere {
		return nil
	}
	if err := t.draw(ctx, a); err != nil {
		return err
	}
	if a.Text == "" {
		return t.refuse(a, tokenMalformed, problem.InvalidCredentials, 0)
	}
	if a.paced = t.pace(); !a.paced {
		t.giveBack(ctx, a)
		return t.refuse(a, string(audit.ReasonPoolFull), problem.Unavailable, time.Second)
	}
	return nil
}

// takeTurn waits until no other attempt of the same name, or the same token without one, is verified.
func (t *AppTokens) takeTurn(ctx context.Context, a *tokenAttempt) (leave func(), err error) {
	subject := a.Text
	if a.Basic {
		a.nameTag = t.tagOf(a.Name)
		subject = a.nameTag
	}
	turn := t.turns[turnOf(subject)]
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, t.undecided(a, "wait for a turn", ctx.Err())
	}
}

// tagOf is the window of a name, also of one that no account can have.
func (t *AppTokens) tagOf(name string) string {
	canonical, err := user.Canonical(name)
	if err != nil {
		return t.Users.NameTag("\x00" + name)
	}
	return t.Users.NameTag(canonical)
}

func turnOf(text string) int {
	sum := sha256.Sum256([]byte(text))
	return int(sum[0]) % turnsOfTokens
}

// read counts the attempt, looks the token and its account up, and decides.
func (t *AppTokens) read(ctx context.Context, a *tokenAttempt) (session.Principal, error) {
	if a.Basic {
		if err := t.reserve(ctx, a); err != nil {
			return session.Principal{}, err
		}
	}
	if err := t.find(ctx, a); err != nil {
		_ = t.settle(ctx, a, lockout.NotVerified) // else it counts as a failure, when it is lost
		return session.Principal{}, t.undecided(a, "read an app token", err)
	}
	if !a.Basic && a.account.ID != "" { // only now is it known whose window it is
		a.nameTag = t.Users.NameTag(a.account.Name)
		if err := t.reserve(ctx, a); err != nil {
			return session.Principal{}, err
		}
	}
	if why := a.wrong(); why != "" {
		return session.Principal{}, t.fail(ctx, a, why)
	}
	return t.accept(ctx, a)
}

// find looks up token and account; neither is an error if it is not there.
func (t *AppTokens) find(ctx context.Context, a *tokenAttempt) error {
	found, err := t.Tokens.Find(ctx, a.Text)
	if err != nil {
		return ignore(err, apptoken.ErrNotFound)
	}
	a.found = found
	a.account, err = t.Users.ByID(ctx, found.UserID)
	return ignore(err, user.ErrNotFound)
}

func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}

// wrong says what is wrong with a token; empty if nothing is.
func (a *tokenAttempt) wrong() string {
	switch {
	case a.found.ID == "", a.account.ID == "":
		return tokenUnknown
	case a.Basic && !names(a.Name, a.account.Name):
		return tokenOtherName
	case a.found.Route != a.route:
		return tokenElsewhere
	case a.account.Disabled:
		return tokenDisabled
	}
	return ""
}

// accept lets a token in: settled, and on record where it was not acquainted.
func (t *AppTokens) accept(ctx context.Context, a *tokenAttempt) (session.Principal, error) {
	if err := t.settle(ctx, a, lockout.Right); err != nil {
		return session.Principal{}, t.undecided(a, "settle a slot", err)
	}
	if !a.knownHere {
		if _, err := t.Audit.Append(ctx, a.event(audit.Success, "")); err != nil {
			return session.Principal{}, t.undecided(a, "record an app token", err)
		}
		t.acquaint(a.Text)
	}
	t.giveBack(ctx, a)
	if err := t.Tokens.NoteUse(ctx, a.found); err != nil {
		t.Logger.WarnContext(ctx, "note the use of an app token", "error", err, "token", a.found.ID)
	}
	return session.Principal{
		Identity: Identity(a.account), SessionID: a.found.Mark(), PublicID: a.found.ID, Methods: []string{AppTokenMethod},
		AuthTime: a.found.Created, ExpiresAt: a.found.Expires, Bearer: true, AppToken: true,
	}, nil
}

// fail counts and records a token that is wrong, by the account that was named where one was. One that was acquainted is so no longer: what
// it was not charged before, it is now.
func (t *AppTokens) fail(ctx context.Context, a *tokenAttempt, why string) error {
	if a.knownHere {
		t.estrange(a.Text)
		a.knownHere = false
		if err := t.draw(ctx, a); err != nil {
			return err
		}
		if err := t.reserve(ctx, a); err != nil {
			return err
		}
	}
	how := lockout.Wrong
	if why == tokenElsewhere { // a program that asks the wrong app knows the secret; it is no guess, and must not lock its owner out
		how = lockout.NotVerified
	}
	if err := t.settle(ctx, a, how); err != nil {
		return t.undecided(a, "settle a slot", err)
	}
	if a.Basic {
		var err error
		if a.account, err = t.Users.ByTag(ctx, a.nameTag); ignore(err, user.ErrNotFound) != nil {
			return t.undecided(a, "read the account", err)
		}
	}
	if _, err := t.Audit.Append(ctx, a.event(audit.Failure, why)); err != nil {
		return t.undecided(a, "record an app token", err)
	}
	return &Refused{Code: problem.InvalidCredentials}
}
