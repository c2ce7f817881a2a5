package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/store"
)

// MaxSkew is how far the gateway's clock may be from the server's before readiness should say so: what one gateway signs
// another must accept, and the leeway is 30 s.
const MaxSkew = 5 * time.Second

// oldest is the oldest major version that has what the scripts use (PEXPIRE GT, HRANDFIELD, effects replication).
const oldest = 7

// checkScript proves that the server writes: SETRANGE with nothing on a key that does not exist changes nothing, but is
// refused like any write when the server is read-only, out of memory or cannot write its files.
var checkScript = redis.NewScript(`
redis.call('SETRANGE', KEYS[1], 0, '')
return redis.call('TIME')
`)

// Check proves that the server answers and can write, and measures the difference of the clocks, for readiness.
func (s *Store) Check(ctx context.Context) error {
	answer, err := s.script(ctx, checkScript, store.Prefix+"check")
	if err != nil {
		return err
	}
	parts, ok := answer.([]any)
	if !ok || len(parts) != 2 {
		return unavailable(errShape)
	}
	seconds, err1 := strconv.ParseInt(fmt.Sprint(parts[0]), 10, 64)
	micros, err2 := strconv.ParseInt(fmt.Sprint(parts[1]), 10, 64)
	if err1 != nil || err2 != nil {
		return unavailable(errShape)
	}
	s.skew.Store(int64(time.Unix(seconds, micros*1000).Sub(s.now())))
	return nil
}

// Skew is by how much the server's clock was ahead at the last Check. More than MaxSkew either way deserves a warning.
func (s *Store) Skew() time.Duration { return time.Duration(s.skew.Load()) }

// Warnings are what Open found that deserves attention, one plain sentence each.
func (s *Store) Warnings() []string { return append([]string(nil), s.warnings...) }

// examine runs the start checks and collects the warnings.
func (s *Store) examine(ctx context.Context, a address, o Options) error {
	if err := s.Check(ctx); err != nil {
		return err
	}
	if skew := s.Skew(); skew.Abs() > MaxSkew {
		s.warn("the clock of Redis differs from this machine's by %s; synchronise both", skew.Round(time.Second))
	}
	if !a.loopback() && !a.tls {
		s.warn("the connection to Redis at %s is not encrypted, so its password crosses the network in clear text; use rediss://", a)
	}
	return errors.Join(s.checkVersion(ctx), s.checkConfig(ctx), s.checkDefaultUser(ctx, a, o))
}

func (s *Store) warn(format string, args ...any) {
	s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
}

// checkVersion refuses a server that is too old.
func (s *Store) checkVersion(ctx context.Context) error {
	var info string
	err := s.read(ctx, func(ctx context.Context) (err error) {
		info, err = s.client.Info(ctx, "server").Result()
		return err
	})
	if refused(err) {
		s.warn("Redis does not let this user read INFO, so its version could not be checked; it must be %d or newer", oldest)
		return nil
	}
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(info, "redis_version:")
	version, _, _ := strings.Cut(rest, "\r\n")
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldest {
		return fmt.Errorf("the server is Redis %q; it must be %d or newer", version, oldest)
	}
	return nil
}

// checkConfig refuses a server that may forget: by eviction (an evicted counter is an opened door; case LK-09 of
// attacks.md), or in a restart.
func (s *Store) checkConfig(ctx context.Context) error {
	settings := map[string]string{}
	for _, name := range []string{"maxmemory-policy", "appendonly", "appendfsync"} {
		err := s.read(ctx, func(ctx context.Context) error {
			found, err := s.client.ConfigGet(ctx, name).Result()
			settings[name] = found[name]
			return err
		})
		if refused(err) {
			s.warn("Redis does not let this user read its configuration, so it could not be checked; it must have " +
				"maxmemory-policy noeviction, appendonly yes and appendfsync always")
			return nil
		}
		if err != nil {
			return err
		}
	}
	var errs []error
	if v := settings["maxmemory-policy"]; v != "noeviction" {
		errs = append(errs, fmt.Errorf("the server may evict failure counters and sessions when its memory is full "+
			"(maxmemory-policy is %q); set maxmemory-policy noeviction", v))
	}
	if v := settings["appendonly"]; v != "yes" {
		errs = append(errs, fmt.Errorf("the server forgets what it was told when it restarts (appendonly is %q); set appendonly yes", v))
	}
	switch v := settings["appendfsync"]; v {
	case "always":
	case "everysec":
		s.warn("a crash of the Redis machine can lose about the last second of logins, failure counts and revocations " +
			"(appendfsync everysec); set appendfsync always to lose none")
	default:
		s.warn("a crash of the Redis machine can lose whatever its operating system had not written yet "+
			"(appendfsync is %q); set appendfsync always to lose none", v)
	}
	return errors.Join(errs...)
}

// refused reports whether the server understood and said no: a right that is missing, or a command that was renamed.
func refused(err error) bool {
	var answer redis.Error
	return errors.As(err, &answer) && (strings.HasPrefix(answer.Error(), "NOPERM") || strings.HasPrefix(answer.Error(), "ERR unknown command"))
}

// checkDefaultUser refuses a server off this machine that lets anybody in without a password (case RD-09 of attacks.md).
// It tries, because what the configuration says can be overruled by an ACL file.
func (s *Store) checkDefaultUser(ctx context.Context, a address, o Options) error {
	if a.loopback() {
		return nil
	}
	anybody := a
	anybody.user, anybody.password, anybody.database = "", "", 0
	client := redis.NewUniversalClient(anybody.options(o))
	defer client.Close()
	err := s.limit(ctx, func(ctx context.Context) error { return client.Ping(ctx).Err() })
	var answer redis.Error
	switch {
	case err == nil:
		return fmt.Errorf("anybody who reaches the server at %s may use it without a password; set requirepass, or switch "+
			"the default user off with an ACL (user default off)", a)
	case errors.As(err, &answer):
		return nil
	default:
		return err
	}
}
