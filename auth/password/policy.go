package password

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ccojocar/zxcvbn-go"
	"github.com/ccojocar/zxcvbn-go/matching"
)

const (
	// minScore is zxcvbn's score, of 0 to 4, that a password must have: some 2^28 guesses by somebody who knows the common
	// passwords, names, words, dates and keyboard rows.
	minScore = 2
	// judged is how many code points are given to zxcvbn, whose time grows with the square of them. What is hard to guess
	// in its beginning is not easier as a whole.
	judged = 100
	// besideNames is how many code points must be left when names are taken out (ASVS 6.2.1 and 6.2.11).
	besideNames = 8
	// shortestName is the length from which a word of the context counts as a name.
	shortestName = 3
)

// product is a context word of every password.
const product = "gatehouse"

// MinLength and MaxLength are the bounds that Gatehouse uses, in code points.
const (
	MinLength = 12
	MaxLength = 256
)

// Policy is what new passwords must be. There are no rules of composition (ASVS 6.2.5); spaces and all of Unicode count.
type Policy struct {
	Min, Max int // code points after NFKC, both allowed
}

// DefaultPolicy is that of contract.md, section 7.
var DefaultPolicy = Policy{Min: MinLength, Max: MaxLength}

// Check returns what is wrong with a password, one sentence each that says what to change; none: it is accepted. context
// is what somebody who guesses would try first: the user's name, display name, e-mail address, the host's name.
func (p Policy) Check(password string, context []string) []string {
	normal, err := Normalize(password)
	if err != nil {
		return []string{"Use valid Unicode text."}
	}
	var reasons []string
	switch length := utf8.RuneCountInString(normal); {
	case length < p.Min:
		reasons = append(reasons, fmt.Sprintf("Use at least %d characters.", p.Min))
	case length > p.Max:
		return []string{fmt.Sprintf("Use at most %d characters.", p.Max)}
	}
	folded := strings.ToLower(normal)
	names := words(append([]string{product}, context...))
	switch {
	case oneCharacter(folded):
		reasons = append(reasons, "Use more than one character.")
	case nameLike(folded, names):
		reasons = append(reasons, "Leave out your name and the name of this site, or add more to them.")
	case guessable(normal, names):
		reasons = append(reasons, "Choose something harder to guess: this is made of common passwords, words, dates or keyboard rows.")
	}
	return reasons
}

// words takes the context apart into what can be a name.
func words(context []string) []string {
	var list []string
	for _, text := range context {
		normal, err := Normalize(text)
		if err != nil {
			continue
		}
		for word := range strings.FieldsFuncSeq(strings.ToLower(normal), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) }) {
			if utf8.RuneCountInString(word) >= shortestName {
				list = append(list, word)
			}
		}
	}
	return list
}

func oneCharacter(folded string) bool {
	first, size := utf8.DecodeRuneInString(folded)
	return strings.Trim(folded[size:], string(first)) == ""
}

// nameLike reports whether little is left of a password without the names in it.
func nameLike(folded string, names []string) bool {
	for _, form := range []string{folded, plainLetters.Replace(folded)} {
		rest := form
		for _, name := range names {
			rest = strings.ReplaceAll(rest, name, "")
		}
		if rest != form && utf8.RuneCountInString(rest) < besideNames {
			return true
		}
	}
	return false
}

// plainLetters undoes the usual substitutions. zxcvbn does it too, but tries all combinations, which for some inputs takes
// minutes.
var plainLetters = strings.NewReplacer("4", "a", "@", "a", "3", "e", "1", "i", "!", "i", "0", "o", "5", "s", "$", "s", "7", "t", "+", "t")

// guessable reports whether zxcvbn knows the password, or its plain letters, as made of what people commonly use.
func guessable(normal string, names []string) bool {
	form := ascii(normal)
	for _, form := range []string{form, plainLetters.Replace(form)} {
		if zxcvbn.PasswordStrength(form, names, matching.FilterL33tMatcher).Score < minScore {
			return true
		}
	}
	return false
}

// ascii stands one ASCII character for each code point: zxcvbn counts now in bytes and now in code points. Neighbours stay
// neighbours, so that a row of any alphabet is still seen as one.
func ascii(normal string) string {
	var b strings.Builder
	for i, c := range []rune(normal) {
		if i == judged {
			break
		}
		if c > unicode.MaxASCII {
			c = 'a' + c%26
		}
		b.WriteRune(c)
	}
	return b.String()
}
