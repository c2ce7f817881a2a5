package auth_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/crypto/bcrypt"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/device"
	"gatehouse/auth/link"
	"gatehouse/auth/lockout"
	"gatehouse/auth/password"
	gatetotp "gatehouse/auth/totp"
	"gatehouse/auth/user"
	"gatehouse/ratelimit"
	"gatehouse/session"
	"gatehouse/session/token"
	"gatehouse/store"
	"gatehouse/store/boltstore"
)

const (
	right  = "violet herons wade nine"
	wrong  = "not the right password"
	origin = "http://localhost:8080"
)

// discard is a logger that nobody reads.
var discard = slog.New(slog.DiscardHandler)

// clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// spy stands around the real parts of a flow: it sees every call in its order, and what before returns for a call happens
// instead of it. Calls are named as in "reserve password", those of records as in "get users".
type spy struct {
	mu     sync.Mutex
	before func(call string) error // guarded by mu; may be nil
	after  func(call string) error // guarded by mu; may be nil; of writes to records
	events []audit.Event           // guarded by mu; what was recorded or counted
	how    []string                // guarded by mu; of each event: "appended" or "counted"
}

func (s *spy) note(call string) error {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(call)
}

// did is told of each write that happened; what after returns is what the caller is told.
func (s *spy) did(call string) error {
	s.mu.Lock()
	after := s.after
	s.mu.Unlock()
	if after == nil {
		return nil
	}
	return after(call)
}

// on sets what happens before each call.
func (s *spy) on(before func(call string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// fail makes the named call return err from now on.
func (s *spy) fail(call string, err error) {
	s.on(func(c string) error {
		if c == call {
			return err
		}
		return nil
	})
}

var errDown = errors.Join(store.ErrUnavailable, errors.New("down for the test"))

type spyRecords struct {
	store.Records
	*spy
}

// kind is what the keys of a record have in common: "users", "name", "history", "lockout" and so on.
func kind(key store.Key) string {
	text := string(key.Collection)
	if text == "" {
		text = key.ID
	}
	text, _, _ = strings.Cut(text, "/")
	return text
}

func (s spyRecords) Get(ctx context.Context, key store.Key) (store.Record, error) {
	if err := s.note("get " + kind(key)); err != nil {
		return store.Record{}, err
	}
	return s.Records.Get(ctx, key)
}

func (s spyRecords) Put(ctx context.Context, key store.Key, value []byte, version uint64, expires time.Time) (uint64, error) {
	if err := s.note("put " + kind(key)); err != nil {
		return 0, err
	}
	next, err := s.Records.Put(ctx, key, value, version, expires)
	if err == nil {
		err = s.did("put " + kind(key))
	}
	return next, err
}

func (s spyRecords) Delete(ctx context.Context, key store.Key, version uint64) error {
	if err := s.note("delete " + kind(key)); err != nil {
		return err
	}
	if err := s.Records.Delete(ctx, key, version); err != nil {
		return err
	}
	return s.did("delete " + kind(key))
}

type spyCounters struct {
	store.Counters
	*spy
}

func (s spyCounters) Advance(ctx context.Context, key store.CounterKey, floor, step, ceil int64, keep time.Duration) (int64, bool, error) {
	if err := s.note("use up code"); err != nil {
		return 0, false, err
	}
	return s.Counters.Advance(ctx, key, floor, step, ceil, keep)
}

type spyRateLimit struct {
	*ratelimit.Limiter
	*spy
}

func (s spyRateLimit) Take(ctx context.Context, address netip.Addr) (ratelimit.Token, error) {
	if err := s.note("take token"); err != nil {
		return ratelimit.Token{}, err
	}
	return s.Limiter.Take(ctx, address)
}

func (s spyRateLimit) GiveBack(ctx context.Context, t ratelimit.Token) error {
	if err := s.note("give back token"); err != nil {
		return err
	}
	return s.Limiter.GiveBack(ctx, t)
}

type spyWindows struct {
	*lockout.Windows
	*spy
	what string
}

func (s spyWindows) Reserve(ctx context.Context, subject, class string) (lockout.Reservation, error) {
	if err := s.note("reserve " + s.what); err != nil {
		return lockout.Reservation{}, err
	}
	return s.Windows.Reserve(ctx, subject, class)
}

func (s spyWindows) Settle(ctx context.Context, r lockout.Reservation, how lockout.Outcome) (lockout.Settled, error) {
	if err := s.note("settle " + s.what); err != nil {
		return lockout.Settled{}, err
	}
	return s.Windows.Settle(ctx, r, how)
}

type spySessions struct {
	*session.Manager
	*spy
}

func (s spySessions) Prepare(ctx context.Context, g session.Grant) (*session.Prepared, error) {
	if err := s.note("prepare session"); err != nil {
		return nil, err
	}
	return s.Manager.Prepare(ctx, g)
}

func (s spySessions) Activate(ctx context.Context, p *session.Prepared) (session.Credentials, error) {
	if err := s.note("mark session live"); err != nil {
		return session.Credentials{}, err
	}
	return s.Manager.Activate(ctx, p)
}

func (s spySessions) StepUp(ctx context.Context, up session.StepUp) (session.Principal, []*http.Cookie, error) {
	if err := s.note("step session up"); err != nil {
		return session.Principal{}, nil, err
	}
	return s.Manager.StepUp(ctx, up)
}

type spyLog struct {
	*audit.Log
	*spy
}

func (s spyLog) Append(ctx context.Context, e audit.Event) (audit.Record, error) {
	if err := s.note("append record"); err != nil {
		return audit.Record{}, err
	}
	record, err := s.Log.Append(ctx, e)
	if err == nil {
		s.saw(e, "appended")
	}
	return record, err
}

func (s spyLog) Count(e audit.Event) {
	s.Log.Count(e)
	s.saw(e, "counted")
}

func (s *spy) saw(e audit.Event, how string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events, s.how = append(s.events, e), append(s.how, how)
}

// last is the newest event and how it was written.
func (s *spy) last() (audit.Event, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) == 0 {
		return audit.Event{}, "nothing"
	}
	return s.events[len(s.events)-1], s.how[len(s.how)-1]
}

// engine is a store, whichever.
type engine interface {
	store.Records
	store.Counters
	store.Feed
}

// rig is a flow over the real parts, on a store file and an audit log of its own.
type rig struct {
	*auth.Flow
	t         testing.TB
	clock     *clock
	spy       *spy
	store     engine
	users     *user.Store
	passwords *lockout.Windows
	codes     *lockout.Windows
	devices   *device.Service
	pool      *password.Pool
	sessions  *session.Manager
	log       *audit.Log
	logDir    string
	onboard   *auth.Onboarding
	links     *link.Service
}

// options of a rig; the zero options require a second factor.
type options struct {
	optional   bool // the second factor
	runLimit   int
	perAccount int // places in the pool
	line       int // places in its line
	cost       int
}

func newRig(t testing.TB, o options) *rig {
	t.Helper()
	c := &clock{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
	dir := t.TempDir()
	db, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(dir, "db"), Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	logDir := filepath.Join(dir, "audit")
	log, err := audit.Open(audit.Options{Dir: logDir, Node: "test", Now: c.Now, Logger: slog.New(slog.DiscardHandler), Reserve: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	r := assemble(t, o, c, db, log)
	r.logDir = logDir
	return r
}

// assemble puts a flow together, a second gateway's over the same store where it is called again.
func assemble(t testing.TB, o options, c *clock, db engine, log *audit.Log) *rig {
	t.Helper()
	s := &spy{}
	records := spyRecords{db, s}
	r := &rig{
		t: t, clock: c, spy: s, store: db, log: log,
		users: user.NewStore(user.Options{Records: records, Now: c.Now, NameKey: key('n')}),
		passwords: lockout.New(lockout.Options{
			Records: db, Now: c.Now, Key: store.LockoutKey, Shard: store.LockoutShard, RunLimit: o.runLimit,
		}),
		codes:   lockout.New(lockout.Options{Records: db, Now: c.Now, Key: store.CodesKey, Shard: store.CodesShard}),
		devices: device.New(device.Options{Records: records, Now: c.Now, Key: key('d')}),
		pool:    password.NewPool(password.PoolOptions{PerAccount: o.perAccount, Line: o.line}),
	}
	t.Cleanup(r.pool.Close)
	r.sessions = r.manager()
	cost := max(o.cost, bcrypt.MinCost)
	r.Flow = auth.New(auth.Options{
		RateLimit: spyRateLimit{ratelimit.New(ratelimit.Options{Counters: db, Now: c.Now}), s},
		Pool:      r.pool, Hasher: password.NewHasher(password.HasherOptions{Pepper: key('p'), Cost: cost}), Users: r.users,
		Passwords: spyWindows{r.passwords, s, "password"}, Codes: spyWindows{r.codes, s, "code"},
		TOTP:    gatetotp.New(gatetotp.Options{Counters: spyCounters{db, s}, Now: c.Now, Issuer: "test"}),
		Devices: r.devices, Sessions: spySessions{r.sessions, s}, Audit: spyLog{log, s}, Pending: records, Upgrades: &auth.Upgrades{},
		FactorRequired: !o.optional, Now: c.Now, Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(r.Upgrades.Wait)
	r.links = link.New(link.Options{Records: records, Now: c.Now})
	r.onboard = auth.NewOnboarding(r.Flow, auth.OnboardingOptions{Links: r.links, Policy: password.DefaultPolicy, Host: "login.example.org"})
	return r
}

func (r *rig) manager() *session.Manager {
	r.t.Helper()
	keys, err := token.NewKeySet(r.clock.Now())
	r.must(err)
	m, err := session.New(session.Options{
		Records: r.store, Counters: r.store, Feed: r.store, Keys: keys, HandleKey: key('h'), Issuer: origin, Accounts: accounts{r.users}, Recorder: r.log,
		Now: r.clock.Now, Logger: slog.New(slog.DiscardHandler),
	})
	r.must(err)
	return m
}

type accounts struct{ users *user.Store }

func (a accounts) Identity(ctx context.Context, userID string) (session.Identity, bool, error) {
	u, err := a.users.ByID(ctx, userID)
	return auth.Identity(u), err == nil && !u.Disabled, err
}

// key is 32 bytes that are good enough for a test.
func key(c byte) []byte { return []byte(strings.Repeat(string(c), 32)) }

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// secret is the authenticator seed of every enrolled account of these tests.
const secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"

// add makes an account with the right password, enrolled or not.
func (r *rig) add(name string, enrolled bool) user.User {
	r.t.Helper()
	hash, err := r.Hasher.Hash(right)
	r.must(err)
	u := user.User{Name: name, PasswordHash: hash}
	if enrolled {
		u.TOTP = &user.TOTP{ID: "enrolment-of-" + name, Secret: secret, EnrolledAt: r.clock.Now()}
	}
	u, err = r.users.Add(r.t.Context(), u)
	r.must(err)
	return u
}

// change edits an account.
func (r *rig) change(id string, edit func(*user.User)) {
	r.t.Helper()
	_, err := r.users.Change(r.t.Context(), id, func(u *user.User) error { edit(u); return nil })
	r.must(err)
}

// code is the current code.
func (r *rig) code() string { return r.codeAt(0) }

// codeAt is the code of a time step before or after the current one.
func (r *rig) codeAt(steps int) string {
	r.t.Helper()
	code, err := totp.GenerateCode(secret, r.clock.Now().Add(time.Duration(steps)*30*time.Second))
	r.must(err)
	return code
}

// home is where the owner sits; abroad is another network.
var (
	home   = auth.Client{Address: netip.MustParseAddr("192.0.2.7"), Network: netip.MustParsePrefix("192.0.2.0/24"), Origin: origin, UserAgent: "test", RequestID: "r"}
	abroad = auth.Client{Address: netip.MustParseAddr("198.51.100.9"), Network: netip.MustParsePrefix("198.51.100.0/24"), Origin: origin, UserAgent: "test", RequestID: "r"}
)

// at is a client at home with another address, for more attempts than one bucket has tokens.
func at(n int) auth.Client {
	c := home
	c.Address = netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return c
}

// try runs one attempt.
func (r *rig) try(c auth.Client, p auth.Presented) auth.Outcome {
	return r.Login(r.t.Context(), c, func() (auth.Presented, error) { return p, nil })
}

// password presents a name and a password.
func (r *rig) password(c auth.Client, name, pass string) auth.Outcome {
	return r.try(c, auth.Presented{Username: name, Password: pass})
}

// signIn completes a login with password and code, and returns the client with its device cookie. Afterwards the code of the
// next step is good.
func (r *rig) signIn(c auth.Client, name string) auth.Client {
	r.t.Helper()
	out := r.try(c, auth.Presented{Username: name, Password: right, Code: r.code()})
	if out.Code != "" {
		r.t.Fatalf("sign in as %s: %s, trace %+v", name, out.Code, out.Trace)
	}
	r.clock.add(time.Minute)
	c.DeviceCookie = out.DeviceCookie
	return c
}

// guess presents n wrong passwords, each from an address of its own.
func (r *rig) guess(name string, n int) {
	r.t.Helper()
	for i := range n {
		c := at(i)
		if out := r.password(c, name, wrong); out.Code != "invalid-credentials" {
			r.t.Fatalf("guess %d: %s, trace %+v", i, out.Code, out.Trace)
		}
	}
}

// failures is how many failures the windows of an account's name hold, over all client classes.
func (r *rig) failures(name string) int {
	r.t.Helper()
	return r.count(r.passwords, r.users.NameTag(name))
}

// wrongCodes is how many wrong codes the windows of an account hold.
func (r *rig) wrongCodes(id string) int {
	r.t.Helper()
	return r.count(r.codes, id)
}

func (r *rig) count(w *lockout.Windows, subject string) int {
	r.t.Helper()
	all, err := w.Status(r.t.Context(), subject)
	r.must(err)
	n := 0
	for _, s := range all {
		n += s.Failures
	}
	return n
}

func (r *rig) liveSessions(id string) int {
	r.t.Helper()
	all, err := r.sessions.List(r.t.Context(), id)
	r.must(err)
	return len(all)
}
