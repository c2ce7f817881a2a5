package gateway_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
)

// BenchmarkGateway_authenticated compares a request of somebody who is signed in with the floor of the design: the same
// httputil.ReverseProxy, tuned the same way, that asks nobody anything and adds nothing. Client and app are a few lines over sockets, so
// that what is measured is the proxy between them. It visits both in turn, in one process, and reports medians: the floor's processor
// time for a request, what the gateway adds to it, and the bytes and objects that the gateway allocates beyond the floor's.
func BenchmarkGateway_authenticated(b *testing.B) {
	app := answering(b)
	g := gatewaytest.Start(b, gatewaytest.Options{Configure: func(c *configs.Config) { must(b, c.Upstream.UnmarshalText([]byte(app))) }})
	g.AddUser("alice", "staff", "wiki")
	alice := g.SignIn("alice", g.Enrol("alice"))
	floor := floorBefore(b, app)
	request := strings.Join([]string{
		"GET /some/page?of=it HTTP/1.1", "Host: " + g.Origin.Host, "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Language: en-US,en;q=0.5", "Accept-Encoding: gzip, deflate",
		"Sec-Fetch-Dest: document", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: same-origin", "Cookie: theme=dark; " + alice.Cookies() + "\r\n\r\n",
	}, "\r\n")
	bare, ours := newVisitor(b, floor, request), newVisitor(b, "http://"+g.Origin.Host, request)
	var floors, extras, bytes, objects []float64
	const burst = 200 // requests to one before the other's turn
	for b.Loop() {
		of, us := bare.cost(b, burst), ours.cost(b, burst)
		floors = append(floors, of.micros)
		extras = append(extras, us.micros-of.micros)
		bytes = append(bytes, us.bytes-of.bytes)
		objects = append(objects, us.objects-of.objects)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(floors), "floor-µs")
	b.ReportMetric(median(extras), "extra-µs")
	b.ReportMetric(median(bytes), "extra-B")
	b.ReportMetric(median(objects), "extra-allocs")
}

// answering is an app that answers every request without a body with the same 1 KiB, and reads no more of it than its end.
func answering(b *testing.B) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	b.Cleanup(func() { _ = listener.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\n\r\n" + strings.Repeat("x", 1024))
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 16<<10)
				for n := 0; ; {
					m, err := conn.Read(buffer[n:])
					if err != nil {
						return
					}
					if n += m; !bytes.HasSuffix(buffer[:n], []byte("\r\n\r\n")) {
						continue
					}
					n = 0
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// floorBefore is a ReverseProxy before an app.
func floorBefore(b *testing.B, app string) string {
	target, err := url.Parse(app)
	must(b, err)
	server := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}, BufferPool: &bufferPool{},
	})
	server.Config.ReadHeaderTimeout, server.Config.IdleTimeout = 10*time.Second, 2*time.Minute
	server.Start()
	b.Cleanup(server.Close)
	return server.URL
}

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if kept, ok := p.pool.Get().(*[32 << 10]byte); ok {
		return kept[:]
	}
	return make([]byte, 32<<10)
}

func (p *bufferPool) Put(buffer []byte) { p.pool.Put((*[32 << 10]byte)(buffer)) }

// benchVisitor sends the same request again and again over one connection.
type benchVisitor struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	length  int // of the answer, which is the same each time
}

func newVisitor(b *testing.B, address, request string) *benchVisitor {
	u, err := url.Parse(address)
	must(b, err)
	conn, err := net.Dial("tcp", strings.Replace(u.Host, "localhost", "127.0.0.1", 1))
	must(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	v := &benchVisitor{conn: conn, in: bufio.NewReader(conn), request: []byte(request)}
	_, err = conn.Write(v.request)
	must(b, err)
	var seen bytes.Buffer
	answer, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &seen)), nil)
	must(b, err)
	body, err := io.ReadAll(answer.Body)
	must(b, err)
	if answer.StatusCode != http.StatusOK || len(body)%1024 != 0 { // of the app, or of nobody
		b.Fatalf("got %s with %d bytes", answer.Status, len(body))
	}
	v.length = seen.Len()
	return v
}

type cost struct{ micros, bytes, objects float64 }

// cost sends n requests and returns what one took of this process.
func (v *benchVisitor) cost(b *testing.B, n int) cost {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := processorTime(b)
	for range n {
		_, err := v.conn.Write(v.request)
		must(b, err)
		_, err = v.in.Discard(v.length)
		must(b, err)
	}
	took := processorTime(b) - began
	runtime.ReadMemStats(&after)
	return cost{
		micros: float64(took.Nanoseconds()) / 1e3 / float64(n), bytes: float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
		objects: float64(after.Mallocs-before.Mallocs) / float64(n),
	}
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
