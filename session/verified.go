package session

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/session/token"
)

const (
	// maxVerified is how many verified tokens are remembered; beyond it, one is forgotten for each that is new, which costs its
	// next request one verification and one read.
	maxVerified = 100_000
	// ways is how many tokens share a place of the table. With maxVerified held there are three in two places, and one in some 6,000 places
	// has no room left.
	ways = 8
	// shards divide writes, so that the cores do not wait for one lock. Reads take none.
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

// entry is a verified token. But for the atomic fields it does not change once it is in the table.
type entry struct {
	key       tokenKey
	principal Principal
	purpose   token.Purpose
	audience  string
	expires   time.Time
	who       subject

	keys *token.KeySet // with which it was verified
	kid  string
	ends time.Time // when keys accept the key no longer; zero for no end in sight

	stale      time.Time     // when a handle should be replaced; only of what Look found
	generation uint32        // of the handle that came with it
	pending    atomic.Uint32 // what the next request has to write: pendingUse, pendingActivity
	looked     atomic.Uint64 // revocations.arrived when they were last searched for the session
}

// verified are the tokens that were verified in step with the feed, until they expire. They are removed when somebody presents
// them after their end or revocation, and by sweep. A reader follows two pointers and takes no lock, so cores that serve the same
// session do not fight for a cache line.
type verified struct {
	most  int64
	count atomic.Int64
	epoch atomic.Uint64 // counts how often everything was forgotten
	size  int           // places of a shard; a power of two
	parts [shards]shard
}

// shard is a part of the table with a lock of its own. Its places are there once it has held anything: a gateway that serves few people
// takes little memory.
type shard struct {
	mu     sync.Mutex // guards what is written
	places atomic.Pointer[[]place]
}

// place holds the entries whose keys lead here.
type place [ways]atomic.Pointer[entry]

func newVerified(most int) *verified {
	size := 1
	for size*shards*3 < most {
		size *= 2
	}
	return &verified{most: int64(most), size: size}
}

// find is where a key leads. Keys are random, so any of their bytes spread them.
func (v *verified) find(key tokenKey) (in *shard, at int) {
	n := int(binary.LittleEndian.Uint32(key[:4]))
	return &v.parts[n%shards], n / shards & (v.size - 1)
}

// at is a place of the shard; nil if it never held anything.
func (s *shard) at(n int) *place {
	places := s.places.Load()
	if places == nil {
		return nil
	}
	return &(*places)[n]
}

func (v *verified) get(key tokenKey) *entry {
	in, at := v.find(key)
	p := in.at(at)
	if p == nil {
		return nil
	}
	for i := range p {
		if e := p[i].Load(); e != nil && e.key == key {
			return e
		}
	}
	return nil
}

// put remembers a token, unless everything was forgotten since epoch was read: what was learned about its session may be older
// than the gap (TestManager_forgetsWhatItLearnedBeforeAGap).
func (v *verified) put(e *entry, epoch uint64) {
	in, at := v.find(e.key)
	in.mu.Lock()
	defer in.mu.Unlock()
	if v.epoch.Load() != epoch {
		return
	}
	if in.places.Load() == nil {
		places := make([]place, v.size)
		in.places.Store(&places)
	}
	p := in.at(at)
	free := -1
	for i := range p {
		switch held := p[i].Load(); {
		case held == nil:
			free = i
		case held.key == e.key:
			p[i].Store(e)
			return
		}
	}
	if free < 0 {
		free = p.soonest()
	} else if v.count.Add(1) > v.most && !v.evict(in, at) { // counted first, so that those who come at once are not too many together
		v.count.Add(-1)
		return
	}
	p[free].Store(e)
}

// soonest returns where the entry stands that expires first, -1 if there is none.
func (p *place) soonest() int {
	at, first := -1, time.Time{}
	for i := range p {
		if held := p[i].Load(); held != nil && (at < 0 || held.expires.Before(first)) {
			at, first = i, held.expires
		}
	}
	return at
}

// evict forgets one token of a shard whose lock is held, of the nearest place that has any; false if none has.
func (v *verified) evict(in *shard, at int) bool {
	for range v.size {
		p := in.at(at)
		if i := p.soonest(); i >= 0 {
			p[i].Store(nil)
			v.count.Add(-1)
			return true
		}
		at = (at + 1) % v.size
	}
	return false
}

// remove forgets an entry, and not another one of the same token.
func (v *verified) remove(e *entry) {
	in, at := v.find(e.key)
	in.mu.Lock()
	defer in.mu.Unlock()
	p := in.at(at)
	if p == nil {
		return
	}
	for i := range p {
		if p[i].CompareAndSwap(e, nil) {
			v.count.Add(-1)
		}
	}
}

// forget removes every token. A put that has not happened yet finds another epoch; one that has is removed.
func (v *verified) forget() {
	v.epoch.Add(1)
	v.removeIf(func(*entry) bool { return true })
}

func (v *verified) removeIf(gone func(*entry) bool) {
	for i := range v.parts {
		v.removeFrom(&v.parts[i], gone)
	}
}

func (v *verified) removeFrom(in *shard, gone func(*entry) bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for at := range v.size {
		p := in.at(at)
		if p == nil {
			return
		}
		for i := range p {
			if e := p[i].Load(); e != nil && gone(e) {
				p[i].Store(nil)
				v.count.Add(-1)
			}
		}
	}
}
