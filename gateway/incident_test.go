package gateway_test

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
)

// incidentEvent is one line of testdata/incident.jsonl.
type incidentEvent struct {
	Time  string `json:"time"` // 15:04
	User  string `json:"user"`
	Event string `json:"event"`
	IP    string `json:"ip"`
}

func readIncident(t *testing.T) []incidentEvent {
	t.Helper()
	text, err := os.ReadFile("testdata/incident.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var story []incidentEvent
	for line := range strings.Lines(string(text)) {
		var e incidentEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		story = append(story, e)
	}
	if len(story) != 8 {
		t.Fatalf("the story has %d events, want 8", len(story))
	}
	return story
}

// The story that must end well: four wrong passwords do not lock, the fifth attempt has the right one, and still nobody gets
// in: not where a second factor is required, and not where policy made it optional and alice's device is known.
func TestIncident_theRightPasswordGetsNoSession(t *testing.T) {
	t.Parallel()
	for _, policy := range []configs.SecondFactor{configs.Required, configs.Optional} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			playIncident(t, policy)
		})
	}
}

func playIncident(t *testing.T, policy configs.SecondFactor) {
	clock := gatewaytest.NewClock()
	clock.Set(clock.Now().Add(-24 * time.Hour)) // the story is told of the next day
	g := gatewaytest.Start(t, gatewaytest.Options{Clock: clock, Configure: func(c *configs.Config) { c.Login.SecondFactor = policy }})
	g.AddUser("alice")
	secret := g.Enrol("alice")
	alice, thief := g.NewBrowser().At("192.168.1.1"), g.NewBrowser().At("10.0.0.5")
	if policy == configs.Optional { // her device is known since yesterday
		if answer := alice.Login("alice", gatewaytest.Password, g.Code(secret)); answer.StatusCode != http.StatusOK {
			t.Fatalf("the day before: %d %s\n%s", answer.StatusCode, answer.Text, g.Log)
		}
	}
	for _, e := range readIncident(t) {
		at, err := time.Parse(time.DateOnly+" 15:04", "2026-11-23 "+e.Time)
		if err != nil {
			t.Fatal(err)
		}
		g.Clock.Set(at)
		b := thief
		if e.IP == "192.168.1.1" {
			b = alice
		}
		playEvent(t, g, b, e, policy, secret)
	}
	for _, r := range g.Upstream.Requests() {
		if strings.Contains(r.Target(), "export_data") || strings.Contains(r.Target(), "delete_logs") {
			t.Errorf("the app saw %s", r.Line)
		}
	}
	checkIncidentLog(t, g)
}

// playEvent plays one event and checks what the client got.
func playEvent(t *testing.T, g *gatewaytest.Gateway, b *gatewaytest.Browser, e incidentEvent, policy configs.SecondFactor, secret string) {
	t.Helper()
	code := ""
	if policy == configs.Required {
		code = g.Code(secret)
	}
	var answer gatewaytest.Answer
	want := ""
	switch e.Event {
	case "login":
		answer = b.Login(e.User, gatewaytest.Password, code)
	case "login_failed":
		answer, want = b.Login(e.User, "not her password", ""), string(problem.InvalidCredentials)
	case "login_success": // the password is right; the thief has no code
		answer, want = b.Login(e.User, gatewaytest.Password, ""), string(problem.CodeRequired)
	case "export_data":
		answer, want = b.Do(http.MethodGet, "/export_data", nil, nil), string(problem.SessionRequired)
	case "delete_logs":
		answer, want = b.Do(http.MethodPost, "/delete_logs", nil, nil), string(problem.SessionRequired)
	default:
		t.Fatalf("unknown event %q", e.Event)
	}
	switch {
	case want == "" && answer.StatusCode != http.StatusOK:
		t.Fatalf("%s %s: %d %s", e.Time, e.Event, answer.StatusCode, answer.Text)
	case want != "" && answer.ProblemCode() != want:
		t.Fatalf("%s %s: got %s, want %s", e.Time, e.Event, answer.ProblemCode(), want)
	}
	if want != "" && len(b.Jar) > 0 {
		t.Errorf("%s %s: got cookies %v", e.Time, e.Event, b.Jar)
	}
}

// checkIncidentLog reads the story back from the audit log.
func checkIncidentLog(t *testing.T, g *gatewaytest.Gateway) {
	t.Helper()
	logins := g.Logins()
	logins = logins[len(logins)-6:] // of the story; the optional policy has one more, the day before
	var told []string
	for _, r := range logins {
		told = append(told, r.Time.Format("15:04")+" "+r.Subject.Name+" "+r.Client.Address+" "+string(r.Outcome))
	}
	want := `10:00 alice 192.168.1.1 success
10:01 alice 10.0.0.5 failure
10:02 alice 10.0.0.5 failure
10:03 alice 10.0.0.5 failure
10:04 alice 10.0.0.5 failure
10:05 alice 10.0.0.5 challenge`
	if got := strings.Join(told, "\n"); got != want {
		t.Errorf("the log tells\n%s\nwant\n%s", got, want)
	}
	last := logins[5]
	if got, want := last.Trace.Of(audit.StepContext).Details[audit.SignalsDetail], "new-device,new-network,success-after-failures"; got != want {
		t.Errorf("signals %q, want %q", got, want)
	}
	if last.Severity != audit.High {
		t.Errorf("severity %s, want high", last.Severity)
	}
	if v := last.Trace.Of(audit.StepSession).Verdict; v != audit.NotReached || last.Session != "" {
		t.Errorf("session step %s, session %q", v, last.Session)
	}
}
