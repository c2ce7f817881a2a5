// Package gateway assembles Gatehouse from its parts and runs its listeners.
//
// It promises: nothing listens before everything that can refuse to start has been checked (data folder, root key, store,
// audit log); the listeners close before the parts they use; and what a request is told about its client is decided in one
// place (front.go). New is the list of everything there is, one screen for each layer.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/access"
	"gatehouse/accesslog"
	"gatehouse/admin"
	"gatehouse/admin/httpapi"
	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/apptoken"
	"gatehouse/auth/device"
	"gatehouse/auth/link"
	"gatehouse/auth/lockout"
	"gatehouse/auth/password"
	"gatehouse/auth/totp"
	"gatehouse/auth/user"
	"gatehouse/configs"
	"gatehouse/metrics"
	"gatehouse/proxy"
	"gatehouse/proxy/clientip"
	"gatehouse/ratelimit"
	"gatehouse/secrets"
	"gatehouse/session"
	"gatehouse/session/handoff"
	"gatehouse/store"
	"gatehouse/web"
)

// Deps is what only a process can give.
type Deps struct {
	// Now is the wall clock; Elapsed is time that no setting of that clock changes.
	Now     func() time.Time
	Elapsed func() time.Duration
	Logger  *slog.Logger
	// Stdout is where an access log named "-" goes.
	Stdout io.Writer
	// SetLogLevel sets the level of Logger, one of the words of log.level; nil if it cannot change.
	SetLogLevel func(level string)
	// Workers is how many bcrypt comparisons may run at once.
	Workers int
	// Hashing is told when comparisons begin to run, and when none is left; may be nil.
	Hashing func(bool)
	// BcryptCost overrides the configured cost, for tests only; 0 otherwise.
	BcryptCost int
}

// Gateway is one running gateway: what lives as long as the process, and the assembly that follows the configuration. Safe for
// concurrent use.
type Gateway struct {
	start  configs.Config // of the start: what a reload cannot change is read from here
	deps   Deps
	state  *state
	sample *sampleServer // nil until a configuration names no app

	engine   engine
	metrics  *metrics.Metrics
	access   *accesslog.Log
	log      *audit.Log
	pool     *password.Pool
	sessions *session.Manager
	clock    *clockWatch
	running  sync.WaitGroup
	checked  storeCheck
	stopping atomic.Bool

	encryption encryption
	tooMany    atomic.Uint64 // connections that were closed because too many were open

	reloading sync.Mutex // held while the configuration is loaded anew
	current   atomic.Pointer[assembly]
	refused   atomic.Bool // the last reload changed nothing
	upgrades  auth.Upgrades
}

// assembly is what one configuration makes of the parts: it keeps nothing that a request of the next one would miss.
type assembly struct {
	*Gateway
	config  configs.Config
	table   *access.Table
	users   *user.Store
	flow    *auth.Flow
	tokens  *auth.AppTokens
	onboard *auth.Onboarding
	proxied *proxy.Proxy
	public  http.Handler
	admin   http.Handler
}

// New builds a gateway and checks everything that can refuse to start. Close it, whether it was run or not.
func New(ctx context.Context, config configs.Config, deps Deps) (*Gateway, error) {
	m := metrics.New(deps.Elapsed)
	s, err := openState(ctx, config, deps, m)
	if err != nil {
		return nil, err
	}
	g := &Gateway{start: config, deps: deps, state: s, engine: s.engine, metrics: m, log: s.log}
	g.access = accesslog.New(accesslog.Options{Stdout: deps.Stdout, Logger: deps.Logger})
	g.clock = newClockWatch(deps, s.log)
	password.ForgetLists()
	g.pool = password.NewPool(password.PoolOptions{Workers: deps.Workers, Busy: deps.Hashing})
	g.sessions, err = g.openSessions()
	if err == nil {
		g.encryption, err = g.openEncryption()
	}
	if err == nil {
		var first *assembly
		if first, err = g.assemble(config); err == nil {
			err = g.access.Use(config.AccessLog.File, config.AccessLog.Format)
		}
		if err == nil {
			g.current.Store(first)
			g.observe()
			return g, nil
		}
	}
	g.closeParts()
	return nil, errors.Join(err, s.close())
}

// build makes the parts, the services and the edges, in the order of the layers.
func (g *assembly) build() error {
	p := g.parts()
	g.flow = auth.New(auth.Options{
		RateLimit: p.limiter, Pool: g.pool, Hasher: p.hasher, Users: g.users, Passwords: p.passwords, Codes: p.codes,
		TOTP: p.totp, Devices: p.devices, Sessions: g.sessions, Audit: g.log, Pending: g.state.records, Upgrades: &g.upgrades,
		FactorRequired: g.config.Login.SecondFactor == configs.Required, Now: g.deps.Now, Logger: g.deps.Logger, Observe: g.metrics.Login,
	})
	g.tokens = auth.NewAppTokens(auth.AppTokenOptions{
		RateLimit: p.limiter, Users: g.users, Passwords: p.passwords, Tokens: p.tokens, Outside: g.sessions, Audit: g.log, Now: g.deps.Now,
		Logger: g.deps.Logger,
	})
	policy := password.Policy{Min: g.config.Login.PasswordMinLength, Max: password.DefaultPolicy.Max}
	g.onboard = auth.NewOnboarding(g.flow, auth.OnboardingOptions{Links: p.links, Policy: policy, Host: g.config.ExternalURL.Host})
	service := admin.New(admin.Options{
		Users: g.users, Passwords: p.passwords, Codes: p.codes, Devices: p.devices, TOTP: p.totp, Sessions: g.sessions, Keys: g.state.keys, Hasher: p.hasher,
		Policy: policy, Links: p.links, Tokens: p.tokens, Routes: g.routeNames, External: g.config.ExternalURL.URL(),
		Log: g.log, LogDir: g.state.logDir, Now: g.deps.Now, Logger: g.deps.Logger,
	})
	look, err := site(g.config.Pages)
	if err != nil {
		return err
	}
	if g.table, err = Table(g.config); err != nil {
		return err
	}
	edge, err := web.New(web.Options{
		Login: g.flow, Onboarding: g.onboard, Site: look, Sessions: g.sessions, RateLimit: p.limiter, Audit: g.log, External: g.config.ExternalURL.URL(),
		Hosts: g.table, HandOff: handoff.New(handoff.Options{Records: g.state.records, Now: g.deps.Now}), Joiner: g.sessions, NoApp: !LoginHostHasApp(g.config),
		Apps:    g.apps(),
		FormKey: g.state.material.form, JWKS: g.state.keys.JWKS, Visitor: visitor, Now: g.deps.Now, Logger: g.deps.Logger,
	})
	if err != nil {
		return fmt.Errorf("draw the pages: %w", err)
	}
	if g.needsSample() {
		if err := g.startSample(); err != nil {
			return fmt.Errorf("start the sample app: %w", err)
		}
	}
	g.proxied, err = g.proxy(edge)
	if err != nil {
		return fmt.Errorf("build the proxy: %w", err)
	}
	g.public = g.front(edge, g.proxied)
	return g.buildAdmin(service)
}

// proxy makes the way to the app.
func (g *assembly) proxy(pages proxy.Pages) (*proxy.Proxy, error) {
	external := g.config.ExternalURL.String()
	routes, err := g.routes()
	if err != nil {
		return nil, err
	}
	return proxy.New(proxy.Options{
		Table: g.table, Routes: routes,
		Sessions: g.sessions, Tokens: appTokens{g.tokens, g.sessions}, Assertions: g.sessions, Pages: pages, Recorder: g.log,
		Observer: g.watcher(), External: external,
		Client:    func(r *http.Request) clientip.Client { return visitOf(r).client },
		RequestID: func(r *http.Request) string { return visitOf(r).RequestID },
		Now:       g.deps.Now, Logger: g.deps.Logger,
	})
}

// maxAdminToken is how much of the administration token's file is read, in bytes.
const maxAdminToken = 4 << 10

// buildAdmin makes the administration API: operators on the socket by their uid, token holders on TCP.
func (g *assembly) buildAdmin(service *admin.Service) error {
	options := httpapi.Options{Service: service, Logger: g.deps.Logger, Operators: []uint32{0, uint32(os.Getuid())}}
	if g.config.AdminTokenFile != "" {
		text, err := secrets.ReadFile(g.config.AdminTokenFile, maxAdminToken)
		if err != nil {
			return fmt.Errorf("read admin_token_file: %w", err)
		}
		token, err := httpapi.NewToken("admin-token-file", strings.TrimSpace(string(text)))
		if err != nil {
			return err
		}
		options.Tokens = []httpapi.Token{token}
	}
	g.admin = httpapi.New(options)
	return nil
}

// parts are the components of layer 1 that have no other home.
type parts struct {
	limiter          *ratelimit.Limiter
	hasher           *password.Hasher
	passwords, codes *lockout.Windows
	totp             *totp.Service
	devices          *device.Service
	links            *link.Service
	tokens           *apptoken.Store
}

func (g *assembly) parts() parts {
	login, records, keys, now := g.config.Login, g.state.records, g.state.material, g.deps.Now
	p := parts{
		limiter: ratelimit.New(ratelimit.Options{
			Counters: g.state.counters, Now: now, Burst: login.RateLimit.Burst, Interval: login.RateLimit.Interval,
			WideBurst: wideFactor * login.RateLimit.Burst,
		}),
		hasher: password.NewHasher(password.HasherOptions{Pepper: keys.pepper, Cost: g.bcryptCost()}),
		passwords: lockout.New(lockout.Options{
			Records: records, Now: now, Key: store.LockoutKey, Shard: store.LockoutShard,
			Limit: login.Lockout.Limit, Within: login.Lockout.Within, LockFor: login.Lockout.Duration, RunLimit: longBrake,
		}),
		codes: lockout.New(lockout.Options{
			Records: records, Now: now, Key: store.CodesKey, Shard: store.CodesShard,
			Limit: login.Codes.Limit, Within: login.Codes.Within, LockFor: login.Codes.Within, RunLimit: longBrake,
		}),
		totp:    totp.New(totp.Options{Counters: g.state.counters, Now: now, Issuer: g.config.ExternalURL.URL().Hostname()}),
		devices: device.New(device.Options{Records: records, Now: now, Key: keys.device}),
		links:   link.New(link.Options{Records: records, Now: now}),
		tokens:  apptoken.NewStore(apptoken.Options{Records: records, Now: now}),
	}
	g.users = user.NewStore(user.Options{Records: records, Now: now, NameKey: keys.names, EnrolWithin: login.EnrolmentPeriod})
	return p
}

func prefixes(list []configs.PathPrefix) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = string(p)
	}
	return out
}

// accounts is where sessions re-read the account they belong to.
type accounts struct{ users *user.Store }

// Identity implements session.Accounts.
func (a accounts) Identity(ctx context.Context, userID string) (session.Identity, bool, error) {
	u, err := a.users.ByID(ctx, userID)
	if errors.Is(err, user.ErrNotFound) {
		return session.Identity{}, false, nil
	}
	return auth.Identity(u), err == nil && !u.Disabled, err
}

// wideFactor is how many times the burst of an address a whole IPv6 /48 has.
const wideFactor = 4

// longBrake is how many consecutive failures of strangers, passwords or codes, close an account to strangers (NIST SP 800-63B-4,
// section 3.2.2).
const longBrake = 100

func (g *assembly) bcryptCost() int {
	if g.deps.BcryptCost != 0 {
		return g.deps.BcryptCost
	}
	return g.config.Login.BcryptCost
}
