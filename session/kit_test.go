package session_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/session"
	"gatehouse/session/token"
	"gatehouse/store"
	"gatehouse/store/boltstore"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

const (
	login = "https://login.example.com"
	wiki  = "https://wiki.example.com"
	alice = "00112233445566778899aabbccddeeff"
	bob   = "ffeeddccbbaa99887766554433221100"
)

// clock is a clock that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// line is one gateway's way to the store: it counts, can be cut, and lets a test act in the middle of a read.
type line struct {
	store.Records
	store.Counters
	feed store.Feed

	mu       sync.Mutex
	cut      bool
	gap      bool
	fail     map[string]bool // by operation
	counts   map[string]int
	advanced int
	afterGet func(store.Key) // once
	// beforeDelete runs once.
	beforeDelete func()
	steps        *[]string // shared with the recorder: the order of what is done
}

var errCut = errors.Join(store.ErrUnavailable, errors.New("cut by the test"))

func (l *line) pass(operation string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[operation]++
	if l.cut || l.fail[operation] {
		return errCut
	}
	if l.steps != nil && (operation == "delete" || operation == "publish") {
		*l.steps = append(*l.steps, operation)
	}
	return nil
}

func (l *line) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// operations returns how many there were since the last call, but for reads of the feed.
func (l *line) operations() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := 0
	for _, operation := range []string{"get", "put", "delete", "list", "publish", "advance", "peek"} {
		sum += l.counts[operation]
		l.counts[operation] = 0
	}
	return sum
}

func (l *line) Get(ctx context.Context, key store.Key) (store.Record, error) {
	if err := l.pass("get"); err != nil {
		return store.Record{}, err
	}
	record, err := l.Records.Get(ctx, key)
	l.mu.Lock()
	act := l.afterGet
	l.afterGet = nil
	l.mu.Unlock()
	if act != nil {
		act(key)
	}
	return record, err
}

func (l *line) Put(ctx context.Context, key store.Key, value []byte, version uint64, expires time.Time) (uint64, error) {
	if err := l.pass("put"); err != nil {
		return 0, err
	}
	return l.Records.Put(ctx, key, value, version, expires)
}

func (l *line) Delete(ctx context.Context, key store.Key, version uint64) error {
	l.mu.Lock()
	act := l.beforeDelete
	l.beforeDelete = nil
	l.mu.Unlock()
	if act != nil {
		act()
	}
	if err := l.pass("delete"); err != nil {
		return err
	}
	return l.Records.Delete(ctx, key, version)
}

func (l *line) List(ctx context.Context, collection store.Collection) ([]store.Record, error) {
	if err := l.pass("list"); err != nil {
		return nil, err
	}
	return l.Records.List(ctx, collection)
}

func (l *line) Advance(ctx context.Context, key store.CounterKey, floor, step, ceil int64, keep time.Duration) (int64, bool, error) {
	if err := l.pass("advance"); err != nil {
		return 0, false, err
	}
	value, ok, err := l.Counters.Advance(ctx, key, floor, step, ceil, keep)
	l.set(func() { l.advanced++ })
	return value, ok, err
}

func (l *line) Peek(ctx context.Context, key store.CounterKey) (int64, bool, error) {
	if err := l.pass("peek"); err != nil {
		return 0, false, err
	}
	return l.Counters.Peek(ctx, key)
}

func (l *line) Publish(ctx context.Context, message []byte) (uint64, error) {
	if err := l.pass("publish"); err != nil {
		return 0, err
	}
	return l.feed.Publish(ctx, message)
}

func (l *line) Tail(ctx context.Context) (store.Cursor, error) {
	if err := l.pass("tail"); err != nil {
		return store.Cursor{}, err
	}
	return l.feed.Tail(ctx)
}

func (l *line) Read(ctx context.Context, after store.Cursor, wait time.Duration) ([]store.Message, store.Cursor, error) {
	if err := l.pass("read"); err != nil {
		return nil, after, err
	}
	l.mu.Lock()
	gap := l.gap
	l.gap = false
	l.mu.Unlock()
	if gap {
		return nil, after, store.ErrGap
	}
	messages, next, err := l.feed.Read(ctx, after, min(wait, 20*time.Millisecond)) // so that a cut is noticed at once
	if cut := l.pass("read"); cut != nil {
		return nil, after, cut // a line that is cut loses the answer too
	}
	return messages, next, err
}

// accounts are the accounts of a test.
type accounts struct {
	mu       sync.Mutex
	identity map[string]session.Identity
	disabled map[string]bool
	err      error
}

func (a *accounts) Identity(_ context.Context, userID string) (session.Identity, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	identity, ok := a.identity[userID]
	return identity, ok && !a.disabled[userID], a.err
}

func (a *accounts) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// recorder is the audit log of a test.
type recorder struct {
	mu     sync.Mutex
	events []audit.Event
	err    error
	steps  *[]string
}

func (r *recorder) Append(_ context.Context, event audit.Event) (audit.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return audit.Record{}, r.err
	}
	if r.steps != nil {
		*r.steps = append(*r.steps, "record")
	}
	r.events = append(r.events, event)
	return audit.Record{Event: event}, nil
}

func (r *recorder) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// causes returns the causes of the recorded revocations.
func (r *recorder) causes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.events {
		out = append(out, e.Details["cause"])
	}
	return out
}

// engine is a store without its sealing.
type engine interface {
	store.Records
	store.Counters
	store.Feed
	Close() error
}

// house is a store and what its gateways share.
type house struct {
	clock    *clock
	store    engine
	redis    *storetest.Server // nil on bolt
	dir      string
	keys     *token.KeySet
	accounts *accounts
}

// gateway is one gateway of the house.
type gateway struct {
	*session.Manager
	line     *line
	recorder *recorder
}

func newHouse(tb testing.TB) *house {
	tb.Helper()
	h := &house{clock: &clock{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}, accounts: &accounts{
		identity: map[string]session.Identity{
			alice: {UserID: alice, Name: "alice", DisplayName: "Alice Liddell", Email: "alice@example.com", Groups: []string{"staff"}},
			bob:   {UserID: bob, Name: "bob"},
		}, disabled: map[string]bool{},
	}}
	h.dir = tb.TempDir()
	db, err := boltstore.Open(tb.Context(), boltstore.Options{Path: filepath.Join(h.dir, "store.db"), Now: h.clock.Now})
	if err != nil {
		tb.Fatal(err)
	}
	h.store = db
	tb.Cleanup(func() { _ = h.store.Close() })
	if h.keys, err = token.NewKeySet(h.clock.Now()); err != nil {
		tb.Fatal(err)
	}
	return h
}

// newRedisHouse is a house on a real Redis, reached through a proxy that can fail.
func newRedisHouse(t *testing.T) (*house, *storetest.Proxy) {
	t.Helper()
	h := newHouse(t)
	h.redis = storetest.Redis(t)
	way := storetest.FaultProxy(t, h.redis.Addr())
	h.store = connect(t, h, way.URL())
	return h, way
}

// connect opens a Redis for one gateway.
func connect(t *testing.T, h *house, url string) engine {
	t.Helper()
	db, err := redisstore.Open(t.Context(), redisstore.Options{URL: url, Now: h.clock.Now, Logger: discardLogger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// gateway makes a gateway that does not follow the feed.
func (h *house) gateway(tb testing.TB, change ...func(*session.Options)) *gateway {
	tb.Helper()
	g := &gateway{recorder: &recorder{}, line: &line{
		Records: h.store, Counters: h.store, feed: h.store, fail: map[string]bool{}, counts: map[string]int{},
	}}
	o := session.Options{
		Records: g.line, Counters: g.line, Feed: g.line, Keys: h.keys, HandleKey: []byte("0123456789abcdef0123456789abcdef"), Issuer: login,
		Accounts: h.accounts, Recorder: g.recorder, Now: h.clock.Now, Logger: discardLogger,
	}
	for _, c := range change {
		c(&o)
	}
	var err error
	if g.Manager, err = session.New(o); err != nil {
		tb.Fatal(err)
	}
	return g
}

// running makes a gateway that follows the feed and is in step.
func (h *house) running(tb testing.TB, change ...func(*session.Options)) *gateway {
	tb.Helper()
	g := h.gateway(tb, change...)
	g.start(tb)
	return g
}

// start makes a gateway follow the feed, until the end of the test.
func (g *gateway) start(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { g.Run(ctx) })
	tb.Cleanup(func() {
		cancel()
		done.Wait()
	})
	eventually(tb, "the gateway to be in step", g.InStep)
}

// eventually waits for what another goroutine does.
func eventually(tb testing.TB, what string, happened func() bool) {
	tb.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !happened() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (h *house) grant(userID string) session.Grant {
	h.accounts.mu.Lock()
	defer h.accounts.mu.Unlock()
	return session.Grant{
		Identity: h.accounts.identity[userID], Methods: []string{"pwd", "otp"}, AuthTime: h.clock.Now(), Origin: wiki,
		DeviceID: "device", ClientAddress: "192.0.2.1", UserAgent: "test",
	}
}

// signIn is a complete login at a gateway.
func (h *house) signIn(tb testing.TB, g *gateway, userID string) session.Credentials {
	tb.Helper()
	prepared, err := g.Prepare(tb.Context(), h.grant(userID))
	if err != nil {
		tb.Fatal(err)
	}
	credentials, err := g.Activate(tb.Context(), prepared)
	if err != nil {
		tb.Fatal(err)
	}
	return credentials
}

// request carries Cookie and other headers as name and value in turn.
func request(headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// browser is a request with the cookies that a login set.
func browser(c session.Credentials) *http.Request { return withCookies(c.Cookies...) }

func withCookies(cookies ...*http.Cookie) *http.Request {
	line := ""
	for _, c := range cookies {
		if line != "" {
			line += "; "
		}
		line += c.Name + "=" + c.Value
	}
	return request("Cookie", line)
}

func authenticate(tb testing.TB, g *gateway, r *http.Request) (session.Principal, error) {
	tb.Helper()
	return g.Authenticate(tb.Context(), r, wiki)
}

func wantErr(tb testing.TB, what string, got, want error) {
	tb.Helper()
	if !errors.Is(got, want) || (want == nil && got != nil) {
		tb.Errorf("%s: got %v, want %v", what, got, want)
	}
}

var logout = audit.Event{Kind: audit.KindLogout, Outcome: audit.Success, Actor: audit.Actor{Type: audit.ActorUser, ID: alice}}

var discardLogger = slog.New(slog.DiscardHandler)

// discard takes every write and holds nothing.
type discard struct{ store.Records }

func (discard) Put(context.Context, store.Key, []byte, uint64, time.Time) (uint64, error) {
	return 1, nil
}

// jarOf is a browser's cookies of one host, by name.
type jarOf map[string]*http.Cookie

func newJar(cookies []*http.Cookie) jarOf {
	j := jarOf{}
	j.keep(cookies)
	return j
}

func (j jarOf) keep(cookies []*http.Cookie) {
	for _, c := range cookies {
		j[c.Name] = c
	}
}

func (j jarOf) copy() jarOf { return maps.Clone(j) }

func (j jarOf) request() *http.Request {
	return withCookies(slices.Collect(maps.Values(j))...)
}

// renew renews at the host of the login, and keeps the cookies.
func (j jarOf) renew(tb testing.TB, g *gateway) (session.Principal, []*http.Cookie, error) {
	tb.Helper()
	p, cookies, err := g.Renew(tb.Context(), j.request(), wiki)
	j.keep(cookies)
	return p, cookies, err
}
