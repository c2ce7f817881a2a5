package device_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"gatehouse/auth/device"
	"gatehouse/store"
	"gatehouse/store/boltstore"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const (
	alice   = "a11ce000000000000000000000000000"
	bob     = "b0b00000000000000000000000000000"
	phone   = "d0000000000000000000000000000001"
	laptop  = "d0000000000000000000000000000002"
	day     = 24 * time.Hour
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
)

var home = netip.MustParsePrefix("192.168.1.0/24")

func service(t testing.TB, c *clock) *device.Service {
	t.Helper()
	s, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(t.TempDir(), "store.db"), Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return device.New(device.Options{Records: s, Now: c.Now, Key: key('k')})
}

// cookies makes and reads cookies only; it has no store that could be asked.
func cookies(b byte) *device.Service { return device.New(device.Options{Key: key(b)}) }

func key(b byte) []byte { return []byte(strings.Repeat(string(b), 32)) }

func remember(t *testing.T, s *device.Service, userID, deviceID string, network netip.Prefix) string {
	t.Helper()
	id, err := s.Remember(t.Context(), userID, deviceID, network, firefox)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func load(t *testing.T, s *device.Service, userID string) device.History {
	t.Helper()
	h, err := s.Load(t.Context(), userID)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestService_remembersDeviceAndNetwork(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := service(t, c)
	if h := load(t, s, alice); h.KnowsDevice("") || h.KnowsNetwork(home) || len(h.Devices()) != 0 {
		t.Fatalf("got %+v, want an empty history", h)
	}
	id := remember(t, s, alice, "", home)
	c.Add(time.Hour)
	if again := remember(t, s, alice, id, netip.MustParsePrefix("2001:db8::/64")); again != id {
		t.Errorf("got id %s, want %s: the device is known", again, id)
	}
	h := load(t, s, alice)
	if !h.KnowsDevice(id) || !h.KnowsNetwork(home) || !h.KnowsNetwork(netip.MustParsePrefix("2001:db8::1/64")) {
		t.Errorf("got %+v, want device and both networks known", h)
	}
	if h.KnowsDevice(phone) || h.KnowsNetwork(netip.MustParsePrefix("10.0.0.0/24")) || h.KnowsNetwork(netip.Prefix{}) {
		t.Errorf("got %+v, want nothing else known", h)
	}
	want := device.Device{ID: id, First: c.Now().Add(-time.Hour), Last: c.Now(), Agent: firefox}
	if got := h.Devices(); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if h := load(t, s, bob); h.KnowsDevice(id) || h.KnowsNetwork(home) {
		t.Error("another account knows alice's device or network")
	}
}

func TestService_knowsFor180Days(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := service(t, c)
	old := remember(t, s, alice, "", home)
	c.Add(100 * day)
	young := remember(t, s, alice, "", netip.MustParsePrefix("10.0.0.0/24"))
	c.Add(80*day - time.Second)
	if h := load(t, s, alice); !h.KnowsDevice(old) || !h.KnowsNetwork(home) {
		t.Error("forgotten before 180 days")
	}
	c.Add(time.Second)
	if h := load(t, s, alice); h.KnowsDevice(old) || h.KnowsNetwork(home) || !h.KnowsDevice(young) {
		t.Error("want the old device and network forgotten, the young one known")
	}
	c.Add(100 * day)
	if h := load(t, s, alice); len(h.Devices()) != 0 {
		t.Errorf("got %+v, want nothing", h.Devices())
	}
}

// A copy of a cookie that was ended must not come back to life with the owner's next login.
func TestService_forgottenDeviceGetsANewID(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := service(t, c)
	id := remember(t, s, alice, "", home)
	if err := s.Forget(t.Context(), alice, id); err != nil {
		t.Fatal(err)
	}
	if h := load(t, s, alice); h.KnowsDevice(id) || !h.KnowsNetwork(home) {
		t.Errorf("got %+v, want the device forgotten and the network known", h)
	}
	if again := remember(t, s, alice, id, home); again == id || len(again) != 32 {
		t.Errorf("got %s, want a new id", again)
	}
	if err := s.ForgetAll(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	if h := load(t, s, alice); len(h.Devices()) != 0 || len(h.Networks()) != 0 {
		t.Errorf("got %+v, want nothing", h)
	}
	if err := errors.Join(s.Forget(t.Context(), bob, id), s.ForgetAll(t.Context(), bob)); err != nil {
		t.Errorf("forget what is not there: %v", err)
	}
}

func TestService_keepsTheNewestOfMany(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := service(t, c)
	var ids []string
	for i := range 110 {
		ids = append(ids, remember(t, s, alice, "", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)))
		c.Add(time.Minute)
	}
	h := load(t, s, alice)
	if got := h.Devices(); len(got) != 50 || got[0].ID != ids[109] || got[49].ID != ids[60] {
		t.Errorf("got %d devices, want the 50 newest", len(got))
	}
	if got := h.Networks(); len(got) != 100 || got[99].Prefix.String() != "10.0.10.0/24" {
		t.Errorf("got %d networks, want the 100 newest", len(got))
	}
}

func TestService_concurrentLoginsAreAllRemembered(t *testing.T) {
	t.Parallel()
	s := service(t, newClock())
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := s.Remember(t.Context(), alice, "", home, firefox); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := load(t, s, alice).Devices(); len(got) != 20 {
		t.Errorf("got %d devices, want 20", len(got))
	}
}

func TestService_userAgentIsCutAndCleaned(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, agent, want string }{
		{"controls", "a\x1b[31m\r\nb\x00", "a[31mb"},
		{"not UTF-8", "a\xff\xfeb", "ab"},
		{"long", strings.Repeat("x", 500), strings.Repeat("x", 200)},
		{"cut within a character", strings.Repeat("x", 199) + "é", strings.Repeat("x", 199)},
		{"cut behind a character", strings.Repeat("x", 198) + "éé", strings.Repeat("x", 198) + "é"},
		{"turned text", "a\u202eb", "ab"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := service(t, newClock())
			if _, err := s.Remember(t.Context(), alice, "", home, test.agent); err != nil {
				t.Fatal(err)
			}
			if got := load(t, s, alice).Devices()[0].Agent; got != test.want || !utf8.ValidString(got) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A clock that was ahead must not make a device known for longer than 180 days of real time, once it is seen again.
func TestService_clockThatWasAhead(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := service(t, c)
	c.Add(1000 * day)
	id := remember(t, s, alice, "", home)
	c.Add(-1000 * day)
	remember(t, s, alice, "", home)
	if h := load(t, s, alice); !h.KnowsDevice(id) {
		t.Fatal("a device was forgotten because the clock went back")
	}
	c.Add(180 * day)
	if h := load(t, s, alice); h.KnowsDevice(id) {
		t.Error("still known after 180 days")
	}
}

// away is a store that does not answer.
type away struct{ store.Records }

func (away) Get(context.Context, store.Key) (store.Record, error) {
	return store.Record{}, store.ErrUnavailable
}
func (away) Delete(context.Context, store.Key, uint64) error { return store.ErrUnavailable }

func TestService_storeThatIsAwayIsAnError(t *testing.T) {
	t.Parallel()
	s := device.New(device.Options{Records: away{}, Now: newClock().Now, Key: key('k')})
	_, loading := s.Load(t.Context(), alice)
	_, remembering := s.Remember(t.Context(), alice, "", home, "")
	for name, err := range map[string]error{
		"Load": loading, "Remember": remembering,
		"Forget": s.Forget(t.Context(), alice, phone), "ForgetAll": s.ForgetAll(t.Context(), alice),
	} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrUnavailable", name, err)
		}
	}
}

func TestService_cookieHoldsFourAccountsNewestFirst(t *testing.T) {
	t.Parallel()
	s := cookies('k')
	cookie := s.Cookie("", alice, phone)
	if got := s.DeviceFor(cookie, alice); got != phone {
		t.Fatalf("got %q, want %q", got, phone)
	}
	if got := s.DeviceFor(cookie, bob); got != "" {
		t.Errorf("got %q for another account, want none", got)
	}
	cookie = s.Cookie(s.Cookie(cookie, bob, laptop), alice, laptop)
	if got := strings.Count(cookie, "."); got != 1 || s.DeviceFor(cookie, alice) != laptop || s.DeviceFor(cookie, bob) != laptop {
		t.Errorf("got %q, want one entry for each of two accounts", cookie)
	}
	var owners []string
	for i := range 6 {
		owners = append(owners, fmt.Sprintf("%032x", i))
		cookie = s.Cookie(cookie, owners[i], phone)
	}
	for i, owner := range owners {
		if got, want := s.DeviceFor(cookie, owner) != "", i >= 2; got != want {
			t.Errorf("owner %d: got %v, want %v", i, got, want)
		}
	}
	if len(cookie) != 4*64+3 {
		t.Errorf("got %d bytes, want 259", len(cookie))
	}
	if got := s.Cookie(cookie, "alice", phone); s.DeviceFor(got, owners[5]) != phone || strings.Count(got, ".") != 3 {
		t.Errorf("got %q, want the old entries and none for a text that is no id", got)
	}
}

func TestService_cookieShowsNoName(t *testing.T) {
	t.Parallel()
	for part := range strings.SplitSeq(cookies('k').Cookie("", alice, phone), ".") {
		raw, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || len(raw) != 48 {
			t.Errorf("got %d bytes (%v), want two ids and a MAC", len(raw), err)
		}
	}
}

func TestService_whatIsNotItsCookieIsNoDevice(t *testing.T) {
	t.Parallel()
	s := cookies('k')
	good := s.Cookie("", alice, phone)
	raw, _ := base64.RawURLEncoding.DecodeString(good)
	// flip changes one bit of byte i.
	flip := func(i int) string {
		other := slices.Clone(raw)
		other[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(other)
	}
	for _, test := range []struct{ name, cookie string }{
		{"empty", ""},
		{"text", "alice"},
		{"other user", flip(0)},
		{"other device", flip(16)},
		{"other MAC", flip(47)},
		{"another key's", cookies('x').Cookie("", alice, phone)},
		{"swapped ids", base64.RawURLEncoding.EncodeToString(slices.Concat(raw[16:32], raw[:16], raw[32:]))},
		{"padded", good + "="},
		{"cut", good[:63]},
		{"longer", good + "A"},
		{"line break within", good[:32] + "\n" + good[32:]},
		{"standard alphabet", strings.Repeat("+", 64)},
		{"empty entry", good + "."},
		{"rubbish behind", good + ".rubbish"},
		{"five entries", strings.Join([]string{good, good, good, good, good}, ".")},
		{"oversized", good + "." + strings.Repeat("A", 1<<10)},
		{"a megabyte", strings.Repeat(good+".", 1<<14)},
		{"NUL", "\x00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := s.DeviceFor(test.cookie, alice); got != "" {
				t.Errorf("got %q, want no device", got)
			}
			if again := s.Cookie(test.cookie, bob, laptop); s.DeviceFor(again, alice) != "" || s.DeviceFor(again, bob) != laptop {
				t.Errorf("got %q, want bob's entry alone", again)
			}
		})
	}
	for _, id := range []string{"", "alice", strings.ToUpper(alice), alice + "0", alice[:31], strings.Repeat("g", 32)} {
		if got := s.DeviceFor(good, id); got != "" {
			t.Errorf("id %q: got %q, want no device", id, got)
		}
	}
}

func FuzzService_DeviceFor(f *testing.F) {
	s := cookies('k')
	good := s.Cookie(s.Cookie("", bob, laptop), alice, phone)
	f.Add(good)
	f.Add(cookies('x').Cookie("", alice, phone))
	f.Add("..." + good)
	f.Add(strings.Repeat("A", 64))
	f.Fuzz(func(t *testing.T, cookie string) {
		got := s.DeviceFor(cookie, alice)
		if got != "" && got != phone {
			t.Errorf("got %q out of %q", got, cookie)
		}
		// Whatever was read is written again, and reads the same.
		again := s.Cookie(cookie, fmt.Sprintf("%032x", 1), laptop)
		if s.DeviceFor(again, alice) != got && got == "" {
			t.Errorf("%q gained a device", cookie)
		}
		if len(again) > 1<<10 {
			t.Errorf("got %d bytes", len(again))
		}
	})
}
