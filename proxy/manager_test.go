package proxy_test

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/audit"
	"gatehouse/internal/wiretest"
	"gatehouse/proxy"
	"gatehouse/session"
	"gatehouse/session/token"
	"gatehouse/store/boltstore"
)

const carolID = "00112233445566778899aabbccddeeff"

// household is what a session manager needs around it.
type household struct{}

func (household) Identity(context.Context, string) (session.Identity, bool, error) {
	return session.Identity{UserID: carolID, Name: "carol", Groups: []string{"staff"}}, true, nil
}

func (household) Append(_ context.Context, e audit.Event) (audit.Record, error) {
	return audit.Record{Event: e}, nil
}

// newManager makes real sessions on a real store, in step with its feed.
func newManager(t *testing.T) (*session.Manager, *token.KeySet) {
	t.Helper()
	engine, err := boltstore.Open(t.Context(), boltstore.Options{Path: filepath.Join(t.TempDir(), "store.db"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	keys, err := token.NewKeySet(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	manager, err := session.New(session.Options{
		Records: engine, Counters: engine, Feed: engine, Keys: keys, HandleKey: make([]byte, 32), Issuer: external,
		Accounts: household{}, Recorder: household{}, Now: time.Now, Logger: discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	followed := make(chan struct{})
	go func() { defer close(followed); manager.Run(ctx) }()
	t.Cleanup(func() { stop(); <-followed })
	waitFor(t, "step with the feed", manager.InStep)
	return manager, keys
}

// The proxy on the real sessions: let through, named, stripped, renewed, and cut when the session is revoked.
func TestProxy_onRealSessions(t *testing.T) {
	t.Parallel()
	manager, keys := newManager(t)
	prepared, err := manager.Prepare(t.Context(), session.Grant{
		Identity: session.Identity{UserID: carolID, Name: "carol", Groups: []string{"staff"}}, Methods: []string{"pwd", "otp"}, AuthTime: time.Now(), Origin: external,
	})
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := manager.Activate(t.Context(), prepared)
	if err != nil {
		t.Fatal(err)
	}
	pairs := make([]string, 0, len(credentials.Cookies))
	handle := ""
	for _, c := range credentials.Cookies {
		pairs = append(pairs, c.Name+"="+c.Value)
		if strings.HasSuffix(c.Name, "-session") {
			handle = c.Name + "=" + c.Value
		}
	}
	up := wiretest.NewScripted(t, switching)
	g := newGate(t, up.URL, func(o *proxy.Options) { o.Sessions, o.Assertions = manager, manager })
	ask := func(lines string) *http.Response {
		t.Helper()
		return g.send(t, "GET / HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n"+lines+"\r\n").All[0]
	}

	for name, lines := range map[string]string{
		"cookies": "Cookie: theme=dark; " + strings.Join(pairs, "; ") + "\r\n",
		"bearer":  "Authorization: Bearer " + credentials.AccessToken + "\r\nCookie: theme=dark\r\n",
		"handle":  "Cookie: theme=dark; " + handle + "\r\n",
	} {
		answer := ask(lines)
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: got %d", name, answer.StatusCode)
		}
		got := up.Last(t)
		if !slices.Equal(got.Values("Remote-User"), []string{"carol"}) || !slices.Equal(got.Values("Cookie"), []string{"theme=dark"}) || got.Values("Authorization") != nil {
			t.Errorf("%s: the app got %v", name, got.Header)
		}
		claims, err := keys.Verify(got.Values("X-Gatehouse-Assertion")[0], token.Assertion, external, external, time.Now())
		if err != nil || claims.Subject != carolID || claims.Name != "carol" {
			t.Errorf("%s: assertion of %+v, %v", name, claims, err)
		}
		if renewed := len(answer.Header["Set-Cookie"]) > 0; renewed != (name == "handle") || renewed && answer.Header.Get("Cache-Control") != "private" {
			t.Errorf("%s: got %v", name, answer.Header)
		}
	}
	for name, lines := range map[string]string{
		"bearer that was altered":        "Authorization: Bearer " + credentials.AccessToken[:len(credentials.AccessToken)-4] + "AAAA\r\nCookie: " + strings.Join(pairs, "; ") + "\r\n",
		"token under another scheme":     "Authorization: Basic " + credentials.AccessToken + "\r\nCookie: " + strings.Join(pairs, "; ") + "\r\n",
		"the app's own assertion":        "Authorization: Bearer " + up.Last(t).Values("X-Gatehouse-Assertion")[0] + "\r\n",
		"assertion in the access cookie": "Cookie: __Host-gatehouse=" + up.Last(t).Values("X-Gatehouse-Assertion")[0] + "\r\n",
	} {
		if got := ask(lines).StatusCode; got != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want 401", name, got)
		}
	}

	_, in, answer := g.open(t, "GET /ws HTTP/1.1\r\nHost: gate.example\r\nCookie: "+strings.Join(pairs, "; ")+"\r\n"+handshake+"\r\n")
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("WebSocket: got %d", answer.StatusCode)
	}
	if _, err := manager.RevokeUser(t.Context(), carolID, "", audit.Event{Kind: audit.KindSessionsRevoked}); err != nil {
		t.Fatal(err)
	}
	if n, _ := io.Copy(io.Discard, in); n != 0 { // until the gateway cuts it
		t.Errorf("got %d bytes after the revocation", n)
	}
	if got := ask("Cookie: " + strings.Join(pairs, "; ") + "\r\n").StatusCode; got != http.StatusUnauthorized {
		t.Errorf("after the revocation: got %d, want 401", got)
	}
}
