package configs

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// StoreURL says where state lives. It may hold passwords, which only Reveal shows.
type StoreURL string

// Bolt is the embedded store.
const Bolt StoreURL = "bolt"

// sentinelScheme ends the schemes of a primary that Sentinels watch over, clusterScheme those of a Cluster.
const sentinelScheme, clusterScheme = "+sentinel", "+cluster"

// UnmarshalText reads a store. Errors do not repeat the text, which may hold a password. What it cannot see (ports, rights)
// the engine says at the start.
func (s *StoreURL) UnmarshalText(text []byte) error {
	scheme, _, _ := strings.Cut(string(text), ":")
	kind := strings.TrimPrefix(strings.TrimPrefix(scheme, "rediss"), "redis")
	switch {
	case string(text) == "bolt":
	case scheme == "bolt":
		return errors.New("is just bolt; the file lies in the data folder")
	case kind == scheme || kind != "" && kind != sentinelScheme && kind != clusterScheme:
		return errors.New("must be bolt, redis://host:port/db, redis+sentinel://host:port,…/db?master=NAME or redis+cluster://host:port,…; " +
			"rediss in place of redis is with TLS")
	default:
		if err := checkServers(string(text), scheme, kind); err != nil {
			return err
		}
	}
	*s = StoreURL(text)
	return nil
}

// checkServers checks a URL by hand, because url.Parse refuses several hosts with ports.
func checkServers(text, scheme, kind string) error {
	want := scheme + "://[user:password@]host:port/db"
	switch kind {
	case sentinelScheme:
		want = scheme + "://[user:password@]host:port,host:port,…/db?master=NAME"
	case clusterScheme:
		want = scheme + "://[user:password@]host:port,host:port,…"
	}
	_, servers, database, query := splitStore(text)
	for host := range strings.SplitSeq(servers, ",") {
		if _, err := url.Parse("redis://" + host); err != nil || host == "" || host[0] == ':' {
			return fmt.Errorf("is not a URL of the form %s", want)
		}
	}
	if kind == "" && strings.Contains(servers, ",") {
		return errors.New("names several servers: write redis+sentinel:// for Sentinels, redis+cluster:// for a Cluster")
	}
	if _, err := strconv.ParseUint(database, 10, 16); database != "" && (err != nil || kind == clusterScheme && database != "0") {
		return errors.New("must end in the number of a database, as in /0, the only one in a Cluster")
	}
	if values, err := url.ParseQuery(query); err != nil || kind == sentinelScheme && values.Get("master") == "" {
		return fmt.Errorf("does not say what the Sentinels call the primary; it must be of the form %s", want)
	}
	return nil
}

// splitStore takes a store URL apart: user:password, the servers, what is behind the slash, what is behind the question mark.
func splitStore(text string) (user, servers, database, query string) {
	_, rest, _ := strings.Cut(text, "://")
	rest, query, _ = strings.Cut(rest, "?")
	servers, database, _ = strings.Cut(rest, "/")
	if at := strings.LastIndexByte(servers, '@'); at >= 0 {
		user, servers = servers[:at], servers[at+1:]
	}
	return user, servers, database, query
}

// Shared reports whether several gateways may use the store.
func (s StoreURL) Shared() bool { return s != Bolt && s != "" }

// TLS reports whether the connections to the store are encrypted.
func (s StoreURL) TLS() bool { return strings.HasPrefix(string(s), "rediss") }

// Reveal is the URL with its passwords. It goes to the client library and nowhere else.
func (s StoreURL) Reveal() string { return string(s) }

// String is the store without its passwords: of the parameters only those that are known to be none are shown.
func (s StoreURL) String() string {
	if !s.Shared() {
		return string(s)
	}
	scheme, _, _ := strings.Cut(string(s), "://")
	user, servers, database, query := splitStore(string(s))
	text := servers
	if name, _, secret := strings.Cut(user, ":"); secret {
		text = name + ":" + hidden + "@" + servers
	} else if user != "" {
		text = user + "@" + servers
	}
	if database != "" {
		text += "/" + database
	}
	values, _ := url.ParseQuery(query) // what cannot be read is not shown
	for name := range values {
		if name != "master" && name != "replicas" {
			values.Set(name, hidden)
		}
	}
	if len(values) > 0 {
		shown, _ := url.QueryUnescape(values.Encode()) // Encode's own text can be unescaped
		text += "?" + shown
	}
	return scheme + "://" + text
}

// GoString is String, so that %#v hides the passwords too.
func (s StoreURL) GoString() string { return s.String() }

// MarshalText is String.
func (s StoreURL) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
