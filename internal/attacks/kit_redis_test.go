package attacks_test

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"testing"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store"
	"gatehouse/store/storetest"
)

// server is a real Redis.
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

// work is what a gateway asked of its Redis for an attempt, in order: each command with the kind of its key, as in "get name". What
// it asks by itself, about its feed and its keys, is left out.
func work(t *testing.T, m *storetest.Monitor) string {
	t.Helper()
	var asked []string
	for _, command := range m.Commands(t) {
		name, rest, _ := strings.Cut(command, " ")
		_, key, found := strings.Cut(rest, `"`+store.Prefix)
		kind := key[:max(strings.IndexAny(key, `/"`), 0)]
		if found && kind != store.FeedKey && kind != string(store.Material) {
			asked = append(asked, strings.Trim(name, `"`)+" "+kind)
		}
	}
	return strings.Join(asked, ", ")
}

// median of a sample.
func median(sample []float64) float64 {
	sorted := slices.Sorted(slices.Values(sample))
	return sorted[len(sorted)/2]
}

// medianNoise is by how much the medians of two samples of one distribution rarely differ: three standard errors, estimated from
// the quartiles.
func medianNoise(first, second []float64) float64 {
	variance := 0.0
	for _, sample := range [][]float64{first, second} {
		sorted := slices.Sorted(slices.Values(sample))
		deviation := (sorted[3*len(sorted)/4] - sorted[len(sorted)/4]) / 1.349
		variance += 1.57 * deviation * deviation / float64(len(sorted))
	}
	return 3 * math.Sqrt(variance)
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
