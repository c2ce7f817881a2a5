package token

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// RotateEvery is how long a key signs.
	RotateEvery = 30 * 24 * time.Hour
	// PublishAhead is how long a key is published before it signs by schedule, so that every gateway and every app that keeps the
	// JWKS for a while knows it by then.
	PublishAhead = 24 * time.Hour
	// KeepRetired is how long a key that signs no more is accepted: until the last token of a gateway that learned of the
	// change a minute late has expired.
	KeepRetired = MaxLifetime + 2*Leeway

	// keySetFormat is the version of the stored form.
	keySetFormat = 1
	// maxKeys bounds a set; only orders to rotate, again and again within KeepRetired, reach it.
	maxKeys = 16
)

var (
	// ErrKeySet: the stored bytes are no key set.
	ErrKeySet = errors.New("not a key set")
	// ErrTooOften: the set is full of keys that retired a moment ago.
	ErrTooOften = errors.New("keys were rotated too often: wait until the retired ones have ended")
)

// KeySet is the key that signs and the keys whose signatures are accepted, by kid. Safe for concurrent use: it does not
// change; rotating it makes another one.
type KeySet struct {
	stored  storedSet
	signing ed25519.PrivateKey
	kid     string
	public  map[string]publicPart
}

// publicPart is a key as tokens are verified with it.
type publicPart struct {
	key   ed25519.PublicKey
	until time.Time // end of acceptance; zero while it signs or is to sign
}

// storedSet is the form that Marshal writes; it is kept sealed.
type storedSet struct {
	Format int         `json:"format"`
	Active string      `json:"active"` // kid of the key that signs
	Keys   []storedKey `json:"keys"`
}

type storedKey struct {
	Kid     string    `json:"kid"`
	Seed    []byte    `json:"seed"` // RFC 8032, section 5.1.5: the private key
	Created time.Time `json:"created"`
	Began   time.Time `json:"began,omitzero"`   // to sign; zero while it is the next one
	Retired time.Time `json:"retired,omitzero"` // signs no more
}

// NewKeySet makes a set with one fresh key, which signs.
func NewKeySet(now time.Time) (*KeySet, error) {
	key, err := newKey(now)
	if err != nil {
		return nil, err
	}
	key.Began = key.Created
	return newKeySet(storedSet{Format: keySetFormat, Active: key.Kid, Keys: []storedKey{key}})
}

func newKey(now time.Time) (storedKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return storedKey{}, fmt.Errorf("make signing key: %w", err)
	}
	return storedKey{Kid: thumbprint(public), Seed: private.Seed(), Created: stamp(now)}, nil
}

// stamp is an instant as Marshal and ParseKeySet keep it.
func stamp(now time.Time) time.Time { return now.UTC().Round(0) }

// ParseKeySet reads what Marshal wrote. It returns ErrKeySet for anything else, without quoting it.
func ParseKeySet(data []byte) (*KeySet, error) {
	var stored storedSet
	if err := json.Unmarshal(data, &stored); err != nil || stored.Format != keySetFormat {
		return nil, ErrKeySet
	}
	return newKeySet(stored)
}

func newKeySet(stored storedSet) (*KeySet, error) {
	k := &KeySet{stored: stored, kid: stored.Active, public: make(map[string]publicPart, len(stored.Keys))}
	for _, key := range stored.Keys {
		if len(key.Seed) != ed25519.SeedSize {
			return nil, ErrKeySet
		}
		private := ed25519.NewKeyFromSeed(key.Seed)
		public, _ := private.Public().(ed25519.PublicKey)
		if key.Kid != thumbprint(public) || k.public[key.Kid].key != nil {
			return nil, ErrKeySet
		}
		part := publicPart{key: public}
		if !key.Retired.IsZero() {
			part.until = key.Retired.Add(KeepRetired)
		}
		k.public[key.Kid] = part
		if key.Kid == stored.Active {
			k.signing = private
		}
	}
	if k.signing == nil {
		return nil, ErrKeySet
	}
	return k, nil
}

// The states of a Key.
const (
	Next    = "next"    // published, and signs after the active one
	Active  = "active"  // signs
	Retired = "retired" // signs no more, and is accepted until it ends
)

// Key is what may be shown of a key.
type Key struct {
	ID      string // kid
	State   string // Next, Active or Retired
	Created time.Time
	Began   time.Time // to sign; zero for the next one
	Retired time.Time // zero unless retired
	Ends    time.Time // when it is no longer accepted; zero unless retired
}

// Keys lists the keys: the active one, the next one, the retired ones from the newest.
func (k *KeySet) Keys() []Key {
	var active, next, retired []Key
	for _, key := range k.stored.Keys {
		shown := Key{ID: key.Kid, Created: key.Created, Began: key.Began, Retired: key.Retired, Ends: k.public[key.Kid].until}
		switch {
		case key.Kid == k.kid:
			shown.State = Active
			active = append(active, shown)
		case key.Retired.IsZero():
			shown.State = Next
			next = append(next, shown)
		default:
			shown.State = Retired
			retired = append(retired, shown)
		}
	}
	slices.SortFunc(retired, func(a, b Key) int { return b.Retired.Compare(a.Retired) })
	return slices.Concat(active, next, retired)
}

// Signs returns the kid of the key that signs.
func (k *KeySet) Signs() string { return k.kid }

// Until returns when a key is no longer accepted, zero for no end in sight; false if it is not in the set.
func (k *KeySet) Until(kid string) (time.Time, bool) {
	part, ok := k.public[kid]
	return part.until, ok
}

// Current and Missing make a set that never changes a source of keys by itself.

// Current returns the set.
func (k *KeySet) Current() *KeySet { return k }

// Missing returns the set: there is nowhere to look for another one.
func (k *KeySet) Missing(context.Context) *KeySet { return k }

// Changed does nothing.
func (k *KeySet) Changed() {}

// The changes of a set, for the log.
const (
	ChangePublished = "next-key-published"
	ChangeRotated   = "next-key-active"
	ChangeEnded     = "retired-key-ended"
)

// Due returns the set as the schedule wants it now, and which change that is: "" and the set itself if there is none. It is one
// step; the next one may be due at once.
func (k *KeySet) Due(now time.Time) (*KeySet, string, error) {
	keys := k.Keys()
	active, next := keys[0], Key{}
	if len(keys) > 1 && keys[1].State == Next {
		next = keys[1]
	}
	began := active.Began
	if began.IsZero() {
		began = active.Created
	}
	switch age := now.Sub(began); {
	case age >= RotateEvery && next.ID != "" && now.Sub(next.Created) >= PublishAhead:
		set, err := k.Rotate(now)
		return set, ChangeRotated, err
	case age >= RotateEvery-PublishAhead && next.ID == "":
		key, err := newKey(now)
		if err != nil {
			return nil, "", err
		}
		set, err := k.with(append(slices.Clone(k.stored.Keys), key), k.kid)
		return set, ChangePublished, err
	}
	if left := unended(k.stored.Keys, now); len(left) < len(k.stored.Keys) {
		set, err := k.with(left, k.kid)
		return set, ChangeEnded, err
	}
	return k, "", nil
}

// Rotate returns a set in which the next key signs, a fresh one if there is none, and the active one is retired. It returns
// ErrTooOften where that happened again and again within KeepRetired.
func (k *KeySet) Rotate(now time.Time) (*KeySet, error) {
	keys := unended(k.stored.Keys, now)
	if len(keys) >= maxKeys {
		return nil, ErrTooOften
	}
	at := slices.IndexFunc(keys, func(key storedKey) bool { return key.Kid != k.kid && key.Retired.IsZero() })
	if at < 0 {
		key, err := newKey(now)
		if err != nil {
			return nil, err
		}
		keys, at = append(keys, key), len(keys)
	}
	keys[at].Began = stamp(now)
	for i := range keys {
		if keys[i].Kid == k.kid {
			keys[i].Retired = stamp(now)
		}
	}
	return k.with(keys, keys[at].Kid)
}

func (k *KeySet) with(keys []storedKey, active string) (*KeySet, error) {
	return newKeySet(storedSet{Format: keySetFormat, Active: active, Keys: keys})
}

// unended returns a copy without the keys that are no longer accepted.
func unended(keys []storedKey, now time.Time) []storedKey {
	return slices.DeleteFunc(slices.Clone(keys), func(key storedKey) bool {
		return !key.Retired.IsZero() && !now.Before(key.Retired.Add(KeepRetired))
	})
}

// Equal reports whether two sets hold the same keys in the same states.
func (k *KeySet) Equal(other *KeySet) bool {
	return slices.Equal(k.Keys(), other.Keys())
}

// Marshal returns the stored form. It holds private keys: it is only ever written sealed.
func (k *KeySet) Marshal() ([]byte, error) { return json.Marshal(k.stored) }

// MarshalJSON keeps private keys out of anything that prints a KeySet as JSON by mistake: it writes the public set.
func (k *KeySet) MarshalJSON() ([]byte, error) { return k.JWKS(), nil }

// Format keeps private keys out of every log and error text, whatever the verb.
func (k *KeySet) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "(key set %s)", k.kid) }

// publicKey is a key as RFC 7517 and RFC 8037, section 2, write it. There is no field for a private part.
type publicKey struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	X         string `json:"x"`
}

// JWKS returns the public keys as a JWK Set (RFC 7517, section 5), the signing key's first.
func (k *KeySet) JWKS() []byte {
	keys := make([]publicKey, 0, len(k.stored.Keys))
	for _, key := range k.stored.Keys {
		public := publicKey{"OKP", "Ed25519", "sig", algorithm, key.Kid, base64.RawURLEncoding.EncodeToString(k.public[key.Kid].key)}
		if key.Kid == k.kid {
			keys = append([]publicKey{public}, keys...)
		} else {
			keys = append(keys, public)
		}
	}
	out, _ := json.Marshal(map[string][]publicKey{"keys": keys}) // strings always marshal
	return out
}

// thumbprint is the kid: the SHA-256 thumbprint of the public key (RFC 7638; RFC 8037, appendix A.3). It cannot be chosen, so
// two keys never share one.
func thumbprint(public ed25519.PublicKey) string {
	x := base64.RawURLEncoding.EncodeToString(public)
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
