package password_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"gatehouse/auth/password"
)

func TestPolicy_judges(t *testing.T) {
	t.Parallel()
	context := []string{"alice", "Alice Liddell", "alice@wonder.example", "login.example.com"}
	for _, test := range []struct{ name, pw, want string }{ // want is in the first reason; empty: accepted
		{"passphrase", "correct horse battery staple", ""},
		{"64 characters with spaces", "the owl counts eleven quiet bridges before the rain gets to town", ""},
		{"random", "k3jf93kd0w2l", ""},
		{"no composition rules", "fjelkrbanowhyu", ""},
		{"Cyrillic", "четыре лошади едят сено", ""},
		{"Japanese", "静かな橋を数える黒い梟が七羽", ""},
		{"emoji", "😀🐴🔋📎🚪🌧🌉🦉🎈🍇🧩🧭", ""},
		{"256 characters", strings.Repeat("k3jf93kd0w2lqz7u", 16), ""},
		{"a name with enough beside it", "alice sold eleven quiet bridges", ""},

		{"LG-13: seven characters", "k3jf93k", "at least 12"},
		{"eleven characters of two bytes", strings.Repeat("é", 11), "at least 12"},
		{"eleven characters in twelve code points", "k3jf93kd0we\u0301", "at least 12"},
		{"257 characters", strings.Repeat("k", 257), "at most 256"},
		{"LG-13: fifteen of one letter", strings.Repeat("a", 15), "more than one character"},
		{"one letter in two cases", "aAaAaAaAaAaA", "more than one character"},
		{"one character that is no letter", strings.Repeat("語", 12), "more than one character"},
		{"LG-13: password", "password", "at least 12"},
		{"LG-13: 12345678", "12345678", "at least 12"},
		{"common", "password1234", "harder to guess"},
		{"common twice", "letmeinletmein", "harder to guess"},
		{"common with substitutions", "P@ssw0rd1234", "harder to guess"},
		{"digits in a row", "123456789012", "harder to guess"},
		{"alphabet", "abcdefghijklmno", "harder to guess"},
		{"keyboard row", "qwertyuiopasdf", "harder to guess"},
		{"season and year", "Summer2026!!", "harder to guess"},
		{"Cyrillic alphabet", "абвгдежзийкл", "harder to guess"},
		{"user name", "alicealicealice", "your name"},
		{"user name and digits", "alice-123456", "your name"},
		{"user name with substitutions", "4l1c3-4l1c3-4l1c3", "your name"},
		{"surname", "Liddell-2026", "your name"},
		{"host name", "login.example.com", "your name"},
		{"product", "Gatehouse2026!", "your name"},
		{"full width", "ｇａｔｅｈｏｕｓｅ２０２６！", "your name"},
		{"not UTF-8", "k3jf93kd0w2l\xff", "valid Unicode"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			reasons := password.DefaultPolicy.Check(test.pw, context)
			switch {
			case test.want == "" && len(reasons) > 0:
				t.Errorf("got %q, want it accepted", reasons)
			case test.want != "" && (len(reasons) == 0 || !strings.Contains(reasons[0], test.want)):
				t.Errorf("got %q, want a reason with %q", reasons, test.want)
			}
			for _, reason := range reasons {
				if test.pw != "password" && strings.Contains(reason, test.pw) || !strings.HasSuffix(reason, ".") {
					t.Errorf("got %q: no sentence, or it quotes the password", reason)
				}
			}
		})
	}
}

func TestPolicy_keepsNothingOfTheContext(t *testing.T) {
	t.Parallel()
	context := make([]string, 1, 8)
	context[0] = "alice"
	password.DefaultPolicy.Check("correct horse battery staple", context)
	if context[:2][1] != "" {
		t.Error("the caller's slice was written behind its end")
	}
}

// zxcvbn was not written for what strangers send: nothing may make it panic, or take long.
func FuzzPolicy(f *testing.F) {
	for _, s := range []string{"", "a", "password", "日本語日本語日本語日本語", "ﷺﷺﷺﷺﷺﷺﷺﷺﷺﷺﷺﷺ", "\x00\x7f\u0301\u202e", "1/1/2026 2.2.22", strings.Repeat("4@8({[<3691!|7105$+%2", 12)} {
		f.Add(s, "alice")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		b := make([]rune, random.IntN(40))
		for i := range b {
			b[i] = []rune{rune(random.IntN(0x3000)), rune('a' + random.IntN(26)), rune(random.IntN(128)), 'é', '1'}[random.IntN(5)]
		}
		f.Add(string(b), string(b))
	}
	f.Fuzz(func(t *testing.T, pw, name string) {
		reasons := password.DefaultPolicy.Check(pw, []string{name})
		normal, err := password.Normalize(pw)
		if n := utf8.RuneCountInString(normal); len(reasons) == 0 && (err != nil || n < 12 || n > 256) {
			t.Errorf("accepted %q", pw)
		}
	})
}
