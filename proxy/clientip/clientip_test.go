package clientip_test

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"gatehouse/proxy/clientip"
)

func request(peer string, header ...string) *http.Request {
	r := &http.Request{RemoteAddr: peer, Header: http.Header{}}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func prefixes(t testing.TB, texts ...string) []netip.Prefix {
	t.Helper()
	var all []netip.Prefix
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// RL-03 of the attack catalogue: the right-most walk.
func TestResolver_walksFromTheRight(t *testing.T) {
	t.Parallel()
	resolver := clientip.New(prefixes(t, "127.0.0.2/32", "10.0.0.0/8", "fd00::/8"))
	const peer = "127.0.0.2:4711"
	tests := []struct {
		name  string
		lines []string
		want  string
	}{
		{"no header: the proxy itself", nil, "127.0.0.2"},
		{"one client", []string{"9.9.9.9"}, "9.9.9.9"},
		{"the client's own claim on the left", []string{"1.1.1.1, 9.9.9.9"}, "9.9.9.9"},
		{"through a second listed proxy", []string{"9.9.9.9, 10.0.0.1"}, "9.9.9.9"},
		{"two lines are one list", []string{"9.9.9.9", "10.0.0.1"}, "9.9.9.9"},
		{"two lines, the claim in the first", []string{"1.1.1.1", "9.9.9.9, 10.0.0.1"}, "9.9.9.9"},
		{"tabs and spaces", []string{"\t9.9.9.9 \t,\t 10.0.0.1  "}, "9.9.9.9"},
		{"port", []string{"9.9.9.9:1234, 10.0.0.1:99"}, "9.9.9.9"},
		{"brackets and port", []string{"[2001:db8::1]:80"}, "2001:db8::1"},
		{"brackets alone", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"zone", []string{"fe80::1%eth0"}, "fe80::1"},
		{"zone in brackets", []string{"[fe80::1%eth0]:80"}, "fe80::1"},
		{"mapped", []string{"::ffff:9.9.9.9"}, "9.9.9.9"},
		{"mapped listed proxy", []string{"9.9.9.9, ::ffff:10.0.0.1"}, "9.9.9.9"},
		{"unknown stops at the last good hop", []string{"9.9.9.9, unknown, 10.0.0.1"}, "10.0.0.1"},
		{"unknown on the right", []string{"9.9.9.9, unknown"}, "127.0.0.2"},
		{"empty item", []string{"9.9.9.9, , 10.0.0.1"}, "10.0.0.1"},
		{"empty header", []string{""}, "127.0.0.2"},
		{"empty second line", []string{"9.9.9.9", ""}, "127.0.0.2"},
		{"octal is no address", []string{"9.9.9.9, 010.0.0.1"}, "127.0.0.2"},
		{"IPv4 in brackets is no address", []string{"[9.9.9.9]"}, "127.0.0.2"},
		{"only listed proxies", []string{"10.0.0.2, 10.0.0.1"}, "10.0.0.2"},
		{"a name", []string{"evil.example"}, "127.0.0.2"},
		{"a quoted string", []string{`"9.9.9.9"`}, "127.0.0.2"},
		{"200 listed hops: 100 are walked", []string{"9.9.9.9, " + strings.TrimSuffix(strings.Repeat("10.0.0.1, ", 200), ", ")}, "10.0.0.1"},
		{"200 claims on the left", []string{strings.Repeat("1.1.1.1, ", 200) + "9.9.9.9"}, "9.9.9.9"},
		{"beyond 8 kB", []string{"9.9.9.9, " + strings.Repeat(" ", 9000) + "10.0.0.1"}, "127.0.0.2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := request(peer)
			r.Header["X-Forwarded-For"] = tt.lines
			got := resolver.Resolve(r)
			if got.Address != netip.MustParseAddr(tt.want) || !got.ViaTrusted {
				t.Errorf("got %v (via trusted %v), want %s", got.Address, got.ViaTrusted, tt.want)
			}
		})
	}
}

// RL-01: a peer that is not listed is believed in nothing, and what it claims is kept.
func TestResolver_believesNobodyByDefault(t *testing.T) {
	t.Parallel()
	headers := []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip", "Cf-Connecting-Ip", "X-Client-Ip", "X-Cluster-Client-Ip"}
	for _, name := range headers {
		got := clientip.New(nil).Resolve(request("127.0.0.1:1000", name, "203.0.113.77", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil.example"))
		want := clientip.Client{Address: netip.MustParseAddr("127.0.0.1"), Claimed: name + ": 203.0.113.77"}
		if got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

// RL-04: one client, one spelling, one trust answer.
func TestResolver_unmapsBeforeComparing(t *testing.T) {
	t.Parallel()
	peers := []struct{ peer, want string }{
		{"127.0.0.1:1", "127.0.0.1"},
		{"[::ffff:127.0.0.1]:1", "127.0.0.1"},
		{"[::1]:1", "::1"},
		{"[0:0:0:0:0:0:0:1]:1", "::1"},
		{"[fe80::1%lo]:1", "fe80::1"},
	}
	for _, p := range peers {
		if got := clientip.New(nil).Resolve(request(p.peer)).Address; got != netip.MustParseAddr(p.want) {
			t.Errorf("%s: got %v, want %s", p.peer, got, p.want)
		}
	}
	for _, list := range []string{"127.0.0.1/32", "::ffff:127.0.0.1/128", "::ffff:127.0.0.0/104"} {
		resolver := clientip.New(prefixes(t, list))
		for _, peer := range []string{"127.0.0.1:1", "[::ffff:127.0.0.1]:1"} {
			if got := resolver.Resolve(request(peer, "X-Forwarded-For", "9.9.9.9")).Address; got != netip.MustParseAddr("9.9.9.9") {
				t.Errorf("list %s, peer %s: got %v, want 9.9.9.9", list, peer, got)
			}
		}
	}
}

func TestResolver_cutsWhatIsClaimed(t *testing.T) {
	t.Parallel()
	r := request("192.0.2.1:1", "X-Forwarded-For", strings.Repeat("x", 9000), "X-Real-IP", "second")
	if got := len(clientip.New(nil).Resolve(r).Claimed); got != 256 {
		t.Errorf("claimed: got %d bytes, want 256", got)
	}
	through := clientip.New(prefixes(t, "192.0.2.1/32")).Resolve(request("192.0.2.1:1", "X-Forwarded-For", "1.1.1.1, 2.2.2.2, 9.9.9.9"))
	if through.Claimed != "1.1.1.1, 2.2.2.2" {
		t.Errorf("claimed left of the client: got %q", through.Claimed)
	}
}

func TestResolver_takesSchemeAndHostFromOneLineOfAListedPeer(t *testing.T) {
	t.Parallel()
	resolver := clientip.New(prefixes(t, "192.0.2.1/32"))
	tests := []struct {
		name         string
		header       []string
		scheme, host string
	}{
		{"both", []string{"X-Forwarded-Proto", "HTTPS", "X-Forwarded-Host", " a.example "}, "https", "a.example"},
		{"no such scheme", []string{"X-Forwarded-Proto", "javascript"}, "", ""},
		{"a list", []string{"X-Forwarded-Proto", "http, https", "X-Forwarded-Host", "evil, a.example"}, "", ""},
		{"the client's line beside the proxy's", []string{"X-Forwarded-Host", "evil", "X-Forwarded-Host", "a.example"}, "", ""},
	}
	for _, tt := range tests {
		got := resolver.Resolve(request("192.0.2.1:1", tt.header...))
		if got.Scheme != tt.scheme || got.Host != tt.host {
			t.Errorf("%s: got %q %q, want %q %q", tt.name, got.Scheme, got.Host, tt.scheme, tt.host)
		}
	}
}

func TestResolver_peerWithoutAddress(t *testing.T) {
	t.Parallel()
	got := clientip.New(prefixes(t, "0.0.0.0/0", "::/0")).Resolve(request("@", "X-Forwarded-For", "9.9.9.9"))
	if got.Address.IsValid() || got.ViaTrusted {
		t.Errorf("got %+v, want no address and no trust", got)
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.77":         "192.0.2.0/24",
		"::ffff:192.0.2.77":  "192.0.2.0/24",
		"2001:db8:1:2:3::4":  "2001:db8:1:2::/64",
		"fe80::1:2:3:4%eth0": "fe80::/64",
	} {
		if got := clientip.Network(netip.MustParseAddr(address)).String(); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
	if clientip.Network(netip.Addr{}).IsValid() {
		t.Error("the network of no address is valid")
	}
}

// The walk never believes more than the listed proxies said: whatever the header holds, the address is the peer, or an item
// right of which there are only listed proxies.
func FuzzResolver_walk(f *testing.F) {
	f.Add("9.9.9.9, 10.0.0.1", "")
	f.Add("[::1]:80,unknown", "fe80::1%eth0, ::ffff:10.1.1.1")
	f.Add(strings.Repeat(",", 300), "10.0.0.1:99999")
	trusted := prefixes(f, "10.0.0.0/8", "::1/128")
	resolver := clientip.New(trusted)
	listed := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		got := resolver.Resolve(request("10.9.9.9:1", "X-Forwarded-For", first, "X-Forwarded-For", second))
		if !got.Address.IsValid() || got.Address.Is4In6() || got.Address.Zone() != "" || len(got.Claimed) > 256 {
			t.Fatalf("got %+v", got)
		}
		if got.Address == netip.MustParseAddr("10.9.9.9") {
			return
		}
		items := strings.Split(first+","+second, ",")
		for _, item := range slices.Backward(items) {
			alone := clientip.New(trusted).Resolve(request("10.9.9.9:1", "X-Forwarded-For", item)).Address
			if alone == got.Address {
				return
			}
			if !listed(alone) {
				break
			}
		}
		t.Fatalf("%q, %q: %v was not reached through listed proxies alone", first, second, got.Address)
	})
}
