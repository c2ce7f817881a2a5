package attacks_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gatehouse/admin"
	"gatehouse/admin/api"
	"gatehouse/admin/httpapi"
	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/store/storetest"
)

const adminToken = "a-token-of-the-tests-that-is-long-enough"

// adminBench is a gateway whose administration API is also asked over its own socket and over TCP: two lives of one folder,
// because a gateway has one administration listener.
type adminBench struct {
	*bench
	dir    string
	socket string
	tcp    string // host:port, in the second life
}

func newAdminBench(t *testing.T) *adminBench {
	t.Helper()
	short, err := os.MkdirTemp("", "gh") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(short) })
	a := &adminBench{dir: t.TempDir(), socket: filepath.Join(short, "s")}
	a.live(t, configs.UnixPrefix+a.socket, gatewaytest.NewClock())
	a.AddUser("alice", "staff", "admins")
	a.secret = a.Enrol("alice")
	a.alice = a.SignIn("alice", a.secret)
	return a
}

// live starts the gateway on the folder.
func (a *adminBench) live(t *testing.T, listen string, clock *gatewaytest.Clock) {
	t.Helper()
	tokenFile := filepath.Join(a.dir, "admin.token")
	write(t, tokenFile, adminToken+"\n")
	alice, secret := (*gatewaytest.Browser)(nil), ""
	if a.bench != nil {
		alice, secret = a.alice, a.secret
	}
	g := gatewaytest.Start(t, gatewaytest.Options{Dir: a.dir, Clock: clock, External: site, Configure: func(c *configs.Config) {
		c.AdminListen = listen
		if !strings.HasPrefix(listen, configs.UnixPrefix) {
			c.AdminTokenFile = tokenFile
		}
	}})
	a.bench = &bench{Gateway: g, app: g.Upstream, alice: alice, secret: secret}
}

// overTCP starts the gateway again, with the API on loopback.
func (a *adminBench) overTCP(t *testing.T) {
	t.Helper()
	a.Stop()
	a.tcp = net.JoinHostPort("127.0.0.1", storetest.FreePort(t))
	a.live(t, a.tcp, a.Clock)
	a.alice = a.alice.Through(a.Gateway)
}

// ask sends a request to the API, as the operator on the socket or, in the second life, as the holder of the token.
func (a *adminBench) ask(t *testing.T, method, path, body string, header http.Header) gatewaytest.Answer {
	t.Helper()
	base, dial := "http://localhost", func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", a.socket)
	}
	if a.tcp != "" {
		base, dial = "http://"+a.tcp, new(net.Dialer).DialContext
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", jsonType)
	}
	if a.tcp != "" {
		r.Header.Set("Authorization", "Bearer "+adminToken)
	}
	for name, values := range header {
		r.Header[name] = values
		if name == "Host" {
			r.Host = values[0]
		}
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, response)
}

func readAnswer(t *testing.T, response *http.Response) gatewaytest.Answer {
	t.Helper()
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return gatewaytest.Answer{Response: response, Text: string(text)}
}

// AD-02: nothing that a page in a browser on the same machine can send does anything, over TCP with the token that it cannot
// know, or on the socket.
func TestAD02_theAdministrationIsNotForBrowsers(t *testing.T) {
	t.Parallel()
	a := newAdminBench(t)
	for _, way := range []string{"socket", "TCP"} {
		if way == "TCP" {
			a.overTCP(t)
		}
		own := "http://localhost"
		if a.tcp != "" {
			own = "http://" + a.tcp
		}
		for name, try := range map[string]struct {
			header http.Header
			want   problem.Code
		}{
			"the API's own origin":        {http.Header{"Origin": {own}}, problem.CrossSite},
			"the login host's origin":     {http.Header{"Origin": {a.URL}}, problem.CrossSite},
			"an opaque origin":            {http.Header{"Origin": {"null"}}, problem.CrossSite},
			"a page of another site":      {http.Header{"Sec-Fetch-Site": {"cross-site"}}, problem.CrossSite},
			"a page of the same site":     {http.Header{"Sec-Fetch-Site": {"same-site"}}, problem.CrossSite},
			"a rebound name":              {http.Header{"Host": {"evil.test"}}, problem.Misdirected},
			"a rebound name and the port": {http.Header{"Host": {"evil.test:8081"}}, problem.Misdirected},
			"a name that begins alike":    {http.Header{"Host": {"localhost.evil.test"}}, problem.Misdirected},
			"the login host's other name": {http.Header{"Host": {"0.0.0.0"}}, problem.Misdirected},
			"text":                        {http.Header{"Content-Type": {"text/plain"}}, problem.BadRequest},
			"a form":                      {http.Header{"Content-Type": {formType}}, problem.BadRequest},
			"no type":                     {http.Header{"Content-Type": nil}, problem.BadRequest},
		} {
			for _, request := range []string{"POST /v1/users/alice/disable", "DELETE /v1/lockouts/alice", "PUT /v1/users/alice/groups"} {
				method, path, _ := strings.Cut(request, " ")
				answer := a.ask(t, method, path, `{"reason":"because","groups":[]}`, try.header)
				if answer.ProblemCode() != string(try.want) || answer.Header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s, %s, %s: got %d %s", way, name, request, answer.StatusCode, answer.Text)
				}
			}
		}
		preflight := a.ask(t, http.MethodOptions, "/v1/users/alice/disable", "", http.Header{"Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"authorization"}})
		if preflight.StatusCode < 400 || preflight.Header.Get("Access-Control-Allow-Methods") != "" {
			t.Errorf("%s: preflight: got %d %v", way, preflight.StatusCode, preflight.Header)
		}
		if answer := a.alice.Get("/app"); answer.StatusCode != http.StatusOK || a.app.Last(t).Values("Remote-Groups")[0] != "admins,staff" {
			t.Errorf("%s: alice: %d", way, answer.StatusCode)
		}
	}
	// A session is no key to the API, nor is anything else that a browser sends by itself.
	for name, header := range map[string]http.Header{
		"a session":           {"Cookie": {a.alice.Cookies()}, "Authorization": nil},
		"nothing":             {"Authorization": nil},
		"the token as Basic":  {"Authorization": {"Basic " + adminToken}},
		"the token in a list": {"Authorization": {"Bearer x", "Bearer " + adminToken}},
		"half a token":        {"Authorization": {"Bearer " + adminToken[:20]}},
		"the token as cookie": {"Authorization": nil, "Cookie": {"token=" + adminToken}},
	} {
		answer := a.ask(t, http.MethodGet, "/v1/users?token="+adminToken+"&access_token="+adminToken, "", header)
		wantDenied(t, name, answer.Response, http.StatusUnauthorized, http.StatusBadRequest)
	}
	if answer := a.ask(t, http.MethodGet, "/v1/users", "", nil); answer.StatusCode != http.StatusOK {
		t.Errorf("with the token: %d %s", answer.StatusCode, answer.Text)
	}
	// And the public listener does not have it.
	for _, path := range []string{"/.gatehouse/admin/api/v1/users", "/.gatehouse/v1/users", "/.gatehouse/admin/"} {
		wantDenied(t, path, a.alice.Do(http.MethodGet, path, nil, http.Header{"Authorization": {"Bearer " + adminToken}}).Response, http.StatusNotFound)
	}
	records := a.oracles(t, 1) // of the second life
	if n := sum(records, func(r audit.Record) bool { return r.Kind == audit.KindAccessDenied }); n == 0 {
		t.Error("the log does not tell of the refusals")
	}
}

// AD-07: a request says what its operation takes and nothing else.
func TestAD07_nothingIsAssignedBesides(t *testing.T) {
	t.Parallel()
	a := newAdminBench(t)
	ctx := t.Context()
	for range 3 {
		a.NewBrowser().Login("alice", "wrong every time", "")
	}
	before, err := a.Admin.User(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	lockout, err := a.Admin.Lockout(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	extras := map[string]string{
		"role": `"role":"admin"`, "factor": `"mfa_required":false`, "hash": `"password_hash":"$2y$05$x"`, "camel hash": `"PasswordHash":"$2y$05$x"`, "count": `"failed_count":-100`, "failures": `"failures":-100`,
		"id": `"id":"x"`, "disabled": `"disabled":false`, "TOTP": `"totp":null`, "revision": `"revision":0`, "enrolment": `"enrol_until":"2099-01-01T00:00:00Z"`, "another user": `"user":"root"`,
		"prototype": `"__proto__":{"role":"admin"}`, "reason twice": `"reason":"x"`, "reason in another case": `"Reason":"x"`, "nested": `"reason2":{"a":[1]}`,
	}
	for request, body := range map[string]string{
		"POST /v1/users/alice/disable": `{"reason":"besides"`, "POST /v1/users/alice/enable": `{"reason":"besides"`, "PUT /v1/users/alice/groups": `{"groups":["admins"],"reason":"besides"`,
		"PUT /v1/users/alice/password": `{"password":"` + gatewaytest.Password + `","reason":"besides"`, "DELETE /v1/lockouts/alice": `{"reason":"besides"`, "DELETE /v1/users/alice/totp": `{"reason":"besides"`,
		"POST /v1/users/alice/totp": `{"reason":"besides"`, "DELETE /v1/users/alice/sessions": `{"reason":"besides"`, "DELETE /v1/users/alice": `{"reason":"besides"`,
		"POST /v1/users/alice/invitation": `{"reason":"besides"`, "POST /v1/users": `{"name":"dora","password":"` + gatewaytest.Password + `","reason":"besides"`, "POST /v1/invitations": `{"name":"erin","reason":"besides"`,
		"POST /v1/imports": `{"format":"htpasswd","content":"","reason":"besides"`,
		"POST /v1/tokens":  `{"user":"alice","route":"app","reason":"besides"`,
	} {
		method, path, _ := strings.Cut(request, " ")
		for name, extra := range extras {
			answer := a.ask(t, method, path, body+","+extra+"}", nil)
			if answer.ProblemCode() != string(problem.BadRequest) {
				t.Errorf("%s with %s: got %d %s", request, name, answer.StatusCode, answer.Text)
			}
		}
		for name, whole := range map[string]string{"a list": "[" + body + "}]", "null": "null", "a text": `"x"`, "two objects": body + "}{}", "a broken one": body} {
			if answer := a.ask(t, method, path, whole, nil); answer.ProblemCode() != string(problem.BadRequest) {
				t.Errorf("%s with %s: got %d %s", request, name, answer.StatusCode, answer.Text)
			}
		}
	}
	for _, query := range []string{"limit=-1", "limit=0", "limit=1e9", "limit=1&limit=2", "limit=99999999999999999999", "admin=1"} {
		wantDenied(t, query, a.ask(t, http.MethodGet, "/v1/users?"+query, "", nil).Response, http.StatusBadRequest)
	}
	after, err := a.Admin.User(ctx, "alice")
	if err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("alice was %+v and is %+v, %v", before, after, err)
	}
	if now, err := a.Admin.Lockout(ctx, "alice"); err != nil || !reflect.DeepEqual(lockout, now) {
		t.Errorf("her lockout was %+v and is %+v, %v", lockout, now, err)
	}
	if users, err := a.Admin.Users(ctx); err != nil || len(users) != 1 {
		t.Errorf("there are %d users, %v", len(users), err)
	}
	records := a.oracles(t, 0)
	if n := sum(records, func(r audit.Record) bool { return r.Why == "besides" }); n != 0 {
		t.Errorf("%d calls were recorded that were none", n)
	}
}

// AD-11: each call leads to one record, allowed, denied or failed, and the record is there with the answer. That no call has an
// effect when its record cannot be written is played where the disk is full.
func TestAD11_eachCallIsOneRecord(t *testing.T) {
	t.Parallel()
	a := newAdminBench(t)
	a.AddUser("mallory")
	a.SignIn("mallory", a.Enrol("mallory"))
	seen := map[string]int{} // outcomes by operation
	call := func(r httpapi.Route, user, id string) audit.Outcome {
		t.Helper()
		before := len(a.Records())
		path := strings.NewReplacer("{user}", user, "{id}", id).Replace(r.Path)
		answer := a.ask(t, r.Method, path, callBody(r.Operation), nil)
		var found []audit.Record
		for _, record := range a.Records()[before:] {
			if record.Details["operation"] == string(r.Operation) {
				found = append(found, record)
			}
		}
		if len(found) > 1 && strings.Contains(r.Path, "{user}") { // who is disabled is signed out, too: that is another effect
			found = slices.DeleteFunc(found, func(r audit.Record) bool { return r.Kind == audit.KindSessionsRevoked })
		}
		if len(found) != 1 {
			t.Errorf("%s %s: %d records with the answer %d %s", r.Method, path, len(found), answer.StatusCode, answer.Text)
			return ""
		}
		got := found[0]
		if ok := answer.StatusCode < 400; ok != (got.Outcome == audit.Success) || got.RequestID == "" || got.Actor.Type == "" || !ok && answer.ProblemCode() != got.Code {
			t.Errorf("%s %s: answered %d %s, recorded %+v", r.Method, path, answer.StatusCode, answer.Text, got)
		}
		seen[string(r.Operation)+" "+string(got.Outcome)]++
		return got.Outcome
	}
	sessions, err := a.Admin.Sessions(t.Context(), "mallory")
	if err != nil || len(sessions) != 1 {
		t.Fatalf("sessions: %v, %v", sessions, err)
	}
	token, err := a.Admin.AddToken(t.Context(), api.NewToken{User: "mallory", Route: "app"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range httpapi.Routes() {
		if r.Operation == "" {
			continue
		}
		if strings.Contains(r.Path, "{") {
			call(r, "nobody-1", "0123456789abcdef")
		}
		switch r.Operation {
		case admin.UserDelete: // last
		case admin.UserInvite:
			call(r, "erin", "") // who was invited just before
		case admin.TokenRevoke:
			call(r, "", token.Token.ID)
		default:
			call(r, "alice", sessions[0].ID)
		}
	}
	call(httpapi.Route{Method: http.MethodDelete, Path: "/v1/users/{user}", Operation: admin.UserDelete}, "alice", "")
	a.overTCP(t)
	for _, r := range httpapi.Routes() {
		if r.Operation == "" || admin.Allowed(r.Operation, admin.Administrator) {
			continue
		}
		if outcome := call(r, "mallory", ""); outcome != audit.Denied {
			t.Errorf("%s by the token: %s", r.Operation, outcome)
		}
	}
	for _, op := range admin.Operations() {
		if seen[string(op)+" "+string(audit.Success)] == 0 {
			t.Errorf("%s never succeeded: %v", op, seen)
		}
	}
	a.oracles(t, 0)
}

// callBody is a body with which the operation can succeed.
func callBody(op admin.Operation) string {
	switch op {
	case admin.UserAdd:
		return `{"name":"dora","password":"` + gatewaytest.Password + `"}`
	case admin.UserAddInvited:
		return `{"name":"erin"}`
	case admin.UserPassword:
		return `{"password":"` + gatewaytest.Password + `"}`
	case admin.UserGroups:
		return `{"groups":["staff"]}`
	case admin.UserImport:
		return `{"format":"htpasswd","content":""}`
	case admin.TokenAdd:
		return `{"user":"mallory","route":"app"}`
	case admin.LockoutReset:
		return `{"reason":"test"}`
	default:
		return ""
	}
}
