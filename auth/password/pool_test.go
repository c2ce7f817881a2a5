package password_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/auth/password"
)

// inPool runs a test with a pool inside a bubble of fake time.
func inPool(t *testing.T, o password.PoolOptions, test func(t *testing.T, p *password.Pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := password.NewPool(o)
		defer p.Close()
		test(t, p)
	})
}

// stranger is somebody at an address of their own.
func stranger(account string) password.Waiter {
	return password.Waiter{Account: account, Address: "address of " + account}
}

// login enters, works for a second, and leaves.
func login(ctx context.Context, p *password.Pool, account string, work func()) error {
	place, err := p.Enter(ctx, stranger(account))
	if err != nil {
		return err
	}
	defer place.Leave()
	return place.Run(func() {
		time.Sleep(time.Second)
		work()
	})
}

func TestPool_tellsWhenThereIsWork(t *testing.T) {
	t.Parallel()
	var told []bool // one after another, as Busy is told
	o := password.PoolOptions{Workers: 2, Wait: time.Minute, Busy: func(busy bool) { told = append(told, busy) }}
	inPool(t, o, func(t *testing.T, p *password.Pool) {
		for range 2 {
			var logins sync.WaitGroup
			for n := range 5 {
				logins.Go(func() {
					if err := login(t.Context(), p, fmt.Sprint("user", n), func() {}); err != nil {
						t.Error(err)
					}
				})
			}
			logins.Wait()
		}
		place, err := p.Enter(t.Context(), stranger("alice"))
		if err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = place.Run(func() { panic("the work's own") })
		}()
		place.Leave()
	})
	if want := []bool{true, false, true, false, true, false}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestPool_runsNoMoreThanItsWorkersAtATime(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Workers: 3, Wait: time.Minute}, func(t *testing.T, p *password.Pool) {
		var now, most atomic.Int32
		var wait sync.WaitGroup
		for i := range 20 {
			wait.Go(func() {
				place, err := p.Enter(t.Context(), stranger(fmt.Sprint(i)))
				if err != nil {
					t.Error(err)
					return
				}
				defer place.Leave()
				err = place.Run(func() {
					most.Store(max(most.Load(), now.Add(1)))
					time.Sleep(time.Second)
					now.Add(-1)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if most.Load() != 3 || p.Runs() != 20 {
			t.Errorf("got %d at a time and %d runs, want 3 and 20", most.Load(), p.Runs())
		}
	})
}

func TestPool_givesAnAccountOneTurnAtATimeInOrder(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Workers: 4, Wait: time.Minute}, func(t *testing.T, p *password.Pool) {
		var order []int
		inside := false
		var wait sync.WaitGroup
		for i := range 10 {
			wait.Go(func() {
				place, err := p.Enter(t.Context(), stranger("alice"))
				if err != nil {
					t.Error(err)
					return
				}
				if inside {
					t.Error("two have the turn")
				}
				inside = true
				time.Sleep(time.Millisecond) // a slot is reserved
				if err := place.Run(func() { time.Sleep(time.Second); order = append(order, i) }); err != nil {
					t.Error(err)
				}
				inside = false
				place.Leave()
			})
			synctest.Wait()
		}
		wait.Wait()
		if !slices.IsSorted(order) || len(order) != 10 {
			t.Errorf("got order %v, want first come, first served", order)
		}
	})
}

func TestPool_servesOtherAccountsBetweenThoseOfOne(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Wait: time.Minute}, func(t *testing.T, p *password.Pool) {
		var order []string
		var wait sync.WaitGroup
		for _, account := range []string{"mallory", "mallory", "mallory", "mallory", "alice"} {
			wait.Go(func() {
				if err := login(t.Context(), p, account, func() { order = append(order, account) }); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wait.Wait()
		if order[1] != "alice" {
			t.Errorf("got order %v, want alice second", order)
		}
	})
}

func TestPool_isBusyAtOnceWhenTheLineIsFull(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Workers: 2, Line: 5, Wait: time.Minute}, func(t *testing.T, p *password.Pool) {
		var wait sync.WaitGroup
		for i := range 2 + 5 { // two have a worker, five wait
			wait.Go(func() {
				if err := login(t.Context(), p, fmt.Sprint(i), func() {}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		begin := time.Now()
		if _, err := p.Enter(t.Context(), stranger("late")); !errors.Is(err, password.ErrBusy) || time.Since(begin) != 0 {
			t.Errorf("got %v after %v, want ErrBusy at once", err, time.Since(begin))
		}
		time.Sleep(time.Second + time.Millisecond)
		if err := login(t.Context(), p, "late", func() {}); err != nil {
			t.Errorf("with places free again: %v", err)
		}
		wait.Wait()
	})
}

func TestPool_isBusyAtOnceWhenTheAccountsPartIsFull(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Wait: time.Minute}, func(t *testing.T, p *password.Pool) {
		var wait sync.WaitGroup
		for range 10 {
			wait.Go(func() {
				if err := login(t.Context(), p, "alice", func() {}); err != nil {
					t.Errorf("one of ten: %v", err)
				}
			})
		}
		synctest.Wait()
		if _, err := p.Enter(t.Context(), stranger("alice")); !errors.Is(err, password.ErrBusy) {
			t.Errorf("the eleventh: got %v, want ErrBusy", err)
		}
		wait.Go(func() {
			if err := login(t.Context(), p, "bob", func() {}); err != nil {
				t.Errorf("another account: %v", err)
			}
		})
		wait.Wait()
		if p.Runs() != 11 {
			t.Errorf("got %d runs, want 11", p.Runs())
		}
	})
}

// The waiting time is one, over the turn, pauses and the worker.
func TestPool_givesUpAfterTheWaitingTime(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Wait: 5 * time.Second}, func(t *testing.T, p *password.Pool) {
		holder, err := p.Enter(t.Context(), stranger("alice"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(3 * time.Second)
			holder.Leave()
		}()
		begin := time.Now()
		place, err := p.Enter(t.Context(), stranger("alice"))
		if err != nil || time.Since(begin) != 3*time.Second {
			t.Fatalf("got %v after %v, want the turn after 3s", err, time.Since(begin))
		}
		if _, err := p.Enter(t.Context(), stranger("alice")); !errors.Is(err, password.ErrBusy) || time.Since(begin) != 8*time.Second {
			t.Errorf("behind somebody who stays: got %v after %v, want ErrBusy after 5s more", err, time.Since(begin))
		}
		if err := place.Run(func() { t.Error("ran") }); !errors.Is(err, password.ErrBusy) {
			t.Errorf("after the waiting time: got %v, want ErrBusy", err)
		}
		place.Leave()
		place.Leave()

		place, err = p.Enter(t.Context(), stranger("alice"))
		if err != nil {
			t.Fatal(err)
		}
		defer place.Leave()
		begin = time.Now()
		if err := place.Pause(4 * time.Second); err != nil {
			t.Errorf("first pause: %v", err)
		}
		if err := place.Pause(4 * time.Second); !errors.Is(err, password.ErrBusy) || time.Since(begin) != 5*time.Second {
			t.Errorf("second pause: got %v after %v, want ErrBusy after 5s", err, time.Since(begin))
		}
		if p.Runs() != 0 {
			t.Errorf("got %d runs, want 0", p.Runs())
		}
	})
}

func TestPool_givesUpWaitingForAWorker(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Wait: 5 * time.Second}, func(t *testing.T, p *password.Pool) {
		long, err := p.Enter(t.Context(), stranger("alice"))
		if err != nil {
			t.Fatal(err)
		}
		defer long.Leave()
		finished := make(chan error)
		go func() { finished <- long.Run(func() { time.Sleep(time.Minute) }) }()
		synctest.Wait()
		begin := time.Now()
		if err := login(t.Context(), p, "bob", func() {}); !errors.Is(err, password.ErrBusy) || time.Since(begin) != 5*time.Second {
			t.Errorf("got %v after %v, want ErrBusy after 5s", err, time.Since(begin))
		}
		if err := <-finished; err != nil {
			t.Errorf("work that had begun: %v", err)
		}
	})
}

func TestPool_letsGoOfAWaiterThatIsCancelled(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Line: 1, PerAccount: 2}, func(t *testing.T, p *password.Pool) {
		holder, err := p.Enter(t.Context(), stranger("alice"))
		if err != nil {
			t.Fatal(err)
		}
		working := make(chan struct{})
		finished := make(chan error)
		go func() { finished <- holder.Run(func() { <-working }) }()
		synctest.Wait()
		for range 20 { // each finds the one place free again
			ctx, cancel := context.WithCancel(t.Context())
			entered := make(chan error)
			go func() {
				_, err := p.Enter(ctx, stranger("alice"))
				entered <- err
			}()
			synctest.Wait()
			cancel()
			if err := <-entered; !errors.Is(err, context.Canceled) || errors.Is(err, password.ErrBusy) {
				t.Fatalf("got %v, want context.Canceled", err)
			}
		}
		close(working)
		if err := <-finished; err != nil {
			t.Error(err)
		}
		holder.Leave()
		if p.Runs() != 1 {
			t.Errorf("got %d runs, want 1", p.Runs())
		}
	})
}

func TestPool_finishesForAClientThatWentAway(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{}, func(t *testing.T, p *password.Pool) {
		ctx, cancel := context.WithCancel(t.Context())
		place, err := p.Enter(ctx, stranger("alice"))
		if err != nil {
			t.Fatal(err)
		}
		defer place.Leave()
		cancel()
		ran := false
		if err := errors.Join(place.Pause(time.Second), place.Run(func() { ran = true })); err != nil || !ran {
			t.Errorf("got %v, ran %v: a client undid its guess by going away", err, ran)
		}
	})
}

func TestPool_handsAPanicToTheCaller(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{}, func(t *testing.T, p *password.Pool) {
		func() {
			defer func() {
				if got := recover(); got != "broken" {
					t.Errorf("got panic %v, want broken", got)
				}
			}()
			_ = login(t.Context(), p, "alice", func() { panic("broken") })
		}()
		if err := login(t.Context(), p, "alice", func() {}); err != nil {
			t.Errorf("after a panic: %v", err)
		}
	})
}

func TestPool_closesWithoutLosingWorkThatBegan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := password.NewPool(password.PoolOptions{Wait: time.Minute})
		ran := false
		first, second := make(chan error), make(chan error)
		go func() { first <- login(t.Context(), p, "alice", func() { ran = true }) }()
		synctest.Wait()
		go func() { second <- login(t.Context(), p, "bob", func() { t.Error("ran after Close") }) }()
		synctest.Wait()
		go p.Close()
		if err := <-second; !errors.Is(err, password.ErrBusy) {
			t.Errorf("who waited: got %v, want ErrBusy", err)
		}
		if err := <-first; err != nil || !ran {
			t.Errorf("who had a worker: got %v, ran %v", err, ran)
		}
		p.Close()
	})
}

// enter lets somebody wait for a worker who is busy, and tells how it ended.
func enter(t *testing.T, p *password.Pool, w password.Waiter, ran func()) <-chan error {
	ended := make(chan error, 1)
	go func() {
		place, err := p.Enter(t.Context(), w)
		if err == nil {
			err = place.Run(func() { time.Sleep(time.Second); ran() })
			place.Leave()
		}
		ended <- err
	}()
	synctest.Wait()
	return ended
}

func TestPool_servesKnownDevicesFirstAndStrangersToo(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Wait: time.Minute}, func(t *testing.T, p *password.Pool) {
		var order []string
		var all []<-chan error
		wait := func(who string, w password.Waiter) {
			all = append(all, enter(t, p, w, func() { order = append(order, who) }))
		}
		wait("first", stranger("first"))
		for i := range 3 {
			wait("stranger", stranger(fmt.Sprint("s", i)))
		}
		for i := range 6 {
			wait("known", password.Waiter{Account: fmt.Sprint("k", i), Owner: fmt.Sprint("k", i), Address: "anywhere"})
		}
		for _, ended := range all {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		want := []string{"first", "known", "known", "known", "stranger", "known", "known", "known", "stranger", "stranger"}
		if !slices.Equal(order, want) {
			t.Errorf("got %v, want %v", order, want)
		}
	})
}

func TestPool_keepsPlacesForKnownDevicesBesideAFullLine(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Line: 4, Wait: time.Minute}, func(t *testing.T, p *password.Pool) {
		var all []<-chan error
		for i := range 5 {
			all = append(all, enter(t, p, stranger(fmt.Sprint(i)), func() {}))
		}
		if !p.Full(stranger("late")) {
			t.Error("the line of strangers is not full")
		}
		owner := password.Waiter{Account: "alice", Owner: "alice", Address: "anywhere"}
		if p.Full(owner) {
			t.Error("the line of known devices is full")
		}
		if err := <-enter(t, p, owner, func() {}); err != nil {
			t.Errorf("known device: %v", err)
		}
		// Somebody else's device is a stranger's here, and finds no place.
		place, err := p.Enter(t.Context(), password.Waiter{Account: "bob", Owner: "mallory", Address: "anywhere"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			all = append(all, enter(t, p, stranger(fmt.Sprint("again", i)), func() {}))
		}
		if err := place.Stranger(); !errors.Is(err, password.ErrBusy) {
			t.Errorf("device of another account: %v, want ErrBusy", err)
		}
		if err := place.Run(func() { t.Error("ran") }); !errors.Is(err, password.ErrBusy) {
			t.Errorf("and runs: %v, want ErrBusy", err)
		}
		place.Leave()
		for _, ended := range all[:5] {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		for _, ended := range all[5:] {
			if err := <-ended; err != nil && !errors.Is(err, password.ErrBusy) {
				t.Error(err)
			}
		}
	})
}

// Some addresses fill the line; who comes from another takes the place of the last of the largest.
func TestPool_isFairToAddresses(t *testing.T) {
	t.Parallel()
	inPool(t, password.PoolOptions{Line: 6, Wait: time.Minute}, func(t *testing.T, p *password.Pool) {
		busy := enter(t, p, stranger("busy"), func() {})
		var order []string
		from := func(address, account string) <-chan error {
			return enter(t, p, password.Waiter{Account: account, Address: address}, func() { order = append(order, account) })
		}
		a1, a2, a3, a4 := from("a", "a1"), from("a", "a2"), from("a", "a3"), from("a", "a4")
		b1, b2 := from("b", "b1"), from("b", "b2")
		if err := <-from("a", "a5"); !errors.Is(err, password.ErrBusy) {
			t.Errorf("the fifth of an address in a full line: %v, want ErrBusy", err)
		}
		c1 := from("c", "c1")
		if err := <-a4; !errors.Is(err, password.ErrBusy) {
			t.Errorf("the last of the largest: %v, want that it gave way", err)
		}
		for _, ended := range []<-chan error{busy, a1, a2, a3, b1, b2, c1} {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if want := []string{"a1", "b1", "c1", "a2", "b2", "a3"}; !slices.Equal(order, want) {
			t.Errorf("got %v, want %v: addresses take turns", order, want)
		}
	})
}
