package attacks_test

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

// server is a real Redis that says what it was asked for.
type server struct{ *storetest.Server }

// startOnRedis starts a gateway on a Redis of its own.
func startOnRedis(t *testing.T, configure ...func(*configs.Config)) (*target, server) {
	t.Helper()
	s := server{storetest.Redis(t)}
	return startWith(t, gatewaytest.Options{Redis: s.URL(), RootKey: gatewaytest.RootKey()}, configure...), s
}

// pair starts two gateways with one clock on one Redis.
func pair(t *testing.T, configure ...func(*configs.Config)) (one, other *target, s server) {
	t.Helper()
	s = server{storetest.Redis(t)}
	o := gatewaytest.Options{Redis: s.URL(), RootKey: gatewaytest.RootKey(), Clock: gatewaytest.NewClock()}
	return startWith(t, o, configure...), startWith(t, o, configure...), s
}

// calls is how often each command was run, those of scripts included.
type calls map[string]int

// commands reads what was run so far. Commands of streams are left out: they follow the feed and come when they like.
func (s server) commands() calls {
	all := calls{}
	for line := range strings.Lines(s.MustDo("INFO", "commandstats")) {
		name, stats, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":calls=")
		if !ok || name == "info" || strings.HasPrefix(name, "x") {
			continue
		}
		count, _, _ := strings.Cut(stats, ",")
		n, err := strconv.Atoi(count)
		if err != nil {
			panic(err) // Redis counts in digits
		}
		all[name] = n
	}
	return all
}

// since says what was run between two readings, in a fixed order.
func (c calls) since(before calls) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if n := c[name] - before[name]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, n))
		}
	}
	return strings.Join(parts, ", ")
}

// median of a sample.
func median(sample []float64) float64 {
	sorted := slices.Sorted(slices.Values(sample))
	return sorted[len(sorted)/2]
}

// rankSum is the standardised statistic of the Wilcoxon–Mann–Whitney test: how far the ranks of the first sample are from what
// chance gives, in standard deviations.
func rankSum(first, second []float64) float64 {
	type value struct {
		v     float64
		first bool
	}
	var all []value
	for _, v := range first {
		all = append(all, value{v, true})
	}
	for _, v := range second {
		all = append(all, value{v, false})
	}
	slices.SortFunc(all, func(a, b value) int { return cmp.Compare(a.v, b.v) })
	sum := 0.0
	for rank, v := range all {
		if v.first {
			sum += float64(rank + 1)
		}
	}
	n, m := float64(len(first)), float64(len(second))
	return (sum - n*(n+m+1)/2) / math.Sqrt(n*m*(n+m+1)/12)
}
