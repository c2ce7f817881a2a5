package audit

import (
	"fmt"
	"os"
)

// Modes of what the log creates: it names people and addresses, so nobody but the gateway's own user reads it.
const (
	folderMode = 0o700
	fileMode   = 0o600
)

// disk is what the log asks of a file system. The tests put a small or a failing one in its place.
type disk interface {
	// Open opens a file for reading and writing and creates it, with fileMode, if there is none.
	Open(path string) (file, error)
	// SyncFolder makes the names in a folder durable.
	SyncFolder(path string) error
}

// file is one open file of a disk.
type file interface {
	WriteAt(p []byte, offset int64) (int, error)
	Truncate(size int64) error
	// Allocate makes the file size bytes long and gives it the blocks for all of them. After an error its size is unknown.
	Allocate(size int64) error
	// Sync returns when the content and the size are on disk.
	Sync() error
	Size() (int64, error)
	Close() error
}

// osDisk is the operating system's.
type osDisk struct{}

func (osDisk) Open(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) SyncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// fill writes zeros from the end of the file up to size: what Allocate does where the system offers nothing better.
func (f osFile) fill(size int64) error {
	at, err := f.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for at < size {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return f.Truncate(size)
}

// makeFolder creates the folder of the log, and refuses one that others can look into.
func makeFolder(path string) error {
	if err := os.MkdirAll(path, folderMode); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("folder %s is open to other users of this machine (mode %04o): run chmod 700 on it", path, info.Mode().Perm())
	}
	return nil
}
