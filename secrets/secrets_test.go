package secrets_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/secrets"
	"gatehouse/store"
	"gatehouse/store/boltstore"
)

var start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func clock() time.Time { return start }

func openStore(t *testing.T) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(t.TempDir(), "store.db"), Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newRoot(t *testing.T) secrets.RootKey {
	t.Helper()
	root, err := secrets.ReadRootKey(secrets.NewRootKeyText())
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func openRing(t *testing.T, records store.Records, root secrets.RootKey) *secrets.Keyring {
	t.Helper()
	ring, _, err := secrets.OpenKeyring(t.Context(), records, root, secrets.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// watched counts what is written.
type watched struct {
	store.Records
	mu     sync.Mutex
	writes int
}

func (w *watched) Put(ctx context.Context, key store.Key, value []byte, version uint64, expires time.Time) (uint64, error) {
	w.mu.Lock()
	w.writes++
	w.mu.Unlock()
	return w.Records.Put(ctx, key, value, version, expires)
}

func (w *watched) Delete(ctx context.Context, key store.Key, version uint64) error {
	w.mu.Lock()
	w.writes++
	w.mu.Unlock()
	return w.Records.Delete(ctx, key, version)
}

func TestOpenKeyring_refusesAnotherRootKeyBeforeAnyWrite(t *testing.T) {
	t.Parallel()
	records := &watched{Records: openStore(t)}
	sealed, err := openRing(t, records, newRoot(t)).Sealer("records").Seal([]byte("seed"), nil)
	if err != nil {
		t.Fatal(err)
	}
	before := records.writes
	_, _, err = secrets.OpenKeyring(t.Context(), records, newRoot(t), secrets.Options{Now: clock})
	if !errors.Is(err, secrets.ErrWrongRootKey) {
		t.Fatalf("another root key: got %v, want ErrWrongRootKey", err)
	}
	if records.writes != before {
		t.Errorf("writes with another root key: got %d, want none", records.writes-before)
	}
	if bytes.Contains(sealed, []byte("seed")) {
		t.Error("sealed text holds the plain text")
	}
}

func TestOpenKeyring_readsWhatItCreated(t *testing.T) {
	t.Parallel()
	records, root := openStore(t), newRoot(t)
	first, created, err := secrets.OpenKeyring(t.Context(), records, root, secrets.Options{Now: clock})
	if err != nil || !created {
		t.Fatalf("first opening: got created %v, %v, want true, nil", created, err)
	}
	second, created, err := secrets.OpenKeyring(t.Context(), records, root, secrets.Options{Now: clock})
	if err != nil || created {
		t.Fatalf("second opening: got created %v, %v, want false, nil", created, err)
	}
	sealed, err := first.Sealer("records").Seal([]byte("value"), []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := second.Sealer("records").Open(sealed, []byte("key"))
	if err != nil || string(plain) != "value" {
		t.Errorf("open after reopening: got %q, %v", plain, err)
	}
}

func TestOpenKeyring_createsOnce(t *testing.T) {
	t.Parallel()
	records, root := openStore(t), newRoot(t)
	const openers = 8
	rings, created := make([]*secrets.Keyring, openers), make([]bool, openers)
	var group sync.WaitGroup
	for i := range openers {
		group.Go(func() {
			var err error
			rings[i], created[i], err = secrets.OpenKeyring(t.Context(), records, root, secrets.Options{Now: clock})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	count := 0
	for i := range openers {
		if created[i] {
			count++
		}
		sealed, err := rings[i].Sealer("records").Seal([]byte("v"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rings[0].Sealer("records").Open(sealed, nil); err != nil {
			t.Errorf("opener %d has another keyring: %v", i, err)
		}
	}
	if count != 1 {
		t.Errorf("keyrings created: got %d, want 1", count)
	}
}

func TestOpenKeyring_refusesToReplaceALostKeyring(t *testing.T) {
	t.Parallel()
	records, root := openStore(t), newRoot(t)
	ring := openRing(t, records, root)
	sealed := store.SealRecords(records, ring.Sealer("records"))
	if _, _, err := secrets.Material(t.Context(), sealed, "handle", secrets.RandomKey); err != nil {
		t.Fatal(err)
	}
	if err := records.Delete(t.Context(), store.KeyringKey(), 0); err != nil {
		t.Fatal(err)
	}
	_, created, err := secrets.OpenKeyring(t.Context(), records, root, secrets.Options{Now: clock})
	if !errors.Is(err, secrets.ErrNoKeyring) || created {
		t.Errorf("store without its keyring: got created %v, %v, want ErrNoKeyring", created, err)
	}
}

func TestOpenKeyring_refusesAnAlteredKeyring(t *testing.T) {
	t.Parallel()
	records, root := openStore(t), newRoot(t)
	openRing(t, records, root)
	stored, err := records.Get(t.Context(), store.KeyringKey())
	if err != nil {
		t.Fatal(err)
	}
	var form struct {
		Format int    `json:"format"`
		Root   []byte `json:"root"`
		Sealed []byte `json:"sealed"`
	}
	if err := json.Unmarshal(stored.Value, &form); err != nil {
		t.Fatal(err)
	}
	good := slices.Clone(form.Sealed)
	altered := func(change func()) []byte {
		form.Sealed = slices.Clone(good)
		change()
		value, err := json.Marshal(form)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	cases := map[string][]byte{
		"null":         []byte("null"),
		"empty":        []byte("{}"),
		"no JSON":      []byte("\x00"),
		"cut":          altered(func() { form.Sealed = good[:20] }),
		"nothing":      altered(func() { form.Sealed = nil }),
		"last bit":     altered(func() { form.Sealed[len(good)-1] ^= 1 }),
		"another term": altered(func() { form.Sealed[4] = 1 }),
	}
	version := stored.Version
	for name, value := range cases {
		if version, err = records.Put(t.Context(), store.KeyringKey(), value, version, time.Time{}); err != nil {
			t.Fatal(err)
		}
		_, created, err := secrets.OpenKeyring(t.Context(), records, root, secrets.Options{Now: clock})
		if !errors.Is(err, store.ErrSealed) || created {
			t.Errorf("%s: got created %v, %v, want ErrSealed", name, created, err)
		}
	}
}

func TestSealer_refusesWhatItDidNotSeal(t *testing.T) {
	t.Parallel()
	sealer := openRing(t, openStore(t), newRoot(t)).Sealer("records")
	good, err := sealer.Seal([]byte("a user record"), []byte("users 1"))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name string, sealed, additional []byte) {
		t.Helper()
		plain, err := sealer.Open(sealed, additional)
		if !errors.Is(err, store.ErrSealed) || plain != nil {
			t.Errorf("%s: got %q, %v, want ErrSealed", name, plain, err)
		}
		if err != nil && err.Error() != store.ErrSealed.Error() {
			t.Errorf("%s: error says more than others: %v", name, err)
		}
	}
	for n := range 65 {
		refused(fmt.Sprintf("%d zero bytes", n), make([]byte, n), nil)
		refused(fmt.Sprintf("first %d bytes", n), good[:min(n, len(good)-1)], []byte("users 1"))
	}
	for bit := range len(good) * 8 {
		flipped := slices.Clone(good)
		flipped[bit/8] ^= 1 << (bit % 8)
		refused(fmt.Sprintf("bit %d", bit), flipped, []byte("users 1"))
	}
	refused("nil", nil, nil)
	refused("JSON null", []byte("null"), nil)
	refused("extended", append(slices.Clone(good), 0), []byte("users 1"))
	refused("another record's place", good, []byte("users 2"))
	refused("no place", good, nil)
	unknown := slices.Clone(good)
	binary.BigEndian.PutUint32(unknown[1:5], 1<<31)
	refused("unknown term", unknown, []byte("users 1"))
	version := slices.Clone(good)
	version[0] = 2
	refused("unknown format", version, []byte("users 1"))
	if plain, err := sealer.Open(good, []byte("users 1")); err != nil || string(plain) != "a user record" {
		t.Errorf("the sealed text itself: got %q, %v", plain, err)
	}
}

func TestSealer_separatesPurposes(t *testing.T) {
	t.Parallel()
	ring := openRing(t, openStore(t), newRoot(t))
	sealed, err := ring.Sealer("records").Seal([]byte("v"), []byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	for _, purpose := range []string{"feed", "record", "records ", "", "records\x00"} {
		if _, err := ring.Sealer(purpose).Open(sealed, []byte("k")); !errors.Is(err, store.ErrSealed) {
			t.Errorf("purpose %q: got %v, want ErrSealed", purpose, err)
		}
	}
	// The end of the purpose must not be movable into the additional data.
	if _, err := ring.Sealer("record").Open(sealed, []byte("sk")); !errors.Is(err, store.ErrSealed) {
		t.Errorf("moved border: got %v, want ErrSealed", err)
	}
}

func TestSealer_neverRepeats(t *testing.T) {
	t.Parallel()
	sealer := openRing(t, openStore(t), newRoot(t)).Sealer("records")
	seen := map[string]bool{}
	for range 1000 {
		sealed, err := sealer.Seal(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(sealed)] {
			t.Fatal("two seals of one text are alike")
		}
		seen[string(sealed)] = true
	}
}

// The format is read here by hand, from the root key's text down, so that a change that no longer opens what is stored fails.
func TestKeyring_keepsItsFormat(t *testing.T) {
	t.Parallel()
	text := secrets.NewRootKeyText()
	root, err := secrets.ReadRootKey(text)
	if err != nil {
		t.Fatal(err)
	}
	records := openStore(t)
	message, err := openRing(t, records, root).Sealer("records").Seal([]byte("value"), []byte("place"))
	if err != nil {
		t.Fatal(err)
	}
	rootKey, _ := base64.StdEncoding.DecodeString(text)
	stored, err := records.Get(t.Context(), store.KeyringKey())
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ Root, Sealed []byte }
	if err := json.Unmarshal(stored.Value, &record); err != nil {
		t.Fatal(err)
	}
	check, _ := hkdf.Key(sha256.New, rootKey, nil, "gatehouse root key check 1", 16)
	if !bytes.Equal(record.Root, check) {
		t.Errorf("root key check: got %x, want %x", record.Root, check)
	}
	var content struct {
		Active uint32
		Terms  []struct {
			Term uint32
			Key  []byte
		}
	}
	if err := json.Unmarshal(openByHand(t, rootKey, 0, "keyring", record.Sealed, check), &content); err != nil {
		t.Fatal(err)
	}
	if content.Active != 1 || len(content.Terms) != 1 || content.Terms[0].Term != 1 {
		t.Fatalf("keyring: got active %d and %d terms, want term 1 alone", content.Active, len(content.Terms))
	}
	if got := openByHand(t, content.Terms[0].Key, 1, "records", message, []byte("place")); string(got) != "value" {
		t.Errorf("message: got %q, want %q", got, "value")
	}
}

func openByHand(t *testing.T, key []byte, term uint32, purpose string, sealed, additional []byte) []byte {
	t.Helper()
	if sealed[0] != 1 || binary.BigEndian.Uint32(sealed[1:5]) != term {
		t.Fatalf("header: got %x, want format 1 and term %d", sealed[:5], term)
	}
	derived, err := hkdf.Key(sha256.New, key, sealed[5:21], "gatehouse seal 1\x00"+purpose, 44)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(derived[:32])
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	aad := slices.Clone(sealed[:5])
	for _, part := range [][]byte{[]byte(purpose), additional} {
		aad = binary.BigEndian.AppendUint64(aad, uint64(len(part)))
		aad = append(aad, part...)
	}
	plain, err := aead.Open(nil, derived[32:], sealed[21:], aad)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestMaterial_createsOnce(t *testing.T) {
	t.Parallel()
	records := openStore(t)
	sealed := store.SealRecords(records, openRing(t, records, newRoot(t)).Sealer("records"))
	const callers = 8
	values, created := make([][]byte, callers), make([]bool, callers)
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			var err error
			values[i], created[i], err = secrets.Material(t.Context(), sealed, "pepper", secrets.RandomKey)
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	count := 0
	for i := range callers {
		if created[i] {
			count++
		}
		if len(values[i]) != 32 || !bytes.Equal(values[i], values[0]) {
			t.Errorf("caller %d: got another key than caller 0", i)
		}
	}
	if count != 1 {
		t.Errorf("keys created: got %d, want 1", count)
	}
	other, _, err := secrets.Material(t.Context(), sealed, "handle", secrets.RandomKey)
	if err != nil || bytes.Equal(other, values[0]) {
		t.Errorf("another name: got the same key, %v", err)
	}
}

func TestMaterial_handsOnTheErrorOfItsGenerator(t *testing.T) {
	t.Parallel()
	records := openStore(t)
	want := errors.New("no entropy")
	_, created, err := secrets.Material(t.Context(), records, "pepper", func() ([]byte, error) { return nil, want })
	if !errors.Is(err, want) || created {
		t.Errorf("got created %v, %v, want the generator's error", created, err)
	}
}

func TestRootKey_cannotBePrinted(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%x", "%s", "%q"} {
		if got := fmt.Sprintf(verb, root); got != "(root key)" {
			t.Errorf("%s: got %s", verb, got)
		}
	}
	if text, err := json.Marshal([]any{root}); err != nil || string(text) != "[{}]" {
		t.Errorf("JSON: got %s, %v, want [{}]", text, err)
	}
}

func TestReadRootKey_refusesWhatIsNo32RandomBytes(t *testing.T) {
	t.Parallel()
	good := secrets.NewRootKeyText()
	for name, text := range map[string]string{
		"missing":       "",
		"short":         base64.StdEncoding.EncodeToString(make([]byte, 31)),
		"long":          base64.StdEncoding.EncodeToString(make([]byte, 33)),
		"zeros":         base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"passphrase":    "correct horse battery staple",
		"no padding":    strings.TrimRight(good, "="),
		"two keys":      good + "\n" + secrets.NewRootKeyText(),
		"trailing bits": good[:42] + "B=",
	} {
		_, err := secrets.ReadRootKey(text)
		if !errors.Is(err, secrets.ErrBadRootKey) {
			t.Errorf("%s: got %v, want ErrBadRootKey", name, err)
		}
		if err != nil && len(text) > 8 && strings.Contains(err.Error(), text[:8]) {
			t.Errorf("%s: error quotes the key: %v", name, err)
		}
	}
	if _, err := secrets.ReadRootKey(" " + good + "\r\n"); err != nil {
		t.Errorf("key with a line end: %v", err)
	}
}
