package user_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gatehouse/auth/user"
	"gatehouse/store"
)

const htpasswd = `# people
alice:` + hash4 + `
Bob:` + hash5 + `:a comment
carol:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/
dave:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=

erin:rqXexS6ZhobKA
no colon
mal lory:` + hash4 + `
eve:$2y$31$` + "iraiBMLL3uduptnw6wGVNucJ.ZzLnMP3ABy7W.BLjNk8p7W/yYm5S" + `
frank:$6$salt$hash
grace:
ALICE:` + hash5 + `
heidi:$2y$04$tooshort
`

func parseHtpasswd(t *testing.T, text string) user.Import {
	t.Helper()
	im, err := user.ParseHtpasswd(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// imported is a plan and what came of it.
type imported struct {
	user.Plan
	Added []user.User
}

func importFile(t *testing.T, s *user.Store, im user.Import) (imported, error) {
	t.Helper()
	plan, err := s.PlanImport(t.Context(), im)
	if err != nil {
		return imported{Plan: plan}, err
	}
	added, err := s.Import(t.Context(), plan)
	return imported{plan, added}, err
}

// checkRejected compares rejections with "line name: part of why".
func checkRejected(t *testing.T, got []user.Rejected, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("got %d rejected, want %d: %+v", len(got), len(want), got)
		return
	}
	for i, r := range got {
		place, why, _ := strings.Cut(want[i], ": ")
		if fmt.Sprintf("%d %s", r.Line, r.Name) != place || !strings.Contains(r.Why, why) {
			t.Errorf("got %+v, want %s", r, want[i])
		}
		if strings.Contains(r.Why, "$HqJZ") || strings.Contains(r.Why, "fEqNC") || strings.Contains(r.Why, "rqXex") || strings.Contains(r.Why, "iraiB") {
			t.Errorf("%+v shows a hash", r)
		}
	}
}

func TestParseHtpasswd(t *testing.T) {
	t.Parallel()
	im := parseHtpasswd(t, "\ufeff"+strings.ReplaceAll(htpasswd, "\n", "\r\n"))
	if len(im.Users) != 1 || im.Users[0].Name != "bob" || im.Users[0].PasswordHash != hash5 {
		t.Errorf("got %+v, want bob alone", im.Users)
	}
	checkRejected(t, im.Rejected,
		`2 alice: other lines are the same account`,
		`4 carol: MD5 (apr1)`,
		`5 dave: SHA-1`,
		`7 erin: not a hash that is known`,
		`8 : name:hash`,
		`9 mal lory: not a name`,
		`10 eve: cost 31`,
		`11 frank: SHA-512`,
		`12 grace: empty`,
		`13 ALICE: the same account as "alice" on line 2`,
		`14 heidi: not bcrypt`,
	)
	if _, err := user.ParseHtpasswd(strings.NewReader(strings.Repeat("#\n", 3<<20))); err == nil {
		t.Error("a file of 6 MiB was read")
	}
}

const authelia = `---
# people
users:
  Alice:
    disabled: false
    displayname: 'Alice Ä'
    password: '` + hash4 + `'
    email: alice@example.com
    groups:
      - Admins
      - dev
    given_name: Alice
    address:
      locality: Oslo
  bob:
    disabled: true
    displayname: Bob
    password: "` + hash5 + `"
    email: ''
    groups: []
  1234:
    password: ` + hash4 + `
    displayname: 42
    groups:
  argon:
    displayname: A
    password: '$argon2id$v=19$m=65536,t=3,p=4$BpLnfgDsc2WD8F2q$o/vzA4myCqZZ36bUGsDY'
  typo:
    password: '` + hash4 + `'
    disabeld: true
  badgroup:
    password: '` + hash4 + `'
    groups: ['Domain Users']
  notbool:
    password: '` + hash4 + `'
    disabled: 'no'
  alias: *x
  badmail:
    password: '` + hash4 + `'
    email: a@b@c
  empty:
  BOB:
    password: '` + hash4 + `'
`

func TestParseAuthelia(t *testing.T) {
	t.Parallel()
	im, err := user.ParseAuthelia(strings.NewReader(authelia))
	if err != nil {
		t.Fatal(err)
	}
	want := []user.User{
		{Name: "alice", DisplayName: "Alice Ä", Email: "alice@example.com", Groups: []string{"admins", "dev"}, PasswordHash: hash4},
		{Name: "1234", DisplayName: "42", PasswordHash: hash4},
	}
	if fmt.Sprint(im.Users) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", im.Users, want)
	}
	checkRejected(t, im.Rejected,
		`15 bob: other lines are the same account`,
		`25 argon: Argon2`,
		`28 typo: line 30, column 5: unknown key "disabeld"`,
		`31 badgroup: group "Domain Users"`,
		`34 notbool: want true or false`,
		`37 alias: want a mapping`,
		`38 badmail: e-mail address "a@b@c"`,
		`41 empty: the password is empty`,
		`42 BOB: the same account as "bob" on line 15`,
	)
}

func TestParseAuthelia_keepsDisabledAccountsDisabled(t *testing.T) {
	t.Parallel()
	im, err := user.ParseAuthelia(strings.NewReader("users:\n  bob: {disabled: true, password: '" + hash5 + "'}\n"))
	if err != nil || len(im.Users) != 1 || !im.Users[0].Disabled {
		t.Errorf("got %+v, %v, want bob, disabled", im, err)
	}
}

func TestParseAuthelia_refusesWhatIsNotAUsersFile(t *testing.T) {
	t.Parallel()
	secret := hash4[10:]
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "users"},
		{"text", "hello", "mapping"},
		{"another key", "users: {}\nadmins: {}\n", "line 2, column 1"},
		{"no users", "{}", "want users"},
		{"twice", "users: {}\nusers: {}\n", "line 2"},
		{"list", "users:\n  - alice\n", "line 2"},
		{"two documents", "users: {}\n---\nusers: {}\n", "one YAML document"},
		{"not YAML", "users:\n  alice:\n    password: '" + hash4 + "\n", "line"},
		{"bad indentation", "users:\n  alice:\n      password: " + hash4 + "\n   email: x\n", "line"},
		{"merge key", "users:\n  alice: {password: '" + hash4 + "'}\n  <<: *a\n", "plain key"},
		{"NUL", "users:\x00", ""},
		{"a million brackets", "users: " + strings.Repeat("[", 1<<20), "line 1, column 40: nested too deeply"},
		{"a million entries on one line", "users:\n  " + strings.Repeat("- ", 1<<20), "nested too deeply"},
	} {
		im, err := user.ParseAuthelia(strings.NewReader(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %+v, %v, want an error with %q", test.name, im, err, test.want)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v shows a hash", test.name, err)
		}
	}
}

func FuzzParseAuthelia(f *testing.F) {
	f.Add(authelia)
	f.Add("users: {alice: {password: x}}")
	f.Add("users:\n  a: &x {password: b}\n  c: *x\n")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = user.ParseAuthelia(strings.NewReader(text))
	})
}

func TestStore_importsAllOrNothing(t *testing.T) {
	t.Parallel()
	spy := &spy{Records: bolt(t)}
	s := accounts(spy)
	im := parseHtpasswd(t, htpasswd)
	if got, err := importFile(t, s, im); !errors.Is(err, user.ErrRejected) || len(got.Rejected) != 11 || len(spy.puts) != 0 {
		t.Fatalf("got %+v, %v and %d writes, want nothing written", got, err, len(spy.puts))
	}
	im.SkipRejected = true
	got, err := importFile(t, s, im)
	if err != nil || len(got.Added) != 1 || got.Added[0].Name != "bob" || len(got.Rejected) != 11 {
		t.Fatalf("got %+v, %v, want bob added", got, err)
	}
	bob, err := s.ByName(t.Context(), "bob")
	if err != nil || bob.PasswordHash != hash5 || !bob.EnrolUntil.Equal(noon.Add(user.EnrolWithin)) {
		t.Errorf("got %+v, %v", bob, err)
	}
	if ceiling, _ := s.CostCeiling(t.Context()); ceiling != 5 {
		t.Errorf("got ceiling %d, want 5", ceiling)
	}
}

func TestStore_importOfAnExistingAccountThatDiffersIsRejected(t *testing.T) {
	t.Parallel()
	s := accounts(bolt(t))
	add(t, s, user.User{Name: "bob", Groups: []string{"admins"}})
	im := parseHtpasswd(t, "alice:"+hash4+"\nbob:"+hash4+"\n")
	got, err := importFile(t, s, im)
	if !errors.Is(err, user.ErrRejected) {
		t.Fatalf("got %v, want ErrRejected", err)
	}
	checkRejected(t, got.Rejected, "2 bob: exists and is not the same")
	if _, err := s.ByName(t.Context(), "alice"); !errors.Is(err, user.ErrNotFound) {
		t.Errorf("alice: got %v, want nothing written", err)
	}
	im.SkipRejected = true
	if got, err := importFile(t, s, im); err != nil || len(got.Added) != 1 || got.Added[0].Name != "alice" {
		t.Errorf("got %+v, %v, want alice added", got, err)
	}
	if bob, _ := s.ByName(t.Context(), "bob"); bob.PasswordHash != "" || bob.Revision != 1 {
		t.Errorf("got %+v, want bob untouched", bob)
	}
}

// An account that came between the plan and its import is left as it is.
func TestStore_importEndsAtANameTakenSinceThePlan(t *testing.T) {
	t.Parallel()
	s := accounts(bolt(t))
	plan, err := s.PlanImport(t.Context(), parseHtpasswd(t, "alice:"+hash4+"\nbob:"+hash4+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, user.User{Name: "bob"})
	if added, err := s.Import(t.Context(), plan); !errors.Is(err, user.ErrNameTaken) || len(added) != 1 || added[0].Name != "alice" {
		t.Errorf("got %+v and %v, want alice alone and ErrNameTaken", added, err)
	}
	if bob, _ := s.ByName(t.Context(), "bob"); bob.PasswordHash != "" {
		t.Errorf("got %+v, want bob untouched", bob)
	}
}

// A store that goes away in the middle: what was written is said, and the same file completes it, wherever it broke.
func TestStore_importIsCompletedByASecondRun(t *testing.T) {
	t.Parallel()
	names := []string{"alice", "bob", "carol"}
	var text strings.Builder
	for _, name := range names {
		fmt.Fprintf(&text, "%s:%s\n", name, hash4)
	}
	im := parseHtpasswd(t, text.String())
	for failFrom := 1; failFrom <= 1+3*len(names); failFrom++ { // the ceiling, then three writes for each
		spy := &spy{Records: bolt(t), failFrom: failFrom}
		first, err := importFile(t, accounts(spy), im)
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("write %d: got %v, want ErrUnavailable", failFrom, err)
		}
		if got, want := len(first.Added), max(0, (failFrom-2)/3); got != want || !strings.Contains(err.Error(), fmt.Sprintf("after %d of 3", want)) {
			t.Errorf("write %d: got %d added (%v), want %d", failFrom, got, err, want)
		}
		s := accounts(spy.Records)
		second, err := importFile(t, s, im)
		if err != nil || len(second.Added)+len(second.Existing) != 3 {
			t.Errorf("write %d: got %+v, %v, want the rest added", failFrom, second, err)
		}
		for _, u := range first.Added {
			if !slices.Contains(second.Existing, u.Name) {
				t.Errorf("write %d: %s was added twice", failFrom, u.Name)
			}
		}
		if all, err := s.List(t.Context()); err != nil || len(all) != 3 {
			t.Errorf("write %d: got %d accounts, %v, want 3", failFrom, len(all), err)
		}
	}
}
