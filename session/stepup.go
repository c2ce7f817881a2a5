package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"gatehouse/audit"
	"gatehouse/store"
)

// StepUp is a second factor that somebody who is signed in presented once more. All fields but Client are required.
type StepUp struct {
	Principal Principal // of the request
	Methods   []string  // RFC 8176 names of what was right; those of the session stay
	AuthTime  time.Time
	Origin    string // of the host whose cookies are set
	// Handle and DeviceCookie are what the request brought (ReadHandle, ReadDevice): who holds an access token alone gets no handle.
	Handle, DeviceCookie string
	Client               audit.Client // for the record of a theft
}

// StepUp makes a session as fresh as a factor that was just presented, after that is on record, and returns the cookies of its host.
// The session stays, with what is open on it, and so do its handles on other hosts, whose next request renews the access token there.
// What was handed out before is worth nothing any more: every access token that says an earlier time is refused on every gateway, and
// the handle of this host that the request brought, and any before it, is neither renewed nor replaced.
//
// It returns ErrNoSession if the session or its account has ended or the handle is not the session's, and ErrUnavailable. On an error
// the session is as fresh as before, and what the browser holds is good; only if the store fails in the very write may the new state be
// there without anybody who has its handle, and then somebody has to sign in again.
//
// Freshness cannot be borrowed: it is a property of this session's record, which tokens are compared with when they are first seen, so
// an old token, another session or another user never has it (TestManager_StepUp_oldTokensAreDead).
func (m *Manager) StepUp(ctx context.Context, s StepUp) (Principal, []*http.Cookie, error) {
	who, ok := s.Principal.subject()
	h, valid := m.openHandle(s.Handle, s.Origin)
	if !ok || !valid || h.session != who.session || h.user != who.user {
		return Principal{}, nil, ErrNoSession
	}
	ctx, cancel := finish(ctx)
	defer cancel()
	p := presented{
		handle: h, host: hostKey(s.Origin), device: m.deviceTag(s.DeviceCookie, h, s.Origin), client: func() audit.Client { return s.Client },
	}
	now := m.o.Now()
	epoch := m.verified.epoch.Load() // before the read
	for range maxTries {
		doc, version, err := m.stepped(ctx, p, s, now)
		if err != nil {
			return Principal{}, nil, err
		}
		_, err = m.save(ctx, h.session, doc, version, time.UnixMicro(doc.Expires))
		if errors.Is(err, store.ErrConflict) {
			continue // a renewal wrote, or the session was ended
		}
		if err != nil {
			return Principal{}, nil, unavailable("step up", err)
		}
		fresh := doc.principal(h.session)
		if m.revoked.covers(who) {
			return Principal{}, nil, ErrNoSession
		}
		cookies, err := m.cookies(fresh, s.Origin, doc.Hosts[p.host].Generation, now, epoch, doc.Seen)
		return fresh, cookies, err
	}
	return Principal{}, nil, unavailable("step up", store.ErrConflict)
}

// stepped reads the session and returns what it is to become. Every gateway has been told by then: whoever reads the session between
// that and the write learns nothing that it keeps.
func (m *Manager) stepped(ctx context.Context, p presented, s StepUp, now time.Time) (document, uint64, error) {
	doc, version, err := m.live(ctx, p.handle, now)
	if err != nil {
		return document{}, 0, err
	}
	if m.idle(doc, now) {
		return document{}, 0, ErrNoSession
	}
	generation := max(doc.Hosts[p.host].Generation, p.generation) + 1
	doc, _, _, err = m.rotate(ctx, doc, p, now)
	if errors.Is(err, errTheft) {
		if err = m.theft(ctx, doc, p, s.Origin); err == nil {
			err = ErrNoSession
		}
	}
	if err != nil {
		return document{}, 0, err
	}
	if generation > maxGeneration {
		return document{}, 0, ErrNoSession
	}
	if doc, _, err = m.refresh(ctx, doc, p, now); err != nil {
		return document{}, 0, err
	}
	doc = doc.withChain(p.host, chain{Generation: generation, Device: p.device, StepUp: true, Renewed: doc.age(now)})
	doc.Methods, doc.AuthTime = union(doc.Methods, s.Methods), later(s.AuthTime, time.UnixMicro(doc.AuthTime), now).UnixMicro()
	return doc, version, m.tellStepUp(ctx, p, doc.AuthTime)
}

// later returns when a factor was presented, in a second after the former one: tokens count in seconds, and one of before must not
// read like one of after. What a clock that was ahead wrote down is no measure: nobody would be fresh until that time comes.
func later(at, former, now time.Time) time.Time {
	if !believable(former, now) {
		return at
	}
	if next := former.Truncate(time.Second).Add(time.Second); at.Before(next) {
		return next
	}
	return at
}

func union(had, new []string) []string {
	all := slices.Clone(had)
	for _, one := range new {
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

// tellStepUp makes every gateway read the session again for tokens of before an instant.
func (m *Manager) tellStepUp(ctx context.Context, p presented, at int64) error {
	text, err := json.Marshal(message{Kind: kindStepUp, User: p.user.String(), Sessions: []string{p.session.String()}, AuthTime: at})
	if err != nil {
		return fmt.Errorf("publish a step-up: %w", err)
	}
	if _, err := m.o.Feed.Publish(ctx, text); err != nil {
		return unavailable("publish a step-up", err)
	}
	return m.apply(text)
}

// SteppedUp reports whether the session has got another factor than a principal tells of, as it has for the moment until every gateway was told:
// Renew brings what it became. It returns ErrNoSession or ErrUnavailable.
func (m *Manager) SteppedUp(ctx context.Context, p Principal) (bool, error) {
	who, ok := p.subject()
	if !ok {
		return false, ErrNoSession
	}
	doc, _, err := m.live(ctx, handle{user: who.user, session: who.session}, m.o.Now())
	return err == nil && doc.AuthTime != p.AuthTime.UnixMicro(), err
}
