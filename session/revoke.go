package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatehouse/audit"
	"gatehouse/session/token"
	"gatehouse/store"
)

// The kinds of messages that sessions put on the feed.
const (
	kindEnded = "sessions-ended"
	kindKeys  = "keys-changed"
	// kindStepUp: a session got a fresher factor, or is about to.
	kindStepUp = "stepped-up"
)

// The order in which a session ends: record, announce, delete, announce again.
//
// It is announced before its record is deleted, so that a process that dies in between leaves no gateway that goes on to serve
// it: whoever hears the first announcement refuses the session, and deletes the record too; who began it and got an error goes
// on trying. It is announced again when the
// record is gone, because a gateway that took its place in the feed between the two (after its start or a gap) could have read
// the record while it was there. So nobody who is in step serves a session for longer than a message takes, whatever dies when.

// message says which sessions of a user have ended: those named, and, with Before, all that began before it but Except.
type message struct {
	Kind     string   `json:"kind"`
	User     string   `json:"user"`
	Sessions []string `json:"sessions,omitempty"`
	Before   int64    `json:"before,omitempty"` // microseconds since 1970
	AuthTime int64    `json:"auth,omitempty"`   // of a step-up, likewise
	Except   string   `json:"except,omitempty"`
	First    bool     `json:"first,omitempty"` // the records may still be there
	By       string   `json:"by,omitempty"`    // of a first one: who deletes them
	At       int64    `json:"at,omitempty"`    // when it was sent, in microseconds since 1970
}

// Revoke ends one session, everywhere. The event is recorded first; then the other gateways are told, the session's record is
// deleted, and this gateway refuses it. An error means that it may live on: do it again, which is safe at any point, also for a
// session that is gone. It goes on when ctx is cancelled, once begun. ErrNoSession: the ids are none.
func (m *Manager) Revoke(ctx context.Context, userID, sessionID string, event audit.Event) error {
	user, ok := parseID(userID)
	session, valid := parseID(sessionID)
	if !ok || !valid {
		return ErrNoSession
	}
	ctx, cancel := finish(ctx)
	defer cancel()
	return m.revoke(ctx, user, session, event)
}

func (m *Manager) revoke(ctx context.Context, user, session id, event audit.Event) error {
	event.Session = cmp.Or(event.Session, publicID(session.String()))
	event.Subject.ID = cmp.Or(event.Subject.ID, user.String())
	if _, err := m.o.Recorder.Append(ctx, event); err != nil {
		return unavailable("record the end of a session", err)
	}
	ended := message{Kind: kindEnded, User: user.String(), Sessions: []string{session.String()}, First: true, By: m.name}
	if err := m.announce(ctx, ended); err != nil {
		return err
	}
	if err := m.o.Records.Delete(ctx, store.SessionKey(user.String(), session.String()), 0); err != nil {
		m.finishLater(ended)
		return unavailable("end session", err)
	}
	ended.First = false
	if err := m.announce(ctx, ended); err != nil {
		m.finishLater(ended)
		return err
	}
	m.unlist(ctx, session)
	return nil
}

// RevokeUser ends all sessions of a user but the one with the id except ("" for none), everywhere, and returns how many were
// live. Order and errors are those of Revoke.
//
// The rule for what begins at the same time: every login that was complete before now ends, too. RevokeUser leaves this instant
// where Activate looks, then lists, so a login under way is either found or refused. The instant also goes with the message, so
// that a second try reaches the gateways for sessions that a first one deleted and could not announce; between gateways whose
// clocks differ it is exact only for the sessions that the message names, and a login within that difference may end with them.
// What changes the account (disabling it, a new password) must do so before it calls this.
func (m *Manager) RevokeUser(ctx context.Context, userID, except string, event audit.Event) (int, error) {
	user, ok := parseID(userID)
	kept, valid := parseID(except)
	if !ok || !valid && except != "" {
		return 0, ErrNoSession
	}
	ctx, cancel := finish(ctx)
	defer cancel()
	event.Subject.ID = cmp.Or(event.Subject.ID, userID)
	if _, err := m.o.Recorder.Append(ctx, event); err != nil {
		return 0, unavailable("record the end of sessions", err)
	}
	before, err := m.endBefore(ctx, userID)
	if err != nil {
		return 0, unavailable("end logins under way", err)
	}
	all, err := m.all(ctx, user) // before the announcement: who hears it deletes, too, and the caller is told how many there were
	if err != nil {
		return 0, unavailable("list sessions", err)
	}
	ended := message{Kind: kindEnded, User: userID, Before: before.UnixMicro(), Except: except, First: true, By: m.name}
	if err := m.announce(ctx, ended); err != nil {
		return 0, err
	}
	live, now := 0, m.o.Now()
	ended.First = false
	for _, s := range all {
		if except != "" && s.id == kept {
			continue
		}
		if err := m.o.Records.Delete(ctx, store.SessionKey(userID, s.id.String()), 0); err != nil {
			m.finishLater(ended)
			return 0, unavailable("end session", err)
		}
		ended.Sessions = append(ended.Sessions, s.id.String())
		if s.doc.alive(now) && !m.idle(s.doc, now) {
			live++
		}
	}
	if err := m.announce(ctx, ended); err != nil {
		m.finishLater(ended)
		return 0, err
	}
	for _, s := range all {
		if except == "" || s.id != kept {
			m.unlist(ctx, s.id)
		}
	}
	return live, nil
}

// announce tells every gateway, this one last, and this one only when all is done: until then it goes on to serve the session,
// so that the user who signs out and got an error can do it again.
func (m *Manager) announce(ctx context.Context, ended message) error {
	ended.At = m.o.Now().UnixMicro()
	text, err := json.Marshal(ended)
	if err != nil {
		return fmt.Errorf("publish the end of sessions: %w", err)
	}
	if _, err := m.o.Feed.Publish(ctx, text); err != nil {
		return unavailable("publish the end of sessions", err)
	}
	if ended.First {
		return nil
	}
	return m.apply(text)
}

// unlist takes a session out of the index. If that fails the entry leads to nothing, until the session would have ended.
func (m *Manager) unlist(ctx context.Context, session id) {
	_ = m.o.Records.Delete(ctx, store.SessionOfKey(publicID(session.String())), 0)
}

// apply refuses from now on what a message ends, and doubts the tokens of what it says was stepped up. It is an error if the message cannot be understood.
func (m *Manager) apply(text []byte) error {
	var ended message
	if err := json.Unmarshal(text, &ended); err != nil {
		return fmt.Errorf("read feed message: %w", err)
	}
	if ended.Kind == kindKeys {
		m.o.Keys.Changed()
		return nil
	}
	if ended.First && ended.By == m.name {
		return nil // announce says when it counts here
	}
	user, ok := parseID(ended.User)
	if ended.Kind != kindEnded && ended.Kind != kindStepUp || !ok {
		return errors.New("read feed message: unknown kind or user")
	}
	now := m.o.Now()
	if ended.By != m.name && ended.At != 0 {
		m.o.Observer.Heard(now.Sub(time.UnixMicro(ended.At)))
	}
	for _, text := range ended.Sessions {
		session, ok := parseID(text)
		if !ok {
			return errors.New("read feed message: bad session")
		}
		if ended.Kind == kindStepUp {
			m.revoked.addStepUp(session, time.UnixMicro(ended.AuthTime), now)
			continue
		}
		m.revoked.addSession(session, now)
	}
	if ended.Before != 0 {
		except, _ := parseID(ended.Except)
		before := time.UnixMicro(ended.Before)
		if !believable(before, now) {
			before = now
		}
		m.revoked.addUser(user, before, except, now)
	}
	m.watches.end(func(w watch) bool { return m.revoked.covers(w.who) })
	if m.revoked.full() {
		m.verified.forget()
		m.revoked.clear()
	}
	return nil
}

// believable reports whether an instant can have been somebody's now: what lies further ahead than the leeway was written by
// a clock that was wrong, and must not refuse logins and sessions until that time comes.
func believable(instant, now time.Time) bool { return !instant.After(now.Add(token.Leeway)) }

// marker is the record behind SessionsEndedKey.
type marker struct {
	Before int64 `json:"before"` // microseconds since 1970
}

// endBefore writes now as the instant before which no login of the user starts a session, and returns it. It never goes back,
// but from an instant that is not believable.
func (m *Manager) endBefore(ctx context.Context, userID string) (time.Time, error) {
	now := m.o.Now()
	at := marker{Before: now.UnixMicro()}
	err := store.Update(ctx, m.o.Records, store.SessionsEndedKey(userID), func(old store.Record) ([]byte, time.Time, error) {
		at.Before = now.UnixMicro()
		if old.Version != 0 {
			var former marker
			if err := json.Unmarshal(old.Value, &former); err != nil {
				return nil, time.Time{}, err
			}
			if believable(time.UnixMicro(former.Before), now) {
				at.Before = max(at.Before, former.Before)
			}
		}
		value, err := json.Marshal(at)
		return value, now.Add(m.limits.Load().Absolute), err
	})
	return time.UnixMicro(at.Before), err
}

// endedBefore returns that instant, or the zero time if there is none. One that is not believable is removed, not only
// ignored: it would count again for the last seconds before its time comes.
func (m *Manager) endedBefore(ctx context.Context, userID string) (time.Time, error) {
	key := store.SessionsEndedKey(userID)
	record, err := m.o.Records.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	var at marker
	if err := json.Unmarshal(record.Value, &at); err != nil {
		return time.Time{}, err
	}
	before := time.UnixMicro(at.Before)
	if believable(before, m.o.Now()) {
		return before, nil
	}
	err = m.o.Records.Delete(ctx, key, record.Version)
	if errors.Is(err, store.ErrConflict) { // somebody has just ended the user's sessions, or removed it too
		return m.endedBefore(ctx, userID)
	}
	return time.Time{}, err
}
