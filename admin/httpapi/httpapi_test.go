package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatehouse/admin"
	"gatehouse/admin/admintest"
	"gatehouse/admin/httpapi"
	"gatehouse/audit"
	"gatehouse/problem"
	"gatehouse/store"
)

// by is how a test asks: over the socket, or over TCP with what it puts into Authorization.
type by struct {
	name   string
	socket bool
	token  string
}

var (
	operator      = by{name: "operator", socket: true}
	administrator = by{name: "administrator", token: "Bearer " + admintest.Token}
	nobody        = by{name: "nobody"}
	guesser       = by{name: "guesser", token: "Bearer " + admintest.Token + "x"}
)

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	problem.Problem
}

// ask sends one request.
func ask(t *testing.T, s *admintest.Server, who by, method, path, body string, edit ...func(*http.Request)) answer {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	base := s.URL
	if who.socket {
		base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.Socket)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if who.token != "" {
		r.Header.Set("Authorization", who.token)
	}
	for _, e := range edit {
		e(r)
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: response.StatusCode, header: response.Header, body: string(text)}
	if response.Header.Get("Content-Type") == problem.ContentType {
		if err := json.Unmarshal(text, &a.Problem); err != nil || a.RequestID == "" || a.Status != a.status {
			t.Errorf("%s %s: the problem %s does not fit, %v", method, path, text, err)
		}
	}
	return a
}

// expect checks status and code.
func expect(t *testing.T, what string, got answer, status int, code problem.Code) {
	t.Helper()
	if got.status != status || got.Code != code {
		t.Errorf("%s: got %d %s, want %d %q", what, got.status, got.body, status, code)
	}
}

// AD-01: every route for everybody, generated from the table of routes.
func TestAPI_authorisesEveryRoute(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	k.AddUser(t, "alice")
	s := k.Serve(t)
	covered := make(map[admin.Operation]bool)
	for _, r := range httpapi.Routes() {
		covered[r.Operation] = true
		path := strings.NewReplacer("{user}", "nobody", "{id}", "0123456789abcdef").Replace(r.Path)
		for _, who := range []by{nobody, guesser} {
			got := ask(t, s, who, r.Method, path, "")
			expect(t, who.name+" "+r.Method+" "+path, got, http.StatusUnauthorized, problem.SessionRequired)
			if got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s: no WWW-Authenticate", r.Method, path)
			}
		}
		for who, role := range map[by]admin.Role{operator: admin.Operator, administrator: admin.Administrator} {
			got := ask(t, s, who, r.Method, path, body(r.Operation))
			allowed := r.Operation == "" || admin.Allowed(r.Operation, role)
			if (got.Code != problem.Forbidden) != allowed || got.status == http.StatusUnauthorized {
				t.Errorf("%s %s %s: got %d %s, want allowed %v", who.name, r.Method, path, got.status, got.body, allowed)
			}
		}
	}
	for _, op := range admin.Operations() {
		if !covered[op] {
			t.Errorf("operation %s has no route", op)
		}
	}
}

// body is one that the operation reads without an error.
func body(op admin.Operation) string {
	switch op {
	case admin.UserAdd:
		return `{"name":"dora","password":"` + admintest.GoodPassword + `"}`
	case admin.TokenAdd:
		return `{"user":"alice","route":"git"}`
	case admin.UserAddInvited:
		return `{"name":"erin"}`
	case admin.UserPassword:
		return `{"password":"` + admintest.GoodPassword + `"}`
	case admin.UserGroups:
		return `{"groups":[]}`
	case admin.UserImport:
		return `{"format":"htpasswd","content":""}`
	case admin.LockoutReset:
		return `{"reason":"test"}`
	default:
		return ""
	}
}

// AD-02: what a page in a browser on the same machine can make it send.
func TestAPI_refusesBrowsers(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	s := k.Serve(t)
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	tests := []struct {
		name string
		edit func(*http.Request)
		code problem.Code
	}{
		{"its own origin", header("Origin", s.URL), problem.CrossSite},
		{"an opaque origin", header("Origin", "null"), problem.CrossSite},
		{"an empty origin", header("Origin", ""), problem.CrossSite},
		{"another site", header("Sec-Fetch-Site", "cross-site"), problem.CrossSite},
		{"the same origin", header("Sec-Fetch-Site", "same-origin"), problem.CrossSite},
		{"another host", host("attacker.example"), problem.Misdirected},
		{"another host with the port", host("attacker.example:9443"), problem.Misdirected},
		{"a host that begins alike", host("localhost.attacker.example"), problem.Misdirected},
		{"an address of another machine", host("192.0.2.1"), problem.Misdirected},
		{"the address bar", header("Sec-Fetch-Site", "none"), ""},
		{"localhost", host("localhost"), ""},
		{"loopback", host("[::1]:9443"), ""},
		{"a name that was set", host("ADMIN.example.org:9443"), ""},
	}
	for _, test := range tests {
		for _, who := range []by{operator, administrator} {
			got := ask(t, s, who, http.MethodGet, "/v1/users", "", test.edit)
			if got.Code != test.code {
				t.Errorf("%s by %s: got %d %s, want %q", test.name, who.name, got.status, got.body, test.code)
			}
		}
	}
	plain := func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }
	got := ask(t, s, operator, http.MethodDelete, "/v1/lockouts/alice", `{"reason":"x"}`, plain)
	expect(t, "a body that is not declared as JSON", got, http.StatusBadRequest, problem.BadRequest)
	cookie := func(r *http.Request) { r.Header.Set("Cookie", "__Host-gatehouse="+admintest.Token) }
	expect(t, "a cookie", ask(t, s, nobody, http.MethodGet, "/v1/users", "", cookie), http.StatusUnauthorized, problem.SessionRequired)
}

func TestAPI_readsTokensStrictly(t *testing.T) {
	t.Parallel()
	s := admintest.New(t).Serve(t)
	twice := func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+admintest.Token) }
	expect(t, "two lines", ask(t, s, administrator, http.MethodGet, "/v1/users", "", twice), http.StatusBadRequest, problem.BadRequest)
	for _, token := range []string{"Basic " + admintest.Token, admintest.Token, "Bearer", "Bearer ", "Bearer  " + admintest.Token} {
		expect(t, token, ask(t, s, by{token: token}, http.MethodGet, "/v1/users", ""), http.StatusUnauthorized, problem.SessionRequired)
	}
	expect(t, "scheme in another case", ask(t, s, by{token: "bearer " + admintest.Token}, http.MethodGet, "/v1/users", ""), http.StatusOK, "")
	for _, text := range []string{"", "short", "with a space, but long enough", "long enough\r\nX-Evil: yes!!!!"} {
		if _, err := httpapi.NewToken("x", text); err == nil {
			t.Errorf("token %q: got no error", text)
		}
	}
}

func TestAPI_knowsThePeerByItsUID(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	s := k.ServeOthers(t)
	token := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+admintest.Token) }
	got := ask(t, s, operator, http.MethodGet, "/v1/users", "", token) // a token means nothing there
	expect(t, "a uid that is not an operator's", got, http.StatusForbidden, problem.Forbidden)

	s = k.Serve(t)
	expect(t, "its own uid", ask(t, s, operator, http.MethodGet, "/v1/users", ""), http.StatusOK, "")
	records := k.Recorded(t)
	if got := records[len(records)-1].Actor; got.Type != audit.ActorOperator || got.ID == "" {
		t.Errorf("got actor %+v, want an operator with a uid", got)
	}
	info, err := os.Stat(s.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v and %v, want 0600", info.Mode(), err)
	}
}

func TestListen_replacesOnlySockets(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "gatehouse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "admin.sock")
	left, err := httpapi.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false) // as if killed
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := httpapi.Listen(path)
	if err != nil {
		t.Fatalf("after a kill: %v", err)
	}
	if _, err := httpapi.Listen(path); err == nil || !strings.Contains(err.Error(), "another gateway") {
		t.Errorf("at the socket of a gateway that runs: got %v, want an error that says so", err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the socket of the gateway that runs: %v", err)
	}
	_ = conn.Close()
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := httpapi.Listen(path); err == nil {
		t.Error("a file at the path: got no error")
	}
	link := filepath.Join(dir, "link.sock")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := httpapi.Listen(link); err == nil {
		t.Error("a link at the path: got no error")
	}
}

func TestListen_refusesAFolderThatOthersWriteTo(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "gatehouse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, mode := range []os.FileMode{0o777, 0o777 | os.ModeSticky} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := httpapi.Listen(filepath.Join(dir, "admin.sock")); err == nil || !strings.Contains(err.Error(), "everybody may write") {
			t.Errorf("%v: got %v, want an error that says so", mode, err)
		}
	}
}

func TestAPI_refusesBadBodies(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	k.AddUser(t, "alice")
	k.AddUser(t, "bob")
	s := k.Serve(t)
	tests := []struct {
		name, method, path, body string
		status                   int
		code                     problem.Code
	}{
		{"unknown member", "POST", "/v1/users/alice/disable", `{"reason":"x","now":true}`, 400, problem.BadRequest},
		{"mass assignment", "POST", "/v1/users", `{"name":"x","password":"p","password_hash":"h"}`, 400, problem.BadRequest},
		{"an id of one's own", "POST", "/v1/users", `{"name":"x","password":"p","id":"x"}`, 400, problem.BadRequest},
		{"member twice", "DELETE", "/v1/lockouts/alice", `{"reason":"a","reason":"b"}`, 400, problem.BadRequest},
		{"member in another case", "DELETE", "/v1/lockouts/alice", `{"Reason":"a"}`, 400, problem.BadRequest},
		{"another user than the path", "DELETE", "/v1/lockouts/alice", `{"user":"bob","reason":"a"}`, 400, problem.BadRequest},
		{"another user, of the password", "PUT", "/v1/users/alice/password", `{"user":"bob","password":"p"}`, 400, problem.BadRequest},
		{"the same user, spelled otherwise", "DELETE", "/v1/lockouts/alice", `{"user":"ALICE","reason":"a"}`, 204, ""},
		{"no reason", "DELETE", "/v1/lockouts/alice", `{"reason":""}`, 400, problem.BadRequest},
		{"no body where a reason is needed", "DELETE", "/v1/lockouts/alice", ``, 400, problem.BadRequest},
		{"not JSON", "POST", "/v1/users/alice/enable", `reason=x`, 400, problem.BadRequest},
		{"an array", "POST", "/v1/users/alice/enable", `[]`, 400, problem.BadRequest},
		{"too large", "POST", "/v1/users/alice/enable", `{"reason":"` + strings.Repeat("x", 16<<10) + `"}`, 413, problem.TooLarge},
		{"import too large", "POST", "/v1/imports", `{"content":"` + strings.Repeat("x", 1<<20) + `"}`, 413, problem.TooLarge},
		{"groups missing", "PUT", "/v1/users/alice/groups", `{}`, 400, problem.BadRequest},
		{"limit of none", "GET", "/v1/users?limit=0", ``, 400, problem.BadRequest},
		{"limit too high", "GET", "/v1/users?limit=1001", ``, 400, problem.BadRequest},
		{"limit twice", "GET", "/v1/users?limit=1&limit=2", ``, 400, problem.BadRequest},
		{"unknown parameter", "GET", "/v1/users?role=admin", ``, 400, problem.BadRequest},
		{"malformed query", "GET", "/v1/users?limit=%zz", ``, 400, problem.BadRequest},
		{"from and last", "GET", "/v1/audit?from=1&last=2", ``, 400, problem.BadRequest},
		{"from none", "GET", "/v1/audit?from=0", ``, 400, problem.BadRequest},
		{"follow what", "GET", "/v1/audit?follow=1", ``, 400, problem.BadRequest},
		{"unknown user", "GET", "/v1/users/nobody", ``, 404, problem.NotFound},
		{"not a name", "GET", "/v1/users/a%20b", ``, 400, problem.BadRequest},
		{"a path in a name", "GET", "/v1/users/alice%2fsessions", ``, 400, problem.BadRequest},
		{"unknown path", "GET", "/v1/nothing", ``, 404, problem.NotFound},
		{"trailing slash", "GET", "/v1/users/", ``, 404, problem.NotFound},
		{"double slash", "GET", "/v1//users", ``, 404, problem.NotFound},
		{"dots", "GET", "/v1/users/../lockouts", ``, 404, problem.NotFound},
		{"wrong method", "PATCH", "/v1/users", ``, 405, problem.MethodNotAllowed},
		{"unknown session", "DELETE", "/v1/sessions/0123456789abcdef", ``, 404, problem.NotFound},
		{"taken name", "POST", "/v1/users", `{"name":"bob","password":"` + admintest.GoodPassword + `"}`, 409, problem.Conflict},
		{"weak password", "POST", "/v1/users", `{"name":"eve","password":"password1234"}`, 422, problem.PasswordRejected},
	}
	for _, test := range tests {
		got := ask(t, s, operator, test.method, test.path, test.body)
		expect(t, test.name, got, test.status, test.code)
		if test.status == 405 && got.header.Get("Allow") != "GET, POST" {
			t.Errorf("%s: got Allow %q", test.name, got.header.Get("Allow"))
		}
		if test.status == 422 && len(got.Reasons) == 0 {
			t.Errorf("%s: no reasons", test.name)
		}
	}
}

// AD-11 and the contract: the lockout endpoint as a script uses it.
func TestAPI_resetsALockout(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	k.AddUser(t, "alice")
	k.Fail(t, "alice", 5)
	s := k.Serve(t)
	for _, name := range []string{"alice", "alice", "nobody"} {
		got := ask(t, s, administrator, http.MethodDelete, "/v1/lockouts/"+name, `{"reason":"called in"}`)
		if got.status != http.StatusNoContent || got.body != "" {
			t.Errorf("%s: got %d %s, want 204", name, got.status, got.body)
		}
	}
	got := ask(t, s, administrator, http.MethodGet, "/v1/lockouts/alice", "")
	if got.status != http.StatusOK || got.body != `{"items":[]}`+"\n" {
		t.Errorf("got %d %s, want no lockout", got.status, got.body)
	}
	for _, r := range k.Recorded(t)[:3] {
		if r.Kind != audit.KindLockoutReset || r.Why != "called in" || r.Actor != (audit.Actor{Type: audit.ActorToken, ID: "main"}) || r.Client.Address != "127.0.0.1" {
			t.Errorf("got record %+v", r)
		}
	}
}

func TestAPI_isUnavailableWithoutLogOrStore(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	k.AddUser(t, "alice")
	s := k.Serve(t)
	for name, fault := range map[string]*admintest.Fault{"log": k.LogFault, "store": k.StoreFault} {
		fault.Set(map[string]error{"log": audit.ErrUnavailable, "store": store.ErrUnavailable}[name])
		got := ask(t, s, operator, http.MethodPost, "/v1/users/alice/disable", "")
		expect(t, name, got, http.StatusServiceUnavailable, problem.Unavailable)
		if want := map[string]string{"log": "The audit log does not", "store": "The store does not answer; "}[name]; got.header.Get("Retry-After") != "5" || !strings.HasPrefix(got.Detail, want) {
			t.Errorf("%s: got Retry-After %q and detail %q, want 5 and %q", name, got.header.Get("Retry-After"), got.Detail, want)
		}
		fault.Set(nil)
	}
	expect(t, "healed", ask(t, s, operator, http.MethodPost, "/v1/users/alice/disable", ""), http.StatusNoContent, "")
}

func TestAPI_countsWhatIsNoCall(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	s := k.Serve(t)
	for range 3 {
		ask(t, s, guesser, http.MethodGet, "/v1/users", "")
	}
	ask(t, s, administrator, http.MethodGet, "/v1/users?x=y", "")
	if err := k.Audit.Close(); err != nil { // writes what was counted
		t.Fatal(err)
	}
	records := k.Recorded(t)
	if len(records) != 2 {
		t.Fatalf("got %+v, want two records", records)
	}
	for _, r := range records {
		denied := r.Kind == audit.KindAccessDenied && r.Code == string(problem.SessionRequired) && r.Count == 3 && r.Actor.Type == audit.ActorClient
		malformed := r.Kind == audit.KindRefused && r.Code == string(problem.BadRequest) && r.Count == 1 && r.Actor.ID == "main"
		if !denied && !malformed {
			t.Errorf("got %+v, want three refusals without a token, and one malformed request", r)
		}
	}
}

func TestAPI_streamsTheLog(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	k.AddUser(t, "alice")
	s := k.Serve(t)
	ask(t, s, operator, http.MethodPost, "/v1/users/alice/disable", `{"reason":"\u001b]52;c;aGk=\u0007"}`)
	got := ask(t, s, operator, http.MethodGet, "/v1/audit?from=1", "")
	lines := strings.Split(strings.TrimSpace(got.body), "\n")
	var first audit.Record
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil || first.Sequence != 1 || first.Kind != audit.KindUserDisabled {
		t.Errorf("got %s and %v, want the record of the change", lines[0], err)
	}
	if i := strings.IndexFunc(got.body, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }); i >= 0 {
		t.Errorf("the log holds byte %#x", got.body[i])
	}
}

func TestAPI_followsTheLogAndBoundsTheReaders(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	token, err := httpapi.NewToken("main", admintest.Token)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(httpapi.New(httpapi.Options{Service: k.Service, Logger: k.Logger, Tokens: []httpapi.Token{token}}))
	t.Cleanup(server.Close)
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	open := func() *http.Response {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/v1/audit?last=1&follow=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+admintest.Token)
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return response
	}
	const most = 16
	for n := range most {
		response := open()
		if line, err := bufio.NewReader(response.Body).ReadString('\n'); response.StatusCode != http.StatusOK || err != nil || !strings.Contains(line, "admin-read") {
			t.Fatalf("reader %d: got %s, %q and %v", n, response.Status, line, err)
		}
	}
	if got := open(); got.StatusCode != http.StatusTooManyRequests {
		t.Errorf("reader %d: got %s, want 429", most+1, got.Status)
	}
}

func TestAPI_serverStatesNoStore(t *testing.T) {
	t.Parallel()
	s := admintest.New(t).Serve(t)
	for _, path := range []string{"/v1/users", "/v1/nothing"} {
		if got := ask(t, s, operator, http.MethodGet, path, "").header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: got Cache-Control %q, want no-store", path, got)
		}
	}
	if !slices.Equal(httpapi.Document, []byte(ask(t, s, operator, http.MethodGet, "/v1/openapi.yaml", "").body)) {
		t.Error("the document is not what is served")
	}
}
