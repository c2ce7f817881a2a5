package password_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"gatehouse/auth/password"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cost is bcrypt's lowest, so that the tests are quick.
const cost = bcrypt.MinCost

func newHasher(t *testing.T, pepper byte, cost int) *password.Hasher {
	t.Helper()
	return password.NewHasher(password.HasherOptions{Pepper: bytes.Repeat([]byte{pepper}, 32), Cost: cost})
}

func hashOf(t *testing.T, h *password.Hasher, pw string) string {
	t.Helper()
	hash, err := h.Hash(pw)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// imported is what another program would have made of the password, as htpasswd -B writes it.
func imported(t *testing.T, pw string, cost int) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(pw), cost)
	if err != nil {
		t.Fatal(err)
	}
	return "$2y$" + strings.TrimPrefix(string(hash), "$2a$")
}

func TestHasher_comparesTheWholePassword(t *testing.T) {
	t.Parallel()
	a72, emoji := strings.Repeat("A", 72), strings.Repeat("\U0001F600", 20)
	for _, test := range []struct {
		name, set, tried string
		want             bool
	}{
		{"same", "correct horse battery", "correct horse battery", true},
		{"other", "correct horse battery", "correct horse batterz", false},
		{"case", "correct horse battery", "Correct horse battery", false},
		{"blank at the end", "correct horse battery", "correct horse battery ", false},
		{"empty", "correct horse battery", "", false},
		{"LG-01: 72 bytes", a72, a72, true},
		{"LG-01: 73rd byte", a72, a72 + "B", false},
		{"LG-01: 71 bytes", a72, a72[1:], false},
		{"LG-02: 100 bytes", strings.Repeat("b", 100), strings.Repeat("b", 100), true},
		{"LG-02: last of 100 bytes", strings.Repeat("b", 100), strings.Repeat("b", 99) + "c", false},
		{"LG-02: emoji of 80 bytes", emoji, emoji, true},
		{"LG-02: one emoji less", emoji, emoji[4:], false},
		{"LG-05: NUL inside", "pa\x00ss", "pa\x00ss", true},
		{"LG-05: cut at the NUL", "pa\x00ss", "pa", false},
		{"LG-05: NUL at the end", "pa", "pa\x00", false},
		{"LG-05: repeated around a NUL", "pa", "pa\x00pa", false},
		{"LG-06: composed and combining", "caf\u00e9", "cafe\u0301", true},
		{"LG-06: ligature", "\ufb01sh", "fish", true},
		{"LG-06: not UTF-8", "caf\u00e9", "caf\xe9", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHasher(t, 1, cost)
			if got := h.Verify(hashOf(t, h, test.set), test.tried, 0); got != test.want {
				t.Errorf("our hash: got %v, want %v", got, test.want)
			}
			if strings.ContainsRune(test.set, 0) || len(test.set) > 72 || test.set == "\ufb01sh" {
				return // no program could have made such a hash, or not of these bytes
			}
			if got := h.Verify(imported(t, test.set, cost), test.tried, 0); got != test.want {
				t.Errorf("imported hash: got %v, want %v", got, test.want)
			}
		})
	}
}

func TestHasher_acceptsHashesOfOtherPrograms(t *testing.T) {
	t.Parallel()
	h := newHasher(t, 1, cost)
	plain := strings.TrimPrefix(imported(t, "correct horse", 5), "$2y$")
	for _, prefix := range []string{"$2a$", "$2b$", "$2y$"} {
		hash := prefix + plain
		if got, err := password.HashCost(hash); err != nil || got != 5 {
			t.Errorf("%s: got cost %d, %v, want 5", prefix, got, err)
		}
		if !h.Verify(hash, "correct horse", 0) || h.Verify(hash, "correct horsf", 0) {
			t.Errorf("%s: the right password does not match, or a wrong one does", prefix)
		}
		if !h.Outdated(hash) {
			t.Errorf("%s: not to be upgraded", prefix)
		}
	}
	// A compatibility character that NFKC would change: the other program hashed it as typed.
	if !h.Verify(imported(t, "m\u00b2 \u2026 garden", cost), "m\u00b2 \u2026 garden", 0) {
		t.Error("an imported password with compatibility characters does not match itself")
	}
}

// The vectors are Openwall's, of crypt_blowfish (wrapper.c).
func TestHasher_vectorsOfCryptBlowfish(t *testing.T) {
	t.Parallel()
	h := newHasher(t, 1, cost)
	for _, test := range []struct{ hash, pw string }{
		{"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
		{"$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*"},
		{"$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", "U*U*U"},
	} {
		if !h.Verify(test.hash, test.pw, 0) {
			t.Errorf("%q does not match %s", test.pw, test.hash)
		}
	}
}

func TestHashCost_refusesWhatCannotBeVerified(t *testing.T) {
	t.Parallel()
	rest := strings.Repeat("a", 53)
	h := newHasher(t, 1, cost)
	for _, hash := range []string{
		"", "plain", "$2x$05$" + rest, "$2$05$" + rest, "$2a$03$" + rest, "$2a$16$" + rest, "$2a$31$" + rest, "$2a$5$" + rest,
		"$2a$05$" + rest + "a", "$2a$05$" + rest[1:], "$2a$05$" + rest + "\n", "$2a$05$" + rest[1:] + "!",
		"$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA", "$apr1$salt$hash", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
		"$gatehouse-bcrypt$2$2a$05$" + rest, "$gatehouse-bcrypt$1$gatehouse-bcrypt$1$2a$05$" + rest,
	} {
		if got, err := password.HashCost(hash); !errors.Is(err, password.ErrUnsupported) {
			t.Errorf("%q: got %d, %v, want ErrUnsupported", hash, got, err)
		}
		if h.Verify(hash, "", 0) || h.Verify(hash, hash, 0) {
			t.Errorf("%q matches something", hash)
		}
	}
}

func TestHasher_needsItsPepper(t *testing.T) {
	t.Parallel()
	hash := hashOf(t, newHasher(t, 1, cost), "correct horse")
	if newHasher(t, 2, cost).Verify(hash, "correct horse", 0) {
		t.Error("a hash matches under another pepper")
	}
	if newHasher(t, 1, cost).Verify(strings.TrimPrefix(hash, "$gatehouse-bcrypt$1"), "correct horse", 0) {
		t.Error("our hash matches as a plain one")
	}
}

func TestHasher_saysWhatIsOutdated(t *testing.T) {
	t.Parallel()
	low, high := newHasher(t, 1, cost), newHasher(t, 1, cost+1)
	lowHash, highHash := hashOf(t, low, "correct horse"), hashOf(t, high, "correct horse")
	if low.Outdated(lowHash) || high.Outdated(highHash) {
		t.Error("a fresh hash is outdated")
	}
	if !high.Outdated(lowHash) || low.Outdated(highHash) {
		t.Error("a cheaper hash is to be replaced, a costlier one is not")
	}
}

func TestHasher_refusesInvalidUTF8(t *testing.T) {
	t.Parallel()
	h := newHasher(t, 1, cost)
	if hash, err := h.Hash("caf\xe9"); !errors.Is(err, password.ErrInvalid) || hash != "" {
		t.Errorf("got %q, %v, want ErrInvalid", hash, err)
	}
	if got, err := password.Normalize("\xed\xa0\x80"); !errors.Is(err, password.ErrInvalid) {
		t.Errorf("surrogate: got %q, %v, want ErrInvalid", got, err)
	}
}

// The work is counted in rounds of bcrypt: 2^cost for each comparison.
func TestHasher_worksTheSameForEverybody(t *testing.T) {
	t.Parallel()
	const configured = 6
	low := hashOf(t, newHasher(t, 1, 4), "correct horse")
	same := hashOf(t, newHasher(t, 1, configured), "correct horse")
	high := hashOf(t, newHasher(t, 1, 8), "correct horse")
	for _, test := range []struct {
		name, hash, pw string
		ceiling        int
		want           int // cost that the rounds add up to
	}{
		{"current hash, right", same, "correct horse", 0, configured},
		{"current hash, wrong", same, "wrong", 0, configured},
		{"cheap hash, right", low, "correct horse", 0, configured},
		{"cheap hash, wrong", low, "wrong", 0, configured},
		{"imported hash, right", imported(t, "correct horse", 5), "correct horse", 0, configured},
		{"imported hash, too long", imported(t, "correct horse", 5), strings.Repeat("A", 1000), 0, configured},
		{"imported hash, NUL", imported(t, "correct horse", 5), "correct\x00horse", 0, configured},
		{"no such name", "", "correct horse", 0, configured},
		{"broken hash", "$2a$05$broken", "correct horse", 0, configured},
		{"not UTF-8", same, "\xff", 0, configured},
		{"no such name, not UTF-8", "", "\xff", 0, configured},
		{"costly hash somewhere: current hash", same, "correct horse", 8, 8},
		{"costly hash somewhere: cheap hash", low, "wrong", 8, 8},
		{"costly hash somewhere: no such name", "", "wrong", 8, 8},
		{"costly hash", high, "correct horse", 8, 8},
		{"no ceiling is beyond every hash", "", "wrong", 1000, password.MaxCost},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHasher(t, 1, configured)
			rounds := 0
			h.CountComparisons(func(hash string) {
				cost, err := bcrypt.Cost([]byte(hash))
				if err != nil {
					t.Fatal(err)
				}
				rounds += 1 << cost
			})
			if test.hash == "" {
				h.Dummy(test.pw, test.ceiling)
			} else {
				h.Verify(test.hash, test.pw, test.ceiling)
			}
			if rounds != 1<<test.want {
				t.Errorf("got %d rounds, want %d", rounds, 1<<test.want)
			}
		})
	}
}

func TestNewHasher_refusesAShortPepper(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("a pepper of 16 bytes was taken")
		}
	}()
	password.NewHasher(password.HasherOptions{Pepper: make([]byte, 16)})
}

func ExampleHashCost() {
	cost, err := password.HashCost("$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")
	fmt.Println(cost, err)
	// Output: 5 <nil>
}
