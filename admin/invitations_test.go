package admin_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/admin"
	"gatehouse/admin/admintest"
	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth/link"
	"gatehouse/auth/user"
)

// tokenOf is the token in an invitation's link.
func tokenOf(t *testing.T, made api.Invitation) string {
	t.Helper()
	u, err := url.Parse(made.Link)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get(link.Parameter)
}

// named reports whether the account still names the link.
func named(t *testing.T, k *admintest.Kit, made api.Invitation) bool {
	t.Helper()
	u, err := k.Users.ByID(t.Context(), made.User.ID)
	if err != nil {
		t.Fatal(err)
	}
	return u.Invitation != nil && u.Invitation.Link == link.Hash(tokenOf(t, made))
}

// AD-06: an administrator elsewhere than on the socket brings people in without setting or seeing a password.
func TestService_AddInvited_makesAnAccountThatNoPasswordOpens(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	made, err := k.Service.AddInvited(t.Context(), admintest.Administrator, api.NewInvitation{Name: "Bob", Groups: []string{"staff"}, Reason: why})
	if err != nil {
		t.Fatal(err)
	}
	if want := k.Now().Add(link.InviteLifetime); !made.Until.Equal(want) || !made.User.InvitedUntil.Equal(want) {
		t.Errorf("until %v and %v, want %v", made.Until, made.User.InvitedUntil, want)
	}
	if made.User.Name != "bob" || made.User.HasPassword || !strings.HasPrefix(made.Link, "https://"+admintest.Host+"/.gatehouse/invite?token=") {
		t.Errorf("got %+v", made)
	}
	u, err := k.Users.ByName(t.Context(), "bob")
	if err != nil || u.PasswordHash != "" || u.TOTP != nil || !named(t, k, made) {
		t.Errorf("got %+v, %v", u, err)
	}
	if l, err := k.Links.Read(t.Context(), link.Invite, tokenOf(t, made)); err != nil || l.UserID != u.ID {
		t.Errorf("got %+v, %v", l, err)
	}
	for _, r := range k.Recorded(t) {
		line, err := json.Marshal(r)
		if err != nil || strings.Contains(string(line), tokenOf(t, made)) {
			t.Errorf("a record holds the link: %s, %v", line, err)
		}
	}
}

// Nothing that is asked for later shows the link again.
func TestService_Invite_showsTheLinkOnce(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	made, err := k.Service.AddInvited(t.Context(), admintest.Operator, api.NewInvitation{Name: "bob"})
	if err != nil {
		t.Fatal(err)
	}
	u, err := k.Service.User(t.Context(), admintest.Operator, "bob")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(u)
	if err != nil || strings.Contains(string(text), tokenOf(t, made)) || strings.Contains(string(text), link.Hash(tokenOf(t, made))) {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestService_Invite_endsTheFormerLink(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	first, err := k.Service.AddInvited(t.Context(), admintest.Operator, api.NewInvitation{Name: "bob"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := k.Service.Invite(t.Context(), admintest.Administrator, "bob", why)
	if err != nil {
		t.Fatal(err)
	}
	if named(t, k, first) || !named(t, k, second) {
		t.Error("the account does not name the newest link alone")
	}
	kinds := []audit.Kind{}
	for _, r := range k.Recorded(t) {
		kinds = append(kinds, r.Kind)
	}
	if want := []audit.Kind{audit.KindUserAdded, audit.KindUserInvited}; !slices.Equal(kinds, want) {
		t.Errorf("got records %v, want %v", kinds, want)
	}
}

// What an operator hands over is the only way in: a link beside it ends.
func TestService_credentialsEndAnInvitation(t *testing.T) {
	t.Parallel()
	ends := map[string]func(k *admintest.Kit) error{
		"a password": func(k *admintest.Kit) error {
			return k.Service.SetPassword(t.Context(), admintest.Operator, "bob", admintest.GoodPassword, why)
		},
		"a factor": func(k *admintest.Kit) error {
			e, err := k.Service.EnrolTOTP(t.Context(), admintest.Operator, "bob", why)
			if err == nil && !e.InvitationEnded {
				t.Error("the answer does not say that the invitation ended")
			}
			return err
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := admintest.New(t)
			made, err := k.Service.AddInvited(t.Context(), admintest.Operator, api.NewInvitation{Name: "bob"})
			if err == nil {
				err = end(k)
			}
			if err != nil || named(t, k, made) {
				t.Errorf("the link is still good, %v", err)
			}
		})
	}
}

func TestService_Invite_refuses(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	invalid := new(admin.InvalidError)
	signedIn, closed := k.AddUser(t, "alice"), k.AddUser(t, "carol")
	change := func(id string, edit func(*user.User)) {
		if _, err := k.Users.Change(t.Context(), id, func(u *user.User) error { edit(u); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	change(signedIn.ID, func(u *user.User) { u.FirstLoginAt = k.Now() })
	change(closed.ID, func(u *user.User) { u.Disabled = true })
	for _, name := range []string{"alice", "carol", "no name"} {
		if _, err := k.Service.Invite(t.Context(), admintest.Operator, name, ""); !errors.As(err, &invalid) {
			t.Errorf("invite %s: got %v", name, err)
		}
	}
	if _, err := k.Service.Invite(t.Context(), admintest.Operator, "alice", ""); !strings.Contains(admin.Detail(err), "gatehouse totp enrol alice") {
		t.Errorf("invite alice: got %v, want what to do instead", err)
	}
	if _, err := k.Service.Invite(t.Context(), admintest.Operator, "nobody", ""); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("invite nobody: got %v", err)
	}
	if _, err := k.Service.AddInvited(t.Context(), admintest.Operator, api.NewInvitation{Name: "ALICE"}); !errors.Is(err, admin.ErrConflict) {
		t.Errorf("a taken name: got %v", err)
	}
	if _, err := k.Service.AddInvited(t.Context(), admintest.Operator, api.NewInvitation{Name: "dora", Email: "no address"}); !errors.As(err, &invalid) {
		t.Errorf("a bad address: got %v", err)
	}
	if _, err := k.Users.ByName(t.Context(), "dora"); !errors.Is(err, user.ErrNotFound) {
		t.Errorf("a refused account is there: %v", err)
	}
}

// EN-06: to somebody without the right, names with and without an account answer alike.
func TestService_Invite_tellsNothingToThoseWithoutTheRight(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	k.AddUser(t, "alice")
	stranger := admin.Caller{Actor: audit.Actor{Type: audit.ActorClient}}
	for _, name := range []string{"alice", "nobody"} {
		if _, err := k.Service.Invite(t.Context(), stranger, name, ""); !errors.Is(err, admin.ErrForbidden) || err.Error() != admin.ErrForbidden.Error() {
			t.Errorf("invite %s: got %v", name, err)
		}
		if _, err := k.Service.AddInvited(t.Context(), stranger, api.NewInvitation{Name: name}); !errors.Is(err, admin.ErrForbidden) {
			t.Errorf("add %s: got %v", name, err)
		}
	}
}

// An outage between the account and its link leaves an account that nothing opens, and Invite completes the work.
func TestService_Invite_completesWhatAnOutageLeft(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	if _, err := k.Users.Add(t.Context(), user.User{Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	k.StoreFault.Set(errors.New("read-only"))
	if made, err := k.Service.Invite(t.Context(), admintest.Operator, "bob", ""); err == nil || made.Link != "" {
		t.Errorf("got %+v, %v, want no link beside an error", made, err)
	}
	k.StoreFault.Set(nil)
	k.Advance(time.Second)
	if made, err := k.Service.Invite(t.Context(), admintest.Operator, "bob", ""); err != nil || !named(t, k, made) {
		t.Errorf("got %v", err)
	}
}
