package audit

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Sync leaves out what fdatasync(2) may leave out: the times of the file. Its size is written.
func (f osFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Allocate reserves the blocks without writing them, where the file system can (fallocate(2)).
func (f osFile) Allocate(size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case err == nil:
			return f.Truncate(size)
		case errors.Is(err, unix.EOPNOTSUPP):
			return f.fill(size)
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("allocate %d bytes: %w", size, err)
		}
	}
}
