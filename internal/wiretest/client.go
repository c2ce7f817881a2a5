package wiretest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	// patience is how long an answer may take before the test fails.
	patience = 10 * time.Second
	// silence is how long nothing must come before a connection that stays open is taken to have nothing more to say.
	silence = 150 * time.Millisecond
)

// Answers is everything that came back for the bytes of one [Raw].
type Answers struct {
	// All are the final answers in order, with their bodies read; interim ones (1xx) are in Interim.
	All     []*http.Response
	Interim []*http.Response
	Bodies  []string
	// Closed reports whether the server closed the connection by itself; Broken, whether an answer ended before its end.
	Closed, Broken bool
}

// Status is the status of the only answer; it fails the test if there is not exactly one.
func (a Answers) Status(t testing.TB) int {
	t.Helper()
	if len(a.All) != 1 {
		t.Fatalf("got %d answers, want 1", len(a.All))
	}
	return a.All[0].StatusCode
}

// Raw writes the bytes to the address and reads what comes back: until the server closes, or has nothing more to say.
func Raw(t testing.TB, address, bytes string) Answers {
	t.Helper()
	conn := Dial(t, address)
	defer conn.Close()
	// A server that refuses early may close before it has read everything: what it answered is still there to read.
	_, _ = io.WriteString(conn, bytes)
	return ReadAnswers(t, conn, strings.SplitN(bytes, " ", 2)[0])
}

// Dial connects to the address of a URL or to a host and port; the connection ends with the test.
func Dial(t testing.TB, address string) net.Conn {
	t.Helper()
	return DialFrom(t, "127.0.0.1", address)
}

// DialFrom is Dial from another address of the loopback network.
func DialFrom(t testing.TB, local, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
	conn, err := dialer.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatalf("dial %s: %v", address, err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // closed already in most tests
	return conn
}

// ReadAnswers reads every answer on the connection, until it ends or nothing more comes. The method is that of the first request: the answer to HEAD has no
// body.
func ReadAnswers(t testing.TB, conn net.Conn, method string) Answers {
	t.Helper()
	in := bufio.NewReader(conn)
	var got Answers
	wait := patience
	for {
		setReadDeadline(t, conn, wait)
		if _, err := in.Peek(1); err != nil {
			got.Closed = !errors.Is(err, os.ErrDeadlineExceeded)
			return got
		}
		setReadDeadline(t, conn, patience)
		response, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			got.Broken = true
			return got
		}
		wait = silence
		if response.Close {
			wait = patience // the end was announced: it must come
		}
		if response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
			wait = patience
			got.Interim = append(got.Interim, response)
			continue
		}
		body, err := io.ReadAll(response.Body)
		got.All = append(got.All, response)
		got.Bodies = append(got.Bodies, string(body))
		if err != nil {
			got.Broken = true
			return got
		}
		method = http.MethodGet
	}
}

func setReadDeadline(t testing.TB, conn net.Conn, wait time.Duration) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatalf("set deadline: %v", err)
	}
}
