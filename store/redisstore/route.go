package redisstore

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// maxHops bounds the redirections that one operation follows. Two are usual while a slot moves: to where the slot belongs,
// and from there to where it goes.
const maxHops = 4

// route knows which server to ask. Safe for concurrent use.
type route interface {
	// primary is the server that holds a key.
	primary(ctx context.Context, key string) (*redis.Client, error)
	// redirected is the server that a redirection names.
	redirected(ctx context.Context, addr string) (*redis.Client, error)
	// confirmers is how many replicas can be asked to confirm what is written at a primary, if want would be right.
	confirmers(primary *redis.Client, want int) int
	// witness is called before a write that replicas must confirm, and its judge gets, if there is one, what the primary answered to
	// ROLE behind it. nil where no replica becomes primary without the primary knowing.
	witness() (judge func(role *redis.Cmd) error)
	// doubt asks for a new look at who is primary, without waiting for it, because a server was silent or refused.
	doubt()
	// servers are all that are or may become primary, for the start checks. done ends what was opened for them.
	servers(ctx context.Context) (all []server, done func(), err error)
	Close() error
}

// server is one of the servers of a store.
type server struct {
	addr    string
	client  *redis.Client
	replica bool
}

// newRoute makes the route that a store URL asks for.
func newRoute(ctx context.Context, a address, o Options) (route, error) {
	switch a.mode {
	case sentinel:
		return newSentinelRoute(ctx, a, o)
	case cluster:
		return newClusterRoute(ctx, a, o), nil
	default:
		return singleRoute{redis.NewClient(a.options(a.hosts[0], o, a.dialer(o)))}, nil
	}
}

// singleRoute is the way to the only server.
type singleRoute struct{ client *redis.Client }

func (r singleRoute) primary(context.Context, string) (*redis.Client, error) { return r.client, nil }
func (r singleRoute) confirmers(_ *redis.Client, want int) int               { return want }
func (r singleRoute) witness() func(*redis.Cmd) error                        { return nil }
func (r singleRoute) doubt()                                                 {}
func (r singleRoute) Close() error                                           { return r.client.Close() }

func (r singleRoute) redirected(context.Context, string) (*redis.Client, error) {
	return nil, errors.New("the server is a node of a Redis Cluster; use redis+cluster://")
}

func (r singleRoute) servers(context.Context) ([]server, func(), error) {
	return []server{{addr: r.client.Options().Addr, client: r.client}}, func() {}, nil
}

// errUnreplicated is a write that this primary has done and too few replicas know of.
var errUnreplicated = errors.New("too few replicas confirmed the write in time")

// run sends one command to the server that holds key. do queues or runs the command on what it is given and returns it.
// Where a server answers that the key is elsewhere it did not run the command, so the command follows; every other answer,
// and none, ends it. With replicas > 0 the command is a write that so many replicas must have confirmed: WAIT goes out on
// the same connection right behind it, because it counts what was written on its own connection.
func (s *Store) run(ctx context.Context, key string, replicas int, do func(redis.Cmdable) redis.Cmder) error {
	client, err := s.route.primary(ctx, key)
	asking := false
	for hop := 0; err == nil; hop++ {
		err = s.send(ctx, client, asking, replicas, do)
		addr, moved := redis.IsMovedError(err)
		if !moved {
			addr, asking = redis.IsAskError(err)
		}
		if err == nil || !moved && !asking || hop == maxHops {
			return err
		}
		client, err = s.route.redirected(ctx, addr)
	}
	return err
}

// send runs the command at one server. asking tells it that it was named by a node that is handing the slot over.
func (s *Store) send(ctx context.Context, client *redis.Client, asking bool, replicas int, do func(redis.Cmdable) redis.Cmder) error {
	want := replicas
	if want > 0 {
		replicas = s.route.confirmers(client, want)
	}
	if !asking && want == 0 {
		return do(client).Err()
	}
	conn := client.Conn() // WAIT may follow on it
	defer conn.Close()
	pipe := conn.Pipeline()
	if asking {
		pipe.Do(ctx, "ASKING")
	}
	command := do(pipe)
	var confirmed *redis.IntCmd
	judge := s.route.witness()
	role := redis.NewCmd(ctx, "ROLE")
	if replicas > 0 {
		confirmed = s.wait(ctx, replicas)
		_ = pipe.Process(ctx, confirmed) // only queues it
		if judge != nil {
			_ = pipe.Process(ctx, role)
		}
	}
	var counted *redis.ClusterSlotsCmd
	if replicas < want { // in a Cluster only; a replica may have come since
		counted = pipe.ClusterSlots(ctx)
	}
	_, failed := pipe.Exec(ctx)
	if err := command.Err(); err != nil || want == 0 {
		return err
	}
	if counted != nil {
		n, found := replicasOf(client, counted.Val())
		if !found {
			return errors.Join(errUnreplicated, counted.Err())
		}
		if n > replicas {
			s.route.doubt()
			replicas, failed = min(n, want), nil
			confirmed = s.wait(ctx, replicas)
			_ = conn.Process(ctx, confirmed)
		}
	}
	if confirmed == nil {
		return nil
	}
	if n, err := confirmed.Result(); err != nil || n < int64(replicas) {
		return errors.Join(errUnreplicated, err)
	}
	if judge != nil {
		return judge(role)
	}
	return ignoreNil(failed)
}

// wait is the command that waits until so many replicas have what was written on its connection.
func (s *Store) wait(ctx context.Context, replicas int) *redis.IntCmd {
	return redis.NewIntCmd(ctx, "WAIT", replicas, s.replicaWait.Milliseconds())
}

// ignoreNil takes an absent value, which is an answer, for no error.
func ignoreNil(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}
