package accesslog_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/accesslog"
)

// stuck is a writer that waits until it is let go, and then fails as it is told.
type stuck struct {
	release chan struct{}
	err     error

	mu   sync.Mutex
	text bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	return s.text.Write(p)
}

// A disk that stalls makes nobody wait: lines are dropped, counted and spoken of.
func TestLog_neverWaitsForTheDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &stuck{release: make(chan struct{})}
		var said bytes.Buffer
		l := accesslog.New(accesslog.Options{Stdout: out, Logger: slog.New(slog.NewTextHandler(&said, nil))})
		if err := l.Use(accesslog.Stdout, "json"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		const total = 20_000
		for range total {
			l.Write(accesslog.Entry{Path: "/"})
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("writing took %v", took)
		}
		if l.Dropped() == 0 {
			t.Error("nothing was dropped")
		}
		close(out.release)
		time.Sleep(3 * time.Second)
		l.Close()
		if got := uint64(strings.Count(out.text.String(), "\n")); got != l.Written() || got+l.Dropped() != total {
			t.Errorf("%d lines written, %d said to be, %d dropped, want %d in all", got, l.Written(), l.Dropped(), total)
		}
		if !strings.Contains(said.String(), "access log dropped lines") {
			t.Errorf("the program's log says %q", &said)
		}
	})
}

// A disk that fails loses what was to be written, says so, and is tried again.
func TestLog_goesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &stuck{release: make(chan struct{}), err: errors.New("disk full")}
		close(out.release)
		l := accesslog.New(accesslog.Options{Stdout: out, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err := l.Use(accesslog.Stdout, "common"); err != nil {
			t.Fatal(err)
		}
		l.Write(accesslog.Entry{Path: "/1"})
		time.Sleep(2 * time.Second)
		out.mu.Lock()
		out.err = nil
		out.mu.Unlock()
		l.Write(accesslog.Entry{Path: "/2"})
		l.Close()
		if l.Dropped() != 1 || l.Written() != 1 || !strings.Contains(out.text.String(), "/2") {
			t.Errorf("%d dropped, %d written: %s", l.Dropped(), l.Written(), &out.text)
		}
	})
}
