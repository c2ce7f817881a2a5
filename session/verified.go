package session

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/session/token"
)

const (
	// maxVerified is how many verified tokens are remembered; beyond it, one is forgotten for each that is new, which costs its
	// next request one verification and one read.
	maxVerified = 100_000
	// shards divide a table so that the cores do not wait for one lock. Keys are random, so the first byte spreads them.
	shards = 64
)

// tokenKey is the SHA-256 of a token: the table holds no bearer secret.
type tokenKey [sha256.Size]byte

// keyOf copies a token of usual length to the stack: a conversion would allocate at every request.
func keyOf(raw string) tokenKey {
	var buffer [1 << 10]byte
	if len(raw) > len(buffer) {
		return sha256.Sum256([]byte(raw))
	}
	return sha256.Sum256(buffer[:copy(buffer[:], raw)])
}

// entry is a verified token. It does not change.
type entry struct {
	principal Principal
	purpose   token.Purpose
	audience  string
	expires   time.Time
	who       subject
}

// verified are the tokens that were verified in step with the feed, until they expire. They are removed when somebody presents
// them after their end or revocation, and by sweep.
type verified struct {
	most   int           // entries of a shard
	epoch  atomic.Uint64 // counts how often everything was forgotten
	shards [shards]verifiedShard
}

type verifiedShard struct {
	mu      sync.RWMutex
	entries map[tokenKey]*entry // guarded by mu
	_       [32]byte            // neighbours do not share a cache line
}

func newVerified(most int) *verified {
	v := &verified{most: max(most/shards, 1)}
	for i := range v.shards {
		v.shards[i].entries = map[tokenKey]*entry{}
	}
	return v
}

func (v *verified) shard(key tokenKey) *verifiedShard { return &v.shards[key[0]%shards] }

func (v *verified) get(key tokenKey) *entry {
	s := v.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.entries[key]
}

// put remembers a token, unless everything was forgotten since epoch was read: what was learned about its session may be older
// than the gap (TestManager_forgetsWhatItLearnedBeforeAGap).
func (v *verified) put(key tokenKey, e *entry, epoch uint64) {
	s := v.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.epoch.Load() != epoch {
		return
	}
	if len(s.entries) >= v.most {
		for old := range s.entries { // any one: the order of a map is random
			delete(s.entries, old)
			break
		}
	}
	s.entries[key] = e
}

func (v *verified) remove(key tokenKey) {
	s := v.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, key)
}

// forget removes every token. A put that has not happened yet finds another epoch; one that has is removed.
func (v *verified) forget() {
	v.epoch.Add(1)
	v.removeIf(func(*entry) bool { return true })
}

func (v *verified) removeIf(gone func(*entry) bool) {
	for i := range v.shards {
		s := &v.shards[i]
		s.mu.Lock()
		for key, e := range s.entries {
			if gone(e) {
				delete(s.entries, key)
			}
		}
		s.mu.Unlock()
	}
}
