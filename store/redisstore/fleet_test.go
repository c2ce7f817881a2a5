package redisstore_test

import (
	"testing"
	"time"

	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

// conforms runs the suite over a fleet. Its clock, far from the servers', is the suite's.
func conforms(t *testing.T, f *storetest.Fleet) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) storetest.Engine {
		f.FlushAll()
		s := open(t, redisstore.Options{URL: f.URL(), Now: now})
		return storetest.Engine{Store: s, Reopen: func(t *testing.T) storetest.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, redisstore.Options{URL: f.URL(), Now: now})
		}}
	})
}

func TestStore_conformsWithSentinels(t *testing.T) { conforms(t, storetest.Sentinels(t)) }

func TestStore_conformsInACluster(t *testing.T) { conforms(t, storetest.Cluster(t)) }
