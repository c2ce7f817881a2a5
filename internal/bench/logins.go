package main

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	together = 64 // logins at once, for their memory
	crowd    = 8  // logins at once, for their rate: all find a place in the waiting line
	cost     = 12 // of bcrypt, the default
)

// logins measures what a login costs.
func (b *bench) logins(ctx context.Context) error {
	app, err := b.startSelf(ctx, "upstream")
	if err != nil {
		return err
	}
	g, err := b.startGateway(ctx, "logins", app.url(""))
	if err != nil {
		return err
	}
	if err := g.addUsers(ctx, together); err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		return err
	}
	for _, measure := range []func(context.Context, *gatehouse, []byte) error{b.besideBcrypt, b.loginsPerSecond, b.loginMemory} {
		if err := measure(ctx, g, hash); err != nil {
			return err
		}
	}
	return nil
}

// besideBcrypt compares the time of a whole login with that of the one comparison in it.
func (b *bench) besideBcrypt(ctx context.Context, g *gatehouse, hash []byte) error {
	var ratios, alone []float64
	for range b.rounds {
		began := time.Now()
		if err := bcrypt.CompareHashAndPassword(hash, []byte(password)); err != nil {
			return err
		}
		bare := time.Since(began)
		began = time.Now()
		status, _, err := g.login(ctx)
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("login: status %d: %v", status, err)
		}
		ratios = append(ratios, float64(time.Since(began))/float64(bare))
		alone = append(alone, milliseconds(bare))
	}
	b.report.most("login with password and code ÷ one bcrypt comparison of cost 12", 1.05, median(ratios))
	b.report.heading("Logins")
	b.report.text(fmt.Sprintf("One comparison took %.0f ms (median).", median(alone)))
	return nil
}

// loginsPerSecond compares the rate of valid logins with that of bare comparisons by as many workers as the gateway has.
func (b *bench) loginsPerSecond(ctx context.Context, g *gatehouse, hash []byte) error {
	workers := max(1, runtime.NumCPU()-1)
	var ratios []float64
	for range max(1, b.rounds/3) {
		bare := atOnce(crowd, workers, func() error { return bcrypt.CompareHashAndPassword(hash, []byte(password)) })
		ours := atOnce(crowd, crowd, func() error {
			status, _, err := g.login(ctx)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("login: status %d", status)
			}
			return err
		})
		if err := firstError(bare.err, ours.err); err != nil {
			return err
		}
		ratios = append(ratios, float64(bare.took)/float64(ours.took))
	}
	b.report.least("valid logins a second ÷ bare bcrypt in a pool of the same size", 0.93, median(ratios))
	return nil
}

// loginMemory is what many logins at once add to the memory of a gateway.
func (b *bench) loginMemory(ctx context.Context, g *gatehouse, _ []byte) error {
	time.Sleep(codeAgain) // then all of them have a code again
	before, err := g.use()
	if err != nil {
		return err
	}
	done := make(chan outcome, 1)
	var mu sync.Mutex
	answers := map[int]int{}
	go func() {
		done <- atOnce(together, together, func() error {
			status, _, err := g.login(ctx)
			mu.Lock()
			defer mu.Unlock()
			answers[status]++
			return err
		})
	}()
	most := before.resident
	for {
		select {
		case out := <-done:
			b.report.most("resident memory added by 64 logins at once, MiB", 16, float64(most-before.resident)/(1<<20))
			b.report.text(fmt.Sprintf("64 logins at once were answered by status: %v (503 found the waiting line full).", answers))
			return out.err
		case <-time.After(5 * time.Millisecond):
			now, err := g.use()
			if err != nil {
				return err
			}
			most = max(most, now.resident)
		}
	}
}

// outcome is how long some calls took together, and the first error.
type outcome struct {
	took time.Duration
	err  error
}

// atOnce makes n calls, so many at a time.
func atOnce(n, workers int, do func() error) outcome {
	todo := make(chan struct{}, n)
	for range n {
		todo <- struct{}{}
	}
	close(todo)
	var all sync.WaitGroup
	errs := make(chan error, n)
	began := time.Now()
	for range workers {
		all.Go(func() {
			for range todo {
				if err := do(); err != nil {
					errs <- err
				}
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	close(errs)
	return outcome{took, <-errs}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
