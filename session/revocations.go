package session

import (
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/session/token"
)

// maxRevoked is how many revocations are remembered. Beyond it the verified tokens are forgotten instead, and with them the
// need to remember: each session is then read from the store, where the revoked ones are gone.
const maxRevoked = 1_000_000

// subject is what a revocation is compared with.
type subject struct {
	user, session id
	created       time.Time // of the session
	since         uint64    // of an outside credential: how much had arrived when it was verified; 0 of a session
}

// rule ends all sessions of a user but one that began before an instant.
type rule struct {
	before time.Time
	except id
	until  int64  // Unix seconds
	number uint64 // of its arrival, counted as arrived is
}

// revocations are the sessions and users whose tokens are refused, kept until every token of theirs has expired. A verified
// token is searched for only when something has arrived since the last search, so requests do not meet at the locks.
type revocations struct {
	most    int64
	arrived atomic.Uint64 // counts what was added, from 1; raised after it can be found
	count   atomic.Int64  // sessions held
	rules   atomic.Int64  // users held; 0 spares the look
	steps   atomic.Int64  // step-ups held; 0 spares the look
	latest  atomic.Int64  // of the instants of the users held, in microseconds since 1970
	shards  [shards]revocationShard
}

type revocationShard struct {
	mu       sync.RWMutex
	sessions map[id]uint32 // guarded by mu; until, in Unix seconds, which fit until 2106
	users    map[id]rule   // guarded by mu
	steps    map[id]stepUp // guarded by mu
}

// stepUp is when a session got a fresher factor.
type stepUp struct {
	at    int64  // Unix seconds, as tokens count
	until uint32 // likewise
}

func newRevocations(most int64) *revocations {
	r := &revocations{most: most}
	r.arrived.Store(1)
	for i := range r.shards {
		r.shards[i].sessions, r.shards[i].users, r.shards[i].steps = map[id]uint32{}, map[id]rule{}, map[id]stepUp{}
	}
	return r
}

func (r *revocations) shard(x id) *revocationShard { return &r.shards[x[0]%shards] }

// covers reports whether a session was revoked.
func (r *revocations) covers(who subject) bool {
	s := r.shard(who.session)
	s.mu.RLock()
	_, ended := s.sessions[who.session]
	s.mu.RUnlock()
	if ended || r.rules.Load() == 0 {
		return ended
	}
	s = r.shard(who.user)
	s.mu.RLock()
	defer s.mu.RUnlock()
	rule, ok := s.users[who.user]
	return ok && rule.covers(who)
}

func (r rule) covers(who subject) bool {
	if who.since > 0 {
		return r.touches(who)
	}
	return who.created.Before(r.before) && who.session != r.except
}

// keepRevocation is how long a revocation is held: no token of the session lives longer, by whichever clock.
const keepRevocation = token.MaxLifetime + 2*token.Leeway

func (r *revocations) addSession(x id, now time.Time) {
	defer r.arrived.Add(1)
	s := r.shard(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, held := s.sessions[x]; !held {
		r.count.Add(1)
	}
	s.sessions[x] = uint32(now.Add(keepRevocation).Unix())
}

func (r *revocations) addUser(x id, before time.Time, except id, now time.Time) {
	defer r.arrived.Add(1)
	s := r.shard(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, held := s.users[x]
	if held && before.Before(old.before) {
		old.number = r.arrived.Load() + 1
		s.users[x] = old // an older message that arrives again must not take back a newer one
		return
	}
	if !held {
		r.rules.Add(1)
	}
	s.users[x] = rule{before: before, except: except, until: now.Add(keepRevocation).Unix(), number: r.arrived.Load() + 1}
	for {
		latest := r.latest.Load()
		if before.UnixMicro() <= latest || r.latest.CompareAndSwap(latest, before.UnixMicro()) {
			return
		}
	}
}

// addStepUp notes that tokens of a session that say an earlier time are to be compared with its record. It is kept as long as a
// revocation: after that no such token lives.
func (r *revocations) addStepUp(x id, at, now time.Time) {
	defer r.arrived.Add(1)
	s := r.shard(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, held := s.steps[x]
	if !held {
		r.steps.Add(1)
	}
	s.steps[x] = stepUp{at: max(at.Unix(), old.at), until: uint32(now.Add(keepRevocation).Unix())}
}

// overtook reports whether a session may have got a factor after the one that a token tells of.
func (r *revocations) overtook(session id, at time.Time) bool {
	if r.steps.Load() == 0 {
		return false
	}
	s := r.shard(session)
	s.mu.RLock()
	defer s.mu.RUnlock()
	step, held := s.steps[session]
	return held && at.Unix() < step.at
}

// newest returns an instant that is not before that of any rule held.
func (r *revocations) newest() time.Time { return time.UnixMicro(r.latest.Load()) }

// sweep drops what no token needs any more.
func (r *revocations) sweep(now time.Time) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for x, until := range s.sessions {
			if int64(until) <= now.Unix() {
				delete(s.sessions, x)
				r.count.Add(-1)
			}
		}
		for x, rule := range s.users {
			if rule.until <= now.Unix() {
				delete(s.users, x)
				r.rules.Add(-1)
			}
		}
		for x, step := range s.steps {
			if int64(step.until) <= now.Unix() {
				delete(s.steps, x)
				r.steps.Add(-1)
			}
		}
		s.mu.Unlock()
	}
}

// full reports whether more is held than the bound.
func (r *revocations) full() bool { return r.count.Load()+r.rules.Load()+r.steps.Load() > r.most }

// clear drops everything; only right after the verified tokens were forgotten.
func (r *revocations) clear() {
	r.latest.Store(0) // first: what is added meanwhile raises it again
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		r.count.Add(-int64(len(s.sessions)))
		r.rules.Add(-int64(len(s.users)))
		r.steps.Add(-int64(len(s.steps)))
		clear(s.steps)
		clear(s.sessions)
		clear(s.users)
		s.mu.Unlock()
	}
}
