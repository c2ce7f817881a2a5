package session

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"gatehouse/audit"
	"gatehouse/session/token"
	"gatehouse/store"
)

// Grant is what a complete login gives a session. Identity, AuthTime and Origin are required.
type Grant struct {
	Identity Identity
	Methods  []string  // RFC 8176 names of the factors
	AuthTime time.Time // when the login was complete
	Origin   string    // of the host whose cookies are set
	DeviceID string
	// ClientAddress and UserAgent are for lists; the User-Agent is cut.
	ClientAddress string
	UserAgent     string
	// FormerHandle is the handle that the request brought (ReadHandle), checked or not: signing in again ends that session, so
	// that neither a planted handle nor a forgotten one stays good (SE-12).
	FormerHandle string
}

// Prepared is a session that is not live yet: not listed, good nowhere, and gone after a minute.
type Prepared struct {
	grant   Grant
	session id
	doc     document
	version uint64
	until   time.Time
}

// PublicID is the public id of the session to be, for the login's record.
func (p *Prepared) PublicID() string { return publicID(p.session.String()) }

// Credentials are what a login hands out, and nothing before Activate does.
type Credentials struct {
	Principal Principal
	// Cookies are the access token and the handle of the host that the login was on.
	Cookies []*http.Cookie
	// AccessToken is for Authorization, on every host; it is not renewed.
	AccessToken string
	ExpiresIn   time.Duration // of the access tokens
}

// Prepare writes a session that is not live. It returns ErrUnavailable if that cannot be done.
func (m *Manager) Prepare(ctx context.Context, g Grant) (*Prepared, error) {
	if _, ok := parseID(g.Identity.UserID); !ok || g.Origin == "" || g.AuthTime.IsZero() {
		return nil, errors.New("prepare session: grant is not complete")
	}
	now := m.o.Now()
	if err := plausible(now); err != nil {
		return nil, err
	}
	p := &Prepared{grant: g, session: newID(), until: now.Add(prepareFor), doc: document{
		Identity: g.Identity, Methods: g.Methods, Origin: g.Origin, Device: g.DeviceID, Address: g.ClientAddress,
		Agent: cut(g.UserAgent, maxUserAgent), AuthTime: g.AuthTime.UnixMicro(), Created: now.UnixMicro(),
	}}
	var err error
	if p.version, err = m.save(ctx, p.session, p.doc, 0, p.until); err != nil {
		return nil, unavailable("prepare session", err)
	}
	return p, nil
}

// plausible returns ErrUnavailable by a clock that cannot be right. Nothing is written by it either: what it would say of activity
// and uses, nobody could take back.
func plausible(now time.Time) error {
	if now.Unix() < token.Earliest {
		return unavailable("read the clock", errors.New("it reads a time before this program was made"))
	}
	return nil
}

func cut(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "")
}

// Activate makes a prepared session live, after the login is on record, ends the one that the browser had, and returns the
// credentials. On any error there is no session: ErrNoSession if the session or the account was ended meanwhile, else
// ErrUnavailable.
func (m *Manager) Activate(ctx context.Context, p *Prepared) (Credentials, error) {
	ctx, cancel := finish(ctx)
	defer cancel()
	epoch := m.verified.epoch.Load() // before anything is read
	var out Credentials
	err := m.activate(ctx, p)
	if err == nil {
		out, err = m.credentials(p, epoch)
	}
	if err != nil {
		// No credential left the process, so nothing has to be revoked, and a record that stays because this fails too is one
		// that nobody can use.
		_ = m.o.Records.Delete(ctx, p.key(), 0)
		m.unlist(ctx, p.session)
		return Credentials{}, fmt.Errorf("activate session: %w", err)
	}
	return out, nil
}

func (p *Prepared) key() store.Key {
	return store.SessionKey(p.grant.Identity.UserID, p.session.String())
}

func (m *Manager) activate(ctx context.Context, p *Prepared) error {
	now := m.o.Now()
	if !now.Before(p.until) {
		return ErrNoSession
	}
	if err := m.stillWelcome(ctx, p); err != nil {
		return err
	}
	// Before the new one is live: if it cannot be ended, the login has not happened, and the browser keeps what it had.
	if err := m.endFormer(ctx, p); err != nil {
		return err
	}
	p.doc.Live, p.doc.Created, p.doc.Seen = true, now.UnixMicro(), now.UnixMicro()
	expires := now.Add(m.limits.Load().Absolute)
	p.doc.Expires = expires.UnixMicro()
	at, err := json.Marshal(index{User: p.grant.Identity.UserID, Session: p.session.String()})
	if err != nil {
		return err
	}
	if _, err = m.o.Records.Put(ctx, store.SessionOfKey(p.PublicID()), at, 0, expires); err != nil {
		return unavailable("write index", err)
	}
	_, err = m.save(ctx, p.session, p.doc, p.version, expires)
	if errors.Is(err, store.ErrConflict) {
		return ErrNoSession // RevokeUser deleted it
	}
	if err != nil {
		return unavailable("mark live", err)
	}
	return m.keepWithin(ctx, p)
}

// stillWelcome refuses a login that was overtaken by the end of all of its user's sessions, or of the account. RevokeUser
// first writes its instant and then lists; Prepare wrote before this reads. So either RevokeUser finds the prepared session and
// deletes it, or its instant is seen here (TestManager_RevokeUser_endsLoginsUnderWay).
func (m *Manager) stillWelcome(ctx context.Context, p *Prepared) error {
	before, err := m.endedBefore(ctx, p.grant.Identity.UserID)
	if err != nil {
		return unavailable("read end of sessions", err)
	}
	if p.grant.AuthTime.Before(before) {
		return ErrNoSession
	}
	identity, enabled, err := m.o.Accounts.Identity(ctx, p.grant.Identity.UserID)
	if err != nil {
		return unavailable("read account", err)
	}
	if !enabled {
		return ErrNoSession
	}
	identity.UserID = p.grant.Identity.UserID
	p.doc.Identity = identity
	return nil
}

// endFormer ends the session that the browser was signed in with, if its handle is good and it still lives.
func (m *Manager) endFormer(ctx context.Context, p *Prepared) error {
	client := audit.Client{Address: p.grant.ClientAddress, UserAgent: p.grant.UserAgent}
	return m.endOther(ctx, p.grant.FormerHandle, p.grant.Origin, p.session, p.grant.Identity, client)
}

// endOther ends the session behind a handle that a browser held on a host where it begins another one.
func (m *Manager) endOther(ctx context.Context, held, origin string, begun id, who Identity, client audit.Client) error {
	former, ok := m.openHandle(held, origin)
	if !ok || former.session == begun {
		return nil
	}
	doc, _, err := m.load(ctx, former.user, former.session)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return unavailable("read former session", err)
	}
	return m.revoke(ctx, former.user, former.session, audit.Event{
		Kind: audit.KindSessionRevoked, Outcome: audit.Success,
		Actor:   audit.Actor{Type: audit.ActorUser, ID: who.UserID, Name: who.Name},
		Subject: audit.Subject{ID: former.user.String(), Name: doc.Identity.Name},
		Client:  client,
		Details: map[string]string{"cause": "signed-in-again"},
	})
}

// keepWithin ends the oldest sessions of the user beyond PerUser. It counts after this one is live, so that of logins at the
// same time the last sees all.
func (m *Manager) keepWithin(ctx context.Context, p *Prepared) error {
	user, _ := parseID(p.grant.Identity.UserID)
	all, err := m.all(ctx, user)
	if err != nil {
		return unavailable("count sessions", err)
	}
	now := m.o.Now()
	var live []stored
	for _, s := range all {
		if s.doc.alive(now) && s.id != p.session {
			live = append(live, s)
		}
	}
	for len(live) >= m.limits.Load().PerUser {
		oldest := live[0]
		live = live[1:]
		err := m.revoke(ctx, user, oldest.id, systemEvent(user, oldest.doc, "session-limit"))
		if err != nil {
			return err
		}
	}
	return nil
}

// systemEvent is the record of a session that the gateway itself ends.
func systemEvent(user id, doc document, cause string) audit.Event {
	return audit.Event{
		Kind: audit.KindSessionRevoked, Outcome: audit.Success, Actor: audit.Actor{Type: audit.ActorSystem},
		Subject: audit.Subject{ID: user.String(), Name: doc.Identity.Name}, Details: map[string]string{"cause": cause},
	}
}

func (m *Manager) credentials(p *Prepared, epoch uint64) (Credentials, error) {
	now := m.o.Now()
	principal := p.doc.principal(p.session)
	cookies, err := m.cookies(principal, p.grant.Origin, 0, now, epoch, p.doc.Seen)
	if err != nil {
		return Credentials{}, err
	}
	bearer := principal
	bearer.Bearer = true
	accessToken, expires, err := m.issue(&entry{}, bearer, token.BearerToken, m.o.Issuer, now, principal.ExpiresAt, epoch)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{
		Principal: principal, AccessToken: accessToken, ExpiresIn: expires.Sub(now).Truncate(time.Second), Cookies: cookies,
	}, nil
}

// issue signs an access token and remembers it as verified, as the session behind it has just been read or written. It ends at
// until at the latest.
func (m *Manager) issue(e *entry, p Principal, purpose token.Purpose, audience string, now, until time.Time, epoch uint64) (string, time.Time, error) {
	expires := now.Add(m.limits.Load().AccessLifetime)
	for _, limit := range []time.Time{p.ExpiresAt, until} {
		if limit.Before(expires) {
			expires = limit
		}
	}
	if expires = expires.Truncate(time.Second); expires.Unix() <= now.Unix() {
		expires = expires.Add(time.Second) // a token that never was good would be renewed in a circle
	}
	keys := m.o.Keys.Current()
	raw, err := keys.Sign(purpose, token.Claims{
		ID: rand.Text(), Issuer: m.o.Issuer, Audience: audience, Subject: p.UserID, SessionID: p.SessionID,
		Methods: p.Methods, AuthTime: p.AuthTime, IssuedAt: now, ExpiresAt: expires,
	})
	if err != nil {
		return "", time.Time{}, err
	}
	e.key, e.keys, e.kid = keyOf(raw), keys, keys.Signs()
	e.purpose, e.audience, e.expires = purpose, audience, expires
	m.remember(e, p, epoch)
	return raw, expires, nil
}

// seconds is the Max-Age of a cookie that lives so long; never 0, which would mean another thing.
func seconds(d time.Duration) int { return max(int(d/time.Second), 1) }
