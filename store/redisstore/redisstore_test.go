package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatehouse/store"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// unhurried is the timeout of stores whose answers are tested and not their haste: on a busy machine a server may be silent for seconds.
const unhurried = time.Minute

func open(t *testing.T, o redisstore.Options) *redisstore.Store {
	t.Helper()
	if o.Now == nil {
		o.Now = time.Now
	}
	s, err := redisstore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore_conforms(t *testing.T) {
	server := storetest.Redis(t)
	storetest.Run(t, func(t *testing.T, now func() time.Time) storetest.Engine {
		server.MustDo("FLUSHALL")
		s := open(t, redisstore.Options{URL: server.URL(), Now: now, Timeout: unhurried})
		return storetest.Engine{Store: s, Reopen: func(t *testing.T) storetest.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			server.Restart()
			return open(t, redisstore.Options{URL: server.URL(), Now: now, Timeout: unhurried})
		}}
	})
}

// buffer collects what was acknowledged.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestStore_keepsWhatItAcknowledgedWhenTheServerIsKilled also shows that the engine heals by itself: it stays open all the
// time.
func TestStore_keepsWhatItAcknowledgedWhenTheServerIsKilled(t *testing.T) {
	server := storetest.Redis(t)
	s := open(t, redisstore.Options{URL: server.URL()})
	var acknowledged buffer
	next := 0
	for round := range storetest.Rounds(4, 500) {
		worked := make(chan error, 1)
		before := len(acknowledged.String())
		go func() { worked <- storetest.Work(t.Context(), s, next, &acknowledged) }()
		storetest.WithinPatience(t, func() error {
			if len(acknowledged.String()) < before+300+100*(round%7) {
				return errors.New("too little work was done")
			}
			return nil
		})
		server.Kill()
		if err := <-worked; !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("work ended with %v, want ErrUnavailable", err)
		}
		storetest.WantUnavailable(t, t.Context(), s)
		server.Restart()
		storetest.WithinPatience(t, func() error { return s.Check(t.Context()) })
		next = storetest.WantAcknowledged(t, s, acknowledged.String())
	}
}

// Case RD-01 of attacks.md, as far as the store goes.
func TestStore_answersInTimeWhateverTheServerDoes(t *testing.T) {
	server := storetest.Redis(t)
	proxy := storetest.FaultProxy(t, server.Addr())
	const timeout = 200 * time.Millisecond
	s := open(t, redisstore.Options{URL: proxy.URL(), Timeout: timeout})
	for name, fault := range map[string]func(){
		"refused":            proxy.Refuse,
		"black hole":         proxy.BlackHole,
		"slow":               func() { proxy.Delay(time.Minute) },
		"reset before reply": proxy.ResetBeforeReply,
	} {
		t.Run(name, func(t *testing.T) {
			fault()
			begun := time.Now()
			storetest.WantUnavailable(t, t.Context(), s)
			const calls = 12
			if took := time.Since(begun); took > calls*timeout+10*time.Second { // one that waits for the server takes longer, whatever else the machine does
				t.Errorf("%d calls took %s, want at most %s each", calls, took, timeout)
			}
			if _, err := redisstore.Open(t.Context(), redisstore.Options{URL: proxy.URL(), Now: time.Now, Timeout: timeout}); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Open: %v, want ErrUnavailable", err)
			}
			proxy.Pass()
			storetest.WithinPatience(t, func() error { return s.Check(t.Context()) })
		})
	}
	t.Run("stopped", func(t *testing.T) {
		server.Pause()
		storetest.WantUnavailable(t, t.Context(), s)
		server.Resume()
		storetest.WithinPatience(t, func() error { return s.Check(t.Context()) })
	})
}

// TestStore_sendsNoWriteTwice counts what happened when the answer was lost.
func TestStore_sendsNoWriteTwice(t *testing.T) {
	server := storetest.Redis(t)
	proxy := storetest.FaultProxy(t, server.Addr())
	s, direct := open(t, redisstore.Options{URL: proxy.URL()}), open(t, redisstore.Options{URL: server.URL()})
	if _, _, err := direct.Advance(t.Context(), "c", 0, 1, 100, time.Hour); err != nil { // the server knows the script
		t.Fatal(err)
	}
	proxy.ResetBeforeReply()
	const calls = 5
	for range calls {
		if _, _, err := s.Advance(t.Context(), "c", 0, 1, 100, time.Hour); !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("Advance: %v, want ErrUnavailable", err)
		}
	}
	value, _, err := direct.Peek(t.Context(), "c")
	if err != nil || value > 1+calls {
		t.Errorf("%d calls made the counter %d, %v", calls, value, err)
	}
}

// Case RD-13: what is no answer ends the connection within bounds, and the next call is served.
func TestStore_closesOnGarbage(t *testing.T) {
	server := storetest.Redis(t)
	proxy := storetest.FaultProxy(t, server.Addr())
	s := open(t, redisstore.Options{URL: proxy.URL(), Timeout: 300 * time.Millisecond})
	for name, answer := range map[string]string{
		"text":                  "HTTP/1.1 400 Bad Request\r\n\r\n",
		"zeros":                 strings.Repeat("\x00", 100_000),
		"no line end":           "+" + strings.Repeat("x", 200_000),
		"512 MB announced":      "$536870912\r\nx",
		"more than memory":      "$9223372036854775807\r\n",
		"a negative length":     "$-2\r\n",
		"a huge array":          "*2147483647\r\n",
		"arrays without end":    strings.Repeat("*1\r\n", 100_000),
		"wide and nested":       strings.Repeat("*1000000\r\n:1\r\n", 10),
		"a push message":        ">2\r\n+a\r\n+b\r\n",
		"a map":                 "%1\r\n+a\r\n+b\r\n",
		"a number for a string": ":5\r\n",
		"another type":          "*1\r\n*1\r\n+x\r\n",
		"half a string":         "$100\r\nx",
		"a status":              "+OK\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Answer([]byte(answer))
			for call, err := range map[string]func() error{
				"Get":     func() error { _, err := s.Get(t.Context(), store.UserKey("u")); return err },
				"Put":     func() error { _, err := s.Put(t.Context(), store.UserKey("u"), nil, 0, time.Time{}); return err },
				"List":    func() error { _, err := s.List(t.Context(), store.Users); return err },
				"Advance": func() error { _, _, err := s.Advance(t.Context(), "c", 0, 1, 9, time.Hour); return err },
				"Read":    func() error { _, _, err := s.Read(t.Context(), store.Cursor{}, 0); return err },
				"Check":   func() error { return s.Check(t.Context()) },
			} {
				if err := err(); !errors.Is(err, store.ErrUnavailable) {
					t.Errorf("%s: %v, want ErrUnavailable", call, err)
				}
			}
			proxy.Pass()
			storetest.WithinPatience(t, func() error { return s.Check(t.Context()) })
		})
	}
}

// Case RD-06: scripts that the server has forgotten are sent again, within the call.
func TestStore_survivesAFlushOfScripts(t *testing.T) {
	server := storetest.Redis(t)
	s := open(t, redisstore.Options{URL: server.URL()})
	for i := range 3 {
		if value, ok, err := s.Advance(t.Context(), "c", 0, 1, 100, time.Hour); err != nil || !ok || value != int64(i+1) {
			t.Fatalf("Advance after a flush = %d, %t, %v; want %d", value, ok, err, i+1)
		}
		server.MustDo("SCRIPT", "FLUSH")
	}
}

// A server that answers but cannot do it.
func TestStore_isUnavailableWhileTheServerCannotWrite(t *testing.T) {
	server := storetest.Redis(t)
	s := open(t, redisstore.Options{URL: server.URL()})
	for _, tt := range []struct {
		name         string
		break_, mend []string
	}{
		{"read-only", []string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}},
		{"out of memory", []string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}},
		{"too few replicas", []string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server.MustDo(tt.break_...)
			if _, err := s.Put(t.Context(), store.UserKey("u"), []byte("x"), 0, time.Time{}); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Put: %v, want ErrUnavailable", err)
			}
			if _, _, err := s.Advance(t.Context(), "c", 0, 1, 9, time.Hour); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Advance: %v, want ErrUnavailable", err)
			}
			if _, err := s.Publish(t.Context(), []byte("x")); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Publish: %v, want ErrUnavailable", err)
			}
			if err := s.Check(t.Context()); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Check: %v, want ErrUnavailable", err)
			}
			server.MustDo(tt.mend...)
			if err := s.Check(t.Context()); err != nil {
				t.Errorf("Check after it was mended: %v", err)
			}
		})
	}
}

// Keys of another type, or with a content that is not ours, are refused and left alone.
func TestStore_refusesWhatItDidNotWrite(t *testing.T) {
	server := storetest.Redis(t)
	s := open(t, redisstore.Options{URL: server.URL()})
	alone, in := store.NameKey("n"), store.UserKey("u")
	for _, command := range [][]string{
		{"HSET", store.Prefix + alone.ID, "f", "v"},
		{"SET", store.Prefix + "users", "x"},
		{"SET", store.Prefix + store.FeedKey, "x"},
		{"HSET", store.Prefix + "c", "f", "v"},
	} {
		server.MustDo(command...)
	}
	want := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", what, err)
		}
	}
	all := func(what string) {
		t.Helper()
		for _, k := range []store.Key{alone, in} {
			_, err := s.Get(t.Context(), k)
			want(what+" Get", err)
			_, err = s.Put(t.Context(), k, nil, 0, time.Time{})
			want(what+" Put", err)
		}
		_, err := s.List(t.Context(), store.Users)
		want(what+" List", err)
		_, _, err = s.Advance(t.Context(), "c", 0, 1, 9, time.Hour)
		want(what+" Advance", err)
		_, _, err = s.Peek(t.Context(), "c")
		want(what+" Peek", err)
		_, err = s.Publish(t.Context(), []byte("x"))
		want(what+" Publish", err)
		_, _, err = s.Read(t.Context(), store.Cursor{}, 0)
		want(what+" Read", err)
	}
	all("wrong type:")
	server.MustDo("FLUSHALL")
	for _, command := range [][]string{
		{"SET", store.Prefix + alone.ID, "short"},
		{"HSET", store.Prefix + "users", "u", "short"},
		{"SET", store.Prefix + "c", "0x10"},
		{"XADD", store.Prefix + store.FeedKey, "5-1", "a", "b"},
	} {
		server.MustDo(command...)
	}
	all("wrong content:")
	for _, value := range []string{"", "nan", "1e3", " 1", "99999999999999999999", "9007199254740993x"} {
		server.MustDo("SET", store.Prefix+"c", value)
		_, _, err := s.Advance(t.Context(), "c", 0, 1, 9, time.Hour)
		want("counter "+strconv.Quote(value), err)
	}
}

// Case RD-10: every key ends when docs/state.md says, by the server's own clock, and not sooner.
func TestStore_givesKeysTheirLifetime(t *testing.T) {
	server := storetest.Redis(t)
	clock := storetest.NewClock(time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)) // not the server's
	s := open(t, redisstore.Options{URL: server.URL(), Now: clock.Now})
	put := func(k store.Key, after time.Duration) {
		t.Helper()
		var expires time.Time
		if after != 0 {
			expires = clock.Now().Add(after)
		}
		if _, err := s.Put(t.Context(), k, nil, 0, expires); err != nil {
			t.Fatal(err)
		}
	}
	ttl := func(key string, want time.Duration) {
		t.Helper()
		ms, err := strconv.ParseInt(strings.TrimPrefix(server.MustDo("PTTL", store.Prefix+key), ":"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		got := time.Duration(ms) * time.Millisecond
		if want == store.Forever {
			if ms != -1 {
				t.Errorf("%s lives %s, want for ever", key, got)
			}
		} else if want += store.GarbageMargin; got > want || got < want-10*time.Second {
			t.Errorf("%s lives %s, want %s", key, got, want)
		}
	}
	put(store.PendingKey("p"), 5*time.Minute)
	ttl("pending/p", 5*time.Minute)
	put(store.NameKey("n"), 0)
	ttl("name/n", store.Forever)

	put(store.SessionKey("u", "1"), time.Hour)
	ttl("sessions/u", time.Hour)
	put(store.SessionKey("u", "2"), 24*time.Hour)
	ttl("sessions/u", 24*time.Hour)
	put(store.SessionKey("u", "3"), time.Minute)
	ttl("sessions/u", 24*time.Hour)
	put(store.SessionKey("u", "4"), 0)
	put(store.SessionKey("u", "5"), time.Minute)
	ttl("sessions/u", store.Forever)

	for _, c := range []struct {
		keep, want time.Duration
	}{{time.Minute, time.Minute}, {0, 0}, {-time.Hour, 0}, {store.Forever, store.Forever}, {time.Minute, time.Minute}} {
		if _, _, err := s.Advance(t.Context(), "bucket/x", 0, 1, 100, c.keep); err != nil {
			t.Fatal(err)
		}
		ttl("bucket/x", c.want)
	}
	if _, ok, err := s.Advance(t.Context(), "bucket/x", 0, 1000, 100, time.Hour); ok || err != nil {
		t.Errorf("Advance: %t, %v", ok, err)
	}
	ttl("bucket/x", time.Minute) // what was refused has changed nothing
}

// TestStore_prunesCollections shows that expired records of a collection that is written to do not pile up.
func TestStore_prunesCollections(t *testing.T) {
	server := storetest.Redis(t)
	clock := storetest.NewClock(time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC))
	s := open(t, redisstore.Options{URL: server.URL(), Now: clock.Now})
	const records = 300
	for i := range records {
		if _, err := s.Put(t.Context(), store.SessionKey("u", strconv.Itoa(i)), nil, 0, clock.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		clock.Move(time.Minute)
	}
	n, err := strconv.Atoi(strings.TrimPrefix(server.MustDo("HLEN", store.Prefix+"sessions/u"), ":"))
	if err != nil || n > records/3 || n < int(store.GarbageMargin/time.Minute) {
		t.Errorf("%d of %d records are kept, %v; want those of the last %s and a few", n, records, err, store.GarbageMargin)
	}
}

// Two gateways share one feed, also over a server that lost it.
func TestStore_tellsAReaderThatTheFeedWasLost(t *testing.T) {
	server := storetest.Redis(t)
	writer, reader := open(t, redisstore.Options{URL: server.URL()}), open(t, redisstore.Options{URL: server.URL()})
	publish := func(n int) {
		t.Helper()
		for range n {
			if _, err := writer.Publish(t.Context(), []byte("m")); err != nil {
				t.Fatal(err)
			}
		}
	}
	cursor := func() store.Cursor {
		t.Helper()
		c, err := reader.Tail(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	gap := func(what string, c store.Cursor) {
		t.Helper()
		if messages, _, err := reader.Read(t.Context(), c, time.Millisecond); !errors.Is(err, store.ErrGap) {
			t.Errorf("%s: %v, %v; want ErrGap", what, messages, err)
		}
	}
	publish(3)
	c := cursor()
	server.MustDo("DEL", store.Prefix+store.FeedKey)
	gap("gone", c)
	publish(2)
	gap("shorter", c)
	publish(1)
	gap("as long as before", c)
	publish(2)
	gap("longer", c)

	c = cursor()
	publish(2)
	server.MustDo("XTRIM", store.Prefix+store.FeedKey, "MAXLEN", "1")
	gap("the next one removed", c)
	c = cursor()
	server.MustDo("XTRIM", store.Prefix+store.FeedKey, "MAXLEN", "0")
	gap("emptied", c)
	publish(1)
	gap("emptied and begun again", c)
	c = cursor()
	publish(1)
	if messages, _, err := reader.Read(t.Context(), c, 0); err != nil || len(messages) != 1 {
		t.Errorf("Read = %v, %v; want one message", messages, err)
	}
}

// TestStore_waitsOnAnIdleFeed keeps one connection through more empty answers than arrays may nest.
func TestStore_waitsOnAnIdleFeed(t *testing.T) {
	server := storetest.Redis(t)
	s := open(t, redisstore.Options{URL: server.URL()})
	connections := func() string {
		_, after, _ := strings.Cut(server.MustDo("INFO", "stats"), "total_connections_received:")
		count, _, _ := strings.Cut(after, "\r\n")
		return count
	}
	before, err := strconv.Atoi(connections())
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if messages, _, err := s.Read(t.Context(), store.Cursor{}, time.Millisecond); err != nil || len(messages) != 0 {
			t.Fatalf("Read of an empty feed = %v, %v", messages, err)
		}
	}
	if after := connections(); after != strconv.Itoa(before+1) { // the one that asked
		t.Errorf("%d connections before, %s after", before, after)
	}
}

func TestStore_noticesWhileWaitingThatTheServerIsGone(t *testing.T) {
	server := storetest.Redis(t)
	s := open(t, redisstore.Options{URL: server.URL()})
	ended := make(chan error, 1)
	go func() {
		_, _, err := s.Read(context.WithoutCancel(t.Context()), store.Cursor{}, time.Minute)
		ended <- err
	}()
	storetest.WithinPatience(t, func() error {
		if clients := server.MustDo("INFO", "clients"); !strings.Contains(clients, "blocked_clients:1") {
			return errors.New("nobody waits yet")
		}
		return nil
	})
	server.Kill()
	select {
	case err := <-ended:
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("Read: %v, want ErrUnavailable", err)
		}
	case <-time.After(time.Minute):
		t.Error("a reader that waits does not notice that the server is gone")
	}
}
