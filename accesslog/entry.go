package accesslog

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxPath and maxAgent are how much of a path and of a User-Agent is kept, in bytes; what is longer ends in the mark.
	maxPath  = 2048
	maxAgent = 256
	cutMark  = "[cut]"
)

// Entry is what a line says of a request. Strings may come from a client; what is empty is not known.
type Entry struct {
	Time      time.Time     `json:"time"` // when it came
	ID        string        `json:"id"`   // of the request
	Client    string        `json:"client"`
	User      string        `json:"user,omitempty"`  // canonical name, where the request was let through, or refused, as somebody's
	Route     string        `json:"route,omitempty"` // empty for the gateway's own pages
	Host      string        `json:"host"`
	Method    string        `json:"method"`
	Path      string        `json:"path"` // without the query
	Protocol  string        `json:"protocol"`
	Status    int           `json:"status"`
	Bytes     int64         `json:"bytes"` // of the answer's body
	Duration  time.Duration `json:"-"`
	Seconds   float64       `json:"seconds"` // Duration, as it is written
	UserAgent string        `json:"user_agent,omitempty"`
}

// clean cuts what a client chose.
func (e Entry) clean() Entry {
	e.Path, e.UserAgent = cut(e.Path, maxPath), cut(e.UserAgent, maxAgent)
	e.Host, e.Method, e.Protocol = cut(e.Host, maxAgent), cut(e.Method, maxAgent), cut(e.Protocol, maxAgent)
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	return e
}

func cut(s string, most int) string {
	if len(s) > most {
		s = s[:most-len(cutMark)] + cutMark
	}
	return strings.ToValidUTF8(s, string(utf8.RuneError))
}

// json writes one JSON object.
func (e Entry) json() []byte {
	e = e.clean()
	e.Seconds = float64(e.Duration.Microseconds()) / 1e6
	text, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Errorf("encode an entry of the access log: %w", err)) // strings and numbers always marshal
	}
	line := make([]byte, 0, len(text)+1)
	for _, c := range string(text) { // what is not ASCII can only stand inside a string
		if c < unicode.MaxASCII {
			line = append(line, byte(c))
		} else {
			line = appendEscape(line, c)
		}
	}
	return append(line, '\n')
}

// combined writes the Combined Log Format, with three fields of ours behind it: route, id and seconds. The Referer is always "-": its
// query may hold secrets of other pages.
func (e Entry) combined() []byte {
	e = e.clean()
	return fmt.Appendf(make([]byte, 0, 256), "%s - %s [%s] %s %d %d \"-\" %s %s %s %s\n",
		word(e.Client), word(e.User), e.Time.Format("02/Jan/2006:15:04:05 -0700"), quoted(e.Method+" "+e.Path+" "+e.Protocol), e.Status, e.Bytes,
		quoted(e.UserAgent), word(e.Route), word(e.ID), strconv.FormatFloat(e.Duration.Seconds(), 'f', 6, 64))
}

// word is a field without spaces.
func word(s string) string {
	if s == "" {
		return "-"
	}
	return strings.ReplaceAll(plain(s), " ", `\x20`)
}

// quoted is a field in quotes, with backslashes as Apache's mod_log_config writes them.
func quoted(s string) string {
	if s == "" {
		return `"-"`
	}
	return `"` + strings.ReplaceAll(plain(s), `"`, `\"`) + `"`
}

// plain escapes backslashes and every byte that is not printable ASCII.
func plain(s string) string {
	var b []byte
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\\':
			b = append(b, `\\`...)
		case c < ' ' || c > '~':
			b = fmt.Appendf(b, `\x%02x`, c)
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

// appendEscape writes c as JSON does, beyond U+FFFF as a surrogate pair (RFC 8259, section 7).
func appendEscape(b []byte, c rune) []byte {
	if high, low := utf16.EncodeRune(c); high != unicode.ReplacementChar {
		return fmt.Appendf(b, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(b, `\u%04x`, c)
}
