package configs

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestChanged_namesWhatDiffers(t *testing.T) {
	t.Parallel()
	a, b := Default(), Default()
	if got := Changed(a, b); got != nil {
		t.Errorf("of equal ones: got %q", got)
	}
	b.Listen, b.Session.Idle, b.Session.IgnoreActivity = ":1", time.Minute, []PathPrefix{"/poll"}
	if got, want := Changed(a, b), []string{"listen", "session.idle", "session.ignore_activity"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := NeedRestart(a, b), []string{"listen"}; !slices.Equal(got, want) {
		t.Errorf("need a restart: got %q, want %q", got, want)
	}
}

// The list in docs/operating.md is that of the tags.
func TestNeedRestart_isDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "These cannot change without a restart")
	_, list, _ = strings.Cut(list, ":\n")
	list, _, _ = strings.Cut(list, "\n\n")
	got := strings.Split(strings.Trim(strings.Join(strings.Fields(list), " "), "`."), "`, `")
	var want []string
	fixed(reflect.TypeFor[Config](), "", nil, func(name string, _ []int) { want = append(want, name) })
	if !slices.Equal(got, want) {
		t.Errorf("docs/operating.md lists\n%q, want\n`%s`.", got, strings.Join(want, "`, `"))
	}
}
