package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"gatehouse/configs"
	"gatehouse/gateway"
)

// settle is how long the configuration's folder must be quiet before the file is read: editors and file systems write a file in
// several steps.
const settle = 300 * time.Millisecond

// reloader loads the configuration anew when it is told to by SIGHUP, or when the file changes.
type reloader struct {
	gateway *gateway.Gateway
	notify  notifier
	load    func() (configs.Config, error)
	file    string // empty if there is none to watch
	content []byte // as it was loaded last
	log     *slog.Logger
}

// run reloads until ctx is done.
func (r *reloader) run(ctx context.Context, hangups <-chan os.Signal) {
	changes, stop := r.watch()
	defer stop()
	quiet := time.NewTimer(settle)
	quiet.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			r.gateway.Reopen() // whatever becomes of the configuration: a log may have been rotated away
			r.reload(ctx)
		case <-changes:
			quiet.Reset(settle)
		case <-quiet.C:
			if r.changed() {
				r.reload(ctx)
			}
		}
	}
}

// hangups is SIGHUP from here on, which would otherwise end the process.
func hangups() (signals <-chan os.Signal, stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	return hangups, func() { signal.Stop(hangups) }
}

func (r *reloader) reload(ctx context.Context) {
	r.changed() // what is loaded now need not be loaded again when the folder is quiet
	r.notify.send("RELOADING=1")
	_ = r.gateway.Reload(ctx, r.load) // it logs, records and shows in readyz why not
	r.notify.send("READY=1")
}

// watch tells of everything that happens in the folder of the configuration file. The folder and not the file, which editors and
// orchestrators replace by another one.
func (r *reloader) watch() (<-chan fsnotify.Event, func()) {
	if r.file == "" {
		return nil, func() {}
	}
	r.changed()
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		err = watcher.Add(filepath.Dir(r.file))
	}
	if err != nil {
		r.log.Warn("configuration file is not watched; SIGHUP loads it anew", "error", err)
		return nil, func() {
			if watcher != nil {
				_ = watcher.Close()
			}
		}
	}
	go func() {
		for err := range watcher.Errors {
			r.log.Warn("watch the configuration file", "error", err)
		}
	}()
	return watcher.Events, func() { _ = watcher.Close() }
}

// changed reports whether the file holds something else than when it was last asked. A file that cannot be read has not changed: it is
// being replaced, or SIGHUP will say what is wrong with it.
func (r *reloader) changed() bool {
	if r.file == "" {
		return false
	}
	content, err := configs.ReadFile(r.file)
	if err != nil || bytes.Equal(content, r.content) {
		return false
	}
	r.content = content
	return true
}

// levelled makes a logger whose level can be set later.
func levelled(level string) (*slog.LevelVar, func(string)) {
	v := new(slog.LevelVar)
	set := func(level string) {
		var l slog.Level
		_ = l.UnmarshalText([]byte(level)) // the configuration allows slog's own words only
		v.Set(l)
	}
	set(level)
	return v, set
}
