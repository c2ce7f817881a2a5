package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"gatehouse/store"
)

// oldest is the oldest major version that has what the scripts use (PEXPIRE GT, HRANDFIELD, effects replication).
const oldest = 7

// rightsScript tries every command that the store uses on a key of its own and returns those that the user may not run.
// Redis asks for the same rights inside a script as outside; it words the refusal in one way before 7.2 and in another since.
var rightsScript = redis.NewScript(`
local key, missing = KEYS[1], {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return end
  if string.find(answer.err, 'executing the script') or string.find(answer.err, 'ACL failure') then table.insert(missing, (...)) end
end
try('TIME')
try('SET', key, '1', 'PX', '1000') try('GET', key) try('EXISTS', key) try('PEXPIRE', key, '1000') try('PERSIST', key)
try('SETRANGE', key, '0', '') try('DEL', key)
try('HSET', key, 'f', 'v') try('HGET', key, 'f') try('HGETALL', key) try('HRANDFIELD', key, '1', 'WITHVALUES') try('HDEL', key, 'f')
try('XADD', key, '1-0', 'f', 'v') try('XRANGE', key, '-', '+') try('XREVRANGE', key, '+', '-')
try('XREAD', 'STREAMS', key, '0') try('XTRIM', key, 'MAXLEN', '0')
redis.pcall('DEL', key)
return missing
`)

// checkRights refuses a user who may not do what the store does, and says what is missing.
func (s *Store) checkRights(ctx context.Context) error {
	answer, err := s.script(ctx, rightsScript, checkName, 0)
	if refused(err) {
		return fmt.Errorf("the Redis user may not work with the keys %s* by EVALSHA and EVAL; give it both commands and these keys: %w", store.Prefix, err)
	}
	if err != nil {
		return err
	}
	missing, ok := answer.([]any)
	if !ok {
		return unavailable(errShape)
	}
	confirming, err := s.missingToConfirm(ctx)
	if err != nil {
		return err
	}
	missing = append(missing, confirming...)
	if len(missing) == 0 {
		return nil
	}
	var rights strings.Builder
	for _, command := range missing {
		fmt.Fprintf(&rights, " +%s", command)
	}
	return fmt.Errorf("the Redis user lacks rights on the keys %s*; add to its ACL:%s", store.Prefix, strings.ToLower(rights.String()))
}

// missingToConfirm is what the user may not run of what has replicas confirm a write.
func (s *Store) missingToConfirm(ctx context.Context) (missing []any, err error) {
	if s.replicas == 0 {
		return nil, nil
	}
	commands := []redis.Cmder{s.wait(ctx, 0)}
	if s.route.witness() != nil {
		commands = append(commands, redis.NewCmd(ctx, "ROLE"))
	}
	for _, command := range commands {
		err := s.limit(ctx, func(ctx context.Context) error {
			client, err := s.route.primary(ctx, checkName)
			if err != nil {
				return err
			}
			return client.Process(ctx, command)
		})
		switch {
		case refused(err):
			missing = append(missing, strings.ToUpper(command.Name()))
		case err != nil:
			return nil, err
		}
	}
	return missing, nil
}

// examination is the start check of one server.
type examination struct {
	*Store
	server
	address  address
	options  Options
	alone    bool // there is no other server
	warnings []string
}

func (x *examination) warn(format string, args ...any) {
	x.warnings = append(x.warnings, fmt.Sprintf(format, args...))
}

// check runs all checks of the server; errors name it if there are others.
func (x *examination) check(ctx context.Context) error {
	if !loopback(x.addr) && !x.address.tls {
		x.warn("the connection to Redis at %s is not encrypted, so its password crosses the network in clear text; use rediss", x.addr)
	}
	err := errors.Join(x.checkVersion(ctx), x.checkConfig(ctx), x.checkReplicas(ctx), x.checkDefaultUser(ctx))
	if err != nil && !x.alone {
		return fmt.Errorf("server %s: %w", x.addr, err)
	}
	return err
}

// get sends a command that changes nothing to the server.
func get[T any, C answered[T]](ctx context.Context, x *examination, do func(context.Context) C) (value T, err error) {
	err = x.limit(ctx, func(ctx context.Context) error {
		value, err = do(ctx).Result()
		return err
	})
	return value, err
}

// checkVersion refuses a server that is too old.
func (x *examination) checkVersion(ctx context.Context) error {
	version, err := x.info(ctx, "server", "redis_version")
	if refused(err) {
		x.warn("Redis does not let this user read INFO, so its version and its replicas could not be checked; it must be %d or newer", oldest)
		return nil
	}
	if err != nil {
		return err
	}
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldest {
		return fmt.Errorf("the server is Redis %q; it must be %d or newer", version, oldest)
	}
	return nil
}

// info is one field of a section of INFO.
func (x *examination) info(ctx context.Context, section, field string) (string, error) {
	text, err := get(ctx, x, func(ctx context.Context) *redis.StringCmd { return x.client.Info(ctx, section) })
	_, rest, _ := strings.Cut(text, "\r\n"+field+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value, err
}

// config is one setting of the server.
func (x *examination) config(ctx context.Context, name string) (string, error) {
	found, err := get(ctx, x, func(ctx context.Context) *redis.MapStringStringCmd { return x.client.ConfigGet(ctx, name) })
	return found[name], err
}

// checkConfig refuses a server that may forget: by eviction (an evicted counter is an opened door; case LK-09 of
// attacks.md), or in a restart.
func (x *examination) checkConfig(ctx context.Context) error {
	policy, err1 := x.config(ctx, "maxmemory-policy")
	appendOnly, err2 := x.config(ctx, "appendonly")
	fsync, err3 := x.config(ctx, "appendfsync")
	err := errors.Join(err1, err2, err3)
	if refused(err) {
		x.warn("Redis does not let this user read its configuration, so it could not be checked; it must have " +
			"maxmemory-policy noeviction, appendonly yes and appendfsync always")
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	if policy != "noeviction" {
		errs = append(errs, fmt.Errorf("the server may evict failure counters and sessions when its memory is full "+
			"(maxmemory-policy is %q); set maxmemory-policy noeviction", policy))
	}
	if appendOnly != "yes" {
		errs = append(errs, fmt.Errorf("the server forgets what it was told when it restarts (appendonly is %q); set appendonly yes", appendOnly))
	}
	switch fsync {
	case "always":
	case "everysec":
		x.warn("a crash of the Redis machine can lose about the last second of logins, failure counts and revocations " +
			"(appendfsync everysec); set appendfsync always to lose none")
	default:
		x.warn("a crash of the Redis machine can lose whatever its operating system had not written yet "+
			"(appendfsync is %q); set appendfsync always to lose none", fsync)
	}
	return errors.Join(errs...)
}

// checkReplicas warns of a primary that would go on alone after it was cut off from its replicas (case RD-04; in a Cluster it
// stops by itself), and of replicas that are asked for and not there. A user who may not look was told so by the other checks.
func (x *examination) checkReplicas(ctx context.Context) error {
	if x.replica {
		return nil
	}
	connected, err := x.info(ctx, "replication", "connected_slaves")
	if refused(err) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(connected)
	if err != nil {
		return unavailable(errShape)
	}
	if n < x.replicas && x.address.mode != cluster {
		x.warn("logins need %d replicas that confirm them, and %d are connected; until they are, logins and other changes are answered with 503", x.replicas, n)
	}
	if x.address.mode == cluster {
		if n == 0 {
			x.warn("this primary has no replica, so its part of the data is away when it fails")
		}
		return nil
	}
	least, err := x.config(ctx, "min-replicas-to-write")
	if err == nil && least == "0" && (n > 0 || x.address.mode == sentinel) {
		x.warn("a primary that is cut off from its replicas goes on taking writes, which are lost when another one takes over " +
			"(min-replicas-to-write is 0); set min-replicas-to-write 1")
	}
	if refused(err) {
		return nil
	}
	return err
}

// refused reports whether the server understood and said no: a right that is missing, or a command that was renamed.
func refused(err error) bool {
	return redis.IsPermissionError(err) || redis.HasErrorPrefix(err, "unknown command")
}

// checkDefaultUser refuses a server off this machine that lets anybody in without a password (case RD-09 of attacks.md).
// It tries, because what the configuration says can be overruled by an ACL file.
func (x *examination) checkDefaultUser(ctx context.Context) error {
	if loopback(x.addr) {
		return nil
	}
	anybody := x.address
	anybody.user, anybody.password, anybody.database = "", "", 0
	client := redis.NewClient(anybody.options(x.addr, x.options, anybody.dialer(x.options)))
	defer client.Close()
	_, err := get(ctx, x, func(ctx context.Context) *redis.StatusCmd { return client.Ping(ctx) })
	var answer redis.Error
	switch {
	case err == nil:
		return fmt.Errorf("anybody who reaches the server at %s may use it without a password; set requirepass, or switch "+
			"the default user off with an ACL (user default off)", x.addr)
	case errors.As(err, &answer):
		return nil
	default:
		return err
	}
}
