package password

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// lowerPriority gives the calling goroutine a thread of its own with the lowest priority. The thread is never given back:
// it ends with the goroutine. On Linux setpriority(2) of a thread's id is about that thread alone. An error leaves the
// priority as it is, which costs others some speed and nothing else.
func lowerPriority() {
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
}
