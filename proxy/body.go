package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// upload is the body of a request. ReverseProxy leaves trailers behind (they come after it has copied the request), and the
// transport's error does not say on which side a body broke off: upload does both. Only trailers that the client announced
// and that are not protected are passed on.
type upload struct {
	io.ReadCloser
	in  *http.Request // its Trailer is filled by net/http at the end of the body
	out http.Header   // the announced trailers that the app gets; set before the first Read

	sent             chan struct{} // closed when the app has the whole body
	complete, failed atomic.Bool
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
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
