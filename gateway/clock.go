package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"gatehouse/audit"
)

// jumpTolerance is how far wall clock and elapsed time may drift apart between two looks before it counts as a jump.
const jumpTolerance = 2 * time.Second

// jumpShown is for how long readiness mentions a jump.
const jumpShown = 15 * time.Minute

// clockWatch compares the wall clock with the elapsed time of the machine. A wall clock that was set is recorded and shown
// in readiness; nothing else changes, because every end that is stored is checked against its full length.
type clockWatch struct {
	now     func() time.Time
	elapsed func() time.Duration
	append  func(context.Context, audit.Event) (audit.Record, error)
	log     *slog.Logger

	mu     sync.Mutex
	wall   time.Time     // guarded by mu
	since  time.Duration // guarded by mu: elapsed at wall
	jumped time.Duration // guarded by mu: elapsed at the last jump; 0 if none
}

func newClockWatch(deps Deps, log *audit.Log) *clockWatch {
	return &clockWatch{
		now: deps.Now, elapsed: deps.Elapsed, append: log.Append, log: deps.Logger,
		wall: deps.Now().Round(0), since: deps.Elapsed(),
	}
}

// run looks each second until ctx is done.
func (c *clockWatch) run(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			c.look(ctx)
		}
	}
}

// look records a jump, if there was one since the last look.
func (c *clockWatch) look(ctx context.Context) {
	jump, jumped := c.measure()
	if !jumped {
		return
	}
	c.log.WarnContext(ctx, "the wall clock jumped", "by", jump.String())
	_, err := c.append(ctx, audit.Event{
		Kind: audit.KindClockJump, Outcome: audit.Failed, Severity: audit.High, Actor: audit.Actor{Type: audit.ActorSystem},
		Details: map[string]string{"by": jump.String()},
	})
	if err != nil {
		c.log.ErrorContext(ctx, "record a clock jump", "error", err)
	}
}

func (c *clockWatch) measure() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, since := c.now().Round(0), c.elapsed() // Round strips the monotonic reading
	jump := wall.Sub(c.wall) - (since - c.since)
	c.wall, c.since = wall, since
	if jump.Abs() <= jumpTolerance {
		return 0, false
	}
	c.jumped = max(since, 1)
	return jump.Round(time.Millisecond), true
}

func (c *clockWatch) part() Part {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jumped != 0 && c.elapsed()-c.jumped < jumpShown {
		return Part{State: stateDegraded, Note: "the wall clock was set within the last 15 minutes: codes and ends may be off"}
	}
	return Part{State: stateOK}
}
