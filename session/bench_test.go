package session_test

import (
	"fmt"
	"net/http"
	"testing"

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
