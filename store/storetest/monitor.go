package storetest

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
)

// Monitor watches what is sent to a server. It belongs to one goroutine.
type Monitor struct {
	server *Server
	lines  *bufio.Scanner
	marks  int
}

// Monitor begins to watch, until the test ends.
func (s *Server) Monitor(t *testing.T) *Monitor {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		t.Fatal(err)
	}
	m := &Monitor{server: s, lines: bufio.NewScanner(conn)}
	if !m.lines.Scan() || m.lines.Text() != "+OK" {
		t.Fatalf("MONITOR: %q, %v", m.lines.Text(), m.lines.Err())
	}
	return m
}

// Commands are the commands that were sent since the last call, with their arguments as MONITOR quotes them. Left out are
// what a script did inside, and what a client says when it connects.
func (m *Monitor) Commands(t *testing.T) []string {
	t.Helper()
	m.marks++
	mark := fmt.Sprintf("mark %d", m.marks)
	m.server.MustDo("ECHO", mark)
	var commands []string
	for m.lines.Scan() {
		_, rest, _ := strings.Cut(m.lines.Text(), "[")
		from, command, _ := strings.Cut(rest, "] ")
		name, _, _ := strings.Cut(strings.ToLower(command), " ")
		switch {
		case strings.Contains(command, `"`+mark+`"`):
			return commands
		case strings.HasSuffix(from, " lua"):
		case name == `"hello"` || name == `"auth"` || name == `"select"` || name == `"client"`:
		default:
			commands = append(commands, command)
		}
	}
	t.Fatalf("MONITOR ended: %v", m.lines.Err())
	return nil
}
