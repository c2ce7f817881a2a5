package traffictest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

// maxResident is what the gateway may hold in memory while bodies pass, in bytes.
const maxResident = 100 << 20

// start runs the program before an app, and returns it with the cookies of somebody who is signed in.
func start(t *testing.T, upstream string) (p *gatewaytest.Process, browser *gatewaytest.Browser) {
	t.Helper()
	p = gatewaytest.StartProcess(t, gatewaytest.ProcessOptions{
		Program: gatewaytest.Build(t), Environ: []string{"GATEHOUSE_UPSTREAM=" + upstream, "GATEHOUSE_LOGIN__BCRYPT_COST=10"},
	})
	secret := p.AddUser("alice")
	browser = p.NewBrowser()
	if answer := browser.Login("alice", gatewaytest.Password, p.Code(secret)); answer.StatusCode != http.StatusOK {
		t.Fatalf("sign in: %d %s", answer.StatusCode, answer.Text)
	}
	return p, browser
}

// memory reads a line of a process's memory, such as VmHWM, the most that was ever resident, in bytes.
func memory(t *testing.T, p *gatewaytest.Process, line string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.ID()))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + line + `:\s+(\d+) kB$`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no %s in %s", line, text)
	}
	kilobytes, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Bodies of any size pass with flat memory, in both directions at once, of known and unknown length.
func TestTraffic_largeBodiesTakeNoMemory(t *testing.T) {
	size := int64(storetest.Rounds(192, 4096)) << 20
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			_, _ = fmt.Fprint(w, n)
			return
		}
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		}
		_, _ = io.CopyN(w, zeros{}, size)
	}))
	defer app.Close()
	p, browser := start(t, app.URL)
	before := memory(t, p, "VmHWM")
	began := time.Now()
	var transfers sync.WaitGroup
	for _, path := range []string{"/known", "/unknown"} {
		transfers.Go(func() { upload(t, p, browser.Cookies(), path, size) })
		transfers.Go(func() { download(t, p, browser.Cookies(), path, size) })
	}
	transfers.Wait()
	most := memory(t, p, "VmHWM")
	t.Logf("4 bodies of %d MiB in %v; resident memory %d MiB before, at most %d MiB", size>>20, time.Since(began).Round(time.Millisecond), before>>20, most>>20)
	if most > maxResident {
		t.Errorf("resident memory rose from %d to %d MiB, want at most %d", before>>20, most>>20, maxResident>>20)
	}
}

// send makes a request as somebody who is signed in. length is that of the body; -1 is unknown.
func send(t *testing.T, p *gatewaytest.Process, cookies, method, path string, body io.Reader, length int64) (*http.Response, error) {
	r, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, body)
	if err != nil {
		return nil, err
	}
	r.ContentLength = length
	r.Header.Set("Cookie", cookies)
	return (&http.Transport{DialContext: p.Dial, DisableKeepAlives: true}).RoundTrip(r)
}

func upload(t *testing.T, p *gatewaytest.Process, cookies, path string, size int64) {
	length := int64(-1)
	if path == "/known" {
		length = size
	}
	answer, err := send(t, p, cookies, http.MethodPut, path, io.NopCloser(io.LimitReader(zeros{}, size)), length)
	if err != nil {
		t.Errorf("upload: %v", err)
		return
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || string(text) != strconv.FormatInt(size, 10) {
		t.Errorf("upload: the app got %q of %d bytes, %v", text, size, err)
	}
}

func download(t *testing.T, p *gatewaytest.Process, cookies, path string, size int64) {
	answer, err := send(t, p, cookies, http.MethodGet, path, nil, 0)
	if err != nil {
		t.Errorf("download: %v", err)
		return
	}
	defer answer.Body.Close()
	if n, err := io.Copy(io.Discard, answer.Body); err != nil || n != size {
		t.Errorf("download: got %d of %d bytes, %v", n, size, err)
	}
}

// sockets is an app that accepts WebSockets and sends back what comes on them.
func sockets(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { echo(conn) })
		}
	})
	return "http://" + listener.Addr().String()
}

func echo(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 1024)
	if _, err := http.ReadRequest(in); err != nil {
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		return
	}
	buffer := make([]byte, 256)
	for {
		n, err := in.Read(buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// open opens a WebSocket.
func open(ctx context.Context, p *gatewaytest.Process, cookies string) (net.Conn, error) {
	host := strings.TrimPrefix(p.URL, "http://")
	conn, err := p.Dial(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://%s\r\nCookie: %s\r\n\r\n", host, host, cookies)
	if err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), nil)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("got %s", answer.Status)
	}
	return conn, nil
}

// fitting is how many WebSockets the limit of open files allows, and at most n: each takes two files in the gateway, and two here.
func fitting(t *testing.T, n int) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const other = 200 // listeners, the store, the log, and what else the tests have open
	return min(n, (int(limit.Max)-other)/2)
}

// Idle WebSockets cost little, every one of them works, and the end of their session cuts all within a second.
func TestTraffic_idleWebSockets(t *testing.T) {
	n := fitting(t, storetest.Rounds(400, 10_000))
	p, browser := start(t, sockets(t))
	before := memory(t, p, "VmRSS")
	conns := make([]net.Conn, n)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close() // cut by the gateway in the end
			}
		}
	}()
	cookies := browser.Cookies()
	inTurn(8, n, func(i int) {
		conn, err := open(t.Context(), p, cookies)
		if err != nil {
			t.Errorf("WebSocket %d: %v", i, err)
		}
		conns[i] = conn
	})
	if t.Failed() {
		t.Fatalf("%.2000s", p.Log)
	}
	inTurn(8, n, func(i int) {
		message := fmt.Sprintf("message %d", i)
		got := make([]byte, len(message))
		_ = conns[i].SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(conns[i], message); err != nil {
			t.Errorf("WebSocket %d: %v", i, err)
		} else if _, err := io.ReadFull(conns[i], got); err != nil || string(got) != message {
			t.Errorf("WebSocket %d: got %q, %v", i, got, err)
		}
	})
	resident := memory(t, p, "VmRSS")
	t.Logf("%d idle WebSockets: resident memory %d MiB before, %d MiB with them, %d KiB each",
		n, before>>20, resident>>20, (resident-before)>>10/int64(n))
	wantCut(t, browser, conns)
}

// inTurn does something n times, some at once.
func inTurn(atOnce, n int, do func(i int)) {
	var group sync.WaitGroup
	for first := range atOnce {
		group.Go(func() {
			for i := first; i < n; i += atOnce {
				do(i)
			}
		})
	}
	group.Wait()
}

// wantCut signs the browser out and wants all of its connections to end soon.
func wantCut(t *testing.T, browser *gatewaytest.Browser, conns []net.Conn) {
	t.Helper()
	ended := make([]time.Time, len(conns))
	var waiting sync.WaitGroup
	for i, conn := range conns {
		waiting.Go(func() {
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			if n, err := conn.Read(make([]byte, 1)); n > 0 || os.IsTimeout(err) {
				t.Errorf("WebSocket %d: not cut: %v", i, err)
			}
			ended[i] = time.Now()
		})
	}
	out := time.Now()
	answer := browser.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil)
	if answer.StatusCode != http.StatusNoContent {
		t.Fatalf("sign out: %d %s", answer.StatusCode, answer.Text)
	}
	waiting.Wait()
	var last time.Duration
	for _, at := range ended {
		last = max(last, at.Sub(out))
	}
	t.Logf("all cut within %v of asking for it", last.Round(time.Millisecond))
	// Of ten thousand some are heard of late, because their readers share the machine with the gateway.
	if last > storetest.Within(3*time.Second) {
		t.Errorf("the last was cut after %v", last)
	}
}
