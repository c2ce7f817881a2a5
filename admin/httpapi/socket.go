package httpapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// maxPath is the longest path of a socket (unix(7): 108 bytes with the NUL).
const maxPath = 107

// Listen opens the administration socket, for its owner alone. The folder it is in must be one that others cannot write to: who can
// puts a socket of their own in its place, and is told passwords. A socket that a killed gateway left behind is replaced. One at which
// somebody answers is an error, for it is another gateway's, whose commands would come here; so is anything else at the path.
func Listen(path string) (*net.UnixListener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("open administration socket: the path %s is over %d bytes, the most that the kernel takes", path, maxPath)
	}
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("open administration socket: %w", err)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("open administration socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("open administration socket: %s is there and is no socket", path)
	default:
		if err := removeLeft(path); err != nil {
			return nil, fmt.Errorf("open administration socket: %w", err)
		}
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open administration socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("open administration socket: %w", err), listener.Close())
	}
	return listener, nil
}

// checkFolder refuses a folder that others may write to.
func checkFolder(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("everybody may write to %s, and could put another socket there; use a folder of the gateway's own", path)
	}
	return nil
}

// removeLeft removes a socket at which nobody listens.
func removeLeft(path string) error {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close() // nothing was said
		return fmt.Errorf("another gateway listens at %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
