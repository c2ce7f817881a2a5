package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// report is docs/performance.md as it grows: bars first, tables below.
type report struct {
	bars, tables strings.Builder
}

// most notes a bar that must not be exceeded.
func (r *report) most(what string, bar, got float64) { r.bar(what, "≤ ", bar, got, got <= bar) }

// least notes a bar that must be reached.
func (r *report) least(what string, bar, got float64) { r.bar(what, "≥ ", bar, got, got >= bar) }

func (r *report) bar(what, sign string, bar, got float64, met bool) {
	verdict := "reached"
	if !met {
		verdict = "**missed**"
	}
	fmt.Fprintf(&r.bars, "| %s | %s%s | %s | %s |\n", what, sign, figure(bar), figure(got), verdict)
}

// figure writes a number with as many digits as say something.
func figure(x float64) string {
	if x >= 100 {
		return fmt.Sprintf("%.0f", x)
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", x), "0"), ".")
}

func (r *report) heading(title string) { fmt.Fprintf(&r.tables, "\n## %s\n\n", title) }

func (r *report) row(cells ...string) { fmt.Fprintf(&r.tables, "| %s |\n", strings.Join(cells, " | ")) }

func (r *report) line(columns int) {
	fmt.Fprintf(&r.tables, "|---%s|\n", strings.Repeat("|--:", columns-1))
}

func (r *report) text(paragraph string) { fmt.Fprintf(&r.tables, "\n%s\n", paragraph) }

// String is the document.
func (r *report) String() string {
	return "# Performance\n\n" +
		"Written by `make bench`, which says in `internal/bench` how it measures. A figure is good only beside the others of the same run: all of it was\n" +
		"measured on one machine that also ran the load and the app, so compare ratios, and read nothing finer than some 3 %.\n\n" +
		machine() + "\n| what | bar | measured | |\n|---|---|---|---|\n" + r.bars.String() + r.tables.String()
}

// machine describes where and when this was measured.
func machine() string {
	return fmt.Sprintf("- machine: %s, %d cores, %s\n- programs: %s/%s %s, %s, %s, %s\n- when: %s, load average before the end %s\n- commit: %s\n",
		cpuModel(), runtime.NumCPU(), said("uname", "-sr"), runtime.GOOS, runtime.GOARCH, runtime.Version(),
		said("nginx", "-v"), said("haproxy", "-v"), "caddy "+said("caddy", "version"),
		time.Now().UTC().Format("2006-01-02T15:04Z"), loadAverage(), said("git", "describe", "--always", "--dirty"))
}

// said is the first line of what a program says about itself; empty if it says nothing.
func said(program string, arguments ...string) string {
	text, _ := exec.Command(program, arguments...).CombinedOutput() // a line of a description; nothing depends on it
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return first
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // as above
	_, model, _ := strings.Cut(string(text), "model name")
	model, _, _ = strings.Cut(model, "\n")
	return strings.Trim(model, "\t :")
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg") // as above
	fields := strings.Fields(string(text))
	if len(fields) == 0 {
		return "unknown"
	}
	return fields[0]
}
