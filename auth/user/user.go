// Package user keeps the accounts: who there is, and everything that each has enrolled.
//
// It promises: an account is known by an immutable random id and has one canonical name ([Canonical]) that no other account
// has; the name leads to the account by an HMAC, so that the store shows no names; a name that does not exist costs the same
// operations as one that does; what an account has enrolled is part of its record, so that a missing record never makes it an
// account without a second factor; a crash between the writes of one change burns no name and leaves no account half made;
// and the highest cost of any stored password hash is known before that hash is stored.
package user

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"gatehouse/auth/password"
	"gatehouse/store"
)

// EnrolWithin is how long after its creation or import an account may enrol a second factor with its password alone.
const EnrolWithin = 14 * 24 * time.Hour

// Administrators is the group whose members administer the gateway.
const Administrators = "admins"

// The errors that callers branch on.
var (
	ErrNotFound  = errors.New("no such account")
	ErrNameTaken = errors.New("name is taken")
	// ErrInvalid: a field of the account is not acceptable; the text says which and why.
	ErrInvalid = errors.New("invalid account")
)

// User is an account. Times are UTC; the zero time is never.
type User struct {
	ID          string   `json:"id"`   // 128 random bits, 32 hexadecimal digits, as NewID makes them; never used again
	Name        string   `json:"name"` // canonical; never changes
	DisplayName string   `json:"display_name,omitempty"`
	Email       string   `json:"email,omitempty"`
	Groups      []string `json:"groups,omitempty"` // canonical, sorted, each once
	Disabled    bool     `json:"disabled,omitempty"`
	// PasswordHash is as package password writes or accepts it; empty is an account that no password opens.
	PasswordHash string `json:"password_hash,omitempty"`
	// TOTP is the enrolled authenticator; nil is none.
	TOTP *TOTP `json:"totp,omitempty"`
	// Invitation names the one link that may complete the account; nil is none. A new one ends the former, and so does
	// whatever completes the account otherwise.
	Invitation *Invitation `json:"invitation,omitempty"`
	CreatedAt  time.Time   `json:"created_at"`
	// EnrolUntil is when the account stops being new: until then its first complete login has nothing to be compared with,
	// and a second factor can be enrolled with the password alone.
	EnrolUntil        time.Time `json:"enrol_until,omitzero"`
	FirstLoginAt      time.Time `json:"first_login_at,omitzero"`
	PasswordChangedAt time.Time `json:"password_changed_at,omitzero"`
	// Revision counts the changes of the account, from 1.
	Revision uint64 `json:"revision"`
}

// TOTP is an enrolled authenticator.
type TOTP struct {
	ID         string    `json:"id"`     // names the counter of used time steps
	Secret     string    `json:"secret"` // base32
	EnrolledAt time.Time `json:"enrolled_at"`
}

// Invitation is a one-time link that was made for the account.
type Invitation struct {
	Link  string    `json:"link"` // the SHA-256 of its token, in hexadecimal digits
	Until time.Time `json:"until"`
}

// Options say where accounts are kept. All fields but EnrolWithin are required.
type Options struct {
	// Records seals what it stores: an account holds a password hash and a seed.
	Records store.Records
	Now     func() time.Time
	// NameKey makes the tags of names: at least 32 secret bytes.
	NameKey []byte
	// EnrolWithin is how long a new account may enrol by password alone; 0 is EnrolWithin of this package.
	EnrolWithin time.Duration
}

// Store keeps accounts. Any number of Stores, in any number of processes, may share one engine. Safe for concurrent use.
type Store struct {
	records     store.Records
	now         func() time.Time
	nameKey     []byte
	enrolWithin time.Duration
}

// NewStore makes a Store.
func NewStore(o Options) *Store {
	return &Store{records: o.Records, now: o.Now, nameKey: slices.Clone(o.NameKey), enrolWithin: cmp.Or(o.EnrolWithin, EnrolWithin)}
}

// NameTag is the hexadecimal HMAC-SHA-256 of a canonical name, by which names are kept and failures are counted. For a text
// that has no canonical form, any text that is no canonical name gives a tag that no account has.
func (s *Store) NameTag(canonical string) string {
	mac := hmac.New(sha256.New, s.nameKey)
	mac.Write([]byte(canonical))
	return hex.EncodeToString(mac.Sum(nil))
}

// nameRecord is what a name leads to.
type nameRecord struct {
	UserID string `json:"user_id"`
	// Used: an account with this id was written. Until then another Add may take the id over, and afterwards never again.
	Used bool `json:"used,omitempty"`
}

// Add makes a new account and returns it. It sets CreatedAt, EnrolUntil and Revision, PasswordChangedAt where there is a hash,
// and the ID where there is none; one that is brought is of NewID and goes with one name only. Name and groups are made
// canonical. ErrNameTaken (also if there is an account with the ID), ErrInvalidName or ErrInvalid.
//
// There are two records to write and no transaction over them. The name comes first and holds an id; then the account under
// that id, which must be new; then the name once more, as used. Of several Adds of one name that find the name without an
// account, all use the id it holds, unless they bring their own, and the one that writes the account first wins. The last
// write fails if the name has meant something else since, and the account is taken back.
// TestStore_addsAndDeletesOfOneNameLeaveNoOrphan covers these races, and TestStore_survivesACrashBetweenAnyTwoWrites a process
// that ends between the writes.
func (s *Store) Add(ctx context.Context, u User) (User, error) {
	u, err := normal(u)
	if err != nil {
		return User{}, err
	}
	if err := s.raiseFor(ctx, u.PasswordHash); err != nil {
		return User{}, err
	}
	u.CreatedAt = s.now().UTC()
	u.EnrolUntil = u.CreatedAt.Add(s.enrolWithin)
	u.Revision = 1
	if u.PasswordHash != "" {
		u.PasswordChangedAt = u.CreatedAt
	}
	for {
		added, err := s.add(ctx, u)
		if !errors.Is(err, store.ErrConflict) {
			return added, err
		}
		if ctx.Err() != nil {
			return User{}, fmt.Errorf("add account: %w", errors.Join(store.ErrUnavailable, ctx.Err()))
		}
	}
}

// add tries once; store.ErrConflict says that the name changed meanwhile.
func (s *Store) add(ctx context.Context, u User) (User, error) {
	tag := s.NameTag(u.Name)
	id, nameVersion, err := s.claim(ctx, tag, u.ID)
	if err != nil {
		return User{}, fmt.Errorf("claim name: %w", err)
	}
	u.ID = id
	value, err := json.Marshal(u)
	if err != nil {
		return User{}, fmt.Errorf("write account: %w", err)
	}
	version, err := s.records.Put(ctx, store.UserKey(id), value, 0, time.Time{})
	if errors.Is(err, store.ErrConflict) {
		return User{}, ErrNameTaken
	}
	if err != nil {
		return User{}, fmt.Errorf("write account: %w", err)
	}
	_, err = s.putName(ctx, tag, nameRecord{UserID: id, Used: true}, nameVersion)
	if errors.Is(err, store.ErrConflict) {
		undo := s.records.Delete(ctx, store.UserKey(id), version)
		if undo != nil && !errors.Is(undo, store.ErrConflict) {
			return User{}, fmt.Errorf("take back account: %w", undo)
		}
	}
	if err != nil {
		return User{}, fmt.Errorf("write name: %w", err)
	}
	return u, nil
}

// claim finds the id that a new account of this name is to have, wanted if that is not empty, and the version of the name that
// says so.
func (s *Store) claim(ctx context.Context, tag, wanted string) (id string, version uint64, err error) {
	name, version, err := s.getName(ctx, tag)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return "", 0, err
	}
	if err == nil {
		switch _, err := s.records.Get(ctx, store.UserKey(name.UserID)); {
		case err == nil:
			return "", 0, ErrNameTaken
		case !errors.Is(err, store.ErrNotFound):
			return "", 0, err
		case !name.Used && (wanted == "" || wanted == name.UserID):
			return name.UserID, version, nil
		}
	}
	id = cmp.Or(wanted, NewID())
	version, err = s.putName(ctx, tag, nameRecord{UserID: id}, version)
	return id, version, err
}

// ByName returns the account of a canonical name, or ErrNotFound.
func (s *Store) ByName(ctx context.Context, canonical string) (User, error) {
	return s.ByTag(ctx, s.NameTag(canonical))
}

// ByTag returns the account whose name has this tag, or ErrNotFound. It reads two records whether there is one or not; so for a
// text that is no name it is called with a tag that no account has (NameTag).
func (s *Store) ByTag(ctx context.Context, tag string) (User, error) {
	name, _, err := s.getName(ctx, tag)
	if errors.Is(err, store.ErrNotFound) {
		// Nobody's: ids are random, and this is half an HMAC.
		name = nameRecord{UserID: tag[:min(len(tag), 2*idSize)]}
	} else if err != nil {
		return User{}, fmt.Errorf("read name: %w", err)
	}
	return s.ByID(ctx, name.UserID)
}

// ByID returns an account, or ErrNotFound.
func (s *Store) ByID(ctx context.Context, id string) (User, error) {
	record, err := s.records.Get(ctx, store.UserKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return User{}, ErrNotFound
	}
	if err != nil {
		return User{}, fmt.Errorf("read account: %w", err)
	}
	return decode(record)
}

// List returns all accounts, by name.
func (s *Store) List(ctx context.Context) ([]User, error) {
	records, err := s.records.List(ctx, store.Users)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	users := make([]User, 0, len(records))
	for _, record := range records {
		u, err := decode(record)
		if err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	slices.SortFunc(users, func(a, b User) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return users, nil
}

// Change edits an account atomically and returns it as it then is, with the next Revision. edit may run several times and must
// not have effects; its error ends Change with that error and nothing written. ID, Name, CreatedAt and Revision are not edit's to
// change. ErrNotFound, ErrInvalid.
func (s *Store) Change(ctx context.Context, id string, edit func(*User) error) (User, error) {
	var changed User
	err := store.Update(ctx, s.records, store.UserKey(id), func(old store.Record) ([]byte, time.Time, error) {
		if old.Version == 0 {
			return nil, time.Time{}, ErrNotFound
		}
		before, err := decode(old)
		if err != nil {
			return nil, time.Time{}, err
		}
		u, err := decode(old) // a second time: edit may write into slices and pointers
		if err != nil {
			return nil, time.Time{}, err
		}
		if err := edit(&u); err != nil {
			return nil, time.Time{}, err
		}
		u.ID, u.Name, u.CreatedAt, u.Revision = before.ID, before.Name, before.CreatedAt, before.Revision+1
		if changed, err = normal(u); err != nil {
			return nil, time.Time{}, err
		}
		if changed.PasswordHash != before.PasswordHash {
			// The one effect here, and one that may happen any number of times: the ceiling only rises.
			if err := s.raiseFor(ctx, changed.PasswordHash); err != nil {
				return nil, time.Time{}, err
			}
		}
		value, err := json.Marshal(changed)
		return value, time.Time{}, err
	})
	if err != nil {
		return User{}, fmt.Errorf("change account %s: %w", id, err)
	}
	return changed, nil
}

// Delete removes an account and frees its name. ErrNotFound if there is none. The account goes first: from then on nobody is
// signed in by it, and a name that leads to no account can be claimed.
func (s *Store) Delete(ctx context.Context, id string) error {
	u, err := s.ByID(ctx, id)
	if err != nil {
		return err
	}
	if err := s.records.Delete(ctx, store.UserKey(id), 0); err != nil {
		return fmt.Errorf("delete account %s: %w", id, err)
	}
	if err := s.free(ctx, s.NameTag(u.Name), id); err != nil {
		return fmt.Errorf("free name of account %s: %w", id, err)
	}
	return nil
}

// free removes a name that leads to an account which is gone. An Add that found the name before it was used may have written the
// same id anew: its account keeps the name. The account is looked for after the name's version was read, so whichever comes
// later, that Add's last write or the removal, fails.
func (s *Store) free(ctx context.Context, tag, id string) error {
	name, version, err := s.getName(ctx, tag)
	if errors.Is(err, store.ErrNotFound) || err == nil && name.UserID != id {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.records.Get(ctx, store.UserKey(id))
	if err == nil {
		return nil
	}
	if errors.Is(err, store.ErrNotFound) {
		err = s.records.Delete(ctx, store.NameKey(tag), version)
	}
	if errors.Is(err, store.ErrConflict) { // changed meanwhile: somebody has claimed it
		return nil
	}
	return err
}

// RaiseCost makes the cost ceiling at least cost. It never falls again, so that removing an account shows in nobody's timing.
func (s *Store) RaiseCost(ctx context.Context, cost int) error {
	ceiling, err := s.CostCeiling(ctx)
	if err != nil || ceiling >= cost {
		return err
	}
	err = store.Update(ctx, s.records, store.PasswordCostKey(), func(old store.Record) ([]byte, time.Time, error) {
		ceiling, err := decodeCost(old)
		if err != nil {
			return nil, time.Time{}, err
		}
		value, err := json.Marshal(costRecord{max(ceiling, cost)})
		return value, time.Time{}, err
	})
	if err != nil {
		return fmt.Errorf("raise password cost: %w", err)
	}
	return nil
}

// CostCeiling is the highest bcrypt cost that any stored hash may have, 0 if there was none yet. Verifying a name that does not
// exist costs as much. One read.
func (s *Store) CostCeiling(ctx context.Context) (int, error) {
	record, err := s.records.Get(ctx, store.PasswordCostKey())
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read password cost: %w", err)
	}
	return decodeCost(record)
}

// raiseFor makes the ceiling fit a hash that is about to be stored.
func (s *Store) raiseFor(ctx context.Context, hash string) error {
	if hash == "" {
		return nil
	}
	cost, err := password.HashCost(hash)
	if err != nil {
		return fmt.Errorf("%w: password hash: %w", ErrInvalid, err)
	}
	return s.RaiseCost(ctx, cost)
}

// costRecord is the ceiling as it is stored.
type costRecord struct {
	Cost int `json:"cost"`
}

func decodeCost(record store.Record) (int, error) {
	if record.Version == 0 {
		return 0, nil
	}
	var c costRecord
	if err := json.Unmarshal(record.Value, &c); err != nil {
		return 0, fmt.Errorf("read %s: %w", record.Key, err)
	}
	return c.Cost, nil
}

func (s *Store) getName(ctx context.Context, tag string) (nameRecord, uint64, error) {
	record, err := s.records.Get(ctx, store.NameKey(tag))
	if err != nil {
		return nameRecord{}, 0, err
	}
	var name nameRecord
	if err := json.Unmarshal(record.Value, &name); err != nil {
		return nameRecord{}, 0, fmt.Errorf("read %s: %w", record.Key, err)
	}
	return name, record.Version, nil
}

func (s *Store) putName(ctx context.Context, tag string, name nameRecord, version uint64) (uint64, error) {
	value, err := json.Marshal(name)
	if err != nil {
		return 0, err
	}
	return s.records.Put(ctx, store.NameKey(tag), value, version, time.Time{})
}

func decode(record store.Record) (User, error) {
	var u User
	if err := json.Unmarshal(record.Value, &u); err != nil {
		return User{}, fmt.Errorf("read account %s: %w", record.Key.ID, err)
	}
	return u, nil
}

// Check returns what is not acceptable about an account, as Add and Change would: ErrInvalidName or ErrInvalid.
func Check(u User) error {
	_, err := normal(u)
	return err
}

// normal makes name and groups canonical and checks what can be checked without asking the store.
func normal(u User) (User, error) {
	var err error
	if u.Name, err = Canonical(u.Name); err != nil {
		return User{}, err
	}
	if u.Groups, err = canonicalGroups(u.Groups); err != nil {
		return User{}, err
	}
	return u, errors.Join(checkEmail(u.Email), checkDisplayName(u.DisplayName))
}

const idSize = 16 // bytes

// NewID is 128 random bits as 32 hexadecimal digits: an id for an account that is still to be added.
func NewID() string {
	var id [idSize]byte
	rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(id[:])
}
