package main

import (
	"errors"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"gatehouse/admin/admintest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gatehouse": main})
}

// The stories of the command line in testdata/script, each with an administration API of its own on a real socket.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			tb := env.T().(testing.TB)
			k := admintest.New(tb)
			s := k.Serve(tb)
			env.Setenv("GATEHOUSE_DATA", s.Dir)
			env.Setenv("URL", s.URL)
			env.Setenv("TOKEN", admintest.Token)
			env.Setenv("PASSWORD", admintest.GoodPassword)
			env.Values["kit"], env.Values["t"] = k, tb
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  exits,
			"fail":   fail,
			"signin": signIn,

			"revoketoken": revokeToken,
		},
	})
}

// exits CODE COMMAND [ARGUMENT]... runs a command and checks its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGUMENT]...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if status := (*exec.ExitError)(nil); errors.As(err, &status) {
		got = status.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code: got %d, want %d", got, want)
	}
}

// fail NAME TIMES counts wrong passwords of a name.
func fail(ts *testscript.TestScript, _ bool, args []string) {
	times, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Value("kit").(*admintest.Kit).Fail(ts.Value("t").(testing.TB), args[0], times)
}

// revoketoken NAME REASON revokes the one app token of a name, by the id that is listed.
func revokeToken(ts *testscript.TestScript, _ bool, args []string) {
	k, tb := ts.Value("kit").(*admintest.Kit), ts.Value("t").(testing.TB)
	u, err := k.Users.ByName(tb.Context(), args[0])
	ts.Check(err)
	tokens, err := k.Tokens.OfUser(tb.Context(), u.ID)
	ts.Check(err)
	if len(tokens) != 1 {
		ts.Fatalf("%d app tokens, want 1", len(tokens))
	}
	ts.Check(ts.Exec("gatehouse", "token", "revoke", tokens[0].ID, "--reason", args[1]))
}

// signin NAME starts a session.
func signIn(ts *testscript.TestScript, _ bool, args []string) {
	k := ts.Value("kit").(*admintest.Kit)
	u, err := k.Users.ByName(ts.Value("t").(testing.TB).Context(), args[0])
	ts.Check(err)
	k.SignIn(ts.Value("t").(testing.TB), u)
}
