// Package redisstore keeps the state of several gateways in Redis, version 7 or newer: one server, a primary that Sentinels
// watch over, or a Cluster.
//
// It promises what package store asks of every engine. Each operation touches one key and takes one round trip; what has to
// be atomic is a Lua script. A write is as durable as the server's append-only file: Open refuses a server without one and
// warns unless it syncs before it answers (appendfsync always). Whatever the server says that is not the answer (read-only,
// out of memory, loading, a wrong type, garbage, silence) is store.ErrUnavailable, within Options.Timeout, and a reason to
// look who is primary now. A write is never sent twice; MOVED and ASK, which say that it did not run, are followed.
//
// With Sentinels and in a Cluster, a write that must not be forgotten is acknowledged only when a replica has confirmed it,
// too (WAIT): every change of a record, every message of the feed, every counter that is kept for ever. What the replicas
// did not confirm in time is store.ErrUnavailable, though the primary may keep it: a count may then be too high, never too
// low. With Sentinels it is acknowledged only if no replica had left the primary, besides, because that one may have been made
// primary in its place. The address buckets, which refill by themselves, do not wait.
//
// Expiry is data, compared with the gateway's clock. The server's own time to live only collects garbage, never sooner than
// store.GarbageMargin after the end.
package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/store"
)

// The compile-time proof that the engine is whole.
var (
	_ store.Records  = (*Store)(nil)
	_ store.Counters = (*Store)(nil)
	_ store.Feed     = (*Store)(nil)
)

// DefaultTimeout leaves a login that meets a silent server time to answer 503 within two seconds.
const DefaultTimeout = 1500 * time.Millisecond

// Options say which server to use, and how.
type Options struct {
	// URL says which servers to use. Required. With rediss in place of redis every connection uses TLS.
	//
	//	redis://[user:password@]host[:port][/database]
	//	redis+sentinel://[user:password@]host[:port],…[/database]?master=NAME[&sentinel_user=…][&sentinel_password=…]
	//	redis+cluster://[user:password@]host[:port],…
	//
	// The parameter replicas=N says how many replicas must confirm what must not be forgotten: 0 to 16; 0 for one server and
	// 1 for the others if absent.
	URL string
	// Now is the clock that expiries are compared with. Required.
	Now func() time.Time
	// Timeout bounds each operation, connecting included; 0 is DefaultTimeout.
	Timeout time.Duration
	// TLS is used with rediss; nil is the system's roots and TLS 1.2 or newer. Each server's certificate must be good for the
	// name or address that the URL, the Sentinels or the Cluster give for it.
	TLS *tls.Config
	// Logger receives what the client library reports; nil discards it. The library has one logger for the whole process, so
	// the last Open decides.
	Logger *slog.Logger
}

// Store is a connection to a Redis. Safe for concurrent use.
type Store struct {
	route       route
	now         func() time.Time
	timeout     time.Duration
	replicas    int           // that must confirm what must not be forgotten
	replicaWait time.Duration // at most
	warnings    []string      // written by Open only
	skew        atomic.Int64  // nanoseconds, of the last check
}

// Open connects and runs the start checks. What makes the server unfit is returned as one error that says, for each point,
// what to change; what only deserves attention is in Warnings. ErrUnavailable if the server does not answer.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	redis.SetLogger(libraryLogger{logger})
	a, err := parseAddress(o.URL)
	if err != nil {
		return nil, err
	}
	r, err := newRoute(ctx, a, o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", a, err)
	}
	s := &Store{route: r, now: o.Now, timeout: o.Timeout, replicas: a.replicas, replicaWait: o.Timeout / 3}
	if err := s.examine(ctx, a, o); err != nil {
		_ = r.Close() // the reason for leaving matters more
		return nil, fmt.Errorf("open store %s: %w", a, err)
	}
	return s, nil
}

// Close ends the connections. Calls that come later get ErrUnavailable.
func (s *Store) Close() error {
	if err := ignoreClosed(s.route.Close()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// ignoreClosed takes what was closed before for closed.
func ignoreClosed(err error) error {
	if errors.Is(err, redis.ErrClosed) {
		return nil
	}
	return err
}

// answered is a command of the library with its answer.
type answered[T any] interface {
	redis.Cmder
	Result() (T, error)
}

// read runs a command on key that changes nothing. It is sent once more if the connection broke, because a server that was
// restarted leaves broken connections behind.
func read[T any, C answered[T]](ctx context.Context, s *Store, key string, do func(context.Context, redis.Cmdable) C) (T, error) {
	var command C
	err := s.limit(ctx, func(ctx context.Context) error {
		once := func(c redis.Cmdable) redis.Cmder {
			command = do(ctx, c)
			return command
		}
		err := s.run(ctx, key, 0, once)
		if broken(err) && ctx.Err() == nil {
			err = s.run(ctx, key, 0, once)
		}
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return command.Result()
}

// script runs a Lua script on one key, and has its writes confirmed by so many replicas. It is not repeated: whether it ran
// is unknown when the answer is lost. The one exception is a server that does not know the script (restarted, or flushed):
// it did nothing and is sent the whole text.
func (s *Store) script(ctx context.Context, script *redis.Script, key string, replicas int, args ...any) (any, error) {
	var command *redis.Cmd
	err := s.limit(ctx, func(ctx context.Context) error {
		err := s.run(ctx, key, replicas, func(c redis.Cmdable) redis.Cmder {
			command = c.EvalSha(ctx, script.Hash(), []string{key}, args...)
			return command
		})
		if !redis.HasErrorPrefix(err, "NOSCRIPT") {
			return err
		}
		return s.run(ctx, key, replicas, func(c redis.Cmdable) redis.Cmder {
			command = script.Eval(ctx, c, []string{key}, args...)
			return command
		})
	})
	if err != nil {
		return nil, err
	}
	return command.Result()
}

// limit bounds an operation by the timeout and turns every error but redis.Nil into ErrUnavailable.
func (s *Store) limit(ctx context.Context, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := do(ctx)
	if err == nil || errors.Is(err, redis.Nil) {
		return err
	}
	if !errors.Is(err, context.Canceled) {
		s.route.doubt()
	}
	return unavailable(err)
}

// broken reports whether err is about the connection, not an answer of the server.
func broken(err error) bool {
	var answer redis.Error
	return err != nil && !errors.As(err, &answer) && !errors.Is(err, errGarbage)
}

// errShape is an answer that none of our scripts gives.
var errShape = errors.New("the server's answer has the wrong form")

// unavailable says that the server cannot answer, and why.
func unavailable(cause error) error {
	return fmt.Errorf("%w: %w", store.ErrUnavailable, cause)
}

// libraryLogger passes on what go-redis reports.
type libraryLogger struct{ logger *slog.Logger }

// Printf implements the library's logger.
func (l libraryLogger) Printf(ctx context.Context, format string, v ...any) {
	l.logger.WarnContext(ctx, "redis client", "report", fmt.Sprintf(format, v...))
}
