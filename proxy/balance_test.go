package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/internal/wiretest"
	"gatehouse/proxy"
	"gatehouse/store/storetest"
)

// spread starts a proxy before several upstreams, with a clock that the test moves.
func spread(t *testing.T, upstreams ...string) (*gate, *shift) {
	t.Helper()
	clock := &shift{}
	return newGate(t, upstreams[0], func(o *proxy.Options) {
		o.Routes = []proxy.Route{route(t, "app", upstreams...)}
		o.Now = clock.now
	}), clock
}

// A long poll waits for its answer as long as the route allows, also beside others on the same upstream, and is answered the moment that there is
// one.
func TestProxy_longPollsWait(t *testing.T) {
	t.Parallel()
	const bound = 3 * time.Second
	news := make(chan struct{})
	up := wiretest.NewScripted(t, func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		switch r.Target() {
		case "/poll":
			<-news
		case "/never":
			_, _ = in.ReadByte() // until the gateway gives up
			return false
		}
		return wiretest.EchoJSON(conn, in, r)
	})
	g := newGate(t, up.URL, func(o *proxy.Options) { o.Routes[0].AnswerTimeout = bound })
	var polls sync.WaitGroup
	for range 20 {
		polls.Go(func() {
			if got := g.send(t, "GET /poll HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n").Status(t); got != 200 {
				t.Errorf("a poll: got %d", got)
			}
		})
	}
	waitFor(t, "all polls to wait", func() bool { return len(up.Requests()) == 20 })
	time.Sleep(300 * time.Millisecond) // until all have their watcher; that is what is tested
	want(t, "meanwhile", g.statuses(t, 5, get), 200)
	close(news)
	polls.Wait()
	want(t, "without an answer", g.statuses(t, 1, "GET /never HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n"), 504)
}

// shift is real time and what the test adds.
type shift struct {
	more    atomic.Int64
	stopped atomic.Pointer[time.Time]
}

func (s *shift) now() time.Time {
	at := time.Now()
	if stopped := s.stopped.Load(); stopped != nil {
		at = *stopped
	}
	return at.Add(time.Duration(s.more.Load()))
}

func (s *shift) add(d time.Duration) { s.more.Add(int64(d)) }

// stop has no time pass but what the test adds.
func (s *shift) stop() {
	at := time.Now()
	s.stopped.Store(&at)
}

const get = "GET / HTTP/1.1\r\n" + signedIn + "Connection: close\r\n\r\n"

// statuses sends a request some times and returns what came back.
func (g *gate) statuses(t *testing.T, times int, request string) []int {
	t.Helper()
	var all []int
	for range times {
		all = append(all, g.send(t, request).Status(t))
	}
	return all
}

func want(t *testing.T, what string, got []int, want int) {
	t.Helper()
	for _, status := range got {
		if status != want {
			t.Errorf("%s: got %v, want %d", what, got, want)
			return
		}
	}
}

func TestProxy_spreadsRequestsInTurn(t *testing.T) {
	t.Parallel()
	one, two, three := wiretest.NewUpstream(t), wiretest.NewUpstream(t), wiretest.NewUpstream(t)
	g, _ := spread(t, one.URL, two.URL, three.URL)
	want(t, "of three", g.statuses(t, 12, get), 200)
	for i, up := range []*wiretest.Upstream{one, two, three} {
		if got := len(up.Requests()); got != 4 {
			t.Errorf("upstream %d got %d of 12", i, got)
		}
	}
}

func TestProxy_sendsRequestsWhereTheFewestAreUnderWay(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	slow := func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		if r.Target() == "/slow" {
			<-release
		}
		return wiretest.EchoJSON(conn, in, r)
	}
	one, two := wiretest.NewScripted(t, slow), wiretest.NewScripted(t, slow)
	g, _ := spread(t, one.URL, two.URL)
	var waiting sync.WaitGroup
	for range 3 { // one of the two has more of them
		waiting.Go(func() {
			g.send(t, "GET /slow HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n")
		})
	}
	waitFor(t, "three requests under way", func() bool { return len(one.Requests())+len(two.Requests()) == 3 })
	before := [2]int{len(one.Requests()), len(two.Requests())}
	want(t, "meanwhile", g.statuses(t, 6, get), 200)
	if got := [2]int{len(one.Requests()), len(two.Requests())}; before[0] > before[1] && got[0] != before[0] || before[1] > before[0] && got[1] != before[1] {
		t.Errorf("from %v to %v: the busier one got more", before, got)
	}
	close(release)
	waiting.Wait()
	before = [2]int{len(one.Requests()), len(two.Requests())}
	want(t, "afterwards", g.statuses(t, 6, get), 200)
	if got := [2]int{len(one.Requests()) - before[0], len(two.Requests()) - before[1]}; got != [2]int{3, 3} {
		t.Errorf("afterwards: got %v of 6", got)
	}
}

// Upstreams come and go under load: nothing is sent twice, what is answered was sent once, and as long as one is there nobody hears of the others.
func TestProxy_sendsEachRequestOnceWhileUpstreamsComeAndGo(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{} // guarded by mu; how often each request was acted on
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) != 2000 {
			return
		}
		mu.Lock()
		seen[r.URL.Path]++
		mu.Unlock()
		_, _ = io.WriteString(w, r.URL.Path)
	})
	steady := httptest.NewServer(app)
	defer steady.Close()
	ports := [2]string{storetest.FreePort(t), storetest.FreePort(t)}
	g, _ := spread(t, steady.URL, "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1])

	stop := make(chan struct{})
	var unsteady, clients sync.WaitGroup
	for _, port := range ports {
		unsteady.Go(func() { comeAndGo(t, "127.0.0.1:"+port, app, stop) })
	}
	body := strings.Repeat("x", 2000)
	for c := range 16 {
		clients.Go(func() {
			for n := range 50 {
				path := fmt.Sprintf("/%d/%d", c, n)
				answers := g.send(t, fmt.Sprintf("POST %s HTTP/1.1\r\n%sConnection: close\r\nContent-Length: %d\r\n\r\n%s", path, signedIn, len(body), body))
				if len(answers.All) != 1 {
					t.Errorf("%s: got %d answers", path, len(answers.All))
					return
				}
				mu.Lock()
				acted := seen[path]
				mu.Unlock()
				switch status := answers.All[0].StatusCode; {
				case status == 200 && (acted != 1 || answers.Bodies[0] != path):
					t.Errorf("%s: answered %q, acted on %d times", path, answers.Bodies[0], acted)
				case status != 200 && status != 502 || acted > 1: // one that died with the request in its hands
					t.Errorf("%s: got %d, acted on %d times", path, status, acted)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	unsteady.Wait()
	want(t, "in the end", g.statuses(t, 10, "POST /end HTTP/1.1\r\n"+signedIn+"Connection: close\r\nContent-Length: 2000\r\n\r\n"+body), 200)
}

// comeAndGo serves for a moment, is cut off in the middle of what it does, and comes again.
func comeAndGo(t *testing.T, address string, app http.Handler, stop <-chan struct{}) {
	for {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("listen: %v", err)
			return
		}
		server := &http.Server{Handler: app, ErrorLog: quiet()}
		served := make(chan struct{})
		go func() { defer close(served); _ = server.Serve(listener) }()
		over := false
		select {
		case <-stop:
			over = true
		case <-time.After(15 * time.Millisecond):
		}
		_ = server.Close()
		<-served
		if over {
			return
		}
		time.Sleep(5 * time.Millisecond) // it is away; that is what is tested
	}
}

// An open WebSocket counts as long as it is open.
func TestProxy_spreadsWebSockets(t *testing.T) {
	t.Parallel()
	one, two := wiretest.NewScripted(t, switching), wiretest.NewScripted(t, switching)
	g, _ := spread(t, one.URL, two.URL)
	open := func() net.Conn {
		conn, _, answer := g.open(t, "GET /ws HTTP/1.1\r\n"+signedIn+handshake+"\r\n")
		if answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %d", answer.StatusCode)
		}
		return conn
	}
	var conns []net.Conn
	for range 6 {
		conns = append(conns, open())
	}
	if a, b := len(one.Requests()), len(two.Requests()); a != 3 || b != 3 {
		t.Errorf("got %d and %d of 6", a, b)
	}
	for i := 0; i < 6; i += 2 { // in turn: all of one upstream
		_ = conns[i].Close()
	}
	waitFor(t, "their end", func() bool {
		_, answered := g.Witness.seen()
		return len(answered) == 3 && (one.Open() == 0 || two.Open() == 0)
	})
	left := one
	if two.Open() < one.Open() {
		left = two
	}
	before := len(left.Requests())
	for range 3 {
		open()
	}
	if got := len(left.Requests()) - before; got != 3 {
		t.Errorf("the one that has none got %d of 3", got)
	}
}

// An upstream that says three times in a row that it cannot serve gets no more requests, until one after a second shows that it can.
func TestProxy_leavesOutAnUpstreamThatFails(t *testing.T) {
	t.Parallel()
	var ill atomic.Bool
	ill.Store(true)
	one := wiretest.NewScripted(t, func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		if !ill.Load() {
			return wiretest.EchoJSON(conn, in, r)
		}
		return wiretest.Answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy")(conn, in, r)
	})
	two := wiretest.NewUpstream(t)
	g, clock := spread(t, one.URL, two.URL)
	clock.stop()
	g.statuses(t, 6, get)
	if got := len(one.Requests()); got != 3 {
		t.Fatalf("the ill one got %d of 6, want 3", got)
	}
	want(t, "while it is left out", g.statuses(t, 8, get), 200)
	for n, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		clock.add(wait - 200*time.Millisecond)
		want(t, "shortly before it is tried", g.statuses(t, 4, get), 200)
		clock.add(400 * time.Millisecond)
		g.statuses(t, 8, get)
		if got := len(one.Requests()); got != 4+n {
			t.Fatalf("after %v: the ill one got %d, want %d", wait, got, 4+n)
		}
	}
	ill.Store(false)
	clock.add(9 * time.Second)
	want(t, "when it is well", g.statuses(t, 4, get), 200)
	if got := len(one.Requests()); got < 6+2 {
		t.Errorf("well again: got %d requests, want at least %d", got, 8)
	}
	clock.add(-time.Hour) // a clock that is set back leaves nobody out for longer
	ill.Store(true)
	g.statuses(t, 6, get)
	ill.Store(false)
	clock.add(-time.Hour)
	before := len(one.Requests())
	want(t, "after the clock was set back", g.statuses(t, 4, get), 200)
	if len(one.Requests()) == before {
		t.Error("left out for an hour")
	}
}

// What could not be sent is sent to another, whatever it is; all of its body arrives.
func TestProxy_triesAnotherUpstreamWhereNoConnectionCouldBeMade(t *testing.T) {
	t.Parallel()
	dead := "http://127.0.0.1:" + storetest.FreePort(t)
	up := wiretest.NewUpstream(t)
	g, _ := spread(t, dead, up.URL)
	body := strings.Repeat("0123456789", 20_000)
	for i, request := range []string{
		get,
		fmt.Sprintf("POST / HTTP/1.1\r\n%sConnection: close\r\nContent-Length: %d\r\n\r\n%s", signedIn, len(body), body),
		fmt.Sprintf("PUT / HTTP/1.1\r\n%sConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n%x\r\n%s\r\n0\r\nX-Sum: 1\r\n\r\n", signedIn, len(body), body),
	} {
		want(t, request[:4], g.statuses(t, 2, request), 200)
		if got := up.Last(t); i > 0 && got.BodyBytes != int64(len(body)) || i == 2 && len(got.Trailer) != 1 {
			t.Errorf("%s: the app got %d bytes, %v", request[:4], got.BodyBytes, got.Trailer)
		}
	}
	if got := len(up.Requests()); got != 6 {
		t.Errorf("the app got %d requests, want 6", got)
	}
}

// A request of which the app may have seen something is not repeated, also where it could have been.
func TestProxy_repeatsNothingThatWasSent(t *testing.T) {
	t.Parallel()
	one := wiretest.NewEager(t, wiretest.AnswerAndClose(""))
	two := wiretest.NewEager(t, wiretest.AnswerAndClose(""))
	g, _ := spread(t, one.URL, two.URL)
	for n, request := range []string{get, "POST / HTTP/1.1\r\n" + signedIn + "Connection: close\r\nContent-Length: 2\r\n\r\nhi"} {
		want(t, request[:4], g.statuses(t, 1, request), 502)
		if got := len(one.Requests()) + len(two.Requests()); got != n+1 {
			t.Errorf("%s: the apps got %d requests, want %d", request[:4], got, n+1)
		}
	}
}

// A header that does not go out at once may have arrived in part.
func TestProxy_repeatsNothingOfWhichAPartWasSent(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	slammed := func() string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				if _, err := io.ReadFull(conn, make([]byte, 1)); err == nil {
					reached.Add(1)
				}
				_ = conn.(*net.TCPConn).SetLinger(0) // a reset
				_ = conn.Close()
			}
		}()
		return "http://" + listener.Addr().String()
	}
	g, _ := spread(t, slammed(), slammed())
	request := strings.Replace(get, "\r\n\r\n", "\r\nX-A: "+strings.Repeat("a", 50_000)+"\r\n\r\n", 1)
	const requests = 100
	want(t, "a large header", g.statuses(t, requests, request), 502)
	if got := reached.Load(); got != requests {
		t.Errorf("%d connections to the apps for %d requests", got, requests)
	}
}

// When all are out, trying is better than refusing: the first that is back serves at once.
func TestProxy_triesUpstreamsThatAreAllOut(t *testing.T) {
	t.Parallel()
	ports := [2]string{storetest.FreePort(t), storetest.FreePort(t)}
	g, _ := spread(t, "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1])
	want(t, "none is there", g.statuses(t, 5, get), 502)
	listener, err := net.Listen("tcp", "127.0.0.1:"+ports[1])
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "back") })}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	want(t, "one is back", g.statuses(t, 5, get), 200)
}
