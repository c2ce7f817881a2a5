package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	steadyRate = 200 // proxied requests a second
	// drainTime is how long after a flood its last attempts may wait in the line of the password pool.
	drainTime = 6 * time.Second
	// inFlight bounds what is sent and not answered yet.
	inFlight = 512
)

// flood measures what a flood of logins does to requests that go through.
func (b *bench) flood(ctx context.Context) error {
	app, err := b.startSelf(ctx, "upstream")
	if err != nil {
		return err
	}
	// The flood comes from many addresses, as floods do: from one, the address's bucket alone would end it.
	g, err := b.startGateway(ctx, "flood", app.url(""), "GATEHOUSE_TRUSTED_PROXIES=127.0.0.0/8")
	if err != nil {
		return err
	}
	if err := g.addUsers(ctx, 3); err != nil {
		return err
	}
	elsewhere, err := b.startSelf(ctx, "redirect")
	if err != nil {
		return err
	}
	through := signedIn(ctx, "gatehouse", g.process, "/", g)
	var delays, rates []float64             // while the gateway is flooded, ÷ idle
	var besideDelays, besideRates []float64 // while another server is
	answers := map[int][]float64{}
	for round := range b.rounds {
		quietDelay, quietRate, err := b.traffic(ctx, through)
		if err != nil {
			return err
		}
		besideDelay, besideRate, _, err := b.flooded(ctx, through, elsewhere.address)
		if err != nil {
			return err
		}
		delay, rate, counted, err := b.flooded(ctx, through, g.address)
		if err != nil {
			return err
		}
		for status, perSecond := range counted {
			answers[status] = append(answers[status], perSecond)
		}
		delays, rates = append(delays, float64(delay)/float64(quietDelay)), append(rates, rate/quietRate)
		besideDelays, besideRates = append(besideDelays, float64(besideDelay)/float64(quietDelay)), append(besideRates, besideRate/quietRate)
		log.Printf("  round %d of %d", round+1, b.rounds)
		time.Sleep(drainTime)
	}
	b.report.most("while 500 logins a second arrive: p99 at 200 requests/s ÷ idle", 1.5, median(delays))
	b.report.least("while 500 logins a second arrive: throughput at 16 connections ÷ idle", 0.85, median(rates))
	b.report.heading("A flood of logins")
	var answered []string
	for _, status := range slices.Sorted(maps.Keys(answers)) {
		answered = append(answered, fmt.Sprintf("%s with %d", figure(median(answers[status])), status))
	}
	b.report.text(fmt.Sprintf("%d logins a second with wrong passwords, from as many addresses, at a gateway that also serves requests of somebody who is signed in. "+
		"Answered are, each second, the one in which it begins included, %s (401 was verified; 503 found the waiting line full). The flood's own client runs on the same cores: while it sends the same to "+
		"another server, which does nothing but answer, the p99 is %s times and the throughput %s times what they are without.",
		floodRate, strings.Join(answered, " and "), figure(median(besideDelays)), figure(median(besideRates))))
	return nil
}

// traffic is the p99 of requests at a steady rate, and then the throughput at 16 connections.
func (b *bench) traffic(ctx context.Context, t target) (time.Duration, float64, error) {
	delay, err := b.steady(ctx, t)
	if err != nil {
		return 0, 0, err
	}
	s, err := b.measure(ctx, t, 16, b.length)
	return delay, s.perSecond, err
}

// steady sends requests at a fixed rate, whether or not the ones before are answered, and returns the 99th percentile of the time
// from when each was due.
func (b *bench) steady(ctx context.Context, t target) (time.Duration, error) {
	header, err := t.headers()
	if err != nil {
		return 0, err
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: inFlight}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	paced(ctx, steadyRate, b.length, func(due time.Time) {
		err := get(ctx, &client, t, header)
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(due))
		if err != nil {
			failed = err
		}
	})
	if failed != nil || len(took) == 0 {
		return 0, fmt.Errorf("steady requests: %w", failed)
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}

func get(ctx context.Context, client *http.Client, t target, header map[string]string) error {
	r, err := t.request(ctx, header)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != t.status {
		return fmt.Errorf("%s: status %d", t.name, answer.StatusCode)
	}
	return nil
}

// flooded is traffic while logins are sent to an address, and how these were answered.
func (b *bench) flooded(ctx context.Context, t target, address string) (time.Duration, float64, map[int]float64, error) {
	during, end := context.WithCancel(ctx)
	defer end()
	answers, err := b.attack(during, address)
	if err != nil {
		return 0, 0, nil, err
	}
	time.Sleep(time.Second) // until the line of the pool is full
	delay, rate, err := b.traffic(ctx, t)
	end()
	counted, ended := answers()
	return delay, rate, counted, errors.Join(err, ended)
}

// paced calls do at a fixed rate, each call in a goroutine of its own, and returns when the last has ended. A call that would be one
// too many at a time is left out.
func paced(ctx context.Context, rate int, length time.Duration, do func(due time.Time)) {
	var all sync.WaitGroup
	defer all.Wait()
	free := make(chan struct{}, inFlight)
	began := time.Now()
	for n := 0; ; n++ {
		due := began.Add(time.Duration(n) * time.Second / time.Duration(rate))
		if due.Sub(began) > length {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		select {
		case free <- struct{}{}:
			all.Go(func() {
				defer func() { <-free }()
				do(due)
			})
		default:
		}
	}
}
