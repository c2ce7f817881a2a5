//go:build unix

package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkProxy compares an authenticated request through the proxy with the floor: the same ReverseProxy, tuned the same
// way, that asks nobody anything. It visits both in turn and reports the median ratio of their processor time, and the
// difference; client and app are in both, so the ratio of the proxies alone is larger.
func BenchmarkProxy(b *testing.B) {
	body := make([]byte, 1024)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	defer app.Close()
	g := newGate(b, app.URL)
	floor := httptest.NewServer(floorOf(b, app.URL))
	defer floor.Close()

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	visit := func(address string) {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, address, nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Host = "gate.example"
		r.Header.Set("Cookie", "__Host-gatehouse=bob; theme=dark")
		for _, name := range []string{"Accept", "Accept-Language", "Referer", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-Site"} {
			r.Header.Set(name, "some value of a usual length")
		}
		answer, err := client.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, answer.Body); n != 1024 || err != nil {
			b.Fatalf("got %d bytes, %v", n, err)
		}
		_ = answer.Body.Close()
	}
	visit(g.URL)
	visit(floor.URL)

	const burst = 50 // requests to one before the other's turn
	cost := func(address string) time.Duration {
		before := processorTime(b)
		for range burst {
			visit(address)
		}
		return processorTime(b) - before
	}
	var ratios, extra []float64
	for b.Loop() {
		bare, ours := cost(floor.URL), cost(g.URL)
		ratios = append(ratios, float64(ours)/float64(bare))
		extra = append(extra, float64((ours-bare).Microseconds())/burst)
	}
	b.ReportMetric(median(ratios), "x-floor")
	b.ReportMetric(median(extra), "extra-µs/request")
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// processorTime is what this process has used: client, app and both proxies, of which only the proxies differ.
func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// floorOf is a ReverseProxy with everything tuned and nothing asked.
func floorOf(b *testing.B, upstream string) http.Handler {
	target, err := url.Parse(upstream)
	if err != nil {
		b.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() },
		Transport:  &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		BufferPool: &bufferPool{},
	}
}

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if kept, ok := p.pool.Get().(*[]byte); ok {
		return *kept
	}
	return make([]byte, 32<<10)
}

func (p *bufferPool) Put(buffer []byte) { p.pool.Put(&buffer) }
