package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"gatehouse/store"
)

// document is a session as it is stored, sealed, under its user id and session id. Times are microseconds since 1970. The names
// are short because there is one for each browser, in memory where the store is Redis. It holds the account as it was at the
// last renewal, so that a gateway that sees a token first needs one read and not two.
type document struct {
	Live     bool     `json:"live,omitempty"` // false until Activate
	Identity Identity `json:"who"`
	Methods  []string `json:"amr,omitempty"`
	Origin   string   `json:"origin"`
	Device   string   `json:"device,omitempty"`
	Address  string   `json:"address,omitempty"`
	Agent    string   `json:"agent,omitempty"`
	AuthTime int64    `json:"auth"`
	Created  int64    `json:"created"`
	Seen     int64    `json:"seen"` // last activity on record
	Expires  int64    `json:"expires"`

	Hosts map[string]chain `json:"hosts,omitempty"` // by host tag; a host whose first handle was never renewed has no entry
}

// alive reports whether the session was started and is within its absolute limit.
func (d document) alive(now time.Time) bool { return d.Live && now.UnixMicro() < d.Expires }

// load reads a session. It returns store.ErrNotFound if there is none.
func (m *Manager) load(ctx context.Context, user, session id) (document, uint64, error) {
	record, err := m.o.Records.Get(ctx, store.SessionKey(user.String(), session.String()))
	if err != nil {
		return document{}, 0, err
	}
	doc, err := decode(record.Value, user)
	return doc, record.Version, err
}

func decode(value []byte, user id) (document, error) {
	var doc document
	if err := json.Unmarshal(value, &doc); err != nil {
		return document{}, fmt.Errorf("read session: %w", err)
	}
	doc.Identity.UserID = user.String() // the key says whose it is
	return doc, nil
}

// save writes a session at the version that was read, and until its absolute limit at most.
func (m *Manager) save(ctx context.Context, session id, doc document, version uint64, expires time.Time) (uint64, error) {
	value, err := json.Marshal(doc)
	if err != nil {
		return 0, fmt.Errorf("write session: %w", err)
	}
	return m.o.Records.Put(ctx, store.SessionKey(doc.Identity.UserID, session.String()), value, version, expires)
}

func (d document) principal(session id) Principal {
	return Principal{
		Identity: d.Identity, SessionID: session.String(), PublicID: publicID(session.String()), Methods: d.Methods,
		AuthTime: time.UnixMicro(d.AuthTime).UTC(), CreatedAt: time.UnixMicro(d.Created).UTC(), ExpiresAt: time.UnixMicro(d.Expires).UTC(),
	}
}

// Session is a session as lists show it.
type Session struct {
	Principal
	LastSeen      time.Time // last activity on record: up to an access token's lifetime before the last request
	Origin        string
	DeviceID      string
	ClientAddress string // at the login
	UserAgent     string
}

func (d document) session(session id) Session {
	return Session{
		Principal: d.principal(session), LastSeen: time.UnixMicro(d.Seen).UTC(),
		Origin: d.Origin, DeviceID: d.Device, ClientAddress: d.Address, UserAgent: d.Agent,
	}
}

// stored is a document with its id.
type stored struct {
	id  id
	doc document
}

// all returns every stored session of a user, prepared ones too, oldest first. A record that cannot be read is an error for all:
// whoever counts or ends sessions must not pass one over.
func (m *Manager) all(ctx context.Context, user id) ([]stored, error) {
	records, err := m.o.Records.List(ctx, store.Sessions(user.String()))
	if err != nil {
		return nil, err
	}
	out := make([]stored, 0, len(records))
	for _, record := range records {
		x, ok := parseID(record.Key.ID)
		doc, err := decode(record.Value, user)
		if !ok || err != nil {
			return nil, errors.Join(errors.New("session record is not ours"), err)
		}
		out = append(out, stored{id: x, doc: doc})
	}
	slices.SortFunc(out, func(a, b stored) int { return cmp.Compare(a.doc.Created, b.doc.Created) })
	return out, nil
}

// List returns the live sessions of a user, newest first; none for an unknown user.
func (m *Manager) List(ctx context.Context, userID string) ([]Session, error) {
	user, ok := parseID(userID)
	if !ok {
		return nil, nil
	}
	all, err := m.all(ctx, user)
	if err != nil {
		return nil, unavailable("list sessions", err)
	}
	now := m.o.Now()
	var out []Session
	for _, s := range slices.Backward(all) {
		if s.doc.alive(now) && !m.idle(s.doc, now) {
			out = append(out, s.doc.session(s.id))
		}
	}
	return out, nil
}

// index is what leads from a public id to a session: administrators name sessions by what they see, and nothing lists the
// sessions of all users.
type index struct {
	User    string `json:"user"`
	Session string `json:"session"`
}

// Find returns the session with a public id, or ErrNoSession. A session whose revocation was begun and not finished is still
// found, with its ids only, so that it can be revoked again.
func (m *Manager) Find(ctx context.Context, public string) (Session, error) {
	record, err := m.o.Records.Get(ctx, store.SessionOfKey(public))
	if errors.Is(err, store.ErrNotFound) {
		return Session{}, ErrNoSession
	}
	if err != nil {
		return Session{}, unavailable("find session", err)
	}
	var at index
	if err := json.Unmarshal(record.Value, &at); err != nil {
		return Session{}, fmt.Errorf("find session: %w", err)
	}
	user, ok := parseID(at.User)
	session, valid := parseID(at.Session)
	if !ok || !valid {
		return Session{}, errors.New("find session: index is not ours")
	}
	doc, _, err := m.load(ctx, user, session)
	if errors.Is(err, store.ErrNotFound) {
		return Session{Principal: Principal{Identity: Identity{UserID: at.User}, SessionID: at.Session, PublicID: public}}, nil
	}
	if err != nil {
		return Session{}, unavailable("find session", err)
	}
	if !doc.Live {
		return Session{}, ErrNoSession
	}
	return doc.session(session), nil
}
