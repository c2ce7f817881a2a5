package admin_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gatehouse/admin"
	"gatehouse/admin/admintest"
	"gatehouse/admin/api"
	"gatehouse/auth/apptoken"
	"gatehouse/problem"
)

func TestService_AddToken(t *testing.T) {
	t.Parallel()
	k := admintest.New(t)
	u := k.AddUser(t, "alice")
	made, err := k.Service.AddToken(t.Context(), admintest.Operator, api.NewToken{User: "Alice", Route: "git", ExpiresIn: 3600})
	if err != nil {
		t.Fatal(err)
	}
	found, err := k.Tokens.Find(t.Context(), made.Secret)
	if err != nil || found.UserID != u.ID || found.Route != "git" || !found.Expires.Equal(k.Now().Add(time.Hour)) || found.ID != made.Token.ID || made.Token.User != "alice" {
		t.Errorf("made %+v, %v, answered %+v", found, err, made.Token)
	}
	for _, r := range k.Recorded(t) {
		for _, detail := range r.Details {
			if strings.Contains(detail, apptoken.Prefix) {
				t.Errorf("the record has it: %+v", r)
			}
		}
	}
	if made, err = k.Service.AddToken(t.Context(), admintest.Operator, api.NewToken{User: "alice", Route: "git"}); err != nil || !made.Token.ExpiresAt.Equal(k.Now().Add(apptoken.DefaultLifetime)) {
		t.Errorf("without a lifetime: ends %v, %v", made.Token.ExpiresAt, err)
	}
	for name, asked := range map[string]api.NewToken{
		"no user": {Route: "git"}, "no route": {User: "alice"}, "no such route": {User: "alice", Route: "wiki"}, "too short": {User: "alice", Route: "git", ExpiresIn: 59},
		"too long": {User: "alice", Route: "git", ExpiresIn: int64(apptoken.MaxLifetime/time.Second) + 1}, "negative": {User: "alice", Route: "git", ExpiresIn: -1},
	} {
		if made, err := k.Service.AddToken(t.Context(), admintest.Operator, asked); admin.Code(err) != problem.BadRequest || made.Secret != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := k.Service.AddToken(t.Context(), admintest.Operator, api.NewToken{User: "nobody", Route: "git"}); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	if err := k.Service.DisableUser(t.Context(), admintest.Operator, "alice", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Service.AddToken(t.Context(), admintest.Operator, api.NewToken{User: "alice", Route: "git"}); admin.Code(err) != problem.BadRequest {
		t.Errorf("of a disabled account: %v", err)
	}
}

func TestService_RevokeToken(t *testing.T) {
	t.Parallel()
	k, _ := alice(t)
	page, err := k.Service.AppTokens(t.Context(), admintest.Administrator, "alice")
	if err != nil || len(page.Items) != 1 || page.Items[0].Route != "caldav" || !page.Items[0].UsedAt.IsZero() {
		t.Fatalf("listed %+v, %v", page, err)
	}
	k.AddUser(t, "bob")
	if page, err := k.Service.AppTokens(t.Context(), admintest.Administrator, "bob"); err != nil || len(page.Items) != 0 {
		t.Errorf("of bob: %+v, %v", page, err)
	}
	id := page.Items[0].ID
	if err := k.Service.RevokeToken(t.Context(), admintest.Administrator, id, why); err != nil {
		t.Fatal(err)
	}
	if err := k.Service.RevokeToken(t.Context(), admintest.Administrator, id, why); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	if page, err := k.Service.AppTokens(t.Context(), admintest.Administrator, ""); err != nil || len(page.Items) != 0 {
		t.Errorf("left: %+v, %v", page, err)
	}
}

// A deleted account leaves no token behind, and the next account of the name has none of it.
func TestService_DeleteUser_endsAppTokens(t *testing.T) {
	t.Parallel()
	k, u := alice(t)
	if err := k.Service.DeleteUser(t.Context(), admintest.Operator, "alice", why); err != nil {
		t.Fatal(err)
	}
	if left, err := k.Tokens.OfUser(t.Context(), u.ID); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
