package apptoken

import (
	"encoding/base64"
	"strings"
)

// Prefix begins every token, so that one that leaked is recognised, by us and by those who search for such things.
const Prefix = "ghat_"

// textSize is the length of a token.
const textSize = len(Prefix) + 2*26

// Presented is what a request shows.
type Presented struct {
	// Name is the user's name beside the token, as it was sent; Basic says whether there was one.
	Name  string
	Basic bool
	// Text is the token. It is empty where something claims to be one and is in no form that can be good.
	Text string
}

// Read finds an app token in the value of Authorization; claimed is false if nothing in it claims to be one. The forms that can be good are
// `Bearer TOKEN` (RFC 6750, section 2.1) and `Basic` with the user's name and the token as password (RFC 7617). Reading is generous and
// accepting is not: every word counts, whatever scheme stands before it, the prefix in any case, and base64 of either alphabet, padded
// or not, because an app might read those.
func Read(value string) (shown Presented, claimed bool) {
	scheme, rest, _ := strings.Cut(strings.Trim(value, " \t"), " ")
	rest = strings.TrimLeft(rest, " ")
	if strings.EqualFold(scheme, "Basic") {
		name, password, exact := basic(rest)
		switch {
		case exact && wellFormed(password):
			return Presented{Name: name, Basic: true, Text: password}, true
		case claims(name), claims(password):
			return Presented{Name: name, Basic: true}, true
		}
	}
	for word := range strings.FieldsFuncSeq(value, func(c rune) bool { return strings.ContainsRune(" \t,;=\"'", c) }) {
		if !claims(word) {
			continue
		}
		if strings.EqualFold(scheme, "Bearer") && word == rest && wellFormed(word) {
			return Presented{Text: word}, true
		}
		return Presented{}, true
	}
	return Presented{}, false
}

// basic reads user-id and password of RFC 7617, section 2. It reads what the most forgiving decoder would: either alphabet, nothing but its
// letters, and up to the first padding. exact is false unless this is the only reading.
func basic(text string) (name, password string, exact bool) {
	letters, _, _ := strings.Cut(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
	letters = strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/' {
			return c
		}
		return -1
	}, letters)
	if len(letters)%4 == 1 {
		letters = letters[:len(letters)-1]
	}
	decoded, _ := base64.RawStdEncoding.DecodeString(letters) // of these letters every text of this length is one
	name, password, _ = strings.Cut(string(decoded), ":")
	encoded := base64.StdEncoding.EncodeToString(decoded)
	return name, password, text == encoded || text == strings.TrimRight(encoded, "=")
}

// claims reports whether a text says that it is a token.
func claims(text string) bool {
	text = strings.TrimLeft(text, " \t")
	return len(text) >= len(Prefix) && strings.EqualFold(text[:len(Prefix)], Prefix)
}

// wellFormed reports whether a text has the one spelling that a token has.
func wellFormed(text string) bool {
	if len(text) != textSize || !strings.HasPrefix(text, Prefix) {
		return false
	}
	for _, c := range text[len(Prefix):] {
		if (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
