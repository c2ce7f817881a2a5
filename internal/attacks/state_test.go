package attacks_test

import (
	"encoding/hex"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/store"
	"gatehouse/store/storetest"
)

// thief is somebody who can read and write the Redis behind a gateway, and has no key.
type thief struct {
	t      *testing.T
	server *storetest.Server
}

// key is one record behind the engine's back: a Redis key, and a field where it is a hash.
type key struct{ name, field string }

func (h thief) get(k key) string {
	h.t.Helper()
	if k.field == "" {
		return h.server.MustDo("GET", k.name)
	}
	return h.server.MustDo("HGET", k.name, k.field)
}

func (h thief) set(k key, value string) {
	h.t.Helper()
	if k.field == "" {
		h.server.MustDo("SET", k.name, value, "KEEPTTL")
		return
	}
	h.server.MustDo("HSET", k.name, k.field, value)
}

// lines runs a script that returns lines.
func (h thief) lines(script string, args ...string) []string {
	h.t.Helper()
	text := h.server.MustDo(slices.Concat([]string{"EVAL", script, "0"}, args)...)
	return strings.Fields(text)
}

// keys are the keys that match a pattern.
func (h thief) keys(pattern string) []string {
	h.t.Helper()
	return h.lines(`return table.concat(redis.call('KEYS', ARGV[1]), '\n')`, store.Prefix+pattern)
}

// only is the one key that matches, and the one field in it, if it is a hash.
func (h thief) only(pattern string) key {
	h.t.Helper()
	found := h.keys(pattern)
	if len(found) != 1 {
		h.t.Fatalf("%d keys match %s", len(found), pattern)
	}
	if h.server.MustDo("TYPE", found[0]) != "+hash" {
		return key{name: found[0]}
	}
	fields := h.lines(`return table.concat(redis.call('HKEYS', ARGV[1]), '\n')`, found[0])
	if len(fields) != 1 {
		h.t.Fatalf("%s has %d fields", found[0], len(fields))
	}
	return key{found[0], fields[0]}
}

// with plants a value, does something, and puts back what was there.
func (h thief) with(k key, value string, do func()) {
	h.t.Helper()
	before := h.get(k)
	h.set(k, value)
	do()
	h.set(k, before)
}

// header is what stands before the sealed part of a record: version and expiry.
const header = 16

// shop is two gateways on one Redis with two accounts, and a thief behind them.
type shop struct {
	thief
	one, other   *gatewaytest.Gateway
	ids, secrets map[string]string
	names        map[string]key // the records that lead from a name to an account
	from         int            // addresses used so far; each has its own bucket
}

func newShop(t *testing.T) *shop {
	one, other, server := two(t)
	s := &shop{thief: thief{t, server}, one: one, other: other, ids: map[string]string{}, secrets: map[string]string{}, names: map[string]key{}}
	for _, name := range []string{"alice", "bob"} {
		before := s.keys("name/*")
		one.AddUser(name)
		for _, k := range s.keys("name/*") {
			if !slices.Contains(before, k) {
				s.names[name] = key{name: k}
			}
		}
		s.secrets[name] = one.Enrol(name)
		u, err := one.Admin.User(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		s.ids[name] = u.ID
	}
	return s
}

// login is a login with bob's code, from an address of its own.
func (s *shop) login(name, password string) gatewaytest.Answer {
	s.from++
	s.one.Clock.Add(time.Minute)
	return s.one.NewBrowser().At("192.0.2."+decimal(s.from)).Login(name, password, s.one.Code(s.secrets["bob"]))
}

// refused logs in as alice with the right password, which must not be decided on what the thief has written.
func (s *shop) refused(what string) func() {
	return func() {
		s.t.Helper()
		wantProblem(s.t, what, s.login("alice", gatewaytest.Password), problem.Unavailable)
	}
}

// RD-09: what somebody writes who can write to the store but has no key is refused, and never believed.
func TestState_forgedAccountsAreRefused(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	alice, bob := key{store.Prefix + "users", s.ids["alice"]}, key{store.Prefix + "users", s.ids["bob"]}
	genuine := s.get(alice)
	s.with(alice, s.get(bob), s.refused("alice's record is a copy of bob's"))
	s.with(s.names["alice"], s.get(s.names["bob"]), s.refused("alice's name leads to bob's id"))
	s.with(alice, genuine[:header]+`{"name":"alice","password_hash":"","totp":null}`, s.refused("a record that is not sealed"))
	s.with(alice, genuine[:header]+s.get(s.names["alice"])[header:], s.refused("a record of another kind"))
	flipped := []byte(genuine)
	flipped[len(flipped)-1] ^= 1
	s.with(alice, string(flipped), s.refused("one bit flipped"))
	s.with(alice, genuine[:header+8], s.refused("cut off"))
	s.with(alice, "x", s.refused("not even a header"))
	s.with(key{name: store.Prefix + "password-cost"}, s.get(s.names["bob"]), s.refused("a cost that is not one"))

	for _, r := range s.one.Logins() {
		if r.Outcome == audit.Success {
			t.Errorf("a login succeeded on forged state: %+v", r)
		}
	}
	eventually(t, "the log to tell of records that do not open", 5*time.Second, func() bool { // it is written each second
		return slices.ContainsFunc(s.one.Records(), func(r audit.Record) bool {
			return r.Kind == audit.KindStateRefused && r.Severity == audit.High
		})
	})
	s.one.SignIn("alice", s.secrets["alice"]) // all is as it was
}

// A lock cannot be replaced by a window without one, nor by a plain one.
func TestState_forgedLocksAreRefused(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for range 5 {
		s.login("alice", "not the password")
	}
	locked := s.only("lockout/*")
	s.login("nobody-1", "not the password")
	var open key
	for _, name := range s.keys("lockout/*") {
		for _, field := range s.lines(`return table.concat(redis.call('HKEYS', ARGV[1]), '\n')`, name) {
			if field != locked.field {
				open = key{name, field}
			}
		}
	}
	ran := s.one.Verifications()
	s.with(locked, s.get(open), s.refused("the lock is another name's window"))
	s.with(locked, s.get(locked)[:header]+`{}`, s.refused("the lock is a plain one"))
	if s.one.Verifications() != ran {
		t.Error("a password was verified beside a lock that cannot be read")
	}
	wantProblem(t, "as it was", s.login("alice", gatewaytest.Password), problem.Locked)
}

// Nobody gets another's session, nor a longer one.
func TestState_forgedSessionsAreRefused(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.one.SignIn("alice", s.secrets["alice"])
	attacker := s.one.SignIn("bob", s.secrets["bob"])
	hers, his := s.only("sessions/"+s.ids["alice"]), s.only("sessions/"+s.ids["bob"])
	refused := func(what string) func() {
		return func() {
			t.Helper()
			wantStatus(t, what, attacker.Copy().Through(s.other).Get("/"), http.StatusServiceUnavailable)
		}
	}
	s.with(his, s.get(hers), refused("bob's session is a copy of alice's"))
	longer := []byte(s.get(his))
	copy(longer[8:header], "\x00\x7f\xff\xff\xff\xff\xff\xff")
	s.with(his, string(longer), refused("bob's session ends in the year 293000"))
	if len(s.other.Upstream.Requests()) != 0 {
		t.Errorf("the app saw %v", s.other.Upstream.Requests())
	}
	wantStatus(t, "as it was", attacker.Copy().Through(s.other).Get("/"), http.StatusOK)
}

// A message that is not ours, and a feed that was deleted, end nobody's session, and the next logout is heard.
func TestState_forgedMessagesAreNotHeard(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	owner := s.one.SignIn("alice", s.secrets["alice"])
	for what, harm := range map[string]func(){
		"forged message": func() {
			s.server.MustDo("XADD", store.Prefix+store.FeedKey, "*", "tag", "x", "previous", "y", "at", "1",
				"message", `{"kind":"sessions-ended","user":"`+s.ids["alice"]+`","before":9000000000000000}`)
		},
		"deleted feed": func() { s.server.MustDo("DEL", store.Prefix+store.FeedKey) },
	} {
		harm()
		wantStatus(t, "after the "+what, owner.Get("/"), http.StatusOK)
		for _, g := range []*gatewaytest.Gateway{s.one, s.other} {
			eventually(t, "the gateways to be in step after the "+what, 10*time.Second, func() bool {
				return strings.Contains(g.NewBrowser().Do(http.MethodGet, "/.gatehouse/readyz", nil, nil).Text, `"feed":{"state":"ok"`)
			})
		}
		leaver := s.one.SignIn("alice", s.secrets["alice"])
		there := leaver.Copy().Through(s.other)
		wantStatus(t, "at the other gateway, after the "+what, there.Get("/"), http.StatusOK)
		wantStatus(t, "sign out", leaver.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil), http.StatusNoContent)
		eventually(t, "the logout to arrive", 2*time.Second, func() bool { return there.Get("/").StatusCode == http.StatusFound })
	}
}

// What a gateway needs to start cannot be forged either.
func TestState_forgedKeysAreRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	server, rootKey := storetest.Redis(t), gatewaytest.RootKey()
	h := thief{t, server}
	startOn(t, server.URL(), rootKey, gatewaytest.NewClock()).Stop()
	start := func(what string) func() {
		return func() {
			t.Helper()
			if _, err := gatewaytest.Try(t, gatewaytest.Options{Redis: server.URL(), RootKey: rootKey, External: site}); err == nil {
				t.Errorf("%s: it started", what)
			}
		}
	}
	material := func(name string) key { return key{store.Prefix + "material", name} }
	h.with(material("signing"), h.get(material("handle")), start("the signing key is the handle key"))
	h.with(material("pepper"), h.get(material("pepper"))[:header]+strings.Repeat("\x00", 32), start("a pepper of zeros"))
	keyring := key{name: store.Prefix + "keyring"}
	h.with(keyring, h.get(keyring)[:header]+hex.EncodeToString(make([]byte, 32)), start("a keyring of the thief's"))
	h.with(keyring, h.get(material("pepper")), start("a keyring that is something else"))
	startOn(t, server.URL(), rootKey, gatewaytest.NewClock())
}

// RD-13: a key that holds another type of value.
func TestState_wrongTypesAreRefused(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	g := startOn(t, server.URL(), gatewaytest.RootKey(), gatewaytest.NewClock())
	h := thief{t, server}
	g.AddUser("alice")
	g.NewBrowser().At("192.0.2.1").Login("alice", "not the password", "")
	for i, pattern := range []string{"users", "name/*", "lockout/*", "password-cost", "bucket/192.0.2.1*"} {
		name := h.keys(pattern)[0]
		server.MustDo("RENAME", name, "kept")
		server.MustDo("SADD", name, "not what it should be")
		ran := g.Verifications()
		answer := g.NewBrowser().At("192.0.2.1").Login("alice", gatewaytest.Password, "")
		wantProblem(t, pattern, answer, problem.Unavailable)
		if g.Verifications() != ran {
			t.Errorf("%s (%d): a password was verified", pattern, i)
		}
		server.MustDo("RENAME", "kept", name)
	}
	wantProblem(t, "as it was", g.NewBrowser().At("192.0.2.1").Login("alice", gatewaytest.Password, ""), problem.EnrolmentRequired)
}

// lifetime reads the longest time that docs/state.md gives a key, from its words; false if the key is kept.
func lifetime(t *testing.T, words string) (time.Duration, bool) {
	t.Helper()
	if strings.HasPrefix(words, "kept") {
		return 0, false
	}
	units := map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}
	var longest time.Duration
	for _, found := range regexp.MustCompile(`(\d+) (minute|hour|day)`).FindAllStringSubmatch(words, -1) {
		n, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Duration(n)*units[found[2]])
	}
	switch {
	case strings.Contains(words, "absolute limit"):
		longest = max(longest, 24*time.Hour)
	case strings.Contains(words, "bucket is full"):
		longest = max(longest, 4*time.Minute) // 40 tokens, 6 s each
	}
	if longest == 0 {
		t.Errorf("the lifetime %q names no time", words)
	}
	return longest, true
}

// RD-10: after a day in the life, every key of the store is one that docs/state.md lists, of that type and with that lifetime.
func TestState_everyKeyHasTheLifetimeOfItsKind(t *testing.T) {
	t.Parallel()
	one, other, server := two(t)
	one.AddUser("alice", "staff")
	secret := one.Enrol("alice")
	b := one.SignIn("alice", secret)
	b.Through(other).Get("/")
	one.Clock.Add(6 * time.Minute)
	wantStatus(t, "renewal", b.Get("/"), http.StatusOK)
	one.NewBrowser().At("2001:db8::1").Login("alice", "not the password", "")
	one.NewBrowser().At("2001:db8::1").Login("nobody-1", "not the password", "")
	one.NewBrowser().At("192.0.2.1").Login("alice", gatewaytest.Password, "000000")
	one.NewBrowser().At("192.0.2.1").Login("alice", gatewaytest.Password, "")
	other.SignIn("alice", secret).Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil)
	if _, err := one.Admin.RevokeSessions(t.Context(), "alice", "test"); err != nil {
		t.Fatal(err)
	}
	one.SignIn("alice", secret)

	h, seen := thief{t, server}, map[string]int{}
	types := map[string][]string{"record": {"+string"}, "counter": {"+string"}, "collection": {"+hash"}, "feed": {"+stream"}}
	for _, name := range h.keys("*") {
		kind := kindOf(strings.TrimPrefix(name, store.Prefix))
		if kind == nil {
			t.Errorf("no kind in docs/state.md for %s", name)
			continue
		}
		seen[kind.Pattern]++
		if got := server.MustDo("TYPE", name); !slices.Contains(types[kind.Type], got) {
			t.Errorf("%s is %s, listed as %s", name, got, kind.Type)
		}
		left, err := strconv.ParseInt(strings.TrimPrefix(server.MustDo("PTTL", name), ":"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		most, ends := lifetime(t, kind.Lifetime)
		switch {
		case !ends && left != -1:
			t.Errorf("%s ends in %d ms; it is to be kept", name, left)
		// A margin of the engine, a lost attempt's half minute, and a second's rounding.
		case ends && (left <= 0 || time.Duration(left)*time.Millisecond > most+store.GarbageMargin+time.Minute):
			t.Errorf("%s ends in %d ms; listed: %s", name, left, kind.Lifetime)
		}
	}
	for _, kind := range store.Kinds {
		t.Logf("%3d keys of %s, %s", seen[kind.Pattern], kind.Pattern, kind.Lifetime)
	}
	if foreign := h.lines(`
local keys = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if string.sub(key, 1, #ARGV[1]) ~= ARGV[1] then keys[#keys + 1] = key end
end
return table.concat(keys, '\n')`, store.Prefix); len(foreign) > 0 {
		t.Errorf("keys outside our prefix: %v", foreign)
	}
}

// kindOf finds the kind of a Redis key without its prefix: the one with the longest fixed start.
func kindOf(name string) *store.Kind {
	var best *store.Kind
	fixed := ""
	for i := range store.Kinds {
		pattern, _, _ := strings.Cut(store.Kinds[i].Pattern, " <") // of a collection, the hash
		start, _, open := strings.Cut(pattern, "<")
		if (name == start || open && strings.HasPrefix(name, start)) && len(start) >= len(fixed) {
			best, fixed = &store.Kinds[i], start
		}
	}
	return best
}
