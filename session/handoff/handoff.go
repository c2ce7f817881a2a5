// Package handoff keeps the codes with which the login host hands a session over to another host.
//
// It promises: a code is 256 random bits and stored by its SHA-256 only, so that a copy of the store redeems nothing; it is good for 60
// seconds, once, for one host, in the browser that holds the nonce whose hash it was made for. Of any number of requests that redeem
// it at once one gets it, on whatever gateway. In another browser, or at another host, it does nothing, and stays as good where it
// belongs: so a code that somebody plants changes nothing, and one that somebody saw ends nothing. Where to go afterwards is kept
// with the code and is not read from the request that redeems it.
//
// The pattern is that of authorization codes with proof of possession (RFC 6749, section 4.1.2; RFC 7636).
package handoff

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatehouse/store"
)

const (
	// Lifetime is how long a code is good.
	Lifetime = time.Minute
	// leeway is how far the clocks of gateways may differ.
	leeway   = 30 * time.Second
	codeSize = 32 // bytes
)

// ErrNotGood: there is no such code, it was used, its time is over, or it is another browser's or host's. One answer for all.
var ErrNotGood = errors.New("hand-off code is not good")

// HandOff is what a code stands for. All fields are required.
type HandOff struct {
	UserID    string `json:"user"`
	SessionID string `json:"session"`
	Origin    string `json:"origin"`  // of the host that may redeem it
	Browser   string `json:"browser"` // hash of the nonce of the browser at that host, from BrowserHash
	Next      string `json:"next"`    // path there, checked by whoever makes the code

	Expires time.Time `json:"expires"`
}

// BrowserHash is how a nonce travels and is kept: the SHA-256 of a label and the nonce, in 64 hexadecimal digits. The nonce itself stays
// in a cookie of the host that drew it.
func BrowserHash(nonce string) string {
	sum := sha256.Sum256([]byte("gatehouse hand-off\x00" + nonce))
	return hex.EncodeToString(sum[:])
}

// ValidHash reports whether a text has the form of a BrowserHash.
func ValidHash(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == sha256.Size && hex.EncodeToString(raw) == text
}

// Options say where codes are kept. All fields are required.
type Options struct {
	Records store.Records // sealed
	Now     func() time.Time
}

// Service makes and redeems codes. Any number of Services, in any number of processes, may share one store. Safe for concurrent use.
type Service struct{ options Options }

// New makes a Service.
func New(o Options) *Service { return &Service{options: o} }

// Create makes a code, which is kept nowhere. Expires is set here. An error is the store's.
func (s *Service) Create(ctx context.Context, h HandOff) (string, error) {
	if h.UserID == "" || h.SessionID == "" || h.Origin == "" || h.Next == "" || !ValidHash(h.Browser) {
		return "", errors.New("create hand-off code: something is missing")
	}
	var raw [codeSize]byte
	_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the process instead
	code := base64.RawURLEncoding.EncodeToString(raw[:])
	h.Expires = s.options.Now().UTC().Add(Lifetime)
	value, err := json.Marshal(h)
	if err != nil {
		return "", err
	}
	if _, err := s.options.Records.Put(ctx, keyOf(code), value, 0, h.Expires); err != nil {
		return "", fmt.Errorf("create hand-off code: %w", err)
	}
	return code, nil
}

// Redeem uses a code up and returns what it stands for. It returns ErrNotGood, also if somebody else redeemed it just now, or an error of
// the store, after which the code may be used up.
func (s *Service) Redeem(ctx context.Context, code, origin, nonce string) (HandOff, error) {
	if len(code) != base64.RawURLEncoding.EncodedLen(codeSize) || nonce == "" {
		return HandOff{}, ErrNotGood
	}
	record, err := s.options.Records.Get(ctx, keyOf(code))
	if errors.Is(err, store.ErrNotFound) {
		return HandOff{}, ErrNotGood
	}
	if err != nil {
		return HandOff{}, fmt.Errorf("read hand-off code: %w", err)
	}
	var h HandOff
	if err := json.Unmarshal(record.Value, &h); err != nil {
		return HandOff{}, fmt.Errorf("read hand-off code: %w", err)
	}
	if !s.good(h) || h.Origin != origin || subtle.ConstantTimeCompare([]byte(h.Browser), []byte(BrowserHash(nonce))) != 1 {
		return HandOff{}, ErrNotGood
	}
	// At the version that was read, so that of two at once one fails (TestService_Redeem_once).
	if err := s.options.Records.Delete(ctx, keyOf(code), record.Version); errors.Is(err, store.ErrConflict) {
		return HandOff{}, ErrNotGood
	} else if err != nil {
		return HandOff{}, fmt.Errorf("use hand-off code: %w", err)
	}
	return h, nil
}

// good reports whether the time is not over. An end beyond the full length was written by a clock that was wrong.
func (s *Service) good(h HandOff) bool {
	left := h.Expires.Sub(s.options.Now())
	return left > 0 && left <= Lifetime+leeway
}

func keyOf(code string) store.Key {
	sum := sha256.Sum256([]byte(code))
	return store.HandOffKey(hex.EncodeToString(sum[:]))
}
