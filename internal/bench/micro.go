package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// microPackages hold the benchmarks that stand in the document.
var microPackages = []string{"./session", "./audit", "./gateway"}

// micro runs the project's own benchmarks; it must run in the root of the source.
func (b *bench) micro(ctx context.Context) error {
	command := exec.CommandContext(ctx, "go", append([]string{"test", "-run", "^$", "-bench", ".", "-benchmem", "-count", "3"}, microPackages...)...)
	text, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go test -bench: %w\n%s", err, text)
	}
	results := readBenchmarks(string(text))
	b.report.heading("Benchmarks of the parts")
	b.report.row("benchmark", "figures, each the median of three")
	b.report.line(2)
	for _, r := range results {
		b.report.row(r.name, r.String())
	}
	for _, bar := range []struct {
		benchmark, unit, what string
		least                 bool
		bar                   float64
	}{
		{"Manager_Authenticate/cookie", "ns/op", "work for the session in a request, ns", false, 1300},
		{"Manager_Authenticate/cookie", "allocs/op", "work for the session in a request, allocations", false, 2},
		{"Log_thirtyTwoWriters", "records/s", "audit records a second, 32 writers", true, 20_000},
	} {
		got, ok := figureOf(results, bar.benchmark, bar.unit)
		switch {
		case !ok:
			return fmt.Errorf("no benchmark %s gave %s", bar.benchmark, bar.unit)
		case bar.least:
			b.report.least(bar.what, bar.bar, got)
		default:
			b.report.most(bar.what, bar.bar, got)
		}
	}
	return b.fullTables(results)
}

// fullTables adds to a request what the look-ups take longer when the tables of the session package are full: filling them in a running
// gateway would take 100,000 sign-ins.
func (b *bench) fullTables(results []*result) error {
	usual, ok := figureOf(results, "Manager_Authenticate/cookie", "ns/op")
	full, held := figureOf(results, "Manager_Authenticate_full/cookie", "ns/op")
	if !ok || !held {
		return errors.New("no benchmark of Authenticate with full tables")
	}
	b.report.most("work for the session with 100,000 verified tokens and 1,000,000 revocations held, ns", 1300, full)
	if b.floorCPU > 0 {
		b.report.most("authenticated request with these held (difference of the benchmarks added): CPU ÷ floor", 1.10,
			(b.gatewayCPU+(full-usual)/1e3)/b.floorCPU)
	}
	return nil
}

// result is one benchmark with its figures by unit, one for each of its runs, in the order in which the units came.
type result struct {
	name  string
	units []string
	all   map[string][]float64
}

// String is the medians.
func (r *result) String() string {
	var figures []string
	for _, unit := range r.units {
		figures = append(figures, figure(median(r.all[unit]))+" "+unit)
	}
	return strings.Join(figures, ", ")
}

func figureOf(results []*result, name, unit string) (float64, bool) {
	for _, r := range results {
		if r.name == name && len(r.all[unit]) > 0 {
			return median(r.all[unit]), true
		}
	}
	return 0, false
}

// readBenchmarks reads what go test prints: a name, a number of runs, and pairs of a figure and its unit.
func readBenchmarks(text string) []*result {
	var results []*result
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		name, is := strings.CutPrefix(line, "Benchmark")
		if !is || len(fields) < 4 {
			continue
		}
		name, _, _ = strings.Cut(strings.Fields(name)[0], "-") // the number of cores follows
		r := resultOf(results, name)
		if r == nil {
			r = &result{name: name, all: map[string][]float64{}}
			results = append(results, r)
		}
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				break
			}
			unit := fields[i+1]
			if r.all[unit] == nil {
				r.units = append(r.units, unit)
			}
			r.all[unit] = append(r.all[unit], value)
		}
	}
	return results
}

func resultOf(results []*result, name string) *result {
	for _, r := range results {
		if r.name == name {
			return r
		}
	}
	return nil
}
