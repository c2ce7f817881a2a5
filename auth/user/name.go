package user

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
)

// Bounds of what an account holds.
const (
	maxName    = 64  // characters of the canonical form, which is ASCII
	maxDisplay = 256 // bytes
	maxEmail   = 254 // bytes (RFC 5321, section 4.5.3.1.3, without the angle brackets)
	maxGroups  = 100
)

// ErrInvalidName says that a text has no canonical form, so no account or group can have it as a name.
var ErrInvalidName = errors.New("not a name: 1 to 64 of a-z 0-9 . _ @ + -, the first a letter or digit, at most one @")

// Canonical returns the one form of a user's or group's name. Everything that compares, counts, stores or shows names uses
// this form and no other, so that every spelling is the same account everywhere or unknown everywhere.
//
// The spelling is folded by the UsernameCaseMapped profile of PRECIS (RFC 8265, section 3.3: width, case, NFC; spaces and
// controls are refused, at the ends too), and what comes out must match [a-z0-9][a-z0-9._@+-]{0,63} with at most one "@". So
// full-width letters are the same account and look-alikes of another script are no account. ErrInvalidName otherwise.
func Canonical(name string) (string, error) {
	if len(name) > maxName*utf8.UTFMax { // before the profile looks at it
		return "", ErrInvalidName
	}
	folded, err := precis.UsernameCaseMapped.String(name)
	if err != nil {
		return "", fmt.Errorf("%w (%w)", ErrInvalidName, err)
	}
	if len(folded) == 0 || len(folded) > maxName || strings.Count(folded, "@") > 1 || !alphanumeric(folded[0]) {
		return "", ErrInvalidName
	}
	for i := range len(folded) {
		if !alphanumeric(folded[i]) && strings.IndexByte("._@+-", folded[i]) < 0 {
			return "", ErrInvalidName
		}
	}
	return folded, nil
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// canonicalGroups returns the canonical names of groups, sorted, each once.
func canonicalGroups(groups []string) ([]string, error) {
	var names []string
	for _, group := range groups {
		name, err := Canonical(group)
		if err != nil {
			return nil, fmt.Errorf("%w: group %q: %w", ErrInvalid, group, err)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxGroups {
		return nil, fmt.Errorf("%w: %d groups, at most %d", ErrInvalid, len(names), maxGroups)
	}
	return names, nil
}

// checkEmail refuses what is not plainly local@domain. It does not try to be RFC 5322: quoted local parts and comments are
// where two readers of one address disagree about its domain.
func checkEmail(email string) error {
	if email == "" {
		return nil
	}
	local, domain, _ := strings.Cut(email, "@")
	if len(email) > maxEmail || local == "" || domain == "" || strings.Contains(domain, "@") || !utf8.ValidString(email) {
		return fmt.Errorf("%w: e-mail address %q: want local@domain", ErrInvalid, email)
	}
	if i := strings.IndexFunc(email, notInEmail); i >= 0 {
		return fmt.Errorf("%w: e-mail address %q: character %d is not allowed", ErrInvalid, email, utf8.RuneCountInString(email[:i])+1)
	}
	return nil
}

// notInEmail is what may not stand in an address: what cannot be seen, and the specials of RFC 5322, section 3.2.3.
func notInEmail(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.IsSpace(r) || strings.ContainsRune(`()<>[]:;\,"`, r)
}

// checkDisplayName refuses what could end a header line, drive a terminal or turn the text around it.
func checkDisplayName(name string) error {
	if !utf8.ValidString(name) {
		return fmt.Errorf("%w: display name is not UTF-8", ErrInvalid)
	}
	if len(name) > maxDisplay {
		return fmt.Errorf("%w: display name of %d bytes, at most %d", ErrInvalid, len(name), maxDisplay)
	}
	hidden := func(r rune) bool {
		return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
	}
	if strings.ContainsFunc(name, hidden) {
		return fmt.Errorf("%w: display name holds a control character", ErrInvalid)
	}
	return nil
}
