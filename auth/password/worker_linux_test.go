package password_test

import (
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"gatehouse/auth/password"
)

// niceness is that of the calling thread; getpriority(2) as a system call answers 20 less than it.
func niceness(t *testing.T) int {
	t.Helper()
	answer, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
	if err != nil {
		t.Error(err) // a worker calls this too, which must not end
	}
	return 20 - answer
}

// Workers have the lowest priority, ask for a share on another thread where that was next to nothing, give the share back once they had plenty, and
// leave the threads of everybody else as they are.
func TestPool_worksAtTheLowestPriorityUnlessItStarves(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ours := niceness(t)
	share := min(ours+5, 19)
	var part float64
	p := password.NewGaugedPool(password.PoolOptions{}, func(work func()) float64 {
		now := part
		work()
		return now
	})
	defer p.Close()

	var got, want []int
	for _, step := range []struct {
		part float64 // that this verification gets
		nice int
	}{
		{0.2, 19}, {0.05, 19}, {0.05, share}, {0.5, share}, {0.9, share}, {0.5, 19}, {0.05, 19}, {0.05, share},
	} {
		part = step.part
		place, err := p.Enter(t.Context(), password.Waiter{Account: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		if err := place.Run(func() { got = append(got, niceness(t)) }); err != nil {
			t.Fatal(err)
		}
		place.Leave()
		want = append(want, step.nice)
	}
	if !slices.Equal(got, want) {
		t.Errorf("workers had the nice values %v, want %v", got, want)
	}
	if after := niceness(t); after != ours {
		t.Errorf("another thread has the nice value %d, want %d as before", after, ours)
	}
}

// Which part of a core a work had is that of its thread: a work that sleeps had next to nothing of it.
func TestPool_measuresWhatAWorkHad(t *testing.T) {
	t.Parallel()
	if got := password.PartOfCore(func() { _ = unix.Nanosleep(&unix.Timespec{Nsec: 50_000_000}, nil) }); got < 0 || got > 0.5 {
		t.Errorf("a work that sleeps had %.3f of a core", got)
	}
}
