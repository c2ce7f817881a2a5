package secrets_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"gatehouse/secrets"
)

// ownedFile is the description of a file that has an owner and a mode.
type ownedFile struct {
	mode  os.FileMode
	owner uint32
}

func (f ownedFile) Name() string       { return "root.key" }
func (f ownedFile) Size() int64        { return 45 }
func (f ownedFile) Mode() os.FileMode  { return f.mode }
func (f ownedFile) ModTime() time.Time { return time.Time{} }
func (f ownedFile) IsDir() bool        { return false }
func (f ownedFile) Sys() any           { return &syscall.Stat_t{Uid: f.owner} }

func TestLoadRootKey_letsAGroupReadOnlyWhatAnotherUserHandedOver(t *testing.T) {
	t.Parallel()
	ours := uint32(os.Getuid())
	for _, c := range []struct {
		name string
		file ownedFile
		want bool
	}{
		{"our own, for us alone", ownedFile{0o400, ours}, false},
		{"our own, for the group", ownedFile{0o440, ours}, true},
		{"a credential of another user", ownedFile{0o440, ours + 1}, false},
		{"another user's, for a group to write", ownedFile{0o460, ours + 1}, true},
		{"another user's, for everybody", ownedFile{0o444, ours + 1}, true},
	} {
		if got := secrets.Exposed(c.file); got != c.want {
			t.Errorf("%s: got %t, want %t", c.name, got, c.want)
		}
	}
}
