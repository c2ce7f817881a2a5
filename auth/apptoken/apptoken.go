// Package apptoken holds app tokens: long secrets with which a program that has no browser (CalDAV, git, CI) acts as one user on one
// route.
//
// It promises: a token is at least 256 random bits, shown once when it is made and kept only as its SHA-256, in a record that ends with
// it, so neither the store nor a list lets anybody in; a token that was deleted is never written again; and whatever claims to be a
// token is told from everything else by its form alone (Read), so that it can be verified or refused and never handed to an app.
//
// A fast hash is enough for a secret that nobody can guess (OWASP ASVS 5.0, 6.5.2 and 11.4.2); it needs no pepper and no cost.
package apptoken

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"gatehouse/store"
)

const (
	// DefaultLifetime is how long a token lives that was made without saying so, MaxLifetime how long any does.
	DefaultLifetime = 90 * 24 * time.Hour
	MaxLifetime     = 366 * 24 * time.Hour
	// MaxPerUser is how many a user may have.
	MaxPerUser = 100
	// UsedEvery is how often the last use is written, at most.
	UsedEvery = time.Hour

	idSize = 8 // bytes of the hash that make the id
)

// The errors of a Store, besides those of the store below.
var (
	// ErrNotFound: there is no such token, or it has ended.
	ErrNotFound = errors.New("no such app token")
	// ErrTooMany: the user has MaxPerUser already.
	ErrTooMany = errors.New("too many app tokens of this user")
	// ErrLifetime: a lifetime is below a minute or over MaxLifetime.
	ErrLifetime = errors.New("lifetime of an app token out of range")
)

// Token is an app token without its secret.
type Token struct {
	ID      string // names it in lists and records, and is no credential
	UserID  string
	Route   string // the name of the only route it is for
	Created time.Time
	Expires time.Time
	Used    time.Time // last use, at most UsedEvery behind; zero if it was never used
}

// document is a token as it is stored, sealed, under its id.
type document struct {
	Hash    []byte    `json:"hash"` // SHA-256 of the text
	UserID  string    `json:"user"`
	Route   string    `json:"route"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"`
}

// Options is what a Store is made of. All are required.
type Options struct {
	Records store.Records // sealed
	Now     func() time.Time
}

// Store keeps app tokens. Safe for concurrent use; any number of Stores, in any number of processes, may share one store.
type Store struct{ o Options }

// NewStore makes a Store.
func NewStore(o Options) *Store { return &Store{o: o} }

// Create makes a token that lives for so long, 0 meaning DefaultLifetime, and returns it with its text, which cannot be had again. It
// returns ErrLifetime and ErrTooMany; of several at once one too many may be made.
func (s *Store) Create(ctx context.Context, userID, route string, lifetime time.Duration) (Token, string, error) {
	lifetime = cmp.Or(lifetime, DefaultLifetime)
	if lifetime < time.Minute || lifetime > MaxLifetime {
		return Token{}, "", ErrLifetime
	}
	all, err := s.OfUser(ctx, userID)
	if err != nil {
		return Token{}, "", err
	}
	if len(all) >= MaxPerUser {
		return Token{}, "", ErrTooMany
	}
	now := s.o.Now().UTC().Truncate(time.Second)
	for {
		text := Prefix + rand.Text() + rand.Text() // 26 characters of base32 each, 260 bits
		sum := sha256.Sum256([]byte(text))
		doc := document{Hash: sum[:], UserID: userID, Route: route, Created: now, Expires: now.Add(lifetime)}
		err := s.put(ctx, idOf(sum), doc, 0)
		if errors.Is(err, store.ErrConflict) {
			continue // another token has these 64 bits of a hash
		}
		return doc.token(idOf(sum)), text, err
	}
}

// Find returns the token with this text, or ErrNotFound.
func (s *Store) Find(ctx context.Context, text string) (Token, error) {
	sum := sha256.Sum256([]byte(text))
	doc, _, err := s.get(ctx, idOf(sum))
	if err != nil {
		return Token{}, err
	}
	if subtle.ConstantTimeCompare(doc.Hash, sum[:]) != 1 {
		return Token{}, ErrNotFound
	}
	return doc.token(idOf(sum)), nil
}

// Get returns the token with this id, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (Token, error) {
	doc, _, err := s.get(ctx, id)
	return doc.token(id), err
}

// NoteUse writes that a token was used now, unless that was written within UsedEvery. A token that was deleted meanwhile stays deleted.
func (s *Store) NoteUse(ctx context.Context, t Token) error {
	now := s.o.Now().UTC().Truncate(time.Second)
	if now.Sub(t.Used) < UsedEvery {
		return nil
	}
	doc, version, err := s.get(ctx, t.ID)
	if err != nil {
		return err
	}
	doc.Used = now
	err = s.put(ctx, t.ID, doc, version)
	if errors.Is(err, store.ErrConflict) {
		return nil // another gateway wrote the same, or somebody deleted it
	}
	return err
}

// Delete removes a token. It is idempotent.
func (s *Store) Delete(ctx context.Context, id string) error {
	return s.o.Records.Delete(ctx, store.AppTokenKey(id), 0)
}

// List returns every token that has not ended, by the time it was made.
func (s *Store) List(ctx context.Context) ([]Token, error) {
	return s.list(ctx, func(document) bool { return true })
}

// OfUser returns those of one user.
func (s *Store) OfUser(ctx context.Context, userID string) ([]Token, error) {
	return s.list(ctx, func(d document) bool { return d.UserID == userID })
}

func (s *Store) list(ctx context.Context, wanted func(document) bool) ([]Token, error) {
	var out []Token
	for n := range store.Shards {
		records, err := s.o.Records.List(ctx, store.AppTokenShard(n))
		if err != nil {
			return nil, fmt.Errorf("list app tokens: %w", err)
		}
		for _, record := range records {
			doc, err := decode(record.Value)
			if err != nil {
				return nil, err
			}
			if wanted(doc) && s.o.Now().Before(doc.Expires) {
				out = append(out, doc.token(record.Key.ID))
			}
		}
	}
	slices.SortFunc(out, func(a, b Token) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

func (s *Store) get(ctx context.Context, id string) (document, uint64, error) {
	record, err := s.o.Records.Get(ctx, store.AppTokenKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return document{}, 0, ErrNotFound
	}
	if err != nil {
		return document{}, 0, fmt.Errorf("read app token: %w", err)
	}
	doc, err := decode(record.Value)
	if err == nil && !s.o.Now().Before(doc.Expires) {
		err = ErrNotFound
	}
	return doc, record.Version, err
}

// put writes a token at the version that was read; store.ErrConflict if it is another one by now.
func (s *Store) put(ctx context.Context, id string, doc document, version uint64) error {
	value, err := json.Marshal(doc)
	if err == nil {
		_, err = s.o.Records.Put(ctx, store.AppTokenKey(id), value, version, doc.Expires)
	}
	if err != nil {
		return fmt.Errorf("write app token: %w", err)
	}
	return nil
}

func decode(value []byte) (document, error) {
	var doc document
	if err := json.Unmarshal(value, &doc); err != nil {
		return document{}, fmt.Errorf("read app token: %w", err)
	}
	return doc, nil
}

func (d document) token(id string) Token {
	return Token{ID: id, UserID: d.UserID, Route: d.Route, Created: d.Created, Expires: d.Expires, Used: d.Used}
}

// idOf names a token by the start of its hash, from which nothing of it follows.
func idOf(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:idSize]) }

// Mark stands for the token where sessions have their id: on the feed, and in what gateways remember.
func (t Token) Mark() string {
	sum := sha256.Sum256([]byte("app token\x00" + t.ID))
	return hex.EncodeToString(sum[:16])
}
