// Command bench measures the gateway beside what it is compared with, and writes docs/performance.md. `make bench` runs it.
//
// It starts everything itself, on loopback and in a folder that it removes: the program as it is shipped, on an embedded store and on
// Redis; the floor, which is a bare httputil.ReverseProxy tuned the same way; Debian's nginx, haproxy and caddy; and an app behind all of
// them. It visits them in turn (A B C, A B C, …), and every figure that counts is the median of the ratios within each round, so that what
// slows the whole machine for a while falls on both sides. Processor time is that of the server processes alone, from /proc; load comes
// from wrk. No figure makes it fail: a missing program, a wrong answer or a failed request does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		stop()
		log.Fatal(err)
	}
}

// run measures, or is one of the servers that are measured.
func run(ctx context.Context, arguments []string) error {
	if len(arguments) > 0 {
		switch serve := arguments[0]; {
		case serve == "upstream" && len(arguments) == 2:
			return serveUpstream(ctx, arguments[1])
		case serve == "floor" && len(arguments) == 3:
			return serveFloor(ctx, arguments[1], arguments[2])
		case serve == "redirect" && len(arguments) == 2:
			return serveRedirect(ctx, arguments[1])
		}
	}
	var b bench
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&b.program, "gatehouse", "bin/gatehouse", "the program to measure")
	flags.IntVar(&b.rounds, "n", 9, "rounds of each comparison")
	flags.DurationVar(&b.length, "d", 3*time.Second, "length of one run, in whole seconds")
	flags.StringVar(&b.only, "only", "", "one part: proxied, flood, logins, start or micro; all if empty")
	out := flags.String("o", "", "file to write the tables to; standard output if empty")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 || b.rounds < 1 || b.length < time.Second {
		return fmt.Errorf("want no arguments, at least one round and at least a second; got %q, %d and %v", flags.Args(), b.rounds, b.length)
	}
	if err := b.run(ctx); err != nil {
		return err
	}
	if *out == "" {
		_, err := io.WriteString(os.Stdout, b.report.String())
		return err
	}
	return os.WriteFile(*out, []byte(b.report.String()), 0o644)
}
