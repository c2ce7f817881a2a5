package proxy

import (
	"net/http"
	"slices"
	"strings"

	"gatehouse/problem"
)

const (
	// maxHeaderLines is the number of header lines of a request, maxCookies the number of cookies in them. The bytes of a
	// header are bounded by the listener; these bound the work that a header full of tiny lines makes.
	maxHeaderLines = 200
	maxCookies     = 1000
)

// methods are the methods that pass, as they are written: methods are case-sensitive (RFC 9110, section 9.1). CONNECT and
// TRACE are not among them: neither is for an app behind a gateway.
var methods = [...]string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
	// WebDAV (RFC 4918), versioning (RFC 3253), search (RFC 5323), CalDAV (RFC 4791).
	"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "MKCALENDAR",
}

// admit decides what can be decided before anybody is asked who is there. The code is empty if the request may go on.
func admit(r *http.Request) (target, problem.Code) {
	if !slices.Contains(methods[:], r.Method) {
		return target{}, problem.MethodNotAllowed
	}
	lines := 0
	for _, values := range r.Header {
		lines += len(values)
	}
	cookies := 0
	for _, line := range r.Header["Cookie"] {
		cookies += 1 + strings.Count(line, ";")
	}
	if lines > maxHeaderLines || cookies > maxCookies {
		return target{}, problem.HeaderTooLarge
	}
	wanted, ok := readTarget(r)
	if !ok {
		return target{}, problem.BadRequest
	}
	return wanted, ""
}

// Ambiguous reports whether a request could have been framed in two ways. net/http takes Transfer-Encoding over
// Content-Length and forgets that both were there, and ignores Transfer-Encoding in HTTP/1.0; another proxy in front may
// have read it the other way. So a chunked or HTTP/1.0 request is the last of its connection (RFC 9112, section 6.1): what
// the other took for its body is never read as the next request. The proxy closes after its own answers; whoever else
// answers on the same listener must set `Connection: close` where this reports true.
func Ambiguous(r *http.Request) bool {
	return r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0)
}

// isWebSocket reports whether the request asks for exactly the one upgrade that passes (RFC 6455, section 4.1): anything
// that could switch the connection to a protocol in which we would not see requests, h2c first of all, does not.
func isWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 &&
		r.ContentLength == 0 && len(r.TransferEncoding) == 0 &&
		is(r.Header["Upgrade"], "websocket") && is(r.Header["Sec-Websocket-Version"], "13") &&
		hasToken(r.Header["Connection"], "upgrade")
}

// is reports whether a header is there once, with exactly this value.
func is(lines []string, value string) bool { return len(lines) == 1 && lines[0] == value }

// hasToken reports whether a list header holds the token, in any case.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(item, " \t"), token) {
				return true
			}
		}
	}
	return false
}
