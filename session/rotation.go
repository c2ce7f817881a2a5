package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"strconv"
	"time"

	"gatehouse/audit"
	"gatehouse/store"
)

// Rotation. Every renewal replaces the handle of its host by the next generation (RFC 9700, section 4.14.2), so that of two
// holders of one handle the slower shows itself:
//
//	presented     what happens
//	current       it rotates
//	previous      the current one again, if the same device asks and the current one was never presented, or was presented for
//	              the first time at most replayWithin ago: parallel tabs, and answers that were lost
//	next          adopted: the store lost the write that made it
//	previous of a step-up  nothing, and no theft either, where it would have got the current one (stepup.go)
//	any other     theft: the session ends on all hosts
//
// The same device is the device cookie of that host. Presented means sent with any request, beside a good access token too;
// that is noted once for each generation (activity.go).
const (
	replayWithin = 30 * time.Second
	// maxGeneration ends a session that was renewed a million times: what notes the use of a handle has room for no more.
	maxGeneration = 1<<20 - 1
	// maxHosts bounds the hosts of a session.
	maxHosts = 200
)

// chain is the generations of one host within a session.
type chain struct {
	Generation uint32 `json:"g"` // current
	Device     string `json:"d,omitempty"`
	// StepUp: the current generation came with a fresher factor, so the one before it gets nothing any more.
	StepUp bool `json:"s,omitempty"`
	// Renewed is when the current generation was made, in seconds from the session's beginning.
	Renewed int64 `json:"r,omitempty"`
}

// renewed is the chain of a host after a renewal.
func (d document) renewed(generation uint32, device string, now time.Time) chain {
	return chain{Generation: generation, Device: device, Renewed: d.age(now)}
}

// age is how old the session is, in seconds.
func (d document) age(now time.Time) int64 { return max((now.UnixMicro()-d.Created)/1e6, 0) }

// presented is a handle as a request brought it.
type presented struct {
	handle
	host    string // tag, as documents name it
	device  string // tag of the device cookie; "" for none
	passive bool   // the request does not count as activity
	client  func() audit.Client
}

// hostKey is how a document and a counter name a host.
func hostKey(origin string) string { return encoding.EncodeToString(hostTag(origin)) }

// deviceTag names a device without telling its cookie: that of a login, or the one that the hand-off gave this host (join.go).
func (m *Manager) deviceTag(cookie string, h handle, origin string) string {
	if m.o.Device != nil && !m.joinedWith(cookie, h, origin) {
		cookie = m.o.Device(cookie, h.user.String())
	}
	if cookie == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(cookie))
	return hex.EncodeToString(sum[:8])
}

// errTheft: the handle can only be a copy in other hands.
var errTheft = errors.New("handle was used by somebody else")

// rotate returns the document after a handle was presented, whether it has to be written, and the generation to hand out.
func (m *Manager) rotate(ctx context.Context, doc document, p presented, now time.Time) (document, bool, uint32, error) {
	held := doc.Hosts[p.host]
	switch {
	case p.generation > maxGeneration-1:
		return doc, false, 0, ErrNoSession
	case p.generation == held.Generation:
		return doc.withChain(p.host, doc.renewed(held.Generation+1, p.device, now)), true, held.Generation + 1, nil
	case p.generation == held.Generation+1:
		return doc.withChain(p.host, doc.renewed(p.generation, p.device, now)), true, p.generation, nil
	case p.generation+1 == held.Generation && p.device == held.Device:
		used, first, err := m.firstUse(ctx, doc, p.session, p.host, held.Generation)
		if err != nil {
			return doc, false, 0, err
		}
		switch quiet := !used || now.Sub(first) <= replayWithin; {
		case quiet && held.StepUp:
			return doc, false, 0, ErrNoSession // of a tab that was overtaken, and no theft
		case quiet:
			return doc, false, held.Generation, nil
		}
	}
	return doc, false, 0, errTheft
}

// withChain returns a copy; the map of the original may be shared.
func (d document) withChain(host string, c chain) document {
	hosts := maps.Clone(d.Hosts)
	if hosts == nil {
		hosts = map[string]chain{}
	}
	hosts[host] = c
	d.Hosts = hosts
	return d
}

// theft ends a session of which somebody else has a handle, on record.
func (m *Manager) theft(ctx context.Context, doc document, p presented, origin string) error {
	event := audit.Event{
		Kind: audit.KindHandleTheft, Outcome: audit.Denied, Severity: audit.High, Actor: audit.Actor{Type: audit.ActorClient},
		Subject: audit.Subject{ID: p.user.String(), Name: doc.Identity.Name},
		Details: map[string]string{
			"host": origin, "presented": strconv.FormatUint(uint64(p.generation), 10),
			"current":     strconv.FormatUint(uint64(doc.Hosts[p.host].Generation), 10),
			"same_device": strconv.FormatBool(p.device == doc.Hosts[p.host].Device),
		},
	}
	event.Client = p.client()
	ctx, cancel := finish(ctx)
	defer cancel()
	return m.revoke(ctx, p.user, p.session, event)
}

// The use of a handle is one counter for each session and host: the generation in the upper 20 bits of 53, and in the lower 33
// the milliseconds from the session's beginning to its first use, turned round. So the larger of two numbers is the later
// generation, and of one generation the earlier use, and noting it is one Advance in any order.
const useBits = 33

func useOf(generation uint32, created, at time.Time) int64 {
	const most = 1<<useBits - 1 // 99 days; no session lives as long
	return int64(generation)<<useBits | (most - min(max(at.Sub(created).Milliseconds(), 0), most))
}

// firstUse returns whether a generation was presented, and when for the first time.
func (m *Manager) firstUse(ctx context.Context, doc document, session id, host string, generation uint32) (bool, time.Time, error) {
	value, ok, err := m.o.Counters.Peek(ctx, store.HandleKey(session.String(), host))
	if err != nil {
		return false, time.Time{}, unavailable("read use of a handle", err)
	}
	switch noted := uint32(value >> useBits); {
	case !ok || noted < generation:
		return false, time.Time{}, nil
	case noted > generation:
		return true, time.Time{}, nil // the store lost the document of a later one: long ago is the safe answer
	}
	const most = 1<<useBits - 1
	created := time.UnixMicro(doc.Created)
	return true, created.Add(time.Duration(most-value&most) * time.Millisecond), nil
}

// noteUse notes that a generation was presented.
func (m *Manager) noteUse(ctx context.Context, p Principal, session id, host string, generation uint32, at time.Time) error {
	_, _, err := m.o.Counters.Advance(ctx, store.HandleKey(session.String(), host), useOf(generation, p.CreatedAt, at), 0,
		store.MaxCounter, max(p.ExpiresAt.Sub(at), time.Second))
	return err
}
