// Package password hashes and verifies passwords, judges new ones, and bounds how many are verified at once.
//
// It promises:
//
//   - New hashes are bcrypt over a keyed hash of the whole password, so no byte of it is ignored, and a stolen table
//     without the pepper cannot be searched.
//   - A verification costs the same for every account and for none: an unknown name, a hash of lower cost and a hash of
//     another scheme do equal work ([Hasher.Verify], [Hasher.Dummy]).
//   - A password is compared exactly as it was received, after one normalisation (NFKC; NIST SP 800-63B, 3.1.1.2).
//   - Few verifications run at a time, on threads of low priority; who waits for one is bounded in number and time ([Pool]).
//
// It never stores, logs or formats a password into an error.
package password

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/unicode/norm"
)

const (
	// DefaultCost is the bcrypt cost of new hashes where nothing else is configured.
	DefaultCost = 12
	// MaxCost is the highest cost that is accepted, in an imported hash too: one comparison takes some two seconds, and
	// every login does as much work as the costliest hash asks for. Each step doubles that.
	MaxCost = 15

	// scheme stands before the bcrypt hash of base64(HMAC-SHA-256(pepper, NFKC(password))), as in
	// $gatehouse-bcrypt$1$2a$12$…: another pre-hash, pepper or algorithm gets another number or name.
	scheme = "$gatehouse-bcrypt$1"
	// plainMax is how many bytes bcrypt looks at; beyond them it compares equal what differs.
	plainMax = 72
)

var (
	// ErrInvalid: the password is not UTF-8.
	ErrInvalid = errors.New("password is not valid UTF-8")
	// ErrUnsupported: the hash is of no scheme that this package verifies, or costs more than MaxCost.
	ErrUnsupported = errors.New("password hash not supported")
)

// modular is a bcrypt hash in modular crypt form; the first group is the cost. $2x$ is of a broken implementation.
var modular = regexp.MustCompile(`^\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

// HasherOptions say how new hashes are made.
type HasherOptions struct {
	Pepper []byte // at least 32 random bytes, the same for the life of the store
	Cost   int    // bcrypt.MinCost to MaxCost; 0 means DefaultCost
}

// Hasher makes and verifies hashes. Safe for concurrent use.
type Hasher struct {
	pepper []byte
	cost   int
	salt   string // of the comparisons whose result does not matter
	// compare is bcrypt's; the test of equal work counts its rounds.
	compare func(hash, key []byte) error
}

// NewHasher makes a Hasher. It panics for a short pepper or a cost out of range, which only a defect can bring here.
func NewHasher(o HasherOptions) *Hasher {
	if o.Cost == 0 {
		o.Cost = DefaultCost
	}
	if len(o.Pepper) < sha256.Size || o.Cost < bcrypt.MinCost || o.Cost > MaxCost {
		panic(fmt.Sprintf("password: pepper of %d bytes, cost %d", len(o.Pepper), o.Cost))
	}
	salt := rand.Text()[:22] // letters and digits: any of them are a salt
	return &Hasher{pepper: slices.Clone(o.Pepper), cost: o.Cost, salt: salt, compare: bcrypt.CompareHashAndPassword}
}

// Normalize is the one form in which a password is judged and hashed: NFKC. ErrInvalid if it is not UTF-8.
func Normalize(password string) (string, error) {
	if !utf8.ValidString(password) {
		return "", ErrInvalid
	}
	return norm.NFKC.String(password), nil
}

// HashCost returns the bcrypt cost of a hash that Verify can verify, ours or imported, and ErrUnsupported of any other.
func HashCost(hash string) (int, error) {
	plain, _ := strings.CutPrefix(hash, scheme)
	match := modular.FindStringSubmatch(plain)
	if match == nil {
		return 0, fmt.Errorf("%w: it is not bcrypt ($2a$, $2b$, $2y$)", ErrUnsupported)
	}
	cost, err := strconv.Atoi(match[1])
	if err != nil || cost < bcrypt.MinCost || cost > MaxCost {
		return 0, fmt.Errorf("%w: bcrypt cost %s is not between %d and %d", ErrUnsupported, match[1], bcrypt.MinCost, MaxCost)
	}
	return cost, nil
}

// Hash makes the hash of a password, given as it was received or normalised; ErrInvalid if it is not UTF-8.
func (h *Hasher) Hash(password string) (string, error) {
	normal, err := Normalize(password)
	if err != nil {
		return "", err
	}
	hash, err := bcrypt.GenerateFromPassword(h.key(normal), h.cost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return scheme + string(hash), nil
}

// Outdated reports whether a hash should be replaced at the next login: it is not of our scheme, or too cheap.
func (h *Hasher) Outdated(hash string) bool {
	cost, err := HashCost(hash)
	return err != nil || !strings.HasPrefix(hash, scheme) || cost < h.cost
}

// Verify reports whether the password, given as it was received, has the hash. The ceiling is the highest cost of any
// stored hash: the work is that of one comparison at this cost, or at the configured one if that is higher, whatever the
// hash and the password are. A hash that cannot be verified matches nothing.
func (h *Hasher) Verify(hash, password string, ceiling int) bool {
	target := h.target(ceiling)
	cost, err := HashCost(hash)
	if err != nil {
		h.Dummy(password, ceiling)
		return false
	}
	normal, err := Normalize(password)
	valid := err == nil
	key := h.key(normal)
	plain, ours := strings.CutPrefix(hash, scheme)
	if !ours {
		// What made this hash saw the password as it was typed, most likely in NFC. bcrypt ignores what comes after 72 bytes,
		// and takes a password with NUL bytes for a shorter one: "pa\x00pa" for "pa" (LG-01 and LG-05 of attacks.md).
		typed := norm.NFC.String(password)
		if len(typed) <= plainMax && strings.IndexByte(typed, 0) < 0 {
			key = []byte(typed)
		} else {
			valid = false
		}
	}
	match := h.compare([]byte(plain), key) == nil
	// 2^c + 2^c + 2^(c+1) + … + 2^(target−1) rounds are 2^target. What each comparison costs besides its rounds is four of
	// them, too little to see.
	for c := cost; c < target; c++ {
		h.burn(key, c)
	}
	return match && valid
}

// Dummy does the work of Verify where there is no hash.
func (h *Hasher) Dummy(password string, ceiling int) {
	normal, _ := Normalize(password)
	h.burn(h.key(normal), h.target(ceiling))
}

// target is the cost that every verification adds up to. A ceiling that no accepted hash can have raised is not believed.
func (h *Hasher) target(ceiling int) int { return max(h.cost, min(ceiling, MaxCost)) }

// key is what bcrypt hashes: 44 bytes without a NUL, of the whole password. The password is the HMAC's only input, so
// there is nothing that it could run into (LG-03).
func (h *Hasher) key(normal string) []byte {
	mac := hmac.New(sha256.New, h.pepper)
	mac.Write([]byte(normal))
	return base64.StdEncoding.AppendEncode(nil, mac.Sum(nil))
}

// burn does the work of one comparison at a cost.
func (h *Hasher) burn(key []byte, cost int) {
	hash := fmt.Sprintf("$2a$%02d$%s%s", cost, h.salt, strings.Repeat(".", 31))
	if err := h.compare([]byte(hash), key); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		panic(fmt.Sprintf("password: dummy comparison: %v", err)) // it compared nothing, or the impossible happened
	}
}
