package attacks_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/internal/wiretest"
	"gatehouse/problem"
)

// wantIdentity fails the test unless the app takes the request for alice's, however it folds the names of headers.
func wantIdentity(t *testing.T, what string, b *bench, r wiretest.Request) {
	t.Helper()
	cgi := r.CGI()
	want := map[string][]string{
		"HTTP_REMOTE_USER": {"alice"}, "HTTP_REMOTE_NAME": nil, "HTTP_REMOTE_EMAIL": nil, "HTTP_REMOTE_GROUPS": {"staff"},
		"HTTP_X_FORWARDED_FOR": {"127.0.0.1"}, "HTTP_X_FORWARDED_HOST": {b.Origin.Host}, "HTTP_X_FORWARDED_PROTO": {"http"},
	}
	for name, values := range want {
		if !slices.Equal(cgi[name], values) {
			t.Errorf("%s: %s: the app got %q, want %q", what, name, cgi[name], values)
		}
	}
	if len(cgi["HTTP_X_GATEHOUSE_ASSERTION"]) != 1 {
		t.Errorf("%s: assertions: %q", what, cgi["HTTP_X_GATEHOUSE_ASSERTION"])
	}
	for name, values := range cgi {
		if strings.Contains(strings.Join(values, " "), "root") {
			t.Errorf("%s: the app got %s: %.60q", what, name, values)
		}
	}
}

// claimed are the names under which apps look for a user, an address or a host, from gateways of all makes.
var claimed = []string{
	"Remote-User", "Remote-Name", "Remote-Email", "Remote-Groups", "X-Remote-User", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups",
	"X-Forwarded-Preferred-Username", "X-Auth-Request-User", "X-Auth-Request-Email", "X-Webauth-User", "X-Gatehouse-Assertion", "X-Gatehouse-User",
	"X-Authenticated-User", "Client-Cert", "Client-Cert-Chain", "X-Client-Cert", "SSL-Client-S-DN", "X-SSL-Client-CN", "X-Consumer-Username",
	"X-Userinfo", "X-User", "OIDC-CLAIM-sub", "MELLON-NAME-ID", "Shib-Session-ID", "SM-USER", "iv-user", "Impersonate-User", "Proxy",
	"X-Real-IP", "X-Forwarded-For", "Forwarded", "True-Client-IP", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Host", "X-Forwarded-Proto",
}

// headerSpellings are ways to write a header name that some app reads as the name.
func headerSpellings(name string) []string {
	under := strings.ReplaceAll(name, "-", "_")
	return []string{
		name, strings.ToLower(name), strings.ToUpper(name), under, strings.ToLower(under), strings.ToUpper(under), strings.Replace(name, "-", "_", 1),
		strings.ReplaceAll(name, "-", "."), strings.ReplaceAll(name, "-", "!"), strings.ReplaceAll(name, "-", "*"), strings.ReplaceAll(name, "-", "~"),
	}
}

func TestPX01_identityIsNotTheClients(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	allowed := 0
	play := func(what, lines string) {
		t.Helper()
		answers := b.raw(t, "GET /app HTTP/1.1\r\n"+lines+b.as(b.alice)+"Connection: close\r\n\r\n")
		if got := answers.Status(t); got != http.StatusOK {
			t.Errorf("%s: got %d", what, got)
			return
		}
		allowed++
		wantIdentity(t, what, b, b.app.Last(t))
	}
	for _, name := range claimed {
		all := ""
		for _, spelling := range headerSpellings(name) {
			value := "root"
			if strings.Contains(name, "For") || strings.Contains(name, "IP") {
				value = "not-an-address-root"
			}
			all += spelling + ": " + value + "\r\n"
		}
		play(name+" in every spelling", all)
		play(name+" joined", name+": alice,root\r\n")
	}
	play("twice", "X-Forwarded-User: root\r\nX-Forwarded-User: root\r\nRemote-User: root\r\nRemote-User: root\r\n")
	play("first one empty", "Remote-User:\r\nRemote-User: root\r\nRemote_User:\r\nRemote_User: root\r\n")
	play("9 kB", "Remote-User: root"+strings.Repeat("a", 9<<10)+"\r\n")
	play("after ours", "")
	records := b.oracles(t, allowed)
	if bypasses(records, "identity-header") == 0 {
		t.Error("the log does not tell of the forged headers")
	}
}

func TestPX03_connectionTokensTakeNothingOfOurs(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	tests := []string{
		"Connection: Remote-User\r\n", "connection: remote-user, x-gatehouse-assertion, x-forwarded-for, close\r\n", "Connection: rEmOtE-uSeR\r\n",
		"Connection: remote-user\r\nConnection: remote-groups\r\n", "Connection: authorization, cookie, host\r\n", "Proxy-Connection: Remote-User\r\n",
		"Connection: close, Remote-User\r\nRemote-User: root\r\n", "Keep-Alive: Remote-User\r\nConnection: keep-alive, Keep-Alive, Remote-User\r\n", "Connection: Remote_User, REMOTE-USER\r\n",
		"Connection: transfer-encoding, content-length\r\n", "TE: Remote-User\r\nConnection: TE, Remote-User\r\n", "Trailer: Remote-User\r\nConnection: Remote-User\r\n",
	}
	for _, lines := range tests {
		answers := b.raw(t, "GET /app HTTP/1.1\r\n"+b.as(b.alice)+lines+"\r\n")
		if got := answers.Status(t); got != http.StatusOK {
			t.Errorf("%q: got %d", lines, got)
			continue
		}
		wantIdentity(t, lines, b, b.app.Last(t))
		if got := b.app.Last(t); got.Values("Connection") != nil || got.Values("Proxy-Connection") != nil || got.Values("Keep-Alive") != nil {
			t.Errorf("%q: the app got %v", lines, got.Header)
		}
	}
	b.oracles(t, len(tests))
}

// PX-05 and PX-06: what the gateway does not know is absent, on every kind of request, and nothing reaches the app without a
// session.
func TestPX05_PX06_absentMeansAbsentEverywhere(t *testing.T) {
	t.Parallel()
	app := wiretest.NewScripted(t, switching)
	b := newBench(t, app)
	spoof := "X-Forwarded-Email: root@x\r\nRemote-Email: root@x\r\nRemote-Name: root\r\nX_Forwarded_Groups: root\r\nRemote-User: root\r\nX-Gatehouse-Assertion: root\r\n"
	upgrade := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: " + b.URL + "\r\n"
	requests := map[string]string{
		"GET": "GET /app HTTP/1.1\r\n", "HEAD": "HEAD /app HTTP/1.1\r\n", "OPTIONS": "OPTIONS /app HTTP/1.1\r\n", "static": "GET /static/app.js HTTP/1.1\r\n",
		"robots": "GET /robots.txt HTTP/1.1\r\n", "favicon": "GET /favicon.ico HTTP/1.1\r\n", "well-known": "GET /.well-known/x HTTP/1.1\r\n",
		"preflight": "OPTIONS /app HTTP/1.1\r\nOrigin: https://evil.test\r\nAccess-Control-Request-Method: POST\r\n",
		"chunked":   "POST /app HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: Remote-User, X-Sum\r\n",
		"WebSocket": "GET /ws HTTP/1.1\r\n" + upgrade, "HTTP/1.0": "GET /app HTTP/1.0\r\n",
	}
	allowed := 0
	for name, request := range requests {
		rest := spoof + "\r\n"
		if name == "chunked" {
			rest += "2\r\nhi\r\n0\r\nRemote-User: root\r\nX-Sum: 1\r\n\r\n"
		}
		wantDenied(t, name+" by nobody", b.raw(t, request+b.as(nil)+rest).All[0], http.StatusUnauthorized)
		conn := wiretest.Dial(t, b.URL)
		if _, err := io.WriteString(conn, request+b.as(b.alice)+rest); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: strings.SplitN(request, " ", 2)[0]})
		if err != nil || answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("%s: got %v, %v", name, answer, err)
			continue
		}
		_ = conn.Close()
		allowed++
		got := app.Last(t)
		wantIdentity(t, name, b, got)
		for _, f := range got.Trailer {
			if f.Name != "X-Sum" {
				t.Errorf("%s: the app got the trailer %v", name, f)
			}
		}
	}
	for _, path := range []string{"/.gatehouse/login", "/.gatehouse/nothing", "/.gatehouse/api/v1/session", "/.gatehouse/healthz"} {
		answers := b.raw(t, "GET "+path+" HTTP/1.1\r\n"+b.as(nil)+spoof+"Connection: close\r\n\r\n")
		if strings.Contains(answers.Bodies[0], "root") || answers.All[0].Header.Get("Set-Cookie") != "" && strings.Contains(answers.All[0].Header.Get("Set-Cookie"), accessName+"=") {
			t.Errorf("%s believes the header", path)
		}
	}
	b.oracles(t, allowed)
}

// switching answers an upgrade and echoes what comes afterwards; it answers anything else like a plain app.
func switching(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
	if len(r.Values("Upgrade")) == 0 {
		return wiretest.EchoJSON(conn, in, r)
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		return false
	}
	_, _ = io.Copy(conn, in) // until either side ends
	return false
}

// framings are bodies that two readers could delimit in two ways, up to and with the end of their header. Each is followed by
// a request that only one of them sees.
var framings = map[string]string{
	"CL.TE":              "Content-Length: 500\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"TE.CL":              "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
	"TE.CL, long":        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
	"xchunked":           "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"chunked, identity":  "Content-Length: 5\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
	"identity, chunked":  "Content-Length: 5\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
	"chunked twice":      "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
	"identity":           "Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
	"vertical tab":       "Content-Length: 5\r\nTransfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
	"tab before":         "Content-Length: 5\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
	"space before colon": "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"folded":             "Content-Length: 5\r\nTransfer-Encoding:\n chunked\r\n\r\n0\r\n\r\n",
	"folded by CRLF":     "Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
	"two TE":             "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
	"two equal TE":       "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"upper case":         "TRANSFER-ENCODING: CHUNKED\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
	"underscore":         "Content-Length: 0\r\nTransfer_Encoding: chunked\r\nContent_Length: 500\r\n\r\n",
	"two lengths":        "Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
	"two equal lengths":  "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
	"length +0":          "Content-Length: +0\r\n\r\n",
	"length 0x0":         "Content-Length: 0x0\r\n\r\n",
	"length 0,0":         "Content-Length: 0,0\r\n\r\n",
	"length -1":          "Content-Length: -1\r\n\r\n",
	"length 00":          "Content-Length: 00\r\n\r\n",
	"length of 2^64":     "Content-Length: 18446744073709551616\r\n\r\n",
	"length 1e0":         "Content-Length: 1e0\r\n\r\n",
	"empty length":       "Content-Length:\r\n\r\n",
	"space in a length":  "Content-Length: 0 0\r\n\r\n",
}

// PX-07, at the app, at a page of ours, and at a host that is not ours.
func TestPX07_aMessageHasOneLength(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	canary := "GET /canary HTTP/1.1\r\n" + b.as(b.alice) + "\r\n"
	sound := map[string]bool{"two equal lengths": true, "length 00": true, "underscore": true} // one length, however it is written
	for name, rest := range framings {
		for _, target := range []string{
			"POST /app HTTP/1.1\r\n" + b.as(b.alice), "POST /app HTTP/1.1\r\n" + b.as(nil), "POST /.gatehouse/login HTTP/1.1\r\n" + b.as(b.alice),
			"POST /.gatehouse/healthz HTTP/1.1\r\n" + b.as(nil), "POST /app HTTP/1.1\r\nHost: evil.test\r\n", "POST /app HTTP/1.0\r\nConnection: keep-alive\r\n" + b.as(b.alice),
		} {
			request := target + rest
			if sound[name] {
				request = strings.Replace(request, "\r\n", "\r\nConnection: close\r\n", 1) // what follows is a request of its own
			}
			answers := b.raw(t, request+canary)
			if len(answers.All) != 1 || !answers.Closed {
				t.Errorf("%s: %.40q: got %d answers, closed %v", name, target, len(answers.All), answers.Closed)
			}
		}
	}
	for _, r := range b.app.Requests() {
		if r.Framing == "length" && len(r.Values("Transfer-Encoding")) > 0 || len(r.Values("Content-Length"))+len(r.Values("Transfer-Encoding")) > 1 {
			t.Errorf("the app got two framings: %v", r.Header)
		}
	}
	b.oracles(t, len(b.app.Requests()))
}

func TestPX09_chunksAreReadStrictly(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	canary := "GET /canary HTTP/1.1\r\n" + b.as(b.alice) + "\r\n"
	bodies := map[string]string{
		"bare LF": "5\nhello\r\n0\r\n\r\n", "bare CR": "5\rhello\r\n0\r\n\r\n", "LF after the data": "5\r\nhello\n0\r\n\r\n",
		"extension of 1 MB": "5;" + strings.Repeat("a", 1<<20) + "\r\nhello\r\n0\r\n\r\n", "extension with LF": "5;a\nhello\r\n0\r\n\r\n",
		"negative": "-1\r\nhello\r\n0\r\n\r\n", "overflow": "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "more digits": "00000000000000000000005\r\nhello\r\n0\r\n\r\n",
		"prefix": "0x5\r\nhello\r\n0\r\n\r\n", "plus": "+5\r\nhello\r\n0\r\n\r\n", "no size": "\r\nhello\r\n0\r\n\r\n", "underscore": "1_0\r\nhello\r\n0\r\n\r\n",
		"missing CRLF": "5\r\nhello0\r\n\r\n", "canary for a trailer": "5\r\nhello\r\n0\r\n" + canary, "canary in an extension": "5;\r\n" + canary + "0\r\n\r\n",
	}
	for name, body := range bodies {
		for _, line := range []string{"POST /app HTTP/1.1\r\n", "POST /.gatehouse/api/v1/login HTTP/1.1\r\nContent-Type: application/json\r\n"} {
			conn := wiretest.Dial(t, b.URL)
			_, _ = io.WriteString(conn, line+b.as(b.alice)+"Transfer-Encoding: chunked\r\n\r\n"+body) // may be cut off
			_ = conn.(*net.TCPConn).CloseWrite()                                                      // no more comes: a size that is too large must not wait for it
			answers := wiretest.ReadAnswers(t, conn, "POST")
			if !answers.Closed || len(answers.All) > 1 || len(answers.All) == 1 && answers.All[0].StatusCode != http.StatusBadRequest && answers.All[0].StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("%s, %.30q: got %d answers, closed %v: %v", name, line, len(answers.All), answers.Closed, answers.Bodies)
			}
		}
	}
	b.oracles(t, 0)
}

func TestPX10_aHeaderLineIsOneHeader(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	allowed := 0
	for name, line := range map[string]string{
		"folded": "X-A: 1\r\n  Remote-User: root\r\n", "folded by tab": "X-A: 1\r\n\tRemote-User: root\r\n", "folded by LF": "X-A: 1\n Remote-User: root\r\n",
		"leading space": " Remote-User: root\r\n", "leading tab": "\tRemote-User: root\r\n", "space in the name": "Remote-User : root\r\n", "tab in the name": "Remote\tUser: root\r\n",
		"space within": "Remote User: root\r\n", "NUL in the name": "Remote-User\x00: root\r\n", "UTF-8 in the name": "Remote-Us\u00e9r: root\r\n", "no name": ": root\r\n",
		"no colon": "Remote-User root\r\n", "bare CR in a value": "X-A: 1\rRemote-User: root\r\n", "NUL in a value": "X-A: 1\x00root\r\n", "DEL in a value": "X-A: root\x7f\r\n",
		"bare LF": "X-A: 1\nRemote-User: root\r\n", "LF CR": "X-A: 1\n\rRemote-User: root\r\n", "two colons": "Remote-User:: root\r\n", "colon first": ":Remote-User: root\r\n",
	} {
		before := len(b.app.Requests())
		answers := b.raw(t, "GET /app HTTP/1.1\r\n"+line+b.as(b.alice)+"Connection: close\r\n\r\n")
		if len(b.app.Requests()) == before {
			wantDenied(t, name, answers.All[0], http.StatusBadRequest)
			continue
		}
		allowed++
		got := b.app.Last(t)
		if who := got.CGI()["HTTP_REMOTE_USER"]; !slices.Equal(who, []string{"alice"}) {
			t.Errorf("%s: the app takes the user for %q", name, who)
		}
		for _, f := range got.Header {
			if strings.Contains(f.Value, "root") && f.Name != "X-A" {
				t.Errorf("%s: became the header %v", name, f)
			}
		}
	}
	b.oracles(t, allowed)
}

func TestPX11_targetsAndHostsAreWellFormed(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	cookie := "Cookie: " + b.alice.Cookies() + "\r\n"
	own := b.as(b.alice)
	for name, request := range map[string]string{
		"no host": "GET /app HTTP/1.1\r\n" + cookie, "empty host": "GET /app HTTP/1.1\r\nHost:\r\n" + cookie, "no host in HTTP/1.0": "GET /app HTTP/1.0\r\n" + cookie,
		"two hosts": "GET /app HTTP/1.1\r\nHost: evil.test\r\n" + own, "own host twice": "GET /app HTTP/1.1\r\nHost: " + b.Origin.Host + "\r\n" + own,
		"host with CR": "GET /app HTTP/1.1\r\nHost: " + b.Origin.Host + "\rX: y\r\n" + cookie, "host with a space": "GET /app HTTP/1.1\r\nHost: " + b.Origin.Host + " evil.test\r\n" + cookie,
		"user info": "GET /app HTTP/1.1\r\nHost: x@" + b.Origin.Host + "\r\n" + cookie, "slash": "GET /app HTTP/1.1\r\nHost: " + b.Origin.Host + "/\r\n" + cookie,
		"comma":    "GET /app HTTP/1.1\r\nHost: " + b.Origin.Host + ",evil.test\r\n" + cookie,
		"absolute": "GET http://evil.test/app HTTP/1.1\r\n" + own, "absolute, https": "GET https://evil.test/app HTTP/1.1\r\n" + own, "absolute, user info": "GET http://" + b.Origin.Host + "@evil.test/app HTTP/1.1\r\n" + own,
		"absolute without a host": "GET http:///app HTTP/1.1\r\n" + own, "file": "GET file:///etc/passwd HTTP/1.1\r\n" + own, "opaque": "GET mailto:x HTTP/1.1\r\n" + own,
		"star": "GET * HTTP/1.1\r\n" + own, "star of OPTIONS": "OPTIONS * HTTP/1.1\r\n" + own, "empty": "GET  HTTP/1.1\r\n" + own, "no slash": "GET app HTTP/1.1\r\n" + own,
		"fragment": "GET /app#/../admin HTTP/1.1\r\n" + own, "bad escape": "GET /%zz HTTP/1.1\r\n" + own, "control": "GET /a\x01b HTTP/1.1\r\n" + own, "NUL": "GET /a\x00b HTTP/1.1\r\n" + own,
		"space in the path": "GET /a b HTTP/1.1\r\n" + own, "no version": "GET /app\r\n" + own, "HTTP/0.9": "GET /app HTTP/0.9\r\n" + own, "HTTP/1.2": "GET /app HTTP/1.2\r\n" + strings.Replace(own, "Host", "Hoost", 1),
		"HTTP/2.0": "GET /app HTTP/2.0\r\n" + own, "HTTP/3.0": "GET /app HTTP/3.0\r\n" + own, "lower-case version": "GET /app http/1.1\r\n" + own, "three spaces": "GET   /app   HTTP/1.1\r\n" + own,
	} {
		answers := b.raw(t, request+"Connection: close\r\n\r\n")
		if len(answers.All) != 1 {
			t.Errorf("%s: got %d answers", name, len(answers.All))
			continue
		}
		wantDenied(t, name, answers.All[0], http.StatusBadRequest, http.StatusMisdirectedRequest, http.StatusHTTPVersionNotSupported)
	}
	if got := b.raw(t, "GET http://"+b.Origin.Host+"/app?x HTTP/1.1\r\nHost: evil.test\r\n"+cookie+"Connection: close\r\n\r\n").Status(t); got != http.StatusOK || b.app.Last(t).Line != "GET /app?x HTTP/1.1" {
		t.Errorf("absolute form of our own: got %d", got)
	}
	if hosts := b.app.Last(t).Values("Host"); !slices.Equal(hosts, []string{b.Origin.Host}) {
		t.Errorf("absolute form of our own: the app got the host %q", hosts)
	}
	b.oracles(t, 1)
}

func TestPX12_onlyWebSocketsSwitch(t *testing.T) {
	t.Parallel()
	app := wiretest.NewScripted(t, switching)
	b := newBench(t, app)
	ws := "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: " + b.URL + "\r\n"
	// An HTTP/2 connection preface, empty SETTINGS, and HEADERS of stream 1: :method GET, :scheme http, :path /admin.
	frames := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x0a\x01\x05\x00\x00\x00\x01\x82\x86\x44\x06/admin\x41"
	allowed := 0
	for name, lines := range map[string]string{
		"h2c":  "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
		"list": "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n" + ws, "list, reversed": "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n" + ws,
		"two lines": "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" + ws, "TLS": "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
		"case": "Connection: Upgrade\r\nUpgrade: WebSocket\r\n" + ws, "unknown": "Connection: Upgrade\r\nUpgrade: foo\r\n", "with a version": "Connection: Upgrade\r\nUpgrade: websocket/13\r\n" + ws,
		"no Connection": "Upgrade: websocket\r\n" + ws, "another version": "Connection: Upgrade\r\nUpgrade: websocket\r\n" + strings.Replace(ws, "13", "8", 1),
	} {
		refused := b.raw(t, "GET /app HTTP/1.1\r\n"+b.as(nil)+lines+"\r\n"+frames)
		wantDenied(t, name+" by nobody", refused.All[0], http.StatusUnauthorized)
		answers := b.raw(t, "GET /app HTTP/1.1\r\n"+b.as(b.alice)+lines+"\r\n"+frames)
		if got := answers.All[0].StatusCode; got != http.StatusOK {
			t.Errorf("%s: got %d", name, got)
			continue
		}
		allowed++
		if got := app.Last(t); got.Values("Upgrade") != nil || got.Values("Connection") != nil || got.Values("HTTP2-Settings") != nil {
			t.Errorf("%s: the app got %v", name, got.Header)
		}
		for _, next := range answers.All[1:] {
			if next.StatusCode < 400 {
				t.Errorf("%s: the frames were answered %d", name, next.StatusCode)
			}
		}
	}
	for name, header := range map[string]string{"another origin": "http://evil.test", "no origin": ""} {
		answers := b.raw(t, "GET /ws HTTP/1.1\r\n"+b.as(b.alice)+"Connection: Upgrade\r\nUpgrade: websocket\r\n"+strings.Replace(ws, b.URL, header, 1)+"\r\n")
		wantDenied(t, "WebSocket, "+name, answers.All[0], http.StatusForbidden)
	}
	b.oracles(t, allowed)
}

func TestPX15_methodsAreListed(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	own := b.as(b.alice)
	for _, line := range []string{
		"CONNECT evil.test:443", "CONNECT " + b.Origin.Host, "CONNECT /app", "TRACE /app", "TRACK /app", "FOO /app", "get /app", "Get /app", "PRI /app", "DEBUG /app", "PURGE /app", "QUERY /app", "GETX /app",
		"TRACE /.gatehouse/login", "get /.gatehouse/login", "FOO /.gatehouse/api/v1/session", "DELETE /.gatehouse/logout", "CONNECT /.gatehouse/login",
	} {
		for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
			answers := b.raw(t, line+" "+version+"\r\n"+own+"Connection: close\r\n\r\n")
			want := []int{http.StatusMethodNotAllowed}
			if strings.HasPrefix(line, "CONNECT") { // its target is an authority, and another one than ours
				want = append(want, http.StatusMisdirectedRequest, http.StatusBadRequest)
			}
			wantDenied(t, line+" "+version, answers.All[0], want...)
			if answers.All[0].StatusCode == http.StatusMethodNotAllowed && answers.All[0].Header.Get("Allow") == "" {
				t.Errorf("%s: no Allow", line)
			}
		}
	}
	for _, raw := range []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n" + own + "\r\nSM\r\n\r\n"} {
		for _, answer := range b.raw(t, raw).All {
			wantDenied(t, "HTTP/2 preface", answer, http.StatusBadRequest, http.StatusMisdirectedRequest, http.StatusMethodNotAllowed, http.StatusHTTPVersionNotSupported)
		}
	}
	// A GET with a body keeps it; and after all of this everybody gets his own answer.
	if got := b.raw(t, "GET /app HTTP/1.1\r\n"+own+"Content-Length: 2\r\nConnection: close\r\n\r\nhi").Status(t); got != http.StatusOK || b.app.Last(t).Body != "hi" {
		t.Errorf("GET with a body: got %d", got)
	}
	b.ownAnswers(t)
	b.oracles(t, 1+ownAnswerCount)
}

// ownAnswerCount is how many requests ownAnswers makes.
const ownAnswerCount = 4

// ownAnswers shows that requests on fresh connections get their own answers: nothing was left on a connection to the app.
func (b *bench) ownAnswers(t *testing.T) {
	t.Helper()
	for i := range ownAnswerCount {
		path := fmt.Sprintf("/own-%d", i)
		answers := b.raw(t, "GET "+path+" HTTP/1.1\r\n"+b.as(b.alice)+"Connection: close\r\n\r\n")
		if got := answers.Status(t); got != http.StatusOK || !strings.Contains(answers.Bodies[0], path) {
			t.Errorf("%s: got %d with another's answer: %.100s", path, got, answers.Bodies[0])
		}
	}
}

func TestPX20_theQueryArrivesAsSent(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	queries := []string{"a=1;admin=1", "a=%zz&role=x", "%00", "a=%00&b=%0d%0a", strings.Repeat("a=1&", 12_000) + "role=x", "a&a=&=b&&&", "a=1?b=2", "a=\"|^`{}", "", "next=//evil.test", "a=1&a=2&A=3"}
	for _, query := range queries {
		if got := b.raw(t, "GET /app?"+query+" HTTP/1.1\r\n"+b.as(b.alice)+"Connection: close\r\n\r\n").Status(t); got != http.StatusOK {
			t.Errorf("%.40q: got %d", query, got)
			continue
		}
		if got := b.app.Last(t).Line; got != "GET /app?"+query+" HTTP/1.1" {
			t.Errorf("%.40q: the app got %.80q", query, got)
		}
	}
	wantDenied(t, "100,000 parameters", b.raw(t, "GET /app?"+strings.Repeat("a=1&", 100_000)+"role=x HTTP/1.1\r\n"+b.as(b.alice)+"\r\n").All[0], http.StatusRequestHeaderFieldsTooLarge)
	b.oracles(t, len(queries))
}

func TestPX21_expectLeavesThePoolClean(t *testing.T) {
	t.Parallel()
	app := wiretest.NewEager(t, func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		switch {
		case strings.HasPrefix(r.Target(), "/own"):
			return wiretest.EchoJSON(conn, in, r)
		case strings.HasPrefix(r.Target(), "/redirect"):
			_, _ = io.WriteString(conn, "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
		default:
			_, _ = io.WriteString(conn, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
		}
		return true // without reading the body, if one comes
	})
	b := newBench(t, app)
	times := rounds(40, 1000)
	for i := range times {
		path, want := "/no", http.StatusExpectationFailed
		if i%2 == 1 {
			path, want = "/redirect", http.StatusFound
		}
		answers := b.raw(t, "POST "+path+" HTTP/1.1\r\n"+b.as(b.alice)+"Expect: 100-continue\r\nContent-Length: 30\r\nConnection: close\r\n\r\n")
		if len(answers.All) != 1 || answers.All[0].StatusCode != want {
			t.Fatalf("number %d: got %+v", i, answers)
		}
	}
	b.ownAnswers(t)
	b.oracles(t, times+ownAnswerCount)
}

func TestPX24_headersAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for name, header := range map[string]string{
		"1 MB": "X-A: " + strings.Repeat("a", 1<<20) + "\r\n", "10,000 headers": strings.Repeat("X-A: a\r\n", 10_000), "name of 80 kB": strings.Repeat("a", 80_000) + ": 1\r\n",
		"name of 60 kB": strings.Repeat("a", 60_000) + ": 1\r\n", "1,000 headers": strings.Repeat("X-A: a\r\n", 1_000),
		"10,000 cookies": "Cookie: " + strings.Repeat("a=;", 10_000) + "\r\n", "1,001 cookie lines": strings.Repeat("Cookie: a=b\r\n", 1_001),
	} {
		for _, path := range []string{"/app", "/.gatehouse/login", "/.gatehouse/api/v1/session"} {
			answers := b.raw(t, "GET "+path+" HTTP/1.1\r\n"+header+b.as(b.alice)+"Connection: close\r\n\r\n")
			switch got := answers.Status(t); {
			case name == "name of 60 kB" && got < 500: // within the bound, and only a header
			case path == "/app" || len(header) > 64<<10:
				wantDenied(t, name+", "+path, answers.All[0], http.StatusRequestHeaderFieldsTooLarge, http.StatusBadRequest)
			case got >= 500: // a page of ours may draw itself for nobody
				t.Errorf("%s, %s: got %d", name, path, got)
			}
		}
	}
	before := len(b.app.Requests())
	long := "/" + strings.Repeat("u", 16<<10)
	if got := b.raw(t, "GET "+long+" HTTP/1.1\r\n"+b.as(b.alice)+"Connection: close\r\n\r\n").Status(t); got != http.StatusOK || b.app.Last(t).Target() != long {
		t.Errorf("16 kB address: got %d", got)
	}
	b.oracles(t, before+1)
}

// PX-25: bodies of logins are bounded by declaration, by size, by depth, and not read before the address had a token.
func TestPX25_bodiesAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil, func(c *configs.Config) { c.Login.RateLimit = configs.RateLimit{Burst: 100, Interval: time.Hour} })
	before := b.Verifications()
	header := func(path, contentType, more string) string {
		return "POST " + path + " HTTP/1.1\r\n" + b.as(nil) + "Content-Type: " + contentType + "\r\n" + more
	}
	token, cookie := b.form(t)
	login := `{"username":"alice","password":"` + gatewaytest.Password + `"`
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	chunked := func(body string) string {
		return "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
	}
	sized := func(body string) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body) }
	form := "username=alice&form_token=" + url.QueryEscape(token) + "&password=" + url.QueryEscape(gatewaytest.Password)
	const api = "/.gatehouse/api/v1/login"
	for name, tt := range map[string]struct {
		request string
		want    int
	}{
		"100 MB declared":                {header(api, jsonType, "Content-Length: 104857600\r\n\r\n"), 413},
		"100 MB form declared":           {header("/.gatehouse/login", formType, "Content-Length: 104857600\r\n\r\n"), 413},
		"16 kB and one":                  {header(api, jsonType, sized(login+`,"code":"`+strings.Repeat("1", 16<<10-len(login)-10)+`"}`)), 413},
		"chunked without end":            {header(api, jsonType, chunked(login+strings.Repeat(" ", 32<<10))), 413},
		"chunked form without end":       {header("/.gatehouse/login", formType, cookie+chunked(form+"&a="+strings.Repeat("a", 32<<10))), 413},
		"gzip":                           {header(api, jsonType, "Content-Encoding: gzip\r\n"+sized("\x1f\x8b\x08\x00\x00\x00\x00\x00")), 400},
		"gzip as transfer":               {header(api, jsonType, "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501},
		"multipart":                      {header("/.gatehouse/login", "multipart/form-data; boundary=x", sized("--x--\r\n")), 400},
		"text":                           {header(api, "text/plain", sized(login+"}")), 400},
		"XML":                            {header(api, "application/xml", sized("<a/>")), 400},
		"another charset":                {header(api, "application/json; charset=utf-7", sized(login+"}")), 400},
		"depth of a million":             {header(api, jsonType, sized(deep(1_000_000)[:1_000_000])), 413},
		"depth that fits":                {header(api, jsonType, sized(deep(2_000))), 400},
		"depth that fits, in a known":    {header(api, jsonType, sized(`{"username":`+deep(2_000)+`}`)), 400},
		"list of lists":                  {header(api, jsonType, sized(strings.Repeat("[", 8_000))), 400},
		"a member twice":                 {header(api, jsonType, sized(login+`,"password":"x"}`)), 400},
		"a member in another case":       {header(api, jsonType, sized(login+`,"Password":"x"}`)), 400},
		"an unknown member":              {header(api, jsonType, sized(login+`,"admin":true}`)), 400},
		"two objects":                    {header(api, jsonType, sized(login+`}{}`)), 400},
		"a huge number":                  {header(api, jsonType, sized(`{"username":1e99999999,"password":"x"}`)), 400},
		"NUL":                            {header(api, jsonType, sized(login+"}\x00")), 400},
		"not UTF-8":                      {header(api, jsonType, sized("{\"username\":\"a\xff\",\"password\":\"x\"}")), 400},
		"half a surrogate":               {header(api, jsonType, sized(`{"username":"a\ud800","password":"x"}`)), 400},
		"a field twice":                  {header("/.gatehouse/login", formType, cookie+sized(form+"&password=x")), 400},
		"a thousand fields":              {header("/.gatehouse/login", formType, cookie+sized(form+strings.Repeat("&a=1", 1_000))), 400},
		"a form that is not UTF-8":       {header("/.gatehouse/login", formType, cookie+sized(form+"&a=%ff")), 400},
		"a form with a broken escape":    {header("/.gatehouse/login", formType, cookie+sized(form+"&a=%zz")), 400},
		"a form with semicolons":         {header("/.gatehouse/login", formType, cookie+sized(form+";a=1")), 400},
		"a body on the logout of nobody": {header("/.gatehouse/logout", formType, sized(strings.Repeat("a", 20_000))), 413},
	} {
		conn := wiretest.Dial(t, b.URL)
		_, _ = io.WriteString(conn, tt.request) // refused before it was read, it may be cut off
		began := time.Now()
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(began))
			continue
		}
		wantDenied(t, name, answer, tt.want)
		_ = conn.Close() // a body without end is waited for no longer
	}
	if n := b.Verifications() - before; n != 0 {
		t.Errorf("%d passwords were verified", n)
	}
	b.notReadWithoutToken(t, header(api, jsonType, "Expect: 100-continue\r\nContent-Length: 40\r\n\r\n"))
	b.oracles(t, 0)
}

// form opens the login page and returns its token and the line of its cookie.
func (b *bench) form(t *testing.T) (token, cookie string) {
	t.Helper()
	who := b.NewBrowser()
	token = gatewaytest.FormToken(t, who.Get("/.gatehouse/login").Text)
	return token, "Cookie: " + who.Cookies() + "\r\n"
}

// notReadWithoutToken empties the bucket, and shows that the request is then refused before its body is asked for.
func (b *bench) notReadWithoutToken(t *testing.T, request string) {
	t.Helper()
	who := b.NewBrowser()
	for range 200 {
		if who.JSON("/.gatehouse/api/v1/login", map[string]string{}).StatusCode == http.StatusTooManyRequests {
			conn := wiretest.Dial(t, b.URL)
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil) // the first one: 100 Continue would ask for the body
			if err != nil || answer.StatusCode != problem.RateLimited.Status() {
				t.Errorf("without a token: got %v, %v, want %d at once", answer, err, problem.RateLimited.Status())
			}
			_ = conn.Close()
			return
		}
	}
	t.Error("the bucket is never empty")
}

func TestPX26_aFaultOfTheAppIsNoAnswerOfIts(t *testing.T) {
	t.Parallel()
	silent := func(_ net.Conn, in *bufio.Reader, _ wiretest.Request) bool {
		_, _ = io.Copy(io.Discard, in)
		return false
	}
	for name, tt := range map[string]struct {
		reply wiretest.Reply
		want  int // 0: the answer breaks off
	}{
		"resets in the body": {func(conn net.Conn, _ *bufio.Reader, _ wiretest.Request) bool {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
			_ = conn.(*net.TCPConn).SetLinger(0)
			return false
		}, 0},
		"bad chunk": {wiretest.AnswerAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"), 0},
		"no end":    {wiretest.AnswerAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), 0},
		"shorter":   {wiretest.AnswerAndClose("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), 0},
		"longer":    {wiretest.Answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncanary"), 200},
		"interim flood": {func(conn net.Conn, _ *bufio.Reader, _ wiretest.Request) bool {
			for {
				if _, err := io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); err != nil {
					return false
				}
			}
		}, 502},
		"101 unasked":      {wiretest.AnswerAndClose("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), 502},
		"headers of 10 MB": {wiretest.AnswerAndClose("HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 10<<20) + "\r\n\r\n"), 502},
		"two lengths":      {wiretest.AnswerAndClose("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 502},
		"no HTTP":          {wiretest.AnswerAndClose("SSH-2.0-OpenSSH\r\n"), 502},
		"nothing":          {wiretest.AnswerAndClose(""), 502},
		"never answers":    {silent, 504},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, wiretest.NewScripted(t, tt.reply), func(c *configs.Config) { c.Proxy.ResponseHeaderTimeout = 300 * time.Millisecond })
			answers := b.raw(t, "POST /app HTTP/1.1\r\n"+b.as(b.alice)+"Content-Length: 2\r\n\r\nhi")
			switch {
			case tt.want == 0:
				if !answers.Broken && (!answers.Closed || len(answers.All) > 0) {
					t.Errorf("passed on as whole: %q", answers.Bodies)
				}
			case len(answers.All) != 1 || strings.Contains(answers.Bodies[0], "canary"):
				t.Errorf("got %d answers: %q", len(answers.All), answers.Bodies)
			case tt.want >= 500:
				wantDenied(t, name, answers.All[0], tt.want)
				if !strings.Contains(answers.Bodies[0], "request_id") {
					t.Errorf("the answer names no request: %s", answers.Bodies[0])
				}
			case answers.All[0].StatusCode != tt.want:
				t.Errorf("got %d, want %d", answers.All[0].StatusCode, tt.want)
			}
			records := b.oracles(t, 1)
			if n := sum(records, func(r audit.Record) bool { return r.Kind == audit.KindBypass }); n != 0 {
				t.Errorf("the log blames the client %d times", n)
			}
		})
	}
}
