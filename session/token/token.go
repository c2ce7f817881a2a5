// Package token signs and verifies the JSON Web Tokens of Gatehouse (RFC 7519) with Ed25519 (RFC 8037).
//
// It promises, after RFC 8725:
//
//   - One algorithm. It comes from the key; a token that names another one is refused before its signature is looked at.
//   - A token is good for one purpose and one audience only: typ, iss and aud are each compared as a whole string.
//   - The header holds alg, typ and kid and nothing else: jku, x5u, jwk, crit or any other parameter refuses the token, and no
//     parameter is ever used to fetch, open or look up anything but a key of the set.
//   - There is one spelling of a token: canonical base64url without padding (RFC 4648, section 3.5), at most MaxLength bytes
//     and two dots, all of which is checked before anything is split or decoded.
//   - A lifetime is never longer than MaxLifetime, even where the signature is right.
//   - Every refusal is ErrInvalid. There is no way to learn that a token is only expired, so nobody can mistake an expired
//     one for one whose signature is right.
//
// Access tokens hold ids only, no name and no address.
package token

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// MaxLength is the longest token that is looked at, in bytes.
	MaxLength = 8 << 10
	// MaxLifetime is the longest time between iat and exp.
	MaxLifetime = 5 * time.Minute
	// Leeway is how far in the future iat and nbf may lie, for gateways whose clocks differ. exp gets none: a token that ends
	// early by a clock that is fast is renewed, and one that ended is never good for longer than it says.
	Leeway = 30 * time.Second

	// Earliest is a moment before this program was made: 1 October 2026, in seconds since 1970. A clock that reads less is wrong, as
	// one that began at 1970 after a start without a battery, and nothing is signed by it.
	Earliest = 1790812800

	algorithm = "EdDSA"
	// maxForeign is the largest header block that reaches us; what is longer is not decoded.
	maxForeign = 64 << 10
)

// Purpose is what a token is for; it is the typ of its header (RFC 8725, section 3.11).
type Purpose string

// The purposes. Each is accepted in one place only.
const (
	CookieToken Purpose = "gatehouse-cookie+jwt"    // in the access cookie; aud is the origin of that host
	BearerToken Purpose = "gatehouse-bearer+jwt"    // in Authorization; aud is the external URL
	Assertion   Purpose = "gatehouse-assertion+jwt" // for the app; aud is its origin; never accepted by the gateway
)

// ErrInvalid: the token is not good for this purpose, here and now. The wrapped text says why, for logs.
var ErrInvalid = errors.New("token is not valid")

// ErrUnknownKey is an ErrInvalid: the kid is none of the set's. Another gateway may know it already.
var ErrUnknownKey = fmt.Errorf("%w: kid is unknown", ErrInvalid)

// Claims are what a token says. Times have whole seconds.
type Claims struct {
	KeyID     string // kid, of a token that was verified; Sign has its own
	ID        string // jti
	Issuer    string // iss: the external URL
	Audience  string // aud, exactly one
	Subject   string // sub: the user id
	SessionID string // sid
	Methods   []string
	AuthTime  time.Time
	IssuedAt  time.Time
	ExpiresAt time.Time

	// Of assertions only; Sign leaves them out of every other token.
	Name        string // preferred_username: the canonical name
	DisplayName string // name
	Email       string
	Groups      []string
}

// wire is the payload. Its types are strict: a time is an integer, the audience is one string; whatever else stands there
// does not decode.
type wire struct {
	ID          string   `json:"jti"`
	Issuer      string   `json:"iss"`
	Audience    string   `json:"aud"`
	Subject     string   `json:"sub"`
	SessionID   string   `json:"sid"`
	Methods     []string `json:"amr,omitempty"` // RFC 8176
	AuthTime    int64    `json:"auth_time,omitempty"`
	IssuedAt    int64    `json:"iat"`
	NotBefore   int64    `json:"nbf,omitempty"`
	ExpiresAt   int64    `json:"exp"`
	Name        string   `json:"preferred_username,omitempty"`
	DisplayName string   `json:"name,omitempty"`
	Email       string   `json:"email,omitempty"`
	Groups      []string `json:"groups,omitempty"`
}

// The methods of jwt.Claims: what the library checks.

func (w *wire) GetIssuer() (string, error)                       { return w.Issuer, nil }
func (w *wire) GetSubject() (string, error)                      { return w.Subject, nil }
func (w *wire) GetAudience() (jwt.ClaimStrings, error)           { return jwt.ClaimStrings{w.Audience}, nil }
func (w *wire) GetIssuedAt() (*jwt.NumericDate, error)           { return date(w.IssuedAt), nil }
func (w *wire) GetNotBefore() (*jwt.NumericDate, error)          { return date(w.NotBefore), nil }
func (w *wire) GetExpirationTime() (d *jwt.NumericDate, e error) { return date(w.ExpiresAt), nil }

// date is nil for a claim that is not there.
func date(seconds int64) *jwt.NumericDate {
	if seconds == 0 {
		return nil
	}
	return &jwt.NumericDate{Time: time.Unix(seconds, 0)}
}

// Sign returns a token for one purpose. It is an error if an id, the issuer or the audience is missing, the lifetime is not
// within MaxLifetime, or it would begin before Earliest.
func (k *KeySet) Sign(p Purpose, c Claims) (string, error) {
	w := wire{
		ID: c.ID, Issuer: c.Issuer, Audience: c.Audience, Subject: c.Subject, SessionID: c.SessionID,
		Methods: c.Methods, AuthTime: c.AuthTime.Unix(), IssuedAt: c.IssuedAt.Unix(), ExpiresAt: c.ExpiresAt.Unix(),
	}
	if p == Assertion {
		w.Name, w.DisplayName, w.Email, w.Groups = c.Name, c.DisplayName, c.Email, c.Groups
	}
	if err := w.complete(); err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &w)
	t.Header["typ"] = string(p)
	t.Header["kid"] = k.kid
	signed, err := t.SignedString(k.signing)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed, nil
}

// complete checks what must hold of every token of ours, made or presented.
func (w *wire) complete() error {
	if w.ID == "" || w.Issuer == "" || w.Audience == "" || w.Subject == "" || w.SessionID == "" {
		return errors.New("a claim is missing")
	}
	lifetime := w.ExpiresAt - w.IssuedAt
	if w.AuthTime <= 0 || w.IssuedAt < Earliest || lifetime <= 0 || lifetime > int64(MaxLifetime/time.Second) {
		return errors.New("times out of range")
	}
	return nil
}

// Verify returns the claims of a token that this set signed for the purpose, issuer and audience, and that is good at now.
// Everything else is ErrInvalid; ErrUnknownKey, which is one too, if the set does not have its key. A key that is still the next
// one is accepted: a gateway that was told of the change before this one signs with it.
func (k *KeySet) Verify(raw string, p Purpose, issuer, audience string, now time.Time) (Claims, error) {
	if err := canonical(raw); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if issuer == "" || audience == "" {
		return Claims{}, fmt.Errorf("%w: no issuer or audience to compare with", ErrInvalid) // the library would not compare
	}
	var w wire
	var kid string
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{algorithm}), jwt.WithStrictDecoding(),
		jwt.WithIssuer(issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(Leeway),
		jwt.WithTimeFunc(func() time.Time { return now }),
	)
	if _, err := parser.ParseWithClaims(raw, &w, func(t *jwt.Token) (any, error) {
		public, err := k.keyFor(t.Header, p, now)
		kid, _ = t.Header["kid"].(string)
		return public, err
	}); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := w.complete(); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if now.Unix() >= w.ExpiresAt {
		return Claims{}, fmt.Errorf("%w: expired", ErrInvalid)
	}
	c := w.claims()
	c.KeyID = kid
	return c, nil
}

// keyFor checks the header and finds the key. The kid is only ever looked up among our own.
func (k *KeySet) keyFor(header map[string]any, p Purpose, now time.Time) (ed25519.PublicKey, error) {
	if typ, ok := header["typ"].(string); !ok || typ != string(p) {
		return nil, errors.New("typ is another one")
	}
	if len(header) != 3 { // alg, typ, kid: RFC 7515, section 4.1.11, refuses what it must understand and does not
		return nil, errors.New("header holds a parameter that is not ours")
	}
	kid, ok := header["kid"].(string)
	if !ok {
		return nil, errors.New("no kid")
	}
	part, ok := k.public[kid]
	if !ok {
		return nil, ErrUnknownKey
	}
	if !part.until.IsZero() && !now.Before(part.until) {
		return nil, errors.New("key has retired")
	}
	return part.key, nil
}

func (w *wire) claims() Claims {
	return Claims{
		ID: w.ID, Issuer: w.Issuer, Audience: w.Audience, Subject: w.Subject, SessionID: w.SessionID, Methods: w.Methods,
		AuthTime: time.Unix(w.AuthTime, 0).UTC(), IssuedAt: time.Unix(w.IssuedAt, 0).UTC(), ExpiresAt: time.Unix(w.ExpiresAt, 0).UTC(),
		Name: w.Name, DisplayName: w.DisplayName, Email: w.Email, Groups: w.Groups,
	}
}

// canonical bounds a token and refuses every byte outside the base64url alphabet. The decoder behind the library's strict mode
// skips line ends, so without this one token would have many spellings.
func canonical(raw string) error {
	if len(raw) > MaxLength {
		return errors.New("too long")
	}
	if strings.Count(raw, ".") != 2 {
		return errors.New("not three parts")
	}
	for i := range len(raw) {
		if c := raw[i]; !isBase64URL(c) && c != '.' {
			return errors.New("not base64url")
		}
	}
	return nil
}

func isBase64URL(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// Ours reports whether what is presented as a credential claims to be a token of ours, by its unverified iss or typ. Such a
// value is verified or refused, and never handed to an app. It reads generously where Verify is strict: padding, the other
// base64 alphabet and any case of typ still count as a claim.
func Ours(raw, issuer string) bool {
	if len(raw) > maxForeign {
		return true // cannot arrive; were the bound on headers raised, it is refused unread
	}
	header, rest, _ := strings.Cut(raw, ".")
	payload, _, _ := strings.Cut(rest, ".")
	var h struct {
		Typ any `json:"typ"`
	}
	if peek(header, &h) {
		if typ, ok := h.Typ.(string); ok && isPurpose(typ) {
			return true
		}
	}
	var c struct {
		Iss any `json:"iss"`
	}
	return peek(payload, &c) && c.Iss == issuer
}

func isPurpose(typ string) bool {
	if rest, ok := cutPrefixFold(typ, "application/"); ok { // RFC 7515, section 4.1.9
		typ = rest
	}
	for _, p := range []Purpose{CookieToken, BearerToken, Assertion} {
		if strings.EqualFold(typ, string(p)) {
			return true
		}
	}
	return false
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// peek decodes one part of a token without believing it.
func peek(part string, into any) bool {
	if part == "" {
		return false
	}
	part = strings.ReplaceAll(strings.ReplaceAll(strings.TrimRight(part, "="), "+", "-"), "/", "_")
	data, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(data, into) == nil
}
