package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"gatehouse/session/token"
	"gatehouse/store"
)

// Authenticate returns who sends the request to the host with this origin.
//
// A token of ours in Authorization, good or not, decides alone: ErrBadBearer if it is not good. Other Authorization values are
// the app's and not looked at; two lines are ErrBadRequest. Otherwise the access cookie decides: ErrNoSession, ErrExpired if
// Renew may help, ErrDuplicate, ErrBadRequest. ErrUnavailable: the token was not seen before and the store cannot be read.
func (m *Manager) Authenticate(ctx context.Context, r *http.Request, origin string) (Principal, error) {
	now := m.o.Now()
	raw, ours, err := m.bearer(r.Header["Authorization"])
	if err != nil {
		return Principal{}, err
	}
	if ours {
		p, err := m.admit(ctx, r, nil, raw, token.BearerToken, m.o.Issuer, now)
		if errors.Is(err, ErrNoSession) {
			return Principal{}, fmt.Errorf("%w: %v", ErrBadBearer, err) // and not an ErrNoSession: no login page helps
		}
		return p, err
	}
	return m.byCookie(ctx, r, origin, now)
}

// Claimed reports whether Authorization claims to hold a token of ours, in whatever state.
func (m *Manager) Claimed(r *http.Request) bool {
	for _, line := range r.Header["Authorization"] {
		if _, ours, err := m.bearer([]string{line}); ours || err != nil {
			return true
		}
	}
	return false
}

// bearer finds a token of ours in Authorization. Every word counts, whatever scheme stands before it, so that none that an app
// could read reaches one; but only the form of RFC 6750, section 2.1, is good.
func (m *Manager) bearer(lines []string) (raw string, ours bool, err error) {
	switch len(lines) {
	case 0:
		return "", false, nil
	case 1:
	default:
		return "", false, fmt.Errorf("%d Authorization lines: %w", len(lines), ErrBadRequest)
	}
	scheme, raw, _ := strings.Cut(strings.Trim(lines[0], " \t"), " ")
	raw = strings.TrimLeft(raw, " ")
	if strings.EqualFold(scheme, "Bearer") && m.verified.get(keyOf(raw)) != nil {
		return raw, true, nil
	}
	for word := range strings.FieldsFuncSeq(lines[0], func(c rune) bool { return strings.ContainsRune(" \t,;=\"", c) }) {
		if !token.Ours(word, m.o.Issuer) {
			continue
		}
		if !strings.EqualFold(scheme, "Bearer") {
			return "", false, fmt.Errorf("%w: another scheme", ErrBadBearer)
		}
		return raw, true, nil
	}
	return "", false, nil
}

func (m *Manager) byCookie(ctx context.Context, r *http.Request, origin string, now time.Time) (Principal, error) {
	j, err := readCookies(r.Header["Cookie"])
	if err != nil {
		return Principal{}, err
	}
	access, held := j.access()
	if held {
		p, err := m.admit(ctx, r, &j, access, token.CookieToken, origin, now)
		if !errors.Is(err, errNotGood) {
			return p, err
		}
	}
	// The handle decides, whatever is wrong with the token: nothing of the token is used in a renewal.
	if _, ok := m.openHandle(j.handle(), origin); ok {
		return Principal{}, ErrExpired
	}
	return Principal{}, ErrNoSession
}

// errNotGood: the token itself is not good here and now. Its session may be.
var errNotGood = fmt.Errorf("%w: access token is not good", ErrNoSession)

// errOvertaken: a step-up may have ended the token. The record of its session says.
var errOvertaken = fmt.Errorf("%w: session was stepped up", errNotGood)

// admit returns the principal of an access token: at once if it was verified before, else after verifying it and reading its
// session. j is nil for a bearer token.
func (m *Manager) admit(ctx context.Context, r *http.Request, j *jar, raw string, purpose token.Purpose, audience string, now time.Time) (Principal, error) {
	// The same token shown in another place was verified for this one only: it goes through everything again, and fails there.
	if e := m.verified.get(keyOf(raw)); e != nil && e.purpose == purpose && e.audience == audience {
		err := m.good(e, now)
		if err == nil {
			if j != nil && e.pending.Load() != 0 {
				m.note(e, j, r, audience, now)
			}
			return e.principal, nil
		}
		m.verified.remove(e)
		if !errors.Is(err, errOvertaken) {
			return Principal{}, err
		}
	}
	keys := m.o.Keys.Current()
	claims, err := keys.Verify(raw, purpose, m.o.Issuer, audience, now)
	if errors.Is(err, token.ErrUnknownKey) {
		keys = m.o.Keys.Missing(ctx)
		claims, err = keys.Verify(raw, purpose, m.o.Issuer, audience, now)
	}
	if err != nil {
		return Principal{}, fmt.Errorf("%w: %w", errNotGood, err)
	}
	e := &entry{
		key: keyOf(raw), keys: keys, kid: claims.KeyID, purpose: purpose, audience: audience, expires: claims.ExpiresAt,
	}
	p, err := m.firstSight(ctx, e, claims, now)
	if err == nil && j != nil && e.pending.Load() != 0 {
		m.note(e, j, r, audience, now)
	}
	return p, err
}

// good reports whether a token that was verified before still is. It takes no lock unless something changed: while no
// revocation arrived since the last look, none can be this session's, and while the keys are those it was verified with, its key
// is good until it expires.
func (m *Manager) good(e *entry, now time.Time) error {
	if !now.Before(e.expires) || e.expires.Sub(now) > token.MaxLifetime+token.Leeway { // expired, or the clock was set back
		return errNotGood
	}
	if keys := m.o.Keys.Current(); keys != e.keys || !e.ends.IsZero() {
		if ends, ok := keys.Until(e.kid); !ok || !ends.IsZero() && !now.Before(ends) {
			return errNotGood
		}
	}
	arrived := m.revoked.arrived.Load() // before the look
	if e.looked.Load() == arrived {
		return nil
	}
	if m.revoked.covers(e.who) {
		return ErrNoSession
	}
	if m.revoked.overtook(e.who.session, e.principal.AuthTime) {
		return errOvertaken
	}
	e.looked.Store(arrived)
	return nil
}

// firstSight reads the session behind a token that was just verified.
func (m *Manager) firstSight(ctx context.Context, e *entry, c token.Claims, now time.Time) (Principal, error) {
	user, ok := parseID(c.Subject)
	session, valid := parseID(c.SessionID)
	if !ok || !valid {
		return Principal{}, errNotGood
	}
	epoch := m.verified.epoch.Load() // before the read
	doc, _, err := m.load(ctx, user, session)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Principal{}, ErrNoSession
	case err != nil:
		return Principal{}, unavailable("read session", err)
	case !doc.alive(now):
		return Principal{}, ErrNoSession
	case c.AuthTime.Unix() != time.UnixMicro(doc.AuthTime).Unix():
		// The token is of before a step-up: the session's freshness is not its. It tells of a later time where the clock was ahead.
		return Principal{}, errOvertaken
	}
	p := doc.principal(session)
	p.Bearer = e.purpose == token.BearerToken
	if who, _ := p.subject(); m.revoked.covers(who) {
		return Principal{}, ErrNoSession // it arrived while the record was read, or the record lags behind the feed
	}
	if e.generation = doc.Hosts[hostKey(e.audience)].Generation; e.generation > 0 {
		e.pending.Or(pendingUse)
	}
	if c.IssuedAt.Sub(time.UnixMicro(doc.Seen)) >= writeSeen {
		e.pending.Or(pendingActivity)
	}
	return m.remember(e, p, epoch), nil
}

// remember keeps a verified token while this gateway is in step with the feed. The revocation set is asked again whenever the
// token is presented, so what is revoked between the read of its session and this is refused all the same
// (TestManager_refusesWhatWasRevokedWhileItWasRead).
func (m *Manager) remember(e *entry, p Principal, epoch uint64) Principal {
	p.epoch = epoch
	e.who, _ = p.subject()
	e.ends, _ = e.keys.Until(e.kid)
	inStep := m.inStep.Load()
	if inStep {
		p.assertions = &assertions{}
	}
	e.principal = p
	if inStep {
		m.verified.put(e, epoch)
	}
	return p
}
