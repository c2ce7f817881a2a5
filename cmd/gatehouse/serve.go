package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/configs"
	"gatehouse/gateway"
)

func newServeCommand(m machine) *cobra.Command {
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway. Without a configuration it keeps its state in ./gatehouse-data, listens on 127.0.0.1:8080 and stands in front
of a small sample app.

A setting comes from its flag, from its variable (GATEHOUSE_LISTEN, or GATEHOUSE_LISTEN_FILE for a file that holds it), from the
configuration file, or has its default; 'gatehouse config show' says which.`,
		Example: `  gatehouse serve
  gatehouse serve --upstream http://127.0.0.1:9090
  gatehouse serve --config /etc/gatehouse/gatehouse.yaml`,
		Args: takes(),
	}
	flags := addConfigFlags(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		loaded, err := flags.load(m)
		if err != nil {
			return err
		}
		return serve(command.Context(), m, loaded, func() (configs.Config, error) {
			again, err := flags.load(m)
			if err != nil {
				return configs.Config{}, err
			}
			return again.Config, nil
		})
	}
	return command
}

// headroom is how much a small heap may grow, in bytes, before the garbage collector looks through it.
const headroom = 32 << 20

// serve builds the gateway and runs it until ctx ends. load loads the configuration once more.
func serve(ctx context.Context, m machine, loaded *configs.Loaded, load func() (configs.Config, error)) error {
	config := loaded.Config
	// The collector starts when the heap has doubled. A gateway at work leaves some 10 KiB behind for every request over a heap of some
	// 8 MiB, most of it word lists of the password policy, and would go through these again and again. This is never touched, so it takes
	// address space and no memory, and counts for the heap's size only; GOGC would multiply a large heap too.
	untouched := make([]byte, headroom)
	defer runtime.KeepAlive(untouched)
	cores := runtime.GOMAXPROCS(0)
	workers := max(1, cores-1)
	signals, stop := hangups()
	defer stop()
	began := m.now()
	level, setLevel := levelled(config.Log.Level)
	logger := newLogger(config.Log.Format, level, m.errOut)
	g, err := gateway.New(ctx, config, gateway.Deps{
		Now: m.now, Elapsed: func() time.Duration { return m.now().Sub(began) }, // monotonic: began keeps its reading
		Logger: logger, Stdout: m.out, SetLogLevel: setLevel, Workers: workers, Hashing: hashing(cores, workers),
	})
	if err != nil {
		return err
	}
	summary, err := g.Summary(ctx)
	if err != nil {
		return errors.Join(err, g.Close())
	}
	summary.Warnings = append(summary.Warnings, loaded.Warnings...)
	manager := newNotifier(m.environ)
	again := &reloader{gateway: g, notify: manager, load: load, file: loaded.File, log: logger}
	serving, ended := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer ended()
	return g.Run(ctx, func(public net.Addr) {
		summary.Listen = public.String()
		fmt.Fprint(m.out, startScreen(summary))
		manager.send("READY=1")
		// What only the start needed would stay until there is as much again.
		beside.Go(debug.FreeOSMemory)
		beside.Go(func() { again.run(serving, signals) })
		beside.Go(func() {
			<-serving.Done()
			manager.send("STOPPING=1")
		})
	})
}

// hashing sees that password comparisons, which run on threads of low priority, never hold a P that a request needs: while there are any, there
// are as many more Ps as workers. At other times these would only be woken to find nothing to do, which costs each request a few percent.
func hashing(cores, workers int) func(bool) {
	return func(busy bool) {
		if busy {
			runtime.GOMAXPROCS(cores + workers)
			return
		}
		runtime.GOMAXPROCS(cores)
	}
}

// newLogger makes the program's own log.
func newLogger(format string, level slog.Leveler, to io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(to, options))
	}
	return slog.New(slog.NewTextHandler(to, options))
}

// startScreen is what an operator sees once the listeners are open.
func startScreen(s gateway.Summary) string {
	upstream := s.Upstream
	if upstream == "" {
		upstream = "the built-in sample app"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Gatehouse is open at %s\n\n", s.External)
	for _, line := range [][2]string{
		{"listens on", s.Listen}, {"in front of", upstream}, {"state in", s.Store}, {"data folder", s.Data}, {"administration", s.Admin},
	} {
		fmt.Fprintf(&b, "  %-15s %s\n", line[0], line[1])
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(&b, "\n  note: %s\n", warning)
	}
	if s.Setup != "" {
		fmt.Fprintf(&b, "\nThere is no administrator yet, and no default password. Open this link to make the first one:\n\n  %s\n\n"+
			"It works once, until %s. For a new one afterwards, start again.\n", s.Setup, s.SetupUntil.UTC().Format("15:04 UTC"))
	}
	b.WriteString("\nStop with Ctrl-C.\n")
	return b.String()
}
