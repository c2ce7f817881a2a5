package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/admin/admintest"
	"gatehouse/audit"
	"gatehouse/store"
)

// person is somebody at a terminal: answers come from lines, secrets are typed without an echo.
func person(s *admintest.Server, lines string, secrets ...string) (machine, *bytes.Buffer, *bytes.Buffer) {
	var out, errOut bytes.Buffer
	return machine{
		in: strings.NewReader(lines), out: &out, errOut: &errOut, environ: []string{"GATEHOUSE_DATA=" + s.Dir},
		now: func() time.Time { return time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC) }, terminal: true,
		readSecret: func() (string, error) {
			if len(secrets) == 0 {
				return "", io.EOF
			}
			next := secrets[0]
			secrets = secrets[1:]
			return next, nil
		},
	}, &out, &errOut
}

func TestUserPasswd_asksTwiceForThePassword(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	k.AddUser(t, "alice")
	s := k.Serve(t)
	tests := []struct {
		name    string
		secrets []string
		want    int
		says    string
	}{
		{"differ", []string{admintest.GoodPassword, admintest.GoodPassword + "x"}, exitFailed, "the two passwords differ"},
		{"end of input", []string{admintest.GoodPassword}, exitFailed, "read password: EOF"},
		{"same", []string{admintest.GoodPassword, admintest.GoodPassword}, exitDone, "New password: \nOnce more: \n"},
	}
	for _, test := range tests {
		m, out, errOut := person(s, "", test.secrets...)
		if got := run(t.Context(), []string{"user", "passwd", "alice"}, m); got != test.want || !strings.Contains(errOut.String(), test.says) {
			t.Errorf("%s: got %d and %q, want %d and %q", test.name, got, errOut, test.want, test.says)
		}
		if strings.Contains(out.String()+errOut.String(), "violet") {
			t.Errorf("%s: the password is on the screen", test.name)
		}
	}
}

func TestUserDelete_asksFirst(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	k.AddUser(t, "alice")
	s := k.Serve(t)
	for _, answer := range []string{"\n", "n\n", "", "yes please\n"} {
		m, _, errOut := person(s, answer)
		if got := run(t.Context(), []string{"user", "delete", "alice"}, m); got != exitFailed || !strings.Contains(errOut.String(), "Delete the account alice for good? [y/N]") {
			t.Errorf("answer %q: got %d and %q, want a refusal", answer, got, errOut)
		}
	}
	m, out, _ := person(s, "Y\n")
	if got := run(t.Context(), []string{"user", "delete", "alice"}, m); got != exitDone || !strings.Contains(out.String(), "alice is deleted") {
		t.Errorf("got %d and %q, want the account deleted", got, out)
	}
}

func TestRun_tellsOfAnOutage(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	s := k.Serve(t)
	k.LogFault.Set(errors.New("disk full"))
	m, _, errOut := person(s, "")
	if got := run(t.Context(), []string{"user", "list"}, m); got != exitFailed || !strings.Contains(errOut.String(), "Try again shortly") {
		t.Errorf("got %d and %q, want a failure that says what to do", got, errOut)
	}
	if strings.Contains(errOut.String(), "disk full") {
		t.Error("the caller was told what is the log's to know")
	}
}

func TestRun_saysThatTheStoreIsAway(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	s := k.Serve(t)
	k.AddUser(t, "alice")
	k.StoreFault.Set(store.ErrUnavailable)
	m, _, errOut := person(s, "")
	if got := run(t.Context(), []string{"user", "disable", "alice"}, m); got != exitFailed || !strings.Contains(errOut.String(), "The store does not answer; ") {
		t.Errorf("got %d and %q, want a failure that names the store", got, errOut)
	}
}

func TestRoot_everyCommandHasHelpWithAnExample(t *testing.T) {
	t.Parallel()
	m, _, _ := person(&admintest.Server{}, "")
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		if command.Short == "" || !command.HasSubCommands() && command.Example == "" {
			t.Errorf("%s: no help or no example", command.CommandPath())
		}
		for _, below := range command.Commands() {
			walk(below)
		}
	}
	walk(newRootCommand(m))
}

// AU-02: nothing in a record drives the terminal or looks like another field.
func TestRecordLine_showsEscapesAsText(t *testing.T) {
	t.Parallel()
	r := audit.Record{Sequence: 7, Time: time.Date(2026, 11, 23, 10, 5, 0, 0, time.UTC), Event: audit.Event{
		Kind: audit.KindLogin, Outcome: audit.Failure, Severity: audit.High,
		Actor:   audit.Actor{Type: audit.ActorClient},
		Subject: audit.Subject{Tag: "0123456789abcdef"},
		Client:  audit.Client{Address: "10.0.0.5"},
		Code:    "invalid-credentials",
		Why:     "x\" by=operator:0\x1b[2J\u202e\r\n",
		Trace:   new(audit.NewTrace()),
	}}
	*r.Trace.Of(audit.StepRateLimit) = audit.Result{Verdict: audit.Pass}
	*r.Trace.Of(audit.StepPassword) = audit.Result{Verdict: audit.Fail, Reason: audit.ReasonUnknownUser}
	want := `2026-11-23T10:05:00Z 7 login failure severity=high unknown-user=0123456789abcdef from=10.0.0.5 code=invalid-credentials ` +
		`trace=1-password:fail(unknown-user),2-rate-limit:pass why="x\" by=operator:0\u001b[2J\u202e\u000d\u000a"`
	if got := recordLine(r); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
