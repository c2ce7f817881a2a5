package apptoken_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"gatehouse/auth/apptoken"
)

var sample = apptoken.Prefix + strings.Repeat("ABCD2345Z7MNO", 4)

func basicOf(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

func TestRead(t *testing.T) {
	t.Parallel()
	byName := apptoken.Presented{Name: "alice", Basic: true, Text: sample}
	for _, c := range []struct {
		name, value string
		shown       apptoken.Presented
		claimed     bool
	}{
		{"bearer", "Bearer " + sample, apptoken.Presented{Text: sample}, true},
		{"bearer, other case", "bEARER  " + sample, apptoken.Presented{Text: sample}, true},
		{"basic", basicOf("alice", sample), byName, true},
		{"basic, other case", "bASIC" + strings.TrimPrefix(basicOf("alice", sample), "Basic"), byName, true},
		{"basic, not padded", strings.TrimRight(basicOf("alice", sample), "="), byName, true},
		{"basic, no name", basicOf("", sample), apptoken.Presented{Basic: true, Text: sample}, true},

		{"basic, as the name", basicOf(sample, ""), apptoken.Presented{Name: sample, Basic: true}, true},
		{"basic, cut", basicOf("alice", sample[:20]), apptoken.Presented{Name: "alice", Basic: true}, true},
		{"basic, longer", basicOf("alice", sample+"A"), apptoken.Presented{Name: "alice", Basic: true}, true},
		{"basic, another case", basicOf("alice", strings.ToLower(sample)), apptoken.Presented{Name: "alice", Basic: true}, true},
		{"basic, blank before", basicOf("alice", " "+sample), apptoken.Presented{Name: "alice", Basic: true}, true},
		{"basic, more behind the padding", basicOf("alice", sample) + "A", apptoken.Presented{Name: "alice", Basic: true}, true},
		{"basic, a blank within", basicOf("alice", sample)[:20] + " " + basicOf("alice", sample)[20:], apptoken.Presented{Name: "alice", Basic: true}, true},
		{"basic, not encoded", "Basic " + sample, apptoken.Presented{}, true},
		{"bearer, cut", "Bearer " + sample[:20], apptoken.Presented{}, true},
		{"bearer, other case of the token", "Bearer " + strings.ToUpper(sample), apptoken.Presented{}, true},
		{"bearer, more behind", "Bearer " + sample + " x", apptoken.Presented{}, true},
		{"bearer, quoted", `Bearer "` + sample + `"`, apptoken.Presented{}, true},
		{"no scheme", sample, apptoken.Presented{}, true},
		{"scheme token", "token " + sample, apptoken.Presented{}, true},
		{"as a parameter", `Digest username="alice", response="` + sample + `"`, apptoken.Presented{}, true},

		{"nothing", "", apptoken.Presented{}, false},
		{"another bearer", "Bearer abc", apptoken.Presented{}, false},
		{"another basic", basicOf("alice", "a password"), apptoken.Presented{}, false},
		{"basic, no colon", "Basic " + base64.StdEncoding.EncodeToString([]byte("alice")), apptoken.Presented{}, false},
		{"within a word", "Bearer x" + sample, apptoken.Presented{}, false},
		{"within a password", basicOf("alice", "x"+sample), apptoken.Presented{}, false},
	} {
		shown, claimed := apptoken.Read(c.value)
		if shown != c.shown || claimed != c.claimed {
			t.Errorf("%s: got %+v, %v, want %+v, %v", c.name, shown, claimed, c.shown, c.claimed)
		}
	}
}

// FuzzRead: what is accepted has one spelling, and what is not claimed holds no token that the plainest reader would find.
func FuzzRead(f *testing.F) {
	for _, value := range []string{"Bearer " + sample, basicOf("alice", sample), "Basic " + sample, "token " + sample, "Bearer abc", basicOf("a", "b")} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		shown, claimed := apptoken.Read(value)
		if shown.Text != "" && (!claimed || len(shown.Text) != len(sample) || !strings.HasPrefix(shown.Text, apptoken.Prefix)) {
			t.Errorf("%q: %+v, claimed %v", value, shown, claimed)
		}
		if claimed {
			return
		}
		for _, word := range strings.Fields(value) {
			if strings.HasPrefix(word, apptoken.Prefix) {
				t.Errorf("%q holds a token", value)
			}
		}
		if encoded, ok := strings.CutPrefix(value, "Basic "); ok {
			decoded, err := base64.StdEncoding.DecodeString(encoded)
			if _, password, ok := strings.Cut(string(decoded), ":"); err == nil && ok && strings.HasPrefix(password, apptoken.Prefix) {
				t.Errorf("%q holds a token", value)
			}
		}
	})
}
