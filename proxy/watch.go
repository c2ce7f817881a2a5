package proxy

import (
	"net/http"
	"sync"
	"time"
)

// watchEvery is how often requests are looked for that are under way for so long that they are worth a watcher: within two of these, each
// has one. Most are answered before; the rest are cut well within the second that a revocation may take.
const watchEvery = 100 * time.Millisecond

// lookout gives every request that takes long its watcher. One timer serves all requests that are under way: one for each would be set and
// stopped by all those that are answered in no time, and setting a timer wakes a thread where the others sleep. It is safe for concurrent
// use; the zero value is ready.
type lookout struct {
	mu    sync.Mutex
	round uint64
	young map[*exchange]uint64 // the round in which each began
	armed bool
}

// add has x watched when it takes long, until remove.
func (l *lookout) add(x *exchange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.young == nil {
		l.young = map[*exchange]uint64{}
	}
	l.young[x] = l.round
	if !l.armed {
		l.armed = true
		time.AfterFunc(watchEvery, l.look)
	}
}

// remove ends what add began. When it returns, nothing watches x any more; x must have ended.
func (l *lookout) remove(x *exchange) {
	l.mu.Lock()
	_, unwatched := l.young[x]
	delete(l.young, x)
	l.mu.Unlock()
	if !unwatched {
		x.watching.Wait()
	}
}

// look starts the watchers of those that were there the last time, too.
func (l *lookout) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for x, began := range l.young {
		if began < l.round {
			delete(l.young, x)
			x.watching.Go(x.watch)
		}
	}
	l.round++
	if l.armed = len(l.young) > 0; l.armed {
		time.AfterFunc(watchEvery, l.look)
	}
}

// watch cuts the exchange when its session ends, whether somebody ended it or its time is over, and when the app lets it wait for its
// answer. Of the app's time watchEvery has passed by now, or up to twice that; where the request has a body, its time begins with the body's end.
func (x *exchange) watch() {
	x.takeTime()
	var ended <-chan struct{}
	var over <-chan time.Time // its time is over
	if x.signedIn {
		limit := time.NewTimer(x.who.ExpiresAt.Sub(x.proxy.now()))
		defer limit.Stop()
		ended, over = x.proxy.sessions.Ended(x.who), limit.C
	}
	late := time.NewTimer(x.route.patience - watchEvery)
	defer late.Stop()
	var sent <-chan struct{}
	if x.upload != nil { // the app's time begins when it has the whole request
		sent = x.upload.sent
		late.Stop()
	}
	for {
		select {
		case <-sent:
			sent = nil
			late.Reset(x.route.patience)
		case <-late.C:
			if !x.begins.Load() {
				x.end(errLate)
			}
		case <-x.Done():
			return
		case <-ended:
			x.sessionEnded()
			return
		case <-over:
			x.sessionEnded()
			return
		}
	}
}

// takeTime lifts the time that the listener gives a request until it is known that it may pass: from here on a body takes as long
// as it takes. Requests that are over before the watch begins are so within any such time, and need no call to lift it.
func (x *exchange) takeTime() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.unread && !x.hijacked {
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Time{}) // not supported: there is none to lift
	}
}

// stopReading has net/http give up the rest of a body, for which it would wait: a client that stalls never sends it.
func (x *exchange) stopReading() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unread = true
	_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(longAgo()) // not supported: it waits
}

// sessionEnded stops what flows in both directions. Cancelling ends the conversation with the app; the deadlines free
// whoever waits for the client, who may neither send nor read. An answer that has not begun can still be a 401.
func (x *exchange) sessionEnded() {
	x.mu.Lock()
	x.cut = true
	begun := x.begun || x.writing
	x.mu.Unlock()
	x.end(errSessionEnded)
	client := http.NewResponseController(x.ResponseWriter)
	_ = client.SetReadDeadline(longAgo()) // where a deadline is not supported, cancelling is what there is
	if begun {
		_ = client.SetWriteDeadline(longAgo())
	}
}

// begin notes that the final answer begins; if the session ended in this very moment, there is none.
func (x *exchange) begin() {
	x.mu.Lock()
	x.begun = true
	cut := x.cut
	x.mu.Unlock()
	if cut {
		panic(http.ErrAbortHandler)
	}
}

// longAgo is a deadline that has passed by every clock.
func longAgo() time.Time { return time.Unix(1, 0) }
