package snippet

import (
	"fmt"
	"slices"
	"strings"
)

// haproxySpellings matches the identity headers and certificates of clients, and what would name another path, in every spelling that some app
// reads as one.
const haproxySpellings = `"^(remote|x[-_.]remote|x[-_.]auth|x[-_.]gatehouse|x[-_.]original|x[-_.]rewrite|x[_.]forwarded|x-forwarded[_.]|x-forwarded-(user|preferred|email|groups)|` +
	`proxy\$|(x[-_.])?ssl[-_.]client|(x[-_.])?client[-_.]cert)"`

// haproxy writes sections for haproxy.cfg.
func (t *text) haproxy(s Site) {
	t.head("HAProxy")
	t.line("#")
	t.line("# The action that asks is written by `gatehouse config snippet haproxy --lua > /etc/haproxy/gatehouse.lua`.")
	t.line("")
	t.line("global")
	t.line("    lua-load /etc/haproxy/gatehouse.lua")
	ports := map[string][]host{}
	var order []string
	for _, h := range s.hosts() {
		_, port := s.split(h.name)
		if !slices.Contains(order, port) {
			order = append(order, port)
		}
		ports[port] = append(ports[port], h)
	}
	for _, port := range order {
		t.haproxyFrontend(s, port, exactFirst(ports[port]))
	}
	t.haproxyBackend("gatehouse", []string{s.Gateway})
	for _, a := range s.Apps {
		if !a.Through {
			t.haproxyBackend("app-"+a.Name, a.addresses())
		}
	}
}

// exactFirst moves wildcards to the end.
func exactFirst(hosts []host) []host {
	wildcard := func(h host) int {
		if strings.HasPrefix(h.name, "*.") {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(hosts, func(a, b host) int { return wildcard(a) - wildcard(b) })
	return hosts
}

func (t *text) haproxyFrontend(s Site, port string, hosts []host) {
	t.line("")
	t.line("frontend gatehouse-%s", port)
	t.line("    mode http")
	if s.Scheme == "https" {
		t.line("    bind %s:%s ssl crt /etc/ssl/private/ alpn h2,http/1.1", s.shared(hosts), port)
	} else {
		t.line("    bind %s:%s", s.shared(hosts), port)
	}
	t.line("    timeout client 1h")
	t.line("    http-request set-header X-Forwarded-For %%[src]")
	t.line("    http-request set-header X-Forwarded-Proto %s", s.Scheme)
	t.line("    http-request set-header X-Forwarded-Host %%[req.hdr(host)]")
	t.line("    http-request deny deny_status 404 if { path,url_dec,concat(/) -m beg /.gatehouse/authz/ }")
	t.line("    http-request set-var(txn.gatehouse) str(gatehouse) if { path,concat(/) -m beg /.gatehouse/ }")
	for _, h := range hosts {
		name, _ := s.split(h.name)
		for _, a := range h.apps {
			t.haproxyRoute(name, a)
		}
	}
	t.line("    http-request del-header %s -m reg if { var(txn.gatehouse) -m beg app- }", haproxySpellings)
	t.line("    http-request lua.gatehouse http://%s if { var(txn.gatehouse) -m beg app- }", s.Gateway)
	t.line("    http-request deny deny_status 503 if { var(txn.gatehouse) -m beg app- } !{ var(txn.gatehouse_pass) -m bool }")
	t.line("    use_backend %%[var(txn.gatehouse)] if { var(txn.gatehouse) -m found }")
	t.line("    default_backend gatehouse")
}

// haproxyRoute names the backend of a route's requests. The first that matches counts, so the longest path of a host comes first.
func (t *text) haproxyRoute(name string, a App) {
	host := "-m str " + name
	if rest, wildcard := strings.CutPrefix(name, "*"); wildcard {
		host = "-m end " + rest
	}
	path := ""
	if a.Path != "/" {
		path = fmt.Sprintf(" { path,concat(/) -m beg %s/ }", strings.ReplaceAll(a.Path, " ", `\ `))
	}
	to := "app-" + a.Name
	if a.Through {
		to = "gatehouse"
	}
	t.line("    http-request set-var(txn.gatehouse) str(%s) if !{ var(txn.gatehouse) -m found } { req.hdr(host),field(1,:),lower %s }%s", to, host, path)
}

func (t *text) haproxyBackend(name string, addresses []string) {
	t.line("")
	t.line("backend %s", name)
	t.line("    mode http")
	t.line("    timeout connect 5s")
	t.line("    timeout server 1h")
	t.line("    timeout tunnel 24h")
	for i, address := range addresses {
		t.line("    server s%d %s", i+1, address)
	}
}
