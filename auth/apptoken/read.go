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

// basic reads user-id and password of RFC 7617, section 2. exact is false where the text is not base64 to the letter; then it is read as the most
// forgiving decoder would: either alphabet, nothing but its letters, up to the first padding.
func basic(text string) (name, password string, exact bool) {
	decoded, err := strict.DecodeString(strings.TrimRight(text, "="))
	if exact = err == nil && (len(text)%4 == 0 || !strings.HasSuffix(text, "=")); !exact {
		letters, _, _ := strings.Cut(strings.Map(letter, text), "=")
		if len(letters)%4 == 1 {
			letters = letters[:len(letters)-1]
		}
		decoded, _ = base64.RawStdEncoding.DecodeString(letters) // of these letters every text of this length is one
	}
	name, password, _ = strings.Cut(string(decoded), ":")
	return name, password, exact
}

var strict = base64.RawStdEncoding.Strict()

// letter is a letter of base64 in the one alphabet, or the padding; everything else is dropped.
func letter(c rune) rune {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '+', c == '/', c == '=':
		return c
	case c == '-':
		return '+'
	case c == '_':
		return '/'
	}
	return -1
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
