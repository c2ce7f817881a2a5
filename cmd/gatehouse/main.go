// Command gatehouse is an authentication gateway and the tool that administers it.
//
// This package is the only one that reads the clock, the environment and the standard streams; everything it starts gets
// them as values. It exits with 0 when done, 1 when it failed, and 2 when the command line was wrong.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() { os.Exit(realMain()) }

// realMain is apart from main so that deferred calls run before the process exits.
func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Args[1:], machine{
		in:       os.Stdin,
		out:      os.Stdout,
		errOut:   os.Stderr,
		environ:  os.Environ(),
		now:      time.Now,
		terminal: term.IsTerminal(int(os.Stdin.Fd())),
		readSecret: func() (string, error) {
			secret, err := term.ReadPassword(int(os.Stdin.Fd()))
			return string(secret), err
		},
	})
}
