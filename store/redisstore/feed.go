package redisstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/store"
)

const (
	feedName = store.Prefix + store.FeedKey
	// maxMessages is how many messages one Read returns.
	maxMessages = 256
	// maxTrim bounds what one Publish removes: more than it adds, so the feed stays as long as its retention.
	maxTrim = 16
	// maxBlock bounds how long one command waits at the server, and with it how late a silent server or the end of the
	// context is noticed.
	maxBlock = 500 * time.Millisecond
)

// publishScript: message, tag, now, trim what is older, at most how many. Entries are numbered 1-0, 2-0, 3-0… so that a
// reader sees what is missing, and repeat the tag of the entry before, so that it sees a feed that lost entries and numbered
// new ones alike. The newest entry is never trimmed, for it is what the next continues; a stream that somebody emptied
// begins again with a tag that fits no reader. Nothing is deleted in the usual case before XADD, because Redis lets a script
// that has written go on when memory runs out.
var publishScript = redis.NewScript(`
local feed = KEYS[1]
local newest = redis.call('XREVRANGE', feed, '+', '-', 'COUNT', 1)[1]
local number, previous = 0, ''
if newest then
  number, previous = tonumber(string.match(newest[1], '^(%d+)%-0$')), newest[2][2]
  if not number then return redis.error_reply('GATEHOUSE not a feed') end
elseif redis.call('EXISTS', feed) == 1 then
  redis.call('DEL', feed)
  previous = '?'
end
number = string.format('%.0f', number + 1)
redis.call('XADD', feed, number .. '-0', 'tag', ARGV[2], 'previous', previous, 'at', ARGV[3], 'message', ARGV[1])
local keep
for _, entry in ipairs(redis.call('XRANGE', feed, '-', '+', 'COUNT', ARGV[5])) do
  keep = entry[1]
  if keep == number .. '-0' or (tonumber(entry[2][6]) or 0) >= tonumber(ARGV[4]) then break end
end
redis.call('XTRIM', feed, 'MINID', keep)
return number
`)

// Publish implements store.Feed.
func (s *Store) Publish(ctx context.Context, message []byte) (uint64, error) {
	if err := store.CheckSize(message); err != nil {
		return 0, err
	}
	now := s.now()
	answer, err := s.script(ctx, publishScript, feedName, s.replicas, message, rand.Text(), now.UnixMicro(),
		now.Add(-store.FeedRetention).UnixMicro(), maxTrim)
	if err != nil {
		return 0, err
	}
	text, _ := answer.(string)
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, unavailable(errShape)
	}
	return number, nil
}

// entry is a parsed entry of the stream.
type entry struct {
	number        uint64
	tag, previous string
	message       string
}

func parseEntry(m redis.XMessage) (entry, error) {
	digits, whole := strings.CutSuffix(m.ID, "-0")
	number, err := strconv.ParseUint(digits, 10, 64)
	tag, hasTag := m.Values["tag"].(string)
	previous, hasPrevious := m.Values["previous"].(string)
	message, hasMessage := m.Values["message"].(string)
	if !whole || err != nil || !hasTag || !hasPrevious || !hasMessage {
		return entry{}, unavailable(errShape)
	}
	return entry{number, tag, previous, message}, nil
}

// Tail implements store.Feed.
func (s *Store) Tail(ctx context.Context) (store.Cursor, error) {
	newest, err := read(ctx, s, feedName, func(ctx context.Context, c redis.Cmdable) *redis.XMessageSliceCmd {
		return c.XRevRangeN(ctx, feedName, "+", "-", 1)
	})
	if err != nil || len(newest) == 0 {
		return store.Cursor{}, err
	}
	e, err := parseEntry(newest[0])
	return store.Cursor{Number: e.number, Tag: e.tag}, err
}

// Read implements store.Feed.
func (s *Store) Read(ctx context.Context, after store.Cursor, wait time.Duration) ([]store.Message, store.Cursor, error) {
	for {
		messages, next, err := s.readNow(ctx, after)
		if err != nil || len(messages) > 0 || wait <= 0 {
			return messages, next, err
		}
		block := max(min(wait, maxBlock), time.Millisecond) // 0 would be for ever
		if err := s.block(ctx, after, block); err != nil {
			return nil, after, err
		}
		wait -= block
	}
}

// block waits at the server until there is something after the cursor. What it is, readNow finds out.
func (s *Store) block(ctx context.Context, after store.Cursor, wait time.Duration) error {
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, wait+s.timeout)
	defer cancel()
	args := &redis.XReadArgs{Streams: []string{feedName, entryID(after.Number)}, Count: 1, Block: wait}
	err := s.run(ctx, feedName, 0, func(c redis.Cmdable) redis.Cmder { return c.XRead(ctx, args) })
	if err = ignoreNil(err); err != nil {
		s.route.doubt()
		return unavailable(err)
	}
	return nil
}

// readNow reads without waiting. It begins at the cursor's own entry: if that is still there its tag must be the cursor's,
// else the entry after it must name that tag. If there is neither, the newest entry is lost, because it is never trimmed.
func (s *Store) readNow(ctx context.Context, after store.Cursor) ([]store.Message, store.Cursor, error) {
	found, err := read(ctx, s, feedName, func(ctx context.Context, c redis.Cmdable) *redis.XMessageSliceCmd {
		return c.XRangeN(ctx, feedName, entryID(after.Number), "+", maxMessages+1)
	})
	if err != nil {
		return nil, after, err
	}
	if len(found) == 0 && after.Number > 0 {
		return nil, after, store.ErrGap
	}
	var messages []store.Message
	next := after
	for _, m := range found {
		e, err := parseEntry(m)
		if err != nil {
			return nil, after, err
		}
		if e.number == after.Number && e.tag == after.Tag {
			continue
		}
		if e.number != next.Number+1 || e.previous != next.Tag {
			return nil, after, store.ErrGap
		}
		messages = append(messages, store.Message{Number: e.number, Value: []byte(e.message)})
		next = store.Cursor{Number: e.number, Tag: e.tag}
	}
	return messages, next, nil
}

func entryID(number uint64) string { return fmt.Sprintf("%d-0", number) }
