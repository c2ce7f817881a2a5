package secrets

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"gatehouse/store"
)

// A sealed message, by its bytes:
//
//	0      format, 1
//	1-4    term of the key-encryption key, big-endian; 0 is the root key
//	5-20   salt, random
//	21-    AES-256-GCM ciphertext and its 16-byte tag
//
// HKDF-SHA-256 (RFC 5869) of the term's key, the salt, and a label with the purpose gives 44 bytes: the message's own key and
// its nonce. A key is therefore used for one message, so the bounds that GCM sets to messages under one key (NIST SP 800-38D,
// section 8.3) are those of the 128-bit salt. The tag also covers format, term, purpose and the caller's additional data.
const (
	sealFormat  = 1
	saltSize    = 16
	headerSize  = 1 + 4 + saltSize
	keySize     = 32
	nonceSize   = 12
	tagSize     = 16
	sealLabel   = "gatehouse seal 1"
	rootTerm    = 0
	rootPurpose = "keyring"
)

// sealWith seals plaintext under the key of a term.
func sealWith(key []byte, term uint32, purpose string, plaintext, additional []byte) ([]byte, error) {
	sealed := make([]byte, headerSize, headerSize+len(plaintext)+tagSize)
	sealed[0] = sealFormat
	binary.BigEndian.PutUint32(sealed[1:5], term)
	_, _ = rand.Read(sealed[5:headerSize]) // never fails: crypto/rand ends the process instead
	aead, nonce, err := messageKey(key, sealed[5:headerSize], purpose)
	if err != nil {
		return nil, fmt.Errorf("derive message key: %w", err)
	}
	return aead.Seal(sealed, nonce, plaintext, frame(sealed[:5], purpose, additional)), nil
}

// openWith opens what sealWith sealed; the caller looked up the key by the term. Every failure is store.ErrSealed and nothing
// more, so that an answer tells nobody which byte was wrong (ASVS 11.2.5).
func openWith(key []byte, purpose string, sealed, additional []byte) ([]byte, error) {
	aead, nonce, err := messageKey(key, sealed[5:headerSize], purpose)
	if err != nil {
		return nil, store.ErrSealed
	}
	plaintext, err := aead.Open(nil, nonce, sealed[headerSize:], frame(sealed[:5], purpose, additional))
	if err != nil {
		return nil, store.ErrSealed
	}
	return plaintext, nil
}

// termOf returns the term that a message was sealed under, and false for what no sealWith ever made.
func termOf(sealed []byte) (uint32, bool) {
	if len(sealed) < headerSize+tagSize || sealed[0] != sealFormat {
		return 0, false
	}
	return binary.BigEndian.Uint32(sealed[1:5]), true
}

func messageKey(key, salt []byte, purpose string) (cipher.AEAD, []byte, error) {
	derived, err := hkdf.Key(sha256.New, key, salt, sealLabel+"\x00"+purpose, keySize+nonceSize)
	if err != nil {
		return nil, nil, err
	}
	defer clear(derived[:keySize])
	block, err := aes.NewCipher(derived[:keySize])
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, derived[keySize:], err
}

// frame joins the parts of the additional data with their lengths, so that no two lists of parts give the same bytes.
func frame(header []byte, purpose string, additional []byte) []byte {
	out := make([]byte, 0, len(header)+len(purpose)+len(additional)+16)
	out = append(out, header...)
	out = binary.BigEndian.AppendUint64(out, uint64(len(purpose)))
	out = append(out, purpose...)
	out = binary.BigEndian.AppendUint64(out, uint64(len(additional)))
	return append(out, additional...)
}

// Sealer seals for one purpose. What one purpose sealed no other opens. Safe for concurrent use.
type Sealer struct {
	ring    *Keyring
	purpose string
}

// Seal encrypts plaintext under the active term and binds it to additional.
func (s *Sealer) Seal(plaintext, additional []byte) ([]byte, error) {
	return sealWith(s.ring.terms[s.ring.active], s.ring.active, s.purpose, plaintext, additional)
}

// Open returns what Seal sealed with the same additional, under any term of the keyring. It returns store.ErrSealed, always
// with the same text, for everything else.
func (s *Sealer) Open(sealed, additional []byte) ([]byte, error) {
	term, ok := termOf(sealed)
	if !ok {
		return nil, store.ErrSealed
	}
	key, ok := s.ring.terms[term]
	if !ok {
		return nil, store.ErrSealed
	}
	return openWith(key, s.purpose, sealed, additional)
}
