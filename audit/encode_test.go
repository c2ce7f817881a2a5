package audit_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"gatehouse/audit"
)

// fillStrings puts s into every string of a value, so that a field that is added later is tested too.
func fillStrings(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Struct:
		for i := range v.NumField() {
			fillStrings(v.Field(i), s)
		}
	case reflect.Array:
		for i := range v.Len() {
			fillStrings(v.Index(i), s)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillStrings(v.Elem(), s)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{s: s}))
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	default:
		panic("an event has a " + v.Kind().String())
	}
}

// eachString calls fn with every string of a JSON value, names included.
func eachString(v any, fn func(string)) {
	switch v := v.(type) {
	case string:
		fn(v)
	case []any:
		for _, item := range v {
			eachString(item, fn)
		}
	case map[string]any:
		for name, item := range v {
			fn(name)
			eachString(item, fn)
		}
	}
}

// hostile are the strings of AU-01 of attacks.md, and what else drives a terminal or turns the direction of reading.
var hostile = []string{
	"\r\n{\"event\":\"login_success\"}", "\u2028\u2029", "\x1b[2J", "\x1b]8;;http://evil.example\x07click\x1b]8;;\x07", "\x1b]52;c;aGk=\x07",
	"\u009b31m", "\x9b31m", "\u202ereversed\u202c", "\u2066\u2067\u2068\u2069\u061c\u200f\ufeff", "%0a%0d", strings.Repeat("A", 100_000),
	"\xff\xfe\xc3(", "</script><script>alert(1)</script>&amp;", "=cmd()|'/C calc'!A0", "<0>1 2026-11-23T12:00:00Z evil app - - -",
	"\x00\x7f\x80", strings.Repeat("a\xff", 500), strings.Repeat("a\xff", 700), "\"\\]", strings.Repeat("\xff", 5000), strings.Repeat("é", 1000), strings.Repeat("\U0001F600\U000E0041", 400), `\u000a`,
}

func TestLine_isOneLineOfPrintableASCII(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	var e audit.Event
	for _, s := range hostile {
		fillStrings(reflect.ValueOf(&e).Elem(), s)
		appended := mustAppend(t, l, e)
		for _, name := range []string{appended.Client.UserAgent, appended.Why} {
			if len(name) > audit.MaxString || !utf8.ValidString(name) {
				t.Errorf("got a string of %d bytes, valid %v", len(name), utf8.ValidString(name))
			}
		}
		if len(s) <= audit.MaxString && utf8.ValidString(s) && appended.Client.UserAgent != s {
			t.Errorf("got %q, want %q", appended.Client.UserAgent, s)
		}
		if len(s) > audit.MaxString && !strings.HasSuffix(appended.Client.UserAgent, " bytes]") {
			t.Errorf("a cut string ends with %q, want the marker", appended.Client.UserAgent[1000:])
		}
	}
	content, err := os.ReadFile(segmentPaths(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(content, []byte("\n")), []byte("\n"))
	if len(lines) != len(hostile) {
		t.Fatalf("got %d lines for %d records", len(lines), len(hostile))
	}
	for i, line := range lines {
		if bad := bytes.IndexFunc(line, func(c rune) bool { return c < ' ' || c > '~' || strings.ContainsRune("<>&", c) }); bad >= 0 {
			t.Errorf("line %d holds %q", i+1, line[bad:bad+1])
		}
		var value any
		if err := json.Unmarshal(line, &value); err != nil {
			t.Errorf("line %d: %v", i+1, err)
		}
		eachString(value, func(s string) {
			if len(s) > audit.MaxString {
				t.Errorf("line %d has a string of %d bytes, want at most %d", i+1, len(s), audit.MaxString)
			}
		})
	}
	for i, r := range records(t, dir) {
		if len(hostile[i]) < 100 && utf8.ValidString(hostile[i]) && (r.Subject.Name != hostile[i] || r.Trace.Of(3).Details[hostile[i]] != hostile[i]) {
			t.Errorf("read back %q, want %q", r.Subject.Name, hostile[i])
		}
	}
}

// AU-02: what a command prints.
func TestPrintable_showsEscapesAsText(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, in, want string }{
		{"text", "José <a> ok", "José <a> ok"},
		{"escape", "\x1b[2J", `\u001b[2J`},
		{"C1", "\u009b2J", `\u009b2J`},
		{"newline", "a\nb", `a\u000ab`},
		{"right to left", "\u202eabc", `\u202eabc`},
		{"tag character", "\U000E0041", `\udb40\udc41`},
		{"not UTF-8", "a\xffb", "a\uFFFDb"},
	} {
		if got := audit.Printable(test.in); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestLog_keepsNothingOfTheCallersEvent(t *testing.T) {
	t.Parallel()
	l := mustOpen(t, options(folder(t)))
	e := login()
	e.Details = map[string]string{"a": "b"}
	r := mustAppend(t, l, e)
	e.Details["a"] = "changed"
	e.Trace.Of(audit.StepPassword).Verdict = audit.Pass
	if r.Details["a"] != "b" || r.Trace.Of(audit.StepPassword).Verdict != audit.Fail {
		t.Error("the record shares memory with the event")
	}
}
