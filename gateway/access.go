package gateway

import (
	"bufio"
	"net"
	"net/http"
	"time"

	"gatehouse/accesslog"
)

// logged is the line of a request while it is answered. It is the http.ResponseWriter of what answers: everything beyond the interface
// goes through http.ResponseController and so through Unwrap, as in the proxy, so nothing is lost by it.
type logged struct {
	http.ResponseWriter
	entry accesslog.Entry
	began time.Duration
}

// log begins a line, if lines are written; nil else.
func (f *front) begin(w http.ResponseWriter, r *http.Request, v *visit) *logged {
	if !f.access.On() {
		return nil
	}
	l := &logged{ResponseWriter: w, began: f.elapsed(), entry: accesslog.Entry{
		Time: f.now(), ID: v.RequestID, Client: v.Address.String(), Host: r.Host, Method: r.Method, Path: r.URL.EscapedPath(),
		Protocol: r.Proto, UserAgent: r.UserAgent(),
	}}
	v.logged = l
	return l
}

// end writes the line. An answer that broke off before it began has the status 0.
func (f *front) end(l *logged) {
	l.entry.Duration = f.elapsed() - l.began
	f.access.Write(l.entry)
}

// WriteHeader implements http.ResponseWriter.
func (l *logged) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols { // the others come before the answer
		l.entry.Status = status
	}
	l.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (l *logged) Write(p []byte) (int, error) {
	if l.entry.Status == 0 {
		l.entry.Status = http.StatusOK
	}
	n, err := l.ResponseWriter.Write(p)
	l.entry.Bytes += int64(n)
	return n, err
}

// Hijack implements http.Hijacker. What flows on the connection afterwards is not counted.
func (l *logged) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(l.ResponseWriter).Hijack()
	if err == nil {
		l.entry.Status = http.StatusSwitchingProtocols
	}
	return conn, buffered, err
}

// Unwrap is for http.ResponseController.
func (l *logged) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// Decided implements proxy.Observer.
func (w watcher) Decided(r *http.Request, route, user string) {
	if l := visitOf(r).logged; l != nil {
		l.entry.Route, l.entry.User = route, user
	}
}

// Reopen opens the access log's file anew, for one that was rotated away.
func (g *Gateway) Reopen() {
	config := g.current.Load().config.AccessLog
	if err := g.access.Use(config.File, config.Format); err != nil {
		g.deps.Logger.Error("access log goes on in its former file", "error", err)
	}
}
