package redisstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/store"
)

// headerSize is the version and the expiry in front of each value, eight bytes each, big-endian. The scripts know it too.
const headerSize = 16

// perWrite is how many records of a collection a write looks at to remove what has expired. A write adds at most one, so
// what has expired stays a fraction of what is there.
const perWrite = 4

// place returns the Redis key and the field in it; a record that stands alone has no field.
func place(key store.Key) (name, field string) {
	if key.Collection == "" {
		return store.Prefix + key.ID, ""
	}
	return store.Prefix + string(key.Collection), key.ID
}

// Get implements store.Records.
func (s *Store) Get(ctx context.Context, key store.Key) (store.Record, error) {
	name, field := place(key)
	raw, err := read(ctx, s, name, func(ctx context.Context, c redis.Cmdable) *redis.StringCmd {
		if field == "" {
			return c.Get(ctx, name)
		}
		return c.HGet(ctx, name, field)
	})
	if errors.Is(err, redis.Nil) {
		return store.Record{}, store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, err
	}
	r, err := decode(key, []byte(raw))
	if err != nil {
		return store.Record{}, err
	}
	if expired(r, s.now()) {
		return store.Record{}, store.ErrNotFound
	}
	return r, nil
}

// decode reads a stored record, whose value it takes over.
func decode(key store.Key, raw []byte) (store.Record, error) {
	if len(raw) < headerSize {
		return store.Record{}, unavailable(errShape)
	}
	version, expires := binary.BigEndian.Uint64(raw), int64(binary.BigEndian.Uint64(raw[8:]))
	if version == 0 || expires < 0 {
		return store.Record{}, unavailable(errShape)
	}
	return store.Record{Key: key, Value: raw[headerSize:], Version: version, Expires: store.FromMicros(expires)}, nil
}

// expired compares with the caller's clock.
func expired(r store.Record, now time.Time) bool {
	return !r.Expires.IsZero() && r.Expires.UnixMicro() <= now.UnixMicro()
}

// recordLua begins the scripts on records. current is the version that is there and has not expired, or empty. What is no
// record is an error, which ends the script before it changes anything.
const recordLua = `
local name, field, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
local old
if field == '' then old = redis.call('GET', name) else old = redis.call('HGET', name, field) end
local current = ''
if old then
  if #old < 16 then return redis.error_reply('GATEHOUSE not a record') end
  local expires = struct.unpack('>i8', old, 9)
  if expires == 0 or expires > now then current = string.sub(old, 1, 8) end
end
local function prune(count, before)
  local sample = redis.call('HRANDFIELD', name, count, 'WITHVALUES')
  for i = 1, #sample, 2 do
    if #sample[i + 1] >= 16 then
      local expires = struct.unpack('>i8', sample[i + 1], 9)
      if expires ~= 0 and expires < before then redis.call('HDEL', name, sample[i]) end
    end
  end
end
`

// putScript: field, now, expected version, new record, time to live in ms (0 none), records to prune, before when.
// A collection lives as long as its longest-lived record: PEXPIRE GT never shortens, and leaves alone what has no end.
var putScript = redis.NewScript(recordLua + `
if current ~= ARGV[3] then return 0 end
local ttl = tonumber(ARGV[5])
if field == '' then
  if ttl == 0 then redis.call('SET', name, ARGV[4]) else redis.call('SET', name, ARGV[4], 'PX', ARGV[5]) end
  return 1
end
local existed = redis.call('EXISTS', name)
redis.call('HSET', name, field, ARGV[4])
if ttl == 0 then redis.call('PERSIST', name)
elseif existed == 0 then redis.call('PEXPIRE', name, ARGV[5])
else redis.call('PEXPIRE', name, ARGV[5], 'GT') end
prune(ARGV[6], tonumber(ARGV[7]))
return 1
`)

// deleteScript: field, now, expected version (empty for any), records to prune, before when.
var deleteScript = redis.NewScript(recordLua + `
if ARGV[3] ~= '' and current ~= ARGV[3] then return 0 end
if field == '' then redis.call('DEL', name) return 1 end
redis.call('HDEL', name, field)
prune(ARGV[4], tonumber(ARGV[5]))
return 1
`)

// Put implements store.Records.
func (s *Store) Put(ctx context.Context, key store.Key, value []byte, version uint64, expires time.Time) (uint64, error) {
	if err := errors.Join(store.CheckKey(key), store.CheckSize(value)); err != nil {
		return 0, err
	}
	now, next := s.now(), newVersion()
	record := binary.BigEndian.AppendUint64(versionBytes(next), uint64(store.Micros(expires)))
	record = append(record, value...)
	name, field := place(key)
	err := s.change(ctx, putScript, name, field, now.UnixMicro(), versionBytes(version), record, garbageAfter(now, expires),
		perWrite, garbageBefore(now))
	if err != nil {
		return 0, err
	}
	return next, nil
}

// Delete implements store.Records.
func (s *Store) Delete(ctx context.Context, key store.Key, version uint64) error {
	now := s.now()
	name, field := place(key)
	return s.change(ctx, deleteScript, name, field, now.UnixMicro(), versionBytes(version), perWrite, garbageBefore(now))
}

// change runs a script that answers 1 if it made its change and 0 if the version was another.
func (s *Store) change(ctx context.Context, script *redis.Script, name string, args ...any) error {
	answer, err := s.script(ctx, script, name, s.replicas, args...)
	switch {
	case err != nil:
		return err
	case answer == int64(1):
		return nil
	case answer == int64(0):
		return store.ErrConflict
	default:
		return unavailable(errShape)
	}
}

// garbageAfter is how long, in milliseconds by the server's clock, a record must at least be there; 0 is for ever.
func garbageAfter(now, expires time.Time) int64 {
	if expires.IsZero() {
		return 0
	}
	return (max(expires.Sub(now), 0) + store.GarbageMargin).Milliseconds()
}

// garbageBefore is when a record must have expired to be removed now.
func garbageBefore(now time.Time) int64 { return now.Add(-store.GarbageMargin).UnixMicro() }

// versionBytes is the stored form of a version; no version is the empty string.
func versionBytes(version uint64) []byte {
	if version == 0 {
		return []byte{}
	}
	return binary.BigEndian.AppendUint64(nil, version)
}

// newVersion is random, so that no gateway uses a version twice for a key, also not after the record was deleted.
func newVersion() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		if v := binary.BigEndian.Uint64(b[:]); v != 0 {
			return v
		}
	}
}

// List implements store.Records.
func (s *Store) List(ctx context.Context, collection store.Collection) ([]store.Record, error) {
	if collection == "" { // what stands alone is in no collection
		return nil, nil
	}
	name := store.Prefix + string(collection)
	all, err := read(ctx, s, name, func(ctx context.Context, c redis.Cmdable) *redis.MapStringStringCmd {
		return c.HGetAll(ctx, name)
	})
	if err != nil {
		return nil, err
	}
	var records []store.Record
	now := s.now()
	for id, raw := range all {
		r, err := decode(store.Key{Collection: collection, ID: id}, []byte(raw))
		if err != nil {
			return nil, err
		}
		if !expired(r, now) {
			records = append(records, r)
		}
	}
	slices.SortFunc(records, func(a, b store.Record) int { return cmp.Compare(a.Key.ID, b.Key.ID) })
	return records, nil
}
