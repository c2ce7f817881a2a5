package link_test

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/auth/link"
	"gatehouse/store"
	"gatehouse/store/boltstore"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

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

func newClock() *clock { return &clock{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)} }

func service(t *testing.T) (*link.Service, *clock, store.Records) {
	t.Helper()
	c := newClock()
	db, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(t.TempDir(), "db"), Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return link.New(link.Options{Records: db, Now: c.Now}), c, db
}

func create(t *testing.T, s *link.Service) string {
	t.Helper()
	token, _, err := s.Create(t.Context(), "user")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func nobody(context.Context) (bool, error)   { return false, nil }
func somebody(context.Context) (bool, error) { return true, nil }

// open opens the set-up link, which must be open.
func open(t *testing.T, s *link.Service) string {
	t.Helper()
	token, _, open, err := s.OpenSetup(t.Context(), nobody)
	if err != nil || !open || token == "" {
		t.Fatalf("open set-up link: %q, %v, %v", token, open, err)
	}
	return token
}

// choose makes a choice in a browser.
func choose(s *link.Service, kind link.Kind, token, browser string) error {
	return s.Choose(context.Background(), kind, token, func(l *link.Link) {
		l.Browser, l.PasswordHash, l.FactorID = browser, "hash", "factor of "+browser
	})
}

func wantExpired(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, link.ErrExpired) {
		t.Errorf("%s: got %v, want ErrExpired", what, err)
	}
}

func TestURL_leadsToTheLoginHost(t *testing.T) {
	t.Parallel()
	got := link.URL(&url.URL{Scheme: "https", Host: "login.example.org:8443", Path: "/else"}, link.Invite, "TOKEN")
	if want := "https://login.example.org:8443/.gatehouse/invite?token=TOKEN"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestService_oneErrorForEveryLinkThatIsNotGood(t *testing.T) {
	t.Parallel()
	s, c, _ := service(t)
	used := create(t, s)
	if err := s.Finish(t.Context(), link.Invite, used); err != nil {
		t.Fatal(err)
	}
	tried := create(t, s)
	if err := choose(s, link.Invite, tried, "a"); err != nil {
		t.Fatal(err)
	}
	for range link.MaxTries {
		if _, err := s.Try(t.Context(), link.Invite, tried, "a"); err != nil {
			t.Fatal(err)
		}
	}
	setup, invite := open(t, s), create(t, s)
	for name, at := range map[string]struct {
		kind  link.Kind
		token string
	}{
		"unknown": {link.Invite, "unknown"}, "empty": {link.Invite, ""}, "used": {link.Invite, used}, "tried": {link.Invite, tried},
		"set-up as invitation": {link.Invite, setup}, "invitation as set-up": {link.Setup, invite}, "empty set-up": {link.Setup, ""},
		"no kind": {link.Kind("reset"), invite}, "lower case": {link.Invite, strings.ToLower(invite)},
	} {
		_, err := s.Read(t.Context(), at.kind, at.token)
		wantExpired(t, "read "+name, err)
		wantExpired(t, "choose "+name, choose(s, at.kind, at.token, "b"))
		_, err = s.Try(t.Context(), at.kind, at.token, "b")
		wantExpired(t, "try "+name, err)
	}
	c.add(link.SetupLifetime)
	_, err := s.Read(t.Context(), link.Setup, setup)
	wantExpired(t, "set-up link after 30 minutes", err)
	if _, err := s.Read(t.Context(), link.Invite, invite); err != nil {
		t.Errorf("invitation after 30 minutes: %v", err)
	}
	c.add(link.InviteLifetime - link.SetupLifetime)
	_, err = s.Read(t.Context(), link.Invite, invite)
	wantExpired(t, "invitation after 72 hours", err)
}

// A link that was written by a clock far ahead is no link: else it would be one until that time comes.
func TestService_doesNotBelieveAnEndBeyondItsFullLength(t *testing.T) {
	t.Parallel()
	s, c, _ := service(t)
	c.add(24 * time.Hour)
	token := create(t, s)
	setup := open(t, s)
	c.add(-24 * time.Hour)
	_, err := s.Read(t.Context(), link.Invite, token)
	wantExpired(t, "invitation of tomorrow", err)
	if again := open(t, s); again == setup {
		t.Error("the set-up link of tomorrow is printed today")
	}
}

// Mail scanners open links: reading, in whatever number, changes nothing.
func TestService_Read_changesNothing(t *testing.T) {
	t.Parallel()
	s, _, records := service(t)
	token := create(t, s)
	before, err := records.Get(t.Context(), store.LinkKey(link.Hash(token)))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(before.Value), token) {
		t.Error("the store holds the token of an invitation")
	}
	for range 10 {
		if _, err := s.Read(t.Context(), link.Invite, token); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := records.Get(t.Context(), store.LinkKey(link.Hash(token))); err != nil || after.Version != before.Version {
		t.Errorf("got version %d, %v, want %d", after.Version, err, before.Version)
	}
}

func TestService_Claim_isOfOneChoice(t *testing.T) {
	t.Parallel()
	s, _, _ := service(t)
	for range 20 {
		token := create(t, s)
		if err := choose(s, link.Invite, token, "a"); err != nil {
			t.Fatal(err)
		}
		browsers := []string{"a", "b"}
		claims := make([]error, len(browsers))
		var group sync.WaitGroup
		for i, browser := range browsers {
			group.Go(func() {
				if browser == "b" && choose(s, link.Invite, token, browser) != nil {
					claims[i] = link.ErrExpired
					return
				}
				claims[i] = s.Claim(t.Context(), link.Invite, token, "factor of "+browser)
			})
		}
		group.Wait()
		won := slices.Index(claims, nil)
		if won < 0 || claims[0] == nil && claims[1] == nil {
			t.Fatalf("got %v, want one claim", claims)
		}
		if err := s.Claim(t.Context(), link.Invite, token, "factor of "+browsers[won]); err != nil {
			t.Errorf("the same claim again: %v", err)
		}
		wantExpired(t, "choose after the claim", choose(s, link.Invite, token, browsers[won]))
		wantExpired(t, "redraw after the claim", s.Redraw(t.Context(), link.Invite, token, browsers[won], func(*link.Link) {}))
	}
}

// A try that was right does not count: after an outage there are as many as before.
func TestService_Try_countsUntilAClaim(t *testing.T) {
	t.Parallel()
	s, _, _ := service(t)
	token := create(t, s)
	_, err := s.Try(t.Context(), link.Invite, token, "")
	wantExpired(t, "try without a choice", err)
	if err := choose(s, link.Invite, token, "a"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Try(t.Context(), link.Invite, token, "b")
	wantExpired(t, "try in another browser", err)
	for round := range 3 {
		for range link.MaxTries {
			if _, err := s.Try(t.Context(), link.Invite, token, "a"); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		if err := s.Claim(t.Context(), link.Invite, token, "factor of a"); err != nil {
			t.Fatalf("the last try was right: %v", err)
		}
	}
}

func TestService_OpenSetup_isOneUntilThereIsAnAdministrator(t *testing.T) {
	t.Parallel()
	s, c, records := service(t)
	first := open(t, s)
	c.add(link.SetupLifetime - time.Second)
	if again := open(t, s); again != first {
		t.Error("a start within the half hour made another link")
	}
	c.add(time.Second)
	second := open(t, s)
	if second == first {
		t.Error("the expired link was not renewed")
	}
	if _, _, open, err := s.OpenSetup(t.Context(), somebody); err != nil || open {
		t.Errorf("with an administrator: open %v, %v", open, err)
	}
	_, err := s.Read(t.Context(), link.Setup, second)
	wantExpired(t, "the link after there is an administrator", err)
	// Also where there is none any more, and nobody is even asked.
	token, _, open, err := s.OpenSetup(t.Context(), func(context.Context) (bool, error) { return false, errors.New("asked") })
	if err != nil || open || token != "" {
		t.Errorf("after the administrator has gone: %q, open %v, %v", token, open, err)
	}
	if record, err := records.Get(t.Context(), store.SetupKey()); err != nil || !record.Expires.IsZero() || strings.Contains(string(record.Value), second) {
		t.Errorf("what remains: %s until %v, %v", record.Value, record.Expires, err)
	}
}

func TestService_OpenSetup_failsClosed(t *testing.T) {
	t.Parallel()
	s, _, _ := service(t)
	down := errors.New("down")
	if token, _, open, err := s.OpenSetup(t.Context(), func(context.Context) (bool, error) { return false, down }); !errors.Is(err, down) || open || token != "" {
		t.Errorf("got %q, open %v, %v", token, open, err)
	}
}

// Two gateways that start at once on an empty Redis print one link.
func TestService_OpenSetup_isOneForAllGateways(t *testing.T) {
	t.Parallel()
	c, server := newClock(), storetest.Redis(t)
	const starts = 8
	tokens := make([]string, starts)
	var group sync.WaitGroup
	for i := range starts {
		db, err := redisstore.Open(t.Context(), redisstore.Options{URL: server.URL(), Now: c.Now, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		group.Go(func() {
			s := link.New(link.Options{Records: db, Now: c.Now})
			token, _, open, err := s.OpenSetup(t.Context(), nobody)
			if err != nil || !open {
				t.Errorf("start %d: open %v, %v", i, open, err)
			}
			tokens[i] = token
		})
	}
	group.Wait()
	if got := slices.Compact(slices.Clone(tokens)); len(got) != 1 || got[0] == "" {
		t.Errorf("got %d links, want one", len(got))
	}
}
