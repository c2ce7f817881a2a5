// Package admintest builds the administration service for tests: on a real store file and a real audit log in a temporary
// folder, with a clock that the test moves and bcrypt at its cheapest.
package admintest

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gatehouse/admin"
	"gatehouse/audit"
	"gatehouse/auth/apptoken"
	"gatehouse/auth/device"
	"gatehouse/auth/link"
	"gatehouse/auth/lockout"
	"gatehouse/auth/password"
	"gatehouse/auth/totp"
	"gatehouse/auth/user"
	"gatehouse/session"
	"gatehouse/session/token"
	"gatehouse/store"
	"gatehouse/store/boltstore"
)

// Host is the login host of the kit.
const Host = "login.example.org"

// GoodPassword is one that the policy accepts.
const GoodPassword = "nine violet herons wade"

// Operator and Administrator are callers with these roles.
var (
	Operator      = admin.Caller{Role: admin.Operator, Actor: audit.Actor{Type: audit.ActorOperator, ID: "0"}, RequestID: "r1"}
	Administrator = admin.Caller{Role: admin.Administrator, Actor: audit.Actor{Type: audit.ActorToken, ID: "main"}, RequestID: "r2"}
)

// Kit is a service with everything it is made of.
type Kit struct {
	admin.Options
	Service *admin.Service
	// Audit is the log; LogFault makes it fail while set.
	Audit    *audit.Log
	LogFault *Fault
	// StoreFault makes the store fail while set.
	StoreFault *Fault

	mu  sync.Mutex
	now time.Time // guarded by mu
}

// Fault is an error that something returns while it is set. Safe for concurrent use.
type Fault struct {
	mu  sync.Mutex
	err error // guarded by mu
}

// Set makes the fault happen; nil ends it.
func (f *Fault) Set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *Fault) now() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// New builds a kit that ends with the test.
func New(t testing.TB) *Kit {
	t.Helper()
	k := &Kit{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), LogFault: &Fault{}, StoreFault: &Fault{}}
	dir := t.TempDir()
	engine, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(dir, "gatehouse.db"), Now: k.Now})
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	k.Audit, err = audit.Open(audit.Options{Dir: filepath.Join(dir, "audit"), Node: "test", Now: k.Now, Logger: logger, Reserve: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(k.Audit.Close(), engine.Close()); err != nil {
			t.Error(err)
		}
	})
	records := faultyRecords{engine, k.StoreFault}
	log := faultyLog{k.Audit, k.LogFault}
	users := user.NewStore(user.Options{Records: records, Now: k.Now, NameKey: key("names")})
	k.Options = admin.Options{
		Users:     users,
		Passwords: windows(records, k.Now, store.LockoutKey, store.LockoutShard),
		Codes:     windows(records, k.Now, store.CodesKey, store.CodesShard),
		Devices:   device.New(device.Options{Records: records, Now: k.Now, Key: key("devices")}),
		TOTP:      totp.New(totp.Options{Counters: engine, Now: k.Now, Issuer: Host}),
		Keys:      keys(t, records, engine, log, k.Now, logger),
		Sessions:  sessions(t, records, engine, users, log, k.Now, logger),
		Hasher:    password.NewHasher(password.HasherOptions{Pepper: key("pepper"), Cost: 4}),
		Policy:    password.DefaultPolicy,
		Log:       log,
		LogDir:    filepath.Join(dir, "audit"),
		Links:     link.New(link.Options{Records: records, Now: k.Now}),
		Tokens:    apptoken.NewStore(apptoken.Options{Records: records, Now: k.Now}),
		Routes:    func() []string { return []string{"caldav", "git"} },
		External:  &url.URL{Scheme: "https", Host: Host},
		Now:       k.Now,
		Logger:    logger,
	}
	k.Service = admin.New(k.Options)
	return k
}

func windows(records store.Records, now func() time.Time, key func(string, string) store.Key, shard func(int) store.Collection) *lockout.Windows {
	return lockout.New(lockout.Options{Records: records, Now: now, Key: key, Shard: shard, RunLimit: 100})
}

func keys(t testing.TB, records store.Records, engine *boltstore.Store, log admin.Log, now func() time.Time, logger *slog.Logger) *session.Keys {
	t.Helper()
	k, err := session.OpenKeys(t.Context(), session.KeysOptions{Records: records, Feed: engine, Recorder: log, Now: now, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sessions(t testing.TB, records store.Records, engine *boltstore.Store, users *user.Store, log admin.Log, now func() time.Time, logger *slog.Logger) *session.Manager {
	t.Helper()
	keys, err := token.NewKeySet(now())
	if err != nil {
		t.Fatal(err)
	}
	m, err := session.New(session.Options{
		Records: records, Counters: engine, Feed: engine, Keys: keys, HandleKey: key("handles"), Issuer: "https://" + Host,
		Accounts: accounts{users}, Recorder: log, Now: now, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// accounts shows the sessions an account as apps see it.
type accounts struct{ users *user.Store }

// Identity is session.Accounts.
func (a accounts) Identity(ctx context.Context, userID string) (session.Identity, bool, error) {
	u, err := a.users.ByID(ctx, userID)
	if errors.Is(err, user.ErrNotFound) {
		return session.Identity{}, false, nil
	}
	return identity(u), err == nil && !u.Disabled, err
}

func identity(u user.User) session.Identity {
	return session.Identity{UserID: u.ID, Name: u.Name, DisplayName: u.DisplayName, Email: u.Email, Groups: u.Groups}
}

// key is a fixed key of 32 bytes.
func key(name string) []byte {
	sum := sha256.Sum256([]byte(name))
	return sum[:]
}

// Now is the clock of the kit.
func (k *Kit) Now() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

// Advance moves the clock.
func (k *Kit) Advance(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = k.now.Add(d)
}

// AddUser makes an account with GoodPassword, past the service.
func (k *Kit) AddUser(t testing.TB, name string) user.User {
	t.Helper()
	hash, err := k.Hasher.Hash(GoodPassword)
	if err != nil {
		t.Fatal(err)
	}
	u, err := k.Users.Add(t.Context(), user.User{Name: name, PasswordHash: hash})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// SignIn starts a session of the account, a second later: what ended sessions at this instant would end it too.
func (k *Kit) SignIn(t testing.TB, u user.User) {
	t.Helper()
	k.Advance(time.Second)
	prepared, err := k.Sessions.Prepare(t.Context(), session.Grant{
		Identity: identity(u), Methods: []string{"pwd", "otp"}, AuthTime: k.Now(), Origin: "https://" + Host,
		ClientAddress: "192.0.2.7", UserAgent: "browser\x1b[2J",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sessions.Activate(t.Context(), prepared); err != nil {
		t.Fatal(err)
	}
}

// Fail counts n wrong passwords of a name, from strangers.
func (k *Kit) Fail(t testing.TB, name string, n int) {
	t.Helper()
	for range n {
		r, err := k.Passwords.Reserve(t.Context(), k.Users.NameTag(name), lockout.Stranger)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Passwords.Settle(t.Context(), r, lockout.Wrong); err != nil {
			t.Fatal(err)
		}
	}
}

// Recorded returns every record of the log.
func (k *Kit) Recorded(t testing.TB) []audit.Record {
	t.Helper()
	var records []audit.Record
	err := audit.Read(k.LogDir, 1, func(r audit.Record) error {
		records = append(records, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// faultyLog is a log that can fail as a full disk makes it.
type faultyLog struct {
	*audit.Log
	fault *Fault
}

// Append fails while the fault is set.
func (l faultyLog) Append(ctx context.Context, e audit.Event) (audit.Record, error) {
	if err := l.fault.now(); err != nil {
		return audit.Record{}, err
	}
	return l.Log.Append(ctx, e)
}

// faultyRecords are records whose writes can fail, as those of a store that became read-only.
type faultyRecords struct {
	store.Records
	fault *Fault
}

// Put fails while the fault is set.
func (r faultyRecords) Put(ctx context.Context, key store.Key, value []byte, version uint64, expires time.Time) (uint64, error) {
	if err := r.fault.now(); err != nil {
		return 0, err
	}
	return r.Records.Put(ctx, key, value, version, expires)
}

// Delete fails while the fault is set.
func (r faultyRecords) Delete(ctx context.Context, key store.Key, version uint64) error {
	if err := r.fault.now(); err != nil {
		return err
	}
	return r.Records.Delete(ctx, key, version)
}
