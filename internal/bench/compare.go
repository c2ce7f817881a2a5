package main

import (
	"context"
	"fmt"
	"log"
	"slices"
	"time"
)

// comparison is the runs of some targets under the same load; of each, one in every round.
type comparison struct {
	targets []target
	samples [][]sample // by target, then by round
}

// compare visits the targets in turn, round after round.
func (b *bench) compare(ctx context.Context, connections int, targets ...target) (*comparison, error) {
	c := &comparison{targets: targets, samples: make([][]sample, len(targets))}
	for round := range b.rounds {
		for i, t := range targets {
			s, err := b.measure(ctx, t, connections, b.length)
			if err != nil {
				return nil, err
			}
			c.samples[i] = append(c.samples[i], s)
		}
		log.Printf("  %d connections, round %d of %d", connections, round+1, b.rounds)
	}
	return c, nil
}

// value is one figure of a sample.
type value func(sample) float64

func perSecond(s sample) float64 { return s.perSecond }
func p99(s sample) float64       { return milliseconds(s.p99) }
func cpu(s sample) float64       { return microseconds(s.cpu) }

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// median of one target's figure over the rounds.
func (c *comparison) median(target int, of value) float64 {
	var all []float64
	for _, s := range c.samples[target] {
		all = append(all, of(s))
	}
	return median(all)
}

// ratio is the median of the ratios of two targets within each round.
func (c *comparison) ratio(target, base int, of value) float64 {
	var all []float64
	for round := range c.samples[target] {
		all = append(all, of(c.samples[target][round])/of(c.samples[base][round]))
	}
	return median(all)
}

// table writes what was measured, as ratios to the first target.
func (c *comparison) table(r *report, title string) {
	r.heading(title)
	r.row("target", "req/s", "×", "p50 ms", "p99 ms", "×", "CPU µs/req", "×", "resident MiB")
	r.line(9)
	for i, t := range c.targets {
		r.row(t.name,
			fmt.Sprintf("%.0f", c.median(i, perSecond)), fmt.Sprintf("%.2f", c.ratio(i, 0, perSecond)),
			fmt.Sprintf("%.2f", c.median(i, func(s sample) float64 { return milliseconds(s.p50) })),
			fmt.Sprintf("%.2f", c.median(i, p99)), fmt.Sprintf("%.2f", c.ratio(i, 0, p99)),
			fmt.Sprintf("%.1f", c.median(i, cpu)), fmt.Sprintf("%.2f", c.ratio(i, 0, cpu)),
			fmt.Sprintf("%.0f", c.median(i, func(s sample) float64 { return float64(s.resident) / (1 << 20) })))
	}
}

// median of some figures; it sorts them.
func median(all []float64) float64 {
	slices.Sort(all)
	return (all[len(all)/2] + all[(len(all)-1)/2]) / 2
}
