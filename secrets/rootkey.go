package secrets

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	rootKeySize = 32
	// rootKeyText bounds what is read from a root key file: 44 characters and a line end, with room for spaces.
	rootKeyText = 1 << 10
)

// The errors of a root key that cannot be used. Their texts never quote the key.
var (
	// ErrBadRootKey: the text is not 32 bytes in base64.
	ErrBadRootKey = errors.New("root key is not 32 random bytes in base64; `gatehouse key new-root` prints one")
	// ErrExposed: somebody else than the owner may read the file.
	ErrExposed = errors.New("can be read by others than its owner; `chmod 600` it, and replace what is in it if somebody may have read it")
)

// RootKey seals the keyring. It is never stored by Gatehouse but in the file that the operator chose, and cannot be printed.
type RootKey struct {
	key [rootKeySize]byte
}

// Format keeps the key out of every log and error text, whatever the verb.
func (RootKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "(root key)") }

// NewRootKeyText returns a fresh root key as operators keep it: 32 random bytes in base64, without a line end.
func NewRootKeyText() string {
	var key [rootKeySize]byte
	_, _ = rand.Read(key[:]) // never fails: crypto/rand ends the process instead
	return base64.StdEncoding.EncodeToString(key[:])
}

// ReadRootKey reads the text of a root key; white space around it is ignored. It returns ErrBadRootKey for anything else than
// 32 bytes in canonical base64 that are not all the same: a key of zeros is a placeholder that somebody forgot.
func ReadRootKey(text string) (RootKey, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
	defer clear(raw)
	if err != nil || len(raw) != rootKeySize || bytes.Count(raw, raw[:1]) == rootKeySize {
		return RootKey{}, ErrBadRootKey
	}
	var root RootKey
	copy(root.key[:], raw)
	return root, nil
}

// LoadRootKey reads the root key from a file that is not exposed; otherwise ErrExposed.
func LoadRootKey(path string) (RootKey, error) {
	text, err := ReadFile(path, rootKeyText)
	defer clear(text)
	if err != nil {
		return RootKey{}, fmt.Errorf("root key file: %w", err)
	}
	root, err := ReadRootKey(string(text))
	if err != nil {
		return RootKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return root, nil
}

// ReadFile reads at most limit bytes of a file that holds a secret. It returns ErrExposed if others may read the file. The permissions are
// those of the opened file, so it cannot be exchanged between the check and the reading.
func ReadFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if exposed(info) {
		return nil, fmt.Errorf("%s: %w", path, ErrExposed)
	}
	return io.ReadAll(io.LimitReader(file, limit))
}

// exposed reports whether others may use the file. Nobody's secret is for everybody. A group may read only a file that
// another user handed to this process: credentials of systemd and of container runtimes are root's, with mode 0440.
func exposed(info os.FileInfo) bool {
	mode := info.Mode().Perm()
	owner, known := info.Sys().(*syscall.Stat_t)
	ours := !known || int(owner.Uid) == os.Getuid()
	return mode&0o037 != 0 || ours && mode&0o077 != 0
}

// LoadOrCreateRootKey loads the root key, or, where there is no file, creates one with mode 0600 and says so. The file
// appears whole or not at all, and an existing one is never replaced: the key inside may be the only one that opens a store.
func LoadOrCreateRootKey(path string) (root RootKey, created bool, err error) {
	root, err = LoadRootKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return root, false, err
	}
	err = createRootKey(path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return RootKey{}, false, fmt.Errorf("create root key file: %w", err)
	}
	created = err == nil
	root, err = LoadRootKey(path) // what lies there now, whoever was first
	return root, created, err
}

// createRootKey writes a fresh key beside path and links it there. A link, unlike a rename, does not replace what another
// process created meanwhile (TestLoadOrCreateRootKey_createsOnce).
func createRootKey(path string) error {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, ".root-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = io.WriteString(file, NewRootKeyText()+"\n")
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Link(file.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a new name in dir survive a power failure: a store whose root key is gone is lost.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
