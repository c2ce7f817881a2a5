package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The bounds of the scan.
const (
	maxHosts    = 16
	atOnce      = 64
	connectTime = 500 * time.Millisecond
	scanTime    = time.Minute
)

// further are ports above 1024 at which apps, their databases and their tools listen by default.
var further = []int{
	1880, 2375, 3000, 3001, 3306, 4000, 5000, 5432, 5601, 6379, 8000, 8008, 8080, 8081, 8086, 8096, 8123, 8443, 8888, 9000, 9090, 9091, 9100, 9200,
	9443, 11211, 27017,
}

// Ports are those that are scanned beside the configured ones: 1 to 1024, and some at which apps and databases listen by default.
func Ports() []int {
	ports := make([]int, 0, 1024+len(further))
	for p := 1; p <= 1024; p++ {
		ports = append(ports, p)
	}
	return append(ports, further...)
}

// upstreams asks every app, as the gateway does.
func (e *examination) upstreams(ctx context.Context) {
	for _, u := range e.Upstreams {
		status, err := u.ask(ctx)
		if err != nil {
			fix := "start the app, let it listen on that address, and let the firewall pass the gateway"
			if bad := (*tls.CertificateVerificationError)(nil); errors.As(err, &bad) {
				fix = "name the app's authority in tls.ca_file of the route, or the name in its certificate in tls.server_name"
			}
			e.finding("upstreams", fmt.Sprintf("%s (route %s) does not answer from here: %v", u.URL, u.Route, err), "people who have signed in get 502", fix)
			continue
		}
		e.ok("upstreams", "%s (route %s) answers: %s", u.URL, u.Route, status)
	}
}

func (u Upstream) ask(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if u.URL.Scheme == "h2c" { // whose HTTP/1.1 nobody has to speak
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.address())
		if err != nil {
			return "", err
		}
		return "connected", conn.Close()
	}
	transport := &http.Transport{TLSClientConfig: u.TLS, DisableKeepAlives: true}
	status := ""
	for _, method := range []string{http.MethodHead, http.MethodGet} { // some apps have no HEAD
		r, err := http.NewRequestWithContext(ctx, method, u.URL.String()+"/", nil)
		if err != nil {
			return "", err
		}
		response, err := transport.RoundTrip(r)
		if err != nil {
			return "", err
		}
		_ = response.Body.Close() // unread: the status says it all
		status = response.Status
		if response.StatusCode != http.StatusNotImplemented && response.StatusCode != http.StatusMethodNotAllowed {
			break
		}
	}
	return status, nil
}

func (u Upstream) address() string {
	port := u.URL.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.URL.Scheme]
	}
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.URL.Hostname(), port)
}

// around looks from here for ways to the apps that do not lead through the gateway.
func (e *examination) around(ctx context.Context) {
	routes := map[string]map[int]string{} // route by host and configured port
	for _, u := range e.Upstreams {
		host, port, _ := net.SplitHostPort(u.address())
		number, _ := strconv.Atoi(port)
		if routes[host] == nil {
			routes[host] = map[int]string{}
		}
		routes[host][number] = u.Route
	}
	hosts := sortedKeys(routes)
	if len(hosts) > maxHosts {
		e.finding("around the gateway", fmt.Sprintf("%d of %d upstream hosts were not scanned", len(hosts)-maxHosts, len(hosts)), "a way around could be there", "run it with a configuration of the other routes")
		hosts = hosts[:maxHosts]
	}
	ctx, cancel := context.WithTimeout(ctx, scanTime)
	defer cancel()
	for _, host := range hosts {
		if onLoopback(ctx, host) {
			e.beside(ctx, routes[host])
			continue
		}
		ports := e.Ports
		if ports == nil {
			ports = Ports()
		}
		for port := range routes[host] {
			if !slices.Contains(ports, port) {
				ports = append(slices.Clone(ports), port)
			}
		}
		e.report(host, routes[host], scan(ctx, host, ports), len(ports))
	}
	if ctx.Err() != nil {
		e.finding("around the gateway", "the scan ran out of time after "+scanTime.String(), "what it did not come to is not known", "run it again, nearer to the upstream hosts")
	}
}

// onLoopback reports whether a host is this machine and nothing that others could reach: what listens there is as it should be.
func onLoopback(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", resolvable(strings.Trim(host, "[]")))
	other := func(a netip.Addr) bool { return !a.Unmap().IsLoopback() }
	return err == nil && len(addresses) > 0 && !slices.ContainsFunc(addresses, other)
}

// beside looks whether apps on loopback listen at the machine's other addresses too: only these can be reached from elsewhere.
func (e *examination) beside(ctx context.Context, routes map[int]string) {
	const check = "around the gateway"
	addresses := e.Addresses
	if addresses == nil {
		addresses = ownAddresses()
	}
	ports := slices.Sorted(maps.Keys(routes))
	free := true
	for _, address := range addresses {
		for _, port := range scan(ctx, address.String(), ports) {
			free = false
			e.finding(check, fmt.Sprintf("the app of route %s listens at %s too, and not on loopback alone", routes[port], netip.AddrPortFrom(address, uint16(port))),
				"who reaches the app around the gateway needs no login, and can send any Remote-User",
				fmt.Sprintf("let the app listen on 127.0.0.1:%d; a container, publish as 127.0.0.1:%d:PORT. Where a firewall refuses everybody else it is none", port, port))
		}
	}
	if free {
		e.ok(check, "what listens on loopback alone (route %s) cannot be reached from elsewhere", named(routes))
	}
}

// named lists routes.
func named(routes map[int]string) string {
	return strings.Join(slices.Compact(slices.Sorted(maps.Values(routes))), ", ")
}

// ownAddresses are those of this machine but loopback, and link-local ones, which mean nothing without an interface.
func ownAddresses() []netip.Addr {
	all, _ := net.InterfaceAddrs() // none is found where none can be listed
	var own []netip.Addr
	for _, one := range all {
		prefix, err := netip.ParsePrefix(one.String())
		if addr := prefix.Addr().Unmap(); err == nil && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
			own = append(own, addr)
		}
	}
	return own
}

// report says what the open ports of a host mean.
func (e *examination) report(host string, routes map[int]string, open []int, scanned int) {
	const check = "around the gateway"
	for _, port := range open {
		address := net.JoinHostPort(host, strconv.Itoa(port))
		if route, is := routes[port]; is {
			e.finding(check, fmt.Sprintf("%s, the app of route %s, accepts connections from here", address, route),
				"who reaches the app around the gateway needs no login, and can send any Remote-User",
				fmt.Sprintf("let only the gateway connect: the app on loopback or in a network of its own, or a firewall rule, as in: nft add rule inet filter input ip saddr != GATEWAY tcp dport %d drop. "+
					"From the gateway's own machine this port must be open: there, run with --no-scan", port))
			continue
		}
		e.finding(check, address+" accepts connections from here", "it may be another way to the app, its data or its machine",
			fmt.Sprintf("if nobody here needs it, close it: stop what listens (ss -ltnp 'sport = :%d' on that machine), or let the firewall refuse it", port))
	}
	if len(open) == 0 {
		e.ok(check, "of %d ports of %s none accepts connections from here", scanned, host)
	}
}

// scan connects to each port and hangs up. It returns those that accept, in order.
func scan(ctx context.Context, host string, ports []int) []int {
	var mu sync.Mutex
	var open []int
	var workers sync.WaitGroup
	next := make(chan int)
	for range atOnce {
		workers.Go(func() {
			dialer := net.Dialer{Timeout: connectTime}
			for port := range next {
				conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port)))
				if err != nil {
					continue
				}
				_ = conn.Close()
				mu.Lock()
				open = append(open, port)
				mu.Unlock()
			}
		})
	}
	for _, port := range ports {
		select {
		case next <- port:
		case <-ctx.Done():
		}
	}
	close(next)
	workers.Wait()
	slices.Sort(open)
	return open
}
