package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gatehouse/audit"
	"gatehouse/auth/device"
	"gatehouse/auth/user"
	"gatehouse/configs"
	"gatehouse/session"
)

// openSessions makes the sessions, which outlive every configuration: they hold the tokens that were verified and the connections that
// end with a session.
func (g *Gateway) openSessions() (*session.Manager, error) {
	records, keys, now := g.state.records, g.state.material, g.deps.Now
	devices := device.New(device.Options{Records: records, Now: now, Key: keys.device})
	users := user.NewStore(user.Options{Records: records, Now: now, NameKey: keys.names})
	return session.New(session.Options{
		Records: records, Counters: g.state.counters, Feed: g.state.feed, Keys: g.state.keys, HandleKey: keys.handle,
		Issuer: g.start.ExternalURL.String(), Device: devices.DeviceFor, Client: recordedClient,
		Accounts: accounts{users}, Recorder: identified{g.log}, Now: now, Logger: g.deps.Logger, Limits: sessionLimits(g.start.Session),
		Observer: g.metrics,
	})
}

// identified is the audit log for parts that do not know which request they work for: its context does.
type identified struct{ log *audit.Log }

// Append implements session.Recorder.
func (i identified) Append(ctx context.Context, e audit.Event) (audit.Record, error) {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok && e.RequestID == "" {
		e.RequestID = v.RequestID
	}
	return i.log.Append(ctx, e)
}

func sessionLimits(s configs.Session) session.Limits {
	return session.Limits{
		AccessLifetime: s.AccessToken, Idle: s.Idle, Absolute: s.Absolute, PerUser: s.PerUser, IgnoreActivity: prefixes(s.IgnoreActivity),
	}
}

// assemble makes everything that follows the configuration. Nothing of what runs changes.
func (g *Gateway) assemble(config configs.Config) (*assembly, error) {
	a := &assembly{Gateway: g, config: config}
	if err := a.build(); err != nil {
		return nil, err
	}
	return a, nil
}

// Reload loads the configuration anew and applies it: either all of it or nothing. Requests that are under way are answered by the
// former one, upgraded connections and sessions live on. It is recorded before it takes effect. An error says why nothing changed:
// that of load, or which settings need a restart, or what could not be built.
func (g *Gateway) Reload(ctx context.Context, load func() (configs.Config, error)) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	changed, err := g.reload(ctx, load)
	g.refused.Store(err != nil)
	g.metrics.Reloaded(err)
	if err != nil {
		g.deps.Logger.ErrorContext(ctx, "configuration was not loaded anew; the former one stays in force", "error", err)
		return err
	}
	g.deps.Logger.InfoContext(ctx, "configuration was loaded anew", "changed", strings.Join(changed, " "))
	return nil
}

func (g *Gateway) reload(ctx context.Context, load func() (configs.Config, error)) (changed []string, err error) {
	config, err := load()
	if err != nil {
		return nil, errors.Join(err, g.recordReload(ctx, audit.Failed, mistakes(err)))
	}
	former := g.current.Load()
	if fixed := configs.NeedRestart(former.config, config); len(fixed) > 0 {
		err := fmt.Errorf("%s cannot change without a restart, so nothing of the new configuration was applied", strings.Join(fixed, ", "))
		return nil, errors.Join(err, g.recordReload(ctx, audit.Failed, map[string]string{"needs_restart": strings.Join(fixed, " ")}))
	}
	next, err := g.assemble(config)
	if err != nil {
		return nil, errors.Join(err, g.recordReload(ctx, audit.Failed, map[string]string{"what": "build"}))
	}
	if former.config.AccessLog != config.AccessLog {
		if err := g.access.Use(config.AccessLog.File, config.AccessLog.Format); err != nil {
			return nil, errors.Join(err, g.recordReload(ctx, audit.Failed, map[string]string{"what": "build"}))
		}
	}
	changed = configs.Changed(former.config, config)
	if err := g.recordReload(ctx, audit.Success, map[string]string{"changed": strings.Join(changed, " ")}); err != nil {
		return nil, err
	}
	if err := g.sessions.SetLimits(sessionLimits(config.Session)); err != nil {
		return nil, err
	}
	if g.deps.SetLogLevel != nil {
		g.deps.SetLogLevel(config.Log.Level)
	}
	g.current.Store(next)
	former.proxied.Close() // what it still uses ends with its requests
	return changed, nil
}

// mistakes says of a configuration that was refused where its first mistake is. What stands there is left out: it may be a secret
// in the wrong place.
func mistakes(err error) map[string]string {
	wrong, ok := errors.AsType[*configs.Errors](err)
	if !ok || len(wrong.Problems) == 0 {
		return map[string]string{"what": "load"}
	}
	return map[string]string{"what": "load", "mistakes": fmt.Sprint(len(wrong.Problems)), "first": wrong.Problems[0].Place.String()}
}

func (g *Gateway) recordReload(ctx context.Context, outcome audit.Outcome, details map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	_, err := g.log.Append(ctx, audit.Event{
		Kind: audit.KindReloaded, Outcome: outcome, Actor: audit.Actor{Type: audit.ActorSystem}, Details: details,
	})
	return err
}

// configurationPart warns of a configuration on disk that is not the one in force.
func (g *Gateway) configurationPart() Part {
	if g.refused.Load() {
		return Part{State: stateDegraded, Note: "the configuration could not be loaded anew, so the former one is in force: the log says why"}
	}
	return Part{State: stateOK}
}
