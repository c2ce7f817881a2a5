package httpapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gatehouse/admin"
	"gatehouse/admin/api"
	"gatehouse/auth/user"
	"gatehouse/problem"
	"gatehouse/strictjson"
)

// Document is the OpenAPI description of the routes.
//
//go:embed openapi.yaml
var Document []byte

// route is one entry of the table of routes. The operation decides who may use it; package admin asks.
type route struct {
	method, path string
	operation    admin.Operation // empty for the document, which tells nothing about this gateway
	handle       func(*exchange) error
}

// routes is every route of the API.
var routes = []route{
	{http.MethodGet, "/v1/openapi.yaml", "", (*exchange).document},
	{http.MethodGet, "/v1/users", admin.UserList, (*exchange).listUsers},
	{http.MethodPost, "/v1/users", admin.UserAdd, (*exchange).addUser},
	{http.MethodPost, "/v1/invitations", admin.UserAddInvited, (*exchange).addInvited},
	{http.MethodPost, "/v1/users/{user}/invitation", admin.UserInvite, (*exchange).invite},
	{http.MethodGet, "/v1/users/{user}", admin.UserShow, (*exchange).showUser},
	{http.MethodDelete, "/v1/users/{user}", admin.UserDelete, (*exchange).deleteUser},
	{http.MethodPost, "/v1/users/{user}/disable", admin.UserDisable, (*exchange).disableUser},
	{http.MethodPost, "/v1/users/{user}/enable", admin.UserEnable, (*exchange).enableUser},
	{http.MethodPut, "/v1/users/{user}/password", admin.UserPassword, (*exchange).setPassword},
	{http.MethodPut, "/v1/users/{user}/groups", admin.UserGroups, (*exchange).setGroups},
	{http.MethodPost, "/v1/imports", admin.UserImport, (*exchange).importUsers},
	{http.MethodPost, "/v1/users/{user}/totp", admin.TOTPEnrol, (*exchange).enrolTOTP},
	{http.MethodDelete, "/v1/users/{user}/totp", admin.TOTPReset, (*exchange).resetTOTP},
	{http.MethodGet, "/v1/lockouts", admin.LockoutList, (*exchange).listLockouts},
	{http.MethodGet, "/v1/lockouts/{user}", admin.LockoutShow, (*exchange).showLockout},
	{http.MethodDelete, "/v1/lockouts/{user}", admin.LockoutReset, (*exchange).resetLockout},
	{http.MethodGet, "/v1/sessions", admin.SessionList, (*exchange).listSessions},
	{http.MethodDelete, "/v1/sessions/{id}", admin.SessionRevoke, (*exchange).revokeSession},
	{http.MethodDelete, "/v1/users/{user}/sessions", admin.SessionsRevoke, (*exchange).revokeSessions},
	{http.MethodGet, "/v1/tokens", admin.TokenList, (*exchange).listTokens},
	{http.MethodPost, "/v1/tokens", admin.TokenAdd, (*exchange).addToken},
	{http.MethodDelete, "/v1/tokens/{id}", admin.TokenRevoke, (*exchange).revokeToken},
	{http.MethodGet, "/v1/keys", admin.KeyList, (*exchange).listKeys},
	{http.MethodPost, "/v1/keys/rotation", admin.KeyRotate, (*exchange).rotateKeys},
	{http.MethodGet, "/v1/audit", admin.AuditTail, (*exchange).tailAudit},
}

// Route is a route as tests and documents see it.
type Route struct {
	Method, Path string
	Operation    admin.Operation // empty: every caller may
}

// Routes lists every route of the API.
func Routes() []Route {
	list := make([]Route, len(routes))
	for i, r := range routes {
		list[i] = Route{r.method, r.path, r.operation}
	}
	return list
}

// byPath groups the routes, so that a wrong method on a known path is told from an unknown path. What is under no path
// here has an entry too.
func byPath() map[string]map[string]route {
	paths := map[string]map[string]route{"/": nil}
	for _, r := range routes {
		if paths[r.path] == nil {
			paths[r.path] = make(map[string]route)
		}
		paths[r.path][r.method] = r
	}
	return paths
}

func allowed(methods map[string]route) string {
	return strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
}

// checkContentType refuses a body that is not declared as JSON: without asking first, a page can make a browser send any other
// kind to any host.
func checkContentType(r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	kinds := r.Header.Values("Content-Type")
	if len(kinds) == 1 {
		if kind, _, err := mime.ParseMediaType(kinds[0]); err == nil && kind == "application/json" {
			return nil
		}
	}
	return badRequest("The body must be declared as application/json.")
}

// decode reads the body strictly. The reader of net/http stops a client that sends more than it declared.
func (x *exchange) decode(limit int64, into any) error {
	err := strictjson.Decode(x.Body, limit, into)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, strictjson.ErrTooLarge):
		return &requestError{problem.TooLarge, "The body is over " + strconv.FormatInt(limit, 10) + " bytes."}
	case errors.Is(err, strictjson.ErrMalformed):
		return badRequest("%s.", err)
	}
	return badRequest("The body could not be read.")
}

// target returns the account that the path names, and refuses a body that names another one.
func (x *exchange) target(inBody string) (string, error) {
	name := x.PathValue("user")
	if inBody == "" || inBody == name {
		return name, nil
	}
	inPath, err := user.Canonical(name)
	if err != nil {
		return name, nil // the service says what is wrong with it
	}
	if other, err := user.Canonical(inBody); err != nil || other != inPath {
		return "", badRequest("The body names another user than the path.")
	}
	return name, nil
}

// change reads the optional body of a request that says all it wants in its path.
func (x *exchange) change() (name, reason string, err error) {
	var body api.Change
	if x.ContentLength != 0 {
		if err := x.decode(api.MaxBody, &body); err != nil {
			return "", "", err
		}
	}
	name, err = x.target(body.User)
	return name, body.Reason, err
}

// query returns the parameters of the query, each at most once and all of them known.
func (x *exchange) query(known ...string) (url.Values, error) {
	values, err := url.ParseQuery(x.URL.RawQuery)
	if err != nil {
		return nil, badRequest("The query is malformed.")
	}
	for name, given := range values {
		if !slices.Contains(known, name) || len(given) > 1 {
			return nil, badRequest("The query has a parameter that is not known, or one twice.")
		}
	}
	return values, nil
}

// page returns the parameters of a list.
func (x *exchange) page(more ...string) (values url.Values, limit int, err error) {
	if values, err = x.query(append(more, "limit", "after")...); err != nil {
		return nil, 0, err
	}
	limit, err = number(values, "limit", api.MaxPage, api.MaxPage)
	return values, limit, err
}

// number reads a parameter from 1 to most; absent is otherwise.
func number(values url.Values, name string, otherwise, most int) (int, error) {
	text := values.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, badRequest("%s must be a number from 1 to %d.", name, most)
	}
	return n, nil
}

// answer sends a success.
func (x *exchange) answer(status int, body any) error {
	var text bytes.Buffer
	if err := json.NewEncoder(&text).Encode(body); err != nil {
		return err
	}
	x.head("application/json")
	x.w.WriteHeader(status)
	_, _ = text.WriteTo(x.w) // the client went away: nothing is left to tell it
	return nil
}

// done answers a call that has nothing to say, or its error.
func (x *exchange) done(err error) error {
	if err == nil {
		x.w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (x *exchange) head(contentType string) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

func (x *exchange) document() error {
	x.head("application/yaml")
	_, _ = io.Copy(x.w, bytes.NewReader(Document))
	return nil
}
