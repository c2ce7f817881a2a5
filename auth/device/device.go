// Package device remembers which devices and networks an account has completed a login from.
//
// It promises: the device cookie names accounts and devices by random ids only and every entry carries a MAC that is compared
// in constant time; reading it never asks the store, and what does not read as a device cookie is no device. Only Remember,
// which is called at a complete login and nowhere else, makes a device or network known, so that failures from a place never
// make it familiar. A device that was forgotten does not become known again by its old cookie: it gets a new id. What an
// account has is bounded, and ends 180 days after it was last seen.
//
// The idea is that of the OWASP article "Slow Down Online Guessing Attacks with Device Cookies".
package device

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"gatehouse/store"
)

// Bounds of what is remembered of one account.
const (
	// Lifetime is how long a device or network stays known after it was last seen.
	Lifetime    = 180 * 24 * time.Hour
	maxDevices  = 50
	maxNetworks = 100
	maxAgent    = 200 // bytes
)

// Device is a browser that completed a login.
type Device struct {
	ID    string    `json:"id"` // 128 random bits, 32 hexadecimal digits
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Agent is the User-Agent at the last complete login, cut to 200 bytes, without controls. It is shown, never compared.
	Agent string `json:"agent,omitempty"`
}

// Network is where an account completed a login from.
type Network struct {
	Prefix netip.Prefix `json:"prefix"` // a /24 or /64
	First  time.Time    `json:"first"`
	Last   time.Time    `json:"last"`
}

// History is what an account's complete logins left behind, as of the moment it was loaded. The zero History knows nothing.
// It is a value and never changes.
type History struct {
	devices  []Device
	networks []Network
}

// KnowsDevice reports whether the device completed a login within Lifetime.
func (h History) KnowsDevice(id string) bool {
	return slices.ContainsFunc(h.devices, func(d Device) bool { return d.ID == id })
}

// KnowsNetwork reports whether a login was completed from the network within Lifetime. An invalid prefix is never known.
func (h History) KnowsNetwork(prefix netip.Prefix) bool {
	return prefix.IsValid() && slices.ContainsFunc(h.networks, func(n Network) bool { return n.Prefix == prefix.Masked() })
}

// Devices returns the known devices, the last seen first.
func (h History) Devices() []Device { return slices.Clone(h.devices) }

// Networks returns the known networks, the last seen first.
func (h History) Networks() []Network { return slices.Clone(h.networks) }

// Options say where histories are kept. All fields are required.
type Options struct {
	Records store.Records
	Now     func() time.Time
	// Key authenticates device cookies: at least 32 secret bytes.
	Key []byte
}

// Service reads and writes histories and device cookies. Safe for concurrent use.
type Service struct {
	records store.Records
	now     func() time.Time
	key     []byte
}

// New makes a Service.
func New(o Options) *Service {
	return &Service{records: o.Records, now: o.Now, key: slices.Clone(o.Key)}
}

// Load reads an account's history; an account without one has the zero History. One read, whoever userID is.
func (s *Service) Load(ctx context.Context, userID string) (History, error) {
	record, err := s.records.Get(ctx, store.HistoryKey(userID))
	if errors.Is(err, store.ErrNotFound) {
		return History{}, nil
	}
	if err != nil {
		return History{}, fmt.Errorf("load history of %s: %w", userID, err)
	}
	return decode(record, s.now())
}

// Remember makes a device and a network known, after a complete login. deviceID is what DeviceFor found in the browser's
// cookie. If it is empty or not known any more, the device gets a new id, so that a copy of a cookie that was ended stays
// ended. It returns the id that the browser's cookie is to hold. An invalid network is not remembered.
func (s *Service) Remember(ctx context.Context, userID, deviceID string, network netip.Prefix, userAgent string) (string, error) {
	fresh, id := newID(), ""
	err := s.change(ctx, userID, func(h *History, now time.Time) {
		id = deviceID
		if !h.KnowsDevice(id) {
			id = fresh
			h.devices = append(h.devices, Device{ID: id, First: now})
		}
		i := slices.IndexFunc(h.devices, func(d Device) bool { return d.ID == id })
		h.devices[i].Last, h.devices[i].Agent = now, clean(userAgent)
		h.see(network, now)
	})
	if err != nil {
		return "", fmt.Errorf("remember device of %s: %w", userID, err)
	}
	return id, nil
}

// Forget ends one device; its cookie is a stranger's from now on. No error if it is not known.
func (s *Service) Forget(ctx context.Context, userID, deviceID string) error {
	err := s.change(ctx, userID, func(h *History, _ time.Time) {
		h.devices = slices.DeleteFunc(h.devices, func(d Device) bool { return d.ID == deviceID })
	})
	if err != nil {
		return fmt.Errorf("forget device of %s: %w", userID, err)
	}
	return nil
}

// ForgetAll ends every device and network of an account: its password or factor changed, or it is deleted.
func (s *Service) ForgetAll(ctx context.Context, userID string) error {
	if err := s.records.Delete(ctx, store.HistoryKey(userID), 0); err != nil {
		return fmt.Errorf("forget devices of %s: %w", userID, err)
	}
	return nil
}

// change updates the history atomically. edit may run several times.
func (s *Service) change(ctx context.Context, userID string, edit func(*History, time.Time)) error {
	return store.Update(ctx, s.records, store.HistoryKey(userID), func(old store.Record) ([]byte, time.Time, error) {
		now := s.now().UTC()
		var h History
		if old.Version != 0 {
			var err error
			if h, err = decode(old, now); err != nil {
				return nil, time.Time{}, err
			}
		}
		edit(&h, now)
		return encode(h, now)
	})
}

// see makes a network known as of now.
func (h *History) see(network netip.Prefix, now time.Time) {
	if !network.IsValid() {
		return
	}
	network = network.Masked()
	i := slices.IndexFunc(h.networks, func(n Network) bool { return n.Prefix == network })
	if i < 0 {
		h.networks = append(h.networks, Network{Prefix: network, First: now})
		i = len(h.networks) - 1
	}
	h.networks[i].Last = now
}

// document is a History as it is stored.
type document struct {
	Devices  []Device  `json:"devices,omitempty"`
	Networks []Network `json:"networks,omitempty"`
}

// decode reads a stored history as of now: without what was last seen too long ago, the last seen first. A time beyond now
// was written by a clock that was wrong and counts as now, so that it ends like any other once it is written again.
func decode(record store.Record, now time.Time) (History, error) {
	var d document
	if err := json.Unmarshal(record.Value, &d); err != nil {
		return History{}, fmt.Errorf("read %s: %w", record.Key, err)
	}
	gone := now.Add(-Lifetime)
	for i := range d.Devices {
		d.Devices[i].Last = earlier(d.Devices[i].Last, now)
	}
	for i := range d.Networks {
		d.Networks[i].Last = earlier(d.Networks[i].Last, now)
	}
	h := History{
		devices:  slices.DeleteFunc(d.Devices, func(d Device) bool { return !d.Last.After(gone) }),
		networks: slices.DeleteFunc(d.Networks, func(n Network) bool { return !n.Last.After(gone) }),
	}
	h.sort()
	return h, nil
}

// encode writes a history within its bounds, those last seen longest ago going first; an empty one is no record.
func encode(h History, now time.Time) ([]byte, time.Time, error) {
	h.sort()
	d := document{Devices: h.devices[:min(len(h.devices), maxDevices)], Networks: h.networks[:min(len(h.networks), maxNetworks)]}
	if len(d.Devices)+len(d.Networks) == 0 {
		return nil, time.Time{}, nil
	}
	value, err := json.Marshal(d)
	return value, now.Add(Lifetime), err
}

// sort puts the last seen first. It is stable on the id, so that equal times give one order everywhere.
func (h *History) sort() {
	slices.SortFunc(h.devices, func(a, b Device) int {
		return cmp.Or(b.Last.Compare(a.Last), b.First.Compare(a.First), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(h.networks, func(a, b Network) int {
		return cmp.Or(b.Last.Compare(a.Last), b.First.Compare(a.First), a.Prefix.Compare(b.Prefix))
	})
}

// clean makes a User-Agent fit to be stored and shown: valid UTF-8 without controls, at most maxAgent bytes.
func clean(agent string) string {
	agent = strings.ToValidUTF8(agent[:min(len(agent), maxAgent)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, agent)
}

func earlier(a, b time.Time) time.Time {
	if a.After(b) {
		return b
	}
	return a
}

// newID is 128 random bits as 32 hexadecimal digits.
func newID() string {
	var id [idSize]byte
	rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(id[:])
}
