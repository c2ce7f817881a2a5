package httpapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// maxPath is the longest path of a socket (unix(7): 108 bytes with the NUL).
const maxPath = 107

// Listen opens the administration socket, for its owner alone. The folder it is in must be closed to others, for the mode is set
// only after the socket exists. A socket that a killed gateway left behind is replaced: whoever calls Listen holds the lock of
// the folder, so no gateway that runs is behind it. Anything else at the path is an error.
func Listen(path string) (*net.UnixListener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("open administration socket: the path %s is over %d bytes, the most that the kernel takes", path, maxPath)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("open administration socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("open administration socket: %s is there and is no socket", path)
	default:
		if err := os.Remove(path); err != nil {
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
