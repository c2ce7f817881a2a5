package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	floodRate  = 500 // logins a second
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
	through := signedIn(ctx, "gatehouse", g.process, "/", g)
	var delays, rates []float64
	answers := map[int]int{}
	for round := range b.rounds {
		quietDelay, quietRate, err := b.traffic(ctx, through)
		if err != nil {
			return err
		}
		during, end := context.WithCancel(ctx)
		counted := g.beFlooded(during)
		time.Sleep(time.Second) // until the line of the pool is full
		delay, rate, err := b.traffic(ctx, through)
		end()
		for status, n := range <-counted {
			answers[status] += n
		}
		if err != nil {
			return err
		}
		delays, rates = append(delays, float64(delay)/float64(quietDelay)), append(rates, rate/quietRate)
		log.Printf("  round %d of %d", round+1, b.rounds)
		time.Sleep(drainTime)
	}
	b.report.most("while 500 logins a second arrive: p99 at 200 requests/s ÷ idle", 1.5, median(delays))
	b.report.least("while 500 logins a second arrive: throughput at 16 connections ÷ idle", 0.85, median(rates))
	b.report.heading("A flood of logins")
	b.report.text(fmt.Sprintf("%d logins a second with wrong passwords, from as many addresses, at a gateway that also serves requests of somebody who is signed in. "+
		"The flood's own client runs on the same cores. Its answers by status: %v (401 was verified; 503 found the waiting line full).", floodRate, answers))
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

// beFlooded sends logins until ctx ends, and then says how they were answered.
func (g *gatehouse) beFlooded(ctx context.Context) <-chan map[int]int {
	counted := make(chan map[int]int, 1)
	go func() {
		var mu sync.Mutex
		answers := map[int]int{}
		attackers := &attackers{address: g.address, unused: make(chan *attacker, inFlight)}
		defer attackers.close()
		paced(ctx, floodRate, time.Hour, func(time.Time) {
			status, err := attackers.login(ctx)
			if err != nil {
				return // what the end of the flood breaks off is no answer
			}
			mu.Lock()
			defer mu.Unlock()
			answers[status]++
		})
		counted <- answers
	}()
	return counted
}

// attackers send logins over sockets: a client of net/http costs more than the answers, and takes that from what is measured.
type attackers struct {
	address string
	unused  chan *attacker
}

// attacker is a connection.
type attacker struct {
	net.Conn
	in   *bufio.Reader
	stop func() bool // ends the watch for the flood's end
}

// login tries a password that is wrong for a name that nobody has, as if from an address of its own, and returns the status.
func (a *attackers) login(ctx context.Context) (int, error) {
	c, err := a.one(ctx)
	if err != nil {
		return 0, err
	}
	var random [3]byte
	_, _ = rand.Read(random[:])                                                   // never fails
	from := netip.AddrFrom4([4]byte{198, 18 + random[0]%2, random[1], random[2]}) // RFC 2544, for benchmarks
	body := fmt.Sprintf(`{"username":"%s","password":"not the right passphrase"}`, strings.ToLower(rand.Text()))
	_, err = fmt.Fprintf(c, "POST /.gatehouse/api/v1/login HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"X-Forwarded-For: %s\r\n\r\n%s", a.address, len(body), from, body)
	if err != nil {
		return 0, errors.Join(err, c.end())
	}
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, errors.Join(err, c.end())
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.Close {
		return answer.StatusCode, errors.Join(err, c.end())
	}
	a.unused <- c // has room for all that are in flight
	return answer.StatusCode, nil
}

// one is a connection that nobody uses.
func (a *attackers) one(ctx context.Context) (*attacker, error) {
	select {
	case c := <-a.unused:
		return c, nil
	default:
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", a.address)
	if err != nil {
		return nil, err
	}
	return &attacker{Conn: conn, in: bufio.NewReader(conn), stop: context.AfterFunc(ctx, func() { _ = conn.Close() })}, nil
}

func (a *attackers) close() {
	close(a.unused)
	for c := range a.unused {
		_ = c.end()
	}
}

func (c *attacker) end() error {
	c.stop()
	return c.Close()
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
