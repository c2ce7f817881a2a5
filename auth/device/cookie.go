package device

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
)

// The device cookie: up to four entries, joined by ".", each the unpadded base64url form of
//
//	user id (16 bytes) ‖ device id (16 bytes) ‖ MAC (16 bytes)
//
// The MAC is HMAC-SHA-256 over a label and the two ids, cut to its first half (RFC 2104, section 5). All parts have a fixed
// length, so no two entries read alike. A browser that several accounts use holds an entry for each, newest first.
const (
	idSize    = 16
	macSize   = 16
	entrySize = 2*idSize + macSize
	maxOwners = 4
	maxCookie = 1 << 10 // bytes; refused before it is looked at
	macLabel  = "gatehouse device cookie, version 1\x00"
)

// entry is one authentic entry of a device cookie.
type entry struct{ user, device [idSize]byte }

// DeviceFor returns the id of the device that the cookie holds for the account, or "" if it holds none, or anything about the
// cookie is not as Cookie writes it. The store is not asked: whether the device is still known, History.KnowsDevice says.
func (s *Service) DeviceFor(cookie, userID string) string {
	user, ok := parseID(userID)
	if !ok {
		return ""
	}
	for _, e := range s.parse(cookie) {
		if e.user == user {
			return hex.EncodeToString(e.device[:])
		}
	}
	return ""
}

// Owner returns the id of an account that completed a login in the browser with this cookie, "" if there is none. It is authentic, and
// says nothing about any other account; the store is not asked.
func (s *Service) Owner(cookie string) string {
	if all := s.parse(cookie); len(all) > 0 {
		return hex.EncodeToString(all[0].user[:])
	}
	return ""
}

// Cookie returns the value of the device cookie for a browser that had the cookie old and is now deviceID of userID: that entry
// first, then those of other accounts, at most four in all. Ids that are not 32 hexadecimal digits get no entry.
func (s *Service) Cookie(old, userID, deviceID string) string {
	user, userOK := parseID(userID)
	device, deviceOK := parseID(deviceID)
	var parts []string
	if userOK && deviceOK {
		parts = append(parts, s.format(entry{user, device}))
	}
	for _, e := range s.parse(old) {
		if e.user != user && len(parts) < maxOwners {
			parts = append(parts, s.format(e))
		}
	}
	return strings.Join(parts, ".")
}

// parse returns the authentic entries of a cookie. One part that is not an entry makes the whole of it no cookie of ours. One
// with another MAC is left out: the key may have changed. Every entry costs the same, whoever is asked for.
func (s *Service) parse(cookie string) []entry {
	if cookie == "" || len(cookie) > maxCookie {
		return nil
	}
	parts := strings.SplitN(cookie, ".", maxOwners+1)
	if len(parts) > maxOwners {
		return nil
	}
	var entries []entry
	for _, part := range parts {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || len(raw) != entrySize || len(part) != base64.RawURLEncoding.EncodedLen(entrySize) {
			return nil
		}
		e := entry{[idSize]byte(raw[:idSize]), [idSize]byte(raw[idSize : 2*idSize])}
		if hmac.Equal(raw[2*idSize:], s.mac(e)) {
			entries = append(entries, e)
		}
	}
	return entries
}

func (s *Service) format(e entry) string {
	return base64.RawURLEncoding.EncodeToString(slices.Concat(e.user[:], e.device[:], s.mac(e)))
}

func (s *Service) mac(e entry) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(macLabel))
	h.Write(e.user[:])
	h.Write(e.device[:])
	return h.Sum(nil)[:macSize]
}

// parseID reads an id; only the lower-case form that we write, so that one id has one spelling.
func parseID(text string) (id [idSize]byte, ok bool) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != idSize || hex.EncodeToString(raw) != text {
		return id, false
	}
	return [idSize]byte(raw), true
}
