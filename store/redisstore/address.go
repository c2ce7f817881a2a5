package redisstore

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// mode is how the servers of a store work together.
type mode int

const (
	standalone mode = iota
	sentinel        // the hosts are Sentinels, which name the primary
	cluster         // the hosts are some of the nodes; they name the others
)

// form is what a scheme stands for.
type form struct {
	mode mode
	tls  bool
	port string // where a host without a port listens
	want string // the URL as the errors describe it
}

// forms are the schemes of a store URL.
var forms = map[string]form{
	"redis":           {standalone, false, "6379", "redis://[user:password@]host[:port][/database]"},
	"rediss":          {standalone, true, "6379", "rediss://[user:password@]host[:port][/database]"},
	"redis+sentinel":  {sentinel, false, "26379", "redis+sentinel://[user:password@]host[:port],…[/database]?master=NAME"},
	"rediss+sentinel": {sentinel, true, "26379", "rediss+sentinel://[user:password@]host[:port],…[/database]?master=NAME"},
	"redis+cluster":   {cluster, false, "6379", "redis+cluster://[user:password@]host[:port],…"},
	"rediss+cluster":  {cluster, true, "6379", "rediss+cluster://[user:password@]host[:port],…"},
}

// address is a parsed store URL.
type address struct {
	form
	hosts            []string // host:port
	user, password   string
	database         int
	master           string // the Sentinels' name for the primary
	sentinelUser     string
	sentinelPassword string
	replicas         int // how many must have what must not be forgotten
}

// parseAddress reads a store URL. It splits by hand, because url.Parse refuses several hosts with ports. Errors never quote
// user, password or parameters.
func parseAddress(text string) (address, error) {
	scheme, rest, _ := strings.Cut(text, "://")
	f, known := forms[scheme]
	if !known {
		return address{}, errors.New("store URL: its scheme must be redis or rediss, alone or with +sentinel or +cluster")
	}
	a := address{form: f}
	if f.mode != standalone {
		a.replicas = 1
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, database, _ := strings.Cut(rest, "/")
	hosts := authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		hosts = authority[at+1:]
		if err := a.readUser(authority[:at]); err != nil {
			return address{}, err
		}
	}
	if err := errors.Join(a.readHosts(hosts), a.readDatabase(database), a.readQuery(query)); err != nil {
		return address{}, fmt.Errorf("store URL: %w", err)
	}
	return a, nil
}

// readUser reads user:password, percent-encoded as in any URL.
func (a *address) readUser(text string) error {
	user, password, _ := strings.Cut(text, ":")
	var err1, err2 error
	a.user, err1 = url.PathUnescape(user)
	a.password, err2 = url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return errors.New("store URL: user and password must be percent-encoded: a % that stands for itself is %25")
	}
	if a.password == "" {
		return errors.New("store URL: a user without a password; for a password alone write redis://:password@host")
	}
	return nil
}

// readHosts reads host[:port], several with commas where the scheme allows it.
func (a *address) readHosts(text string) error {
	for host := range strings.SplitSeq(text, ",") {
		name, port, err := net.SplitHostPort(host)
		if err != nil { // no port, or an IPv6 address
			name, port = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), a.port
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !hostname(name) {
			return fmt.Errorf("want %s", a.want)
		}
		a.hosts = append(a.hosts, net.JoinHostPort(name, port))
	}
	if a.mode == standalone && len(a.hosts) > 1 {
		return fmt.Errorf("several hosts are a Sentinel or a Cluster; want redis+sentinel:// or redis+cluster://, or %s", a.want)
	}
	return nil
}

// hostname reports whether name can be looked up, or is an IP address.
func hostname(name string) bool {
	if strings.Contains(name, ":") {
		_, err := netip.ParseAddr(name)
		return err == nil
	}
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune("[]@#%\\\"<>^`{|}", r)
	})
}

func (a *address) readDatabase(text string) (err error) {
	if text == "" {
		return nil
	}
	if a.database, err = strconv.Atoi(text); err != nil || a.database < 0 {
		return errors.New("the database behind the host is not a number")
	}
	if a.mode == cluster && a.database != 0 {
		return errors.New("a Cluster has database 0 only")
	}
	return nil
}

// readQuery reads the parameters: master, sentinel_user, sentinel_password (Sentinel) and replicas.
func (a *address) readQuery(text string) error {
	values, err := url.ParseQuery(text)
	if err != nil {
		return fmt.Errorf("its parameters cannot be read; want %s", a.want)
	}
	for name, value := range values {
		if len(value) != 1 || !a.set(name, value[0]) {
			return fmt.Errorf("parameter %q is unknown here, given twice or malformed; want %s and nothing more than replicas=N", name, a.want)
		}
	}
	if a.mode == sentinel && a.master == "" {
		return fmt.Errorf("the name of the primary is missing; want %s", a.want)
	}
	if a.sentinelUser != "" && a.sentinelPassword == "" {
		return errors.New("sentinel_user without sentinel_password")
	}
	return nil
}

// maxReplicas is more than anybody can wait for.
const maxReplicas = 16

// set takes one parameter; false if there is none of that name, or not with that value.
func (a *address) set(name, value string) bool {
	switch {
	case name == "replicas":
		n, err := strconv.Atoi(value)
		a.replicas = n
		return err == nil && n >= 0 && n <= maxReplicas
	case a.mode != sentinel:
		return false
	case name == "master":
		a.master = value
	case name == "sentinel_user":
		a.sentinelUser = value
	case name == "sentinel_password":
		a.sentinelPassword = value
	default:
		return false
	}
	return true
}

// String names the servers without the credentials.
func (a address) String() string { return strings.Join(a.hosts, ",") }

// loopback reports whether a server is on this machine by its name. A name that is looked up is not: it may lead elsewhere
// tomorrow.
func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
