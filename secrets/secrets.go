// Package secrets holds the keys under which Gatehouse keeps everything else: the root key that the operator supplies, the
// keyring of numbered key-encryption keys that it seals, and the sealers made from them.
//
// It promises:
//
//   - The root key is never written to the store, and no error or log shows a bit of it.
//   - A root key that does not fit the store is refused before anything is written ([ErrWrongRootKey]).
//   - Of several gateways that open an empty store at once one creates the keyring; the others read it.
//   - What was sealed opens only with its purpose and its additional data; whatever else is presented gives one error.
//
// AES-256-GCM is NIST SP 800-38D, key derivation HKDF with SHA-256 (RFC 5869). The formats stand beside the code that writes
// them and in docs/formats.md.
package secrets

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatehouse/store"
)

// The errors of a keyring that cannot be opened.
var (
	// ErrWrongRootKey: the keyring of this store was sealed by another root key. Nothing was written.
	ErrWrongRootKey = errors.New("root key does not fit this store: its keyring was made with another one")
	// ErrNoKeyring: the store holds sealed keys but the keyring that opens them is gone. Nothing was written.
	ErrNoKeyring = errors.New("store holds keys but no keyring: restore it from a backup")
)

const (
	keyringFormat = 1
	// checkLabel derives the value by which a keyring names its root key. HKDF is one-way, so it says nothing about the key.
	checkLabel = "gatehouse root key check 1"
	checkSize  = 16
)

// keyringRecord is the stored keyring. It is the one record that names its key in the clear, so that a wrong root key can be
// told from an altered record, and so that, while the root key is being replaced, the right one of two is known.
type keyringRecord struct {
	Format int    `json:"format"`
	Root   []byte `json:"root"`   // check value of the root key
	Sealed []byte `json:"sealed"` // keyringContent, sealed by the root key as term 0
}

type keyringContent struct {
	Active uint32        `json:"active"`
	Terms  []keyringTerm `json:"terms"`
}

type keyringTerm struct {
	Term    uint32    `json:"term"` // from 1
	Key     []byte    `json:"key"`
	Created time.Time `json:"created"`
}

// Options of OpenKeyring.
type Options struct {
	// Now is the clock; required.
	Now func() time.Time
}

// Keyring holds the key-encryption keys by term. Old terms stay readable; the active one seals. Safe for concurrent use: it
// does not change after OpenKeyring.
type Keyring struct {
	active uint32
	terms  map[uint32][]byte
}

// OpenKeyring reads the store's keyring, or creates it in a store that has none, and says so. records are the engine's own:
// the keyring cannot be sealed by itself. It returns ErrWrongRootKey, ErrNoKeyring, store.ErrSealed if the keyring was
// altered, or an error of the store.
func OpenKeyring(ctx context.Context, records store.Records, root RootKey, o Options) (ring *Keyring, created bool, err error) {
	stored, err := records.Get(ctx, store.KeyringKey())
	if errors.Is(err, store.ErrNotFound) {
		created, err = createKeyring(ctx, records, root, o.Now())
		if err == nil {
			stored, err = records.Get(ctx, store.KeyringKey()) // what is there now, whoever was first
		}
		if errors.Is(err, store.ErrNotFound) {
			err = ErrNoKeyring
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("open keyring: %w", err)
	}
	ring, err = parseKeyring(stored.Value, root)
	if err != nil {
		return nil, false, fmt.Errorf("open keyring: %w", err)
	}
	return ring, created, nil
}

// createKeyring writes a keyring with one term, unless another gateway was faster (TestOpenKeyring_createsOnce) or the store
// already holds keys.
func createKeyring(ctx context.Context, records store.Records, root RootKey, now time.Time) (bool, error) {
	// A keyring that was lost must not be replaced: everything sealed by the old one would turn to noise without a word.
	held, err := records.List(ctx, store.Material)
	if err != nil {
		return false, err
	}
	if len(held) > 0 {
		return false, nil // another gateway was faster by more than one write, or the reader finds none
	}
	value, err := newKeyring(root, now)
	if err != nil {
		return false, err
	}
	_, err = records.Put(ctx, store.KeyringKey(), value, 0, time.Time{})
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}

func newKeyring(root RootKey, now time.Time) ([]byte, error) {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	defer clear(key)
	content, err := json.Marshal(keyringContent{Active: 1, Terms: []keyringTerm{{Term: 1, Key: key, Created: now.UTC()}}})
	if err != nil {
		return nil, err
	}
	defer clear(content)
	check, err := rootCheck(root)
	if err != nil {
		return nil, err
	}
	sealed, err := sealWith(root.key[:], rootTerm, rootPurpose, content, check)
	if err != nil {
		return nil, err
	}
	return json.Marshal(keyringRecord{Format: keyringFormat, Root: check, Sealed: sealed})
}

func parseKeyring(value []byte, root RootKey) (*Keyring, error) {
	var record keyringRecord
	if err := json.Unmarshal(value, &record); err != nil || record.Format != keyringFormat {
		return nil, store.ErrSealed
	}
	check, err := rootCheck(root)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(check, record.Root) != 1 {
		return nil, ErrWrongRootKey
	}
	if term, ok := termOf(record.Sealed); !ok || term != rootTerm {
		return nil, store.ErrSealed
	}
	plain, err := openWith(root.key[:], rootPurpose, record.Sealed, check)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return readTerms(plain)
}

func readTerms(plain []byte) (*Keyring, error) {
	var content keyringContent
	if err := json.Unmarshal(plain, &content); err != nil {
		return nil, store.ErrSealed
	}
	ring := &Keyring{active: content.Active, terms: make(map[uint32][]byte, len(content.Terms))}
	for _, t := range content.Terms {
		if t.Term == rootTerm || len(t.Key) != keySize || ring.terms[t.Term] != nil {
			return nil, store.ErrSealed
		}
		ring.terms[t.Term] = t.Key
	}
	if ring.terms[ring.active] == nil {
		return nil, store.ErrSealed
	}
	return ring, nil
}

// rootCheck names a root key without telling anything of it.
func rootCheck(root RootKey) ([]byte, error) {
	return hkdf.Key(sha256.New, root.key[:], nil, checkLabel, checkSize)
}

// Sealer returns a sealer for one purpose: "records", "feed". Purposes are compared as they are spelled.
func (k *Keyring) Sealer(purpose string) *Sealer { return &Sealer{ring: k, purpose: purpose} }

// Material returns a key of this store, which generate supplies when it is asked for first: the signing key, the handle key, the
// pepper. It is created once per store by compare-and-swap, so that all gateways have the same (TestMaterial_createsOnce).
// sealed are the records behind the keyring's sealer. created says whether this call made it.
func Material(ctx context.Context, sealed store.Records, name string, generate func() ([]byte, error)) (value []byte, created bool, err error) {
	key := store.MaterialKey(name)
	record, err := sealed.Get(ctx, key)
	if err == nil {
		return record.Value, false, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return nil, false, fmt.Errorf("read key %s: %w", name, err)
	}
	if value, err = generate(); err != nil {
		return nil, false, fmt.Errorf("make key %s: %w", name, err)
	}
	_, err = sealed.Put(ctx, key, value, 0, time.Time{})
	if err == nil {
		return value, true, nil
	}
	if !errors.Is(err, store.ErrConflict) {
		return nil, false, fmt.Errorf("write key %s: %w", name, err)
	}
	if record, err = sealed.Get(ctx, key); err != nil {
		return nil, false, fmt.Errorf("read key %s: %w", name, err)
	}
	return record.Value, false, nil
}

// RandomKey makes 32 random bytes: what Material is given for every key that has no structure.
func RandomKey() ([]byte, error) {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	return key, nil
}
