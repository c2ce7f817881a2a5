package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"gatehouse/admin/httpapi"
	"gatehouse/audit"
	"gatehouse/auth/link"
)

// Summary is what the screen of a start shows.
type Summary struct {
	External, Listen, Admin, Store, Data, Upstream string
	Warnings                                       []string
	// Setup is the set-up link, while there is no administrator, and SetupUntil its end. It is for the screen alone: whoever has it
	// becomes the administrator.
	Setup      string
	SetupUntil time.Time
}

// Summary describes the gateway as it is configured, and opens the set-up link where there is no administrator yet.
func (g *Gateway) Summary(ctx context.Context) (Summary, error) { return g.current.Load().summary(ctx) }

func (g *assembly) summary(ctx context.Context) (Summary, error) {
	s := Summary{
		External: g.config.ExternalURL.String(), Listen: g.config.Listen, Admin: g.config.AdminListen, Store: g.config.Store.String(),
		Data: g.config.Data, Upstream: g.fronts(), Warnings: g.warnings(),
	}
	token, until, open, err := g.onboard.SetupLink(ctx)
	if open {
		s.Setup, s.SetupUntil = link.URL(g.config.ExternalURL.URL(), link.Setup, token), until
	}
	return s, err
}

// warnings are what an operator should know before the first request.
func (g *assembly) warnings() []string {
	all := g.state.warnings
	if g.config.ExternalURL.Scheme == "http" {
		all = append(all, "plain HTTP on localhost: for trying out on this machine. Chromium and Firefox keep Secure cookies there, Safari does not; "+
			"cookies of localhost are shared by all its ports.")
	}
	all = append(all, g.uncovered()...)
	if most := descriptors() / 2; g.config.Connections.Max > most {
		all = append(all, fmt.Sprintf("connections.max is %d, and the process may have %d files open, which is enough for half as many connections.",
			g.config.Connections.Max, 2*most))
	}
	switch {
	case g.needsSample():
		all = append(all, "no --upstream: a built-in sample app stands behind the door.")
	case LoginHostHasApp(g.config):
		all = append(all, "the app shares the login host, so it is trusted like the gateway itself: a script of it could show a false login page.")
	}
	return all
}

// Handler is the public listener's handler. Each request is answered by the configuration that is in force when it comes.
func (g *Gateway) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.current.Load().public.ServeHTTP(w, r) })
}

// Verifications is how many password comparisons ran since the start.
func (g *Gateway) Verifications() uint64 { return g.pool.Runs() }

// Close ends what New began: the pool, the log, the store. The listeners must be closed already.
func (g *Gateway) Close() error {
	g.closeParts()
	return g.state.close()
}

func (g *Gateway) closeParts() {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	g.upgrades.Wait()
	g.pool.Close()
	g.access.Close()
	if g.sample != nil {
		g.sample.close()
	}
}

// adminServer serves the administration API; a peer of the socket is known by its uid.
func (g *Gateway) adminServer() *http.Server {
	s := g.server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.current.Load().admin.ServeHTTP(w, r) }))
	s.ConnContext = httpapi.ConnContext
	if g.encryption.admin != nil {
		encrypt(s, g.encryption.admin)
	}
	return s
}

// recordStart writes the record of a start. A gateway that cannot write its log does not start.
func (g *Gateway) recordStart(ctx context.Context) error {
	event := audit.Event{
		Kind: audit.KindStarted, Outcome: audit.Success, Actor: audit.Actor{Type: audit.ActorSystem},
		Details: map[string]string{"external_url": g.start.ExternalURL.String()},
	}
	_, err := g.log.Append(ctx, event)
	if err == nil && g.state.created {
		event.Kind, event.Details = audit.KindKeysCreated, nil
		_, err = g.log.Append(ctx, event)
	}
	return err
}

// recordStop writes the record of an orderly end, so that a start without one before it tells of a crash.
func (g *Gateway) recordStop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	_, err := g.log.Append(ctx, audit.Event{Kind: audit.KindStopped, Outcome: audit.Success, Actor: audit.Actor{Type: audit.ActorSystem}})
	return err
}

// sweepEvery is how often an engine is asked to remove what has expired and is not touched by any write.
const sweepEvery = time.Minute

// sweep removes garbage until ctx is done.
func (g *Gateway) sweep(ctx context.Context) {
	sweeper, ok := g.engine.(interface{ Sweep(context.Context) error })
	if !ok {
		return
	}
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := sweeper.Sweep(ctx); err != nil && !errors.Is(err, context.Canceled) {
				g.deps.Logger.WarnContext(ctx, "sweep the store", "error", err)
			}
		}
	}
}
