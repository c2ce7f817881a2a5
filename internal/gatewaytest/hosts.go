package gatewaytest

import (
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"gatehouse/configs"
)

// Person is somebody at one browser who visits several hosts: each has its own cookies, and redirects are followed over all of them.
// Hosts must be under .localhost, on the gateway's port.
type Person struct {
	t     testing.TB
	hosts map[string]*Browser // by origin
	first *Browser
}

// NewPerson makes a person whose browser knows nothing yet.
func (g *Gateway) NewPerson() *Person {
	first := g.NewBrowser()
	return &Person{t: g.t, first: first, hosts: map[string]*Browser{g.URL: first}}
}

// Through is the same person when a balancer sends the browser to another gateway.
func (p *Person) Through(g *Gateway) *Person {
	other := &Person{t: p.t, first: p.first.Through(g), hosts: map[string]*Browser{}}
	for origin, b := range p.hosts {
		other.hosts[origin] = b.Through(g)
	}
	return other
}

// At is the browser with the cookies of a host, given by its origin.
func (p *Person) At(origin string) *Browser {
	if p.hosts[origin] == nil {
		b := *p.first
		b.base, b.Jar = origin, map[string]string{}
		p.hosts[origin] = &b
	}
	return p.hosts[origin]
}

// Hop is one answer on the way, and where it came from.
type Hop struct {
	Address string
	Answer
}

// maxHops is where Chromium stops.
const maxHops = 20

// Go opens an address and follows its redirects, as a browser does. It returns every answer, the last one at the end.
func (p *Person) Go(address string) []Hop {
	p.t.Helper()
	return p.Follow(address, p.get(address))
}

// Follow is Go after an answer that the person has already, from somewhere on the host of address.
func (p *Person) Follow(address string, answer Answer) []Hop {
	p.t.Helper()
	hops := []Hop{{address, answer}}
	for answer.StatusCode/100 == 3 {
		if len(hops) > maxHops {
			p.t.Fatalf("%s: redirected in a circle: %s", address, answer.Header.Get("Location"))
		}
		at, err := url.Parse(address)
		if err != nil {
			p.t.Fatal(err)
		}
		to, err := at.Parse(answer.Header.Get("Location"))
		if err != nil {
			p.t.Fatal(err)
		}
		address = to.String()
		answer = p.get(address)
		hops = append(hops, Hop{address, answer})
	}
	return hops
}

func (p *Person) get(address string) Answer {
	p.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.At(u.Scheme + "://" + u.Host).Get(address)
}

// Cookies are all that the browser holds, by origin.
func (p *Person) Cookies() map[string]map[string]string {
	all := map[string]map[string]string{}
	for origin, b := range p.hosts {
		all[origin] = maps.Clone(b.Jar)
	}
	return all
}

// SignIn fills in the login page that a way led to, and returns the way from there.
func (p *Person) SignIn(g *Gateway, way []Hop, name, secret string) []Hop {
	p.t.Helper()
	page := way[len(way)-1]
	u, err := url.Parse(page.Address)
	if err != nil {
		p.t.Fatal(err)
	}
	login := p.At(u.Scheme + "://" + u.Host)
	next := url.Values{"next": {u.Query().Get("next")}}
	form := maps.Clone(next)
	form.Set("username", name)
	form.Set("password", Password)
	form.Set("form_token", FormToken(p.t, page.Text))
	answer := login.PostForm(u.Path, form)
	if answer.StatusCode != http.StatusSeeOther {
		p.t.Fatalf("password: %d %s", answer.StatusCode, answer.Text)
	}
	code := login.Get(answer.Header.Get("Location"))
	next.Set("code", g.Code(secret))
	next.Set("form_token", FormToken(p.t, code.Text))
	return p.Follow(page.Address, login.PostForm("/.gatehouse/login/code", next))
}

// Hosts makes a configuration of a login host without an app and of apps on hosts of other names, in front of upstreams.
func Hosts(t testing.TB, upstreams map[string]string) func(*configs.Config) {
	t.Helper()
	return func(c *configs.Config) {
		if err := c.ExternalURL.UnmarshalText([]byte("http://login.localhost:" + portOf(c.Listen))); err != nil {
			t.Fatal(err)
		}
		c.Upstream = configs.Origin{}
		for host, address := range upstreams {
			var up configs.Upstream
			if err := up.UnmarshalText([]byte(address)); err != nil {
				t.Fatal(err)
			}
			c.Routes = append(c.Routes, configs.Route{Host: configs.Host(host), Upstreams: []configs.Upstream{up}})
		}
	}
}

// Host is the origin of a host under .localhost on the gateway's port.
func (g *Gateway) Host(name string) string { return "http://" + name + ":" + portOf(g.Origin.Host) }

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return address[strings.LastIndexByte(address, ':')+1:]
	}
	return port
}
