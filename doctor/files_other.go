//go:build !linux

package doctor

// writable is not known here.
func writable(string) error { return nil }

// space is not known here.
func space(string) (free uint64, known bool) { return 0, false }
