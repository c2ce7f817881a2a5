package store_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"strings"
	"testing"

	"gatehouse/store"
)

var update = flag.Bool("update", false, "write the generated documents anew")

const statePath = "../docs/state.md"

// stateDocument is docs/state.md as store/keys.go says it.
func stateDocument() []byte {
	var b bytes.Buffer
	b.WriteString(`# State

Every key that Gatehouse writes to its store. This page is generated from ` + "`store/keys.go`" + `, the only file that spells a key:
` + "`go test ./store -run TestState -update`" + `. A test fails while it differs.

In Redis each key has the prefix ` + "`" + store.Prefix + "`" + `. A *record* that stands alone is a string; a *collection*, written here as its name and, after a blank, the
record's id, is a hash with one field for each record; a *counter* is a string; the *feed* is a stream. In bbolt they are entries of the
buckets ` + "`records`, `collections` (one bucket for each), `counters` and `feed`" + `.

Records and messages are sealed (the keyring by the root key, the rest by the keyring), and a record is bound to its key and its expiry. Counters and versions are not sealed: they hold nothing that is
secret, and who can write to the store can reset them.

A lifetime counts by the gateway's clock. The store itself collects what has ended at least ` + fmt.Sprintf("%.0f", store.GarbageMargin.Minutes()) + ` minutes later by its own. *Kept* keys have no time to live.

| key | type | lifetime | owner | holds |
|---|---|---|---|---|
`)
	for _, k := range store.Kinds {
		fmt.Fprintf(&b, "| `%s` | %s | %s | `%s` | %s |\n", k.Pattern, k.Type, k.Lifetime, k.Owner, k.Holds)
	}
	return b.Bytes()
}

func TestState_isWhatTheDocumentSays(t *testing.T) {
	want := stateDocument()
	if *update {
		if err := os.WriteFile(statePath, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(statePath)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/state.md is not what store/keys.go says (%v): go test ./store -run TestState -update", err)
	}
}

// made are keys as the functions of keys.go make them. A function that is not called here fails the test below.
func made() map[string]string {
	const id = "0123456789abcdef"
	return map[string]string{
		"KeyringKey":       store.KeyringKey().String(),
		"MaterialKey":      store.MaterialKey(id).String(),
		"UserKey":          store.UserKey(id).String(),
		"NameKey":          store.NameKey(id).String(),
		"PasswordCostKey":  store.PasswordCostKey().String(),
		"HistoryKey":       store.HistoryKey(id).String(),
		"LockoutKey":       store.LockoutKey(id, "stranger").String(),
		"LockoutShard":     string(store.LockoutShard(7)) + " " + id + ".stranger",
		"CodesKey":         store.CodesKey(id, "stranger").String(),
		"CodesShard":       string(store.CodesShard(63)) + " " + id + ".stranger",
		"PendingKey":       store.PendingKey(id).String(),
		"LinkKey":          store.LinkKey(id).String(),
		"AppTokenKey":      store.AppTokenKey(id).String(),
		"AppTokenShard":    string(store.AppTokenShard(7)) + " " + id,
		"HandOffKey":       store.HandOffKey(id).String(),
		"SetupKey":         store.SetupKey().String(),
		"Sessions":         string(store.Sessions(id)) + " " + id,
		"SessionKey":       store.SessionKey(id, id).String(),
		"SessionOfKey":     store.SessionOfKey(id).String(),
		"SessionsEndedKey": store.SessionsEndedKey(id).String(),
		"HandleKey":        string(store.HandleKey(id, id)),
		"BucketKey":        string(store.BucketKey(netip.MustParsePrefix("2001:db8::/48"))),
		"ACMEKey":          store.ACMEKey(id, "login.example.com").String(),
		"TOTPKey":          string(store.TOTPKey(id)),
	}
}

// TestState_listsEveryKey holds the table against the functions that make keys, found in the source.
func TestState_listsEveryKey(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "keys.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	keys := made()
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !f.Name.IsExported() {
			continue
		}
		k, ok := keys[f.Name.Name]
		if !ok {
			t.Errorf("%s makes keys and is not in this test", f.Name.Name)
		} else if n := kindsOf(k); n != 1 {
			t.Errorf("%s makes %q, which fits %d of store.Kinds; want 1", f.Name.Name, k, n)
		}
	}
}

// kindsOf counts the kinds whose pattern begins like the key.
func kindsOf(key string) int {
	n := 0
	for _, k := range store.Kinds {
		head, _, placeholders := strings.Cut(k.Pattern, "<")
		if key == head || placeholders && strings.HasPrefix(key, head) && len(key) > len(head) {
			n++
		}
	}
	return n
}

// TestState_kindsDoNotShareNames holds because all of them live in one name space in Redis, each with its own type.
func TestState_kindsDoNotShareNames(t *testing.T) {
	names := map[string]string{}
	for _, k := range store.Kinds {
		name := strings.FieldsFunc(k.Pattern, func(r rune) bool { return r == '/' || r == ' ' })[0]
		if other, taken := names[name]; taken {
			t.Errorf("%q and %q share the name %q", k.Pattern, other, name)
		}
		names[name] = k.Pattern
		switch k.Type {
		case "record", "collection", "counter", "feed":
		default:
			t.Errorf("%q is a %q", k.Pattern, k.Type)
		}
	}
}

// TestLockoutKey_spreadsOverTheShards: all shards are used, and a key is always in the same one.
func TestLockoutKey_spreadsOverTheShards(t *testing.T) {
	seen := map[store.Collection]int{}
	for i := range 64 * store.Shards {
		tag := fmt.Sprintf("%032x", i)
		k := store.LockoutKey(tag, "stranger")
		if again := store.LockoutKey(tag, "a device"); again.Collection != k.Collection {
			t.Fatalf("one name is in %s and %s", k.Collection, again.Collection)
		}
		seen[k.Collection]++
	}
	if len(seen) != store.Shards {
		t.Errorf("%d shards are used, want %d", len(seen), store.Shards)
	}
	for n := range store.Shards {
		if c := seen[store.LockoutShard(n)]; c < 16 || c > 256 {
			t.Errorf("shard %d holds %d of %d", n, c, 64*store.Shards)
		}
	}
}
