package gateway

import (
	"context"
	"net"
	"net/http"

	"gatehouse/metrics"
	"gatehouse/problem"
)

// observe has what only the gateway knows read whenever somebody asks for the metrics.
func (g *Gateway) observe() {
	m := g.metrics
	m.Counter("password_checks_total", "Comparisons of passwords that were begun.", func() float64 { return float64(g.pool.Runs()) })
	m.Counter("connections_refused_total", "Connections that were closed because too many were open.", func() float64 { return float64(g.tooMany.Load()) })
	m.Gauges("password_line", "Logins that wait for a password check: 32 at most of strangers, and 32 of known devices.", "who", func() map[string]float64 {
		strangers, known := g.pool.Waiting()
		return map[string]float64{"strangers": float64(strangers), "known": float64(known)}
	})
	m.Gauge("verified_tokens", "Access tokens that are remembered as verified; 100,000 at most.", func() float64 { return float64(g.sessions.Verified()) })
	m.Gauge("revocations_held", "Ended sessions that are remembered until their tokens have expired.", func() float64 { return float64(g.sessions.Revoked()) })
	m.Gauge("feed_age_seconds", "Since the feed was last read to its end.", func() float64 { return g.deps.Now().Sub(g.sessions.Followed()).Seconds() })
	m.Counter("access_log_lines_total", "Lines of the access log that were written.", func() float64 { return float64(g.access.Written()) })
	m.Counter("access_log_dropped_total", "Lines of the access log that were dropped.", func() float64 { return float64(g.access.Dropped()) })
	m.Gauges("part_state", "State of each part of readyz: 0 ok, 1 degraded, 2 failed.", "part", func() map[string]float64 {
		states := map[string]float64{stateOK: 0, stateDegraded: 1, stateFailed: 2}
		values := map[string]float64{}
		for name, part := range g.ready(context.Background()).Parts { // it has a time limit of its own
			values[name] = states[part.State]
		}
		return values
	})
}

// Metrics lists the gateway's own metrics by their names.
func (g *Gateway) Metrics() []string { return g.metrics.Names() }

// watcher tells the metrics, and the access log, what became of requests to apps.
type watcher struct{ requests *metrics.Requests }

// Answered implements proxy.Observer.
func (w watcher) Answered(route string, code problem.Code) { w.requests.Answered(route, code) }

// watcher counts the requests of the routes that this configuration has.
func (g *assembly) watcher() watcher {
	var names []string
	for _, r := range g.config.AppRoutes() {
		names = append(names, string(r.Name))
	}
	return watcher{g.metrics.Requests(names)}
}

// listenMetrics opens the listener for Prometheus; nil if none is asked for.
func (g *Gateway) listenMetrics(ctx context.Context) (net.Listener, error) {
	if g.start.MetricsListen == "" {
		return nil, nil
	}
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", g.start.MetricsListen)
}

// metricsServer serves the metrics and nothing else.
func (g *Gateway) metricsServer() *http.Server { return g.server(g.metrics.Handler()) }
