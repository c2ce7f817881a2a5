package password_test

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"gatehouse/auth/password"
)

// getpriority(2) as a system call answers 20 less the nice value.
func TestPool_worksAtTheLowestPriorityAndNobodyElseDoes(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ours, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	p := password.NewPool(password.PoolOptions{})
	place, err := p.Enter(t.Context(), password.Waiter{Account: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	worker := 0
	var failed error
	if err := place.Run(func() { worker, failed = unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid()) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	place.Leave()
	p.Close()
	if worker != 20-19 {
		t.Errorf("got priority %d of the worker, want nice 19", worker)
	}
	if after, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid()); err != nil || after != ours {
		t.Errorf("got priority %d, %v of another thread, want %d as before", after, err, ours)
	}
}
