package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

var errTooLarge = errors.New("the body is larger than the route allows")

// upload is the body of a request. ReverseProxy leaves trailers behind (they come after it has copied the request), and the
// transport's error does not say on which side a body broke off: upload does both. Only trailers that the client announced
// and that are not protected are passed on.
type upload struct {
	io.ReadCloser
	in  *http.Request // its Trailer is filled by net/http at the end of the body
	out http.Header   // the announced trailers that the app gets; set before the first Read

	limit int64 // of its bytes; 0: none
	read  int64 // owned by who reads

	sent     chan struct{} // closed when the app has the whole body
	begun    atomic.Bool   // something was read
	complete atomic.Bool
	failed   atomic.Bool // on the client's side
	tooLarge atomic.Bool
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	if u.tooLarge.Load() {
		return 0, errTooLarge
	}
	u.begun.Store(true)
	n, err := u.ReadCloser.Read(p)
	u.read += int64(n)
	if u.limit > 0 && u.read > u.limit {
		u.tooLarge.Store(true)
		return 0, errTooLarge // nothing of what came last, so that the app never has more than the limit
	}
	switch {
	case errors.Is(err, io.EOF):
		for name := range u.out {
			u.out[name] = u.in.Trailer[name]
		}
		if u.complete.CompareAndSwap(false, true) {
			close(u.sent)
		}
	case err != nil:
		u.failed.Store(true)
	}
	return n, err
}

// download is the body of an answer whose trailers, announced or not, come at its end.
type download struct {
	io.ReadCloser
	answer *http.Response
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil {
		stripApp(d.answer.Trailer)
	}
	return n, err
}
