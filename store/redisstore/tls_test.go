package redisstore_test

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

func TestStore_speaksTLS(t *testing.T) {
	cert, key, roots := storetest.Certificate(t)
	port := storetest.FreePort(t)
	storetest.Redis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	s := open(t, redisstore.Options{URL: "rediss://localhost:" + port, TLS: &tls.Config{RootCAs: roots}})
	if _, err := s.Publish(t.Context(), []byte("x")); err != nil {
		t.Error(err)
	}
	wantRefused(t, "rediss://localhost:"+port, "certificate") // nobody vouches for it
	if _, err := redisstore.Open(t.Context(), redisstore.Options{
		URL: "rediss://" + net.JoinHostPort("127.0.0.1", port), Now: time.Now, TLS: &tls.Config{RootCAs: roots},
	}); err == nil {
		t.Error("a certificate for another name is accepted")
	}
}

// TestStore_speaksTLSWithSentinelsAndInACluster also logs in with an ACL user, and at the Sentinel with its own password.
// Servers that others name are checked by the address they are named with.
func TestStore_speaksTLSWithSentinelsAndInACluster(t *testing.T) {
	cert, key, roots := storetest.Certificate(t, net.IPv4(127, 0, 0, 1))
	options := func(port string) []string {
		return []string{
			"tls-port", port, "tls-cert-file", cert, "tls-key-file", key, "tls-ca-cert-file", cert, "tls-auth-clients", "no",
			"tls-replication", "yes",
		}
	}
	arguments := func(options ...string) (args []string) {
		for i := 0; i < len(options); i += 2 {
			args = append(args, "--"+options[i], options[i+1])
		}
		return args
	}
	user := append([]string{"ACL", "SETUSER", "gatehouse", "on", ">hunter2", "~gatehouse:*"}, rights...)

	port, sentinelPort := storetest.FreePort(t), storetest.FreePort(t)
	storetest.Redis(t, arguments(options(port)...)...).MustDo(user...)
	lines := []string{"requirepass hunter3"}
	for o := options(sentinelPort); len(o) > 0; o = o[2:] {
		lines = append(lines, o[0]+" "+o[1])
	}
	storetest.Sentinel(t, port, lines...)
	sentinels := "rediss+sentinel://gatehouse:hunter2@localhost:" + sentinelPort + "?master=" + storetest.SentinelMaster + "&replicas=0"

	port = storetest.FreePort(t)
	node := storetest.Redis(t, append(arguments(options(port)...),
		"--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", storetest.FreePort(t), "--cluster-announce-ip", "127.0.0.1")...)
	node.MustDo(user...)
	node.MustDo("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	storetest.WithinPatience(t, func() error {
		if state := node.MustDo("CLUSTER", "INFO"); !strings.Contains(state, "cluster_state:ok") {
			return errors.New(state)
		}
		return nil
	})
	for name, url := range map[string]string{
		"Sentinel": sentinels + "&sentinel_password=hunter3",
		"Cluster":  "rediss+cluster://gatehouse:hunter2@localhost:" + port,
	} {
		s := open(t, redisstore.Options{URL: url, TLS: &tls.Config{RootCAs: roots}})
		if _, err := s.Publish(t.Context(), []byte("x")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantRefused(t, url, "certificate")
	}
	if _, err := redisstore.Open(t.Context(), redisstore.Options{
		URL: sentinels, Now: time.Now, TLS: &tls.Config{RootCAs: roots},
	}); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("without the Sentinel's password: %v, want NOAUTH", err)
	}
}
