package handoff_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/session/handoff"
	"gatehouse/store"
	"gatehouse/store/boltstore"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

const (
	wiki  = "https://wiki.example.test"
	mail  = "https://mail.example.org"
	nonce = "the nonce of one browser"
)

type clock struct{ now atomic.Pointer[time.Time] }

func newClock() *clock {
	c := &clock{}
	c.set(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))
	return c
}

func (c *clock) Now() time.Time      { return *c.now.Load() }
func (c *clock) set(t time.Time)     { c.now.Store(&t) }
func (c *clock) add(d time.Duration) { c.set(c.Now().Add(d)) }

func embedded(t *testing.T, c *clock) store.Records {
	t.Helper()
	db, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(t.TempDir(), "db"), Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func full() handoff.HandOff {
	return handoff.HandOff{UserID: "user", SessionID: "session", Origin: wiki, Browser: handoff.BrowserHash(nonce), Next: "/a?b=c"}
}

func create(t *testing.T, s *handoff.Service) string {
	t.Helper()
	code, err := s.Create(t.Context(), full())
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func TestService_Redeem_onlyWhereTheCodeBelongs(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := handoff.New(handoff.Options{Records: embedded(t, c), Now: c.Now})
	code := create(t, s)
	for _, test := range []struct{ name, code, origin, nonce string }{
		{"another code", create(t, handoff.New(handoff.Options{Records: embedded(t, c), Now: c.Now})), wiki, nonce},
		{"no code", "", wiki, nonce},
		{"a code that goes on", code + "A", wiki, nonce},
		{"another host", code, mail, nonce},
		{"another browser", code, wiki, "another nonce"},
		{"a browser without a nonce", code, wiki, ""},
		{"the hash in place of the nonce", code, wiki, handoff.BrowserHash(nonce)},
	} {
		if got, err := s.Redeem(t.Context(), test.code, test.origin, test.nonce); !errors.Is(err, handoff.ErrNotGood) {
			t.Errorf("%s: got %+v, %v", test.name, got, err)
		}
	}
	got, err := s.Redeem(t.Context(), code, wiki, nonce) // none of these used it up
	if err != nil || got.UserID != "user" || got.SessionID != "session" || got.Next != "/a?b=c" {
		t.Errorf("where it belongs: got %+v, %v", got, err)
	}
	if _, err := s.Redeem(t.Context(), code, wiki, nonce); !errors.Is(err, handoff.ErrNotGood) {
		t.Errorf("a second time: %v", err)
	}
}

func TestService_Redeem_within60Seconds(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]error{
		59 * time.Second: nil, 60 * time.Second: handoff.ErrNotGood, -29 * time.Second: nil, -31 * time.Second: handoff.ErrNotGood,
	} {
		c := newClock()
		s := handoff.New(handoff.Options{Records: embedded(t, c), Now: c.Now})
		code := create(t, s)
		c.add(age)
		if _, err := s.Redeem(t.Context(), code, wiki, nonce); !errors.Is(err, want) {
			t.Errorf("after %v: got %v, want %v", age, err, want)
		}
	}
}

// Thirty requests at once, over two services on one store: one gets the code.
func TestService_Redeem_once(t *testing.T) {
	t.Parallel()
	c := newClock()
	shared, err := redisstore.Open(t.Context(), redisstore.Options{URL: storetest.Redis(t).URL(), Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shared.Close() })
	for name, records := range map[string]store.Records{"bolt": embedded(t, c), "redis": shared} {
		services := []*handoff.Service{handoff.New(handoff.Options{Records: records, Now: c.Now}), handoff.New(handoff.Options{Records: records, Now: c.Now})}
		code := create(t, services[0])
		var got atomic.Int32
		var wait sync.WaitGroup
		for i := range 30 {
			wait.Go(func() {
				if _, err := services[i%2].Redeem(t.Context(), code, wiki, nonce); err == nil {
					got.Add(1)
				} else if !errors.Is(err, handoff.ErrNotGood) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wait.Wait()
		if got.Load() != 1 {
			t.Errorf("%s: redeemed %d times", name, got.Load())
		}
	}
}

func TestService_Create_refusesHalfOfOne(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := handoff.New(handoff.Options{Records: embedded(t, c), Now: c.Now})
	for name, spoil := range map[string]func(*handoff.HandOff){
		"no user":    func(h *handoff.HandOff) { h.UserID = "" },
		"no session": func(h *handoff.HandOff) { h.SessionID = "" },
		"no host":    func(h *handoff.HandOff) { h.Origin = "" },
		"no next":    func(h *handoff.HandOff) { h.Next = "" },
		"no browser": func(h *handoff.HandOff) { h.Browser = "" },
		"a nonce":    func(h *handoff.HandOff) { h.Browser = nonce },
		"upper case": func(h *handoff.HandOff) { h.Browser = strings.ToUpper(h.Browser) },
	} {
		h := full()
		spoil(&h)
		if code, err := s.Create(t.Context(), h); err == nil {
			t.Errorf("%s: made %q", name, code)
		}
	}
}
