// Package totp implements time-based one-time passwords (RFC 6238) with a time step of 30 s, HMAC-SHA-1 and six digits, as
// authenticator apps expect.
//
// It promises that a time step is accepted at most once per enrolment, over all gateways of a store (RFC 6238, section
// 5.2), and that steps are only ever used in rising order. A code is exactly six ASCII digits. The step before and the
// step after the current one are accepted too, for clocks that differ and people who type slowly; so one guess is right in
// 3 of 1,000,000 cases. How many guesses there are is for the caller to bound.
//
// A clock that was ahead when a code was used and is set back makes codes count as used until it gets there again; a new
// enrolment ends that.
package totp

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"gatehouse/store"
)

const (
	digits = 6
	period = 30 // seconds
	skew   = 1  // steps, either way
	// secretBytes is what new secrets have, and RFC 4226, section 4 (R6), recommends; minSecretBytes what it requires.
	secretBytes    = 20
	minSecretBytes = 16
)

var (
	// ErrWrong: the text is not the code of any step that is accepted now.
	ErrWrong = errors.New("code is wrong")
	// ErrUsed: the code's step, or a later one, was used before.
	ErrUsed = errors.New("code was used")
)

// Options of a Service, all required.
type Options struct {
	Counters store.Counters
	Now      func() time.Time
	Issuer   string // what the app shows above the account; a colon in it (of a port) is shown as a blank
}

// Service makes enrolments and checks codes. Safe for concurrent use.
type Service struct {
	options Options
}

// New makes a Service.
func New(o Options) *Service { return &Service{options: o} }

// Enrolment is one shared secret. ID names it: a new enrolment of the same account has used no step yet.
type Enrolment struct {
	ID     string
	Secret string // base32 without padding
	URL    string // otpauth, holds the secret; for a QR code
}

// Generate makes a new random enrolment for the account that the app shows. Nothing is stored.
func (s *Service) Generate(account string) (Enrolment, error) {
	// In the label of the URL a colon ends the issuer.
	if strings.Contains(account, ":") {
		return Enrolment{}, errors.New("generate enrolment: account must not hold a colon")
	}
	issuer := strings.ReplaceAll(s.options.Issuer, ":", " ")
	key, err := totp.Generate(totp.GenerateOpts{
		Issuer: issuer, AccountName: account, Period: period, SecretSize: secretBytes,
		Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1, Rand: rand.Reader,
	})
	if err != nil {
		return Enrolment{}, fmt.Errorf("generate enrolment: %w", err)
	}
	return Enrolment{ID: rand.Text(), Secret: key.Secret(), URL: key.URL()}, nil
}

// Check uses the code up and returns nil if it is the one of the last, the current or the next time step and neither this
// step nor a later one was used. ErrWrong, ErrUsed, or an error of the store, after which it is unknown whether the code
// was used up: the caller denies.
func (s *Service) Check(ctx context.Context, enrolmentID, secret, code string) error {
	if enrolmentID == "" {
		return errors.New("check code: no enrolment")
	}
	step, found, err := match(secret, code, s.options.Now().Unix()/period)
	if err != nil {
		return fmt.Errorf("check code: %w", err)
	}
	if !found {
		return ErrWrong
	}
	// One atomic step of the counter is both the question and the answer: of many who show one code at once, one gets
	// true (TestService_acceptsACodeOnce).
	_, first, err := s.options.Counters.Advance(ctx, store.TOTPKey(enrolmentID), step-1, 1, step, store.Forever)
	if err != nil {
		return fmt.Errorf("use up code: %w", err)
	}
	if !first {
		return ErrUsed
	}
	return nil
}

// Forget removes what is stored of an enrolment. Only one that can never be checked again may be forgotten.
func (s *Service) Forget(ctx context.Context, enrolmentID string) error {
	if err := s.options.Counters.Reset(ctx, store.TOTPKey(enrolmentID)); err != nil {
		return fmt.Errorf("forget enrolment: %w", err)
	}
	return nil
}

// match finds the step around now that has the code, comparing with all of them in constant time. Should two steps have
// the same code, it is the later one: the code is then not good a second time.
func match(secret, code string, now int64) (step int64, found bool, err error) {
	if err := checkSecret(secret); err != nil {
		return 0, false, err
	}
	if !wellFormed(code) {
		return 0, false, nil
	}
	for candidate := max(0, now-skew); candidate <= now+skew; candidate++ {
		want, err := hotp.GenerateCodeCustom(secret, uint64(candidate), hotp.ValidateOpts{Digits: digits, Algorithm: otp.AlgorithmSHA1})
		if err != nil {
			return 0, false, err
		}
		equal := subtle.ConstantTimeCompare([]byte(want), []byte(code))
		step = int64(subtle.ConstantTimeSelect(equal, int(candidate), int(step)))
		found = found || equal == 1
	}
	return step, found, nil
}

// checkSecret refuses what no enrolment of ours can hold, above all the empty secret, for which anybody can make codes.
func checkSecret(secret string) error {
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		return errors.New("secret is not base32")
	}
	if len(raw) < minSecretBytes {
		return fmt.Errorf("secret of %d bytes is shorter than %d", len(raw), minSecretBytes)
	}
	return nil
}

func wellFormed(code string) bool {
	if len(code) != digits {
		return false
	}
	for _, c := range []byte(code) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// CleanForm takes the ASCII blanks out of what a person typed into a form; apps show codes in two groups. Nothing else
// is forgiven, and what a program sends is not cleaned at all.
func CleanForm(text string) string { return strings.ReplaceAll(text, " ", "") }
