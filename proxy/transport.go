package proxy

import (
	"cmp"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// maxIdlePerHost is how many unused connections to an app are kept. net/http's default of 2 makes a new connection for
	// most requests as soon as three come at once.
	maxIdlePerHost = 256
	// maxAnswerHeader is the largest header of an app's answer, in bytes.
	maxAnswerHeader = 256 << 10
	// bufferSize is how much of a body is copied at once.
	bufferSize = 32 << 10
)

// newTransport makes the connections of one route. It never goes through a proxy that the environment names, never adds a
// header or an encoding of its own, and follows no redirect.
func newTransport(r Route) *http.Transport {
	dial := cmp.Or(r.DialTimeout, 5*time.Second)
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dial}).DialContext,
		TLSHandshakeTimeout:    dial,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        cmp.Or(r.IdleTimeout, 90*time.Second),
		MaxIdleConnsPerHost:    maxIdlePerHost,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
		ForceAttemptHTTP2:      r.Upstream.Scheme == "https", // a dialer of one's own turns it off
	}
}

// buffers is a httputil.BufferPool.
type buffers struct{ pool sync.Pool }

func newBuffers() *buffers {
	return &buffers{pool: sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte { return b.pool.Get().(*[bufferSize]byte)[:] }

// Put implements httputil.BufferPool.
func (b *buffers) Put(buffer []byte) { b.pool.Put((*[bufferSize]byte)(buffer)) }
