package auth_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"gatehouse/auth"
	"gatehouse/auth/apptoken"
)

// BenchmarkAppTokens_Authenticate is what a request with a token that is remembered costs beside its proxying.
func BenchmarkAppTokens_Authenticate(b *testing.B) {
	r := newRig(b, options{})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go r.sessions.Run(ctx)
	for deadline := time.Now().Add(10 * time.Second); !r.sessions.InStep(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("not in step")
		}
	}
	tokens := apptoken.NewStore(apptoken.Options{Records: r.store, Now: r.clock.Now})
	t := auth.NewAppTokens(auth.AppTokenOptions{
		RateLimit: r.RateLimit, Users: r.users, Passwords: r.Passwords, Tokens: tokens, Outside: r.sessions, Audit: r.log, Now: r.clock.Now,
		Logger: slog.New(slog.DiscardHandler),
	})
	_, text, err := tokens.Create(b.Context(), r.add("alice", false).ID, "caldav", 0)
	r.must(err)
	for name, value := range map[string]string{"basic": byName("alice", text), "bearer": "Bearer " + text, "of the app": "Bearer abc"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, claimed, err := t.Authenticate(ctx, value, "caldav", func() auth.Client { return home }); err != nil || claimed == (name == "of the app") {
					b.Fatal(err)
				}
			}
		})
	}
}
