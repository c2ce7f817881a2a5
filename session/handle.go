package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
)

// A handle, by its bytes; the cookie holds it in base64url without padding:
//
//	0      version, 1
//	1-16   user id
//	17-32  session id
//	33-40  host: the start of the SHA-256 of the origin
//	41-44  generation, big-endian: the first of a host is 0, its successor 1
//	45-60  MAC: the start of HMAC-SHA-256 over the bytes before it, under the handle key
//
// The MAC is checked before anything else happens, so a forged handle costs no look at the store (TestManager_forgedHandle).
// 128 bits of it are enough: they can only be tried against a running gateway. A handle follows from session, host and
// generation alone, so the current one can be given again without being stored.
const (
	handleVersion = 1
	hostTagSize   = 8
	macSize       = 16
	handleBody    = 1 + idSize + idSize + hostTagSize + 4
	handleSize    = handleBody + macSize
)

// encoding refuses a second spelling of the same bytes (trailing bits, padding); line ends, which it would skip, change the
// length.
var encoding = base64.RawURLEncoding.Strict()

// handle is what a handle cookie says, once its MAC is right.
type handle struct {
	user, session id
	generation    uint32
}

func (m *Manager) sealHandle(h handle, origin string) string {
	body := make([]byte, 0, handleSize)
	body = append(body, handleVersion)
	body = append(body, h.user[:]...)
	body = append(body, h.session[:]...)
	body = append(body, hostTag(origin)...)
	body = binary.BigEndian.AppendUint32(body, h.generation)
	return encoding.EncodeToString(append(body, m.handleMAC(body)...))
}

// openHandle returns what a handle of this origin says, and false for anything that sealHandle did not make for it.
func (m *Manager) openHandle(text, origin string) (handle, bool) {
	if len(text) != encoding.EncodedLen(handleSize) {
		return handle{}, false
	}
	raw, err := encoding.DecodeString(text)
	if err != nil || len(raw) != handleSize || raw[0] != handleVersion {
		return handle{}, false
	}
	body, mac := raw[:handleBody], raw[handleBody:]
	if subtle.ConstantTimeCompare(mac, m.handleMAC(body)) != 1 {
		return handle{}, false
	}
	var h handle
	copy(h.user[:], body[1:])
	copy(h.session[:], body[1+idSize:])
	h.generation = binary.BigEndian.Uint32(body[handleBody-4:])
	here := subtle.ConstantTimeCompare(body[1+2*idSize:1+2*idSize+hostTagSize], hostTag(origin)) == 1
	return h, here
}

func (m *Manager) handleMAC(body []byte) []byte {
	mac := hmac.New(sha256.New, m.o.HandleKey)
	mac.Write(body)
	return mac.Sum(nil)[:macSize]
}

func hostTag(origin string) []byte {
	sum := sha256.Sum256([]byte(origin))
	return sum[:hostTagSize]
}

// publicID is what lists and logs show of a session: it cannot be turned back into the id.
func publicID(sessionID string) string {
	sum := sha256.Sum256([]byte(sessionID))
	return hex.EncodeToString(sum[:8])
}
