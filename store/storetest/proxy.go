package storetest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP proxy that misbehaves on demand, between an engine or a gateway and its server. It begins by passing
// everything on. The settings hold for open connections too.
type Proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	fault   fault
	changed chan struct{}         // closed and replaced when fault changes
	conns   map[net.Conn]struct{} // both sides of every pair; guarded by mu
	done    bool
	left    int    // answers to pass on before trip; guarded by mu
	trip    func() // nil if there is none; guarded by mu
}

// fault is what the proxy does at the moment.
type fault struct {
	refuse    bool
	hole      bool
	hold      bool
	holdFrom  string // the IP address of clients for whom hold is meant
	reset     bool
	delay     time.Duration
	old, new  string
	answer    []byte
	hasAnswer bool
}

// FaultProxy starts a proxy to the target address, which ends with the test.
func FaultProxy(t *testing.T, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(&serving) })
	t.Cleanup(func() {
		p.mu.Lock()
		p.done = true
		p.mu.Unlock()
		p.set(fault{})
		_ = l.Close() // ends serve
		p.hangUp()
		serving.Wait()
	})
	return p
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// URL is a store URL that leads through the proxy.
func (p *Proxy) URL() string { return "redis://" + p.Addr() }

// Pass passes everything on again, and takes back what After asked for.
func (p *Proxy) Pass() {
	p.After(0, nil)
	p.set(fault{})
}

// Refuse closes open connections and each new one at once.
func (p *Proxy) Refuse() {
	p.set(fault{refuse: true})
	p.hangUp()
}

// BlackHole accepts and swallows: nothing is passed on in either direction.
func (p *Proxy) BlackHole() { p.set(fault{hole: true}) }

// Hold accepts and passes nothing on, in either direction, until the next setting; then what was held goes on its way, as
// on a network that was cut and mended.
func (p *Proxy) Hold() { p.set(fault{hold: true}) }

// HoldFrom is Hold for the clients at one IP address.
func (p *Proxy) HoldFrom(ip string) { p.set(fault{holdFrom: ip}) }

// Delay holds back every answer for d.
func (p *Proxy) Delay(d time.Duration) { p.set(fault{delay: d}) }

// ResetBeforeReply passes requests on and, when the answer comes, resets the client's connection instead of passing it on.
func (p *Proxy) ResetBeforeReply() { p.set(fault{reset: true}) }

// Rewrite replaces old by new, of the same length, in what the server sends.
func (p *Proxy) Rewrite(old, new string) { p.set(fault{old: old, new: new}) }

// Answer swallows what the server sends and gives this answer instead, once for each of the server's.
func (p *Proxy) Answer(b []byte) { p.set(fault{answer: b, hasAnswer: true}) }

// After lets n more answers of the server pass and calls fault, once, before the next: one of the methods above, to be in the
// middle of what somebody does. An answer is what arrives at once, which for one request at a time is its answer.
func (p *Proxy) After(n int, fault func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.trip = n, fault
}

// count runs what After asked for when its time has come.
func (p *Proxy) count() {
	p.mu.Lock()
	trip := p.trip
	switch {
	case trip == nil:
	case p.left > 0:
		p.left--
		trip = nil
	default:
		p.trip = nil
	}
	p.mu.Unlock()
	if trip != nil {
		trip()
	}
}

func (p *Proxy) set(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) now() (fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault, p.changed
}

// hangUp closes every connection.
func (p *Proxy) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// keep registers a connection so that hangUp finds it; false if the proxy has ended.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *Proxy) serve(serving *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if f, _ := p.now(); f.refuse {
			_ = client.Close()
			continue
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.keep(client) || !p.keep(server) {
			_ = server.Close()
			return
		}
		ip, _, _ := net.SplitHostPort(client.RemoteAddr().String()) // of a TCP connection
		serving.Go(func() { p.pump(server, client, ip, false) })
		serving.Go(func() { p.pump(client, server, ip, true) })
	}
}

// pump copies from one side to the other; ip is the client's, and answers says that it is the server's side that is read.
func (p *Proxy) pump(to, from net.Conn, ip string, answers bool) {
	defer p.drop(to)
	defer p.drop(from)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return
		}
		if n > 0 && !p.pass(to, buf[:n], ip, answers) {
			return
		}
		if err != nil {
			return
		}
	}
}

// pass does with b what the present fault asks for; false ends the pair.
func (p *Proxy) pass(to net.Conn, b []byte, ip string, answers bool) bool {
	if answers {
		p.count()
	}
	f, changed := p.now()
	for f.hold || f.holdFrom == ip {
		<-changed
		f, changed = p.now()
	}
	if f.hole { // what was swallowed stays so
		<-changed
		return true
	}
	if answers {
		switch {
		case f.reset:
			if tcp, ok := to.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // so that closing sends RST
			}
			return false
		case f.delay > 0:
			select {
			case <-time.After(f.delay):
			case <-changed:
			}
		case f.old != "":
			b = bytes.ReplaceAll(b, []byte(f.old), []byte(f.new))
		case f.hasAnswer:
			b = f.answer
		}
	}
	_, err := to.Write(b)
	return err == nil
}
