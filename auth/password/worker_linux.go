package password

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// join gives the calling goroutine a thread of its own in the class. The thread is never given back: it ends with the goroutine. On Linux
// setpriority(2) of a thread's id is about that thread alone. An error leaves the priority as it is, which costs some speed and nothing else.
func (c class) join() {
	runtime.LockOSThread()
	nice := 19
	if c == share {
		ours, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid()) // the system call answers 20 less the nice value
		if err != nil {
			return
		}
		nice = 20 - ours + 5
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nice)
}

// partOfCore does work, and returns which part of a core the calling goroutine had for it, of 1. The goroutine must be locked to its thread.
func partOfCore(work func()) float64 {
	began, used := now(unix.CLOCK_MONOTONIC), now(unix.CLOCK_THREAD_CPUTIME_ID)
	work()
	return float64(now(unix.CLOCK_THREAD_CPUTIME_ID)-used) / float64(now(unix.CLOCK_MONOTONIC)-began)
}

// now reads a clock of the kernel; clock_gettime(2) of these cannot fail.
func now(clock int32) time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(clock, &t)
	return time.Duration(t.Nano())
}
