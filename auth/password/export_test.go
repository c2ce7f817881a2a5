package password

import "golang.org/x/crypto/bcrypt"

// CountComparisons calls fn with the hash of every comparison that h would make, and makes none.
func (h *Hasher) CountComparisons(fn func(hash string)) {
	h.compare = func(hash, _ []byte) error {
		fn(string(hash))
		return bcrypt.ErrMismatchedHashAndPassword
	}
}

// NewGaugedPool is NewPool with workers that are told which part of a core a work had.
func NewGaugedPool(o PoolOptions, part func(work func()) float64) *Pool { return newPool(o, part) }
