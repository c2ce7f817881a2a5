package configs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// sound reports whether none of the settings has a problem of its own.
func (c *checker) sound(paths ...string) bool {
	return !slices.ContainsFunc(paths, func(path string) bool { return c.broken[path] })
}

// given reports whether a source sets the setting.
func (c *checker) given(path string) bool {
	_, ok := c.origins[path]
	return ok
}

// where names a setting and, if it has a place of its own, that.
func (c *checker) where(path string) string {
	if place, ok := c.origins[path]; ok {
		return fmt.Sprintf("%s (line %d)", path, place.Line)
	}
	return path
}

// routes holds the routes against the other settings and one another.
func (c *checker) routes() {
	if len(c.cfg.Routes) > 0 && !c.cfg.Upstream.IsZero() {
		c.problem("upstream", "and routes exclude one another; make the upstream a route of its own")
	}
	routes := c.cfg.AppRoutes()
	for i, r := range routes[:len(c.cfg.Routes)] {
		at := element("routes", i) + "."
		if !c.sound(element("routes", i)) {
			continue
		}
		c.routeHost(at, r)
		c.routeUpstreams(at, r)
		c.routeTLS(at, r)
		if r.StripPrefix && r.Path == "/" {
			c.problem(at+"strip_prefix", "has nothing to take off: the route has the path /")
		}
		c.unique(i, routes)
		c.rules(at, r)
	}
}

// routeHost checks a host against the login host.
func (c *checker) routeHost(at string, r Route) {
	external := c.cfg.ExternalURL
	switch {
	case !c.sound(at+"host", "external_url", "listen"):
	case len(c.cfg.Routes) > 1 && string(r.Host) == external.Host && !c.given(at+"host"):
		c.problem(at+"host", "must be given: without one a route is on the login host, which carries an app only where that is the only route")
	case len(c.cfg.Routes) > 1 && string(r.Host) == external.Host:
		c.problem(at+"host", "is %s, the login host, which carries an app only where that is the only route: an app there could read the passwords for all others", r.Host)
	case external.Scheme == "http" && !r.Host.local():
		c.problem(at+"host", "must be localhost or end in .localhost, because external_url is http: elsewhere browsers keep sign-in cookies for https only")
	}
}

// unique checks that no route before has the same name, or the same host and path.
func (c *checker) unique(i int, routes []Route) {
	at := element("routes", i)
	for j, other := range routes[:i] {
		before := element("routes", j)
		if c.sound(at+".host", at+".path", before+".host", before+".path") && routes[i].Host == other.Host && routes[i].Path == other.Path {
			c.problem(at, "has host %s and path %s, as %s has; put all its upstreams and rules into one route", other.Host, other.Path, c.where(before))
			return
		}
		if c.sound(at+".name", before+".name") && routes[i].Name == other.Name {
			c.problem(at+".name", "is %q, as that of %s; give each a name of its own", other.Name, c.where(before))
			return
		}
	}
}

// routeUpstreams refuses upstreams that lead back to the gateway: each request would come again until the descriptors run out.
func (c *checker) routeUpstreams(at string, r Route) {
	path := at + "upstreams"
	if !c.sound(path) {
		return
	}
	if len(r.Upstreams) == 0 && len(c.cfg.ForwardAuth.Peers) == 0 {
		c.problem(path, "must be given: the address of the app, as in [http://127.0.0.1:3000]")
	}
	for i, up := range r.Upstreams {
		own := c.ownListener(up.Origin)
		if own == "" && c.ownHost(up.Origin) {
			own = "the address of the gateway itself, as browsers see it"
		}
		switch {
		case own != "":
			c.problem(path, "holds %s, which is %s; give the app's own address", up, own)
		case slices.Contains(r.Upstreams[:i], up):
			c.problem(path, "holds %s twice", up)
		}
	}
}

// ownHost reports whether an origin is one of those that the gateway serves.
func (c *checker) ownHost(o Origin) bool {
	return o == c.cfg.ExternalURL || o.Scheme == c.cfg.ExternalURL.Scheme &&
		slices.ContainsFunc(c.cfg.AppRoutes()[:len(c.cfg.Routes)], func(r Route) bool { return string(r.Host) == o.Host })
}

func (c *checker) routeTLS(at string, r Route) {
	at += "tls."
	secure := slices.ContainsFunc(r.Upstreams, func(u Upstream) bool { return u.Scheme == "https" })
	for _, s := range []struct{ name, value string }{
		{"ca_file", r.TLS.CAFile}, {"cert_file", r.TLS.CertFile}, {"key_file", r.TLS.KeyFile}, {"server_name", r.TLS.ServerName},
	} {
		if s.value != "" && !secure && c.sound(strings.TrimSuffix(at, "tls.")+"upstreams") {
			c.problem(at+s.name, "is for upstreams with TLS, and none of the route begins with https://")
			return
		}
	}
	c.pair(at, r.TLS.CertFile, r.TLS.KeyFile)
}

// pair checks that a certificate and its key come together.
func (c *checker) pair(at, cert, key string) {
	switch {
	case cert != "" && key == "":
		c.problem(at+"cert_file", "needs %skey_file", at)
	case cert == "" && key != "":
		c.problem(at+"key_file", "needs %scert_file", at)
	}
}

// rules checks each rule by itself and against those before it.
func (c *checker) rules(at string, r Route) {
	for i, rule := range r.Rules {
		path := element(at+"rules", i)
		if !c.sound(path, path+".paths", path+".methods", path+".networks", path+".access") {
			continue
		}
		c.rule(path+".", rule)
		if c.sound(at+"path") && c.outside(rule, r.Path) {
			c.problem(path+".paths", "are not below %s, the path of the route, so the rule can never match; rules give paths from the root of the host", r.Path)
			continue
		}
		for j, before := range r.Rules[:i] {
			earlier := element(at+"rules", j)
			if c.sound(earlier, earlier+".paths", earlier+".methods", earlier+".networks") && before.covers(rule, r.Path) {
				c.problem(path, "can never match, because %s matches everything that it does and comes first", c.where(earlier))
				break
			}
		}
	}
}

// rule checks that who is asked for nothing is not asked for something.
func (c *checker) rule(at string, r Rule) {
	if r.Access == SignedIn {
		return
	}
	for _, s := range []struct {
		name  string
		given bool
	}{
		{"users", len(r.Users) > 0},
		{"groups", len(r.Groups) > 0},
		{"second_factor", r.SecondFactor},
		{"factor_within", r.FactorWithin > 0},
	} {
		if s.given {
			c.problem(at+s.name, "means nothing where access is %s; leave access out for people who are signed in", r.Access)
			return
		}
	}
}

// outside reports whether a rule has paths of which none has anything in common with the route's.
func (c *checker) outside(r Rule, route Path) bool {
	return len(r.Paths) > 0 && !slices.ContainsFunc(r.Paths, func(p Path) bool { return p.covers(route) || route.covers(p) })
}

// covers reports whether a rule of a route matches whenever another does.
func (r Rule) covers(other Rule, route Path) bool {
	return coversPaths(r.Paths, other.Paths, route) && coversMethods(r.Methods, other.Methods) && coversNetworks(r.Networks, other.Networks)
}

func coversPaths(these, others []Path, route Path) bool {
	if len(others) == 0 {
		others = []Path{route}
	}
	for _, other := range others {
		covered := func(p Path) bool { return p.covers(other) || p.covers(route) }
		if len(these) > 0 && !slices.ContainsFunc(these, covered) {
			return false
		}
	}
	return true
}

func coversMethods(these, others []Method) bool {
	if len(these) == 0 {
		return true
	}
	for _, other := range others {
		if !slices.Contains(these, other) && (other != "HEAD" || !slices.Contains(these, "GET")) {
			return false
		}
	}
	return len(others) > 0
}

func coversNetworks(these, others []Network) bool {
	if len(these) == 0 {
		return true
	}
	for _, other := range others {
		if !slices.ContainsFunc(these, func(n Network) bool { return contains(n.Prefix, other.Prefix) }) {
			return false
		}
	}
	return len(others) > 0
}

func contains(wide, narrow netip.Prefix) bool {
	return wide.Bits() <= narrow.Bits() && wide.Contains(narrow.Addr())
}
