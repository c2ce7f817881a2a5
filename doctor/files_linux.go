package doctor

import "golang.org/x/sys/unix"

// writable reports why this user cannot write into a folder.
func writable(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }

// space is how many bytes an ordinary user can still write there.
func space(dir string) (free uint64, known bool) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, false
	}
	return fs.Bavail * uint64(fs.Bsize), true //nolint:gosec // a block has a positive size
}
