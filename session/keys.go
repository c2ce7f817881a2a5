package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/audit"
	"gatehouse/session/token"
	"gatehouse/store"
)

const (
	// missingEvery is the least time between two reads for keys that are unknown here, whoever asks with whatever kid.
	missingEvery = time.Second
	// restAfterError is how many seconds pass before the keys are looked at again when the store was away.
	restAfterError = 5
	// keysTimeout bounds one look at the store.
	keysTimeout = 2 * time.Second

	signingKeys = "signing" // the name of the record among this store's keys
)

// KeySource gives the keys that sign and verify. *Keys does, and *token.KeySet, which never changes.
type KeySource interface {
	// Current returns the keys as they are known here, without waiting.
	Current() *token.KeySet
	// Missing is called when a token names a key that Current does not have. It looks for newer keys, at most once a second
	// however often it is called, and returns what is then known.
	Missing(ctx context.Context) *token.KeySet
	// Changed says that another gateway changed the keys. It does not wait.
	Changed()
}

// KeysOptions of OpenKeys. All fields are required.
type KeysOptions struct {
	Records  store.Records // sealed
	Feed     store.Feed    // sealed
	Recorder Recorder
	Now      func() time.Time
	Logger   *slog.Logger
}

// Keys are the signing keys of all gateways on a store: one sealed record, changed by compare-and-swap and announced on the
// feed; what is known of it here is a set that does not change behind an atomic pointer. Gateways that know different sets
// for a while lose nobody: a key is published before it signs, accepted after it has retired, and looked for when a token names
// one that is unknown. Safe for concurrent use.
type Keys struct {
	o       KeysOptions
	current atomic.Pointer[token.KeySet]
	changed chan struct{}
	// unannounced says that a change was written and could not be published.
	unannounced atomic.Bool

	mu      sync.Mutex // held from reading or writing the record to taking over what it holds, so that nothing older comes last
	missing sync.Mutex
	looked  int64 // guarded by missing; microseconds since 1970
}

// OpenKeys reads the store's keys, or makes them in a store that has none: of several gateways at once one makes them.
func OpenKeys(ctx context.Context, o KeysOptions) (*Keys, error) {
	k := &Keys{o: o, changed: make(chan struct{}, 1)}
	err := store.Update(ctx, o.Records, store.MaterialKey(signingKeys), func(old store.Record) ([]byte, time.Time, error) {
		if old.Version != 0 {
			return old.Value, old.Expires, nil
		}
		set, err := token.NewKeySet(o.Now())
		if err != nil {
			return nil, time.Time{}, err
		}
		value, err := set.Marshal()
		return value, time.Time{}, err
	})
	if err == nil {
		_, _, err = k.stored(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open signing keys: %w", err)
	}
	return k, nil
}

// Current implements KeySource.
func (k *Keys) Current() *token.KeySet { return k.current.Load() }

// JWKS returns the public keys (RFC 7517, section 5).
func (k *Keys) JWKS() []byte { return k.Current().JWKS() }

// Changed implements KeySource.
func (k *Keys) Changed() {
	select {
	case k.changed <- struct{}{}:
	default: // there is word of it already
	}
}

// Missing implements KeySource. Those who ask while somebody looks wait for what he finds.
func (k *Keys) Missing(ctx context.Context) *token.KeySet {
	known := k.Current()
	k.missing.Lock()
	defer k.missing.Unlock()
	if current := k.Current(); current != known {
		return current // found while this one waited
	}
	now := k.o.Now().UnixMicro()
	if age := now - k.looked; age >= 0 && age < missingEvery.Microseconds() {
		return known
	}
	k.looked = now
	if _, _, err := k.stored(ctx); err != nil {
		k.o.Logger.WarnContext(ctx, "signing keys cannot be read", "err", err)
	}
	return k.Current()
}

// stored reads the record and takes over what it holds, if that is news.
func (k *Keys) stored(ctx context.Context) (*token.KeySet, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	k.mu.Lock()
	defer k.mu.Unlock()
	record, err := k.o.Records.Get(ctx, store.MaterialKey(signingKeys))
	if err != nil {
		return nil, 0, fmt.Errorf("read signing keys: %w", err)
	}
	set, err := token.ParseKeySet(record.Value)
	if err != nil {
		return nil, 0, fmt.Errorf("read signing keys: %w", err)
	}
	if current := k.Current(); current == nil || !current.Equal(set) {
		k.current.Store(set)
	}
	return set, record.Version, nil
}

// Run keeps the keys as the record and the schedule have them, until ctx is done. It reads the record when a change is announced,
// or due; nothing is read to no purpose.
func (k *Keys) Run(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	rest := 0 // ticks to let pass after an error
	for {
		stale := false
		select {
		case <-ctx.Done():
			return
		case <-k.notice(rest):
			stale = true
		case <-ticker.C:
			if rest = max(rest-1, 0); rest > 0 {
				continue
			}
			_, change, err := k.Current().Due(k.o.Now())
			stale = change != "" || err != nil
		}
		if k.unannounced.Load() {
			k.announce(ctx)
		}
		if !stale {
			continue
		}
		if err := k.keep(ctx); err != nil && ctx.Err() == nil {
			k.o.Logger.WarnContext(ctx, "signing keys cannot be kept", "err", err)
			rest = restAfterError
			k.Changed() // what was announced is still to be read
		}
	}
}

// notice is where changes are announced, and nothing while the store is given a rest.
func (k *Keys) notice(rest int) <-chan struct{} {
	if rest > 0 {
		return nil
	}
	return k.changed
}

// keep reads the keys and does what the schedule asks for: first the record in the audit log, then the change.
func (k *Keys) keep(ctx context.Context) error {
	for {
		set, version, err := k.stored(ctx)
		if err != nil {
			return err
		}
		due, change, err := set.Due(k.o.Now())
		if err != nil || change == "" {
			return err
		}
		event := audit.Event{
			Kind: audit.KindKeysRotated, Outcome: audit.Success, Actor: audit.Actor{Type: audit.ActorSystem},
			Details: map[string]string{"change": change, "signs": due.Signs()},
		}
		if _, err := k.o.Recorder.Append(ctx, event); err != nil {
			return fmt.Errorf("record a change of keys: %w", err)
		}
		err = k.write(ctx, due, version)
		if err == nil {
			continue // the next step may be due, too
		}
		event.Outcome = audit.Failed // another gateway was faster, or the store went away: this change did not happen
		if _, logErr := k.o.Recorder.Append(ctx, event); logErr != nil {
			return errors.Join(err, logErr)
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// write changes the record, tells the other gateways, and only then signs with it here.
func (k *Keys) write(ctx context.Context, set *token.KeySet, version uint64) error {
	value, err := set.Marshal()
	if err != nil {
		return fmt.Errorf("write signing keys: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.o.Records.Put(ctx, store.MaterialKey(signingKeys), value, version, time.Time{}); err != nil {
		return fmt.Errorf("write signing keys: %w", err)
	}
	k.announce(ctx)
	k.current.Store(set)
	return nil
}

// announce tells the other gateways. What could not be told is told by Run; until then they learn of it by the first token that
// names a key they do not know.
func (k *Keys) announce(ctx context.Context) {
	_, err := k.o.Feed.Publish(ctx, []byte(`{"kind":"`+kindKeys+`"}`))
	if err != nil {
		k.o.Logger.WarnContext(ctx, "change of keys is not announced yet", "err", err)
	}
	k.unannounced.Store(err != nil)
}

// Rotate makes the next key sign now, and a fresh one if there is none; the former key retires. The caller has recorded it. It
// returns token.ErrTooOften, or ErrUnavailable if the keys are as they were, or may be.
func (k *Keys) Rotate(ctx context.Context) error {
	ctx, cancel := finish(ctx)
	defer cancel()
	for {
		set, version, err := k.stored(ctx)
		if err != nil {
			return unavailable("rotate keys", err)
		}
		rotated, err := set.Rotate(k.o.Now())
		if err != nil {
			return fmt.Errorf("rotate keys: %w", err)
		}
		err = k.write(ctx, rotated, version)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return unavailable("rotate keys", err)
		}
		return nil
	}
}

// List returns the keys as the store has them.
func (k *Keys) List(ctx context.Context) ([]token.Key, error) {
	set, _, err := k.stored(ctx)
	if err != nil {
		return nil, unavailable("list keys", err)
	}
	return set.Keys(), nil
}
