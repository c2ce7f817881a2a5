package attacks_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/admin/client"
	"gatehouse/audit"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
)

// smallDisk puts a file system of 20 MiB under the audit log of a data folder: room for the reserve and a little more. It
// reports false where mounting is not permitted; package audit tells the same story on a disk of its own making.
func smallDisk(t *testing.T, dir string) (place string, ok bool) {
	t.Helper()
	place = filepath.Join(dir, "audit")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	err := unix.Mount("tmpfs", place, "tmpfs", 0, "size=20m,mode=0700")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Log("mounting is not permitted here")
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return place, true
}

// A log that cannot be written lets nobody in and changes nothing; who is in goes on, and can be put out.
func TestFaults_ofTheAuditLogsDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	place, ok := smallDisk(t, dir)
	if !ok {
		return
	}
	g := gatewaytest.Start(t, gatewaytest.Options{Dir: dir})
	secrets := map[string]string{}
	for _, name := range []string{"alice", "bob", "carol"} {
		g.AddUser(name)
		secrets[name] = g.Enrol(name)
	}
	alice, bob, carol := g.SignIn("alice", secrets["alice"]), g.SignIn("bob", secrets["bob"]), g.SignIn("carol", secrets["carol"])
	ballast := filepath.Join(place, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 20<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}

	login := func(password string) gatewaytest.Answer {
		g.Clock.Add(time.Minute)
		b := g.NewBrowser()
		answer := b.Login("alice", password, g.Code(secrets["alice"]))
		if len(b.Jar) > 0 || answer.Field("access_token") != "" {
			t.Errorf("a login without a record hands out %v", b.Jar)
		}
		return answer
	}
	// The rest of the last page may hold a record or two, and a small one after a large one did not fit; then none.
	eventually(t, "small records to be refused", 10*time.Second, func() bool {
		return g.Admin.ResetLockout(t.Context(), "nobody-1", "test") != nil
	})
	wantProblem(t, "login", login(gatewaytest.Password), problem.Unavailable)
	wantProblem(t, "wrong password", login("not the password"), problem.Unavailable)
	var refused *client.Error
	if err := g.Admin.ResetLockout(t.Context(), "nobody-1", "test"); !errors.As(err, &refused) || refused.Code != problem.Unavailable {
		t.Errorf("administration: %v", err)
	}
	if ready := g.NewBrowser().Do(http.MethodGet, "/.gatehouse/readyz", nil, nil); ready.StatusCode != http.StatusServiceUnavailable ||
		!strings.Contains(ready.Text, `"audit":{"state":"failed"`) {
		t.Errorf("readiness: %d %s", ready.StatusCode, ready.Text)
	}

	// Requests go on, and renewals, which are no new access.
	wantStatus(t, "request", alice.Get("/"), http.StatusOK)
	g.Clock.Add(6 * time.Minute)
	wantStatus(t, "renewal", alice.Get("/"), http.StatusOK)

	// What takes access away works from the reserve, and is on record.
	stolen := alice.Copy()
	wantStatus(t, "sign out", alice.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil), http.StatusNoContent)
	wantStatus(t, "the ended session", stolen.Get("/"), http.StatusFound)
	if err := g.Admin.DisableUser(t.Context(), "bob", "test"); err != nil {
		t.Errorf("disable: %v", err)
	}
	wantStatus(t, "the disabled user's session", bob.Get("/"), http.StatusFound)
	if n, err := g.Admin.RevokeSessions(t.Context(), "carol", "test"); err != nil || n != 1 {
		t.Errorf("end of sessions: %d, %v", n, err)
	}
	wantStatus(t, "the ended sessions", carol.Get("/"), http.StatusFound)
	kinds := map[audit.Kind]int{}
	for _, r := range g.Records() {
		kinds[r.Kind]++
	}
	for _, kind := range []audit.Kind{audit.KindLogout, audit.KindUserDisabled, audit.KindSessionsRevoked} {
		if kinds[kind] == 0 {
			t.Errorf("the log has no %s", kind)
		}
	}

	// With space again it heals by itself.
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "logins to succeed", 10*time.Second, func() bool {
		g.Clock.Add(time.Minute)
		return g.NewBrowser().Login("alice", gatewaytest.Password, g.Code(secrets["alice"])).StatusCode == http.StatusOK
	})
}
