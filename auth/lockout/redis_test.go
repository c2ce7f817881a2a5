package lockout_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"gatehouse/auth/lockout"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

// connect opens a connection of one more gateway.
func connect(t *testing.T, server *storetest.Server, c *clock) *redisstore.Store {
	t.Helper()
	s, err := redisstore.Open(t.Context(), redisstore.Options{URL: server.URL(), Now: c.Now, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// LK-02, with gateways that share nothing but a Redis.
func TestWindows_twoHundredGuessesAtOnceOverTwoGatewaysOnRedis(t *testing.T) {
	t.Parallel()
	c := newClock()
	server := storetest.Redis(t)
	guessAtOnce(t, windows(connect(t, server, c), c), windows(connect(t, server, c), c))
}

// Ten right logins at once, of which five at most are verified at a time, all succeed if they come again when told ErrBusy.
func TestWindows_tenRightAtOnceAllSucceedOnRedis(t *testing.T) {
	t.Parallel()
	c := newClock()
	server := storetest.Redis(t)
	gateways := []*lockout.Windows{windows(connect(t, server, c), c), windows(connect(t, server, c), c)}
	fail(t, gateways[0], alice, lockout.Stranger, 4) // so that one slot is left
	var group sync.WaitGroup
	for i := range 10 {
		group.Go(func() {
			w := gateways[i%2]
			r, err := w.Reserve(t.Context(), alice, lockout.Stranger)
			for errors.Is(err, lockout.ErrBusy) {
				r, err = w.Reserve(t.Context(), alice, lockout.Stranger)
			}
			if err != nil {
				t.Error(err)
				return
			}
			if s, err := w.Settle(t.Context(), r, lockout.Right); err != nil || s.Failures != 4 || s.Locked {
				t.Errorf("got %+v, %v, want right beside four failures", s, err)
			}
		})
	}
	group.Wait()
}

// RL-07: a failure that was settled is there after the server was killed, and so is one that was only reserved.
func TestWindows_countsSurviveAKilledRedis(t *testing.T) {
	t.Parallel()
	c := newClock()
	server := storetest.Redis(t)
	w := windows(connect(t, server, c), c)
	fail(t, w, alice, lockout.Stranger, 3)
	reserve(t, w, alice, lockout.Stranger)
	server.Kill()
	server.Restart()
	w = windows(connect(t, server, c), c)
	if s := status(t, w, alice, lockout.Stranger); s.Failures != 3 || s.Reserved != 1 || s.Run != 3 {
		t.Errorf("got %+v, want 3 failures and a reservation", s)
	}
	c.Add(30 * time.Second)
	if s := fail(t, w, alice, lockout.Stranger, 1); !s.Locked || s.Failures != 4 {
		t.Errorf("got %+v, want the fifth to lock", s)
	}
}
