package gateway

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"gatehouse/access"
	"gatehouse/configs"
	"gatehouse/proxy"
	"gatehouse/web"
)

// Table makes the table of what the configuration lets through. The error names the route.
func Table(config configs.Config) (*access.Table, error) {
	var routes []access.Route
	for _, r := range config.AppRoutes() {
		one := access.Route{Host: string(r.Host), Path: string(r.Path), EncodedSlashes: r.EncodedSlashes}
		for _, rule := range r.Rules {
			one.Rules = append(one.Rules, accessRule(rule))
		}
		routes = append(routes, one)
	}
	table, err := access.New(config.ExternalURL.Scheme, routes)
	if err != nil {
		return nil, fmt.Errorf("read the routes: %w", err)
	}
	return table, nil
}

func accessRule(r configs.Rule) access.Rule {
	networks := make([]netip.Prefix, len(r.Networks))
	for i, n := range r.Networks {
		networks[i] = n.Prefix
	}
	return access.Rule{
		Paths: texts(r.Paths), Methods: texts(r.Methods), Networks: networks, Access: access.Access(r.Access), Users: texts(r.Users),
		Groups: texts(r.Groups), SecondFactor: r.SecondFactor, FactorWithin: r.FactorWithin,
	}
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, text := range list {
		out[i] = string(text)
	}
	return out
}

// LoginHostHasApp reports whether an app answers on the login host, which a wildcard does not make one.
func LoginHostHasApp(config configs.Config) bool {
	routes := config.AppRoutes()
	return len(routes) == 1 && string(routes[0].Host) == config.ExternalURL.Host
}

// needsSample reports whether the built-in sample app stands in for one that nobody has named.
func (g *assembly) needsSample() bool { return len(g.config.Routes) == 0 && g.config.Upstream.IsZero() }

// routes makes what the proxy does with the requests of each route of the table, by its index there.
func (g *assembly) routes() ([]proxy.Route, error) {
	var out []proxy.Route
	for _, r := range g.config.AppRoutes() {
		one := proxy.Route{
			Name: string(r.Name), DialTimeout: r.DialTimeout, AnswerTimeout: r.ResponseHeaderTimeout, IdleTimeout: r.IdleTimeout,
			HeaderPreset: proxy.Preset(r.HeaderPreset), UpstreamHost: r.HostHeader == configs.HostUpstream, BodyLimit: int64(r.BodyLimit),
			RefuseWhileStoreAway: r.WhenStoreIsAway == configs.Refuse,
		}
		if r.StripPrefix {
			one.StripPrefix = string(r.Path)
		}
		for _, up := range r.Upstreams {
			one.Upstreams = append(one.Upstreams, up.URL())
		}
		if g.needsSample() {
			one.Upstreams = []*url.URL{g.sample.url}
		}
		for _, origin := range r.WebSocketOrigins {
			one.WebSocketOrigins = append(one.WebSocketOrigins, origin.String())
		}
		var err error
		if one.TLS, err = upstreamTLS(r.TLS); err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		out = append(out, one)
	}
	return out, nil
}

// upstreamTLS reads the files of a route.
func upstreamTLS(t configs.UpstreamTLS) (proxy.UpstreamTLS, error) {
	out := proxy.UpstreamTLS{ServerName: t.ServerName}
	if t.CAFile != "" {
		var err error
		if out.Roots, err = authorities(t.CAFile); err != nil {
			return out, fmt.Errorf("read tls.ca_file: %w", err)
		}
	}
	if t.CertFile != "" {
		pair, err := keyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return out, fmt.Errorf("read tls.cert_file and tls.key_file: %w", err)
		}
		out.Certificate = &pair
	}
	return out, nil
}

// keyPair is tls.LoadX509KeyPair that does not wait for a pipe.
func keyPair(certFile, keyFile string) (tls.Certificate, error) {
	certificate, err := configs.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := configs.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certificate, key)
}

// apps are the apps as browsers find them; none while there is only the sample app.
func (g *assembly) apps() []web.App {
	if g.needsSample() {
		return nil
	}
	var all []web.App
	for _, r := range g.config.AppRoutes() {
		one := web.App{Name: strings.TrimSuffix(string(r.Host)+string(r.Path), "/")}
		if !strings.HasPrefix(one.Name, "*") {
			one.URL = g.config.ExternalURL.Scheme + "://" + string(r.Host) + string(r.Path)
		}
		all = append(all, one)
	}
	return all
}

// fronts says in a few words what the gateway stands in front of; empty for the sample app.
func (g *assembly) fronts() string {
	if len(g.config.Routes) == 0 {
		return g.config.Upstream.String()
	}
	var all []string
	for _, app := range g.apps() {
		all = append(all, app.Name)
	}
	return strings.Join(all, ", ")
}
