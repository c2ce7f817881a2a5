package user_test

import (
	"errors"
	"strings"
	"testing"

	"gatehouse/auth/user"
)

// LG-07 and LG-08: every spelling is one account everywhere, or none anywhere.
func TestCanonical(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, in, want string }{
		{"plain", "alice", "alice"},
		{"upper case", "ALICE", "alice"},
		{"full width", "ａｌｉｃｅ", "alice"},
		{"full width, upper case", "ＡＬＩＣＥ", "alice"},
		{"Kelvin sign", "\u212Aim", "kim"},
		{"e-mail", "Alice@Corp.example", "alice@corp.example"},
		{"full width sign", "alice＠corp", "alice@corp"},
		{"every character", "a0._@+-", "a0._@+-"},
		{"digit first", "0a", "0a"},
		{"longest", strings.Repeat("a", 64), strings.Repeat("a", 64)},
		{"longest, full width", strings.Repeat("ａ", 64), strings.Repeat("a", 64)},

		{"empty", "", ""},
		{"leading space", " alice", ""},
		{"trailing space", "alice ", ""},
		{"tab", "alice\t", ""},
		{"line break", "alice\n", ""},
		{"space within", "al ice", ""},
		{"no-break space", "alice\u00a0", ""},
		{"ideographic space", "alice\u3000", ""},
		{"zero width", "al\u200bice", ""},
		{"zero width joiner", "al\u200dice", ""},
		{"byte order mark", "\ufeffalice", ""},
		{"turned text", "alice\u202e", ""},
		{"soft hyphen", "al\u00adice", ""},
		{"NUL", "alice\x00", ""},
		{"not UTF-8", "alice\xff", ""},
		{"Cyrillic e", "alic\u0435", ""},
		{"Greek", "αlice", ""},
		{"accent", "ålice", ""},
		{"combining accent", "a\u030alice", ""},
		{"ligature", "\ufb01n", ""},
		{"long s", "alice\u017f", ""},
		{"dotted capital i", "al\u0130ce", ""},
		{"superscript", "alice\u00b2", ""},
		{"two signs", "a@evil.com@corp.com", ""},
		{"line break in an address", "a@corp.com\n@evil", ""},
		{"quoted address", `"a@corp.com"@evil.com`, ""},
		{"dot first", ".alice", ""},
		{"sign first", "@alice", ""},
		{"dash first", "-alice", ""},
		{"slash", "a/b", ""},
		{"comma", "a,b", ""},
		{"colon", "a:b", ""},
		{"percent", "a%00", ""},
		{"too long", strings.Repeat("a", 65), ""},
		{"far too long", strings.Repeat("a", 1<<20), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := user.Canonical(test.in)
			if got != test.want || (err == nil) != (test.want != "") {
				t.Fatalf("got %q, %v, want %q", got, err, test.want)
			}
			if err != nil && !errors.Is(err, user.ErrInvalidName) {
				t.Errorf("got %v, want ErrInvalidName", err)
			}
		})
	}
}

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{"alice", "ａｌｉｃｅ", "a@b", "\u212A", "\u0130", "a\u030a", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		name, err := user.Canonical(in)
		if err != nil {
			return
		}
		if again, err := user.Canonical(name); again != name || err != nil {
			t.Errorf("%q became %q and then %q (%v)", in, name, again, err)
		}
		if len(name) > 64 || strings.Count(name, "@") > 1 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789._@+-") != "" {
			t.Errorf("%q became %q", in, name)
		}
	})
}

func TestStore_checksEmailAndDisplayName(t *testing.T) {
	t.Parallel()
	s := accounts(bolt(t))
	alice := add(t, s, user.User{Name: "alice"})
	set := func(email, display string) error {
		_, err := s.Change(t.Context(), alice.ID, func(u *user.User) error {
			u.Email, u.DisplayName = email, display
			return nil
		})
		return err
	}
	for _, email := range []string{"", "a@b", "alice.o'hara+tag@mail.example.com", "jürgen@müller.example"} {
		if err := set(email, ""); err != nil {
			t.Errorf("email %q: %v", email, err)
		}
	}
	for _, email := range []string{
		"alice", "@b", "a@", "a@evil.com@corp.com", "a@corp.com\n@evil", `"a@corp.com"@evil.com`, "a b@c", "a@b\x00", "a@b\r\nBcc: x",
		"Alice <a@b>", "a@b,c@d", "a@b;c", "a@b\u2028", "a@b\u202e", "\xff@b", strings.Repeat("a", 250) + "@b.cd",
	} {
		if err := set(email, ""); !errors.Is(err, user.ErrInvalid) {
			t.Errorf("email %q: got %v, want ErrInvalid", email, err)
		}
	}
	for _, display := range []string{"", "Alice", "Ålice O’Hara", "山田 太郎", "👩‍💻 Alice", strings.Repeat("x", 256)} {
		if err := set("", display); err != nil {
			t.Errorf("display name %q: %v", display, err)
		}
	}
	for _, display := range []string{
		"a\r\nRemote-User: root", "a\x00", "\x1b[31m", "a\u0085", "a\u2028b", "a\u202eb", "\xff", strings.Repeat("x", 257),
	} {
		if err := set("", display); !errors.Is(err, user.ErrInvalid) {
			t.Errorf("display name %q: got %v, want ErrInvalid", display, err)
		}
	}
}
