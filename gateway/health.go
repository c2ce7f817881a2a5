package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"gatehouse/problem"
	"gatehouse/session/token"
	"gatehouse/store/redisstore"
	"gatehouse/web"
)

// The health routes. They answer on every host name, because those who ask often know only the address.
const (
	healthzPath = web.Prefix + "healthz"
	readyzPath  = web.Prefix + "readyz"
)

func healthPath(path string) bool { return path == healthzPath || path == readyzPath }

// readyTimeout bounds asking the parts for their state.
const readyTimeout = 2 * time.Second

// Readiness is the body of readyz.
type Readiness struct {
	Ready bool            `json:"ready"`
	Parts map[string]Part `json:"parts"`
}

// Part is the state of one part that the gateway depends on.
type Part struct {
	State string `json:"state"` // "ok", "degraded" (goes on, with a bound that Note names) or "failed" (logins are refused)
	Note  string `json:"note,omitempty"`
}

// The states of a Part.
const (
	stateOK       = "ok"
	stateDegraded = "degraded"
	stateFailed   = "failed"
)

// ready asks every part. It names no address, path or error text: the log has those.
func (g *Gateway) ready(ctx context.Context) Readiness {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	parts := map[string]Part{"store": g.storePart(ctx), "audit": {State: stateOK}, "feed": {State: stateOK}}
	parts["clock"] = g.clockPart() // after the store, which was asked for its time
	parts["configuration"] = g.configurationPart()
	if g.stopping.Load() {
		parts["listener"] = Part{State: stateFailed, Note: "the gateway is stopping: send nobody here any more"}
	}
	if len(g.encryption.all()) > 0 {
		parts["certificate"] = g.certificatePart()
	}
	if err := g.log.Healthy(); err != nil {
		g.deps.Logger.WarnContext(ctx, "audit log is not healthy", "error", err)
		parts["audit"] = Part{State: stateFailed, Note: "records cannot be written: logins and changes are refused"}
	}
	if !g.sessions.InStep() {
		parts["feed"] = Part{State: stateDegraded, Note: "revocations made elsewhere reach this gateway when access tokens expire, 5 minutes at most"}
	}
	r := Readiness{Ready: true, Parts: parts}
	for _, p := range parts {
		r.Ready = r.Ready && p.State != stateFailed
	}
	return r
}

func (g *Gateway) storePart(ctx context.Context) Part {
	if err := g.checked.check(ctx, g.engine.Check); err != nil {
		g.deps.Logger.WarnContext(ctx, "store is not healthy", "error", err)
		return Part{State: stateFailed, Note: "the store does not answer: logins are refused, known sessions go on until their access tokens expire"}
	}
	return Part{State: stateOK}
}

// checkedFor is how long a store that could be written is not asked again. Anybody may ask for readiness, and each check is a
// write.
const checkedFor = time.Second

// storeCheck asks the store for all who ask for readiness at the same time. Safe for concurrent use.
type storeCheck struct {
	mu   sync.Mutex // held while asking, so one asks at a time
	good bool       // guarded by mu: it could be written within checkedFor
}

func (c *storeCheck) check(ctx context.Context, ask func(context.Context) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout) // one who leaves decides for nobody else
	defer cancel()
	if err := ask(ctx); err != nil {
		return err
	}
	c.good = true
	time.AfterFunc(checkedFor, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.good = false
	})
	return nil
}

// clockPart fails by a clock that cannot be right, and warns of one that was set, and of one that differs from the store's: what one gateway signs another must accept,
// and the leeway is 30 s.
func (g *Gateway) clockPart() Part {
	if g.deps.Now().Unix() < token.Earliest {
		return Part{State: stateFailed, Note: "the clock reads a time before this program was made: nothing is signed by it"}
	}
	shared, ok := g.engine.(interface{ Skew() time.Duration })
	if ok && shared.Skew().Abs() > redisstore.MaxSkew {
		return Part{State: stateDegraded, Note: "the clock differs from that of the store: other gateways may refuse what this one signs"}
	}
	return g.clock.part()
}

// Aliveness is the body of healthz.
type Aliveness struct {
	Alive bool `json:"alive"`
	// Seen is what arrived of the request, for `?seen`: gatehouse doctor asks what a forged header came to.
	Seen *Seen `json:"seen,omitempty"`
}

// Seen is how a request arrived. It tells who asks about the own request, and nothing else.
type Seen struct {
	Address   string `json:"address"`           // that the request is counted for
	Claimed   string `json:"claimed,omitempty"` // what X-Forwarded-For said and was not believed
	Proxied   bool   `json:"proxied"`           // a listed proxy brought it
	Forwarded bool   `json:"forwarded"`         // with X-Forwarded-For
	Host      string `json:"host"`
	Proto     string `json:"proto,omitempty"` // what a listed proxy says of the scheme
	TLS       bool   `json:"tls"`             // it came encrypted to the gateway itself
}

// alive answers healthz.
func alive(r *http.Request) Aliveness {
	if !r.URL.Query().Has("seen") {
		return Aliveness{Alive: true}
	}
	client := visitOf(r).client
	return Aliveness{Alive: true, Seen: &Seen{
		Address: client.Address.String(), Claimed: client.Claimed, Proxied: client.ViaTrusted, Forwarded: len(r.Header["X-Forwarded-For"]) > 0, Host: r.Host, Proto: client.Scheme, TLS: r.TLS != nil,
	}}
}

// health serves healthz (the process answers) and readyz (it can sign people in).
func (g *Gateway) health() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			problem.New(problem.MethodNotAllowed).Write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.URL.Path == healthzPath {
			_ = json.NewEncoder(w).Encode(alive(r)) // the client went away
			return
		}
		state := g.ready(r.Context())
		if !state.Ready {
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(state) // the client went away
	})
}
