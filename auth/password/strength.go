package password

import (
	"strings"
	"sync"

	"github.com/ccojocar/zxcvbn-go"
	"github.com/ccojocar/zxcvbn-go/frequency"
	"github.com/ccojocar/zxcvbn-go/matching"
)

// MaxScore is the score of the strongest passwords.
const MaxScore = 4

// Strength is how a password is shown to whoever chooses it.
type Strength struct {
	// Score is zxcvbn's, from 0 (guessed at once) to MaxScore. A password that the policy refuses has less than minScore, however
	// hard it is to guess, so that nothing refused looks good.
	Score int
	// Reasons are those of [Policy.Check]: none, and the password is accepted.
	Reasons []string
}

// Rate returns the strength of a password; context is that of [Policy.Check].
func (p Policy) Rate(password string, context []string) Strength {
	s := Strength{Reasons: p.Check(password, context)}
	normal, err := Normalize(password)
	if err != nil || normal == "" {
		return s
	}
	s.Score = score(normal, words(append([]string{product}, context...)))
	if len(s.Reasons) > 0 {
		s.Score = min(s.Score, minScore-1)
	}
	return s
}

// score is the lower of zxcvbn's scores of the password and of its plain letters. The length of what it sees is bounded.
func score(normal string, names []string) int {
	lowest := MaxScore
	form := ascii(strings.ToValidUTF8(normal, ""))
	for _, form := range []string{form, plainLetters.Replace(form)} {
		lowest = min(lowest, zxcvbn.PasswordStrength(form, names, matching.FilterL33tMatcher).Score)
	}
	return lowest
}

// ForgetLists gives up the word lists of which zxcvbn has made its dictionaries when the program started: 1.5 MB that nobody reads any more, and
// that the garbage collector would go through each time. Safe for concurrent use.
var ForgetLists = sync.OnceFunc(func() { clear(frequency.Lists) })
