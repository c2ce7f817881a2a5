package totp_test

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pquerna/otp/hotp"

	"gatehouse/auth/totp"
	"gatehouse/store"
	"gatehouse/store/boltstore"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is what a test moves.
type clock struct{ unix atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(c.unix.Load(), 0) }

// start is in the middle of a time step, so that small moves stay in it.
const start = 1_800_000_015

func newClock() *clock {
	var c clock
	c.unix.Store(start)
	return &c
}

func bolt(t *testing.T, now func() time.Time) store.Counters {
	t.Helper()
	s, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(t.TempDir(), "store.db"), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newService(t *testing.T, c *clock) *totp.Service {
	t.Helper()
	return totp.New(totp.Options{Counters: bolt(t, c.now), Now: c.now, Issuer: "Gatehouse"})
}

func enrol(t *testing.T, s *totp.Service) totp.Enrolment {
	t.Helper()
	e, err := s.Generate("alice")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// codeAt is what the app shows, some steps from the start.
func codeAt(t *testing.T, e totp.Enrolment, steps int64) string {
	t.Helper()
	code, err := hotp.GenerateCode(e.Secret, uint64(start/30+steps))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// RFC 6238, appendix B, lists eight digits; six are the same number modulo 10^6 (RFC 4226, section 5.3).
func TestService_vectorsOfRFC6238AppendixB(t *testing.T) {
	t.Parallel()
	secret := base32.StdEncoding.EncodeToString([]byte("12345678901234567890"))
	for _, test := range []struct {
		unix int64
		code string
	}{
		{59, "94287082"},
		{1111111109, "07081804"},
		{1111111111, "14050471"},
		{1234567890, "89005924"},
		{2000000000, "69279037"},
		{20000000000, "65353130"},
	} {
		var c clock
		c.unix.Store(test.unix)
		s := newService(t, &c)
		if err := s.Check(t.Context(), "vector", secret, test.code[2:]); err != nil {
			t.Errorf("at %d: got %v, want %s accepted", test.unix, err, test.code[2:])
		}
	}
}

// TP-01
func TestService_acceptsAStepOnceAndOnlyLaterOnes(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := newService(t, c)
	e := enrol(t, s)
	for _, test := range []struct {
		name  string
		step  int64 // whose code is shown
		at    int64 // seconds after the start
		wants error
	}{
		{"fresh", 0, 0, nil},
		{"again at once", 0, 0, totp.ErrUsed},
		{"again within the skew", 0, 30, totp.ErrUsed},
		{"one before the used one", -1, 0, totp.ErrUsed},
		{"the next, early", 1, 0, nil},
		{"the next, in its own time", 1, 30, totp.ErrUsed},
		{"after a while", 10, 300, nil},
		{"the one before that", 9, 300, totp.ErrUsed},
		{"after the clock was set back", 0, 0, totp.ErrUsed},
	} {
		c.unix.Store(start + test.at)
		if err := s.Check(t.Context(), e.ID, e.Secret, codeAt(t, e, test.step)); !errors.Is(err, test.wants) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.wants)
		}
	}
	c.unix.Store(start + 300)
	other := totp.Enrolment{ID: "other", Secret: e.Secret}
	if err := s.Check(t.Context(), other.ID, other.Secret, codeAt(t, e, 10)); err != nil {
		t.Errorf("another enrolment: got %v, want its own steps", err)
	}
	if err := s.Forget(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context(), e.ID, e.Secret, codeAt(t, e, 10)); err != nil {
		t.Errorf("after Forget: got %v, want nil", err)
	}
}

// TP-06
func TestService_acceptsOneStepEitherWay(t *testing.T) {
	t.Parallel()
	for step := int64(-3); step <= 3; step++ {
		c := newClock()
		s := newService(t, c)
		e := enrol(t, s)
		var want error
		if step < -1 || step > 1 {
			want = totp.ErrWrong
		}
		if err := s.Check(t.Context(), e.ID, e.Secret, codeAt(t, e, step)); !errors.Is(err, want) {
			t.Errorf("step %+d: got %v, want %v", step, err, want)
		}
	}
}

// TP-03: other spellings of a used code are no way around its having been used.
func TestService_takesSixDigitsAndNothingElse(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := newService(t, c)
	e := enrol(t, s)
	code := codeAt(t, e, 0)
	fullWidth := strings.Map(func(d rune) rune { return d - '0' + '０' }, code)
	spellings := []string{
		" " + code, code + " ", code[:3] + " " + code[3:], fullWidth, "+" + code, "0" + code, code + "\n", "\t" + code, code + "\x00", "-" + code[1:],
		// TP-08
		"", "1", code[:5], code + "1", "0" + code + "0", strings.Repeat("1", 10), strings.Repeat(code, 100_000), "1e5", "null", "[]", "0x1234", "12345.",
	}
	for _, when := range []string{"before", "after"} {
		for _, spelling := range spellings {
			if err := s.Check(t.Context(), e.ID, e.Secret, spelling); !errors.Is(err, totp.ErrWrong) {
				t.Errorf("%s its use, %.20q: got %v, want ErrWrong", when, spelling, err)
			}
		}
		if when == "before" {
			if err := s.Check(t.Context(), e.ID, e.Secret, code); err != nil {
				t.Fatalf("the code itself: %v", err)
			}
		}
	}
}

func TestCleanForm_takesOutBlanksOnly(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"123 456": "123456", " 123456 ": "123456", "123\u00a0456": "123\u00a0456", "123\n456": "123\n456", "": ""} {
		if got := totp.CleanForm(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestService_refusesASecretThatIsNone(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := newService(t, c)
	for _, secret := range []string{"", "    ", "ME", "not base32!", "GEZDGNBVGY3TQOJQ"} {
		code, err := hotp.GenerateCode(secret, start/30)
		if err != nil {
			code = "000000"
		}
		if err := s.Check(t.Context(), "id", secret, code); err == nil || errors.Is(err, totp.ErrWrong) || errors.Is(err, totp.ErrUsed) {
			t.Errorf("%q: got %v, want an error of its own", secret, err)
		}
	}
	e := enrol(t, s)
	if err := s.Check(t.Context(), "", e.Secret, codeAt(t, e, 0)); err == nil {
		t.Error("a code without an enrolment was accepted")
	}
}

// TP-02: the race that the comment in Check names, between gateways on one store.
func TestService_acceptsACodeOnce(t *testing.T) {
	t.Parallel()
	rounds := 5
	if os.Getenv("GATEHOUSE_PROVE") == "1" {
		rounds = 100
	}
	t.Run("bolt", func(t *testing.T) {
		t.Parallel()
		c := newClock()
		one := bolt(t, c.now)
		playSameCode(t, c, rounds, one, one)
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		c, server := newClock(), storetest.Redis(t)
		var gateways [2]store.Counters
		for i := range gateways {
			s, err := redisstore.Open(t.Context(), redisstore.Options{URL: server.URL(), Now: c.now})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			gateways[i] = s
		}
		playSameCode(t, c, rounds, gateways[0], gateways[1])
	})
}

// playSameCode shows one code fifty times at once, at two gateways.
func playSameCode(t *testing.T, c *clock, rounds int, stores ...store.Counters) {
	t.Helper()
	var gateways []*totp.Service
	for _, counters := range stores {
		gateways = append(gateways, totp.New(totp.Options{Counters: counters, Now: c.now, Issuer: "Gatehouse"}))
	}
	e := enrol(t, gateways[0])
	for round := range rounds {
		c.unix.Store(start + 60*int64(round))
		code := codeAt(t, e, 2*int64(round))
		var accepted, used atomic.Int32
		var wait sync.WaitGroup
		for i := range 50 {
			wait.Go(func() {
				switch err := gateways[i%len(gateways)].Check(context.Background(), e.ID, e.Secret, code); {
				case err == nil:
					accepted.Add(1)
				case errors.Is(err, totp.ErrUsed):
					used.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if accepted.Load() != 1 || used.Load() != 49 {
			t.Fatalf("round %d: got %d accepted and %d used, want 1 and 49", round, accepted.Load(), used.Load())
		}
	}
}

// broken is a store that does not answer.
type broken struct{ store.Counters }

func (broken) Advance(context.Context, store.CounterKey, int64, int64, int64, time.Duration) (int64, bool, error) {
	return 0, true, fmt.Errorf("advance: %w", store.ErrUnavailable)
}

func TestService_deniesWithoutTheStore(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := totp.New(totp.Options{Counters: broken{}, Now: c.now, Issuer: "Gatehouse"})
	e := enrol(t, s)
	if err := s.Check(t.Context(), e.ID, e.Secret, codeAt(t, e, 0)); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestService_generatesWhatAppsExpect(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := newService(t, c)
	e, again := enrol(t, s), enrol(t, s)
	if e.ID == again.ID || e.Secret == again.Secret {
		t.Error("two enrolments are alike")
	}
	if raw, err := base32.StdEncoding.DecodeString(e.Secret); err != nil || len(raw) != 20 {
		t.Errorf("got a secret of %d bytes, %v, want 160 bits", len(raw), err)
	}
	u, err := url.Parse(e.URL)
	if err != nil {
		t.Fatal(err)
	}
	if got := u.Scheme + "://" + u.Host + u.Path; got != "otpauth://totp/Gatehouse:alice" {
		t.Errorf("got %s", got)
	}
	for name, want := range map[string]string{"secret": e.Secret, "issuer": "Gatehouse", "algorithm": "SHA1", "digits": "6", "period": "30"} {
		if got := u.Query().Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	local, err := totp.New(totp.Options{Issuer: "localhost:8080"}).Generate("alice@corp")
	if err != nil || !strings.HasPrefix(local.URL, "otpauth://totp/localhost%208080:alice@corp?") {
		t.Errorf("got %s, %v, want an issuer without a colon", local.URL, err)
	}
	if _, err := s.Generate("alice:bob"); err == nil {
		t.Error("an account with a colon was taken")
	}
}

// oathtool stands in for the phone: it is another implementation.
func TestService_agreesWithOathtool(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := newService(t, c)
	e := enrol(t, s)
	out, err := exec.Command("oathtool", "--totp", "--base32", "--now", c.now().UTC().Format("2006-01-02 15:04:05 UTC"), e.Secret).Output()
	if err != nil {
		t.Fatalf("oathtool: %v", err)
	}
	if err := s.Check(t.Context(), e.ID, e.Secret, strings.TrimSpace(string(out))); err != nil {
		t.Errorf("the code of oathtool: %v", err)
	}
}
