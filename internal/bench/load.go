package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// target is what wrk is sent to.
type target struct {
	name   string
	server *process
	url    string
	status int
	// header is sent with every request. It is asked for before every run: an access token lives for five minutes.
	header func() (map[string]string, error)
}

// sample is one run of wrk against one target.
type sample struct {
	perSecond float64
	p50, p99  time.Duration
	cpu       time.Duration // of the server, for one request
	resident  int64         // bytes, after the run
}

// reportScript has wrk print its figures on one line that is easy to read back. -s takes a file.
const reportScript = `
done = function(s, l, r)
  io.write(string.format("BENCH %d %d %d %d %d\n", s.requests, s.duration, l:percentile(50), l:percentile(99),
    s.errors.connect + s.errors.read + s.errors.write + s.errors.status + s.errors.timeout))
end
`

// measure sends load for a while over so many connections. An answer with another status than the target's before or after, or any failed
// request, is an error: a fast error page must not be taken for a fast proxy.
func (b *bench) measure(ctx context.Context, t target, connections int, length time.Duration) (sample, error) {
	header, err := t.headers()
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", t.name, err)
	}
	if err := t.check(ctx, header); err != nil {
		return sample{}, err
	}
	before, err := t.server.use()
	if err != nil {
		return sample{}, err
	}
	s, requests, err := b.wrk(ctx, t, header, connections, length)
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", t.name, err)
	}
	after, err := t.server.use()
	if err != nil {
		return sample{}, err
	}
	s.cpu = (after.cpu - before.cpu) / time.Duration(requests)
	s.resident = after.resident
	return s, t.check(ctx, header)
}

func (t target) headers() (map[string]string, error) {
	if t.header == nil {
		return nil, nil
	}
	return t.header()
}

// wrk runs wrk and reads back what it says.
func (b *bench) wrk(ctx context.Context, t target, header map[string]string, connections int, length time.Duration) (sample, int64, error) {
	arguments := []string{
		"-t", strconv.Itoa(min(connections, 2)), "-c", strconv.Itoa(connections), "-d", strconv.Itoa(int(length.Seconds())) + "s",
		"-s", b.script,
	}
	for _, name := range slices.Sorted(maps.Keys(header)) {
		arguments = append(arguments, "-H", name+": "+header[name])
	}
	text, err := exec.CommandContext(ctx, b.programs["wrk"], append(arguments, t.url)...).CombinedOutput()
	if err != nil {
		return sample{}, 0, fmt.Errorf("wrk: %w: %s", err, text)
	}
	var requests, failures int64
	var micros, p50, p99 int64
	_, line, _ := strings.Cut(string(text), "BENCH ")
	if _, err := fmt.Sscan(line, &requests, &micros, &p50, &p99, &failures); err != nil || requests == 0 || micros == 0 {
		return sample{}, 0, fmt.Errorf("cannot read what wrk says: %s", text)
	}
	if failures > 0 {
		return sample{}, 0, fmt.Errorf("%d of %d requests failed", failures, requests)
	}
	return sample{
		perSecond: float64(requests) / float64(micros) * 1e6,
		p50:       time.Duration(p50) * time.Microsecond, p99: time.Duration(p99) * time.Microsecond,
	}, requests, nil
}

// check sends one request and looks at its status.
func (t target) check(ctx context.Context, header map[string]string) error {
	r, err := t.request(ctx, header)
	if err != nil {
		return err
	}
	client := http.Client{
		Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body) // the status is what is asked for
	if answer.StatusCode != t.status {
		return fmt.Errorf("%s: status %d, want %d", t.name, answer.StatusCode, t.status)
	}
	return nil
}

func (t target) request(ctx context.Context, header map[string]string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url, nil)
	if err != nil {
		return nil, err
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	return r, nil
}
