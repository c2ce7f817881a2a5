package secrets_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"gatehouse/secrets"
)

func TestLoadOrCreateRootKey_createsAFileForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.key")
	_, created, err := secrets.LoadOrCreateRootKey(path)
	if err != nil || !created {
		t.Fatalf("first call: got created %v, %v, want true, nil", created, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, created, err = secrets.LoadOrCreateRootKey(path); err != nil || created {
		t.Errorf("second call: got created %v, %v, want false, nil", created, err)
	}
	if second, _ := os.ReadFile(path); string(second) != string(first) {
		t.Error("an existing root key was replaced")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("files left behind: got %d entries, %v, want the key alone", len(entries), err)
	}
}

func TestLoadOrCreateRootKey_createsOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.key")
	var group sync.WaitGroup
	created := make([]bool, 8)
	roots := make([]secrets.RootKey, len(created))
	for i := range created {
		group.Go(func() {
			var err error
			if roots[i], created[i], err = secrets.LoadOrCreateRootKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	count := 0
	for i := range created {
		if created[i] {
			count++
		}
		if roots[i] != roots[0] {
			t.Errorf("caller %d has another key than caller 0", i)
		}
	}
	if count != 1 {
		t.Errorf("keys created: got %d, want 1", count)
	}
}

func TestLoadRootKey_refusesWhatIsNotSafe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // past the umask
			t.Fatal(err)
		}
		return path
	}
	good := secrets.NewRootKeyText()
	for name, c := range map[string]struct {
		path string
		want error
	}{
		"missing":        {filepath.Join(dir, "none"), fs.ErrNotExist},
		"world-readable": {file("world", good, 0o604), secrets.ErrExposed},
		"group-readable": {file("group", good, 0o640), secrets.ErrExposed},
		"world-writable": {file("writable", good, 0o602), secrets.ErrExposed},
		"empty":          {file("empty", "", 0o600), secrets.ErrBadRootKey},
		"short":          {file("short", good[:20], 0o600), secrets.ErrBadRootKey},
	} {
		if _, err := secrets.LoadRootKey(c.path); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if _, err := secrets.LoadRootKey(dir); err == nil {
		t.Error("a folder: got nil, want an error")
	}
	if _, err := secrets.LoadRootKey(file("good", good+"\n", 0o400)); err != nil {
		t.Errorf("read-only file of the owner: %v", err)
	}
	// A bad file is an error, never a reason to make another key.
	if _, created, err := secrets.LoadOrCreateRootKey(filepath.Join(dir, "short")); !errors.Is(err, secrets.ErrBadRootKey) || created {
		t.Errorf("bad file: got created %v, %v, want ErrBadRootKey", created, err)
	}
}
