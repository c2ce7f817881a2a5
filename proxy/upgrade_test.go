package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/internal/wiretest"
)

const handshake = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: " + external + "\r\n"

// switching answers an upgrade and echoes what comes afterwards; it answers anything else like a plain app.
func switching(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
	if len(r.Values("Upgrade")) == 0 {
		return wiretest.EchoJSON(conn, in, r)
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSet-Cookie: __Host-gatehouse=evil\r\nRemote-User: x\r\n\r\n"); err != nil {
		return false
	}
	_, _ = io.Copy(conn, in) // until either side ends
	return false
}

// open does a handshake and returns the connection behind the answer.
func (g *gate) open(t testing.TB, request string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn := wiretest.Dial(t, g.URL)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatalf("write: %v", err)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return conn, in, answer
}

func TestProxy_webSocket(t *testing.T) {
	t.Parallel()
	up := wiretest.NewScripted(t, switching)
	g := newGate(t, up.URL)
	for _, cookie := range []string{"bob", "expired"} {
		conn, in, answer := g.open(t, "GET /ws?a=%2F HTTP/1.1\r\nHost: gate.example\r\nCookie: __Host-gatehouse="+cookie+"\r\n"+handshake+"\r\n")
		if answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Remote-User") != "" {
			t.Fatalf("%s: got %d, %v", cookie, answer.StatusCode, answer.Header)
		}
		for _, c := range answer.Header["Set-Cookie"] {
			if strings.Contains(c, "evil") {
				t.Errorf("the app set a cookie of ours: %q", c)
			}
		}
		if renewed := len(answer.Header["Set-Cookie"]) > 0; renewed != (cookie == "expired") {
			t.Errorf("%s: cookies: got %q", cookie, answer.Header["Set-Cookie"])
		}
		if _, err := io.WriteString(conn, "ping"); err != nil {
			t.Fatal(err)
		}
		echo := make([]byte, 4)
		if _, err := io.ReadFull(in, echo); err != nil || string(echo) != "ping" {
			t.Fatalf("got %q, %v", echo, err)
		}
		if got := up.Last(t); got.Line != "GET /ws?a=%2F HTTP/1.1" || len(got.Values("Sec-WebSocket-Key")) != 1 {
			t.Errorf("the app got %q, %v", got.Line, got.Header)
		}
	}
}

// PX-12: any other upgrade goes on as a plain request.
// An app that switches protocols in the moment in which the watch begins, on a machine so busy that a reader wakes late when its
// deadline passes: the upgrade goes through, and does not wait for the client to say something.
func TestProxy_upgradesAtTheMomentOfTheWatch(t *testing.T) {
	t.Parallel()
	up := wiretest.NewScripted(t, func(conn net.Conn, in *bufio.Reader, r wiretest.Request) bool {
		time.Sleep(150 * time.Millisecond) // the watch begins after 200
		return switching(conn, in, r)
	})
	server := httptest.NewUnstartedServer(newGate(t, up.URL).server.Config.Handler)
	server.Listener = lateListener{server.Listener}
	server.Start()
	t.Cleanup(server.Close)
	g := &gate{URL: server.URL}
	_, _, answer := g.open(t, "GET /ws HTTP/1.1\r\nHost: gate.example\r\nCookie: __Host-gatehouse=bob\r\n"+handshake+"\r\n")
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("got %d", answer.StatusCode)
	}
}

// lateListener makes connections whose deadlines are noticed late: not at all, if they are lifted meanwhile.
type lateListener struct{ net.Listener }

func (l lateListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &lateConn{Conn: conn}, err
}

type lateConn struct {
	net.Conn
	mu       sync.Mutex
	deadline time.Time // guarded by mu
}

func (c *lateConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if t.IsZero() || time.Until(t) > 0 {
		return c.Conn.SetReadDeadline(t)
	}
	time.AfterFunc(150*time.Millisecond, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.deadline.Equal(t) {
			_ = c.Conn.SetReadDeadline(t)
		}
	})
	return nil
}

func TestProxy_otherUpgradesArePlainRequests(t *testing.T) {
	t.Parallel()
	up := wiretest.NewScripted(t, switching)
	g := newGate(t, up.URL)
	const rest = "Sec-WebSocket-Version: 13\r\nOrigin: " + external + "\r\n"
	tests := map[string]string{
		"h2c":            "GET / HTTP/1.1\r\n" + signedIn + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
		"list":           "GET / HTTP/1.1\r\n" + signedIn + "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n" + rest,
		"list, reversed": "GET / HTTP/1.1\r\n" + signedIn + "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n" + rest,
		"two lines":      "GET / HTTP/1.1\r\n" + signedIn + "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" + rest,
		"TLS":            "GET / HTTP/1.1\r\n" + signedIn + "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
		"case":           "GET / HTTP/1.1\r\n" + signedIn + "Connection: Upgrade\r\nUpgrade: WebSocket\r\n" + rest,
		"unknown":        "GET / HTTP/1.1\r\n" + signedIn + "Connection: Upgrade\r\nUpgrade: foo\r\n",
		"beyond ASCII":   "GET / HTTP/1.1\r\n" + signedIn + "Connection: Upgrade\r\nUpgrade: web\xc3\xa9\r\n",
		"no Connection":  "GET / HTTP/1.1\r\n" + signedIn + "Upgrade: websocket\r\n" + rest,
		"other version":  "GET / HTTP/1.1\r\n" + signedIn + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\nOrigin: " + external + "\r\n",
		"no version":     "GET / HTTP/1.1\r\n" + signedIn + "Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: " + external + "\r\n",
		"POST":           "POST / HTTP/1.1\r\n" + signedIn + handshake + "Content-Length: 0\r\n",
		"HTTP/1.0":       "GET / HTTP/1.0\r\n" + signedIn + handshake,
	}
	for name, request := range tests {
		before := len(up.Requests())
		answers := g.send(t, request+"\r\n")
		if got := answers.Status(t); got != http.StatusOK {
			t.Errorf("%s: got %d", name, got)
			continue
		}
		got := up.Requests()[before]
		if got.Values("Upgrade") != nil || got.Values("HTTP2-Settings") != nil || len(got.Values("Connection")) > 0 {
			t.Errorf("%s: the app got %v", name, got.Header)
		}
	}
	before := len(up.Requests())
	withBody := g.send(t, "GET / HTTP/1.1\r\n"+signedIn+handshake+"Content-Length: 4\r\n\r\nbody")
	if got := up.Requests()[before]; withBody.Status(t) != 200 || got.Values("Upgrade") != nil || got.Body != "body" {
		t.Errorf("with a body: the app got %v, %q", got.Header, got.Body)
	}
	refused := g.send(t, "GET / HTTP/1.1\r\nHost: gate.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if got := refused.All[0].StatusCode; got != http.StatusUnauthorized || len(up.Requests()) != before+1 {
		t.Errorf("h2c without a session: got %d", got)
	}
}

// PX-13: refused before the app is dialled.
func TestProxy_webSocketOfAnotherOrigin(t *testing.T) {
	t.Parallel()
	up := wiretest.NewScripted(t, switching)
	g := newGate(t, up.URL)
	start := "GET / HTTP/1.1\r\nHost: gate.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
	tests := []struct {
		name, header string
		want         int
	}{
		{"no session", "Origin: " + external + "\r\n", 401},
		{"foreign", "Cookie: __Host-gatehouse=bob\r\nOrigin: https://evil.example\r\n", 403},
		{"other scheme", "Cookie: __Host-gatehouse=bob\r\nOrigin: http://gate.example\r\n", 403},
		{"other port", "Cookie: __Host-gatehouse=bob\r\nOrigin: https://gate.example:8443\r\n", 403},
		{"null", "Cookie: __Host-gatehouse=bob\r\nOrigin: null\r\n", 403},
		{"two", "Cookie: __Host-gatehouse=bob\r\nOrigin: " + external + "\r\nOrigin: " + external + "\r\n", 403},
		{"none, with a cookie", "Cookie: __Host-gatehouse=bob\r\n", 403},
		{"foreign, with a bearer token", "Authorization: Bearer bobs-token\r\nOrigin: https://evil.example\r\n", 403},
	}
	for _, tt := range tests {
		got := g.send(t, start+tt.header+"\r\n").All[0]
		if got.StatusCode != tt.want || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d, want %d", tt.name, got.StatusCode, tt.want)
		}
	}
	if len(up.Requests()) != 0 || up.Open() != 0 {
		t.Error("the app was dialled")
	}
	_, _, answer := g.open(t, start+"Authorization: Bearer bobs-token\r\n\r\n")
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("no origin, with a bearer token: got %d", answer.StatusCode)
	}
}

func TestProxy_appMaySwitchOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"unasked":        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET",
		"to nothing":     "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"unasked, empty": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade:\r\n\r\n",
	} {
		g := newGate(t, wiretest.NewScripted(t, wiretest.AnswerAndClose(answer)).URL)
		if got := g.send(t, "GET / HTTP/1.1\r\n"+signedIn+"\r\n").Status(t); got != http.StatusBadGateway {
			t.Errorf("%s: got %d, want 502", name, got)
		}
	}
	g := newGate(t, wiretest.NewScripted(t, wiretest.AnswerAndClose("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")).URL)
	if got := g.send(t, "GET / HTTP/1.1\r\n"+signedIn+handshake+"\r\n").Status(t); got != http.StatusBadGateway {
		t.Errorf("to another protocol: got %d, want 502", got)
	}
	refusing := newGate(t, wiretest.NewScripted(t, wiretest.Answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")).URL)
	if got := refusing.send(t, "GET / HTTP/1.1\r\n"+signedIn+handshake+"\r\n"); got.Status(t) != http.StatusForbidden || got.Bodies[0] != "no" {
		t.Errorf("an app that refuses: got %+v", got)
	}
}
