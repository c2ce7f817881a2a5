// Package accesslog writes one line for each request, as JSON or in the Combined Log Format of web servers.
//
// It promises: writing never makes a request wait (what does not fit into the buffer is dropped, counted and said so); one entry is one
// line of printable ASCII, whatever a client put into it; and no line holds a query, a header but User-Agent, or a body. It is not the
// audit log: it may lose lines, and nothing depends on it.
package accesslog

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// waiting is how many lines may wait for the disk.
	waiting = 8192
	// flushEvery is how long a line stays in memory at most.
	flushEvery = time.Second
	// Stdout is the name of standard output in place of a file.
	Stdout = "-"
)

// Options of Open. All are required.
type Options struct {
	Stdout io.Writer
	Logger *slog.Logger
}

// Log is an access log. Safe for concurrent use.
type Log struct {
	options Options
	lines   chan []byte
	turns   chan *target // the files to go on with
	closing chan struct{}
	stopped chan struct{}
	close   sync.Once

	format  atomic.Pointer[func(Entry) []byte] // nil while there is no file
	written atomic.Uint64
	dropped atomic.Uint64
}

// target is where lines go.
type target struct {
	io.Writer
	path string
	file *os.File // nil for standard output
}

// New makes a log that writes nowhere until Use says where.
func New(o Options) *Log {
	l := &Log{
		options: o, lines: make(chan []byte, waiting), turns: make(chan *target), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	go l.run()
	return l
}

// Use has what is written from now on go to the end of a file, or to standard output ("-"), or nowhere (""), in a format that is json or
// common. The file is opened anew even if it is the same one, so that a rotated log gives its file free. On an error nothing
// changes.
func (l *Log) Use(path, format string) error {
	next := &target{path: path}
	switch path {
	case "":
	case Stdout:
		next.Writer = l.options.Stdout
	default:
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return fmt.Errorf("open the access log: %w", err)
		}
		next.Writer, next.file = file, file
	}
	write := Entry.json
	if format == "common" {
		write = Entry.combined
	}
	if path == "" {
		l.format.Store(nil)
	} else {
		l.format.Store(&write)
	}
	select {
	case l.turns <- next:
	case <-l.closing:
		next.close()
	}
	return nil
}

// On reports whether lines are written at all.
func (l *Log) On() bool { return l.format.Load() != nil }

// Write adds a line, or counts it as dropped.
func (l *Log) Write(e Entry) {
	format := l.format.Load()
	if format == nil {
		return
	}
	select {
	case l.lines <- (*format)(e):
	default:
		l.dropped.Add(1)
	}
}

// Written is how many lines reached the file, and Dropped how many did not.
func (l *Log) Written() uint64 { return l.written.Load() }

// Dropped is how many lines were dropped: there were too many, or the file could not be written.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Close writes what waits and closes the file.
func (l *Log) Close() {
	l.close.Do(func() { close(l.closing) })
	<-l.stopped
}

// writer is the state of run.
type writer struct {
	log    *Log
	to     *target
	buffer *bufio.Writer
	held   uint64 // lines in buffer
	told   uint64 // dropped lines that the program's log knows of
}

func (l *Log) run() {
	defer close(l.stopped)
	w := &writer{log: l, to: &target{}}
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case line := <-l.lines:
			w.put(line)
		case next := <-l.turns:
			w.turn(next)
		case <-tick.C:
			w.flush()
			w.tell()
		case <-l.closing:
			w.turn(&target{})
			w.tell()
			return
		}
	}
}

func (w *writer) put(line []byte) {
	if w.buffer == nil {
		w.log.dropped.Add(1)
		return
	}
	_, _ = w.buffer.Write(line) // an error stays, and flush meets it
	w.held++
}

// turn writes everything that waits to the former target, and goes on with the next.
func (w *writer) turn(next *target) {
	for {
		select {
		case line := <-w.log.lines:
			if w.buffer != nil {
				w.put(line)
			} else if next.Writer == nil {
				w.log.dropped.Add(1)
			}
			continue
		default:
		}
		break
	}
	w.flush()
	w.to.close()
	w.to, w.buffer = next, nil
	if next.Writer != nil {
		w.buffer = bufio.NewWriterSize(next, 64<<10)
	}
}

func (w *writer) flush() {
	if w.buffer == nil {
		return
	}
	if err := w.buffer.Flush(); err != nil {
		w.log.dropped.Add(w.held)
		w.log.options.Logger.Warn("access log cannot be written", "file", w.to.path, "error", err)
		w.buffer.Reset(w.to) // forgets the error, so that it is tried again
	} else {
		w.log.written.Add(w.held)
	}
	w.held = 0
}

// tell says how many lines were dropped since it last did.
func (w *writer) tell() {
	if dropped := w.log.dropped.Load(); dropped > w.told {
		w.log.options.Logger.Warn("access log dropped lines", "lines", dropped-w.told)
		w.told = dropped
	}
}

func (t *target) close() {
	if t.file != nil {
		_ = t.file.Close() // everything was flushed, and there is nobody to tell
	}
}
