package session_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"gatehouse/session"
)

func TestStripRequest_takesOursAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		in, want []string
	}{
		{"none of ours", []string{"a=1; b=2"}, []string{"a=1; b=2"}},
		{"ours alone", []string{"__Host-gatehouse=x"}, nil},
		{"all of ours", []string{"__Host-gatehouse=x; __Host-gatehouse-session=y; __Host-gatehouse-device=z; __Host-gatehouse-login=w"}, nil},
		{"first", []string{"__Host-gatehouse=x; a=1; b=2"}, []string{"a=1; b=2"}},
		{"middle", []string{"a=1; __Host-gatehouse-session=x; b=2"}, []string{"a=1; b=2"}},
		{"last", []string{"a=1; b=2; __Host-gatehouse-device=x"}, []string{"a=1; b=2"}},
		{"between each", []string{"__Host-gatehouse=x; a=1; __Host-gatehouse-session=y; b=2; __Host-gatehouse-login=z"}, []string{"a=1; b=2"}},
		{"several lines", []string{"a=1; __Host-gatehouse=x", "__Host-gatehouse-session=y", "b=2"}, []string{"a=1", "b=2"}},
		{"last line only", []string{"a=1", "b=2; __Host-gatehouse=x"}, []string{"a=1", "b=2"}},
		{"odd white space", []string{"a=1;b=2;  __Host-gatehouse=x;c=3 ;\td = 4 "}, []string{"a=1;b=2;c=3 ;\td = 4 "}},
		{"white space in ours", []string{"a=1;\t __Host-gatehouse\t= x ; b=2"}, []string{"a=1; b=2"}},
		{"no white space", []string{"__Host-gatehouse=x;a=1;__Host-gatehouse-session=y"}, []string{"a=1"}},
		{"quoted values", []string{`a="1 2"; __Host-gatehouse="x y"; b="3"`}, []string{`a="1 2"; b="3"`}},
		{"pairs that are none", []string{"=; ;;a; __Host-gatehouse=x; =b; c=d=e; {}=\"; \x80"}, []string{"=; ;;a; =b; c=d=e; {}=\"; \x80"}},
		{"trailing separators", []string{"a=1; __Host-gatehouse=x;"}, []string{"a=1;"}},
		{"separators alone left", []string{" ; __Host-gatehouse=x; ;"}, nil},
		{"without a value", []string{"a=1; __Host-gatehouse"}, []string{"a=1"}},
		{"without a name", []string{"a=1; =__Host-gatehouse=x"}, []string{"a=1"}},
		{"twice", []string{"__Host-gatehouse=x; __Host-gatehouse=y; a=1"}, []string{"a=1"}},
		{"other case", []string{"__HOST-Gatehouse=x; a=1"}, []string{"a=1"}},
		{"quoted name", []string{`"__Host-gatehouse"=x; a=1`}, []string{"a=1"}},
		{
			"names like ours",
			[]string{"__Host-gatehouse2=x; __Host-gatehous=y; gatehouse=z; x__Host-gatehouse=w; __Host-gatehouse-sessions=v"},
			[]string{"__Host-gatehouse2=x; __Host-gatehous=y; gatehouse=z; x__Host-gatehouse=w; __Host-gatehouse-sessions=v"},
		},
		{"ours as a value", []string{"a=__Host-gatehouse=x"}, []string{"a=__Host-gatehouse=x"}},
		{"empty line", []string{""}, []string{""}},
		{"empty line beside ours", []string{"", "__Host-gatehouse=x"}, []string{""}},
	} {
		h := http.Header{"Cookie": slices.Clone(c.in), "Accept": {"*/*"}}
		shared := h["Cookie"]
		session.StripRequest(h)
		if got := h["Cookie"]; !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if _, held := h["Cookie"]; held && c.want == nil {
			t.Errorf("%s: an empty Cookie header is left", c.name)
		}
		if !slices.Equal(shared, c.in) {
			t.Errorf("%s: the client's own header was changed to %q", c.name, shared)
		}
	}
	session.StripRequest(http.Header{})
}

func TestStripResponse_takesWhatABrowserCouldTakeForOurs(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"__Host-gatehouse=x; Path=/; Secure", "__Host-gatehouse-session=x", "__Host-gatehouse-device=; Max-Age=0", "__Host-gatehouse-login=x",
		" __Host-gatehouse=x", "\t__Host-gatehouse \t=x", "__host-gatehouse=x", "__HOST-GATEHOUSE-SESSION=x", "=__Host-gatehouse=x", " = __Host-gatehouse=x",
		"__Host-gatehouse", "__Host-gatehouse;Path=/", "==__Host-gatehouse=x", "\x00__Host-gatehouse=x", "__Host-gatehouse\x00=x", "__Host-gatehouse\u00a0=x",
		"\ufeff__Host-gatehouse=x", `"__Host-gatehouse"=x`, "__Host-\tgatehouse=x",
	} {
		h := http.Header{"Set-Cookie": {"a=1; Path=/", line, "b=2"}}
		session.StripResponse(h)
		if got, want := h["Set-Cookie"], []string{"a=1; Path=/", "b=2"}; !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
		h = http.Header{"Set-Cookie": {line}}
		session.StripResponse(h)
		if _, held := h["Set-Cookie"]; held {
			t.Errorf("%q alone: got %q, want no header", line, h["Set-Cookie"])
		}
	}
	for _, line := range []string{"a=__Host-gatehouse=x", "__Host-other=x", "gatehouse=x", "__Host-gatehouse-2=x", "", "=", ";", "a=1; __Host-gatehouse=x"} {
		h := http.Header{"Set-Cookie": {line}}
		session.StripResponse(h)
		if got := h["Set-Cookie"]; !slices.Equal(got, []string{line}) {
			t.Errorf("%q: got %q, want it unchanged", line, got)
		}
	}
}

func TestStripResponse_letsNoAppClearOurCookies(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`"cookies"`: "", `"*"`: "", `*`: "", `"cache"`: `"cache"`, `"cache", "cookies", "storage"`: `"cache", "storage"`, `"COOKIES"`: "",
		`"cookies","cache"`: `"cache"`, `"cache", "*"`: `"cache"`, `cookies`: "", `"storage","executionContexts"`: `"storage","executionContexts"`, ` "cookies" ,`: "",
	} {
		h := http.Header{"Clear-Site-Data": {in}}
		session.StripResponse(h)
		if got := h.Get("Clear-Site-Data"); strings.Trim(got, ", ") != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
		if _, held := h["Clear-Site-Data"]; held && want == "" && in != ` "cookies" ,` {
			t.Errorf("%s: an empty header is left", in)
		}
	}
}

func FuzzStripRequest(f *testing.F) {
	for _, seed := range []string{
		"a=1; __Host-gatehouse=x; b=2", "__Host-gatehouse=x", ";;__Host-gatehouse-session=x;", " = __HOST-gatehouse ; a", `"__Host-gatehouse"="x;y"`, "", ";",
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		h := http.Header{"Cookie": {one, two}}
		session.StripRequest(h)
		left := http.Header{"Cookie": slices.Clone(h["Cookie"])}
		for _, line := range h["Cookie"] {
			for pair := range strings.SplitSeq(line, ";") {
				name, _, _ := strings.Cut(strings.Trim(pair, "= \t"), "=")
				if strings.EqualFold(strings.TrimSpace(name), "__Host-gatehouse") || strings.EqualFold(strings.TrimSpace(name), "__Host-gatehouse-session") {
					t.Errorf("%q, %q: %q is left", one, two, pair)
				}
			}
		}
		// The pairs that are left are pairs that were sent, in their order, and none that is not ours is lost.
		var sent, kept []string
		for _, line := range []string{one, two} {
			sent = append(sent, strings.Split(line, ";")...)
		}
		for _, line := range h["Cookie"] {
			kept = append(kept, strings.Split(line, ";")...)
		}
		for _, pair := range kept {
			i := slices.IndexFunc(sent, func(s string) bool { return s == pair || strings.TrimLeft(s, " \t") == pair })
			if i < 0 {
				t.Fatalf("%q, %q: %q was not sent", one, two, pair)
			}
			for _, lost := range sent[:i] {
				if strings.Trim(lost, " \t") != "" && !strings.Contains(strings.ToLower(lost), "_") {
					t.Fatalf("%q, %q: %q was lost", one, two, lost)
				}
			}
			sent = sent[i+1:]
		}
		session.StripRequest(h)
		if got := h["Cookie"]; !slices.Equal(got, left["Cookie"]) {
			t.Errorf("%q, %q: stripped again: got %q, want %q", one, two, got, left["Cookie"])
		}
	})
}
