package main

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"gatehouse/secrets"
)

// rootKey makes the key that gateways on a shared store need.
func rootKey() string { return secrets.NewRootKeyText() }

// commands is how many commands a Redis has run. It asks with an inline command, which needs no client.
func commands(address string) (int64, error) {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprint(conn, "INFO stats\r\n"); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if count, ok := strings.CutPrefix(lines.Text(), "total_commands_processed:"); ok {
			return strconv.ParseInt(count, 10, 64)
		}
	}
	return 0, fmt.Errorf("redis does not say how many commands it ran: %w", lines.Err())
}
