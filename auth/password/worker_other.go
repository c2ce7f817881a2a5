//go:build !linux

package password

// join does nothing here: elsewhere a priority is the whole process's.
func (class) join() {}

// partOfCore does work. It is not measured: a thread whose class cannot be chosen needs no other one.
func partOfCore(work func()) float64 {
	work()
	return 1
}
