package password

import "runtime"

// PartOfCore is what a worker measures.
func PartOfCore(work func()) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return partOfCore(work)
}
