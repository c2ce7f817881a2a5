package password_test

import (
	"slices"
	"strings"
	"testing"

	"gatehouse/auth/password"
)

// LG-13 as a page shows it: the reasons are the policy's, and nothing that is refused has a score that looks good.
func TestPolicy_Rate_agreesWithCheck(t *testing.T) {
	t.Parallel()
	password.ForgetLists() // what was made of them counts
	context := []string{"alice.wonderland", "login.example.org"}
	tests := []struct {
		name, password string
		least, most    int
		accepted       bool
	}{
		{"nothing", "", 0, 0, false},
		{"a word", "password", 0, 0, false},
		{"digits", "12345678", 0, 0, false},
		{"the user name", "alice.wonderland", 0, 1, false},
		{"the product", "gatehouse-gatehouse", 0, 1, false},
		{"seven hard characters", "k#9Zq!x", 0, 1, false},
		{"fifteen of one letter", strings.Repeat("a", 15), 0, 1, false},
		{"not UTF-8", "\xff\xfe violet herons wade", 0, 0, false},
		{"too long", strings.Repeat("violet herons ", 20), 0, 1, false},
		{"four words", "violet herons wade nine", 3, 4, true},
		{"64 characters with spaces", "the quiet harbour keeps nine violet herons and one lamp for alma", 4, 4, true},
	}
	for _, test := range tests {
		got := password.DefaultPolicy.Rate(test.password, context)
		if got.Score < test.least || got.Score > test.most || (len(got.Reasons) == 0) != test.accepted {
			t.Errorf("%s: got %+v, want a score of %d to %d, accepted %v", test.name, got, test.least, test.most, test.accepted)
		}
		if want := password.DefaultPolicy.Check(test.password, context); !slices.Equal(got.Reasons, want) {
			t.Errorf("%s: got %q, want %q", test.name, got.Reasons, want)
		}
	}
}
