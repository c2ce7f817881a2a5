package auth_test

import (
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/auth/link"
	"gatehouse/auth/password"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/store"
)

var update = flag.Bool("update", false, "write testdata/trace anew")

// scenario is one way for a login to pass or fail. run arranges it and returns the outcome of the attempt that it is about.
type scenario struct {
	name string
	options
	run func(r *rig) auth.Outcome
}

var optional = options{optional: true}

// scenarios is every way there is, by the step that decides. The golden file of each has its name.
var scenarios = []scenario{
	{"pass/first-login", optional, func(r *rig) auth.Outcome {
		r.add("alice", false)
		return r.password(home, "alice", right)
	}},
	{"pass/first-login-with-code", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		return r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	}},
	{"pass/code-in-a-second-request", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.signIn(home, "alice")
		waiting := r.password(abroad, "alice", right)
		return r.try(abroad, auth.Presented{Challenge: waiting.Challenge, Code: r.code()})
	}},
	{"pass/known-device-without-code", optional, func(r *rig) auth.Outcome {
		r.add("alice", true)
		return r.password(r.signIn(home, "alice"), "alice", right)
	}},
	{"pass/known-device-with-code", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		known := r.signIn(home, "alice")
		return r.try(known, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	}},
	{"pass/new-network-answered-by-code", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		known := r.signIn(home, "alice")
		known.Address, known.Network = abroad.Address, abroad.Network
		return r.try(known, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	}},
	{"pass/after-failures-answered-by-code", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.signIn(home, "alice")
		r.guess("alice", 4)
		return r.try(abroad, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	}},
	{"pass/enrolled", options{}, func(r *rig) auth.Outcome {
		r.add("alice", false)
		challenge, e := r.waiting(in("a"))
		return r.enrol(in("a"), challenge, r.codeOf(e))
	}},
	{"pass/set-up-link", options{}, linked(link.Setup, "a", (*rig).codeOf)},
	{"pass/invitation", options{}, linked(link.Invite, "a", (*rig).codeOf)},

	{"1-password/link-expired", options{}, func(r *rig) auth.Outcome { return r.confirm(in("a"), link.Invite, "unknown", "000000") }},
	{"1-password/link-of-another-browser", options{}, linked(link.Invite, "b", (*rig).codeOf)},
	{"1-password/store-unavailable-link", options{}, func(r *rig) auth.Outcome {
		r.spy.fail("get link", errDown)
		return r.confirm(in("a"), link.Invite, "unknown", "000000")
	}},
	{"1-password/malformed", options{}, func(r *rig) auth.Outcome {
		return r.Login(r.t.Context(), home, func() (auth.Presented, error) {
			return auth.Presented{}, &auth.BadRequest{Code: problem.TooLarge, Err: store.ErrTooLarge}
		})
	}},
	{"1-password/unknown-user", options{}, func(r *rig) auth.Outcome { return r.password(home, "nobody", wrong) }},
	{"1-password/no-name-at-all", options{}, func(r *rig) auth.Outcome { return r.password(home, " alice", wrong) }},
	{"1-password/wrong-password", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		return r.password(home, "alice", wrong)
	}},
	{"1-password/wrong-password-locks", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.guess("alice", 4)
		return r.password(home, "alice", wrong)
	}},
	{"1-password/wrong-password-on-known-device", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		return r.password(r.signIn(home, "alice"), "alice", wrong)
	}},
	{"1-password/account-disabled", options{}, func(r *rig) auth.Outcome {
		u := r.add("alice", true)
		r.change(u.ID, func(u *user.User) { u.Disabled = true })
		return r.password(home, "alice", right)
	}},
	{"1-password/account-disabled-wrong-password", options{}, func(r *rig) auth.Outcome {
		u := r.add("alice", true)
		r.change(u.ID, func(u *user.User) { u.Disabled = true })
		return r.password(home, "alice", wrong)
	}},
	{"1-password/locked", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.guess("alice", 5)
		return r.password(home, "alice", right)
	}},
	{"1-password/locked-unknown-user", options{}, func(r *rig) auth.Outcome {
		r.guess("nobody", 5)
		return r.password(home, "nobody", right)
	}},
	{"1-password/closed", options{runLimit: 7}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.guess("alice", 5)
		r.clock.add(15 * time.Minute)
		r.guess("alice", 2)
		r.clock.add(24 * time.Hour)
		return r.password(home, "alice", right)
	}},
	{"1-password/pool-full", options{perAccount: 1}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		place, err := r.pool.Enter(r.t.Context(), password.Waiter{Account: r.users.NameTag("alice")})
		r.must(err)
		defer place.Leave()
		return r.password(home, "alice", right)
	}},
	{"2-rate-limit/line-full", options{line: 1}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		defer r.fillLine().Leave()
		return r.password(home, "alice", right)
	}},
	{"1-password/store-unavailable-account", options{}, failing("get users")},
	{"1-password/store-unavailable-cost", options{}, failing("get password-cost")},
	{"1-password/store-unavailable-history", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.spy.fail("get history", errDown)
		return r.password(home, "alice", right)
	}},
	{"1-password/store-unavailable-reserve", options{}, failing("reserve password")},
	{"1-password/store-unavailable-settle", options{}, failing("settle password")},
	{"1-password/record-sealed", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.spy.fail("get users", store.ErrSealed)
		return r.password(home, "alice", right)
	}},
	{"1-password/store-unavailable-pending-login", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		waiting := r.password(home, "alice", right)
		r.spy.fail("get pending", errDown)
		return r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: r.code()})
	}},

	{"2-rate-limit/bucket-empty", options{}, func(r *rig) auth.Outcome {
		for range 10 {
			r.password(home, "nobody", wrong)
		}
		return r.password(home, "nobody-else", wrong)
	}},
	{"2-rate-limit/store-unavailable", options{}, failing("take token")},

	{"3-second-factor/enrolment-required", options{}, func(r *rig) auth.Outcome {
		r.add("alice", false)
		return r.password(home, "alice", right)
	}},
	{"3-second-factor/code-required", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		return r.password(r.signIn(home, "alice"), "alice", right)
	}},
	{"3-second-factor/code-required-of-a-stranger-after-failures", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.signIn(home, "alice")
		r.guess("alice", 4)
		return r.password(abroad, "alice", right)
	}},
	{"3-second-factor/code-required-of-a-stranger-where-optional", optional, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.signIn(home, "alice")
		return r.password(abroad, "alice", right)
	}},
	{"3-second-factor/code-required-at-the-first-login-where-optional", optional, func(r *rig) auth.Outcome {
		r.add("alice", true)
		return r.password(home, "alice", right)
	}},
	{"3-second-factor/store-unavailable-keep", options{}, failing("put pending")},
	{"3-second-factor/code-wrong", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		return r.try(home, auth.Presented{Username: "alice", Password: right, Code: "not it"})
	}},
	{"3-second-factor/code-wrong-in-a-second-request", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		waiting := r.password(home, "alice", right)
		return r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: "not it"})
	}},
	{"3-second-factor/code-wrong-locks", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.wrongCode("alice", 4)
		return r.try(home, auth.Presented{Username: "alice", Password: right, Code: "not it"})
	}},
	{"3-second-factor/code-used", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		used := auth.Presented{Username: "alice", Password: right, Code: r.code()}
		r.try(home, used)
		return r.try(home, used)
	}},
	{"3-second-factor/codes-locked", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.wrongCode("alice", 5)
		return r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	}},
	{"3-second-factor/codes-locked-in-a-second-request", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.wrongCode("alice", 5)
		waiting := r.password(home, "alice", right)
		return r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: r.code()})
	}},
	{"3-second-factor/pool-full", options{}, func(r *rig) auth.Outcome {
		u := r.add("alice", true)
		for range 5 {
			_, err := r.codes.Reserve(r.t.Context(), u.ID, "stranger")
			r.must(err)
		}
		return r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	}},
	{"3-second-factor/store-unavailable-reserve", options{}, failing("reserve code")},
	{"3-second-factor/store-unavailable-check", options{}, failing("use up code")},
	{"3-second-factor/store-unavailable-settle", options{}, failing("settle code")},
	{"3-second-factor/pending-invalid", options{}, func(r *rig) auth.Outcome {
		return r.try(home, auth.Presented{Challenge: "nothing waits behind it", Code: "123456"})
	}},
	{"3-second-factor/enrolment-required-in-a-browser", options{}, func(r *rig) auth.Outcome {
		r.add("alice", false)
		return r.password(in("a"), "alice", right)
	}},
	{"3-second-factor/enrolment-required-too-late", options{}, func(r *rig) auth.Outcome {
		r.add("alice", false)
		r.clock.add(14 * 24 * time.Hour)
		return r.password(in("a"), "alice", right)
	}},
	{"3-second-factor/code-wrong-of-an-enrolment", options{}, func(r *rig) auth.Outcome {
		r.add("alice", false)
		challenge, _ := r.waiting(in("a"))
		return r.enrol(in("a"), challenge, "not it")
	}},
	{"3-second-factor/code-wrong-of-a-link", options{}, linked(link.Setup, "a", func(*rig, auth.Enrolment) string { return "not it" })},

	{"4-context/verification-required-new-device", optional, func(r *rig) auth.Outcome {
		r.add("alice", false)
		r.password(home, "alice", right)
		return r.password(home, "alice", right)
	}},
	{"4-context/verification-required-new-network", optional, func(r *rig) auth.Outcome {
		r.add("alice", false)
		known := home
		known.DeviceCookie = r.password(home, "alice", right).DeviceCookie
		known.Address, known.Network = abroad.Address, abroad.Network
		return r.password(known, "alice", right)
	}},
	{"4-context/verification-required-first-login-too-late", optional, func(r *rig) auth.Outcome {
		r.add("alice", false)
		r.clock.add(14 * 24 * time.Hour)
		return r.password(home, "alice", right)
	}},

	{"5-session/store-unavailable", options{}, failing("prepare session")},
	{"5-session/store-unavailable-pending-login", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		waiting := r.password(home, "alice", right)
		r.spy.fail("delete pending", errDown)
		return r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: r.code()})
	}},
	{"5-session/pending-invalid", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		waiting := r.password(home, "alice", right)
		later := r.codeAt(1)
		r.spy.on(func(call string) error {
			if call == "settle code" { // the other one of two right codes comes to the end meanwhile
				r.spy.on(nil)
				r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: later})
			}
			return nil
		})
		return r.try(home, auth.Presented{Challenge: waiting.Challenge, Code: r.code()})
	}},
	{"5-session/link-expired", options{}, func(r *rig) auth.Outcome {
		s := tell(r, link.Invite)
		r.spy.on(func(call string) error {
			if call == "use up code" { // another browser chooses meanwhile
				r.spy.on(nil)
				r.mustChoose(in("b"), s.kind, s.token, "")
			}
			return nil
		})
		return r.confirm(in("a"), s.kind, s.token, r.codeOf(s.e))
	}},
	{"5-session/session-failed", options{}, failing("mark session live")},
	{"5-session/session-failed-device", options{}, failing("put history")},

	{"6-audit/audit-failed", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.spy.fail("append record", audit.ErrUnavailable)
		return r.try(home, auth.Presented{Username: "alice", Password: right, Code: r.code()})
	}},
	{"6-audit/audit-failed-code-required", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.spy.fail("append record", audit.ErrUnavailable)
		return r.password(home, "alice", right)
	}},
	{"6-audit/audit-failed-wrong-password", options{}, func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.spy.fail("append record", audit.ErrUnavailable)
		return r.password(home, "alice", wrong)
	}},
}

// linked confirms a link in a browser; it was begun in a.
func linked(kind link.Kind, browser string, code func(*rig, auth.Enrolment) string) func(r *rig) auth.Outcome {
	return func(r *rig) auth.Outcome {
		s := tell(r, kind)
		return r.confirm(in(browser), kind, s.token, code(r, s.e))
	}
}

// failing is the login of an enrolled account in which one call fails as a store does that is away.
func failing(call string) func(r *rig) auth.Outcome {
	return func(r *rig) auth.Outcome {
		r.add("alice", true)
		r.spy.fail(call, errDown)
		p := auth.Presented{Username: "alice", Password: right}
		if call != "put pending" {
			p.Code = r.code()
		}
		return r.try(home, p)
	}
}

// wrongCode presents n wrong codes behind the right password, each from an address of its own.
func (r *rig) wrongCode(name string, n int) {
	r.t.Helper()
	for i := range n {
		out := r.try(at(i), auth.Presented{Username: name, Password: right, Code: "000000000"})
		if out.Code != problem.CodeInvalid {
			r.t.Fatalf("wrong code %d: %s, trace %+v", i, out.Code, out.Trace)
		}
	}
}

// golden is what a golden file holds: the outcome, what was written down, and the trace.
type golden struct {
	SignedIn   bool         `json:"signed_in"`
	Code       problem.Code `json:"code,omitempty"`
	RetryAfter string       `json:"retry_after,omitempty"`
	Challenge  bool         `json:"challenge,omitempty"`
	Record     record       `json:"record"`
	Trace      []result     `json:"trace"`
}

type record struct {
	How      string            `json:"how"` // appended, counted or nothing
	Kind     audit.Kind        `json:"kind,omitempty"`
	Outcome  audit.Outcome     `json:"outcome,omitempty"`
	Severity audit.Severity    `json:"severity,omitempty"`
	Subject  string            `json:"subject,omitempty"` // the account's name, or that only its tag is kept
	Client   string            `json:"client,omitempty"`  // its class
	Code     string            `json:"code,omitempty"`
	Session  bool              `json:"session,omitempty"`
	Details  map[string]string `json:"details,omitempty"`
}

type result struct {
	Step string `json:"step"`
	audit.Result
}

func goldenOf(out auth.Outcome, s *spy) golden {
	e, how := s.last()
	g := golden{
		SignedIn: len(out.Credentials.Cookies) > 0, Code: out.Code, Challenge: out.Challenge != "",
		Record: record{
			How: how, Kind: e.Kind, Outcome: e.Outcome, Severity: e.Severity, Subject: e.Subject.Name, Client: e.Client.Device,
			Code: e.Code, Session: e.Session != "", Details: e.Details,
		},
	}
	if out.RetryAfter > 0 {
		g.RetryAfter = out.RetryAfter.String()
	}
	if e.Subject.Tag != "" {
		g.Record.Subject = "(tag)"
	}
	for _, step := range audit.Steps {
		r := *out.Trace.Of(step)
		r.Micros = 0
		g.Trace = append(g.Trace, result{strconv.Itoa(int(step)) + " " + step.String(), r})
	}
	return g
}

func goldenFile(name string) string { return filepath.Join("testdata", "trace", name+".json") }

// One file for each way to pass or to fail, so that a change of what is recorded, or of what a client is told, is seen in a
// review. -update writes them anew.
func TestFlow_tracesEveryWayToEnd(t *testing.T) {
	t.Parallel()
	for _, s := range slices.Concat(scenarios, stepUps) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, s.options)
			got, err := json.MarshalIndent(goldenOf(s.run(r), r.spy), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := goldenFile(s.name)
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// A reason that no golden file shows is one that nobody has seen, and a file without a scenario shows what is no more.
func TestFlow_showsEveryReasonInAGolden(t *testing.T) {
	t.Parallel()
	var files []string
	seen := map[audit.Reason]bool{audit.ReasonNone: true}
	for _, s := range slices.Concat(scenarios, stepUps) {
		files = append(files, goldenFile(s.name))
		text, err := os.ReadFile(goldenFile(s.name))
		if err != nil {
			t.Fatal(err)
		}
		var g golden
		if err := json.Unmarshal(text, &g); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		for _, r := range g.Trace {
			seen[r.Reason] = true
		}
	}
	reasons := declaredReasons(t)
	for _, name := range slices.Sorted(maps.Keys(reasons)) {
		if !seen[reasons[name]] {
			t.Errorf("audit.%s (%q) is in no golden file: provoke it in a scenario", name, reasons[name])
		}
	}
	found, err := filepath.Glob(goldenFile("*/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		if !slices.Contains(files, file) {
			t.Errorf("%s belongs to no scenario", file)
		}
	}
}

// declaredReasons reads the constants of audit.Reason from their source: reflection does not know them.
func declaredReasons(t *testing.T) map[string]audit.Reason {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../audit/trace.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]audit.Reason{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if named, ok := spec.Type.(*ast.Ident); !ok || named.Name != "Reason" {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			t.Fatalf("%s is no literal", spec.Names[0].Name)
		}
		value, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		reasons[spec.Names[0].Name] = audit.Reason(value)
		return true
	})
	if len(reasons) < 20 || !strings.HasPrefix(slices.Sorted(maps.Keys(reasons))[0], "Reason") {
		t.Fatalf("read %d reasons from the source", len(reasons))
	}
	return reasons
}
