package redisstore

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// clusterRoute takes from the library the map of slots and a client for each node, and nothing of its way to repeat.
type clusterRoute struct {
	client   *redis.ClusterClient
	timeout  time.Duration
	doubted  chan struct{} // holds one
	stop     context.CancelFunc
	watching sync.WaitGroup
	replicas atomic.Pointer[map[string]int] // of each primary, by its address
}

func newClusterRoute(ctx context.Context, a address, o Options) route {
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &clusterRoute{
		client: redis.NewClusterClient(a.clusterOptions(o)), timeout: o.Timeout, doubted: make(chan struct{}, 1), stop: stop,
	}
	r.count(ctx)
	r.watching.Go(func() {
		for watch.Err() == nil {
			pause(watch, nil, lookEvery/10)
			pause(watch, r.doubted, lookEvery)
			r.count(watch)
		}
	})
	return r
}

// count asks each primary how many replicas it has: itself, because a node that was cut off may know old things of others.
// Of one that does not answer, what was known stays.
func (r *clusterRoute) count(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var mu sync.Mutex
	replicas := map[string]int{}
	if known := r.replicas.Load(); known != nil {
		replicas = maps.Clone(*known)
	}
	_ = r.client.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		//lint:ignore SA1019 the library names its clients by the addresses that CLUSTER SLOTS gives, so that is what can be compared
		slots, err := c.ClusterSlots(ctx).Result()
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if n, found := replicasOf(c, slots); found {
			replicas[c.Options().Addr] = n
		}
		return nil
	})
	r.replicas.Store(&replicas)
}

// replicasOf is how many replicas a primary has in a map of slots, if it is in there.
func replicasOf(primary *redis.Client, slots []redis.ClusterSlot) (int, bool) {
	for _, s := range slots {
		if len(s.Nodes) > 0 && s.Nodes[0].Addr == primary.Options().Addr {
			return len(s.Nodes) - 1, true
		}
	}
	return 0, false
}

func (r *clusterRoute) primary(ctx context.Context, key string) (*redis.Client, error) {
	return r.client.MasterForKey(ctx, key)
}

// confirmers is less than want where the Cluster itself counts fewer replicas. A Cluster of three primaries with one
// replica each goes on after it lost a primary, with a shard that has no replica; as long as it has none, no other node can
// take its place, so nothing written there is forgotten. What was counted may be a second old, so a write that counts on it
// asks again behind itself (send): a replica that was counted before the write must confirm it. A primary that was only cut off is not fooled: a replica is left
// out when the majority of the primaries has found it to have failed.
func (r *clusterRoute) confirmers(primary *redis.Client, want int) int {
	counted := r.replicas.Load()
	if counted == nil {
		return want
	}
	n, known := (*counted)[primary.Options().Addr]
	if !known {
		return want
	}
	return min(n, want)
}

// witness: the majority that elects a replica has refused the former primary before.
func (r *clusterRoute) witness() func(*redis.Cmd) error { return nil }

func (r *clusterRoute) doubt() {
	r.client.ReloadState(context.Background()) // starts at most one reload at a time
	select {
	case r.doubted <- struct{}{}:
	default: // somebody has asked already
	}
}

func (r *clusterRoute) Close() error {
	r.stop()
	r.watching.Wait()
	return r.client.Close()
}

func (r *clusterRoute) redirected(ctx context.Context, addr string) (*redis.Client, error) {
	all, done, err := r.servers(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	for _, s := range all {
		if s.addr == addr {
			return s.client, nil
		}
	}
	return nil, fmt.Errorf("redirected to %s, which is no node that the others know", addr)
}

// servers reads the map of slots anew.
func (r *clusterRoute) servers(ctx context.Context) ([]server, func(), error) {
	var mu sync.Mutex
	var all []server
	primaries := map[*redis.Client]bool{}
	err := r.client.ForEachMaster(ctx, func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		primaries[c] = true
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	err = r.client.ForEachShard(ctx, func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, server{addr: c.Options().Addr, client: c, replica: !primaries[c]})
		return nil
	})
	return all, func() {}, err
}
