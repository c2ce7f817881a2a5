package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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
)

// hello answers with the path that was asked for.
func hello(conn net.Conn, _ *bufio.Reader, r wiretest.Request) bool {
	_, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(r.Target()), r.Target())
	return err == nil
}

// visit sends one request and returns status and body.
func (g *gate) visit(t *testing.T, method, path string) (int, string) {
	t.Helper()
	answers := g.send(t, method+" "+path+" HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n")
	return answers.Status(t), answers.Bodies[0]
}

func TestProxy_keepsConnections(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, method, answer string
		connections          int // for three requests
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 1},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 1},
		{"trailers", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n", 1},
		{"nothing", "GET", "HTTP/1.1 204 No Content\r\n\r\n", 1},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 1},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", 1},
		{"after an interim answer", "OPTIONS", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 1},
		{"said to close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", 3},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 3},
		{"more than was asked for", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!", 3},
		{"a body of an answer that has none", "GET", "HTTP/1.1 204 No Content\r\n\r\nhi", 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := wiretest.NewScripted(t, wiretest.Answer(tt.answer))
			g := newGate(t, up.URL)
			for range 3 {
				if status, _ := g.visit(t, tt.method, "/"); status >= 400 {
					t.Fatalf("got %d", status)
				}
			}
			if got := up.Last(t).Conn; got != tt.connections {
				t.Errorf("%d connections, want %d", got, tt.connections)
			}
		})
	}
}

// What an app says on a connection while nobody asks is the answer to nobody's request.
func TestProxy_unaskedAnswersReachNobody(t *testing.T) {
	t.Parallel()
	said := make(chan struct{}, 1)
	up := wiretest.NewScripted(t, func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		if r.Target() == "/first" {
			go func() {
				time.Sleep(20 * time.Millisecond) // until the connection is unused; that is what is tested
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
				said <- struct{}{}
			}()
		}
		return hello(conn, in, r)
	})
	g := newGate(t, up.URL)
	for range 5 {
		g.visit(t, "GET", "/first")
		<-said
		if status, body := g.visit(t, "GET", "/second"); status != 200 || body != "/second" {
			t.Fatalf("got %d %q", status, body)
		}
	}
}

// A safe request that meets a connection which the app has just closed is sent once more, whether the gateway sees the end before or after it
// has sent the request. One that got the beginning of an answer is not, and neither is one on a new connection.
func TestProxy_repeatsWhatMetAClosedConnection(t *testing.T) {
	t.Parallel()
	const first, second = "/first", "/second"
	tests := []struct {
		name           string
		first, second  wiretest.Reply // to the first request and to the next one on its connection
		want, requests int            // of the second
	}{
		{"closed in between", func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool { return hello(conn, in, r) && false }, nil, 200, 1},
		{"closed instead of an answer", hello, wiretest.AnswerAndClose(""), 200, 2},
		{"closed within an answer", hello, wiretest.AnswerAndClose("HTTP/1.1 200"), 502, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			seen := map[int]bool{} // connections
			up := wiretest.NewScripted(t, func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
				mu.Lock()
				again := seen[r.Conn]
				seen[r.Conn] = true
				mu.Unlock()
				switch {
				case r.Target() == first:
					return tt.first(conn, in, r)
				case again:
					return tt.second(conn, in, r)
				}
				return hello(conn, in, r)
			})
			g := newGate(t, up.URL)
			g.visit(t, "GET", first)
			if status, _ := g.visit(t, "GET", second); status != tt.want {
				t.Errorf("got %d, want %d", status, tt.want)
			}
			if got := len(up.Requests()) - 1; got != tt.requests {
				t.Errorf("the app got it %d times, want %d", got, tt.requests)
			}
		})
	}
}

func TestProxy_closesUnusedConnections(t *testing.T) {
	t.Parallel()
	up := wiretest.NewScripted(t, hello)
	g := newGate(t, up.URL, func(o *proxy.Options) { o.Routes[0].IdleTimeout = 50 * time.Millisecond })
	for range 2 {
		g.visit(t, "GET", "/")
		waitFor(t, "the end of the connection", func() bool { return up.Open() == 0 })
	}
	handler, err := proxy.New(g.options(t, route(t, "app", up.URL)))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	wiretest.Raw(t, server.URL, "GET / HTTP/1.1\r\n"+signedIn+"Connection: close\r\n\r\n").Status(t)
	if up.Open() != 1 {
		t.Fatalf("%d connections are open", up.Open())
	}
	handler.Close()
	waitFor(t, "the end of the connection", func() bool { return up.Open() == 0 })
}

// breaking is a client to whom nothing can be written, as when the session ends in the moment in which an answer begins.
type breaking struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (breaking) WriteHeader(int) { panic(http.ErrAbortHandler) }

// Who breaks off leaves nobody behind that would close the app's connection.
func TestProxy_closesWhatBrokeOffAtItsBeginning(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhi",
	} {
		up := wiretest.NewScripted(t, wiretest.Answer(answer))
		handler, err := proxy.New((&gate{Sessions: &people{}, Witness: &witness{}}).options(t, route(t, "app", up.URL)))
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(breaking{w}, r) }))
		wiretest.Raw(t, server.URL, "GET / HTTP/1.1\r\n"+signedIn+"\r\n")
		if len(up.Requests()) != 1 {
			t.Errorf("%.12s: the app was not asked", answer)
		}
		waitFor(t, "the end of the connection", func() bool { return up.Open() == 0 })
		server.Close()
		handler.Close()
	}
}

// Everybody gets the answer to their own request, also while many others leave before they have theirs.
func TestProxy_answersReachWhoAsked(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rand.N(4) == 0 {
			time.Sleep(rand.N(2 * time.Millisecond))
		}
		for range 1 + rand.N(200) { // up to some 8 KiB, in chunks or not
			_, _ = fmt.Fprintf(w, "%s\n", r.URL.RawQuery)
		}
	}))
	t.Cleanup(app.Close)
	g := newGate(t, app.URL)
	var left, answered atomic.Int64
	visit := func(own string) error {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		if rand.N(3) == 0 {
			time.AfterFunc(rand.N(3*time.Millisecond), leave)
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/?"+own, nil)
		if err != nil {
			return err
		}
		r.Host = "gate.example"
		r.Header.Set("Cookie", "__Host-gatehouse=bob")
		answer, err := g.server.Client().Do(r)
		if errors.Is(err, context.Canceled) {
			left.Add(1)
			return nil
		}
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			left.Add(1)
		} else {
			answered.Add(1)
		}
		if rest := strings.ReplaceAll(string(body), own+"\n", ""); answer.StatusCode != 200 || !strings.HasPrefix(own+"\n", rest) {
			return fmt.Errorf("%s: got %d %q", own, answer.StatusCode, rest)
		}
		return nil
	}
	var visitors sync.WaitGroup
	for n := range 16 {
		visitors.Go(func() {
			for i := range 100 {
				if err := visit(fmt.Sprintf("visitor-%d-request-%d", n, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	visitors.Wait()
	if left.Load() < 100 || answered.Load() < 100 {
		t.Errorf("%d left and %d were answered: too few of either", left.Load(), answered.Load())
	}
}
