package attacks_test

import (
	"net/http"
	"testing"
	"time"

	"gatehouse/admin/client"
	"gatehouse/audit"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/store/storetest"
)

// door is where somebody signs in: the program in its own process, or a gateway in this one.
type door interface {
	NewBrowser() *gatewaytest.Browser
	Code(secret string) string
	Records() []audit.Record
}

// memory is what must outlive a kill: of one round, with names of its own.
type memory struct {
	t               *testing.T
	door            door
	admin           *client.Client
	round           string
	from            string // start of the addresses of this round, each of which has its own bucket
	stays, leaves   string // secrets of two accounts
	staying, leaver *gatewaytest.Browser
	used            string // a code that was
	failures        int
}

// acts are the things that are acknowledged, each the last before the kill in its turn.
func (m *memory) acts() []func() {
	return []func(){
		func() { // a session
			m.staying = m.door.NewBrowser().At(m.from + "1")
			m.used = m.door.Code(m.stays)
			wantStatus(m.t, "sign in", m.staying.Login("stays-"+m.round, gatewaytest.Password, m.used), http.StatusOK)
		},
		func() { // a revocation
			m.leaver = m.door.NewBrowser().At(m.from + "2")
			wantStatus(m.t, "sign in", m.leaver.Login("leaves-"+m.round, gatewaytest.Password, m.door.Code(m.leaves)), http.StatusOK)
			owner := m.leaver.Copy()
			wantStatus(m.t, "sign out", owner.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil), http.StatusNoContent)
		},
		func() { // failures
			for range 2 {
				answer := m.door.NewBrowser().At(m.from+"3").Login("nobody-"+m.round, "not the password", "")
				wantProblem(m.t, "failure", answer, problem.InvalidCredentials)
				m.failures++
			}
		},
	}
}

// live makes the accounts and does everything once, in an order that depends on the round.
func (m *memory) live(round int, addUser func(name string) (secret string)) {
	m.round, m.from = decimal(round), "10."+decimal(round/250)+"."+decimal(round%250)+"."
	m.stays, m.leaves = addUser("stays-"+m.round), addUser("leaves-"+m.round)
	acts := m.acts()
	for i := range acts {
		acts[(round+i)%len(acts)]()
	}
}

// holds wants everything that was acknowledged to be known at a door that has no memory of its own. The code comes first, before it grows old.
func (m *memory) holds(at door, through func(*gatewaytest.Browser) *gatewaytest.Browser) {
	t := m.t
	again := at.NewBrowser().At(m.from+"5").Login("stays-"+m.round, gatewaytest.Password, m.used)
	wantProblem(t, "the used code", again, problem.CodeInvalid)
	last := audit.Record{}
	for _, r := range at.Records() { // counted refusals may be written behind it
		if r.Kind == audit.KindLogin {
			last = r
		}
	}
	// A code that has only grown old would be refused too: the trace says which it was.
	if last.Trace == nil || last.Trace.Of(audit.StepSecondFactor).Reason != audit.ReasonCodeUsed {
		t.Errorf("round %s: the used code was refused as %+v", m.round, last.Trace)
	}

	windows, err := m.admin.Lockout(t.Context(), "nobody-"+m.round)
	if err != nil || len(windows) != 1 || windows[0].Failures != m.failures {
		t.Errorf("round %s: the windows after the kill are %+v, %v; want one with %d failures", m.round, windows, err, m.failures)
	}
	for range 5 - m.failures {
		wantProblem(t, "a failure before the sixth", at.NewBrowser().At(m.from+"4").Login("nobody-"+m.round, "not the password", ""), problem.InvalidCredentials)
	}
	wantProblem(t, "after five", at.NewBrowser().At(m.from+"4").Login("nobody-"+m.round, "not the password", ""), problem.Locked)

	wantStatus(t, "the session", through(m.staying).Get("/"), http.StatusOK)
	wantStatus(t, "the ended session", through(m.leaver).Get("/"), http.StatusFound)
}

// What the program as it is shipped does with its folder.
func TestProgram(t *testing.T) {
	t.Parallel()
	program := gatewaytest.Build(t)
	for name, play := range map[string]func(*testing.T, string){
		"killed it loses nothing":          killedLosesNothing,
		"refuses a folder that is not fit": refusesFolder,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, program)
		})
	}
}

// killedLosesNothing is kill -9 of the program, right behind an acknowledgement (RL-07, RD-12).
func killedLosesNothing(t *testing.T, program string) {
	p := gatewaytest.StartProcess(t, gatewaytest.ProcessOptions{
		Program: program, Environ: []string{"GATEHOUSE_LOGIN__BCRYPT_COST=10"},
	})
	for round := range storetest.Rounds(3, 300) {
		m := &memory{t: t, door: p, admin: p.Admin}
		m.live(round, p.AddUser)
		p.Kill()
		p.Start()
		m.holds(p, func(b *gatewaytest.Browser) *gatewaytest.Browser { return b })
		if t.Failed() {
			t.Fatalf("round %d:\n%s", round, p.Log)
		}
	}
	// The log is whole, numbered without a gap over all lives, and has a start for each.
	starts := 0
	for i, r := range p.Records() {
		if r.Sequence != uint64(i+1) {
			t.Fatalf("record %d has the number %d", i+1, r.Sequence)
		}
		if r.Kind == audit.KindStarted {
			starts++
		}
	}
	if want := storetest.Rounds(3, 300) + 1; starts != want {
		t.Errorf("the log has %d starts, want %d", starts, want)
	}
}

// kill -9 of Redis, right behind an acknowledgement. What it holds is asked at a gateway that starts afterwards.
func TestKill_ofRedisLosesNothing(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	key, clock := gatewaytest.RootKey(), gatewaytest.NewClock()
	g := startOn(t, server.URL(), key, clock)
	for round := range storetest.Rounds(3, 1000) {
		clock.Add(20 * time.Minute) // the buckets of the addresses are full again
		m := &memory{t: t, door: g}
		m.live(round, func(name string) string {
			g.AddUser(name)
			return g.Enrol(name)
		})
		server.Kill()
		wantStatus(t, "without the store, the known session", m.staying.Get("/"), http.StatusOK)
		server.Restart()
		fresh := startOn(t, server.URL(), key, clock)
		m.admin = fresh.Admin
		m.holds(fresh, func(b *gatewaytest.Browser) *gatewaytest.Browser { return b.Through(fresh) })
		eventually(t, "the gateway that lived through it to heal", 10*time.Second, func() bool {
			return m.staying.Get("/.gatehouse/readyz").StatusCode == http.StatusOK
		})
		wantStatus(t, "the ended session there", m.leaver.Get("/"), http.StatusFound)
		fresh.Stop()
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}
