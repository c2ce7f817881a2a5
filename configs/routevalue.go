package configs

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// RouteName is the name of a route.
type RouteName string

var routeName = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// UnmarshalText reads a name; empty is none.
func (n *RouteName) UnmarshalText(text []byte) error {
	if len(text) > 0 && !routeName.Match(text) {
		return fmt.Errorf("must be 1 to %d of a-z, 0-9 and hyphens, not %q", maxRouteName, text)
	}
	*n = RouteName(text)
	return nil
}

// Host is a host of apps: a name or an address, with a port if wanted, in lower case; or a wildcard, which stands for exactly one label.
type Host string

// UnmarshalText reads a host; empty is none.
func (h *Host) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*h = ""
		return nil
	}
	if strings.ContainsAny(string(text), "/?#@") {
		return fmt.Errorf("must be a host alone, as in wiki.example.com, not %q", text)
	}
	name, port := Host(text).split()
	bare, wildcard := strings.CutPrefix(name, "*.")
	_, err := netip.ParseAddr(bare)
	switch {
	case strings.Contains(bare, "*"), wildcard && err == nil:
		return fmt.Errorf(`%q: a * stands for the whole first label of a name, as in "*.apps.example.com"`, text)
	case wildcard && !strings.Contains(bare, ".") && !strings.EqualFold(bare, "localhost"):
		return fmt.Errorf("%q stands for every name below a top-level domain, which nobody owns", text)
	}
	host, err := canonicalHost(strings.Trim(bare, "[]"))
	if err != nil {
		return fmt.Errorf("%q %w", text, err)
	}
	if port != "" {
		if _, err := canonicalPort("", port); err != nil {
			return fmt.Errorf("%q %w", text, err)
		}
		port = ":" + port
	}
	*h = Host(name[:len(name)-len(bare)] + host + port)
	return nil
}

// Path is the beginning of the paths of a host, decoded and by whole segments. The zero Path is that of all.
type Path string

// UnmarshalText accepts the one spelling of each: what is spelled otherwise might be matched otherwise too.
func (p *Path) UnmarshalText(text []byte) error {
	path := string(text)
	switch {
	case path == "" || path[0] != '/':
		return fmt.Errorf("%q must begin with /", text)
	case strings.Contains(path, "*"):
		return fmt.Errorf("%q has a *, which is no wildcard here: /api is /api and everything below it", text)
	case strings.Contains(path, "%"):
		return fmt.Errorf("%q must be written decoded, without %%", text)
	case !utf8.ValidString(path), strings.ContainsFunc(path, func(c rune) bool { return unicode.IsControl(c) || strings.ContainsRune(`?#;\`, c) }):
		return fmt.Errorf(`%q must be a path alone: none of ? # ; \ and no control characters`, text)
	case path != "/" && strings.HasSuffix(path, "/"):
		return fmt.Errorf("%q ends in a slash; write %s, which is that path and everything below it", text, strings.TrimRight(path, "/"))
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if path != "/" && strings.TrimRight(segment, ". \t") == "" {
			return fmt.Errorf("%q has an empty segment, or one of dots alone, which no request has that is let through", text)
		}
	}
	*p = Path(text)
	return nil
}

// covers reports whether a path lies at the prefix or below it.
func (p Path) covers(other Path) bool {
	return p == other || p == "/" || strings.HasPrefix(string(other), string(p)+"/")
}

// Upstream is the address of an app: scheme http, https or h2c, host and port. An h2c upstream speaks HTTP/2 without TLS (RFC 9113,
// section 3.3).
type Upstream struct{ Origin }

// h2c is the scheme of HTTP/2 without TLS.
const h2c = "h2c"

// UnmarshalText reads an upstream.
func (u *Upstream) UnmarshalText(text []byte) error {
	rest, isH2C := strings.CutPrefix(string(text), h2c+"://")
	if isH2C {
		text = []byte("http://" + rest)
	}
	if err := u.Origin.UnmarshalText(text); err != nil {
		return err
	}
	if isH2C {
		u.Scheme = h2c
	}
	return nil
}

// Method is a method of HTTP.
type Method string

// methods are those that the gateway passes on at all; WebDAV, CalDAV and searching are among them.
var methods = []string{
	"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
	"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "MKCALENDAR",
}

// UnmarshalText accepts a method that the gateway passes on; methods are case-sensitive (RFC 9110, section 9.1).
func (m *Method) UnmarshalText(text []byte) error {
	switch upper := strings.ToUpper(string(text)); {
	case slices.Contains(methods, string(text)):
	case slices.Contains(methods, upper):
		return fmt.Errorf("%q must be written %s", text, upper)
	default:
		return fmt.Errorf("%q is no method that is passed on; these are %s", text, strings.Join(methods, ", "))
	}
	*m = Method(text)
	return nil
}

// Network is addresses of clients; unlike a network that is trusted it may be as wide as all.
type Network struct{ netip.Prefix }

// UnmarshalText reads a network in CIDR form, or a single address.
func (n *Network) UnmarshalText(text []byte) (err error) {
	n.Prefix, err = parseNetwork(string(text))
	return err
}

// UserName is the name of a user or a group, in its canonical form.
type UserName string

var userName = regexp.MustCompile(`^[a-z0-9][a-z0-9._@+-]{0,63}$`)

// UnmarshalText accepts a name as users and groups have them.
func (n *UserName) UnmarshalText(text []byte) error {
	if !userName.Match(text) || strings.Count(string(text), "@") > 1 {
		return fmt.Errorf("%q is no name: 1 to 64 of a-z, 0-9 and ._@+-, in lower case, beginning with a letter or digit", text)
	}
	*n = UserName(text)
	return nil
}

// Size is a number of bytes.
type Size int64

// units are the units of sizes, the largest first.
var units = []struct {
	name  string
	bytes Size
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// UnmarshalText reads a number of bytes, with a unit if wanted. KB and MB are refused: half of the world takes them for powers of ten.
func (s *Size) UnmarshalText(text []byte) error {
	digits, unit := string(text), Size(1)
	for _, u := range units {
		if number, ok := strings.CutSuffix(digits, u.name); ok {
			digits, unit = number, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || Size(n) > math.MaxInt64/unit {
		return errors.New("must be a number of bytes, as in 65536, 512KiB, 10MiB or 2GiB")
	}
	*s = Size(n) * unit
	return nil
}

// String is the size with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
