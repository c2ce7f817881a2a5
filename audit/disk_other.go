//go:build !linux

package audit

// Sync is the whole fsync here.
func (f osFile) Sync() error { return f.File.Sync() }

// Allocate writes zeros here.
func (f osFile) Allocate(size int64) error { return f.fill(size) }
