package password

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrBusy: the waiting line, or the account's part of it, is full; or no turn came in time; or the pool is closed.
var ErrBusy = errors.New("password pool busy")

// strangersTurn is which job in a row is a stranger's while known devices wait too: these go first, and keep nobody out for good.
const strangersTurn = 4

// PoolOptions bound a pool. The zero value of a number means its default.
type PoolOptions struct {
	Workers    int           // verifications at a time; default 1; the number of cores less one is a good value
	Line       int           // places that wait, of strangers together and of known devices together; default 32
	PerAccount int           // places of one account, with the one whose turn it is; default 10
	Wait       time.Duration // from entering to the worker; default 5 s
	// Busy is told when there is work and when there is none any more, in turn, by the goroutines that wait for it; may be nil.
	Busy func(bool)
}

// Pool runs password verifications, few at a time, on threads of their own with the lowest priority (worker.go), so that a
// flood of logins cannot slow everything else. Accounts take turns: one verification of an account at a time, first come first
// served within an account. Known devices have a line of their own and go first; within a line addresses take turns (line.go).
// Nobody holds a worker while waiting. Safe for concurrent use.
type Pool struct {
	options PoolOptions
	part    func(work func()) float64 // does work, and returns which part of a core that had
	closing chan struct{}
	close   sync.Once
	workers sync.WaitGroup
	runs    atomic.Uint64

	telling sync.Mutex // held while Busy is told
	offered int        // works that are waited for; guarded by telling

	mu       sync.Mutex
	waits    *sync.Cond       // workers, for jobs; its lock is mu
	closed   bool             // guarded by mu
	lines    [2]*line         // strangers, known devices; guarded by mu
	inRow    int              // jobs of known devices since the last of a stranger; guarded by mu
	accounts map[string]*turn // with at least one place; guarded by mu
}

// turn is the queue of one account.
type turn struct {
	places int           // guarded by the pool's mu
	taken  chan struct{} // has room for one; blocked senders are served in their order
}

// job is work for a worker, and the way back for a panic of it.
type job struct {
	place *Place
	taken bool // a worker has it; guarded by the pool's mu
	work  func()
	done  chan any
}

// NewPool starts the workers. Close ends them.
func NewPool(o PoolOptions) *Pool { return newPool(o, partOfCore) }

func newPool(o PoolOptions, part func(work func()) float64) *Pool {
	o.Workers = orDefault(o.Workers, 1)
	o.Line = orDefault(o.Line, 32)
	o.PerAccount = orDefault(o.PerAccount, 10)
	o.Wait = orDefault(o.Wait, 5*time.Second)
	if o.Busy == nil {
		o.Busy = func(bool) {}
	}
	p := &Pool{options: o, part: part, closing: make(chan struct{}), accounts: make(map[string]*turn), lines: [2]*line{newLine(), newLine()}}
	p.waits = sync.NewCond(&p.mu)
	for range o.Workers {
		p.workers.Go(func() { p.run(lowest) })
	}
	return p
}

func orDefault[N int | time.Duration](n, otherwise N) N {
	if n <= 0 {
		return otherwise
	}
	return n
}

// Waiter is who wants a place.
type Waiter struct {
	// Account is whose password it is; one of an account has its turn at a time.
	Account string
	// Address groups strangers: those of one address share what a line has to give.
	Address string
	// Owner is whose known device the client says it is, authentically; empty for strangers. It may be another account's than Account until
	// the account was looked up; then Stranger says so.
	Owner string
}

// group is with whom a waiter shares.
func (w Waiter) group() string { return cmp.Or(w.Owner, w.Address) }

// line is in which of a pool's lines a waiter stands.
func (p *Pool) line(w Waiter) *line {
	if w.Owner != "" {
		return p.lines[1]
	}
	return p.lines[0]
}

// Full reports whether Enter would be ErrBusy at once for want of a place in the line.
func (p *Pool) Full(w Waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	free, _ := p.line(w).room(w.group(), p.options.Line)
	return !free
}

// Place is a place in the waiting line, and then the account's turn. It belongs to one goroutine.
type Place struct {
	pool   *Pool
	who    Waiter // guarded by the pool's mu
	turn   *turn
	wait   context.Context // ends when the waiting time is over or the place gave way; it knows nothing of the client
	cancel context.CancelFunc
	left   bool
}

// Enter waits until it is the account's turn. ErrBusy at once if the line or the account's part of it is full, and when the
// waiting time is over; an error of ctx if that ends first. Afterwards the end of ctx changes nothing any more, so that a
// client cannot undo a guess by going away. The caller must Leave.
func (p *Pool) Enter(ctx context.Context, w Waiter) (*Place, error) {
	place := &Place{pool: p, who: w}
	place.wait, place.cancel = context.WithTimeout(context.WithoutCancel(ctx), p.options.Wait)
	if err := p.queue(place); err != nil {
		place.cancel()
		return nil, err
	}
	var err error
	select {
	case place.turn.taken <- struct{}{}:
		return place, nil
	case <-place.wait.Done():
		err = fmt.Errorf("%w: no turn in time", ErrBusy)
	case <-ctx.Done():
		err = fmt.Errorf("wait for a turn: %w", context.Cause(ctx))
	case <-p.closing:
		err = fmt.Errorf("%w: closed", ErrBusy)
	}
	place.cancel()
	p.forget(place)
	return nil, err
}

// queue takes a place in the line and in the account's part of it.
func (p *Pool) queue(place *Place) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.accounts[place.who.Account]
	if t != nil && t.places >= p.options.PerAccount {
		return fmt.Errorf("%w: %d of this account are here already", ErrBusy, t.places)
	}
	if err := p.stand(place); err != nil {
		return err
	}
	if t == nil {
		t = &turn{taken: make(chan struct{}, 1)}
		p.accounts[place.who.Account] = t
	}
	t.places++
	place.turn = t
	return nil
}

// stand puts a place into its line, where somebody may have to give way; mu is held.
func (p *Pool) stand(place *Place) error {
	l := p.line(place.who)
	free, instead := l.room(place.who.group(), p.options.Line)
	if !free {
		return fmt.Errorf("%w: the line is full", ErrBusy)
	}
	if instead != nil {
		l.remove(instead)
		instead.cancel()
	}
	l.add(place)
	return nil
}

// Stranger moves a place to the strangers' line, because the device is none of the account's. ErrBusy if there is no room.
func (pl *Place) Stranger() error {
	p := pl.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if pl.who.Owner == "" {
		return nil
	}
	p.line(pl.who).remove(pl)
	pl.who.Owner = ""
	return p.stand(pl)
}

// forget gives back what queue took.
func (p *Pool) forget(place *Place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line(place.who).remove(place)
	place.turn.places--
	if place.turn.places == 0 {
		delete(p.accounts, place.who.Account)
	}
}

// Pause waits before another try of something that the work needs, and keeps the account's turn meanwhile. ErrBusy if the
// waiting time ends first.
func (pl *Place) Pause(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-pl.wait.Done():
		return fmt.Errorf("%w: waited %v", ErrBusy, pl.pool.options.Wait)
	case <-pl.pool.closing:
		return fmt.Errorf("%w: closed", ErrBusy)
	}
}

// Run waits for a worker, has it do the work, and returns when it is done. ErrBusy, and no work, if the waiting time ends
// first; work that has begun is always finished. A panic of the work is the caller's.
func (pl *Place) Run(work func()) error {
	pl.pool.count(1)
	defer pl.pool.count(-1)
	j := &job{place: pl, work: work, done: make(chan any, 1)}
	if err := pl.pool.offer(j); err != nil {
		return err
	}
	var panicked any
	select {
	case panicked = <-j.done:
	case <-pl.wait.Done():
		if pl.pool.withdraw(j) {
			return fmt.Errorf("%w: no worker in time", ErrBusy)
		}
		panicked = <-j.done
	case <-pl.pool.closing:
		if pl.pool.withdraw(j) {
			return fmt.Errorf("%w: closed", ErrBusy)
		}
		panicked = <-j.done
	}
	if panicked != nil {
		panic(panicked)
	}
	return nil
}

// count counts works that are waited for.
func (p *Pool) count(change int) {
	p.telling.Lock()
	defer p.telling.Unlock()
	before := p.offered
	if p.offered += change; before == 0 || p.offered == 0 {
		p.options.Busy(p.offered > 0)
	}
}

// offer lets a job wait for a worker, unless its place gave way or its time is over.
func (p *Pool) offer(j *job) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || j.place.wait.Err() != nil || !p.line(j.place.who).offer(j) {
		return fmt.Errorf("%w: gave way, waited too long, or closed", ErrBusy)
	}
	p.waits.Signal()
	return nil
}

// withdraw takes a job back, and reports false if a worker has it already. A job that gave way is in no line any more.
func (p *Pool) withdraw(j *job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line(j.place.who).remove(j.place)
	return !j.taken
}

// Leave ends the account's turn. The second Leave does nothing.
func (pl *Place) Leave() {
	if pl.left {
		return
	}
	pl.left = true
	pl.cancel()
	<-pl.turn.taken
	pl.pool.forget(pl)
}

// Runs is how many works were begun: how many verifications really ran, which is what tests ask.
func (p *Pool) Runs() uint64 { return p.runs.Load() }

// Waiting is how many places are taken in the lines of strangers and of known devices.
func (p *Pool) Waiting() (strangers, known int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[0].places, p.lines[1].places
}

// Close ends the workers when what they do is done. Who waits gets ErrBusy.
func (p *Pool) Close() {
	p.close.Do(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.waits.Broadcast()
		close(p.closing)
	})
	p.workers.Wait()
}

// next waits for a job; nil if the pool is closed. What has a worker is in the line no longer.
func (p *Pool) next() *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed {
		first, second := p.lines[1], p.lines[0]
		if p.inRow >= strangersTurn-1 {
			first, second = second, first
		}
		j := first.next()
		if j == nil {
			j = second.next()
		}
		if j == nil {
			p.waits.Wait()
			continue
		}
		j.taken = true
		p.inRow++
		if j.place.who.Owner == "" {
			p.inRow = 0
		}
		return j
	}
	return nil
}

func (j *job) run() {
	defer func() { j.done <- recover() }()
	j.work()
}
