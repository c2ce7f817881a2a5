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
	// pingAfter is how long nothing may come on a connection of HTTP/2 before the app is asked whether it is there, pingTimeout how long it
	// has to say so.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
)

// newTransport makes the connections of one route. It never goes through a proxy that the environment names, never adds a
// header or an encoding of its own, and follows no redirect. cleartext speaks HTTP/2 without TLS from the first byte (RFC 9113, section 3.3),
// and nothing else; without it http is HTTP/1.1, and https what the app chooses in the handshake.
func newTransport(r Route, cleartext bool) *http.Transport {
	dial := cmp.Or(r.DialTimeout, 5*time.Second)
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dial}).DialContext,
		TLSHandshakeTimeout:    dial,
		TLSClientConfig:        r.TLS.config(),
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        cmp.Or(r.IdleTimeout, 90*time.Second),
		MaxIdleConnsPerHost:    maxIdlePerHost,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
		Protocols:              new(http.Protocols),
		// Many requests share one connection of HTTP/2: one that is dead must not keep them all waiting.
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	t.Protocols.SetUnencryptedHTTP2(cleartext)
	t.Protocols.SetHTTP1(!cleartext)
	t.Protocols.SetHTTP2(!cleartext)
	return t
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
