// Package link keeps one-time links: 256 random bits that stand for the right to make or complete one account.
//
// It promises: the store holds a link under the SHA-256 of its token only, in a sealed record; a link that is unknown, used or
// expired is one error, so that none can be told from another; of any number of claims at once, on any number of gateways,
// those of one choice win, and from then on nobody can choose again; a link ends at its time, whatever the store says, and
// after [MaxTries] codes. Reading changes nothing: mail scanners open links.
//
// The set-up link is one for all gateways of a store. Its record holds the token too, so that each of them can print it, and
// stays for ever once there is an administrator, so that it never opens again.
package link

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"gatehouse/store"
)

// Kind says what a link is for. It is also the last part of the path that the link opens.
type Kind string

// The kinds.
const (
	Setup  Kind = "setup"  // makes the first administrator
	Invite Kind = "invite" // completes an account that never completed a login
)

// How long links live. An invitation has to outlast a weekend in somebody's mailbox; the set-up link is used by whoever has
// just started the gateway.
const (
	SetupLifetime  = 30 * time.Minute
	InviteLifetime = 72 * time.Hour
)

// MaxTries is how many codes may be tried on one link before it is dead.
const MaxTries = 5

// leeway is how far the clocks of gateways may differ.
const leeway = 30 * time.Second

// Parameter is the name of the query parameter that holds the token.
const Parameter = "token"

// ErrExpired: the link is unknown, used, dead or expired. There is no error that says which.
var ErrExpired = errors.New("link was used or has expired")

// Lifetime is how long a link of the kind lives.
func (k Kind) Lifetime() time.Duration {
	if k == Setup {
		return SetupLifetime
	}
	return InviteLifetime
}

// URL is what a person opens. external is the login host: scheme and host.
func URL(external *url.URL, kind Kind, token string) string {
	return (&url.URL{
		Scheme: external.Scheme, Host: external.Host, Path: "/.gatehouse/" + string(kind),
		RawQuery: url.Values{Parameter: {token}}.Encode(),
	}).String()
}

// Hash is how a token is kept: its SHA-256 in hexadecimal digits. 256 random bits need no slow hash.
func Hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Link is the state of a link. It never holds a token that somebody has not just shown, but that of the set-up link.
type Link struct {
	Kind    Kind      `json:"kind"`
	UserID  string    `json:"user_id,omitempty"` // the account that is completed, or is to be made
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Browser is the hash of the nonce of the browser that chose: what is started in one cannot be finished in another.
	Browser string `json:"browser,omitempty"`
	// Name, DisplayName and PasswordHash are what was chosen. Without a hash nothing was.
	Name         string `json:"name,omitempty"`
	DisplayName  string `json:"display_name,omitempty"`
	PasswordHash string `json:"password_hash,omitempty"`
	// FactorID and FactorSecret are the second factor that is not enrolled yet: only the one drawn last is there.
	FactorID     string `json:"factor_id,omitempty"`
	FactorSecret string `json:"factor_secret,omitempty"`
	FactorURL    string `json:"factor_url,omitempty"`
	// Tries counts codes, before they are verified.
	Tries int `json:"tries,omitempty"`
	// Claimed: a code was right. What was chosen is final, and only the same browser can finish it.
	Claimed bool `json:"claimed,omitempty"`

	// Token and Done are of the set-up link only.
	Token string `json:"token,omitempty"`
	Done  bool   `json:"done,omitempty"`
}

// dead reports whether all tries were used up.
func (l Link) dead() bool { return l.Tries >= MaxTries }

// Chosen reports whether this browser has chosen name and password.
func (l Link) Chosen(browser string) bool {
	return browser != "" && l.PasswordHash != "" && subtle.ConstantTimeCompare([]byte(l.Browser), []byte(browser)) == 1
}

// good reports whether the link can still be used. An end that lies beyond its full length was written by a clock that was wrong.
func (l Link) good(now time.Time) bool {
	left := l.Expires.Sub(now)
	return !l.Done && left > 0 && left <= l.Kind.Lifetime()+leeway
}

// Options say where links are kept. All fields are required.
type Options struct {
	Records store.Records // sealed: a link holds a password hash and a seed
	Now     func() time.Time
}

// Service makes and changes links. Any number of Services, in any number of processes, may share one store. Safe for
// concurrent use.
type Service struct{ options Options }

// New makes a Service.
func New(o Options) *Service { return &Service{options: o} }

// Create makes an invitation to complete an account, and returns its token, which is kept nowhere.
func (s *Service) Create(ctx context.Context, userID string) (token string, l Link, err error) {
	token = newToken()
	l = s.fresh(Invite)
	l.UserID = userID
	value, err := json.Marshal(l)
	if err != nil {
		return "", Link{}, err
	}
	if _, err := s.options.Records.Put(ctx, store.LinkKey(Hash(token)), value, 0, l.Expires); err != nil {
		return "", Link{}, fmt.Errorf("create link: %w", err)
	}
	return token, l, nil
}

// Read returns the link behind a token, or ErrExpired. It changes nothing.
func (s *Service) Read(ctx context.Context, kind Kind, token string) (Link, error) {
	record, err := s.options.Records.Get(ctx, keyOf(kind, token))
	if errors.Is(err, store.ErrNotFound) {
		return Link{}, ErrExpired
	}
	if err != nil {
		return Link{}, fmt.Errorf("read link: %w", err)
	}
	l, err := s.open(record, kind, token)
	if err == nil && l.dead() {
		err = ErrExpired
	}
	return l, err
}

// Choose keeps what a browser chose, in place of what was chosen before, in whichever browser. choose sets the Link's fields
// from Browser to FactorURL, and the UserID of a set-up link. ErrExpired, also if a code was right already: then what was
// chosen is final.
func (s *Service) Choose(ctx context.Context, kind Kind, token string, choose func(*Link)) error {
	_, err := s.change(ctx, kind, token, func(l *Link) error {
		if l.Claimed || l.dead() {
			return ErrExpired
		}
		choose(l)
		return nil
	})
	return err
}

// Redraw replaces the factor that this browser is to confirm. ErrExpired, also if a code of the present one was right already.
func (s *Service) Redraw(ctx context.Context, kind Kind, token, browser string, draw func(*Link)) error {
	_, err := s.change(ctx, kind, token, func(l *Link) error {
		if !l.Chosen(browser) || l.Claimed || l.dead() {
			return ErrExpired
		}
		draw(l)
		return nil
	})
	return err
}

// Try counts a code that this browser is about to have verified, and returns the link as it was chosen. ErrExpired.
func (s *Service) Try(ctx context.Context, kind Kind, token, browser string) (Link, error) {
	return s.change(ctx, kind, token, func(l *Link) error {
		if !l.Chosen(browser) || l.dead() {
			return ErrExpired
		}
		l.Tries++
		return nil
	})
}

// Claim makes final what was chosen with this factor, because a code of it was right. It can be repeated, so that after an
// outage the same browser can finish what it began. ErrExpired if something else was chosen or claimed meanwhile: of two
// browsers that come this far at once, one gets on (TestService_Claim_isOfOneChoice).
func (s *Service) Claim(ctx context.Context, kind Kind, token, factorID string) error {
	_, err := s.change(ctx, kind, token, func(l *Link) error {
		if l.FactorID != factorID {
			return ErrExpired
		}
		l.Claimed, l.Tries = true, 0
		return nil
	})
	return err
}

// change edits a link atomically and returns it as it then is. edit may run several times; its error ends change with that error
// and nothing written.
func (s *Service) change(ctx context.Context, kind Kind, token string, edit func(*Link) error) (Link, error) {
	var changed Link
	err := store.Update(ctx, s.options.Records, keyOf(kind, token), func(old store.Record) ([]byte, time.Time, error) {
		if old.Version == 0 {
			return nil, time.Time{}, ErrExpired
		}
		l, err := s.open(old, kind, token)
		if err != nil {
			return nil, time.Time{}, err
		}
		if err := edit(&l); err != nil {
			return nil, time.Time{}, err
		}
		changed = l
		value, err := json.Marshal(l)
		return value, old.Expires, err
	})
	if err != nil {
		return Link{}, fmt.Errorf("change link: %w", err)
	}
	return changed, nil
}

// Finish ends a link whose account is complete. Of the set-up link nothing remains but that there was one.
func (s *Service) Finish(ctx context.Context, kind Kind, token string) error {
	if kind == Setup {
		return s.CloseSetup(ctx)
	}
	if err := s.options.Records.Delete(ctx, keyOf(kind, token), 0); err != nil {
		return fmt.Errorf("finish link: %w", err)
	}
	return nil
}

// OpenSetup returns the token of the set-up link and its end, making or renewing the link as needed; open is false once
// administrator has reported that there is one, now or ever before. Of several gateways that ask at once all get one token
// (TestService_OpenSetup_isOneForAllGateways).
func (s *Service) OpenSetup(ctx context.Context, administrator func(context.Context) (bool, error)) (token string, until time.Time, open bool, err error) {
	var l Link
	err = store.Update(ctx, s.options.Records, store.SetupKey(), func(old store.Record) ([]byte, time.Time, error) {
		l = Link{}
		if old.Version != 0 {
			if err := json.Unmarshal(old.Value, &l); err != nil {
				return nil, time.Time{}, fmt.Errorf("read %s: %w", old.Key, err)
			}
		}
		there, err := false, error(nil)
		if !l.Done {
			there, err = administrator(ctx)
		}
		switch {
		case err != nil:
			return nil, time.Time{}, err
		case l.Done, !there && l.good(s.options.Now()) && !l.dead():
			return nil, time.Time{}, errUnchanged
		case there:
			l = done()
		default:
			l = s.fresh(Setup)
			l.Token = newToken()
		}
		value, err := json.Marshal(l)
		return value, time.Time{}, err
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return "", time.Time{}, false, fmt.Errorf("open set-up link: %w", err)
	}
	return l.Token, l.Expires, !l.Done, nil
}

// CloseSetup ends the set-up link for ever: there is an administrator.
func (s *Service) CloseSetup(ctx context.Context) error {
	value, err := json.Marshal(done())
	if err != nil {
		return err
	}
	err = store.Update(ctx, s.options.Records, store.SetupKey(), func(store.Record) ([]byte, time.Time, error) {
		return value, time.Time{}, nil
	})
	if err != nil {
		return fmt.Errorf("close set-up link: %w", err)
	}
	return nil
}

// done is what remains of the set-up link.
func done() Link { return Link{Kind: Setup, Done: true} }

// fresh is a link that nobody has used.
func (s *Service) fresh(kind Kind) Link {
	now := s.options.Now().UTC()
	return Link{Kind: kind, Created: now, Expires: now.Add(kind.Lifetime())}
}

// open reads a record for somebody who shows a token.
func (s *Service) open(record store.Record, kind Kind, token string) (Link, error) {
	var l Link
	if err := json.Unmarshal(record.Value, &l); err != nil {
		return Link{}, fmt.Errorf("read link: %w", err)
	}
	// The set-up link's record is found without its token, so the token is compared.
	strange := kind == Setup && subtle.ConstantTimeCompare([]byte(Hash(l.Token)), []byte(Hash(token))) != 1
	if strange || l.Kind != kind || !l.good(s.options.Now()) {
		return Link{}, ErrExpired
	}
	return l, nil
}

// keyOf is where the link of a token is kept.
func keyOf(kind Kind, token string) store.Key {
	if kind == Setup {
		return store.SetupKey()
	}
	return store.LinkKey(Hash(token))
}

// errUnchanged ends an Update that has nothing to write.
var errUnchanged = errors.New("nothing to write")

// newToken is 256 random bits in base32 text.
func newToken() string { return rand.Text() + rand.Text() }
