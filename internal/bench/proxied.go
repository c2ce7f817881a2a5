package main

import (
	"context"
	"fmt"
	"net/http"
)

// setting is the servers of the comparison of proxied requests.
type setting struct {
	app, floor, redirect *process
	nginx, haproxy       *process
	caddy, redis         *process
	bolt, shared         *gatehouse
}

// proxied measures what a request costs that goes through, and one that is sent to the login page.
func (b *bench) proxied(ctx context.Context) error {
	s, err := b.set(ctx)
	if err != nil {
		return err
	}
	for _, measure := range []func(context.Context, *setting) error{b.small, b.few, b.large, b.notSignedIn, b.asked} {
		if err := measure(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) set(ctx context.Context) (s *setting, err error) {
	s = &setting{}
	if s.app, err = b.startSelf(ctx, "upstream"); err != nil {
		return nil, err
	}
	if s.floor, err = b.startSelf(ctx, "floor", s.app.url("")); err != nil {
		return nil, err
	}
	if s.redirect, err = b.startSelf(ctx, "redirect"); err != nil {
		return nil, err
	}
	for name, peer := range map[string]**process{"nginx": &s.nginx, "haproxy": &s.haproxy, "caddy": &s.caddy} {
		if *peer, err = b.startPeer(ctx, name, s.app); err != nil {
			return nil, err
		}
	}
	if s.redis, err = b.startRedis(ctx); err != nil {
		return nil, err
	}
	if s.bolt, err = b.startGateway(ctx, "bolt", s.app.url("")); err != nil {
		return nil, err
	}
	s.shared, err = b.startGateway(ctx, "shared", s.app.url(""), "GATEHOUSE_STORE=redis://"+s.redis.address+"/0", "GATEHOUSE_ROOT_KEY="+rootKey())
	if err != nil {
		return nil, err
	}
	for _, g := range []*gatehouse{s.bolt, s.shared} {
		if err := g.addUsers(ctx, 3); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// browserHeader is what a browser sends with a navigation. All targets get the same request, cookies too.
func browserHeader(cookies string) map[string]string {
	return map[string]string{
		"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"Accept":     "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Language": "en-US,en;q=0.5",
		"Accept-Encoding": "gzip, deflate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin",
		"Cookie": cookies,
	}
}

// signedIn is a target to which a browser with a session of g is sent.
func signedIn(ctx context.Context, name string, p *process, path string, g *gatehouse) target {
	return target{name: name, server: p, url: p.url(path), status: http.StatusOK, header: func() (map[string]string, error) {
		cookies, err := g.session(ctx)
		return browserHeader(cookies), err
	}}
}

// small compares everything at 16 connections with answers of 1 KiB.
func (b *bench) small(ctx context.Context, s *setting) error {
	before, err := commands(s.redis.address)
	if err != nil {
		return err
	}
	c, err := b.compare(ctx, 16,
		signedIn(ctx, "floor", s.floor, "/", s.bolt), signedIn(ctx, "gatehouse", s.bolt.process, "/", s.bolt),
		signedIn(ctx, "gatehouse on Redis", s.shared.process, "/", s.shared), signedIn(ctx, "nginx", s.nginx, "/", s.bolt),
		signedIn(ctx, "haproxy", s.haproxy, "/", s.bolt), signedIn(ctx, "caddy", s.caddy, "/", s.bolt))
	if err != nil {
		return err
	}
	after, err := commands(s.redis.address)
	if err != nil {
		return err
	}
	c.table(&b.report, "A request of somebody who is signed in, 16 connections, answers of 1 KiB")
	requests := c.median(2, perSecond) * b.length.Seconds() * float64(b.rounds)
	b.report.text(fmt.Sprintf("Redis ran %d commands in that time, over %.0f requests of somebody who is signed in: the feed, sign-ins and checks of readiness; "+
		"requests cost none.", after-before, requests))
	b.floorCPU = c.median(0, cpu)
	b.gatewayCPU = c.ratio(1, 0, cpu) * b.floorCPU
	b.report.most("authenticated request, 1 KiB, 16 connections: CPU ÷ floor", 1.05, c.ratio(1, 0, cpu))
	b.report.most("the same on Redis: CPU ÷ floor", 1.05, c.ratio(2, 0, cpu))
	b.report.most("the same: CPU ÷ caddy without authentication", 1, c.ratio(1, 5, cpu))
	b.report.least("the same: throughput ÷ floor", 0.95, c.ratio(1, 0, perSecond))
	b.report.most("the same: p99 ÷ floor", 1.1, c.ratio(1, 0, p99))
	return nil
}

// few compares throughput and latency at other numbers of connections.
func (b *bench) few(ctx context.Context, s *setting) error {
	for _, connections := range []int{1, 64} {
		c, err := b.compare(ctx, connections, signedIn(ctx, "floor", s.floor, "/", s.bolt), signedIn(ctx, "gatehouse", s.bolt.process, "/", s.bolt))
		if err != nil {
			return err
		}
		c.table(&b.report, fmt.Sprintf("The same, connections: %d", connections))
		b.report.least(fmt.Sprintf("throughput ÷ floor, connections: %d", connections), 0.95, c.ratio(1, 0, perSecond))
		b.report.most(fmt.Sprintf("p99 ÷ floor, connections: %d", connections), 1.1, c.ratio(1, 0, p99))
	}
	return nil
}

func (b *bench) large(ctx context.Context, s *setting) error {
	c, err := b.compare(ctx, 16, signedIn(ctx, "floor", s.floor, "/large", s.bolt), signedIn(ctx, "gatehouse", s.bolt.process, "/large", s.bolt))
	if err != nil {
		return err
	}
	c.table(&b.report, "The same, 16 connections, answers of 64 KiB")
	b.report.most("64 KiB answers: CPU ÷ floor", 1.03, c.ratio(1, 0, cpu))
	return nil
}

// asked compares what a web server is told about a request with an answer of the app itself.
func (b *bench) asked(ctx context.Context, s *setting) error {
	question := signedIn(ctx, "gatehouse, asked by nginx", s.bolt.process, "/.gatehouse/authz/auth-request", s.bolt)
	browser := question.header
	question.header = func() (map[string]string, error) {
		header, err := browser()
		if err == nil {
			header["X-Original-URL"], header["X-Original-Method"], header["X-Forwarded-For"] = s.bolt.origin+"/some/page", http.MethodGet, "192.0.2.7"
		}
		return header, err
	}
	c, err := b.compare(ctx, 16, signedIn(ctx, "the app itself", s.app, "/", s.bolt), question)
	if err != nil {
		return err
	}
	c.table(&b.report, "A question of forward-auth about somebody who is signed in, 16 connections, beside an answer of 1 KiB of the app itself")
	b.report.most("forward-auth answer: CPU ÷ an answer of 1 KiB of the app itself", 1.25, c.ratio(1, 0, cpu))
	return nil
}

func (b *bench) notSignedIn(ctx context.Context, s *setting) error {
	nobody := func(name string, p *process) target {
		return target{
			name: name, server: p, url: p.url("/some/page"), status: http.StatusFound,
			header: func() (map[string]string, error) { return browserHeader("theme=dark; lang=en"), nil },
		}
	}
	c, err := b.compare(ctx, 16, nobody("a handler that answers 302", s.redirect), nobody("gatehouse", s.bolt.process))
	if err != nil {
		return err
	}
	c.table(&b.report, "A navigation of somebody who is not signed in, 16 connections")
	b.report.most("redirect to the login page: CPU ÷ a handler that answers 302 at once", 1.3, c.ratio(1, 0, cpu))
	return nil
}
