// Package certificate gives a TLS listener its certificates: from files that are read anew when they change ([Files]), or from an
// authority over ACME ([Orders]).
//
// It promises: connections that are open are never touched, a new certificate counts from the next handshake on; what cannot be used
// never takes the place of what can; and no client decides what is ordered: the hosts come from the configuration, and a handshake
// orders nothing. Trouble is a sentence for those who watch, without paths or names; the log has these.
package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the folder must be quiet before the files are read: a certificate and its key are written one after the other.
	settle = 500 * time.Millisecond
	// look is how often the files are read unasked. Not every change is seen in the folder: links may lead elsewhere, and file systems of
	// a network report nothing.
	look = time.Minute
	// maxFile is how long a file may be, in bytes.
	maxFile = 1 << 20
)

// FilesOptions is what Files are made of. All are required.
type FilesOptions struct {
	// CertFile is the chain, beginning with the certificate itself, and KeyFile its key, both in PEM.
	CertFile, KeyFile string
	Now               func() time.Time
	Logger            *slog.Logger
}

// Files is a certificate from a pair of files. Safe for concurrent use.
type Files struct {
	o FilesOptions

	mu      sync.RWMutex
	current *tls.Certificate // guarded by mu; never nil
	source  []byte           // guarded by mu: what current was read from
	refused error            // guarded by mu: why what is on disk is not current
}

// OpenFiles reads the files. It returns an error if they cannot be used; an expired certificate can.
func OpenFiles(o FilesOptions) (*Files, error) {
	f := &Files{o: o}
	if _, err := f.Reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// GetCertificate implements the hook of tls.Config.
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.current, nil
}

// Covers reports whether the certificate is good for a host name or address.
func (f *Files) Covers(host string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.current.Leaf.VerifyHostname(host) == nil
}

// Trouble says what is wrong with the certificate; empty if nothing is.
func (f *Files) Trouble() string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	switch now := f.o.Now(); {
	case now.After(f.current.Leaf.NotAfter):
		return "the certificate has expired: browsers warn of it"
	case now.Before(f.current.Leaf.NotBefore):
		return "the certificate is not valid yet: browsers warn of it"
	case f.refused != nil:
		return "the certificate files cannot be used, so the former certificate is served: the log says why"
	}
	return ""
}

// Reload reads the files, and reports whether they hold something else than before. With an error the former certificate stays.
func (f *Files) Reload() (changed bool, err error) {
	certificate, source, err := f.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = err
	if err != nil || bytes.Equal(source, f.source) {
		return false, err
	}
	f.current, f.source = certificate, source
	return true, nil
}

// read makes the certificate that is on disk. A key that does not belong to it is an error.
func (f *Files) read() (*tls.Certificate, []byte, error) {
	var texts [2][]byte
	for i, path := range [...]string{f.o.CertFile, f.o.KeyFile} {
		text, err := readFile(path)
		if err != nil {
			return nil, nil, err
		}
		texts[i] = text
	}
	pair, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s with key %s: %w", f.o.CertFile, f.o.KeyFile, err)
	}
	return &pair, bytes.Join(texts[:], []byte{0}), nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}

// Run follows the files until ctx is done. It watches their folders, because programs that renew certificates put new files or links
// into the place of the old ones, and a watch of the file would stay with the old one.
func (f *Files) Run(ctx context.Context) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		f.o.Logger.WarnContext(ctx, "certificate folder is not watched, and looked at each minute only", "error", err)
		watcher = &fsnotify.Watcher{}
	} else {
		defer watcher.Close()
		f.watch(ctx, watcher)
	}
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	quiet := time.NewTimer(settle)
	quiet.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-watcher.Events:
			quiet.Reset(settle)
		case err := <-watcher.Errors:
			f.o.Logger.WarnContext(ctx, "watch the certificate folder", "error", err)
			quiet.Reset(settle)
		case <-quiet.C:
			f.follow(ctx)
		case <-ticker.C:
			f.follow(ctx)
			if err == nil {
				f.watch(ctx, watcher) // a folder that was replaced is watched again; one that is watched already stays so
			}
		}
	}
}

func (f *Files) watch(ctx context.Context, watcher *fsnotify.Watcher) {
	for _, path := range [...]string{f.o.CertFile, f.o.KeyFile} {
		if err := watcher.Add(filepath.Dir(path)); err != nil && !errors.Is(err, fsnotify.ErrClosed) {
			f.o.Logger.WarnContext(ctx, "certificate folder is not watched, and looked at each minute only", "error", err)
		}
	}
}

// follow reads the files and says what came of it: trouble once, not each minute.
func (f *Files) follow(ctx context.Context) {
	f.mu.RLock()
	before := f.refused
	f.mu.RUnlock()
	switch changed, err := f.Reload(); {
	case err != nil && (before == nil || before.Error() != err.Error()):
		f.o.Logger.ErrorContext(ctx, "certificate files cannot be used, the former certificate stays", "error", err)
	case changed:
		f.mu.RLock()
		until := f.current.Leaf.NotAfter
		f.mu.RUnlock()
		f.o.Logger.InfoContext(ctx, "certificate was read anew", "expires", until)
	}
}
