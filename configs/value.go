package configs

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// UnixPrefix stands before the path of a Unix socket in admin_listen.
const UnixPrefix = "unix:"

// hidden is what stands in the place of a secret.
const hidden = "[hidden]"

// Origin is a web origin (RFC 6454): scheme, host and port, in the one spelling that browsers send. The zero Origin is none.
type Origin struct {
	Scheme string // http or https
	Host   string // lower case; with a port unless it is the scheme's own; IPv6 in brackets
}

// localOrigin is the origin under which a browser on this machine reaches the listener at addr; zero if its port is not fixed.
func localOrigin(addr string) Origin {
	_, port, err := net.SplitHostPort(addr)
	if err != nil || port == "0" {
		return Origin{}
	}
	o := Origin{Scheme: "http", Host: "localhost"}
	if port != "80" {
		o.Host += ":" + port
	}
	return o
}

// UnmarshalText reads an origin and brings it into its canonical spelling. Errors do not repeat the text, which may hold a
// password.
func (o *Origin) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*o = Origin{}
		return nil
	}
	u, err := url.Parse(string(text))
	switch {
	case err != nil:
		return errors.New("is not a URL; write it as https://host or https://host:port")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must start with http:// or https://")
	case u.User != nil:
		return errors.New("must not hold a user name or password")
	case u.Hostname() == "":
		return errors.New("has no host")
	case strings.ContainsAny(string(text), "?#"):
		return errors.New("must not have a query or a fragment")
	case u.Path != "" && u.Path != "/":
		return errors.New("must not have a path")
	}
	host, err := canonicalHost(u.Hostname())
	if err != nil {
		return err
	}
	port, err := canonicalPort(u.Scheme, u.Port())
	if err != nil {
		return err
	}
	*o = Origin{Scheme: u.Scheme, Host: host + port}
	return nil
}

// hostName is a DNS name of letters, digits, hyphens and, because names inside container networks have them, underscores.
var hostName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)

// numericLabel is a last label that makes browsers read the whole name as an IPv4 address (WHATWG URL, "ends in a number").
var numericLabel = regexp.MustCompile(`^([0-9]+|0x[0-9a-f]*)$`)

// canonicalHost returns the spelling of a host that browsers use, IPv6 in brackets.
func canonicalHost(host string) (string, error) {
	host = strings.ToLower(host)
	if addr, err := netip.ParseAddr(host); err == nil {
		switch {
		case addr.Zone() != "":
			return "", errors.New("must not have an address with a zone")
		case addr.Is6():
			return "[" + addr.String() + "]", nil
		}
		return addr.String(), nil
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	switch {
	case strings.HasSuffix(host, "."):
		return "", errors.New("must not end its host in a dot")
	case numericLabel.MatchString(last):
		return "", errors.New("has a host that is neither a name nor a complete IP address")
	case len(host) > 253 || !hostName.MatchString(host):
		return "", errors.New("has a host that is no DNS name; write an international name in its xn-- form")
	}
	return host, nil
}

// canonicalPort returns ":port", or nothing for the scheme's own port.
func canonicalPort(scheme, port string) (string, error) {
	if port == "" || scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		return "", nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		return "", errors.New("has a port that is not between 1 and 65535")
	}
	return ":" + port, nil
}

// IsZero reports whether no origin was given.
func (o Origin) IsZero() bool { return o == Origin{} }

// String is the origin as browsers write it, without a slash at its end; empty for none.
func (o Origin) String() string {
	if o.IsZero() {
		return ""
	}
	return o.Scheme + "://" + o.Host
}

// MarshalText is String.
func (o Origin) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// URL is the origin as a URL without a path.
func (o Origin) URL() *url.URL { return &url.URL{Scheme: o.Scheme, Host: o.Host} }

// Address is host:port, as for a dialer, with the scheme's port where none was given.
func (o Origin) Address() string {
	u := o.URL()
	port := u.Port()
	switch {
	case port != "":
	case o.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// Local reports whether browsers treat the host as this machine: loopback, localhost, or a name under .localhost.
func (o Origin) Local() bool {
	host := o.URL().Hostname()
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || loopbackAddress(host)
}

func loopbackAddress(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// PathPrefix is the beginning of paths: itself and everything below it.
type PathPrefix string

// UnmarshalText accepts a path as requests have it, decoded: it begins with a slash and holds no query.
func (p *PathPrefix) UnmarshalText(text []byte) error {
	if len(text) == 0 || text[0] != '/' {
		return fmt.Errorf("%q must begin with /", text)
	}
	if i := strings.IndexFunc(string(text), func(c rune) bool { return c <= ' ' || c == 0x7f || strings.ContainsRune("?#,", c) }); i >= 0 {
		return fmt.Errorf("%q must be a path alone; %q does not belong there", text, string(text)[i])
	}
	*p = PathPrefix(text)
	return nil
}

// Colour is an sRGB colour as #rrggbb, in lower case. The zero Colour is none.
type Colour string

// colourDigits is red, green and blue.
var colourDigits = regexp.MustCompile(`^#?[0-9a-f]{6}$`)

// UnmarshalText reads a colour, with or without the # that YAML takes for a comment.
func (c *Colour) UnmarshalText(text []byte) error {
	digits := strings.ToLower(string(text))
	switch {
	case digits == "":
		*c = ""
	case !colourDigits.MatchString(digits):
		return errors.New(`must be a colour of the form "#rrggbb", in quotes`)
	default:
		*c = Colour("#" + strings.TrimPrefix(digits, "#"))
	}
	return nil
}

// String is the colour as style sheets write it; empty for none.
func (c Colour) String() string { return string(c) }

// MarshalText is String.
func (c Colour) MarshalText() ([]byte, error) { return []byte(c), nil }

// Secret is a text that only Reveal shows: formatting, logging and marshalling it give a placeholder.
type Secret struct{ text string }

// UnmarshalText reads a secret, without the white space around it that files and shells leave.
func (s *Secret) UnmarshalText(text []byte) error {
	s.text = strings.TrimSpace(string(text))
	return nil
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.text == "" }

// Reveal is the secret itself.
func (s Secret) Reveal() string { return s.text }

// String is a placeholder, or nothing for no secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return hidden
}

// GoString is String, so that %#v hides the secret too.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// day is 24 hours: settings do not follow the clocks of summer time.
const day = 24 * time.Hour

// ParseDuration reads a duration as every setting does, and as the command line does for the same things.
func ParseDuration(text string) (time.Duration, error) { return parseDuration(text) }

// parseDuration reads what time.ParseDuration does, with days (d) in front if wanted: 90s, 1h30m, 14d, 1d12h.
func parseDuration(text string) (time.Duration, error) {
	errForm := errors.New("must be a duration with its unit, as in 30s, 15m, 24h or 14d")
	var days time.Duration
	rest := text
	if before, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 16) // 16 bits of days are 179 years and fit a Duration
		if err != nil {
			return 0, errForm
		}
		days, rest = time.Duration(n)*day, after
	}
	if rest == "" && rest != text {
		return days, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.ContainsAny(rest, "+-") || d > math.MaxInt64-days {
		return 0, errForm
	}
	return days + d, nil
}

// formatDuration writes a duration as parseDuration reads it, without zero units.
func formatDuration(d time.Duration) string {
	if d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// The widest networks that may be trusted. 10.0.0.0/8 and fc00::/7 are the widest that anybody owns privately.
const (
	minBits4 = 8
	minBits6 = 7
)

// parsePrefix reads a network whose members are trusted with what only one's own machines should be.
func parsePrefix(text string) (netip.Prefix, error) {
	p, err := parseNetwork(text)
	if err == nil && (p.Addr().Is4() && p.Bits() < minBits4 || p.Addr().Is6() && p.Bits() < minBits6) {
		return p, fmt.Errorf("%q is as good as everybody: any client could then name the address that its attempts are counted for; list the proxies themselves", text)
	}
	return p, err
}

// parseNetwork reads a network in CIDR form, or a single address.
func parseNetwork(text string) (netip.Prefix, error) {
	var none netip.Prefix
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr.Zone() != "" || addr.Is4In6() {
			return none, fmt.Errorf("%q must be a plain IPv4 or IPv6 address", text)
		}
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil || p.Addr().Is4In6():
		return none, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", text)
	case p != p.Masked():
		return none, fmt.Errorf("%q has bits set beyond its length; write %s for the network or %s for the one address",
			text, p.Masked(), p.Addr())
	}
	return p, nil
}
