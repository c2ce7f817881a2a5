package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/store"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

// conforms runs the suite over a fleet. Its clock, far from the servers', is the suite's.
func conforms(t *testing.T, f *storetest.Fleet) {
	f.Calm()
	storetest.Run(t, func(t *testing.T, now func() time.Time) storetest.Engine {
		f.FlushAll(t)
		s := open(t, redisstore.Options{URL: f.URL(), Now: now, Timeout: unhurried})
		return storetest.Engine{Store: s, Reopen: func(t *testing.T) storetest.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, redisstore.Options{URL: f.URL(), Now: now, Timeout: unhurried})
		}}
	})
}

func TestStore_conformsWithSentinels(t *testing.T) { conforms(t, storetest.Sentinels(t)) }

func TestStore_conformsInACluster(t *testing.T) { conforms(t, storetest.Cluster(t)) }

// faults are what happens to a primary, each with what mends it.
var faults = map[string]func(*storetest.Node) (mend func()){
	"killed": func(n *storetest.Node) func() { n.Kill(); return n.Restart },
	"paused": func(n *storetest.Node) func() { n.Pause(); return n.Resume },
	"cut":    func(n *storetest.Node) func() { n.Cut(); return n.Mend },
}

// survives takes the primary away under a steady load, round by round, and wants that nothing acknowledged is lost and the
// store serves again within 15 s, without being opened anew. Cases RD-04 and RD-05 of attacks.md.
func survives(t *testing.T, f *storetest.Fleet) {
	s := open(t, redisstore.Options{URL: f.URL()})
	for _, fault := range []string{"killed", "paused", "cut"}[:storetest.Rounds(1, 3)] {
		t.Run(fault, func(t *testing.T) {
			for round := range storetest.Rounds(1, 8) {
				f.Whole(t)
				f.FlushAll(t)
				takeAway(t, f, s, fault, round)
			}
		})
	}
}

func takeAway(t *testing.T, f *storetest.Fleet, s *redisstore.Store, fault string, round int) {
	t.Helper()
	var load storetest.Load
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- load.Run(ctx, s) }()
	work(t, &load, 50)
	mend := faults[fault](f.Primary(t, store.Prefix+store.FeedKey))
	work(t, &load, 50) // with another primary
	mend()
	f.Whole(t)
	work(t, &load, 50)
	stop()
	if err := <-ended; err != nil {
		t.Fatalf("the load ended with %v", err)
	}
	storetest.WantAcknowledged(t, s, load.Acknowledged())
	acknowledged, failed, longest := load.Outage()
	t.Logf("round %d, primary %s: %d operations acknowledged, %d failed, %s without", round, fault, acknowledged, failed, longest.Round(time.Millisecond))
	if longest > 15*time.Second {
		t.Errorf("the store was away for %s", longest)
	}
}

// work waits until n more rounds of the load are done.
func work(t *testing.T, load *storetest.Load, n int) {
	t.Helper()
	done := load.Rounds() + n
	storetest.WithinPatience(t, func() error {
		if load.Rounds() < done {
			return errors.New("no work is done any more")
		}
		return nil
	})
}

func TestStore_survivesTheLossOfAPrimaryWithSentinels(t *testing.T) {
	survives(t, storetest.Sentinels(t))
}

func TestStore_survivesTheLossOfAPrimaryInACluster(t *testing.T) { survives(t, storetest.Cluster(t)) }

// A primary is replaced while it lives and takes writes, as an operator does before an upgrade, and as Sentinels do on a machine
// that was too busy to answer in time: nothing acknowledged is lost. Case RD-04 of attacks.md.
func TestStore_survivesBeingHandedOver(t *testing.T) {
	f := storetest.Sentinels(t)
	s := open(t, redisstore.Options{URL: f.URL()})
	for range storetest.Rounds(1, 8) {
		f.Whole(t)
		f.FlushAll(t)
		var load storetest.Load
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- load.Run(ctx, s) }()
		work(t, &load, 50)
		former := f.Primary(t, "any")
		storetest.WithinPatience(t, func() error {
			answer, err := f.Sentinels[0].Do("SENTINEL", "FAILOVER", storetest.SentinelMaster)
			if answer != "+OK" {
				return fmt.Errorf("%s, %w", answer, err)
			}
			return nil
		})
		storetest.WithinPatience(t, func() error {
			if f.Primary(t, "any") == former {
				return errors.New("no failover yet")
			}
			return nil
		})
		work(t, &load, 50)
		stop()
		if err := <-ended; err != nil {
			t.Fatalf("the load ended with %v", err)
		}
		storetest.WantAcknowledged(t, s, load.Acknowledged())
	}
}

// A replica that leaves its primary may be primary now. When the Sentinels say that nobody is, what is left of the replicas is enough.
func TestStore_doubtsAPrimaryThatAReplicaHasLeft(t *testing.T) {
	for name, silent := range map[string]int{"all Sentinels answer": 0, "one is silent": 1} {
		t.Run(name, func(t *testing.T) {
			f := storetest.Sentinels(t)
			s := open(t, redisstore.Options{URL: f.URL()})
			if err := putNew(t, s, "before"); err != nil {
				t.Fatal(err)
			}
			for _, sentinel := range f.Sentinels[:silent] {
				sentinel.Pause()
			}
			primary := f.Primary(t, "any")
			at := slices.IndexFunc(f.Nodes, func(n *storetest.Node) bool { return n != primary })
			f.Nodes[at].Kill()
			storetest.WithinPatience(t, func() error {
				if about := primary.MustDo("INFO", "replication"); !strings.Contains(about, "connected_slaves:1") {
					return errors.New(about)
				}
				return nil
			})
			if err := putNew(t, s, "doubtful"); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "left") {
				t.Errorf("a write behind which a replica is missing: %v, want ErrUnavailable and the reason", err)
			}
			id := 0
			storetest.WithinPatience(t, func() error {
				id++
				return putNew(t, s, strconv.Itoa(id))
			})
		})
	}
}

// What the replica did not confirm is not acknowledged, and a count that was refused may only be too high.
func TestStore_acknowledgesNothingThatNoReplicaHas(t *testing.T) {
	primary := storetest.Redis(t)
	host, port, err := net.SplitHostPort(primary.Addr())
	if err != nil {
		t.Fatal(err)
	}
	replica := storetest.Redis(t, "--replicaof", host+" "+port)
	s := open(t, redisstore.Options{URL: primary.URL() + "?replicas=1"})
	advance := func(keep time.Duration) error {
		_, _, err := s.Advance(t.Context(), store.TOTPKey("e"), 0, 1, 100, keep)
		return err
	}
	storetest.WithinPatience(t, func() error { return advance(store.Forever) }) // the replica has arrived
	before, _, err := s.Peek(t.Context(), store.TOTPKey("e"))
	if err != nil {
		t.Fatal(err)
	}
	replica.Pause()
	for what, err := range map[string]error{
		"a used step": advance(store.Forever),
		"a record":    putNew(t, s, "a"),
		"a message":   func() error { _, err := s.Publish(t.Context(), nil); return err }(),
	} {
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "replicas") {
			t.Errorf("%s that no replica has: %v, want ErrUnavailable and the reason", what, err)
		}
	}
	storetest.WithinPatience(t, func() error { // an address's bucket waits for no replica
		_, _, err := s.Advance(t.Context(), "bucket/x", 0, 1, 100, time.Minute)
		return err
	})
	if after, _, err := s.Peek(t.Context(), store.TOTPKey("e")); err != nil || after <= before {
		t.Errorf("the count was %d and is %d, %v; it must not be lower than what was tried", before, after, err)
	}
	replica.Resume()
	storetest.WithinPatience(t, func() error { return advance(store.Forever) })
}

// Case RD-04: a primary of a Cluster that lost its only replica goes on alone, but not for a moment longer than it is alone: what
// it writes once the replica is back, the replica must have.
func TestStore_waitsForAReplicaThatIsBack(t *testing.T) {
	f := storetest.Cluster(t)
	s := open(t, redisstore.Options{URL: f.URL(), Timeout: 600 * time.Millisecond})
	primary := f.Primary(t, store.Prefix+string(store.Users))
	of := "myself,slave " + primary.MustDo("CLUSTER", "MYID")
	at := slices.IndexFunc(f.Nodes, func(n *storetest.Node) bool { return strings.Contains(n.MustDo("CLUSTER", "NODES"), of) })
	if at < 0 {
		t.Fatal("the primary has no replica")
	}
	replica := f.Nodes[at]
	id := 0
	put := func() error {
		id++
		return putNew(t, s, strconv.Itoa(id))
	}
	for range storetest.Rounds(1, 5) {
		replica.Kill()
		storetest.WithinPatience(t, put) // alone
		replica.Restart()
		for counted := 0; counted < 3; time.Sleep(time.Millisecond) {
			counted, _ = primary.Replicas()
		}
		replica.Pause()
		if err := put(); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a write that the replica which is back does not have: %v, want ErrUnavailable", err)
		}
		replica.Resume()
		f.Whole(t)
		storetest.WithinPatience(t, put)
	}
}

func putNew(t *testing.T, s *redisstore.Store, id string) error {
	t.Helper()
	_, err := s.Put(t.Context(), store.UserKey(id), nil, 0, time.Time{})
	return err
}

// Case RD-05: Sentinels that are silent, and one that knows only the past.
func TestStore_believesTheNewestSentinel(t *testing.T) {
	f := storetest.Sentinels(t)
	old := storetest.Redis(t)
	_, port, err := net.SplitHostPort(old.Addr())
	if err != nil {
		t.Fatal(err)
	}
	behind := storetest.Sentinel(t, port)
	f.Sentinels[0].MustDo("SENTINEL", "FAILOVER", storetest.SentinelMaster)
	storetest.WithinPatience(t, func() error {
		if f.Primary(t, "any") == f.Nodes[0] {
			return errors.New("no failover yet")
		}
		return nil
	})
	f.Whole(t)
	f.Sentinels[1].Pause()
	defer f.Sentinels[1].Resume()
	s := open(t, redisstore.Options{URL: strings.Replace(f.URL(), "://", "://"+behind.Addr()+",", 1)})
	if err := putNew(t, s, "a"); err != nil {
		t.Error(err)
	}
	if got := old.MustDo("EXISTS", store.Prefix+"users"); got != ":0" {
		t.Error("the store believed the Sentinel that knows only the past")
	}
}

// Case RD-05: a slot moves while it is written to. Redirections are followed and nothing fails.
func TestStore_followsAMovingSlot(t *testing.T) {
	f := storetest.Cluster(t)
	f.Calm()
	s := open(t, redisstore.Options{URL: f.URL(), Timeout: unhurried})
	var load storetest.Load
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- load.Run(ctx, s) }()
	for round := range storetest.Rounds(2, 50) {
		for _, key := range []string{"crash", "crash/counter", store.FeedKey} {
			f.MoveSlot(t, store.Prefix+key, f.Primary(t, strings.Repeat("x", round)))
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	storetest.WantAcknowledged(t, s, load.Acknowledged())
	if acknowledged, failed, _ := load.Outage(); failed > 0 || acknowledged == 0 {
		t.Errorf("%d operations acknowledged, %d failed", acknowledged, failed)
	}
}

// Case RD-04: a gateway that is cut off together with an old primary is told that nothing it writes is kept, and what was
// acknowledged before holds on the other side.
func TestStore_acknowledgesNothingBesideAPrimaryThatIsCutOff(t *testing.T) {
	f := storetest.Sentinels(t)
	outside := open(t, redisstore.Options{URL: f.URL()})
	primary := f.Primary(t, store.Prefix+store.FeedKey)
	inside := open(t, redisstore.Options{URL: primary.URL() + "?replicas=1"}) // not through what is cut
	step := func(s *redisstore.Store, n int64) (bool, error) {
		_, ok, err := s.Advance(t.Context(), store.TOTPKey("e"), n-1, 1, n, store.Forever)
		return ok, err
	}
	if ok, err := step(inside, 5); !ok || err != nil {
		t.Fatalf("a step is used: %t, %v", ok, err)
	}
	if err := putNew(t, inside, "a"); err != nil {
		t.Fatal(err)
	}
	primary.Cut()
	for range 3 {
		if err := putNew(t, inside, "lost"); !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrConflict) {
			t.Errorf("a write beside the primary that is cut off: %v, want an error", err)
		}
		if _, err := step(inside, 6); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a step used there: %v, want ErrUnavailable", err)
		}
	}
	storetest.WithinPatience(t, func() error { return putNew(t, outside, "b") })
	primary.Mend()
	f.Whole(t)
	for _, s := range []*redisstore.Store{inside, outside} {
		storetest.WithinPatience(t, func() error { // the old primary follows the new one now
			_, err := s.Get(t.Context(), store.UserKey("b"))
			return err
		})
		if _, err := s.Get(t.Context(), store.UserKey("a")); err != nil {
			t.Errorf("what was acknowledged: %v", err)
		}
	}
	if ok, err := step(outside, 5); ok || err != nil {
		t.Errorf("a step that was used is used again: %t, %v", ok, err)
	}
}
