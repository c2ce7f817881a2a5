package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// maxCounted is how many different events are counted apart between two flushes. A flood of ever new ones cannot fill the
// disk or the memory; it can only make itself one number.
const maxCounted = 1000

// OtherDetail marks the record that sums up events of one kind for which there was no room of their own.
const OtherDetail = "other"

// counts are the events counted since the last flush.
type counts struct {
	mu    sync.Mutex
	byKey map[string]Event // guarded by mu; Count is the sum
}

// Count adds an event to those that are written as one record with their number, within a second (Run) or at Close. Events
// are the same if all but Count and RequestID are; a Count above 1 counts as that many. It never waits for the disk. While
// the disk fails, numbers are kept and grow. Beyond 1,000 different events between two flushes, further ones of a kind
// become one record with the detail "other" and their exact sum.
func (l *Log) Count(e Event) {
	n := max(1, e.Count)
	e = clean(e)
	e.Count, e.RequestID = 0, ""
	l.counts.add(e, n)
}

func (c *counts) add(e Event, n int64) {
	// What a client claims is its own choice: it must not make a record of every request. The first claim is kept.
	alike := e
	alike.Client.Claimed = ""
	key, err := json.Marshal(alike) // sorts the details, so equal events have equal keys
	if err != nil {
		panic(fmt.Errorf("encode event: %w", err)) // strings and numbers always marshal
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey == nil {
		c.byKey = make(map[string]Event)
	}
	counted, known := c.byKey[string(key)]
	if !known && len(c.byKey) >= maxCounted {
		key = []byte(e.Kind)
		e = Event{
			Kind: e.Kind, Outcome: e.Outcome, Severity: e.Severity,
			Actor: Actor{Type: ActorSystem}, Details: map[string]string{OtherDetail: "true"},
		}
		counted, known = c.byKey[string(key)]
	}
	if known {
		e = counted
	}
	e.Count += n
	c.byKey[string(key)] = e
}

// take empties the counts. The order is that of the keys, so that it does not depend on chance.
func (c *counts) take() []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	events := make([]Event, 0, len(c.byKey))
	for _, key := range slices.Sorted(maps.Keys(c.byKey)) {
		events = append(events, c.byKey[key])
	}
	c.byKey = nil
	return events
}

// flush writes what was counted, or keeps it for the next flush. It has no deadline: after one nobody could say whether the
// numbers were written, and they would be written twice or not at all.
func (l *Log) flush() error {
	events := l.counts.take()
	if len(events) == 0 {
		return nil
	}
	if _, err := l.submit(context.Background(), events, false); err != nil {
		for _, e := range events {
			n := e.Count
			e.Count = 0
			l.counts.add(e, n)
		}
		return fmt.Errorf("flush counted events: %w", err)
	}
	return nil
}
