package gateway_test

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/admin/api"
	"gatehouse/auth/link"
	"gatehouse/configs"
	"gatehouse/gateway"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

func summary(t *testing.T, g *gatewaytest.Gateway) gateway.Summary {
	t.Helper()
	s, err := g.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// setupToken is the token of the set-up link on the screen.
func setupToken(t *testing.T, s gateway.Summary) string {
	t.Helper()
	u, err := url.Parse(s.Setup)
	if err != nil || u.Query().Get(link.Parameter) == "" {
		t.Fatalf("no set-up link: %q, %v", s.Setup, err)
	}
	return u.Query().Get(link.Parameter)
}

// The link stands on the screen, until there is an administrator, and neither in the program's log nor in the audit log.
func TestGateway_showsTheSetUpLinkOnTheScreenAlone(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	first := summary(t, g)
	token := setupToken(t, first)
	if !strings.HasPrefix(first.Setup, g.URL+"/.gatehouse/setup?token=") || !first.SetupUntil.Equal(g.Clock.Now().Add(30*time.Minute)) {
		t.Errorf("got %s until %v", first.Setup, first.SetupUntil)
	}
	g.AddUser("bob", "staff")
	if again := summary(t, g); again.Setup != first.Setup {
		t.Errorf("an account that is no administrator changed the link to %q", again.Setup)
	}
	if page := g.NewBrowser().Get(first.Setup); page.StatusCode != 200 {
		t.Errorf("the link leads to %d", page.StatusCode)
	}
	if _, err := g.Admin.AddInvited(t.Context(), api.NewInvitation{Name: "alice", Groups: []string{"admins"}}); err != nil {
		t.Fatal(err)
	}
	if page := g.NewBrowser().Get(first.Setup); page.StatusCode != 410 {
		t.Errorf("with an administrator the link leads to %d", page.StatusCode)
	}
	if after := summary(t, g); after.Setup != "" {
		t.Errorf("with an administrator the screen shows %q", after.Setup)
	}
	if strings.Contains(g.Log.String(), token) {
		t.Error("the log holds the link")
	}
	for _, r := range g.Records() {
		if strings.Contains(r.Details["path"]+r.Why, token) {
			t.Errorf("a record holds the link: %+v", r)
		}
	}
}

// Two gateways that start at once on an empty Redis show one link.
// Whatever way an administrator was made, the link stays closed when the account is gone: nobody on the network can be the first again.
func TestGateway_closesTheSetUpLinkForEver(t *testing.T) {
	t.Parallel()
	const authelia = "users:\n  alice:\n    password: '$2y$10$4i8rPmEcBVpBBpBIEvZIiuTz4nDXRKeLtE0ZJ7w2zAvC2FmmYjqPu'\n    groups: [admins]\n"
	for name, make := range map[string]func(*gatewaytest.Gateway) error{
		"added": func(g *gatewaytest.Gateway) error {
			_, err := g.Admin.AddUser(t.Context(), api.NewUser{Name: "alice", Password: gatewaytest.Password, Groups: []string{"admins"}})
			return err
		},
		"invited": func(g *gatewaytest.Gateway) error {
			_, err := g.Admin.AddInvited(t.Context(), api.NewInvitation{Name: "alice", Groups: []string{"admins"}})
			return err
		},
		"promoted": func(g *gatewaytest.Gateway) error {
			g.AddUser("alice")
			return g.Admin.SetGroups(t.Context(), "alice", []string{"admins"}, "test")
		},
		"imported": func(g *gatewaytest.Gateway) error {
			_, err := g.Admin.Import(t.Context(), api.Import{Format: "authelia", Content: authelia})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := gatewaytest.Start(t, gatewaytest.Options{})
			first := summary(t, g)
			if err := make(g); err != nil {
				t.Fatal(err)
			}
			if err := g.Admin.DeleteUser(t.Context(), "alice", "test"); err != nil {
				t.Fatal(err)
			}
			if page := g.NewBrowser().Get(first.Setup); page.StatusCode != 410 {
				t.Errorf("the link leads to %d", page.StatusCode)
			}
			if after := summary(t, g); after.Setup != "" {
				t.Errorf("the screen shows %q", after.Setup)
			}
		})
	}
}

func TestGateway_showsOneSetUpLinkOverTwoGateways(t *testing.T) {
	t.Parallel()
	server, key, clock := storetest.Redis(t), gatewaytest.RootKey(), gatewaytest.NewClock()
	tokens := make([]string, 2)
	gateways := make([]*gatewaytest.Gateway, len(tokens))
	for i := range gateways {
		gateways[i] = gatewaytest.Start(t, gatewaytest.Options{Clock: clock, Redis: server.URL(), RootKey: key})
	}
	var group sync.WaitGroup
	for i, g := range gateways {
		group.Go(func() {
			if s, err := g.Summary(t.Context()); err == nil {
				_, tokens[i], _ = strings.Cut(s.Setup, "token=")
			}
		})
	}
	group.Wait()
	if tokens[0] == "" || tokens[0] != tokens[1] {
		t.Errorf("got links %q", tokens)
	}
}

func TestGateway_refusesAnAdministrationTokenThatOthersCanRead(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("a-token-of-the-tests-that-is-long-enough"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := gatewaytest.Try(t, gatewaytest.Options{Configure: func(c *configs.Config) {
		c.AdminListen, c.AdminTokenFile = net.JoinHostPort("127.0.0.1", storetest.FreePort(t)), file
	}})
	if err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("got %v, want what to do about it", err)
	}
}
