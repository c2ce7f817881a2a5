package redisstore

import (
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// toldAfter is when every Sentinel knows who was made primary: they ask each server once a second while they replace a primary, and
// tell each other every two.
const toldAfter = 5 * time.Second

// attachment is what is known of the replicas of a primary. Sentinels replace a primary that lives, too: because an operator tells
// them to, or because a busy machine kept it from answering. It is the last to hear of that, and takes writes meanwhile, which a
// replica that still follows it confirms and then forgets. But the replica that was made primary left it before anything else
// happened, so a write is acknowledged only if behind it as many replicas are attached as ever were
// (TestStore_survivesBeingHandedOver). One that merely ended looks alike. Therefore fewer are enough once the Sentinels, asked after
// it had left, say that they replace nobody.
type attachment struct {
	most int              // that were attached behind a write
	now  int              // that were attached behind the last one, if fewer
	left bool             // fewer were
	told <-chan time.Time // yields when all Sentinels must know why
}

// errLeft is a write that is not acknowledged because of that.
var errLeft = errors.New("a replica has left the primary, and may be primary now")

// witness implements route.
func (r *sentinelRoute) witness() func(*redis.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.now.addr
	return func(role *redis.Cmd) error {
		n, err := replicasIn(role)
		if err != nil {
			return errors.Join(errUnreplicated, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.now.addr != asked {
			return errors.Join(errUnreplicated, errors.New("the primary changed meanwhile"))
		}
		return r.known.see(n)
	}
}

// see takes note of how many are attached behind a write, and says whether it may be acknowledged.
func (a *attachment) see(n int) error {
	if n >= a.most {
		*a = attachment{most: n}
		return nil
	}
	if !a.left {
		a.told = time.After(toldAfter)
	}
	a.now, a.left = n, true
	return errors.Join(errUnreplicated, errLeft)
}

// attachment is what is known at this moment.
func (r *sentinelRoute) attachment() attachment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known
}

// reassure is called when no Sentinel that was asked said that it replaces the primary. before is what was known when they were
// asked, and all says that none was silent, because one that is may be the one that does it.
func (r *sentinelRoute) reassure(before attachment, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !before.left || r.known != before {
		return
	}
	if !all {
		select {
		case <-before.told:
		default:
			return
		}
	}
	r.known = attachment{most: before.now}
}

// replicasIn is how many replicas are attached and up to date by the answer to ROLE of a server that takes itself for primary.
func replicasIn(role *redis.Cmd) (int, error) {
	answer, err := role.Slice()
	if err != nil {
		return 0, err
	}
	if len(answer) != 3 || answer[0] != "master" {
		return 0, errors.New("the server is primary no more")
	}
	replicas, ok := answer[2].([]any)
	if !ok {
		return 0, errShape
	}
	return len(replicas), nil
}
