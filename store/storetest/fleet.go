package storetest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// longSilence is longer than any test, in milliseconds.
const longSilence = "3600000"

// SentinelMaster is what the Sentinels of [Sentinels] call their primary.
const SentinelMaster = "gatehouse"

// Fleet is several real redis-servers that replace a failed primary by themselves. Everybody, the servers among themselves
// too, reaches a node through its proxy, so that a test can cut it off.
type Fleet struct {
	Nodes []*Node
	// Sentinels are the Sentinels, if that is what watches over the nodes.
	Sentinels []*Server

	url   string
	ready func() error // everybody is up to date and knows everybody
	calm  func()       // nobody is replaced any more
}

// Node is one server of a fleet.
type Node struct {
	*Server
	fleet   *Fleet
	source  string   // the address that it connects from, its own
	proxies []*Proxy // before its port, and in a Cluster before the one where it hears the other nodes
}

// Cut cuts the node off in both directions: what is under way stays so until Mend. Only one node can be cut at a time.
func (n *Node) Cut() {
	for _, other := range n.fleet.Nodes {
		for _, p := range other.proxies {
			if other == n {
				p.Hold()
			} else {
				p.HoldFrom(n.source)
			}
		}
	}
}

// Mend ends Cut.
func (n *Node) Mend() {
	for _, other := range n.fleet.Nodes {
		for _, p := range other.proxies {
			p.Pass()
		}
	}
}

// URL is the store URL of the fleet.
func (f *Fleet) URL() string { return f.url }

// Primary is the node that takes writes to key now; the test fails if none does within patience. A node that was cut off
// may not know yet that it is primary no more.
func (f *Fleet) Primary(t *testing.T, key string) *Node {
	t.Helper()
	var primary *Node
	WithinPatience(t, func() error {
		for _, n := range f.Nodes {
			if n.cmd == nil {
				continue
			}
			reply, err := n.Do("PEXPIRE", key, "1", "GT") // a write that changes nothing: no key ends sooner
			if err == nil && strings.HasPrefix(reply, ":") {
				primary = n
				return nil
			}
		}
		return fmt.Errorf("no node takes writes to %s", key)
	})
	return primary
}

// Whole waits until every node runs and the replicas are up to date, which takes some seconds after a failure.
func (f *Fleet) Whole(t *testing.T) {
	t.Helper()
	within(t, 2*patience, f.ready)
}

// Calm keeps the fleet from replacing anybody, for tests that take no node away: on a busy machine a node may be silent for seconds.
func (f *Fleet) Calm() { f.calm() }

// FlushAll empties every node.
func (f *Fleet) FlushAll(t *testing.T) {
	t.Helper()
	for _, n := range f.Nodes {
		if reply, err := n.Do("FLUSHALL"); err != nil || reply != "+OK" && !strings.HasPrefix(reply, "-READONLY") {
			t.Fatalf("FLUSHALL on %s: %s, %v", n.Addr(), reply, err)
		}
	}
}

// add starts a server behind a proxy. args are made of the proxy's port, which the server has to announce.
func (f *Fleet) add(t *testing.T, args func(port string) []string) *Node {
	t.Helper()
	s := newServer(t)
	p := FaultProxy(t, s.addr)
	n := &Node{Server: s, fleet: f, source: fmt.Sprintf("127.0.0.%d", 101+len(f.Nodes)), proxies: []*Proxy{p}}
	s.args = append(s.args, "--bind-source-addr", n.source)
	s.args = append(s.args, args(portOf(t, p.Addr()))...)
	s.start()
	f.Nodes = append(f.Nodes, n)
	return n
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Sentinels starts a primary, two replicas and three Sentinels, who replace a primary that is silent for a second.
func Sentinels(t *testing.T) *Fleet {
	t.Helper()
	f := &Fleet{}
	var primary string // its port
	for range 3 {
		f.add(t, func(port string) []string {
			args := []string{
				"--replica-announce-ip", "127.0.0.1", "--replica-announce-port", port, "--min-replicas-to-write", "1",
				"--repl-diskless-sync-delay", "0", "--repl-timeout", "5",
			}
			if primary == "" {
				primary = port
				return args
			}
			return append(args, "--replicaof", "127.0.0.1 "+primary)
		})
	}
	var hosts []string
	for range 3 {
		s := Sentinel(t, primary)
		f.Sentinels = append(f.Sentinels, s)
		hosts = append(hosts, s.Addr())
	}
	f.url = "redis+sentinel://" + strings.Join(hosts, ",") + "/0?master=" + SentinelMaster
	f.ready = func() error {
		for _, s := range f.Sentinels {
			about, err := s.Do("INFO", "sentinel")
			if err != nil || !strings.Contains(about, "slaves=2,sentinels=3") {
				return fmt.Errorf("a Sentinel does not know everybody: %v, %s", err, about)
			}
		}
		return f.wantReplicas(2)
	}
	f.calm = func() {
		for _, s := range f.Sentinels {
			s.MustDo("SENTINEL", "SET", SentinelMaster, "down-after-milliseconds", longSilence)
		}
	}
	f.Whole(t)
	return f
}

// wantReplicas says whether some node has so many replicas that are up to date.
func (f *Fleet) wantReplicas(n int) error {
	for _, node := range f.Nodes {
		if about, err := node.Do("INFO", "replication"); err == nil && strings.Count(about, "state=online") >= n {
			return nil
		}
	}
	return fmt.Errorf("no node has %d replicas", n)
}

// Sentinel starts a Sentinel that watches over the primary at a port of loopback and finds the others there by itself. lines
// are added to its configuration.
func Sentinel(t *testing.T, primary string, lines ...string) *Server {
	t.Helper()
	s := newServer(t)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor %[3]s 127.0.0.1 %[4]s 2\n"+
		"sentinel down-after-milliseconds %[3]s 1000\nsentinel failover-timeout %[3]s 5000\n",
		portOf(t, s.addr), filepath.Dir(file), SentinelMaster, primary) + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = []string{file, "--sentinel"}
	s.start()
	return s
}

// Cluster starts a Cluster of three primaries with a replica each, which replaces a primary that is silent for two seconds.
func Cluster(t *testing.T) *Fleet {
	t.Helper()
	if _, err := exec.LookPath("redis-cli"); err != nil {
		t.Fatalf("this test needs redis-cli: install the Debian package redis-tools (%v)", err)
	}
	f := &Fleet{}
	create := []string{"--cluster", "create"}
	for range 6 {
		bus := FreePort(t)
		busProxy := FaultProxy(t, net.JoinHostPort("127.0.0.1", bus))
		n := f.add(t, func(port string) []string {
			create = append(create, net.JoinHostPort("127.0.0.1", port))
			return []string{
				"--cluster-enabled", "yes", "--repl-ping-replica-period", "1", "--cluster-node-timeout", "2000", "--cluster-port", bus,
				"--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", port,
				"--cluster-announce-bus-port", portOf(t, busProxy.Addr()),
				"--repl-diskless-sync-delay", "0", "--repl-timeout", "5",
			}
		})
		n.proxies = append(n.proxies, busProxy)
	}
	f.url = "redis+cluster://" + strings.Join(create[2:5], ",")
	create = append(create, "--cluster-replicas", "1", "--cluster-yes")
	if out, err := exec.CommandContext(t.Context(), "redis-cli", create...).CombinedOutput(); err != nil {
		t.Fatalf("redis-cli: %v\n%s", err, out)
	}
	f.ready = func() error {
		for _, n := range f.Nodes {
			state, err := n.Do("CLUSTER", "INFO")
			about, err2 := n.Do("INFO", "replication")
			if err != nil || err2 != nil || !strings.Contains(state, "cluster_state:ok") ||
				!strings.Contains(about, "state=online") && !strings.Contains(about, "master_link_status:up") {
				return fmt.Errorf("node %s is not ready: %v, %v, %s, %s", n.Addr(), err, err2, state, about)
			}
			if counted, err := n.Replicas(); err != nil || counted != 3 {
				return fmt.Errorf("node %s counts %d replicas: %v", n.Addr(), counted, err)
			}
		}
		return nil
	}
	f.calm = func() {
		for _, n := range f.Nodes {
			n.MustDo("CONFIG", "SET", "cluster-node-timeout", longSilence)
		}
	}
	f.Whole(t)
	return f
}

// Replicas is how many replicas of all primaries a node of a Cluster knows to be up to date, which it learns a moment after they are.
func (n *Node) Replicas() (int, error) {
	answer, err := n.Do("EVAL", "local n = 0 for _, s in ipairs(redis.call('CLUSTER', 'SLOTS')) do n = n + #s - 3 end return n", "0")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimPrefix(answer, ":"))
}

// MoveSlot moves the slot of key to another primary while it is used: first the slot is in between, then its keys move, then
// everybody is told.
func (f *Fleet) MoveSlot(t *testing.T, key string, to *Node) {
	t.Helper()
	from := f.Primary(t, key)
	if from == to {
		return
	}
	slot := strings.TrimPrefix(from.MustDo("CLUSTER", "KEYSLOT", key), ":")
	source, target := from.MustDo("CLUSTER", "MYID"), to.MustDo("CLUSTER", "MYID")
	to.MustDo("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
	from.MustDo("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
	from.MustDo("MIGRATE", "127.0.0.1", portOf(t, to.Addr()), key, "0", "5000")
	to.MustDo("CLUSTER", "SETSLOT", slot, "NODE", target)
	from.MustDo("CLUSTER", "SETSLOT", slot, "NODE", target)
}
