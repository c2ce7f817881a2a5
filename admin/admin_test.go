package admin_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/admin"
	"gatehouse/admin/admintest"
	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth/lockout"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/store"
)

const why = "ticket 4711"

var network = netip.MustParsePrefix("192.0.2.0/24")

// operations calls every operation once, on an account that exists.
func operations(k *admintest.Kit, name string) map[admin.Operation]func(context.Context, admin.Caller) error {
	s := k.Service
	return map[admin.Operation]func(context.Context, admin.Caller) error{
		admin.UserList: func(ctx context.Context, c admin.Caller) error { _, err := s.Users(ctx, c, "", 10); return err },
		admin.UserShow: func(ctx context.Context, c admin.Caller) error { _, err := s.User(ctx, c, name); return err },
		admin.UserAdd: func(ctx context.Context, c admin.Caller) error {
			_, err := s.AddUser(ctx, c, api.NewUser{Name: "new", Password: admintest.GoodPassword, Reason: why})
			return err
		},
		admin.UserAddInvited: func(ctx context.Context, c admin.Caller) error {
			_, err := s.AddInvited(ctx, c, api.NewInvitation{Name: "new", Reason: why})
			return err
		},
		admin.UserInvite:  func(ctx context.Context, c admin.Caller) error { _, err := s.Invite(ctx, c, name, why); return err },
		admin.UserDisable: func(ctx context.Context, c admin.Caller) error { return s.DisableUser(ctx, c, name, why) },
		admin.UserEnable:  func(ctx context.Context, c admin.Caller) error { return s.EnableUser(ctx, c, name, why) },
		admin.UserDelete:  func(ctx context.Context, c admin.Caller) error { return s.DeleteUser(ctx, c, name, why) },
		admin.UserPassword: func(ctx context.Context, c admin.Caller) error {
			return s.SetPassword(ctx, c, name, admintest.GoodPassword+" home", why)
		},
		admin.UserGroups: func(ctx context.Context, c admin.Caller) error {
			return s.SetGroups(ctx, c, name, []string{"staff"}, why)
		},
		admin.UserImport: func(ctx context.Context, c admin.Caller) error {
			_, err := s.Import(ctx, c, api.Import{Format: api.FormatHtpasswd, Content: "bob:" + hash + "\n", Reason: why})
			return err
		},
		admin.TOTPEnrol:    func(ctx context.Context, c admin.Caller) error { _, err := s.EnrolTOTP(ctx, c, name, why); return err },
		admin.TOTPReset:    func(ctx context.Context, c admin.Caller) error { return s.ResetTOTP(ctx, c, name, why) },
		admin.LockoutList:  func(ctx context.Context, c admin.Caller) error { _, err := s.Lockouts(ctx, c, "", 10); return err },
		admin.LockoutShow:  func(ctx context.Context, c admin.Caller) error { _, err := s.Lockout(ctx, c, name); return err },
		admin.LockoutReset: func(ctx context.Context, c admin.Caller) error { return s.ResetLockout(ctx, c, name, why) },
		admin.KeyList:      func(ctx context.Context, c admin.Caller) error { _, err := s.Keys(ctx, c); return err },
		admin.KeyRotate:    func(ctx context.Context, c admin.Caller) error { return s.RotateKeys(ctx, c, why) },
		admin.SessionList:  func(ctx context.Context, c admin.Caller) error { _, err := s.Sessions(ctx, c, "", "", 10); return err },
		admin.SessionRevoke: func(ctx context.Context, c admin.Caller) error {
			sessions, err := k.Sessions.List(ctx, userID(k, name))
			if err != nil || len(sessions) == 0 {
				return errors.Join(err, errors.New("no session to revoke"))
			}
			return s.RevokeSession(ctx, c, sessions[0].PublicID, why)
		},
		admin.SessionsRevoke: func(ctx context.Context, c admin.Caller) error {
			_, err := s.RevokeSessions(ctx, c, name, why)
			return err
		},
		admin.TokenAdd: func(ctx context.Context, c admin.Caller) error {
			_, err := s.AddToken(ctx, c, api.NewToken{User: name, Route: "git", Reason: why})
			return err
		},
		admin.TokenList: func(ctx context.Context, c admin.Caller) error { _, err := s.AppTokens(ctx, c, ""); return err },
		admin.TokenRevoke: func(ctx context.Context, c admin.Caller) error {
			tokens, err := k.Tokens.OfUser(ctx, userID(k, name))
			if err != nil || len(tokens) == 0 {
				return errors.Join(err, errors.New("no app token to revoke"))
			}
			return s.RevokeToken(ctx, c, tokens[0].ID, why)
		},
		admin.AuditTail: func(ctx context.Context, c admin.Caller) error {
			_, err := s.OpenTail(ctx, c, admin.Tail{})
			return err
		},
	}
}

// hash is a bcrypt hash of cost 4, as htpasswd -B -C 4 writes it.
const hash = "$2y$04$Ec7tA/DoVe.44/Dj0npuC.uAnS3FYhsniotCGiYIuF4XoELq1W/oq"

func userID(k *admintest.Kit, name string) string {
	u, err := k.Users.ByName(context.Background(), name)
	if err != nil {
		return ""
	}
	return u.ID
}

// alice makes a kit with the account alice, who has an authenticator, one session, an app token and three failures.
func alice(t *testing.T) (*admintest.Kit, user.User) {
	t.Helper()
	k := admintest.New(t)
	k.AddUser(t, "alice")
	if _, err := k.Service.EnrolTOTP(t.Context(), admintest.Operator, "alice", ""); err != nil {
		t.Fatal(err)
	}
	u, err := k.Users.ByName(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	k.SignIn(t, u)
	if _, _, err := k.Tokens.Create(t.Context(), u.ID, "caldav", 0); err != nil {
		t.Fatal(err)
	}
	k.Fail(t, "alice", 3)
	return k, u
}

func TestService_listsEveryOperation(t *testing.T) {
	t.Parallel()
	got := slices.Sorted(maps.Keys(operations(&admintest.Kit{}, "")))
	if want := admin.Operations(); !slices.Equal(got, want) {
		t.Errorf("tested operations: got %v, want %v", got, want)
	}
}

// The whole authorisation once more, as the contract has it: an administrator elsewhere than on the socket sets no credential of
// somebody else and sees none.
func TestService_authorises(t *testing.T) {
	t.Parallel()
	operatorOnly := []admin.Operation{admin.UserAdd, admin.UserPassword, admin.UserImport, admin.TOTPEnrol, admin.TokenAdd}
	for _, op := range admin.Operations() {
		for _, caller := range []admin.Caller{admintest.Operator, admintest.Administrator, {Actor: audit.Actor{Type: audit.ActorClient}}} {
			want := caller.Role == admin.Operator || caller.Role == admin.Administrator && !slices.Contains(operatorOnly, op)
			k, _ := alice(t)
			before := len(k.Recorded(t))
			err := operations(k, "alice")[op](t.Context(), caller)
			if got := !errors.Is(err, admin.ErrForbidden); got != want || want && err != nil {
				t.Errorf("%s by role %q: got %v, want allowed %v", op, caller.Role, err, want)
			}
			records := k.Recorded(t)[before:]
			if len(records) == 0 {
				t.Errorf("%s by role %q: no record", op, caller.Role)
				continue
			}
			r := records[0]
			if want {
				continue
			}
			if r.Kind != audit.KindAccessDenied || r.Outcome != audit.Denied || r.Actor != caller.Actor || r.Details["operation"] != string(op) || len(records) != 1 {
				t.Errorf("%s by role %q: got records %+v, want one of a denial", op, caller.Role, records)
			}
			if r.Kind.TakesAccessAway() {
				t.Errorf("%s: a denied call may use the log's reserve", op)
			}
		}
	}
}

func TestService_recordsWhoWhyAndWhat(t *testing.T) {
	t.Parallel()
	kinds := map[admin.Operation]audit.Kind{
		admin.UserDisable: audit.KindUserDisabled, admin.UserEnable: audit.KindUserEnabled, admin.UserDelete: audit.KindUserDeleted,
		admin.UserPassword: audit.KindPasswordSet, admin.UserGroups: audit.KindUserChanged, admin.TOTPEnrol: audit.KindTOTPEnrolled,
		admin.TOTPReset: audit.KindTOTPReset, admin.LockoutReset: audit.KindLockoutReset, admin.UserShow: audit.KindAdminRead,
		admin.UserInvite: audit.KindUserInvited, admin.TokenAdd: audit.KindTokenAdded, admin.TokenRevoke: audit.KindTokenRevoked,
		admin.SessionRevoke: audit.KindSessionRevoked, admin.SessionsRevoke: audit.KindSessionsRevoked, admin.LockoutShow: audit.KindAdminRead,
	}
	for op, kind := range kinds {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			k, u := alice(t)
			before := len(k.Recorded(t))
			if err := operations(k, "alice")[op](t.Context(), admintest.Operator); err != nil {
				t.Fatal(err)
			}
			r := k.Recorded(t)[before]
			wantWhy := why
			if kind == audit.KindAdminRead {
				wantWhy = ""
			}
			if r.Kind != kind || r.Outcome != audit.Success || r.Actor != admintest.Operator.Actor || r.RequestID != admintest.Operator.RequestID ||
				r.Why != wantWhy || r.Subject != (audit.Subject{ID: u.ID, Name: "alice"}) || r.Details["operation"] != string(op) {
				t.Errorf("got %+v, want kind %s of alice by %v because of %q", r, kind, admintest.Operator.Actor, wantWhy)
			}
		})
	}
}

// AD-11 and rule 15 of attacks.md: no record, no effect.
func TestService_doesNothingWithoutARecord(t *testing.T) {
	t.Parallel()
	for _, op := range admin.Operations() {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			k, _ := alice(t)
			before := snapshot(t, k)
			k.LogFault.Set(audit.ErrUnavailable)
			err := operations(k, "alice")[op](t.Context(), admintest.Operator)
			if admin.Code(err) != problem.Unavailable {
				t.Errorf("got %v, want unavailable", err)
			}
			if after := snapshot(t, k); !maps.Equal(before, after) {
				t.Errorf("state changed without a record:\nbefore %v\nafter  %v", before, after)
			}
		})
	}
}

// snapshot is everything that an operation can change, as text.
func snapshot(t *testing.T, k *admintest.Kit) map[string]string {
	t.Helper()
	state := make(map[string]string)
	users, err := k.Users.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		sessions, err := k.Sessions.List(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		state[u.Name] = strings.Join([]string{u.ID, u.PasswordHash, strings.Join(u.Groups, ",")}, " ")
		state[u.Name+" sessions"] = strings.Repeat("x", len(sessions))
		state[u.Name+" revision"] = time.Duration(u.Revision).String()
	}
	windows, err := k.Passwords.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range windows {
		state["window "+w.Subject] = strings.Repeat("x", w.Failures)
	}
	return state
}

func TestService_recordsAnEffectThatFailed(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	before := len(k.Recorded(t))
	k.StoreFault.Set(store.ErrUnavailable)
	err := k.Service.DisableUser(t.Context(), admintest.Operator, "alice", why)
	if admin.Code(err) != problem.Unavailable {
		t.Fatalf("got %v, want unavailable", err)
	}
	records := k.Recorded(t)[before:]
	if len(records) != 2 || records[0].Outcome != audit.Success || records[1].Outcome != audit.Failed ||
		records[1].Kind != audit.KindUserDisabled || records[1].Code != string(problem.Unavailable) {
		t.Errorf("got records %+v, want one of the effect and one of its failure", records)
	}
}

func TestService_recordsCallsThatComeToNothing(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	before := len(k.Recorded(t))
	const typed = "hunter2hunter2" // people type passwords where a name belongs
	if err := k.Service.DisableUser(t.Context(), admintest.Operator, typed, why); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	r := k.Recorded(t)[before]
	if r.Outcome != audit.Failed || r.Code != string(problem.NotFound) || r.Subject.Tag == "" || r.Subject.Name != "" {
		t.Errorf("got %+v, want a failure about a tag", r)
	}
	line, err := audit.Line(r)
	if err != nil || strings.Contains(string(line), typed) {
		t.Errorf("the record holds the name that is none: %s, %v", line, err)
	}
}

func TestService_goesOnWhenTheCallerHasGone(t *testing.T) {
	t.Parallel()
	k, u := alice(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Service.DisableUser(ctx, admintest.Operator, "alice", why); err != nil {
		t.Fatal(err)
	}
	if sessions, err := k.Sessions.List(t.Context(), u.ID); err != nil || len(sessions) != 0 {
		t.Errorf("got %d sessions and %v, want none", len(sessions), err)
	}
}

func TestService_takesAccessAway(t *testing.T) {
	t.Parallel()
	forgets := []admin.Operation{admin.UserDelete, admin.UserPassword, admin.TOTPEnrol, admin.TOTPReset}
	keeps := []admin.Operation{admin.UserDisable, admin.UserGroups, admin.SessionsRevoke}
	for _, op := range append(forgets, keeps...) {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			k, u := alice(t)
			if _, err := k.Devices.Remember(t.Context(), u.ID, "", network, "browser"); err != nil {
				t.Fatal(err)
			}
			if err := operations(k, "alice")[op](t.Context(), admintest.Operator); err != nil {
				t.Fatal(err)
			}
			sessions, err := k.Sessions.List(t.Context(), u.ID)
			if err != nil || len(sessions) != 0 {
				t.Errorf("got %d sessions and %v, want none", len(sessions), err)
			}
			history, err := k.Devices.Load(t.Context(), u.ID)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(history.Devices()) == 0, slices.Contains(forgets, op); got != want {
				t.Errorf("devices forgotten: got %v, want %v", got, want)
			}
		})
	}
}

func TestService_deletesWhole(t *testing.T) {
	t.Parallel()
	k, u := alice(t)
	r, err := k.Codes.Reserve(t.Context(), u.ID, lockout.Stranger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Codes.Settle(t.Context(), r, lockout.Wrong); err != nil {
		t.Fatal(err)
	}
	if err := k.Service.DeleteUser(t.Context(), admintest.Operator, "alice", why); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Users.ByName(t.Context(), "alice"); !errors.Is(err, user.ErrNotFound) {
		t.Errorf("got %v, want no account", err)
	}
	if left, err := k.Codes.Status(t.Context(), u.ID); err != nil || len(left) != 0 {
		t.Errorf("got code windows %v and %v, want none", left, err)
	}
	if left, err := k.Passwords.Status(t.Context(), k.Users.NameTag("alice")); err != nil || len(left) != 1 {
		t.Errorf("got password windows %v and %v, want that of the name: it is anybody's", left, err)
	}
}

func TestService_resetsLockouts(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	k.AddUser(t, "alice")
	for _, name := range []string{"alice", "nobody"} {
		k.Fail(t, name, 5)
		before := len(k.Recorded(t))
		for range 2 { // idempotent
			if err := k.Service.ResetLockout(t.Context(), admintest.Administrator, name, why); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		k.Fail(t, name, 4) // counts begin again from none
		records := k.Recorded(t)[before:]
		if len(records) != 2 {
			t.Fatalf("%s: got %d records, want 2", name, len(records))
		}
		if got, want := records[0].Details["cleared/password/stranger"], "5 failures, locked"; got != want {
			t.Errorf("%s: got cleared %q, want %q", name, got, want)
		}
		if got := len(records[1].Details); got != 1 { // the operation
			t.Errorf("%s: got details %v of the second, want nothing cleared", name, records[1].Details)
		}
		if (records[0].Subject.Name == "alice") != (name == "alice") || records[0].Why != why {
			t.Errorf("%s: got record %+v", name, records[0])
		}
	}
}

func TestService_resetNeedsAReason(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	for _, reason := range []string{"", "  ", strings.Repeat("x", api.MaxReason+1)} {
		if err := k.Service.ResetLockout(t.Context(), admintest.Operator, "alice", reason); admin.Code(err) != problem.BadRequest {
			t.Errorf("reason of %d bytes: got %v, want a bad request", len(reason), err)
		}
	}
}

func TestService_listsLockoutsByName(t *testing.T) {
	t.Parallel()
	k, u := alice(t)
	k.Fail(t, "nobody", 5)
	if _, err := k.Codes.Reserve(t.Context(), u.ID, lockout.Stranger); err != nil {
		t.Fatal(err)
	}
	page, err := k.Service.Lockouts(t.Context(), admintest.Operator, "", 2)
	if err != nil || len(page.Items) != 2 || page.Next == "" {
		t.Fatalf("got %+v and %v, want two of three", page, err)
	}
	rest, err := k.Service.Lockouts(t.Context(), admintest.Operator, page.Next, 2)
	if err != nil || len(rest.Items) != 1 || rest.Next != "" {
		t.Fatalf("got %+v and %v, want the third", rest, err)
	}
	unknown := rest.Items[0]
	if unknown.User != "" || unknown.Tag != k.Users.NameTag("nobody")[:16] || unknown.LockedUntil.IsZero() || unknown.Failures != 5 {
		t.Errorf("got %+v, want the locked name without an account", unknown)
	}
	if page.Items[0].User != "alice" || page.Items[1].User != "alice" || page.Items[0].Window == page.Items[1].Window {
		t.Errorf("got %+v, want both windows of alice", page.Items)
	}
}

func TestService_pagesUsers(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	for _, name := range []string{"dora", "alice", "carol", "bob"} {
		k.AddUser(t, name)
	}
	var got []string
	after := ""
	for {
		page, err := k.Service.Users(t.Context(), admintest.Operator, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page.Items {
			got = append(got, u.Name)
		}
		if after = page.Next; after == "" {
			break
		}
		if err := k.Users.Delete(t.Context(), userID(k, after)); err != nil { // the cursor's own entry goes
			t.Fatal(err)
		}
	}
	if want := []string{"alice", "bob", "carol", "dora"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestService_addsUsers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		user api.NewUser
		want problem.Code
	}{
		{"good", api.NewUser{Name: "Bob", Email: "bob@example.org", Groups: []string{"staff"}, Password: admintest.GoodPassword}, ""},
		{"taken", api.NewUser{Name: "ALICE", Password: admintest.GoodPassword}, problem.Conflict},
		{"no name", api.NewUser{Password: admintest.GoodPassword}, problem.BadRequest},
		{"bad name", api.NewUser{Name: "bob smith", Password: admintest.GoodPassword}, problem.BadRequest},
		{"bad group", api.NewUser{Name: "bob", Groups: []string{"a b"}, Password: admintest.GoodPassword}, problem.BadRequest},
		{"bad address", api.NewUser{Name: "bob", Email: "bob\r\nX: y@example.org", Password: admintest.GoodPassword}, problem.BadRequest},
		{"no password", api.NewUser{Name: "bob"}, problem.PasswordRejected},
		{"short password", api.NewUser{Name: "bob", Password: "short"}, problem.PasswordRejected},
		{"password of names", api.NewUser{Name: "bob", DisplayName: "Roberta Merriweather", Password: "merriweather1"}, problem.PasswordRejected},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k, _ := alice(t)
			added, err := k.Service.AddUser(t.Context(), admintest.Operator, test.user)
			if test.want != "" {
				if admin.Code(err) != test.want {
					t.Errorf("got %v, want %s", err, test.want)
				}
				if users, err := k.Users.List(t.Context()); err != nil || len(users) != 1 {
					t.Errorf("got %d accounts and %v, want alice alone", len(users), err)
				}
				return
			}
			if err != nil || added.Name != "bob" || !added.HasPassword || added.EnrolUntil.IsZero() {
				t.Fatalf("got %+v and %v, want bob", added, err)
			}
			stored, err := k.Users.ByName(t.Context(), "bob")
			if err != nil || !k.Hasher.Verify(stored.PasswordHash, admintest.GoodPassword, 0) {
				t.Errorf("the password does not open the account: %v", err)
			}
		})
	}
}

func TestService_setsAPassword(t *testing.T) {
	t.Parallel()
	k, u := alice(t)
	const next = "seven amber foxes leap"
	if err := k.Service.SetPassword(t.Context(), admintest.Operator, "alice", next, why); err != nil {
		t.Fatal(err)
	}
	changed, err := k.Users.ByID(t.Context(), u.ID)
	if err != nil || !k.Hasher.Verify(changed.PasswordHash, next, 0) || k.Hasher.Verify(changed.PasswordHash, admintest.GoodPassword, 0) {
		t.Errorf("the new password does not hold: %v", err)
	}
	var rejected *admin.PasswordError
	if err := k.Service.SetPassword(t.Context(), admintest.Operator, "alice", "password1234", why); !errors.As(err, &rejected) || len(rejected.Reasons) == 0 {
		t.Errorf("got %v, want reasons", err)
	}
	for _, r := range k.Recorded(t) {
		if line, err := audit.Line(r); err != nil || strings.Contains(string(line), "foxes") || strings.Contains(string(line), "$2") {
			t.Errorf("a record holds the password or its hash: %s, %v", line, err)
		}
	}
}

func TestService_enrolsInPlaceOfTheOld(t *testing.T) {
	t.Parallel()
	k, before := alice(t)
	e, err := k.Service.EnrolTOTP(t.Context(), admintest.Operator, "Alice", why)
	if err != nil || !strings.HasPrefix(e.URL, "otpauth://totp/") || !strings.Contains(e.URL, "secret="+e.Secret) {
		t.Fatalf("got %+v and %v, want an enrolment", e, err)
	}
	after, err := k.Users.ByID(t.Context(), before.ID)
	if err != nil || after.TOTP == nil || after.TOTP.ID == before.TOTP.ID || after.TOTP.Secret != e.Secret {
		t.Errorf("got %+v and %v, want the new enrolment", after.TOTP, err)
	}
	if err := k.Service.ResetTOTP(t.Context(), admintest.Administrator, "alice", why); err != nil {
		t.Fatal(err)
	}
	if after, err = k.Users.ByID(t.Context(), before.ID); err != nil || after.TOTP != nil {
		t.Errorf("got %+v and %v, want none", after.TOTP, err)
	}
	for _, r := range k.Recorded(t) {
		if line, err := audit.Line(r); err != nil || strings.Contains(string(line), e.Secret) {
			t.Errorf("a record holds the secret: %s, %v", line, err)
		}
	}
}

func TestService_importsAllOrNothing(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	file := api.Import{Format: api.FormatHtpasswd, Content: "bob:" + hash + "\ncarol:$apr1$x$y\n"}
	var refused *admin.ImportError
	if _, err := k.Service.Import(t.Context(), admintest.Operator, file); !errors.As(err, &refused) || len(refused.Reasons) != 1 {
		t.Errorf("got %v, want one reason", err)
	}
	if users, err := k.Users.List(t.Context()); err != nil || len(users) != 1 {
		t.Errorf("got %d accounts and %v, want alice alone", len(users), err)
	}
	file.SkipRejected = true
	done, err := k.Service.Import(t.Context(), admintest.Operator, file)
	if err != nil || !slices.Equal(done.Added, []string{"bob"}) || len(done.Rejected) != 1 || done.Rejected[0].Line != 2 {
		t.Errorf("got %+v and %v, want bob and one entry rejected", done, err)
	}
	file.Content = "alice:" + hash + "\n"
	file.SkipRejected = false
	if _, err := k.Service.Import(t.Context(), admintest.Operator, file); !errors.As(err, &refused) {
		t.Errorf("a name that is taken: got %v, want a refusal", err)
	}
	if _, err := k.Service.Import(t.Context(), admintest.Operator, api.Import{Format: "csv"}); admin.Code(err) != problem.BadRequest {
		t.Errorf("an unknown format: got %v, want a bad request", err)
	}
}

// What a record of an import says is what happened, conflicts with accounts that exist included.
func TestService_recordsWhatWasImported(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	file := api.Import{Format: api.FormatHtpasswd, Content: "alice:" + hash + "\nbob:" + hash + "\ncarol:$apr1$x$y\ndora:plain\n"}
	var refused *admin.ImportError
	if _, err := k.Service.Import(t.Context(), admintest.Operator, file); !errors.As(err, &refused) || len(refused.Reasons) != 3 || !strings.Contains(refused.Reasons[0], "exists") {
		t.Errorf("got %v, want three reasons at once", err)
	}
	file.SkipRejected = true
	if _, err := k.Service.Import(t.Context(), admintest.Operator, file); err != nil {
		t.Fatal(err)
	}
	records := k.Recorded(t)
	no, yes := records[len(records)-2].Details, records[len(records)-1].Details
	if no["added"] != "0" || no["rejected"] != "3" || no["names"] != "" {
		t.Errorf("a refusal: got %v", no)
	}
	if yes["added"] != "1" || yes["rejected"] != "3" || yes["existing"] != "0" || yes["names"] != "bob" {
		t.Errorf("an import: got %v", yes)
	}
}

func TestService_recordsEveryNameOfALargeImport(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	before := len(k.Recorded(t))
	file := api.Import{Format: api.FormatHtpasswd}
	var want []string
	for i := range 30 {
		name := fmt.Sprintf("%s-%02d", strings.Repeat("n", 50), i)
		want = append(want, name)
		file.Content += name + ":" + hash + "\n"
	}
	if _, err := k.Service.Import(t.Context(), admintest.Operator, file); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range k.Recorded(t)[before:] {
		got = append(got, strings.Split(r.Details["names"], ",")...)
	}
	if records := len(k.Recorded(t)) - before; records != 2 || !slices.Equal(got, want) {
		t.Errorf("got %d records with %v, want 2 with every name", records, got)
	}
}

func TestService_recordsWhatAnImportThatFailedLeft(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	k.StoreFault.Set(store.ErrUnavailable)
	if _, err := k.Service.Import(t.Context(), admintest.Operator, api.Import{Format: api.FormatHtpasswd, Content: "bob:" + hash + "\n"}); admin.Code(err) != problem.Unavailable {
		t.Fatalf("got %v, want unavailable", err)
	}
	records := k.Recorded(t)
	if r := records[len(records)-1]; r.Outcome != audit.Failed || r.Details["added"] != "0" || r.Details["names"] != "" {
		t.Errorf("got %+v, want a failure that added nothing", r)
	}
}

func TestDetail_saysWhatIsWrong(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	_, show := k.Service.User(t.Context(), admintest.Operator, "alic")
	_, revoke := k.Service.RevokeSessions(t.Context(), admintest.Operator, "nobody", "")
	_, add := k.Service.AddInvited(t.Context(), admintest.Operator, api.NewInvitation{Name: "alice"})
	for want, err := range map[string]error{
		`There is no account "alic".`:                              show,
		`There is no account "nobody".`:                            revoke,
		`The account "alice" exists already.`:                      add,
		`There is no live session with the id "0000000000000000".`: k.Service.RevokeSession(t.Context(), admintest.Operator, "0000000000000000", ""),
	} {
		if got := admin.Detail(err); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestService_revokesASessionByItsPublicID(t *testing.T) {
	t.Parallel()
	k, u := alice(t)
	k.SignIn(t, u)
	page, err := k.Service.Sessions(t.Context(), admintest.Operator, "alice", "", 10)
	if err != nil || len(page.Items) != 2 || page.Items[0].User != "alice" || page.Items[0].Address != "192.0.2.7" {
		t.Fatalf("got %+v and %v, want two sessions of alice", page, err)
	}
	if err := k.Service.RevokeSession(t.Context(), admintest.Administrator, page.Items[0].ID, why); err != nil {
		t.Fatal(err)
	}
	left, err := k.Service.Sessions(t.Context(), admintest.Operator, "", "", 10)
	if err != nil || len(left.Items) != 1 || left.Items[0].ID != page.Items[1].ID {
		t.Errorf("got %+v and %v, want the other session", left, err)
	}
	if err := k.Service.RevokeSession(t.Context(), admintest.Operator, page.Items[0].ID, why); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("a session that has ended: got %v, want ErrNotFound", err)
	}
	if n, err := k.Service.RevokeSessions(t.Context(), admintest.Operator, "alice", why); err != nil || n != 1 {
		t.Errorf("got %d and %v, want 1 session ended", n, err)
	}
}

func TestService_tailsTheLog(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	for range 5 {
		if _, err := k.Service.Users(t.Context(), admintest.Operator, "", 10); err != nil {
			t.Fatal(err)
		}
	}
	newest := k.Recorded(t)[len(k.Recorded(t))-1].Sequence
	got := sequences(t, k, admin.Tail{Last: 3})
	if want := []uint64{newest - 2, newest - 1, newest}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := sequences(t, k, admin.Tail{From: newest}); !slices.Equal(got, []uint64{newest, newest + 1}) {
		t.Errorf("got %v, want %d and the look before", got, newest)
	}
	if got := sequences(t, k, admin.Tail{Last: 1000}); got[0] != 1 {
		t.Errorf("got %v, want everything", got)
	}
}

func sequences(t *testing.T, k *admintest.Kit, tail admin.Tail) []uint64 {
	t.Helper()
	read, err := k.Service.OpenTail(t.Context(), admintest.Operator, tail)
	if err != nil {
		t.Fatal(err)
	}
	var list []uint64
	err = read(t.Context(), func(r audit.Record) error {
		list = append(list, r.Sequence)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestService_followsTheLog(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	read, err := k.Service.OpenTail(t.Context(), admintest.Operator, admin.Tail{Last: 1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	err = read(ctx, func(r audit.Record) error {
		switch r.Kind {
		case audit.KindAdminRead:
			return k.Service.DisableUser(ctx, admintest.Operator, "alice", why)
		case audit.KindUserDisabled:
			stop()
		}
		return nil
	})
	if err != nil || ctx.Err() == nil {
		t.Errorf("got %v, want the end by stop", err)
	}
}
