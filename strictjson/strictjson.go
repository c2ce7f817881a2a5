// Package strictjson reads one JSON object from somebody who is not trusted.
//
// It refuses everything that two readers could understand differently, and everything that encoding/json takes without a
// word: members that appear twice (RFC 8259, section 4, leaves their meaning open), unknown members, members spelled in
// another case, bytes after the object, invalid UTF-8 and lone surrogates (RFC 7493, section 2.1), and deep nesting.
//
// Its errors name at most the member they are about, never a value, so they can be shown and logged: the body of a login
// holds a password.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays may nest: the outermost object is at depth 1.
const MaxDepth = 32

// maxMember is the longest name of a member, in bytes.
const maxMember = 64

// The errors that callers branch on. Decode wraps ErrMalformed with what is wrong.
var (
	// ErrTooLarge: there are more bytes than the limit.
	ErrTooLarge = errors.New("body too large")
	// ErrMalformed: the bytes are not one object of the expected form.
	ErrMalformed = errors.New("malformed JSON")
)

// Decode reads everything from r and stores it in the struct that v points to. More than limit bytes are ErrTooLarge; what
// is not exactly one JSON object with members of v is ErrMalformed. An error of r is returned as it is.
//
// Names of members consist of lower-case ASCII letters, digits and underscores, at most 64: encoding/json matches names
// without regard to case, so two spellings of one member would otherwise not look like a duplicate. *v may be partly
// filled when Decode returns an error.
func Decode(r io.Reader, limit int64, v any) error {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if int64(len(body)) > limit {
		return ErrTooLarge
	}
	if err := check(body); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		return fmt.Errorf("%w: %s", ErrMalformed, describe(err))
	}
	return nil
}

// check refuses what encoding/json would accept. It runs over the tokens before anything is stored.
func check(body []byte) error {
	if !utf8.Valid(body) {
		return errors.New("not valid UTF-8")
	}
	if err := checkSurrogates(body); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber() // a number too large for a float64 is for the real decoding to judge
	first, err := decoder.Token()
	if err != nil {
		return errors.New("syntax error")
	}
	if first != json.Delim('{') {
		return errors.New("not an object")
	}
	if err := checkObject(decoder, 1); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

// checkObject reads the members of an object whose opening brace was read, and its closing brace.
func checkObject(decoder *json.Decoder, depth int) error {
	seen := make(map[string]bool)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return errors.New("syntax error")
		}
		name, ok := token.(string)
		if !ok || !plainName(name) {
			return errors.New("a member with a name that is not known")
		}
		if seen[name] {
			return fmt.Errorf("member %q appears twice", name)
		}
		seen[name] = true
		if err := checkValue(decoder, depth); err != nil {
			return err
		}
	}
	return closing(decoder)
}

// checkValue reads one value; depth is that of the object or array it is in.
func checkValue(decoder *json.Decoder, depth int) error {
	token, err := decoder.Token()
	if err != nil {
		return errors.New("syntax error")
	}
	opening, nested := token.(json.Delim)
	if !nested {
		return nil
	}
	if depth+1 > MaxDepth {
		return fmt.Errorf("nested deeper than %d", MaxDepth)
	}
	if opening == '{' {
		return checkObject(decoder, depth+1)
	}
	for decoder.More() {
		if err := checkValue(decoder, depth+1); err != nil {
			return err
		}
	}
	return closing(decoder)
}

// closing reads the brace or bracket that ends an object or array; the decoder itself knows which one it must be.
func closing(decoder *json.Decoder) error {
	if _, err := decoder.Token(); err != nil {
		return errors.New("syntax error")
	}
	return nil
}

// plainName reports whether a name could be one of ours, and so may be quoted in an error.
func plainName(name string) bool {
	if name == "" || len(name) > maxMember {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// checkSurrogates refuses a \u escape of one half of a surrogate pair: encoding/json turns it into U+FFFD, so different
// passwords would read as the same one. Backslashes mean something only inside of strings; anywhere else they are a syntax
// error, which the token run finds.
func checkSurrogates(body []byte) error {
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		unit, ok := escapedUnit(body[i:])
		switch {
		case !ok:
			i++ // another escape: its second byte may be a backslash
		case unit >= 0xD800 && unit < 0xDC00:
			low, ok := escapedUnit(body[i+6:])
			if !ok || low < 0xDC00 || low > 0xDFFF {
				return errors.New("half of a surrogate pair")
			}
			i += 11
		case unit >= 0xDC00 && unit <= 0xDFFF:
			return errors.New("half of a surrogate pair")
		default:
			i += 5
		}
	}
	return nil
}

// escapedUnit reads \uXXXX at the start of text, and reports whether one stands there.
func escapedUnit(text []byte) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	var unit rune
	for _, c := range text[2:6] {
		digit := strings.IndexByte("0123456789abcdef", c|0x20)
		if digit < 0 {
			return 0, false
		}
		unit = unit<<4 | rune(digit)
	}
	return unit, true
}

// describe turns an error of encoding/json into a sentence without values.
func describe(err error) string {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return fmt.Sprintf("member %q has the wrong type", wrongType.Field)
	}
	// encoding/json has no type for this one; the name was found to be plain before.
	if name, found := strings.CutPrefix(err.Error(), "json: unknown field "); found {
		return "member " + name + " is not known"
	}
	return "a value cannot be read"
}
