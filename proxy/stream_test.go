package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/internal/wiretest"
	"gatehouse/proxy"
)

const patience = 10 * time.Second

// get sends a request as bob and returns the answer with its body still open.
func (g *gate) get(t testing.TB, method, target string, body io.Reader) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.URL+target, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "gate.example"
	r.Header.Set("Cookie", "__Host-gatehouse=bob")
	answer, err := g.server.Client().Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return answer
}

// begin sends a request and returns its connection once the app has got it, as its first one.
func (g *gate) begin(t *testing.T, up *wiretest.Upstream, request string) net.Conn {
	t.Helper()
	conn := wiretest.Dial(t, g.URL)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the request", func() bool { return len(up.Requests()) == 1 })
	return conn
}

// within fails the test if done is not closed soon.
func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s did not happen", what)
	}
}

func TestProxy_eventsArriveOneByOne(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	up := wiretest.NewScripted(t, func(conn net.Conn, _ *bufio.Reader, _ wiretest.Request) bool {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
		for i := range 3 {
			_, _ = fmt.Fprintf(conn, "data: %d\n\n", i)
			<-next // the next event is sent after the client saw this one
		}
		return false
	})
	g := newGate(t, up.URL)
	events := bufio.NewReader(g.get(t, http.MethodGet, "/events", nil).Body)
	for i := range 3 {
		line, err := events.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: got %q, %v", i, line, err)
		}
		if _, err := events.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
}

// A session that ends cuts what is open: upgraded connections, streams, downloads to clients that do not read, and uploads
// of clients that do not send.
func TestProxy_sessionEndCutsWhatIsOpen(t *testing.T) {
	t.Parallel()
	flood := func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		switch {
		case strings.HasPrefix(r.Target(), "/ws"):
			if r.Target() != "/ws-flood" {
				return switching(conn, in, r)
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		case r.Target() == "/download":
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		case r.Target() == "/stream":
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
			_, _ = io.Copy(io.Discard, in) // says nothing until it is cut
			return false
		}
		chunk := make([]byte, 64<<10)
		for {
			if _, err := conn.Write(chunk); err != nil {
				return false
			}
		}
	}
	tests := []struct {
		name, request string
		reads         bool // reads until the end; else never reads more than the header
		want          int
	}{
		{"idle WebSocket", "GET /ws HTTP/1.1\r\n" + signedIn + handshake + "\r\n", true, 101},
		{"WebSocket that is not read", "GET /ws-flood HTTP/1.1\r\n" + signedIn + handshake + "\r\n", false, 101},
		{"silent stream", "GET /stream HTTP/1.1\r\n" + signedIn + "\r\n", true, 200},
		{"download", "GET /download HTTP/1.1\r\n" + signedIn + "\r\n", true, 200},
		{"download that is not read", "GET /download HTTP/1.1\r\n" + signedIn + "\r\n", false, 200},
		{"upload that stalls", "POST /upload HTTP/1.1\r\n" + signedIn + "Content-Length: 1000\r\n\r\nhello", true, 401},
		{"chunked upload that stalls", "POST /upload HTTP/1.1\r\n" + signedIn + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := wiretest.NewScripted(t, flood)
			done := make(chan struct{})
			g := newGate(t, up.URL, watched(done))
			conn := wiretest.Dial(t, g.URL)
			if _, err := io.WriteString(conn, tt.request); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(conn)
			if tt.want == 401 {
				waitFor(t, "the app's connection", func() bool { return up.Open() == 1 })
				g.Sessions.end("bob")
			}
			answer, err := http.ReadResponse(in, nil)
			if err != nil || answer.StatusCode != tt.want {
				t.Fatalf("got %v, %v, want %d", answer, err, tt.want)
			}
			if tt.want != 401 {
				g.Sessions.end("bob")
			}
			if tt.reads {
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					_, _ = io.Copy(io.Discard, in)
				}()
				within(t, "the end for the client", ended)
			}
			within(t, "the end of the handler", done)
			waitFor(t, "the end for the app", func() bool { return up.Open() == 0 })
		})
	}
}

// A client that reads no interim answer must not keep its request open beyond its session.
func TestProxy_sessionEndCutsInterimAnswers(t *testing.T) {
	t.Parallel()
	for _, request := range []string{"GET / HTTP/1.1\r\n" + signedIn + "\r\n", "POST / HTTP/1.1\r\n" + signedIn + "Content-Length: 1\r\n\r\nx"} {
		part := "HTTP/1.1 103 Early Hints\r\nX-A: " + strings.Repeat("a", 240<<10) + "\r\n\r\n"
		up := wiretest.NewScripted(t, func(conn net.Conn, in *bufio.Reader, _ wiretest.Request) bool {
			_, _ = io.WriteString(conn, strings.Repeat(part, 30)) // more than the buffers between hold
			_, _ = io.Copy(io.Discard, in)
			return false
		})
		done := make(chan struct{})
		g := newGate(t, up.URL, watched(done))
		g.begin(t, up, request)
		time.Sleep(300 * time.Millisecond) // until the client's buffers are full and the request is watched
		g.Sessions.end("bob")
		within(t, "the end of the handler", done)
		waitFor(t, "the end for the app", func() bool { return up.Open() == 0 })
	}
}

func TestProxy_absoluteLimitCutsWhatIsOpen(t *testing.T) {
	t.Parallel()
	g := newGate(t, wiretest.NewScripted(t, switching).URL)
	_, in, answer := g.open(t, "GET /ws HTTP/1.1\r\nHost: gate.example\r\nCookie: __Host-gatehouse=short\r\n"+handshake+"\r\n")
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %d", answer.StatusCode)
	}
	if n, err := io.Copy(io.Discard, in); n != 0 {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

// watched closes done when the first observed request is over.
func watched(done chan struct{}) func(*proxy.Options) {
	return func(o *proxy.Options) { o.Observer = &closer{done: done} }
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// PX-26: what an app can do wrong.
func TestProxy_appThatFails(t *testing.T) {
	t.Parallel()
	reset := func(conn net.Conn, _ *bufio.Reader, _ wiretest.Request) bool {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		_ = conn.(*net.TCPConn).SetLinger(0)
		return false
	}
	silent := func(conn net.Conn, in *bufio.Reader, _ wiretest.Request) bool {
		_, _ = io.Copy(io.Discard, in)
		return false
	}
	interimFlood := func(conn net.Conn, _ *bufio.Reader, _ wiretest.Request) bool {
		for {
			if _, err := io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); err != nil {
				return false
			}
		}
	}
	tests := []struct {
		name  string
		reply wiretest.Reply
		want  int // 0: the answer breaks off after its header
		code  string
	}{
		{"reset in the body", reset, 0, ""},
		{"bad chunk", wiretest.AnswerAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"), 0, ""},
		{"chunked body without its end", wiretest.AnswerAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), 0, ""},
		{"shorter than it said", wiretest.AnswerAndClose("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), 0, ""},
		{"longer than it said", wiretest.Answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and HTTP/1.1 200 OK\r\n\r\n"), 200, ""},
		{"flood of interim answers", interimFlood, 502, "upstream-unavailable"},
		{"status of none", wiretest.Answer("HTTP/1.1 099 Early\r\nContent-Length: 2\r\n\r\nhi"), 502, "upstream-unavailable"},
		{"status of none before an answer", wiretest.Answer("HTTP/1.1 +20 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), 502, "upstream-unavailable"},
		{"no HTTP", wiretest.AnswerAndClose("SSH-2.0-OpenSSH\r\n"), 502, "upstream-unavailable"},
		{"nothing", wiretest.AnswerAndClose(""), 502, "upstream-unavailable"},
		{"header of 10 MB", wiretest.AnswerAndClose("HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 10<<20) + "\r\n\r\n"), 502, "upstream-unavailable"},
		{"two lengths", wiretest.AnswerAndClose("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 502, "upstream-unavailable"},
		{"never answers", silent, 504, "upstream-timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := wiretest.NewScripted(t, tt.reply)
			g := newGate(t, up.URL, func(o *proxy.Options) { o.Routes[0].AnswerTimeout = 300 * time.Millisecond })
			for _, request := range []string{"GET /a HTTP/1.1\r\n" + signedIn + "\r\n", "POST /a HTTP/1.1\r\n" + signedIn + "Content-Length: 2\r\n\r\nhi"} {
				answers := g.send(t, request)
				if tt.want == 0 {
					// Nothing at all, or less than was announced, and then the end of the connection.
					if !answers.Broken && (!answers.Closed || len(answers.All) > 0) {
						t.Fatalf("%s: a broken answer was passed on as whole: %+v", request[:4], answers)
					}
					continue
				}
				got := answers.All[0]
				if got.StatusCode != tt.want || len(answers.All) != 1 || !strings.Contains(answers.Bodies[0], tt.code) {
					t.Fatalf("%s: got %d %s, want %d", request[:4], got.StatusCode, answers.Bodies[0], tt.want)
				}
				if tt.want >= 500 && (got.Header.Get("Cache-Control") != "no-store" || !strings.Contains(answers.Bodies[0], "request-1")) {
					t.Errorf("%s: got %v %s", request[:4], got.Header, answers.Bodies[0])
				}
			}
			waitFor(t, "the end of the connections", func() bool { return up.Open() == 0 })
		})
	}
}

func TestProxy_appThatIsNotThere(t *testing.T) {
	t.Parallel()
	up := wiretest.NewUpstream(t)
	up.Close()
	g := newGate(t, up.URL)
	if got := g.send(t, "GET / HTTP/1.1\r\n"+signedIn+"\r\n").Status(t); got != http.StatusBadGateway {
		t.Errorf("got %d, want 502", got)
	}
}

// An app that goes away during an upload gives a 502 at once, although the client still owes the rest of the body.
func TestProxy_appThatLeavesDuringAnUpload(t *testing.T) {
	t.Parallel()
	up := wiretest.NewEager(t, wiretest.AnswerAndClose(""))
	done := make(chan struct{})
	g := newGate(t, up.URL, watched(done))
	conn := wiretest.Dial(t, g.URL)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, "POST /a HTTP/1.1\r\n"+signedIn+"Content-Length: 1000000000\r\n\r\n")
		_, _ = io.CopyN(conn, zeros{}, 1_000_000_000) // until the gateway closes
	}()
	if answers := wiretest.ReadAnswers(t, conn, "POST"); answers.Status(t) != http.StatusBadGateway || !answers.Closed {
		t.Errorf("got %+v", answers)
	}
	within(t, "the end of the handler", done)
	_ = conn.Close()
	<-sent
}

// A client that leaves ends the request to the app, at each stage.
func TestProxy_clientThatLeaves(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"waiting":          "GET /stream HTTP/1.1\r\n" + signedIn + "\r\n",
		"waiting for more": "POST /stream HTTP/1.1\r\n" + signedIn + "Content-Length: 2\r\n\r\nhi",
		"during the body":  "POST /a HTTP/1.1\r\n" + signedIn + "Content-Length: 1000\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := wiretest.NewEager(t, func(_ net.Conn, in *bufio.Reader, _ wiretest.Request) bool {
				_, _ = io.Copy(io.Discard, in)
				return false
			})
			done := make(chan struct{})
			g := newGate(t, up.URL, watched(done))
			conn := g.begin(t, up, request)
			_ = conn.Close()
			within(t, "the end of the handler", done)
			waitFor(t, "the end for the app", func() bool { return up.Open() == 0 })
		})
	}
}

// PX-21: an app that answers instead of asking for the body leaves the pool healthy.
func TestProxy_expectContinue(t *testing.T) {
	t.Parallel()
	const post = "POST / HTTP/1.1\r\n" + signedIn + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
	up := wiretest.NewUpstream(t)
	conn := wiretest.Dial(t, newGate(t, up.URL).URL)
	if _, err := io.WriteString(conn, post); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := in.ReadString('\n'); err != nil { // the empty line
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(in, nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v", answer, err)
	}
	if got := up.Last(t); got.Body != "hello" || len(got.Values("Expect")) != 1 {
		t.Errorf("the app got %v, %q", got.Header, got.Body)
	}
	for _, reply := range []string{
		"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
	} {
		up := wiretest.NewEager(t, func(c net.Conn, in *bufio.Reader, r wiretest.Request) bool {
			if len(r.Values("Expect")) == 0 {
				return wiretest.EchoJSON(c, in, r)
			}
			return wiretest.AnswerAndClose(reply)(c, in, r)
		})
		g := newGate(t, up.URL)
		var senders sync.WaitGroup
		for range 10 {
			senders.Go(func() {
				for range 20 {
					if got := finalStatus(t, g.URL, post); got != http.StatusExpectationFailed {
						t.Errorf("got %d, want 417", got)
					}
					if got := finalStatus(t, g.URL, "GET / HTTP/1.1\r\n"+signedIn+"\r\n"); got != http.StatusOK {
						t.Errorf("afterwards: got %d, want 200", got)
					}
				}
			})
		}
		senders.Wait()
	}
}

// finalStatus sends a request and returns the status of its final answer; the body of a request that asks first is never
// sent.
func finalStatus(t *testing.T, address, request string) int {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Error(err)
		return 0
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Error(err)
		return 0
	}
	in := bufio.NewReader(conn)
	for {
		answer, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		if answer.StatusCode >= 200 {
			return answer.StatusCode
		}
	}
}

// Bodies of any size pass with flat memory, in both directions.
func TestProxy_largeTransfers(t *testing.T) {
	const size = 256 << 20
	up := wiretest.NewScripted(t, func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		if r.Method() != "GET" {
			return wiretest.Answer(fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Received: %d\r\nContent-Length: 0\r\n\r\n", r.BodyBytes))(conn, in, r)
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		_, err := io.CopyN(conn, zeros{}, size)
		return err == nil
	})
	g := newGate(t, up.URL)
	for name, body := range map[string]io.Reader{"upload": io.LimitReader(zeros{}, size), "download": nil} {
		t.Run(name, func(t *testing.T) {
			grown := growth(func() {
				method := http.MethodGet
				if body != nil {
					method = http.MethodPut // chunked: the client does not know the length
				}
				answer := g.get(t, method, "/large", body)
				n, err := io.Copy(io.Discard, answer.Body)
				if err != nil || body == nil && n != size || body != nil && answer.Header.Get("X-Received") != fmt.Sprint(size) {
					t.Errorf("got %d bytes, %v, %v", n, err, answer.Header)
				}
			})
			if grown > 64<<20 { // of 256 MiB; on a busy machine the collector comes late
				t.Errorf("the heap grew by %d MiB", grown>>20)
			}
		})
	}
}

// growth returns how much the heap grew at its largest while work ran.
func growth(work func()) uint64 {
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	largest := before.HeapAlloc
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				runtime.ReadMemStats(&now)
				largest = max(largest, now.HeapAlloc)
			}
		}
	}()
	work()
	close(stop)
	<-stopped
	return largest - before.HeapAlloc
}

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A listener may bound the time of a request: the bound is for those who are not signed in, whose body nobody waits for.
func TestProxy_liftsTheListenersTimeForASession(t *testing.T) {
	t.Parallel()
	const bound = 300 * time.Millisecond
	up := wiretest.NewUpstream(t)
	g := newGate(t, up.URL)
	server := httptest.NewUnstartedServer(g.server.Config.Handler)
	server.Config.ReadTimeout = bound
	server.Start()
	t.Cleanup(server.Close)
	for lines, want := range map[string]int{signedIn: http.StatusOK, "Host: gate.example\r\n": http.StatusUnauthorized} {
		conn := wiretest.Dial(t, server.URL)
		if _, err := io.WriteString(conn, "POST /upload HTTP/1.1\r\n"+lines+"Content-Length: 10\r\n\r\nhello"); err != nil {
			t.Fatal(err)
		}
		if want == http.StatusOK {
			time.Sleep(2 * bound) // the client is slow; that is what is tested
			_, _ = io.WriteString(conn, "hello")
		}
		answers := wiretest.ReadAnswers(t, conn, "POST")
		if got := answers.Status(t); got != want || answers.Closed != (want != http.StatusOK) {
			t.Errorf("got %d, closed %v, want %d", got, answers.Closed, want)
		}
	}
	if got := up.Requests(); len(got) != 1 || got[0].Body != "hellohello" {
		t.Errorf("the app got %+v", got)
	}
}

// The app has its time for the answer from when it has the whole request: a slow upload takes nothing of it, and does not end it.
func TestProxy_givesTheAppItsTimeAfterTheUpload(t *testing.T) {
	t.Parallel()
	const patience = 300 * time.Millisecond
	silent := func(_ net.Conn, in *bufio.Reader, _ wiretest.Request) bool {
		_, _ = in.ReadByte() // until the gateway gives up
		return false
	}
	up, never := wiretest.NewUpstream(t), wiretest.NewScripted(t, silent)
	for address, want := range map[string]int{up.URL: http.StatusOK, never.URL: http.StatusGatewayTimeout} {
		g := newGate(t, address, func(o *proxy.Options) { o.Routes[0].AnswerTimeout = patience })
		conn := wiretest.Dial(t, g.URL)
		if _, err := io.WriteString(conn, "POST /upload HTTP/1.1\r\n"+signedIn+"Content-Length: 10\r\n\r\nhello"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * patience) // the client is slow; that is what is tested
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if got := wiretest.ReadAnswers(t, conn, "POST").Status(t); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
}
