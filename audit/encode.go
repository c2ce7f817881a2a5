package audit

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// MaxString is the length of the longest string in a record, in bytes of UTF-8, with the marker of a cut.
	MaxString = 1024
	// MaxLine is the length of the longest line of the log, in bytes, with its newline.
	MaxLine = 1 << 20
)

// Line is the record as the log holds it: one JSON object and a newline, of printable ASCII only. Everything else
// is written as \uXXXX, so that no line can end early or drive a terminal, a viewer or a right-to-left reading of it.
func Line(r Record) ([]byte, error) {
	text, err := json.Marshal(r) // escapes <, >, & and the controls below U+0020
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	// What is not ASCII can only stand inside a string, where an escape is the same character to every reader of JSON.
	line := make([]byte, 0, len(text)+1)
	for len(text) > 0 {
		c, size := utf8.DecodeRune(text)
		if c < unicode.MaxASCII {
			line = append(line, text[0])
		} else {
			line = appendEscape(line, c)
		}
		text = text[size:]
	}
	if len(line) >= MaxLine {
		return nil, fmt.Errorf("encode record: line of %d bytes is over %d", len(line), MaxLine)
	}
	return append(line, '\n'), nil
}

// Printable is s for a terminal: what is not a printable character, and so every control and every mark that turns the
// direction of reading, is shown as \uXXXX.
func Printable(s string) string {
	var b []byte
	for _, c := range strings.ToValidUTF8(s, string(utf8.RuneError)) {
		if unicode.IsPrint(c) {
			b = utf8.AppendRune(b, c)
		} else {
			b = appendEscape(b, c)
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

// clean is a copy of the event that shares nothing with it: every string cut and valid, the zero severity filled in. A field
// that is forgotten here fails TestLine_isOneLineOfPrintableASCII, which fills all there are.
func clean(e Event) Event {
	if e.Severity == "" {
		e.Severity = Info
	}
	cut(&e.Kind)
	cut(&e.Outcome)
	cut(&e.Severity)
	for _, s := range []*string{
		&e.Actor.ID, &e.Actor.Name,
		&e.Subject.ID, &e.Subject.Name, &e.Subject.Tag,
		&e.Client.Address, &e.Client.Network, &e.Client.Claimed, &e.Client.Device, &e.Client.UserAgent,
		&e.Session, &e.RequestID, &e.Code, &e.Why,
	} {
		cut(s)
	}
	cut(&e.Actor.Type)
	e.Details = cleanDetails(e.Details)
	if e.Trace != nil {
		trace := *e.Trace
		for i := range trace {
			cut(&trace[i].Name)
			cut(&trace[i].Verdict)
			cut(&trace[i].Reason)
			trace[i].Details = cleanDetails(trace[i].Details)
		}
		e.Trace = &trace
	}
	return e
}

// cleanDetails cuts names too: they are ours, but a detail named by a stranger must not break a promise.
func cleanDetails(details map[string]string) map[string]string {
	if len(details) == 0 {
		return nil
	}
	cleaned := make(map[string]string, len(details))
	for name, value := range details {
		cut(&name)
		cut(&value)
		cleaned[name] = value
	}
	return cleaned
}

// cut shortens a string to MaxString bytes, saying how long it was, and replaces what is not UTF-8. It is made valid before
// it is measured: a replaced byte is three bytes long.
func cut[S ~string](s *S) {
	text := string(*s)
	valid := strings.ToValidUTF8(text[:min(len(text), MaxString)], "\uFFFD")
	if len(text) > MaxString || len(valid) > MaxString {
		marker := fmt.Sprintf("…[of %d bytes]", len(text))
		// The cut can go through a character, whose first part is then left out.
		valid = strings.ToValidUTF8(valid[:min(len(valid), MaxString-len(marker))], "") + marker
	}
	*s = S(valid)
}
