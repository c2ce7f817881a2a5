package password

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrBusy: the waiting line, or the account's part of it, is full; or no turn came in time; or the pool is closed.
var ErrBusy = errors.New("password pool busy")

// PoolOptions bound a pool. The zero value of a number means its default.
type PoolOptions struct {
	Workers    int           // verifications at a time; default 1; the number of cores less one is a good value
	Line       int           // places that wait, of all accounts; default 32
	PerAccount int           // places of one account, with the one whose turn it is; default 10
	Wait       time.Duration // from entering to the worker; default 5 s
}

// Pool runs password verifications, few at a time, on threads of their own with the lowest priority, so that a flood of
// logins cannot slow everything else. Accounts take turns: one verification of an account at a time, first come first
// served within an account and among the accounts whose turn it is. Nobody holds a worker while waiting. Safe for
// concurrent use.
type Pool struct {
	options PoolOptions
	jobs    chan job
	closing chan struct{}
	close   sync.Once
	workers sync.WaitGroup
	runs    atomic.Uint64

	mu       sync.Mutex
	waiting  int              // places that never had a worker; guarded by mu
	accounts map[string]*turn // with at least one place; guarded by mu
}

// turn is the queue of one account.
type turn struct {
	places int           // guarded by the pool's mu
	taken  chan struct{} // has room for one; blocked senders are served in their order
}

// job is work for a worker, and the way back for a panic of it.
type job struct {
	work func()
	done chan any
}

// NewPool starts the workers. Close ends them.
func NewPool(o PoolOptions) *Pool {
	o.Workers = orDefault(o.Workers, 1)
	o.Line = orDefault(o.Line, 32)
	o.PerAccount = orDefault(o.PerAccount, 10)
	o.Wait = orDefault(o.Wait, 5*time.Second)
	p := &Pool{options: o, jobs: make(chan job), closing: make(chan struct{}), accounts: make(map[string]*turn)}
	for range o.Workers {
		p.workers.Go(p.run)
	}
	return p
}

func orDefault[N int | time.Duration](n, otherwise N) N {
	if n <= 0 {
		return otherwise
	}
	return n
}

// Place is a place in the waiting line, and then the account's turn. It belongs to one goroutine.
type Place struct {
	pool    *Pool
	account string
	turn    *turn
	inLine  bool            // counts as waiting
	wait    context.Context // ends when the waiting time is over; it knows nothing of the client
	cancel  context.CancelFunc
}

// Enter waits until it is the account's turn. ErrBusy at once if the line or the account's part of it is full, and when the
// waiting time is over; an error of ctx if that ends first. Afterwards the end of ctx changes nothing any more, so that a
// client cannot undo a guess by going away. The caller must Leave.
func (p *Pool) Enter(ctx context.Context, account string) (*Place, error) {
	t, err := p.queue(account)
	if err != nil {
		return nil, err
	}
	place := &Place{pool: p, account: account, turn: t, inLine: true}
	place.wait, place.cancel = context.WithTimeout(context.WithoutCancel(ctx), p.options.Wait)
	select {
	case t.taken <- struct{}{}:
		return place, nil
	case <-place.wait.Done():
		err = fmt.Errorf("%w: no turn within %v", ErrBusy, p.options.Wait)
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
func (p *Pool) queue(account string) (*turn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.accounts[account]
	switch {
	case p.waiting >= p.options.Line:
		return nil, fmt.Errorf("%w: %d wait already", ErrBusy, p.waiting)
	case t != nil && t.places >= p.options.PerAccount:
		return nil, fmt.Errorf("%w: %d of this account are here already", ErrBusy, t.places)
	case t == nil:
		t = &turn{taken: make(chan struct{}, 1)}
		p.accounts[account] = t
	}
	p.waiting++
	t.places++
	return t, nil
}

// forget gives back what queue took.
func (p *Pool) forget(place *Place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if place.inLine {
		p.waiting--
	}
	place.turn.places--
	if place.turn.places == 0 {
		delete(p.accounts, place.account)
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
	if pl.wait.Err() != nil {
		return fmt.Errorf("%w: waited %v", ErrBusy, pl.pool.options.Wait)
	}
	j := job{work: work, done: make(chan any, 1)}
	select {
	case pl.pool.jobs <- j: // blocked senders are served in their order
	case <-pl.wait.Done():
		return fmt.Errorf("%w: no worker within %v", ErrBusy, pl.pool.options.Wait)
	case <-pl.pool.closing:
		return fmt.Errorf("%w: closed", ErrBusy)
	}
	pl.leaveLine()
	if panicked := <-j.done; panicked != nil {
		panic(panicked)
	}
	return nil
}

// leaveLine makes room for another to wait: what has a worker waits no longer.
func (pl *Place) leaveLine() {
	pl.pool.mu.Lock()
	defer pl.pool.mu.Unlock()
	if pl.inLine {
		pl.inLine = false
		pl.pool.waiting--
	}
}

// Leave ends the account's turn. The second Leave does nothing.
func (pl *Place) Leave() {
	if pl.cancel == nil {
		return
	}
	pl.cancel()
	pl.cancel = nil
	<-pl.turn.taken
	pl.pool.forget(pl)
}

// Runs is how many works were begun: how many verifications really ran, which is what tests ask.
func (p *Pool) Runs() uint64 { return p.runs.Load() }

// Close ends the workers when what they do is done. Who waits gets ErrBusy.
func (p *Pool) Close() {
	p.close.Do(func() { close(p.closing) })
	p.workers.Wait()
}

// run is a worker.
func (p *Pool) run() {
	lowerPriority()
	for {
		select {
		case j := <-p.jobs:
			p.runs.Add(1)
			j.run()
		case <-p.closing:
			return
		}
	}
}

func (j job) run() {
	defer func() { j.done <- recover() }()
	j.work()
}
