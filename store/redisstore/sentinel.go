package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// lookEvery is how often the Sentinels are asked who is primary, besides whenever there is doubt.
const lookEvery = time.Second

// sentinelRoute is the way to the primary that the Sentinels name. All of them are asked at once and the newest
// configuration (the highest epoch) wins: the library's own failover client believes the first that answers, which may be
// one that was cut off together with an old primary, and never leaves one that keeps a connection open in silence.
type sentinelRoute struct {
	client    *redis.Client // whose connections lead to the primary
	sentinels []*redis.SentinelClient
	address   address
	options   Options
	doubted   chan struct{} // holds one
	stop      context.CancelFunc
	watching  sync.WaitGroup

	mu    sync.Mutex
	now   view                  // of the primary; guarded by mu
	known attachment            // of its replicas; guarded by mu
	conns map[*tracked]struct{} // open connections; guarded by mu
}

// view is what a Sentinel says: who is primary, since which configuration.
type view struct {
	addr  string
	epoch uint64
	// replacing: this Sentinel is about to make another one primary.
	replacing bool
}

func newSentinelRoute(ctx context.Context, a address, o Options) (route, error) {
	r := &sentinelRoute{address: a, options: o, doubted: make(chan struct{}, 1), conns: map[*tracked]struct{}{}}
	dial := a.dialer(o)
	for _, host := range a.hosts {
		options := a.options(host, o, dial)
		options.DB, options.Username, options.Password = 0, a.sentinelUser, a.sentinelPassword
		r.sentinels = append(r.sentinels, redis.NewSentinelClient(options))
	}
	r.client = redis.NewClient(a.options("the primary", o, r.dialer(dial)))
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = stop
	if err := r.look(ctx); err != nil {
		return nil, unavailable(errors.Join(fmt.Errorf("ask the Sentinels for the primary %q: %w", a.master, err), r.Close()))
	}
	r.watching.Go(func() { r.watch(watch) })
	return r, nil
}

func (r *sentinelRoute) primary(context.Context, string) (*redis.Client, error) { return r.client, nil }

func (r *sentinelRoute) redirected(context.Context, string) (*redis.Client, error) {
	return nil, errors.New("the server is a node of a Redis Cluster; use redis+cluster://")
}

func (r *sentinelRoute) confirmers(_ *redis.Client, want int) int { return want }

func (r *sentinelRoute) doubt() {
	select {
	case r.doubted <- struct{}{}:
	default: // somebody has asked already
	}
}

func (r *sentinelRoute) Close() error {
	r.stop()
	r.watching.Wait()
	err := r.client.Close()
	for _, s := range r.sentinels {
		err = errors.Join(err, ignoreClosed(s.Close()))
	}
	return err
}

// watch follows the primary until ctx is done. It does not look more often than every tenth of a second.
func (r *sentinelRoute) watch(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, nil, lookEvery/10)
		pause(ctx, r.doubted, lookEvery)
		_ = r.look(ctx) // no Sentinel answers: the last primary stays, and its own failure is what callers see
	}
}

// pause waits for d, for early, or for the end of ctx.
func pause(ctx context.Context, early <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-early:
	case <-timer.C:
	}
}

// look asks every Sentinel and follows the newest configuration. It fails if none answers.
func (r *sentinelRoute) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout/2)
	defer cancel()
	before := r.attachment()
	var mu sync.Mutex
	var newest view
	var answers, replacing int
	var errs []error
	var wg sync.WaitGroup
	for i, s := range r.sentinels {
		wg.Go(func() {
			v, err := r.ask(ctx, s)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", r.address.hosts[i], err))
				return
			}
			if v.replacing {
				replacing++
			}
			if answers++; answers == 1 || v.epoch > newest.epoch {
				newest = v
			}
		})
	}
	wg.Wait()
	if answers == 0 {
		return errors.Join(errs...)
	}
	majority := answers > len(r.sentinels)/2
	r.follow(newest, majority)
	if majority && replacing == 0 {
		r.reassure(before, answers == len(r.sentinels))
	}
	return nil
}

// ask takes the address from the answer that Sentinel gives to clients, because during a failover it names the new primary
// first, and the epoch from the description of the primary.
func (r *sentinelRoute) ask(ctx context.Context, s *redis.SentinelClient) (view, error) {
	addr, err := s.GetMasterAddrByName(ctx, r.address.master).Result()
	if errors.Is(err, redis.Nil) {
		return view{}, errors.New("it knows no primary of that name")
	}
	if err != nil {
		return view{}, err
	}
	about, err := s.Master(ctx, r.address.master).Result()
	if err != nil {
		return view{}, err
	}
	epoch, err := strconv.ParseUint(about["config-epoch"], 10, 64)
	if err != nil || len(addr) != 2 {
		return view{}, errShape
	}
	return view{net.JoinHostPort(addr[0], addr[1]), epoch, strings.Contains(about["flags"], "failover_in_progress")}, nil
}

// follow takes v for the truth, unless it comes from a minority and a newer one is known, and ends the connections to any
// other server: one that was primary and was only cut off would go on answering with what it knew. A majority may go back:
// Sentinels that were set up anew count from the beginning.
func (r *sentinelRoute) follow(v view, majority bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.epoch < r.now.epoch && !majority {
		return
	}
	if v.addr != r.now.addr {
		r.known = attachment{}
	}
	r.now = v
	for c := range r.conns {
		if c.addr != v.addr {
			_ = c.Conn.Close() // its owner gets an error and connects anew
		}
	}
}

// dialer connects to whoever is primary.
func (r *sentinelRoute) dialer(dial dialer) dialer {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		r.mu.Lock()
		addr := r.now.addr
		r.mu.Unlock()
		conn, err := dial(ctx, network, addr)
		if err != nil {
			r.doubt()
			return nil, err
		}
		c := &tracked{Conn: conn, addr: addr, route: r}
		r.mu.Lock()
		defer r.mu.Unlock()
		if addr != r.now.addr {
			return nil, errors.Join(errors.New("the primary changed while connecting to it"), conn.Close())
		}
		r.conns[c] = struct{}{}
		return c, nil
	}
}

// tracked is a connection that its route can end.
type tracked struct {
	net.Conn
	addr  string
	route *sentinelRoute
}

// SyscallConn lets the library see that the server has closed an idle connection.
func (c *tracked) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Close ends the connection.
func (c *tracked) Close() error {
	c.route.mu.Lock()
	delete(c.route.conns, c)
	c.route.mu.Unlock()
	return c.Conn.Close()
}

// servers are the primary and the replicas that a Sentinel says are there: one of them will be primary one day.
func (r *sentinelRoute) servers(ctx context.Context) ([]server, func(), error) {
	r.mu.Lock()
	all := []server{{addr: r.now.addr, client: r.client}}
	r.mu.Unlock()
	var opened []*redis.Client
	done := func() {
		for _, c := range opened {
			_ = c.Close() // nothing was written through it
		}
	}
	var errs []error
	for _, s := range r.sentinels {
		replicas, err := s.Replicas(ctx, r.address.master).Result()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, about := range replicas {
			if about["flags"] != "slave" { // anything more says that it is down or disconnected
				continue
			}
			addr := net.JoinHostPort(about["ip"], about["port"])
			client := redis.NewClient(r.address.options(addr, r.options, r.address.dialer(r.options)))
			opened = append(opened, client)
			all = append(all, server{addr: addr, client: client, replica: true})
		}
		return all, done, nil
	}
	return nil, nil, errors.Join(errs...)
}
