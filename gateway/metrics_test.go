package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

// scrape reads what Prometheus would, by series.
func scrape(t *testing.T, address string) map[string]float64 {
	t.Helper()
	answer, err := (&http.Client{}).Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("scrape: %d, %v", answer.StatusCode, err)
	}
	series := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && !strings.HasPrefix(line, "#") {
			if cut := strings.LastIndexByte(strings.TrimSpace(line), ' '); cut > 0 {
				name, value = line[:cut], strings.TrimSpace(line[cut:])
			}
			if series[name], err = strconv.ParseFloat(value, 64); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
	}
	return series
}

// The numbers are those of what happened, and nothing that a client chooses makes a series.
func TestGateway_countsWhatHappens(t *testing.T) {
	t.Parallel()
	address := net.JoinHostPort("127.0.0.1", storetest.FreePort(t))
	g := gatewaytest.Start(t, gatewaytest.Options{Configure: func(c *configs.Config) { c.MetricsListen = address }})
	g.AddUser("alice", "staff")
	b := g.SignIn("alice", g.Enrol("alice"))
	for range 3 {
		if answer := b.Get("/page"); answer.StatusCode != http.StatusOK {
			t.Fatalf("request: %d", answer.StatusCode)
		}
	}
	route := ""
	for series := range scrape(t, address) {
		if found := regexp.MustCompile(`^gatehouse_requests_total\{answer="app",route="([^"]*)"\}$`).FindStringSubmatch(series); found != nil && found[1] != "none" {
			route = found[1]
		}
	}
	stranger := g.NewBrowser()
	for i := range 5 {
		stranger.Get(fmt.Sprintf("/some/page/%d", i))
		stranger.Login(fmt.Sprintf("nobody-%d", i), "wrong", "")
	}
	if err := g.Reconfigure(func(c *configs.Config) { c.Listen = "127.0.0.1:1" }); err == nil {
		t.Error("another listener was accepted")
	}
	after := scrape(t, address)
	wants := map[string]float64{
		`gatehouse_requests_total{answer="app",route="` + route + `"}`:                 3,
		`gatehouse_requests_total{answer="session-required",route="` + route + `"}`:    5,
		`gatehouse_logins_total{outcome="signed-in"}`:                                  1,
		`gatehouse_logins_total{outcome="invalid-credentials"}`:                        5,
		`gatehouse_login_steps_total{reason="unknown-user",step="1",verdict="fail"}`:   5,
		`gatehouse_login_steps_total{reason="",step="2",verdict="pass"}`:               6,
		`gatehouse_login_seconds_count`:                                                6,
		`gatehouse_audit_records_total{kind="login",outcome="success"}`:                1,
		`gatehouse_audit_records_total{kind="login",outcome="failure"}`:                5,
		`gatehouse_audit_records_total{kind="configuration-reloaded",outcome="error"}`: 1,
		`gatehouse_reloads_total{outcome="failed"}`:                                    1,
		`gatehouse_password_checks_total`:                                              float64(g.Verifications()),
		`gatehouse_part_state{part="store"}`:                                           0,
		`gatehouse_part_state{part="configuration"}`:                                   1,
		`gatehouse_store_errors_total{operation="get"}`:                                0,
		`gatehouse_audit_errors_total`:                                                 0,
		`gatehouse_password_line{who="strangers"}`:                                     0,
	}
	for series, want := range wants {
		if got, ok := after[series]; !ok || got != want {
			t.Errorf("%s: got %v (there: %t), want %v", series, got, ok, want)
		}
	}
	for _, series := range []string{`gatehouse_store_seconds_count{operation="get"}`, "gatehouse_audit_append_seconds_count", "gatehouse_verified_tokens", "go_goroutines", "process_open_fds"} {
		if after[series] == 0 {
			t.Errorf("%s is 0 or absent", series)
		}
	}
	for name := range after {
		for _, chosen := range []string{"alice", "nobody", "some/page", "127.0.0.1", "localhost:"} {
			if strings.HasPrefix(name, "gatehouse_") && strings.Contains(name, chosen) {
				t.Errorf("%s holds %s, which a client chose", name, chosen)
			}
		}
	}
	for path, want := range map[string]int{"/": 404, "/.gatehouse/login": 404, "/debug/pprof/": 404, "/debug/vars": 404} {
		answer, err := (&http.Client{}).Get("http://" + address + path)
		if err != nil || answer.StatusCode != want {
			t.Errorf("%s of the metrics' listener: %v, %v", path, answer, err)
			continue
		}
		_ = answer.Body.Close()
	}
	if answer := g.NewBrowser().Get("/metrics"); answer.StatusCode != http.StatusFound {
		t.Errorf("/metrics of the public listener: got %d", answer.StatusCode)
	}
}

var listed = regexp.MustCompile("(?m)^\\| `(gatehouse_[a-z_]+)`")

// docs/operating.md lists the metrics that there are, each once.
func TestMetrics_areDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, found := range listed.FindAllStringSubmatch(string(text), -1) {
		got = append(got, found[1])
	}
	want := gatewaytest.Start(t, gatewaytest.Options{}).Metrics()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/operating.md lists\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
