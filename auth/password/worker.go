package password

// class is how much of a busy machine a worker's thread asks for. Verifications have the lowest priority, which costs other threads the least. But
// where programs that the kernel weighs against this process's threads one by one keep all cores busy, that is next to nothing: signing in would
// take half a minute, and the garbage collector, which stops workers too, would hold requests up until a worker has had its turn. There a worker
// asks for a share.
type class int

const (
	lowest class = iota // nice 19: a hundredth of a core that another thread wants too
	share               // 5 nicer than the process: a quarter of it
)

// Which part of a core a worker had for its last verification when it changes its class. With the lowest priority it gets a fifth and more beside
// our own requests, even when these want all cores, and a fiftieth beside other programs that do; with a share half a core beside either.
const (
	scarce = 0.1
	plenty = 0.8
)

// run is a worker.
func (p *Pool) run(c class) {
	c.join()
	for {
		j := p.next()
		if j == nil {
			return
		}
		p.runs.Add(1)
		got := p.part(j.run)
		switch {
		case c == lowest && got < scarce:
			p.workers.Go(func() { p.run(share) }) // on another thread: without privileges none can ask for more than it did
			return
		case c == share && got > plenty:
			c = lowest
			c.join()
		}
	}
}
