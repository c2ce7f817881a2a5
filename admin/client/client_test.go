package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/admin/client"
	"gatehouse/problem"
)

const token = "a-token-that-is-long-enough"

// connect makes a client of a server that answers with handle.
func connect(t *testing.T, handle http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	c, err := client.New(client.Options{URL: server.URL, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNew_sendsNoTokenInClearText(t *testing.T) {
	t.Parallel()
	for url, good := range map[string]bool{
		"https://gateway.example:9443": true, "http://127.0.0.1:9443": true, "http://[::1]:9443/": true, "http://localhost:9443": true,
		"http://gateway.example": false, "http://localhost.example": false, "http://192.0.2.1": false, "ftp://127.0.0.1": false,
		"127.0.0.1:9443": false, "https://user:pw@gateway.example": false, "https://gateway.example/path": false, "": false,
	} {
		if _, err := client.New(client.Options{URL: url, Token: token}); (err == nil) != good {
			t.Errorf("%q: got %v, want good %v", url, err, good)
		}
	}
	if _, err := client.New(client.Options{URL: "https://gateway.example"}); err == nil {
		t.Error("no token: got no error")
	}
}

func TestClient_followsNoRedirect(t *testing.T) {
	t.Parallel()
	reached := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	t.Cleanup(other.Close)
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	if _, err := c.Users(t.Context()); err == nil || !strings.Contains(err.Error(), "not one of Gatehouse's") {
		t.Errorf("got %v, want an error that says whose answer it is not", err)
	}
	if reached {
		t.Error("the token went to another server")
	}
}

func TestClient_returnsTheProblem(t *testing.T) {
	t.Parallel()
	c := connect(t, func(w http.ResponseWriter, _ *http.Request) {
		p := problem.New(problem.PasswordRejected)
		p.Reasons, p.RequestID = []string{"Use at least 12 characters."}, "R1"
		p.Write(w)
	})
	err := c.SetPassword(t.Context(), "alice", "x", "")
	var refusal *client.Error
	if !errors.As(err, &refusal) || refusal.Code != problem.PasswordRejected {
		t.Fatalf("got %v, want the problem", err)
	}
	want := "The password is not accepted.\n  - Use at least 12 characters.\n(password-rejected, request R1)"
	if got := err.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestClient_tellsThatNothingRuns(t *testing.T) {
	t.Parallel()
	c, err := client.New(client.Options{Socket: t.TempDir() + "/admin.sock"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Users(t.Context()); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("got %v, want ErrNotRunning", err)
	}
}

func TestClient_escapesNames(t *testing.T) {
	t.Parallel()
	var got string
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.EscapedPath()
		w.WriteHeader(http.StatusNoContent)
	})
	if err := c.DisableUser(t.Context(), "a/../b?c#d", ""); err != nil {
		t.Fatal(err)
	}
	if want := "/v1/users/a%2F..%2Fb%3Fc%23d/disable"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestClient_readsEveryPage(t *testing.T) {
	t.Parallel()
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("after") {
		case "":
			_, _ = io.WriteString(w, `{"items":[{"name":"alice"}],"next":"alice"}`)
		case "alice":
			_, _ = io.WriteString(w, `{"items":[{"name":"bob"}]}`)
		}
	})
	users, err := c.Users(t.Context())
	if err != nil || len(users) != 2 || users[1].Name != "bob" {
		t.Errorf("got %v and %v, want alice and bob", users, err)
	}
}

func TestClient_noticesALogThatBreaksOff(t *testing.T) {
	t.Parallel()
	c := connect(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{\"seq\":1}\n")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	n := 0
	err := c.AuditTail(t.Context(), client.Tail{}, func([]byte) error { n++; return nil })
	if err == nil || n != 1 {
		t.Errorf("got %d records and %v, want one and an error", n, err)
	}
}
