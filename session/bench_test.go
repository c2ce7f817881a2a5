package session_test

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	"gatehouse/session"
)

// performance.md: at most 1.3 µs and 2 allocations.
func BenchmarkManager_Authenticate(b *testing.B) {
	h := newHouse(b)
	g := h.running(b)
	c := h.signIn(b, g, alice)
	r := browser(c)
	r.Header.Set("Cookie", "theme=dark; lang=en; "+r.Header.Get("Cookie")+"; app_session=0123456789abcdef0123456789abcdef")
	bearer := request("Authorization", "Bearer "+c.AccessToken)
	foreign := browser(c)
	foreign.Header.Set("Authorization", "Bearer 0123456789abcdef0123456789abcdef01234567")
	for name, r := range map[string]*http.Request{"cookie": r, "bearer": bearer, "cookie beside an app's token": foreign} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Authenticate(b.Context(), r, wiki); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint(name, " on all cores"), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := g.Authenticate(b.Context(), r, wiki); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// The same with all that a gateway may hold: 100,000 verified tokens, 1,000,000 revocations, and a revocation each millisecond.
func BenchmarkManager_Authenticate_full(b *testing.B) {
	h := newHouse(b)
	g := h.running(b)
	c := h.signIn(b, g, alice)
	session.Fill(g.Manager, c.Principal, 100_000-2, 1_000_000)
	r := browser(c)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for tick := time.Tick(time.Millisecond); ; {
			select {
			case <-done:
				return
			case <-tick:
				session.Fill(g.Manager, c.Principal, 0, 1)
			}
		}
	}()
	b.Run("cookie", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.Authenticate(b.Context(), r, wiki); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cookie on all cores", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := g.Authenticate(b.Context(), r, wiki); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func BenchmarkManager_Renew(b *testing.B) {
	h := newHouse(b)
	g := h.running(b)
	jar := newJar(h.signIn(b, g, alice).Cookies)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := jar.renew(b, g); err != nil {
			b.Fatal(err)
		}
	}
}

// performance.md: a verified token with the account it stands for takes at most 1 KiB, a revoked session at most 64 B. An
// assertion that was made for an app is kept beside its token and is not in this: three quarters of a KiB each.
func TestManager_holdsTokensAndRevocationsInLittleMemory(t *testing.T) {
	h := newHouse(t)
	g := h.running(t)
	c := h.signIn(t, g, alice)
	const tokens, revoked = 100_000, 1_000_000
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // what the first one finalised
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	empty := heap()
	session.Fill(g.Manager, c.Principal, tokens, 0)
	withTokens := heap()
	session.Fill(g.Manager, c.Principal, 0, revoked)
	full := heap()
	held, ended := session.Held(g.Manager)
	perToken, perRevoked := float64(withTokens-empty)/tokens, float64(full-withTokens)/revoked
	t.Logf("proof: %d tokens of %.0f B, %d revocations of %.0f B", held, perToken, ended, perRevoked)
	if held < tokens*99/100 || held > tokens || ended != revoked {
		t.Errorf("held: got %d tokens and %d revocations, want %d and %d", held, ended, tokens, revoked)
	}
	if perToken > 1024 || perRevoked > 64 {
		t.Errorf("got %.0f B for a token and %.0f B for a revocation, want at most 1024 and 64", perToken, perRevoked)
	}
	if _, err := authenticate(t, g, browser(c)); err != nil { // may have been evicted; the session lives
		t.Error(err)
	}
	runtime.KeepAlive(g)
}

func BenchmarkManager_Assertion(b *testing.B) {
	h := newHouse(b)
	g := h.running(b)
	p, err := g.Authenticate(b.Context(), browser(h.signIn(b, g, alice)), wiki)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Assertion(p, wiki); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStripRequest(b *testing.B) {
	h := newHouse(b)
	line := "theme=dark; " + browser(h.signIn(b, h.gateway(b), alice)).Header.Get("Cookie") + "; app_session=0123456789abcdef0123456789abcdef"
	b.ReportAllocs()
	for b.Loop() {
		header := http.Header{"Cookie": {line}}
		session.StripRequest(header)
	}
}

func TestManager_Authenticate_allocatesNextToNothing(t *testing.T) {
	h := newHouse(t)
	g := h.running(t)
	r := browser(h.signIn(t, g, alice))
	got := testing.AllocsPerRun(1000, func() {
		if _, err := g.Authenticate(t.Context(), r, wiki); err != nil {
			t.Error(err)
		}
	})
	if got > 2 {
		t.Errorf("allocations of an authenticated request: got %v, want at most 2", got)
	}
}
