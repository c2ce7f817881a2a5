package proxy

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"gatehouse/session"
)

// The headers by which an app learns who is there (contract: "What the app receives").
const (
	headerAssertion = "X-Gatehouse-Assertion" // beside those of the preset

	headerSecurity = "Strict-Transport-Security" // as net/http spells it; ours only where the app has none

	headerForwardedFor    = "X-Forwarded-For"
	headerForwardedHost   = "X-Forwarded-Host"
	headerForwardedProto  = "X-Forwarded-Proto"
	headerForwardedPrefix = "X-Forwarded-Prefix"
)

// HeaderRequestID carries the id of a request on every answer of the gateway's own. To the app it goes under a name that no client can
// forge: X-Request-Id is the client's and the app's, and passes as it was sent.
const (
	HeaderRequestID = "X-Request-Id"
	headerRequestID = "X-Gatehouse-Request-Id"
)

// claim says what a client's own header of a protected name would pretend.
type claim byte

const (
	unprotected  claim = iota
	claimsOurs         // to be the gateway: taken out of answers too
	claimsWho          // to be somebody
	claimsOrigin       // to come from, or to ask for, somewhere else
)

// protected is every name that means something to an app behind a gateway of any make, folded as [fold] does. A client's
// header of such a name never passes, whichever names this gateway sets: an app that was moved here from another gateway
// may still believe the old ones.
var protected = map[string]claim{
	"REMOTE_USER":   claimsOurs,
	"REMOTE_NAME":   claimsOurs,
	"REMOTE_EMAIL":  claimsOurs,
	"REMOTE_GROUPS": claimsOurs,
	"REMOTE_GROUP":  claimsWho,
	"REMOTE_ADDR":   claimsOrigin, // as HTTP_REMOTE_ADDR beside CGI's REMOTE_ADDR
	"REMOTE_HOST":   claimsOrigin,

	// Kubernetes' authenticating proxy and many apps.
	"X_REMOTE_USER":   claimsWho,
	"X_REMOTE_NAME":   claimsWho,
	"X_REMOTE_EMAIL":  claimsWho,
	"X_REMOTE_GROUP":  claimsWho,
	"X_REMOTE_GROUPS": claimsWho,
	"X_REMOTE_UID":    claimsWho,
	// oauth2-proxy; the other X-Forwarded-… go by their prefix.
	"X_FORWARDED_USER":               claimsWho,
	"X_FORWARDED_EMAIL":              claimsWho,
	"X_FORWARDED_GROUPS":             claimsWho,
	"X_FORWARDED_PREFERRED_USERNAME": claimsWho,
	"X_FORWARDED_ACCESS_TOKEN":       claimsWho,
	"X_AUTHENTICATED_USER":           claimsWho,
	"X_AUTHENTICATED_EMAIL":          claimsWho,
	"X_AUTHENTICATED_GROUPS":         claimsWho,
	// What the documentation of oauth2-proxy has nginx set. X-User-Id, X-User-Email and the like are not here: clients of Rocket.Chat and of
	// many Rails apps sign in by them, beside a token.
	"X_USER":  claimsWho,
	"X_EMAIL": claimsWho,
	// Kong and APISIX, beside their prefixes.
	"X_USERINFO":             claimsWho,
	"X_ANONYMOUS_CONSUMER":   claimsWho,
	"X_AUTHENTICATED_SCOPE":  claimsWho,
	"X_AUTHENTICATED_USERID": claimsWho,
	// LemonLDAP::NG.
	"AUTH_USER":   claimsWho,
	"AUTH_MAIL":   claimsWho,
	"AUTH_GROUPS": claimsWho,
	// OpenSearch's authenticating proxy, Kubeflow, Google's API gateways.
	"X_PROXY_USER":              claimsWho,
	"X_PROXY_ROLES":             claimsWho,
	"KUBEFLOW_USERID":           claimsWho,
	"X_ENDPOINT_API_USERINFO":   claimsWho,
	"X_APIGATEWAY_API_USERINFO": claimsWho,

	// Client certificates, which who ends TLS vouches for and must not take from outside (RFC 9440, section 4).
	"CLIENT_CERT":       claimsWho,
	"CLIENT_CERT_CHAIN": claimsWho,
	"X_ARR_CLIENTCERT":  claimsWho, // Azure App Service

	// Addresses of clients, as proxies and delivery networks name them.
	"FORWARDED":                claimsOrigin,
	"X_FORWARDED":              claimsOrigin,
	"FORWARDED_FOR":            claimsOrigin,
	"X_REAL_IP":                claimsOrigin,
	"X_CLIENT_IP":              claimsOrigin,
	"X_CLUSTER_CLIENT_IP":      claimsOrigin,
	"TRUE_CLIENT_IP":           claimsOrigin,
	"CLIENT_IP":                claimsOrigin,
	"CF_CONNECTING_IP":         claimsOrigin,
	"CF_CONNECTING_IPV6":       claimsOrigin,
	"FASTLY_CLIENT_IP":         claimsOrigin,
	"FLY_CLIENT_IP":            claimsOrigin,
	"PROXY_CLIENT_IP":          claimsOrigin,
	"WL_PROXY_CLIENT_IP":       claimsOrigin,
	"X_REMOTE_IP":              claimsOrigin,
	"X_REMOTE_ADDR":            claimsOrigin,
	"X_ORIGINATING_IP":         claimsOrigin,
	"X_AZURE_CLIENTIP":         claimsOrigin,
	"X_AZURE_SOCKETIP":         claimsOrigin,
	"X_ENVOY_EXTERNAL_ADDRESS": claimsOrigin,

	// What was asked for, and how.
	"X_REWRITE_URL":   claimsOrigin,
	"X_URL_SCHEME":    claimsOrigin,
	"X_SCHEME":        claimsOrigin,
	"FRONT_END_HTTPS": claimsOrigin,
}

// protectedPrefixes are name spaces that belong to one product as a whole, folded. None is shorter than shortestClaim.
var protectedPrefixes = [...]struct {
	prefix string
	claim  claim
}{
	{"X_GATEHOUSE_", claimsOurs},
	{"X_FORWARDED_", claimsOrigin},
	{"X_ORIGINAL_", claimsOrigin},             // nginx auth_request, IIS, Azure
	{"X_AUTH_REQUEST_", claimsWho},            // oauth2-proxy
	{"X_WEBAUTH_", claimsWho},                 // Grafana, Gitea
	{"X_AUTHENTIK_", claimsWho},               // authentik
	{"X_POMERIUM_", claimsWho},                // Pomerium
	{"X_VOUCH_", claimsWho},                   // Vouch
	{"X_TOKEN_USER_", claimsWho},              // caddy-security
	{"X_CONSUMER_", claimsWho},                // Kong, APISIX
	{"X_CREDENTIAL_", claimsWho},              // Kong, APISIX
	{"X_REMOTE_EXTRA_", claimsWho},            // Kubernetes
	{"IMPERSONATE_", claimsWho},               // Kubernetes, as proxies before its API server set them
	{"OIDC_", claimsWho},                      // mod_auth_openidc
	{"MELLON_", claimsWho},                    // mod_auth_mellon
	{"SHIB_", claimsWho},                      // Shibboleth
	{"AJP_", claimsWho},                       // Shibboleth, to servlet containers
	{"CAS_", claimsWho},                       // mod_auth_cas
	{"SM_", claimsWho},                        // SiteMinder
	{"OAM_", claimsWho},                       // Oracle Access Manager
	{"IV_", claimsWho},                        // IBM WebSEAL and Verify Access
	{"CF_ACCESS_", claimsWho},                 // Cloudflare Access
	{"CF_CERT_", claimsWho},                   // certificates, as Cloudflare passes them on
	{"SSL_CLIENT_", claimsWho},                // certificates, as Apache and ingress-nginx do
	{"X_SSL_CLIENT_", claimsWho},              // certificates, as HAProxy does
	{"X_CLIENT_CERT", claimsWho},              // certificates, as Google's load balancers do
	{"X_AMZN_MTLS_", claimsWho},               // certificates, as AWS load balancers do
	{"X_AMZN_OIDC_", claimsWho},               // AWS load balancers
	{"TAILSCALE_USER_", claimsWho},            // Tailscale Serve
	{"X_GOOG_AUTHENTICATED_USER_", claimsWho}, // Google IAP
	{"X_GOOG_IAP_", claimsWho},                // Google IAP
	{"X_MS_CLIENT_PRINCIPAL", claimsWho},      // Azure App Service
	{"X_MS_TOKEN_", claimsWho},                // Azure App Service
}

// maxFold is how much of a name is folded: more than the longest protected name or prefix, so that cutting a longer name
// cannot make it equal to one. A test holds it true.
const maxFold = 64

// shortestClaim is the length of the shortest protected name or prefix. FuzzStripClient holds it true.
const shortestClaim = len("SM_")

// fold writes a header name as CGI (RFC 3875, section 4.1.18) and the frameworks after it do: upper case, every byte that
// is no letter and no digit an underscore. Two names with the same fold are one name to some app.
func fold(into *[maxFold]byte, name string) []byte {
	n := min(len(name), maxFold)
	for i := range n {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		default:
			c = '_'
		}
		into[i] = c
	}
	return into[:n]
}

// claimOf says what a header of this name would claim.
func claimOf(name string) claim {
	if !mayClaim(name) {
		return unprotected
	}
	var buffer [maxFold]byte
	folded := fold(&buffer, name)
	if c := protected[string(folded)]; c != unprotected {
		return c
	}
	for i := range protectedPrefixes {
		p := &protectedPrefixes[i]
		// The third letter tells most of them apart.
		if p.prefix[2] == folded[2] && len(folded) >= len(p.prefix) && string(folded[:len(p.prefix)]) == p.prefix {
			return p.claim
		}
	}
	return unprotected
}

// mayClaim reports whether a name could be protected by how it begins. Nearly every header of a request and of an answer ends here, at a
// fraction of what folding and looking up costs. FuzzStripClient holds the letters true, and
// TestMayClaim_endsAtWhatIsUsual that they are worth it.
func mayClaim(name string) bool {
	if len(name) < shortestClaim {
		return false
	}
	second, third := name[1]|0x20, name[2]|0x20 // lower case, of letters
	switch name[0] | 0x20 {
	case 'a':
		return second == 'j' || second == 'u' // AJP_ and AUTH_, not Accept-…
	case 'c':
		return second == 'f' || second == 'l' || second == 'a' && third == 's' // not Content-…, Cookie, Connection and Cache-Control
	case 'f', 'k', 'w', 'x': // browsers and apps send none, or what cannot be told by three letters
		return true
	case 'i':
		return second == 'm' || second == 'v' // not If-…
	case 'm':
		return third == 'l' // MELLON_
	case 'o':
		return second != 'r' // not Origin
	case 'p', 'r':
		return third == 'o' || third == 'm' // PROXY_ and REMOTE_, not Priority, Pragma, Range and Referer
	case 's':
		return second != 'e' && second != 't' // not Sec-…, Server, Set-Cookie and Strict-Transport-Security
	case 't':
		return second == 'a' || third == 'u' // TAILSCALE_ and TRUE_, not Transfer-Encoding, Traceparent and Trailer
	}
	return false
}

// addedHeaders is how many headers identify sets at most.
const addedHeaders = 10

// passOn is what an app gets of a client's header: everything but what belongs to the client's connection and what is protected. It
// reports whether anything claimed an identity. The values are the client's own and must not be written to.
func passOn(client http.Header) (header http.Header, forged bool) {
	header = make(http.Header, len(client)+addedHeaders)
	connection := client["Connection"]
	for name, values := range client {
		switch claimOf(name) {
		case unprotected:
			if !isHopByHop(name) && !hasToken(connection, name) {
				header[name] = values
			}
		case claimsOurs, claimsWho:
			forged = true
		case claimsOrigin:
		}
	}
	return header, forged
}

// bindsConnection reports whether credentials for the app are of a kind that holds for the connection that they come on, and not for the
// request (RFC 4559, section 6): the next request on it, of somebody else, would be taken for theirs. Such a connection is not used again,
// so what needs several turns on one (NTLM) does not work through this gateway.
func bindsConnection(authorization []string) bool {
	for _, line := range authorization {
		scheme, _, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
		if strings.EqualFold(scheme, "NTLM") || strings.EqualFold(scheme, "Negotiate") {
			return true
		}
	}
	return false
}

// isHopByHop reports whether a header is about the connection whether or not Connection names it (RFC 9110, section 7.6.1, and what
// older specifications listed). Proxy is no header at all, but CGI makes of it the HTTP_PROXY through which the app would send its own
// requests (CVE-2016-5385).
func isHopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return false
}

// stripClient takes every protected name out of what a client sent, and reports whether one claimed an identity.
func stripClient(h http.Header) (forged bool) {
	for name := range h {
		switch claimOf(name) {
		case unprotected:
			continue
		case claimsOurs, claimsWho:
			forged = true
		case claimsOrigin:
		}
		delete(h, name)
	}
	return forged
}

// forges reports whether a header of a client claims an identity.
func forges(h http.Header) bool {
	for name := range h {
		if c := claimOf(name); c == claimsOurs || c == claimsWho {
			return true
		}
	}
	return false
}

// stripApp takes what only the gateway says, and what ends or sets our cookies, out of what an app sent: in answers,
// interim answers and trailers. Alt-Svc goes too: it would lead browsers to the app's own listener, around the gateway.
func stripApp(h http.Header) {
	for name := range h {
		if claimOf(name) == claimsOurs {
			delete(h, name)
		}
	}
	delete(h, "Alt-Svc") // net/http reads names in their canonical form
	session.StripResponse(h)
}

// identify sets what the gateway says about a request. Absent means absent: a header is set only where there is a value.
func identify(h http.Header, x *exchange) {
	values := make([]string, 0, addedHeaders) // one array for all
	set := func(name, value string) {
		if value != "" && name != "" {
			values = append(values, value)
			h[name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	if x.signedIn {
		names, who := x.route.names, &x.who
		set(names.user, who.Name)
		set(names.account, who.Name)
		set(names.name, plainText(who.DisplayName))
		set(names.email, plainText(who.Email))
		set(names.groups, strings.Join(who.Groups, ",")) // the alphabet of group names has no comma
		set(headerAssertion, x.assertion)
	}
	if address := x.proxy.client(x.in).Address; address.IsValid() {
		set(headerForwardedFor, address.String())
	}
	scheme, host, _ := strings.Cut(x.origin, "://")
	set(headerForwardedHost, host)
	set(headerForwardedProto, scheme)
	set(headerForwardedPrefix, x.prefix)
	set(headerRequestID, x.proxy.requestID(x.in))
}

// plainText is text without what could end a line, drive a terminal or break UTF-8.
func plainText(s string) string {
	if isPrintable(s) {
		return strings.TrimSpace(s)
	}
	unsafe := func(c rune) bool {
		return unicode.IsControl(c) || c == utf8.RuneError || unicode.In(c, unicode.Zl, unicode.Zp)
	}
	if strings.ContainsFunc(s, unsafe) {
		s = strings.Map(func(c rune) rune {
			if unsafe(c) {
				return -1
			}
			return c
		}, s)
	}
	return strings.TrimSpace(s)
}

// isPrintable reports whether a text is printable ASCII: most names and addresses are, and nothing of it has to be looked up in
// Unicode's tables then.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
