package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/store"
)

// MaxSkew is how far the gateway's clock may be from the server's before readiness should say so: what one gateway signs
// another must accept, and the leeway is 30 s.
const MaxSkew = 5 * time.Second

// checkScript proves that the server writes: SETRANGE with nothing on a key that does not exist changes nothing, but is
// refused like any write when the server is read-only, out of memory or cannot write its files.
var checkScript = redis.NewScript(`
redis.call('SETRANGE', KEYS[1], 0, '')
return redis.call('TIME')
`)

// checkName is the key that the checks try things on.
const checkName = store.Prefix + "check"

// Check proves that the server answers and can write, and measures the difference of the clocks, for readiness.
func (s *Store) Check(ctx context.Context) error {
	answer, err := s.script(ctx, checkScript, checkName, 0)
	if err != nil {
		return err
	}
	parts, ok := answer.([]any)
	if !ok || len(parts) != 2 {
		return unavailable(errShape)
	}
	seconds, err1 := strconv.ParseInt(fmt.Sprint(parts[0]), 10, 64)
	micros, err2 := strconv.ParseInt(fmt.Sprint(parts[1]), 10, 64)
	if err1 != nil || err2 != nil {
		return unavailable(errShape)
	}
	s.skew.Store(int64(time.Unix(seconds, micros*1000).Sub(s.now())))
	return nil
}

// Skew is by how much the server's clock was ahead at the last Check. More than MaxSkew either way deserves a warning.
func (s *Store) Skew() time.Duration { return time.Duration(s.skew.Load()) }

// Warnings are what Open found that deserves attention, one plain sentence each.
func (s *Store) Warnings() []string { return append([]string(nil), s.warnings...) }

// examine runs the start checks and collects the warnings.
func (s *Store) examine(ctx context.Context, a address, o Options) error {
	if err := s.checkRights(ctx); err != nil {
		return err
	}
	if err := s.Check(ctx); err != nil {
		return err
	}
	if skew := s.Skew(); skew.Abs() > MaxSkew {
		s.warn("the clock of Redis differs from this machine's by %s; synchronise both", skew.Round(time.Second))
	}
	servers, done, err := s.route.servers(ctx)
	if err != nil {
		return unavailable(err)
	}
	defer done()
	var errs []error
	var found notes
	for _, server := range servers {
		x := examination{Store: s, server: server, address: a, options: o, alone: len(servers) == 1}
		if err := x.check(ctx); err != nil && !server.replica {
			errs = append(errs, err)
		} else if err != nil { // it can be mended while it is not primary
			x.warn("%s", err)
		}
		found.add(server.addr, x.warnings)
	}
	s.warnings = append(s.warnings, found.sentences(len(servers) > 1)...)
	return errors.Join(errs...)
}

func (s *Store) warn(format string, args ...any) {
	s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
}

// notes are warnings with the servers that they are about.
type notes struct {
	texts []string
	addrs map[string][]string
}

func (n *notes) add(addr string, texts []string) {
	if n.addrs == nil {
		n.addrs = map[string][]string{}
	}
	for _, text := range texts {
		if n.addrs[text] == nil {
			n.texts = append(n.texts, text)
		}
		n.addrs[text] = append(n.addrs[text], addr)
	}
}

// sentences are the warnings, each once, with the servers if there are several.
func (n *notes) sentences(several bool) []string {
	var all []string
	for _, text := range n.texts {
		if several {
			text = strings.Join(n.addrs[text], ", ") + ": " + text
		}
		all = append(all, text)
	}
	return all
}
