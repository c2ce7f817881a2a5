package certificate

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"gatehouse/store"
)

const (
	// challengeLife is how long the answer to a challenge is kept, should the gateway that gave it crash.
	challengeLife = time.Hour
	// turnLife is how long one gateway orders at most before another one may.
	turnLife = 5 * time.Minute
)

// errAway is all that autocert and, through it, a client learns of a store that does not answer.
var errAway = errors.New("the store does not answer")

// cache keeps what autocert shares. It implements autocert.Cache over the records of the store, which are sealed there. Safe for
// concurrent use.
type cache struct {
	records   store.Records
	now       func() time.Time
	directory string // tag of the authority: what one has issued is nothing to another
	logger    *slog.Logger
}

// Get implements autocert.Cache.
func (c *cache) Get(ctx context.Context, name string) ([]byte, error) {
	record, err := c.records.Get(ctx, store.ACMEKey(c.directory, name))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, autocert.ErrCacheMiss
	case err != nil:
		return nil, c.away(ctx, "read", err)
	}
	return record.Value, nil
}

// Put implements autocert.Cache.
func (c *cache) Put(ctx context.Context, name string, data []byte) error {
	var expires time.Time
	if strings.HasSuffix(name, "+token") || strings.HasSuffix(name, "+http-01") {
		expires = c.now().Add(challengeLife)
	}
	err := store.Update(ctx, c.records, store.ACMEKey(c.directory, name), func(store.Record) ([]byte, time.Time, error) {
		return data, expires, nil
	})
	if err != nil {
		return c.away(ctx, "write", err)
	}
	return nil
}

// Delete implements autocert.Cache.
func (c *cache) Delete(ctx context.Context, name string) error {
	if err := c.records.Delete(ctx, store.ACMEKey(c.directory, name), 0); err != nil {
		return c.away(ctx, "delete", err)
	}
	return nil
}

func (c *cache) away(ctx context.Context, what string, err error) error {
	c.logger.WarnContext(ctx, "certificate store", "operation", what, "error", err)
	return errAway
}

// takeTurn makes this gateway the one that orders, until release. It returns errTurn if another one is, or the store does not say.
func (c *cache) takeTurn(ctx context.Context) (release func(), err error) {
	key := store.ACMEKey(c.directory, "turn")
	version, err := c.records.Put(ctx, key, []byte("taken"), 0, c.now().Add(turnLife))
	if err != nil {
		if !errors.Is(err, store.ErrConflict) {
			_ = c.away(ctx, "take the turn", err)
		}
		return nil, errTurn
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		// Another gateway's by now if ordering took longer than turnLife; then it stays.
		if err := c.records.Delete(ctx, key, version); err != nil && !errors.Is(err, store.ErrConflict) {
			_ = c.away(ctx, "give the turn back", err)
		}
	}, nil
}
