package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/metrics"
	"gatehouse/secrets"
	"gatehouse/session"
	"gatehouse/store"
	"gatehouse/store/boltstore"
	"gatehouse/store/redisstore"
)

// engine is what a store engine gives.
type engine interface {
	store.Records
	store.Counters
	store.Feed
	// Check asks whether the engine can be read and written.
	Check(ctx context.Context) error
	io.Closer
}

// state is everything that outlives a request: the folder, the store, the keys, the audit log.
type state struct {
	engine   engine
	metrics  *metrics.Metrics
	counters store.Counters
	records  store.Records // sealed
	feed     store.Feed    // sealed
	material material
	keys     *session.Keys // that sign tokens
	log      *audit.Log
	logDir   string
	warnings []string // for the start screen
	created  bool     // the keyring was made at this start
	closers  []func() error
}

// material is the keys of this store, each created once and the same for every gateway on it.
type material struct {
	handle, device, names, pepper, form []byte
}

// lockWait is how long a start waits for the folder of a gateway that is just ending.
const lockWait = 5 * time.Second

// openState opens the folder, the store, the keys and the audit log, in that order: a root key that does not fit is refused
// before anything is written.
func openState(ctx context.Context, config configs.Config, deps Deps, m *metrics.Metrics) (s *state, err error) {
	s = &state{metrics: m}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := os.MkdirAll(config.Data, 0o700); err != nil {
		return s, fmt.Errorf("make the data folder (another one: --data): %w", err)
	}
	// A folder that was there may be open to others: keys, sockets and logs in it must not be.
	if err := os.Chmod(config.Data, 0o700); err != nil {
		return s, fmt.Errorf("close the data folder to others: %w", err)
	}
	if err := s.openEngine(ctx, config, deps); err != nil {
		return s, err
	}
	if err := s.openKeys(ctx, config, deps); err != nil {
		return s, err
	}
	s.logDir = filepath.Join(config.Data, "audit")
	s.log, err = audit.Open(audit.Options{Dir: s.logDir, Node: nodeName(), Now: deps.Now, Logger: deps.Logger, Observe: s.metrics.Appended})
	if err != nil {
		return s, fmt.Errorf("open the audit log: %w", err)
	}
	s.closers = append(s.closers, s.log.Close)
	s.keys, err = session.OpenKeys(ctx, session.KeysOptions{
		Records: s.records, Feed: s.feed, Recorder: s.log, Now: deps.Now, Logger: deps.Logger,
	})
	return s, err
}

func (s *state) openEngine(ctx context.Context, config configs.Config, deps Deps) error {
	if !config.Store.Shared() {
		db, err := boltstore.Open(ctx, boltstore.Options{Path: filepath.Join(config.Data, "gatehouse.db"), Now: deps.Now, LockTimeout: lockWait})
		if err != nil {
			return fmt.Errorf("open the store: %w", err)
		}
		s.engine = db
	} else {
		roots, err := storeAuthorities(config.StoreCAFile)
		if err != nil {
			return fmt.Errorf("read store_ca_file: %w", err)
		}
		db, err := redisstore.Open(ctx, redisstore.Options{URL: config.Store.Reveal(), Now: deps.Now, TLS: roots, Logger: deps.Logger})
		if err != nil {
			return fmt.Errorf("open the store: %w", err)
		}
		s.engine, s.warnings = db, db.Warnings()
	}
	s.closers = append(s.closers, s.engine.Close)
	return nil
}

// storeAuthorities trusts the authorities of a file, or those of the system if there is none.
func storeAuthorities(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	roots, err := authorities(file)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// authorities reads certificates in PEM.
func authorities(file string) (*x509.CertPool, error) {
	text, err := configs.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return roots, nil
}

// openKeys reads the root key, opens the keyring with it, and reads or creates this store's keys.
func (s *state) openKeys(ctx context.Context, config configs.Config, deps Deps) error {
	root, err := rootKey(config)
	if err != nil {
		return fmt.Errorf("read the root key: %w", err)
	}
	keyring, created, err := secrets.OpenKeyring(ctx, s.engine, root, secrets.Options{Now: deps.Now})
	if err != nil {
		return fmt.Errorf("open the keyring: %w", err)
	}
	s.created = created
	s.counters = s.metrics.Counters(s.engine)
	s.records = store.SealRecords(s.metrics.Records(s.engine), keyring.Sealer("records"))
	s.feed = store.SealFeed(s.metrics.Feed(s.engine), keyring.Sealer("feed"))
	return s.readMaterial(ctx)
}

func (s *state) readMaterial(ctx context.Context) error {
	for name, key := range map[string]*[]byte{
		"handle": &s.material.handle, "device": &s.material.device, "names": &s.material.names,
		"pepper": &s.material.pepper, "form": &s.material.form,
	} {
		value, _, err := secrets.Material(ctx, s.records, name, secrets.RandomKey)
		if err != nil {
			return fmt.Errorf("read key %s: %w", name, err)
		}
		*key = value
	}
	return nil
}

// rootKey reads the root key from where the configuration says it is. Only the embedded store may create one.
func rootKey(config configs.Config) (secrets.RootKey, error) {
	if !config.RootKey.IsZero() {
		return secrets.ReadRootKey(config.RootKey.Reveal())
	}
	if config.Store.Shared() {
		return secrets.LoadRootKey(config.RootKeyFile)
	}
	key, _, err := secrets.LoadOrCreateRootKey(config.RootKeyFile)
	return key, err
}

// close closes what was opened, last first.
func (s *state) close() error {
	var all error
	for i := len(s.closers) - 1; i >= 0; i-- {
		all = errors.Join(all, s.closers[i]())
	}
	s.closers = nil
	return all
}

func nodeName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
