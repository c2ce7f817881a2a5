package store_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/store"
	"gatehouse/store/boltstore"
)

// sealer is AES-256-GCM without a key hierarchy.
type sealer struct{ aead cipher.AEAD }

func newSealer(t *testing.T) sealer {
	t.Helper()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return sealer{aead}
}

func (s sealer) Seal(plaintext, additional []byte) ([]byte, error) {
	return s.aead.Seal(nil, nil, plaintext, additional), nil
}

func (s sealer) Open(sealed, additional []byte) ([]byte, error) {
	return s.aead.Open(nil, nil, sealed, additional)
}

var noon = time.Date(2031, 1, 1, 12, 0, 0, 0, time.UTC)

func openEngine(t *testing.T) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(t.Context(), boltstore.Options{
		Path: filepath.Join(t.TempDir(), "store.db"), Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSealRecords_hidesAndReturnsValues(t *testing.T) {
	engine := openEngine(t)
	sealed := store.SealRecords(engine, newSealer(t))
	secret := []byte("a seed that nobody may see")
	for _, expires := range []time.Time{{}, noon.Add(time.Hour + 999*time.Nanosecond)} { // engines keep microseconds
		for _, k := range []store.Key{store.UserKey("u"), store.NameKey("n")} {
			if err := sealed.Delete(t.Context(), k, 0); err != nil {
				t.Fatal(err)
			}
			version, err := sealed.Put(t.Context(), k, secret, 0, expires)
			if err != nil {
				t.Fatal(err)
			}
			got, err := sealed.Get(t.Context(), k)
			if err != nil || !bytes.Equal(got.Value, secret) || got.Version != version {
				t.Errorf("Get = %q at %d, %v; want %q at %d", got.Value, got.Version, err, secret, version)
			}
			raw, err := engine.Get(t.Context(), k)
			if err != nil || bytes.Contains(raw.Value, secret[:8]) {
				t.Errorf("the engine holds %q, %v", raw.Value, err)
			}
		}
		if list, err := sealed.List(t.Context(), store.Users); err != nil || len(list) != 1 || !bytes.Equal(list[0].Value, secret) {
			t.Errorf("List = %v, %v", list, err)
		}
	}
	if _, err := sealed.Put(t.Context(), store.UserKey("large"), make([]byte, store.MaxValue), 0, time.Time{}); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("Put of a value that is too large when sealed: %v, want ErrTooLarge", err)
	}
}

// Case RD-09 of attacks.md: what somebody who can write to the engine tries.
func TestSealRecords_refusesWhatWasAltered(t *testing.T) {
	engine := openEngine(t)
	key := newSealer(t)
	sealed := store.SealRecords(engine, key)
	victim, expires := store.SessionKey("u1", "s"), noon.Add(time.Hour)
	if _, err := sealed.Put(t.Context(), victim, []byte("value"), 0, expires); err != nil {
		t.Fatal(err)
	}
	raw, err := engine.Get(t.Context(), victim)
	if err != nil {
		t.Fatal(err)
	}
	flipped := func(bit int) []byte {
		b := bytes.Clone(raw.Value)
		b[bit/8] ^= 1 << (bit % 8)
		return b
	}
	message, err := key.Seal([]byte("value"), []byte("gatehouse message"))
	if err != nil {
		t.Fatal(err)
	}
	type forgery struct {
		name    string
		key     store.Key
		value   []byte
		expires time.Time
	}
	forgeries := []forgery{
		{"moved to another user", store.SessionKey("u2", "s"), raw.Value, expires},
		{"moved to another id", store.SessionKey("u1", "s2"), raw.Value, expires},
		{"moved to a place that reads the same without lengths", store.Key{Collection: "sessions/u", ID: "1s"}, raw.Value, expires},
		{"moved out of its collection", store.Key{ID: "sessions/u1s"}, raw.Value, expires},
		{"made to live longer", victim, raw.Value, expires.Add(time.Microsecond)},
		{"made to live for ever", victim, raw.Value, time.Time{}},
		{"in clear text", victim, []byte("value"), expires},
		{"empty", victim, nil, expires},
		{"cut", victim, raw.Value[:len(raw.Value)-1], expires},
		{"sealed as a message", victim, message, expires},
	}
	for bit := range 8 * len(raw.Value) {
		forgeries = append(forgeries, forgery{"with a bit flipped", victim, flipped(bit), expires})
	}
	for _, f := range forgeries {
		if err := engine.Delete(t.Context(), f.key, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := engine.Put(t.Context(), f.key, f.value, 0, f.expires); err != nil {
			t.Fatal(err)
		}
		if r, err := sealed.Get(t.Context(), f.key); !errors.Is(err, store.ErrSealed) || r.Value != nil {
			t.Errorf("%s: %q, %v; want ErrSealed", f.name, r.Value, err)
		}
		err := store.Update(t.Context(), sealed, f.key, func(store.Record) ([]byte, time.Time, error) {
			t.Errorf("%s: Update goes on with it", f.name)
			return nil, time.Time{}, nil
		})
		if !errors.Is(err, store.ErrSealed) {
			t.Errorf("%s: Update: %v, want ErrSealed", f.name, err)
		}
	}
	other := store.SealRecords(engine, newSealer(t))
	if _, err := other.Put(t.Context(), store.UserKey("u"), nil, 0, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := sealed.Get(t.Context(), store.UserKey("u")); !errors.Is(err, store.ErrSealed) {
		t.Errorf("sealed with other keys: %v, want ErrSealed", err)
	}
}

func TestSealRecords_listsWhatOpensBesideWhatDoesNot(t *testing.T) {
	engine := openEngine(t)
	sealed := store.SealRecords(engine, newSealer(t))
	for _, id := range []string{"a", "c"} {
		if _, err := sealed.Put(t.Context(), store.SessionKey("u", id), []byte(id), 0, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := engine.Put(t.Context(), store.SessionKey("u", "b"), []byte("planted"), 0, time.Time{}); err != nil {
		t.Fatal(err)
	}
	list, err := sealed.List(t.Context(), store.Sessions("u"))
	if !errors.Is(err, store.ErrSealed) || len(list) != 2 || list[0].Key.ID != "a" || list[1].Key.ID != "c" {
		t.Errorf("List = %v, %v; want a and c, and ErrSealed", list, err)
	}
}

func TestSealFeed_reportsAForgedMessageAsAGap(t *testing.T) {
	engine := openEngine(t)
	key := newSealer(t)
	sealed := store.SealFeed(engine, key)
	read := func(after store.Cursor) ([]store.Message, store.Cursor, error) {
		return sealed.Read(t.Context(), after, 0)
	}
	if n, err := sealed.Publish(t.Context(), []byte("one")); err != nil || n != 1 {
		t.Fatalf("Publish = %d, %v", n, err)
	}
	messages, cursor, err := read(store.Cursor{})
	if err != nil || len(messages) != 1 || string(messages[0].Value) != "one" {
		t.Fatalf("Read = %v, %v", messages, err)
	}
	record, err := key.Seal([]byte("x"), []byte("gatehouse record"))
	if err != nil {
		t.Fatal(err)
	}
	for _, forged := range [][]byte{[]byte("in clear text"), {}, record} {
		if _, err := engine.Publish(t.Context(), forged); err != nil {
			t.Fatal(err)
		}
		messages, next, err := read(cursor)
		if !errors.Is(err, store.ErrGap) || !errors.Is(err, store.ErrSealed) || messages != nil {
			t.Errorf("Read of %q = %v, %v; want ErrGap and ErrSealed", forged, messages, err)
		}
		if next.Number != cursor.Number+1 {
			t.Errorf("the cursor is %d, want behind the forged message", next.Number)
		}
		cursor = next
	}
	if _, err := sealed.Publish(t.Context(), []byte("two")); err != nil {
		t.Fatal(err)
	}
	if messages, _, err := read(cursor); err != nil || len(messages) != 1 || string(messages[0].Value) != "two" {
		t.Errorf("Read after a gap = %v, %v; want two", messages, err)
	}
}
