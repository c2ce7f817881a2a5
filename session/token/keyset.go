package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// keySetFormat is the version of the stored form.
const keySetFormat = 1

// ErrKeySet: the stored bytes are no key set.
var ErrKeySet = errors.New("not a key set")

// KeySet is the signing key and the keys whose signatures are accepted, by kid. Safe for concurrent use: it does not change.
type KeySet struct {
	stored  storedSet
	signing ed25519.PrivateKey
	kid     string
	public  map[string]ed25519.PublicKey
}

// storedSet is the form that Marshal writes; it is kept sealed. Several keys have room in it, for rotation.
type storedSet struct {
	Format int         `json:"format"`
	Active string      `json:"active"` // kid of the key that signs
	Keys   []storedKey `json:"keys"`
}

type storedKey struct {
	Kid     string    `json:"kid"`
	Seed    []byte    `json:"seed"` // RFC 8032, section 5.1.5: the private key
	Created time.Time `json:"created"`
}

// NewKeySet makes a set with one fresh key.
func NewKeySet(now time.Time) (*KeySet, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	kid := thumbprint(public)
	return newKeySet(storedSet{
		Format: keySetFormat, Active: kid,
		Keys: []storedKey{{Kid: kid, Seed: private.Seed(), Created: now.UTC()}},
	})
}

// ParseKeySet reads what Marshal wrote. It returns ErrKeySet for anything else, without quoting it.
func ParseKeySet(data []byte) (*KeySet, error) {
	var stored storedSet
	if err := json.Unmarshal(data, &stored); err != nil || stored.Format != keySetFormat {
		return nil, ErrKeySet
	}
	return newKeySet(stored)
}

func newKeySet(stored storedSet) (*KeySet, error) {
	k := &KeySet{stored: stored, kid: stored.Active, public: make(map[string]ed25519.PublicKey, len(stored.Keys))}
	for _, key := range stored.Keys {
		if len(key.Seed) != ed25519.SeedSize {
			return nil, ErrKeySet
		}
		private := ed25519.NewKeyFromSeed(key.Seed)
		public, _ := private.Public().(ed25519.PublicKey)
		if key.Kid != thumbprint(public) || k.public[key.Kid] != nil {
			return nil, ErrKeySet
		}
		k.public[key.Kid] = public
		if key.Kid == stored.Active {
			k.signing = private
		}
	}
	if k.signing == nil {
		return nil, ErrKeySet
	}
	return k, nil
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
		public := publicKey{"OKP", "Ed25519", "sig", algorithm, key.Kid, base64.RawURLEncoding.EncodeToString(k.public[key.Kid])}
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
