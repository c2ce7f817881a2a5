// Package metrics counts what the gateway does, for Prometheus.
//
// It promises: nothing that a request brings with it becomes a label (no name, path, host or address), so nobody outside can make the
// number of series grow; counting a request is a look-up in a table that does not change and an atomic addition; and what is counted
// here decides nothing. docs/operating.md lists every metric, and a test holds the list against the registry.
//
// The names follow https://prometheus.io/docs/practices/naming/: base units, and _total for what only grows.
package metrics

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/problem"
)

// prefix stands before the name of each metric of the gateway's own; those of Go and of the process have the names that they have
// everywhere.
const prefix = "gatehouse_"

// The bounds of the histograms, in seconds.
var (
	quick = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2} // of a store, a disk
	slow  = []float64{.05, .1, .25, .5, 1, 2.5, 5, 10}                                            // of a login
)

// Metrics is what one gateway counts. Safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	elapsed  func() time.Duration
	names    []string

	requests    *prometheus.CounterVec
	logins      *prometheus.CounterVec
	steps       *prometheus.CounterVec
	loginTime   prometheus.Histogram
	renewals    *prometheus.CounterVec
	revocations prometheus.Histogram
	storeTime   *prometheus.HistogramVec
	storeErrors *prometheus.CounterVec
	records     *prometheus.CounterVec
	appendTime  prometheus.Histogram
	appendFails prometheus.Counter
	reloads     *prometheus.CounterVec
}

// New makes a registry of its own. elapsed is time that no setting of the wall clock changes.
func New(elapsed func() time.Duration) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), elapsed: elapsed}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.requests = m.counters("requests_total", "Requests by route and by who answered: the app, or the gateway with a code.", "route", "answer")
	m.logins = m.counters("logins_total", "Requests of logins and step-ups by outcome: signed-in, stepped-up, or the code that the client got.", "outcome")
	m.steps = m.counters("login_steps_total", "Results of the six steps of logins.", "step", "verdict", "reason")
	m.loginTime = m.histogram("login_seconds", "Time that the six steps of a request of a login took.", slow)
	m.renewals = m.counters("session_renewals_total", "Renewals of access tokens, by outcome.", "outcome")
	m.revocations = m.histogram("revocation_delay_seconds", "From the end of a session at another gateway until it counts here, by the clocks of both.", quick)
	m.storeTime = m.histograms("store_seconds", "Round trips to the store, by operation.", quick, "operation")
	m.storeErrors = m.counters("store_errors_total", "Operations that the store did not carry out, by operation.", "operation")
	m.records = m.counters("audit_records_total", "Records on disk, by kind and outcome.", "kind", "outcome")
	m.appendTime = m.histogram("audit_append_seconds", "Time of one write of the audit log with its sync; one serves all who wait.", quick)
	m.appendFails = prometheus.NewCounter(m.counter("audit_errors_total", "Writes of the audit log that failed."))
	m.registry.MustRegister(m.appendFails)
	m.reloads = m.counters("reloads_total", "Attempts to load the configuration anew, by outcome.", "outcome")
	return m
}

func (m *Metrics) named(name string) string {
	m.names = append(m.names, prefix+name)
	return prefix + name
}

func (m *Metrics) counter(name, help string) prometheus.CounterOpts {
	return prometheus.CounterOpts{Name: m.named(name), Help: help}
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(m.counter(name, help), labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) histogram(name, help string, bounds []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: m.named(name), Help: help, Buckets: bounds})
	m.registry.MustRegister(h)
	return h
}

func (m *Metrics) histograms(name, help string, bounds []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.named(name), Help: help, Buckets: bounds}, labels)
	m.registry.MustRegister(v)
	return v
}

// Gauge reads a value when somebody asks.
func (m *Metrics) Gauge(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: m.named(name), Help: help}, read))
}

// Counter reads a number that only grows when somebody asks.
func (m *Metrics) Counter(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(m.counter(name, help), read))
}

// Gauges reads several values when somebody asks, each by its label.
func (m *Metrics) Gauges(name, help, label string, read func() map[string]float64) {
	m.registry.MustRegister(gauges{prometheus.NewDesc(m.named(name), help, []string{label}, nil), read})
}

// gauges is a prometheus.Collector.
type gauges struct {
	desc *prometheus.Desc
	read func() map[string]float64
}

// Describe implements prometheus.Collector.
func (g gauges) Describe(to chan<- *prometheus.Desc) { to <- g.desc }

// Collect implements prometheus.Collector.
func (g gauges) Collect(to chan<- prometheus.Metric) {
	for label, value := range g.read() {
		to <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, value, label)
	}
}

// Names lists the gateway's own metrics.
func (m *Metrics) Names() []string { return slices.Clone(m.names) }

// Handler shows everything on GET /metrics, and nothing else.
func (m *Metrics) Handler() http.Handler {
	show := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", show)
	return mux
}

// Login counts a finished request of a login, or of a step-up.
func (m *Metrics) Login(out auth.Outcome) {
	outcome := string(out.Code)
	switch {
	case outcome == "" && out.Trace.Of(audit.StepSession).Reason == audit.ReasonSteppedUp:
		outcome = "stepped-up"
	case outcome == "":
		outcome = "signed-in"
	}
	m.logins.WithLabelValues(outcome).Inc()
	var took time.Duration
	for _, result := range out.Trace {
		took += time.Duration(result.Micros) * time.Microsecond
		if result.Verdict != audit.NotReached {
			m.steps.WithLabelValues(strconv.Itoa(int(result.Step)), string(result.Verdict), string(result.Reason)).Inc()
		}
	}
	m.loginTime.Observe(took.Seconds())
}

// Renewed counts a renewal of a session.
func (m *Metrics) Renewed(err error) { m.renewals.WithLabelValues(outcome(err)).Inc() }

// Heard counts a revocation of another gateway.
func (m *Metrics) Heard(after time.Duration) { m.revocations.Observe(max(0, after.Seconds())) }

// Appended counts records that were written together, or not at all.
func (m *Metrics) Appended(records []audit.Record, took time.Duration, err error) {
	if err != nil {
		m.appendFails.Inc()
		return
	}
	m.appendTime.Observe(took.Seconds())
	for _, r := range records {
		m.records.WithLabelValues(string(r.Kind), string(r.Outcome)).Inc()
	}
}

// Reloaded counts an attempt to load the configuration anew.
func (m *Metrics) Reloaded(err error) { m.reloads.WithLabelValues(outcome(err)).Inc() }

func outcome(err error) string {
	if err != nil {
		return "failed"
	}
	return "done"
}

// ByApp is the answer of a request that the gateway did not answer itself.
const ByApp = "app"

// noRoute is the route of a request that has none.
const noRoute = "none"

// Requests counts requests of a set of routes: every counter is made beforehand.
type Requests struct {
	routes map[string]*answers
	none   *answers
}

type answers struct {
	app    prometheus.Counter
	byCode map[problem.Code]prometheus.Counter
}

// Requests makes the counters of these routes, by their names.
func (m *Metrics) Requests(routes []string) *Requests {
	r := &Requests{routes: make(map[string]*answers, len(routes)), none: m.answers(noRoute)}
	for _, route := range routes {
		r.routes[route] = m.answers(route)
	}
	return r
}

func (m *Metrics) answers(route string) *answers {
	a := &answers{app: m.requests.WithLabelValues(route, ByApp), byCode: map[problem.Code]prometheus.Counter{}}
	for _, code := range problem.Codes() {
		a.byCode[code] = m.requests.WithLabelValues(route, string(code))
	}
	return a
}

// Answered counts a request of a route that was answered with a code; without one the app answered it.
func (r *Requests) Answered(route string, code problem.Code) {
	a, ok := r.routes[route]
	if !ok {
		a = r.none
	}
	if code == "" {
		a.app.Inc()
	} else if c, ok := a.byCode[code]; ok {
		c.Inc()
	}
}
