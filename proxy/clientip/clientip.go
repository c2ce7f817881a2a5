// Package clientip finds the address of the client behind proxies that the operator listed.
//
// It promises: nobody's forwarding headers are believed unless the socket peer is listed, and by default nobody is; the
// walk over X-Forwarded-For goes from the right, over all its lines in order, and never further than the first address that
// is not listed or the first item that is not an address; and one client has one spelling, however its address arrives
// (IPv4-mapped, with a port, in brackets, with a zone). The other forwarding headers, Forwarded (RFC 7239) among them, are
// never believed: two headers that disagree would be two truths.
package clientip

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

const (
	// maxHops is the longest way that is walked, in proxies.
	maxHops = 100
	// maxForwarded is how much of X-Forwarded-For is walked, in bytes from the right.
	maxForwarded = 8 << 10
	// maxClaimed is how much of a claim is kept, in bytes.
	maxClaimed = 256
)

// Client is where a request came from.
type Client struct {
	// Address is the client: unmapped, without zone. It is the zero Addr, which is no address, only if the socket peer
	// has none.
	Address netip.Addr
	// ViaTrusted reports whether a listed proxy brought the request.
	ViaTrusted bool
	// Claimed is what was said about the way of the request but not believed, for the record: at most 256 bytes of an
	// attacker's text.
	Claimed string
	// Scheme ("http" or "https") and Host are what the listed proxy next to us says the client asked for; empty if it says
	// nothing, or more than one thing. They are for messages: cookies and links never depend on them.
	Scheme, Host string
}

// Resolver knows the listed proxies. It is safe for concurrent use.
type Resolver struct {
	trusted []netip.Prefix
}

// New makes a Resolver that believes the proxies in the given prefixes; with none it believes nobody. A prefix of
// IPv4-mapped addresses counts as its IPv4 prefix.
func New(trusted []netip.Prefix) *Resolver {
	prefixes := make([]netip.Prefix, 0, len(trusted))
	for _, p := range trusted {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		prefixes = append(prefixes, p.Masked())
	}
	return &Resolver{trusted: prefixes}
}

// Resolve finds the client of a request.
func (s *Resolver) Resolve(r *http.Request) Client {
	peer, ok := parsePeer(r.RemoteAddr)
	if !ok || !s.listed(peer) {
		return Client{Address: peer, Claimed: claims(r.Header)}
	}
	address, rest := s.walk(peer, r.Header.Values("X-Forwarded-For"))
	return Client{
		Address:    address,
		ViaTrusted: true,
		Claimed:    cut(rest),
		Scheme:     scheme(r.Header),
		Host:       single(r.Header, "X-Forwarded-Host"),
	}
}

// Lists reports whether the socket peer of a request is one of the listed proxies.
func (s *Resolver) Lists(r *http.Request) bool {
	peer, ok := parsePeer(r.RemoteAddr)
	return ok && s.listed(peer)
}

// walk follows the hops from the right, starting at a listed peer. It returns the client and what is left of the header to
// its left, which only the client itself vouches for.
func (s *Resolver) walk(peer netip.Addr, lines []string) (netip.Addr, string) {
	rest := strings.Join(lines, ",") // RFC 9110, section 5.3: several lines are one list
	walkable := len(rest) - maxForwarded
	address := peer
	for range maxHops {
		comma := strings.LastIndexByte(rest, ',')
		// The item is believed because address, which is listed, wrote it.
		hop, ok := parseHop(trimSpace(rest[comma+1:]))
		if !ok || comma+1 < walkable {
			break
		}
		address, rest = hop, rest[:max(comma, 0)]
		if comma < 0 || !s.listed(address) {
			break
		}
	}
	return address, rest
}

func (s *Resolver) listed(a netip.Addr) bool {
	return slices.ContainsFunc(s.trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}

// parsePeer reads the address of the socket, which net/http writes with its port. It stands apart from parseHop because every
// request comes through here, and an attempt that fails costs more than one that does not.
func parsePeer(text string) (netip.Addr, bool) {
	peer, err := netip.ParseAddrPort(text)
	if err != nil {
		return parseHop(text)
	}
	return peer.Addr().WithZone("").Unmap(), true
}

// parseHop reads an address with or without port, brackets and zone.
func parseHop(text string) (netip.Addr, bool) {
	if len(text) > 128 { // far beyond the longest address with its zone and port
		return netip.Addr{}, false
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		var withPort netip.AddrPort
		if withPort, err = netip.ParseAddrPort(text); err == nil {
			address = withPort.Addr()
		}
	}
	if err != nil {
		inner, bracketed := strings.CutPrefix(text, "[")
		inner, closed := strings.CutSuffix(inner, "]")
		if !bracketed || !closed {
			return netip.Addr{}, false
		}
		if address, err = netip.ParseAddr(inner); err != nil || !address.Is6() {
			return netip.Addr{}, false
		}
	}
	return address.WithZone("").Unmap(), true
}

// trimSpace takes the optional whitespace of RFC 9110, section 5.6.3, off; nothing else counts as white.
func trimSpace(s string) string { return strings.Trim(s, " \t") }

// scheme is the single scheme that the peer names, or nothing.
func scheme(h http.Header) string {
	switch s := strings.ToLower(single(h, "X-Forwarded-Proto")); s {
	case "http", "https":
		return s
	}
	return ""
}

// single is the value of a header that is there once and holds one item; else nothing. A client's own line beside the
// proxy's makes two.
func single(h http.Header, name string) string {
	lines := h.Values(name)
	if len(lines) != 1 || strings.Contains(lines[0], ",") || len(lines[0]) > maxClaimed {
		return ""
	}
	return trimSpace(lines[0])
}

// claimNames are the headers in which clients and proxies name an address, as net/http spells them.
var claimNames = [...]string{
	"X-Forwarded-For", "Forwarded", "X-Real-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "X-Client-Ip", "X-Cluster-Client-Ip",
}

// claims is what the forwarding headers of a peer that is not listed say.
func claims(h http.Header) string {
	var b strings.Builder
	for _, name := range claimNames {
		for _, value := range h[name] {
			if b.Len() > 0 {
				b.WriteString("; ")
			}
			b.WriteString(name + ": " + cut(value))
			if b.Len() >= maxClaimed {
				return cut(b.String())
			}
		}
	}
	return b.String()
}

func cut(s string) string { return strings.Clone(s[:min(len(s), maxClaimed)]) }

// Network is the network of an address: its /24, or its /64 for IPv6. The network of no address is the zero Prefix.
func Network(address netip.Addr) netip.Prefix {
	if !address.IsValid() {
		return netip.Prefix{}
	}
	address = address.WithZone("").Unmap()
	bits := 64
	if address.Is4() {
		bits = 24
	}
	network, err := address.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // not reached: both lengths are within both families
	}
	return network
}
