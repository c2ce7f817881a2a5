package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatehouse/audit"
	"gatehouse/auth/totp"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/store"
)

// PendingLifetime is how long a login may wait for its code.
const PendingLifetime = 5 * time.Minute

// ErrNotWaiting is returned by Waiting if no login of this browser waits behind the challenge.
var ErrNotWaiting = errors.New("no login is waiting for a code")

// pending is a login between its first and its last step. It is bound to the account as it was, to the step it waits in, and
// to the browser (for JSON to the challenge alone); it is consumed when the flow ends, not by a wrong code.
type pending struct {
	UserID     string         `json:"user_id"`
	EnrolledID string         `json:"enrolled_id"` // the enrolment whose code is waited for
	PasswordAt time.Time      `json:"password_at"` // when the verified password had been set
	Browser    string         `json:"browser,omitempty"`
	Class      string         `json:"class"`
	DeviceID   string         `json:"device_id,omitempty"`
	Signals    []audit.Signal `json:"signals,omitempty"`
	NameTag    string         `json:"name_tag"`
	Trace      audit.Trace    `json:"trace"`
	// Enrols: what is waited for is the first code of Factor, which the account is to get.
	Enrols bool           `json:"enrols,omitempty"`
	Factor totp.Enrolment `json:"factor,omitzero"` // zero until a page was drawn

	key     store.Key
	version uint64
	expires time.Time
}

// suspend keeps the attempt until the code comes, and returns the challenge: 256 random bits, kept only as their hash.
func (f *Flow) suspend(ctx context.Context, a *attempt) (string, error) {
	challenge := newChallenge()
	p := pending{
		UserID: a.account.ID, PasswordAt: a.account.PasswordChangedAt, Browser: a.Browser, Class: a.class, DeviceID: a.deviceID,
		Signals: a.signals, NameTag: a.nameTag, Trace: a.out.Trace, Enrols: a.account.TOTP == nil,
	}
	if !p.Enrols {
		p.EnrolledID = a.account.TOTP.ID
	}
	value, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encode a pending login: %w", err)
	}
	_, err = f.Pending.Put(ctx, challengeKey(challenge), value, 0, f.Now().Add(PendingLifetime))
	return challenge, err
}

// resume takes a pending login up again: steps that passed are not run again, except step 2.
func (f *Flow) resume(ctx context.Context, a *attempt) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	p, err := f.load(ctx, a)
	switch {
	case errors.Is(err, ErrNotWaiting):
		a.refusePending()
		return
	case err != nil:
		f.undecided(a, audit.StepPassword, "read the pending login", err)
		return
	}
	a.pending, a.nameTag, a.class, a.deviceID, a.signals = p, p.NameTag, p.Class, p.DeviceID, p.Signals
	a.out.Username = a.account.Name
	a.methods = []string{"pwd"}
	if p.Enrols {
		f.completeFactor(a, p.Factor)
	}
	*a.out.Trace.Of(audit.StepPassword) = *p.Trace.Of(audit.StepPassword)
	*a.out.Trace.Of(audit.StepContext) = *p.Trace.Of(audit.StepContext)
}

// load reads the pending login behind the attempt's challenge, and its account; ErrNotWaiting if there is none that fits.
func (f *Flow) load(ctx context.Context, a *attempt) (*pending, error) {
	record, err := f.Pending.Get(ctx, challengeKey(a.Challenge))
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrNotWaiting
	}
	if err != nil {
		return nil, err
	}
	p := &pending{key: record.Key, version: record.Version, expires: record.Expires}
	if err := json.Unmarshal(record.Value, p); err != nil {
		return nil, fmt.Errorf("decode a pending login: %w", err)
	}
	a.account, err = f.Users.ByID(ctx, p.UserID)
	switch {
	case errors.Is(err, user.ErrNotFound):
		return nil, ErrNotWaiting
	case err != nil:
		return nil, err
	case !p.fits(a, f.Now()):
		return nil, ErrNotWaiting
	}
	return p, nil
}

// fits reports whether the pending login is this browser's and the account is as it was when the password was right.
func (p *pending) fits(a *attempt, now time.Time) bool {
	sameBrowser := subtle.ConstantTimeCompare([]byte(p.Browser), []byte(a.Browser)) == 1
	u := a.account
	sameFactor := u.TOTP != nil && u.TOTP.ID == p.EnrolledID
	if p.Enrols {
		sameFactor = u.TOTP == nil && now.Before(u.EnrolUntil)
	}
	return sameBrowser && sameFactor && !u.Disabled && u.PasswordChangedAt.Equal(p.PasswordAt)
}

// refusePending answers a challenge that is unknown, used, expired, another browser's, or overtaken by a change of the account.
func (a *attempt) refusePending() {
	a.account = user.User{}
	a.stop(audit.StepSecondFactor, audit.Fail, audit.ReasonPendingInvalid, problem.CodeInvalid)
}

// consume ends the pending login; of two that finish it at once, one wins.
func (f *Flow) consume(ctx context.Context, a *attempt) error {
	if a.completes != nil && a.completes.claim != nil {
		return a.completes.claim(ctx)
	}
	if a.pending == nil {
		return nil
	}
	return f.Pending.Delete(ctx, a.pending.key, a.pending.version)
}

func challengeKey(challenge string) store.Key {
	sum := sha256.Sum256([]byte(challenge))
	return store.PendingKey(hex.EncodeToString(sum[:]))
}

// Waiting returns the name of the account whose login waits for a code behind the challenge, in this browser, so that the
// page can say for whom the code is. ErrNotWaiting, or an error of the store.
func (f *Flow) Waiting(ctx context.Context, challenge, browser string) (string, error) {
	a := &attempt{Client: Client{Browser: browser}, Presented: Presented{Challenge: challenge}}
	p, err := f.load(ctx, a)
	if err == nil && p.Enrols {
		return "", ErrNotWaiting // EnrolView draws its page
	}
	return a.account.Name, err
}
