package attacks_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/store/storetest"
)

// The tests of this file compare what the whole process holds before and after, so they do not run beside others.

// usage is what a process holds.
type usage struct {
	goroutines, descriptors int
	memory                  int64 // bytes of objects and stacks: what the race detector holds for itself grows with every goroutine that ever ran
}

func measure(t *testing.T) usage {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.GC() // what the first one left to finalizers and pools
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return usage{runtime.NumGoroutine(), len(open), int64(memory.HeapAlloc + memory.StackInuse)}
}

// settled measures when what the rounds before have left behind has settled.
func settled(t *testing.T) (u usage) {
	t.Helper()
	for last := -1; last != u.goroutines; time.Sleep(200 * time.Millisecond) {
		last, u = u.goroutines, measure(t)
	}
	return u
}

// Room that is no growth: connections that are kept for the next request, with their buffers. A leak of one goroutine, descriptor or kilobyte for each round is far beyond it with the full counts.
const (
	spareParts = 24
	spareBytes = 16 << 20
)

// backTo waits for what is held to come back to where it was.
func backTo(t *testing.T, before usage, what string) {
	t.Helper()
	var after usage
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		after = measure(t)
		if after.goroutines <= before.goroutines+spareParts && after.descriptors <= before.descriptors+spareParts &&
			after.memory <= before.memory+spareBytes {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("before %+v, after %s %+v", before, what, after)
		}
	}
	t.Logf("proof: before %+v, after %s %+v", before, what, after)
}

// comesBack plays a few rounds to warm up, measures, plays all of them, and wants what is held to come back to where it was.
func comesBack(t *testing.T, rounds int, play func(from, to int)) {
	t.Helper()
	warm := max(rounds/4, 32)
	play(0, warm)
	before := settled(t)
	play(warm, warm+rounds)
	backTo(t, before, decimal(rounds)+" rounds")
}

// several runs do for each number, a few at a time.
func several(from, to int, do func(i int)) {
	const atOnce = 16
	var running sync.WaitGroup
	numbers := make(chan int)
	for range atOnce {
		running.Go(func() {
			for i := range numbers {
				do(i)
			}
		})
	}
	for i := from; i < to; i++ {
		numbers <- i
	}
	close(numbers)
	running.Wait()
}

// address is one of 2^20 IPv6 /64 networks, each in a /48 of its own.
func address(i int) string { return fmt.Sprintf("2001:%x:%x::1", 0xdb8+i>>16, i&0xffff) }

// newClient makes a client for many requests: it keeps few connections, no cookies, and follows nothing.
func newClient(g *gatewaytest.Gateway) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 16, DialContext: g.Dial},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// send sends a navigation, or a body to the JSON login, and returns the status.
func send(t *testing.T, client *http.Client, g *gatewaytest.Gateway, method, path, from string, body io.Reader) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, body)
	if err != nil {
		t.Error(err)
		return 0
	}
	r.Header = gatewaytest.Document()
	if body != nil {
		r.Header = http.Header{"Content-Type": {"application/json"}}
	}
	r.Header.Set("X-Forwarded-For", from)
	response, err := client.Do(r)
	if err != nil {
		return 0 // a server that refuses a body early may close the connection under the sender
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// RX-02: a megabyte of password is refused by its size, declared or not, before anything is hashed or decoded.
func TestResources_hugePasswords(t *testing.T) {
	g := gatewaytest.Start(t, gatewaytest.Options{})
	client := newClient(g)
	defer client.CloseIdleConnections()
	huge := []byte(`{"username":"alice","password":"` + strings.Repeat("x", 1<<20) + `"}`)
	var mu sync.Mutex
	statuses := map[int]int{}
	comesBack(t, storetest.Rounds(200, 100_000), func(from, to int) {
		several(from, to, func(i int) {
			body := io.Reader(bytes.NewReader(huge))
			if i%2 == 0 {
				body = struct{ io.Reader }{body} // its length is not declared
			}
			status := send(t, client, g, http.MethodPost, "/.gatehouse/api/v1/login", address(i), body)
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
	})
	for status := range statuses {
		if status != http.StatusRequestEntityTooLarge && status != 0 {
			t.Errorf("statuses %v, want %d only", statuses, http.StatusRequestEntityTooLarge)
		}
	}
	if statuses[http.StatusRequestEntityTooLarge] == 0 {
		t.Errorf("statuses %v", statuses)
	}
	if n := g.Verifications(); n != 0 {
		t.Errorf("%d verifications ran", n)
	}
}

// RX-03: a login that is only begun costs the gateway nothing that stays: pages have no state.
func TestResources_loginsThatAreOnlyBegun(t *testing.T) {
	server := storetest.Redis(t)
	g := startOn(t, server.URL(), gatewaytest.RootKey(), gatewaytest.NewClock())
	client := newClient(g)
	defer client.CloseIdleConnections()
	before := content(server)
	comesBack(t, storetest.Rounds(300, 1_000_000), func(from, to int) {
		several(from, to, func(i int) {
			for path, want := range map[string]int{"/.gatehouse/login?next=/x": http.StatusOK, "/some/page": http.StatusFound} {
				if status := send(t, client, g, http.MethodGet, path, address(i), nil); status != want {
					t.Errorf("%s: %d, want %d", path, status, want)
				}
			}
		})
	})
	if after := content(server); after != before {
		t.Errorf("the store holds\n%s\nwas\n%s", after, before)
	}
}

// RX-04: a flood from a million networks takes memory that is bounded, and is counted to the last one.
func TestResources_manyAddresses(t *testing.T) {
	server := storetest.Redis(t)
	g := startOn(t, server.URL(), gatewaytest.RootKey(), gatewaytest.NewClock())
	client := newClient(g)
	defer client.CloseIdleConnections()
	rounds := storetest.Rounds(1000, 1_000_000)
	sent := 0
	comesBack(t, rounds, func(from, to int) {
		several(from, to, func(i int) {
			if status := send(t, client, g, http.MethodPost, "/.gatehouse/api/v1/login", address(i), strings.NewReader("{")); status != http.StatusBadRequest {
				t.Errorf("status %d", status)
			}
		})
		sent += to - from
	})
	counted := int64(0)
	eventually(t, "every refusal to be counted", 10*time.Second, func() bool {
		counted = 0
		for _, r := range g.Records() {
			if r.Kind == audit.KindRefused {
				counted += max(r.Count, 1)
			}
		}
		return counted >= int64(sent)
	})
	if counted != int64(sent) {
		t.Errorf("%d refusals are counted, %d were sent", counted, sent)
	}
	if g.Verifications() != 0 {
		t.Error("verifications ran")
	}
}

// RX-05: clients that leave, at every stage: within the header, within the body, while the store is slow, while the password
// is compared, while the record is written, while the app answers. Nothing stays behind, and what was verified is counted.
func TestResources_clientsThatLeave(t *testing.T) {
	server := storetest.Redis(t)
	proxy := storetest.FaultProxy(t, server.Addr())
	g := startOn(t, proxy.URL(), gatewaytest.RootKey(), gatewaytest.NewClock(), func(c *configs.Config) {
		c.Proxy.IdleTimeout = time.Second // connections to the app that are only kept are no leak
	})
	g.AddUser("alice")
	signedIn := g.SignIn("alice", g.Enrol("alice"))
	name := func(i int) string { return "nobody-" + decimal(i) }
	post := func(i int, cut int) string {
		body := `{"username":"` + name(i) + `","password":"not the password"}`
		text := fmt.Sprintf("POST /.gatehouse/api/v1/login HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nX-Forwarded-For: %s\r\nContent-Length: %d\r\n\r\n%s",
			g.Origin.Host, address(i), len(body), body)
		return text[:len(text)-cut]
	}
	stages := []struct {
		name  string
		delay time.Duration // of the store
		text  func(i int) string
	}{
		// First, because it opens every connection to the store that there may be; they are kept.
		{"with a slow store", 30 * time.Millisecond, func(i int) string { return post(i, 0) }},
		{"within the header", 0, func(i int) string { return post(i, 120) }},
		{"within the body", 0, func(i int) string { return post(i, 10) }},
		{"anywhere in a login", 0, func(i int) string { return post(i, 0) }},
		{"while the app answers", 0, func(int) string {
			return "GET /x HTTP/1.1\r\nHost: " + g.Origin.Host + "\r\nCookie: " + signedIn.Cookies() + "\r\n\r\n"
		}},
	}
	for stage, s := range stages {
		began, failed := g.Verifications(), failures(t, g)
		if s.delay > 0 {
			proxy.Delay(s.delay)
		}
		comesBack(t, storetest.Rounds(48, 10_000), func(from, to int) {
			several(from, to, func(i int) { leave(t, g, s.text(stage<<17+i)) })
		})
		proxy.Pass()
		g.Clock.Add(31 * time.Second) // attempts without a verdict count from here on
		ran, counted := g.Verifications()-began, failures(t, g)-failed
		if counted < int(ran) {
			t.Errorf("%s: %d verifications ran, %d failures are counted", s.name, ran, counted)
		}
		t.Logf("%s: %d verifications, %d failures", s.name, ran, counted)
		g.Clock.Add(20 * time.Minute)
		wantStatus(t, s.name+": afterwards", signedIn.Get("/"), http.StatusOK)
		wantProblem(t, s.name+": afterwards", g.NewBrowser().At(address(stage<<17+1<<16)).Login("nobody", "not the password", ""), problem.InvalidCredentials)
	}
}

// leave sends a text and goes away a moment later, without waiting for the answer.
func leave(t *testing.T, g *gatewaytest.Gateway, text string) {
	t.Helper()
	conn, err := g.Dial(t.Context(), "tcp", g.Origin.Host)
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = io.WriteString(conn, text) // the gateway may have closed it
	time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
	if tcp, ok := conn.(*net.TCPConn); ok && rand.IntN(2) == 0 {
		_ = tcp.SetLinger(0) // a reset, not an end
	}
	_ = conn.Close()
}

// failures is how many are in all windows together.
func failures(t *testing.T, g *gatewaytest.Gateway) int {
	t.Helper()
	windows, err := g.Admin.Lockouts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, w := range windows {
		sum += w.Failures
	}
	return sum
}
