package redisstore_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

// wantRefused opens and wants an error that says all of want and nothing secret.
func wantRefused(t *testing.T, url string, want ...string) {
	t.Helper()
	s, err := redisstore.Open(t.Context(), redisstore.Options{URL: url, Now: time.Now})
	if err == nil {
		_ = s.Close()
		t.Fatalf("Open: no error, want %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Open: %v; want it to say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Open: %v; it quotes the password", err)
	}
}

func wantWarnings(t *testing.T, s *redisstore.Store, want ...string) {
	t.Helper()
	got := s.Warnings()
	if len(got) != len(want) {
		t.Fatalf("Warnings = %q, want %d", got, len(want))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("warning %q, want %q in it", got[i], want[i])
		}
	}
}

// Case LK-09 of attacks.md, and the server that forgets in a restart.
func TestOpen_refusesAServerThatForgets(t *testing.T) {
	server := storetest.Redis(t)
	wantWarnings(t, open(t, redisstore.Options{URL: server.URL()}))
	for _, policy := range []string{"allkeys-lru", "volatile-ttl", "allkeys-random"} {
		server.MustDo("CONFIG", "SET", "maxmemory-policy", policy)
		wantRefused(t, server.URL(), policy, "set maxmemory-policy noeviction")
	}
	server.MustDo("CONFIG", "SET", "appendonly", "no")
	wantRefused(t, server.URL(), "set maxmemory-policy noeviction", "set appendonly yes") // both at once
}

func TestOpen_saysWhatACrashCanLose(t *testing.T) {
	server := storetest.Redis(t, "--appendfsync", "everysec")
	wantWarnings(t, open(t, redisstore.Options{URL: server.URL()}), "about the last second")
	server.MustDo("CONFIG", "SET", "appendfsync", "no")
	wantWarnings(t, open(t, redisstore.Options{URL: server.URL()}), "whatever its operating system had not written")
}

func TestOpen_warnsWhenItMayNotLook(t *testing.T) {
	server := storetest.Redis(t)
	server.MustDo("ACL", "SETUSER", "gatehouse", "on", ">hunter2", "~gatehouse:*", "+@all", "-@admin", "-info", "+@scripting")
	url := "redis://gatehouse:hunter2@" + server.Addr()
	s := open(t, redisstore.Options{URL: url})
	wantWarnings(t, s, "read INFO", "read its configuration")
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	wantRefused(t, "redis://gatehouse:hunter3@"+server.Addr(), "WRONGPASS")
}

// Case RD-09: 0.0.0.0 leads to this machine, but is not one of loopback's addresses.
func TestOpen_refusesAnOpenServerOffLoopback(t *testing.T) {
	server := storetest.Redis(t, "--bind", "0.0.0.0", "--protected-mode", "no")
	_, port, err := net.SplitHostPort(server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "redis://0.0.0.0:"+port, "without a password", "set requirepass")
	server.MustDo("ACL", "SETUSER", "gatehouse", "on", ">hunter2", "~*", "&*", "+@all")
	wantRefused(t, "redis://gatehouse:hunter2@0.0.0.0:"+port, "without a password", "user default off")
	server.MustDo("ACL", "SETUSER", "default", "off")
	wantWarnings(t, open(t, redisstore.Options{URL: "redis://gatehouse:hunter2@0.0.0.0:" + port}), "not encrypted")
}

func TestOpen_refusesAnOldServer(t *testing.T) {
	server := storetest.Redis(t)
	proxy := storetest.FaultProxy(t, server.Addr())
	proxy.Rewrite("redis_version:7", "redis_version:6")
	wantRefused(t, proxy.URL(), "it must be 7 or newer", "6.")
}

func TestOpen_refusesWhatIsNoStoreURL(t *testing.T) {
	for url, want := range map[string]string{
		"":                                                  "scheme",
		"http://localhost":                                  "scheme",
		"redis://":                                          "want redis://",
		"redis://:hunter2@localhost:port":                   "want redis://",
		"redis://localhost/x":                               "not a number",
		"redis://localhost/-1":                              "not a number",
		"redis://localhost?db=1":                            "nothing more",
		"redis://gatehouse@localhost":                       "a user without a password",
		"redis://a,b":                                       "several hosts are a Sentinel or a Cluster",
		"redis://a:0":                                       "want redis://",
		"redis://a:65536":                                   "want redis://",
		"redis://::1]:1":                                    "want redis://",
		"redis://localhost#x":                               "want redis://",
		"redis://:%zzhunter2@localhost":                     "percent-encoded",
		"redis://localhost?master=m":                        "nothing more",
		"redis://localhost?replicas=-1":                     "malformed",
		"redis://localhost?replicas=99":                     "malformed",
		"redis://hunter2\x7f@localhost":                     "a user without a password",
		"redis+sentinel://:hunter2@a/0":                     "the name of the primary is missing",
		"redis+sentinel://a?master=":                        "the name of the primary is missing",
		"redis+sentinel://a,?master=m":                      "want redis+sentinel://",
		"redis+sentinel://a?master=m&master=n":              "given twice",
		"redis+sentinel://a?master=m&sentinel_user=u":       "sentinel_user without sentinel_password",
		"redis+sentinel://a?master=m&password=hunter2":      "nothing more",
		"redis+sentinel://a?master=m&sentinel_password=%zz": "parameters cannot be read",
		"redis+cluster://a/1":                               "database 0 only",
		"rediss+cluster://a:port":                           "want rediss+cluster://",
	} {
		wantRefused(t, url, want)
	}
}

// Hosts are split by hand. That nobody listens shows what was read.
func TestOpen_readsSeveralHosts(t *testing.T) {
	for url, want := range map[string]string{
		"redis+sentinel://user:hunter2%40@127.0.0.1:1,[::1]:2,127.0.0.1:3/0?master=m&sentinel_password=hunter2": "127.0.0.1:1,[::1]:2,127.0.0.1:3:",
		"redis+cluster://:hunter2@127.0.0.1:1,[::1]:2":                                                          "127.0.0.1:1,[::1]:2:",
		"rediss+cluster://127.0.0.1:1,[::1]:2":                                                                  "127.0.0.1:1,[::1]:2:",
		"redis://[::1]:1":                                                                                       "[::1]:1:",
	} {
		wantRefused(t, url, want, "store unavailable")
	}
}

// rights are those that docs/operating.md asks for.
var rights = strings.Fields("+evalsha +eval +get +set +del +exists +setrange +pexpire +persist +hget +hset +hdel +hgetall +hrandfield " +
	"+xadd +xread +xrange +xrevrange +xtrim +time +wait +role +info +config|get +cluster|slots +asking")

// Case RD-09: rights are tried, and what is missing is named.
func TestOpen_namesTheRightsThatAreMissing(t *testing.T) {
	server := storetest.Redis(t)
	url := "redis://gatehouse:hunter2@" + server.Addr()
	server.MustDo("ACL", "SETUSER", "gatehouse", "on", ">hunter2", "~gatehouse:*", "+@all", "-hset", "-xadd")
	wantRefused(t, url, "lacks rights", "+hset +xadd")
	server.MustDo("ACL", "SETUSER", "gatehouse", "+@all", "-wait")
	wantRefused(t, url+"?replicas=1", "+wait")
	server.MustDo("ACL", "SETUSER", "gatehouse", "+@all", "-role")
	_, port, err := net.SplitHostPort(server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "redis+sentinel://gatehouse:hunter2@"+storetest.Sentinel(t, port).Addr()+"?master="+storetest.SentinelMaster, "+role")
	server.MustDo("ACL", "SETUSER", "gatehouse", "+@all", "-evalsha")
	wantRefused(t, url, "EVALSHA")
	server.MustDo("ACL", "SETUSER", "gatehouse", "+@all", "resetkeys", "~other:*")
	wantRefused(t, url, "gatehouse:*")
	server.MustDo(append([]string{"ACL", "SETUSER", "gatehouse", "resetkeys", "~gatehouse:*", "-@all"}, rights...)...)
	wantWarnings(t, open(t, redisstore.Options{URL: url}))
}

// Case RD-04: a primary that would go on alone.
func TestOpen_warnsOfAPrimaryThatGoesOnAlone(t *testing.T) {
	primary := storetest.Redis(t)
	wantWarnings(t, open(t, redisstore.Options{URL: primary.URL() + "?replicas=1"}), "0 are connected")
	host, port, err := net.SplitHostPort(primary.Addr())
	if err != nil {
		t.Fatal(err)
	}
	storetest.Redis(t, "--replicaof", host+" "+port)
	storetest.WithinPatience(t, func() error {
		if !strings.Contains(primary.MustDo("INFO", "replication"), "state=online") {
			return errors.New("no replica yet")
		}
		return nil
	})
	wantWarnings(t, open(t, redisstore.Options{URL: primary.URL()}), "min-replicas-to-write 1")
	primary.MustDo("CONFIG", "SET", "min-replicas-to-write", "1")
	wantWarnings(t, open(t, redisstore.Options{URL: primary.URL() + "?replicas=1"}))
}

// Case CK-02: a clock that differs is measured, not refused.
func TestCheck_measuresTheClocks(t *testing.T) {
	server := storetest.Redis(t)
	for _, ahead := range []time.Duration{0, 40 * time.Second, -40 * time.Second} {
		s := open(t, redisstore.Options{URL: server.URL(), Now: func() time.Time { return time.Now().Add(-ahead) }})
		if skew := s.Skew() - ahead; skew.Abs() > 2*time.Second {
			t.Errorf("the server is %s ahead, Skew = %s", ahead, s.Skew())
		}
		if ahead == 0 {
			wantWarnings(t, s)
		} else {
			wantWarnings(t, s, "synchronise")
		}
	}
}
