// Package access decides which request may reach which app: routes by host and path, and in each route rules, of which the first
// that matches decides. The proxy, forward-auth and `gatehouse config explain` ask the same table, so they cannot disagree.
//
// It promises: what no rule allows is denied; a host is compared in one spelling and a wildcard stands for exactly one label; and
// what was matched is what the app sees. On a host whose rules distinguish paths, a path that some app could read in another way than
// this package does (dot segments, empty segments, encoded slashes, letters that are encoded without need, bytes that are no UTF-8)
// is refused, and so is one that a less exact reading (another case, path parameters, trailing dots and blanks, compatibility
// characters) would put under another rule (path.go).
//
// A decision is data: a verdict, a reason from a closed set, and which route and rule it comes from. Nothing here keeps state; a Table
// is never changed and safe for concurrent use.
package access

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The errors of Match.
var (
	// ErrNoHost: the host is none of the table's.
	ErrNoHost = errors.New("host is not served here")
	// ErrNoRoute: the host is one of the table's, and the path is under none of its routes.
	ErrNoRoute = errors.New("no route has this path")
	// ErrPath: the path can be read in more than one way.
	ErrPath = errors.New("path is ambiguous")
)

// Access says who passes a rule, before users, groups and factors are looked at.
type Access string

// The values of Access. The zero Access is SignedIn.
const (
	SignedIn Access = "signed-in"
	Public   Access = "public" // everybody, without a session
	Denied   Access = "denied" // nobody
)

// Rule is one line of a route. Paths, Methods and Networks select the requests that it decides; the rest says what it asks of them.
type Rule struct {
	// Paths are prefixes by whole segments, from the root of the host, decoded: "/a" is /a and everything below it. None: all paths.
	Paths []string
	// Methods that it is for, GET including HEAD. None: all.
	Methods []string
	// Networks that the client's address is in. None: all.
	Networks []netip.Prefix

	Access Access
	// Users and Groups: who is in any of either passes. None of both: everybody who is signed in.
	Users, Groups []string
	// SecondFactor asks that the session has used a second factor.
	SecondFactor bool
	// FactorWithin asks that it did so within this time; it implies SecondFactor. 0: at any time.
	FactorWithin time.Duration
}

// Route is the requests of one host, or of one part of its paths.
type Route struct {
	// Host as browsers write it: lower case, with a port unless it is the scheme's own. "*.example.com" is every name with one label
	// before example.com.
	Host string
	// Path is a prefix by whole segments, decoded; "/" or empty is every path. Of several routes of a host the longest decides.
	Path string
	// Rules in their order. None: one rule, signed in.
	Rules []Rule
	// EncodedSlashes lets %2F stand in a path; the strictest rule over both readings then decides.
	EncodedSlashes bool
}

// Table is routes, ready to be asked.
type Table struct {
	scheme    string
	routes    int
	exact     map[string]*host
	wildcards map[string]*host // by what follows the first label, with its dot
}

// host is the routes of one host, the longest path first.
type host struct {
	origin   string // empty for a wildcard
	routes   []*route
	discerns bool // what is allowed depends on the path
}

type route struct {
	index   int
	path    prefix
	rules   []rule
	encoded bool
}

type rule struct {
	Rule
	paths []prefix
}

// New makes a Table of routes of the hosts of one scheme, http or https. The error names the route by its index.
func New(scheme string, routes []Route) (*Table, error) {
	if scheme != "http" && scheme != "https" {
		return nil, fmt.Errorf("scheme %q is neither http nor https", scheme)
	}
	t := &Table{scheme: scheme, routes: len(routes), exact: map[string]*host{}, wildcards: map[string]*host{}}
	for i, r := range routes {
		if err := t.add(i, r); err != nil {
			return nil, fmt.Errorf("route %d: %w", i, err)
		}
	}
	for _, hosts := range [...]map[string]*host{t.exact, t.wildcards} {
		for _, h := range hosts {
			h.finish()
		}
	}
	return t, nil
}

func (t *Table) add(index int, r Route) error {
	path, err := newPrefix(r.Path)
	if err != nil {
		return err
	}
	ready := &route{index: index, path: path, encoded: r.EncodedSlashes}
	if len(r.Rules) == 0 {
		r.Rules = []Rule{{}}
	}
	for n, given := range r.Rules {
		one, err := newRule(given)
		if err != nil {
			return fmt.Errorf("rule %d: %w", n, err)
		}
		ready.rules = append(ready.rules, one)
	}
	at, err := t.host(r.Host)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(at.routes, func(other *route) bool { return slices.Equal(other.path.exact, path.exact) }) {
		return fmt.Errorf("another route has host %q and path %q", r.Host, r.Path)
	}
	at.routes = append(at.routes, ready)
	return nil
}

func newRule(given Rule) (rule, error) {
	switch given.Access {
	case "":
		given.Access = SignedIn
	case SignedIn:
	case Public, Denied:
		if len(given.Users)+len(given.Groups) > 0 || given.SecondFactor || given.FactorWithin > 0 {
			return rule{}, fmt.Errorf("%s asks nothing of users, groups or factors", given.Access)
		}
	default:
		return rule{}, fmt.Errorf("access %q is none of public, signed-in and denied", given.Access)
	}
	if given.FactorWithin < 0 {
		return rule{}, errors.New("the time of a factor is negative")
	}
	out := rule{Rule: given}
	for _, p := range given.Paths {
		ready, err := newPrefix(p)
		if err != nil {
			return rule{}, err
		}
		out.paths = append(out.paths, ready)
	}
	return out, nil
}

// host returns the entry of a host or wildcard, and makes it where there is none.
func (t *Table) host(name string) (*host, error) {
	if name == "" || name != CanonicalHost(name, t.scheme) {
		return nil, fmt.Errorf("host %q: browsers write it %q", name, CanonicalHost(name, t.scheme))
	}
	hosts, key, origin := t.exact, name, t.scheme+"://"+name
	if rest, wildcard := strings.CutPrefix(name, "*"); wildcard {
		if !strings.HasPrefix(rest, ".") || len(rest) < 2 {
			return nil, fmt.Errorf("host %q: a wildcard stands for the whole first label, as in *.example.com", name)
		}
		hosts, key, origin = t.wildcards, rest, ""
	}
	if strings.Contains(key, "*") {
		return nil, fmt.Errorf("host %q: a wildcard stands for the whole first label, as in *.example.com", name)
	}
	if hosts[key] == nil {
		hosts[key] = &host{origin: origin}
	}
	return hosts[key], nil
}

// finish puts the routes into the order in which they are tried.
func (h *host) finish() {
	slices.SortStableFunc(h.routes, func(a, b *route) int { return len(b.path.exact) - len(a.path.exact) })
	for _, r := range h.routes {
		h.discerns = h.discerns || len(r.path.exact) > 0
		for _, one := range r.rules {
			h.discerns = h.discerns || len(one.paths) > 0
		}
	}
}

// CanonicalHost writes a Host as browsers write it in an origin of the scheme: lower case, without the root's dot and without the scheme's own
// port.
func CanonicalHost(host, scheme string) string {
	host = strings.ToLower(host)
	name, port := host, ""
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		name, port = host[:colon], host[colon:]
	}
	if strings.Contains(name, ":") && name[0] != '[' {
		return host // two ports, which must not become one
	}
	name = strings.TrimSuffix(name, ".")
	if port == ":" || scheme == "http" && port == ":80" || scheme == "https" && port == ":443" {
		port = ""
	}
	return name + port
}

// Routes returns how many routes the table is made of.
func (t *Table) Routes() int { return t.routes }

// Origin returns the origin of a host of the table, as browsers write it, and false if the host is none of the table's.
func (t *Table) Origin(host string) (string, bool) {
	_, origin := t.find(host)
	return origin, origin != ""
}

// find returns the routes of a Host, in any spelling of it, and its origin.
func (t *Table) find(name string) (*host, string) {
	if h := t.exact[name]; h != nil {
		return h, h.origin
	}
	name = CanonicalHost(name, t.scheme)
	if h := t.exact[name]; h != nil {
		return h, h.origin
	}
	dot := strings.IndexByte(name, '.')
	if dot < 0 || !isLabel(name[:dot]) {
		return nil, ""
	}
	if h := t.wildcards[name[dot:]]; h != nil {
		return h, t.scheme + "://" + name
	}
	return nil, ""
}

// isLabel reports whether a text is one label of a DNS name, in lower case.
func isLabel(text string) bool {
	if text == "" || len(text) > 63 || text[0] == '-' || text[len(text)-1] == '-' {
		return false
	}
	for i := range len(text) {
		if c := text[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// Request is what a decision is made of, before it is known who sends it.
type Request struct {
	Host    string // as it was sent
	Path    string // as it was sent, without the query
	Method  string
	Address netip.Addr // of the client
}

// Match is where a request belongs.
type Match struct {
	// Origin is the host as browsers write it.
	Origin string
	// Route is the index of the route.
	Route int

	rules  [2]*rule // that decide: two where two readings of the path have different ones; nil if there is none
	index  [2]int
	chosen int // how many of them count
}

// Match finds the route of a request and the rule that decides it. It returns ErrNoHost, ErrNoRoute and ErrPath.
func (t *Table) Match(r Request) (Match, error) {
	at, origin := t.find(r.Host)
	if at == nil {
		return Match{}, ErrNoHost
	}
	m := Match{Origin: origin}
	if !at.discerns {
		only := at.routes[0]
		m.Route = only.index
		m.choose(only.decides(r, nil, false))
		return m, nil
	}
	return at.match(m, r)
}

// match is Match for a host on which it matters how a path reads.
func (h *host) match(m Match, r Request) (Match, error) {
	read, ok := readPath(r.Path)
	if !ok {
		return m, ErrPath
	}
	chosen := h.route(read.exact, false)
	switch {
	case chosen == nil && h.route(read.loose, true) == nil:
		return m, ErrNoRoute
	case chosen == nil || read.slashes != nil && !chosen.encoded:
		return m, ErrPath
	}
	m.Route = chosen.index
	if h.route(read.loose, true) != chosen {
		return m, ErrPath
	}
	first, at := chosen.decides(r, read.exact, false)
	if other, _ := chosen.decides(r, read.loose, true); other != first {
		return m, ErrPath
	}
	m.choose(first, at)
	if read.slashes == nil {
		return m, nil
	}
	if h.route(read.slashes, true) != chosen {
		return m, ErrPath
	}
	m.choose(chosen.decides(r, read.slashes, true))
	return m, nil
}

func (m *Match) choose(one *rule, index int) {
	if m.chosen == 1 && m.rules[0] == one {
		return
	}
	m.rules[m.chosen], m.index[m.chosen] = one, index
	m.chosen++
}

// route is the route with the longest prefix of a path; nil if there is none.
func (h *host) route(segments []string, loose bool) *route {
	for _, r := range h.routes {
		if r.path.covers(segments, loose) {
			return r
		}
	}
	return nil
}

// decides returns the first rule for a request, with its index; nil and -1 if there is none.
func (r *route) decides(request Request, segments []string, loose bool) (*rule, int) {
	for i := range r.rules {
		if r.rules[i].selects(request, segments, loose) {
			return &r.rules[i], i
		}
	}
	return nil, -1
}

func (r *rule) selects(request Request, segments []string, loose bool) bool {
	if len(r.paths) > 0 && !slices.ContainsFunc(r.paths, func(p prefix) bool { return p.covers(segments, loose) }) {
		return false
	}
	if len(r.Methods) > 0 && !slices.Contains(r.Methods, request.Method) &&
		(request.Method != "HEAD" || !slices.Contains(r.Methods, "GET")) {
		return false
	}
	return len(r.Networks) == 0 || slices.ContainsFunc(r.Networks, func(p netip.Prefix) bool { return p.Contains(request.Address.Unmap()) })
}
