package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	floodRate = 500 // logins a second
	// attackers are the connections of a flood. Each sends a login about a second after its last one was answered, and some always wait in
	// the line of the password pool, which has room for 32.
	attackers = floodRate + 40
)

// attackScript has wrk send logins with wrong passwords for names that nobody has, each as if from an address of its own (RFC 2544, for
// benchmarks), and say how they were answered.
const attackScript = `
local random = math.random
local thread
local counted = {}
answers = ""
setup = function(t) thread = t end
init = function() math.randomseed(os.time()) end
delay = function() return random(500, 1500) end
request = function()
  return wrk.format("POST", nil, {
    ["Content-Type"] = "application/json",
    ["X-Forwarded-For"] = string.format("198.%d.%d.%d", random(18, 19), random(0, 255), random(0, 255)),
  }, string.format('{"username":"n%08x%08x","password":"not the right passphrase"}', random(0, 2^31 - 1), random(0, 2^31 - 1)))
end
response = function(status)
  counted[status] = (counted[status] or 0) + 1
  answers = ""
  for status, n in pairs(counted) do answers = answers .. " " .. status .. " " .. n end
end
done = function(s)
  io.write(string.format("ATTACK %d%s\n", s.duration, thread:get("answers")))
end
`

// attack sends logins to an address until ctx ends, and at most a minute longer than traffic should take; answers waits for the end and says
// how many of each status came in a second. wrk does it, because its processor time is an attacker's, not the gateway's, and is taken from
// what is measured here all the same: it needs a half of what a client in Go does.
func (b *bench) attack(ctx context.Context, address string) (answers func() (map[int]float64, error), err error) {
	script := filepath.Join(b.dir, "attack.lua")
	if err := os.WriteFile(script, []byte(attackScript), 0o600); err != nil {
		return nil, err
	}
	var said bytes.Buffer
	command := exec.CommandContext(ctx, b.programs["wrk"], "-t", "1", "-c", strconv.Itoa(attackers),
		"-d", strconv.Itoa(int((2*b.length+time.Minute).Seconds()))+"s", "-s", script, "http://"+address+"/.gatehouse/api/v1/login")
	command.Stdout, command.Stderr = &said, &said
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGINT) } // upon which it sums up
	command.WaitDelay = 5 * time.Second
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the flood: %w", err)
	}
	return func() (map[int]float64, error) {
		if err := command.Wait(); err != nil && !errors.Is(err, ctx.Err()) {
			return nil, fmt.Errorf("flood: %w\n%s", err, &said)
		}
		_, line, _ := strings.Cut(said.String(), "ATTACK ")
		return readAnswers(strings.Fields(line))
	}, nil
}

// readAnswers reads a time in µs and pairs of a status and how often it came.
func readAnswers(fields []string) (map[int]float64, error) {
	if len(fields)%2 != 1 {
		return nil, fmt.Errorf("cannot read what the flood says: %q", fields)
	}
	numbers := make([]int, len(fields))
	for i, f := range fields {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("cannot read what the flood says: %w", err)
		}
		numbers[i] = n
	}
	perSecond := map[int]float64{}
	for i := 1; i < len(numbers); i += 2 {
		perSecond[numbers[i]] = float64(numbers[i+1]) / float64(numbers[0]) * 1e6
	}
	return perSecond, nil
}
