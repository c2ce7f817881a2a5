package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/doctor"
	"gatehouse/gateway"
)

func newDoctorCommand(m machine) *cobra.Command {
	o := &output{to: m.out, format: outputTable}
	var noScan bool
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong with how the gateway is set up, and say what to change",
		Long: `Look for what is wrong with how the gateway of this configuration is set up, and say what to change: names, certificates, cookies, clock,
store, audit folder, root key, forwarded headers, the apps, and whether an app can be reached around the gateway. It takes the flags and
variables of 'gatehouse serve', changes nothing, and exits with 1 if it found anything.

The last look is a TCP connect scan of the upstream hosts of the configuration, and of nothing else: their configured ports, 1 to 1024, and some at which
apps listen by default. What it finds depends on where it is run. On a machine of your users it should find nothing. From the gateway's own machine apps
of other machines must be open: run it there with --no-scan. An app on loopback is no finding, unless it listens at the machine's other addresses too.`,
		Example: `  gatehouse doctor --config /etc/gatehouse/gatehouse.yaml
  gatehouse doctor --no-scan -o json`,
		Args: takes(),
	}
	flags := addConfigFlags(command)
	o.addFlag(command)
	command.Flags().BoolVar(&noScan, "no-scan", false, "do not look for ways around the gateway")
	command.RunE = func(command *cobra.Command, _ []string) error {
		loaded, err := flags.load(m)
		if err != nil {
			return err
		}
		options, err := examined(command.Context(), m, loaded.Config)
		if err != nil {
			return err
		}
		options.NoScan = noScan
		found := doctor.Examine(command.Context(), options)
		return errors.Join(o.print(found, func(w io.Writer) { printFindings(w, found) }), verdict(found))
	}
	return command
}

// examined says what to look at.
func examined(ctx context.Context, m machine, config configs.Config) (doctor.Options, error) {
	o := doctor.Options{
		External: config.ExternalURL.URL(), Listen: config.Listen, TrustedProxies: config.TrustedProxies,
		AuditDir: filepath.Join(config.Data, "audit"), RootKeyFile: config.RootKeyFile, Store: examinedStore(ctx, m, config), Now: m.now,
	}
	for _, r := range config.AppRoutes() {
		o.Hosts = append(o.Hosts, string(r.Host))
		secure, err := gateway.UpstreamTLS(r.TLS)
		if err != nil {
			return o, fmt.Errorf("route %s: %w", r.Name, err)
		}
		for _, up := range r.Upstreams {
			if !up.IsZero() {
				o.Upstreams = append(o.Upstreams, doctor.Upstream{Route: string(r.Name), URL: up.URL(), TLS: secure})
			}
		}
	}
	return o, nil
}

// examinedStore looks at the store. The embedded one is left to the gateway that has it, and is not made where there is none.
func examinedStore(ctx context.Context, m machine, config configs.Config) *doctor.Store {
	if !config.Store.Shared() {
		if _, err := os.Stat(filepath.Join(config.Data, "gatehouse.db")); err != nil {
			return nil
		}
		if _, err := askHealth(ctx, config, "/.gatehouse/healthz"); err == nil {
			return nil
		}
	}
	began := m.now()
	level, _ := levelled(config.Log.Level)
	probe, err := gateway.ProbeStore(ctx, config, gateway.Deps{
		Now: m.now, Elapsed: func() time.Duration { return m.now().Sub(began) }, Logger: newLogger(config.Log.Format, level, io.Discard),
	})
	return &doctor.Store{Err: err, Warnings: probe.Warnings, Took: probe.Took, Skew: probe.Skew}
}

// printFindings writes what is well in a line each, and what is not with why and what to do.
func printFindings(w io.Writer, found []doctor.Finding) {
	for _, f := range found {
		if f.OK {
			fmt.Fprintf(w, "ok       %s: %s\n", f.Check, audit.Printable(f.What))
			continue
		}
		fmt.Fprintf(w, "FINDING  %s: %s\n           why: %s\n           do:  %s\n", f.Check, audit.Printable(f.What), f.Why, audit.Printable(f.Fix))
	}
}

// verdict is the error of a gateway about which there is something to say.
func verdict(found []doctor.Finding) error {
	n := 0
	for _, f := range found {
		if !f.OK {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return errors.New("one finding")
	}
	return fmt.Errorf("%d findings", n)
}
