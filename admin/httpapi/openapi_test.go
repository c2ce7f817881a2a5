package httpapi_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"gatehouse/admin"
	"gatehouse/admin/api"
	"gatehouse/admin/httpapi"
	"gatehouse/problem"
)

// document is as much of OpenAPI as the tests compare.
type document struct {
	Paths map[string]map[string]struct {
		OperationID string   `yaml:"operationId"`
		Roles       []string `yaml:"x-roles"`
		Responses   map[string]any
	}
	Components struct {
		Schemas map[string]struct {
			Properties map[string]any
			Required   []string
			Additional *bool `yaml:"additionalProperties"`
		}
	}
}

func readDocument(t *testing.T) document {
	t.Helper()
	// "parameters" stands beside the methods of a path, and is a list.
	var raw map[string]any
	if err := yaml.Unmarshal(httpapi.Document, &raw); err != nil {
		t.Fatal(err)
	}
	for _, path := range raw["paths"].(map[string]any) {
		delete(path.(map[string]any), "parameters")
	}
	text, err := yaml.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := yaml.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDocument_hasExactlyTheRoutes(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	var described []string
	for path, methods := range d.Paths {
		for method := range methods {
			described = append(described, strings.ToUpper(method)+" "+path)
		}
	}
	var served []string
	for _, r := range httpapi.Routes() {
		served = append(served, r.Method+" "+r.Path)
	}
	slices.Sort(described)
	slices.Sort(served)
	if !slices.Equal(described, served) {
		t.Errorf("described: %v\nserved: %v", described, served)
	}
}

func TestDocument_statesOperationsAndRoles(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	for _, r := range httpapi.Routes() {
		described := d.Paths[r.Path][strings.ToLower(r.Method)]
		want := []string{}
		for _, role := range admin.Roles {
			if r.Operation == "" || admin.Allowed(r.Operation, role) {
				want = append(want, string(role))
			}
		}
		if !slices.Equal(described.Roles, want) {
			t.Errorf("%s %s: described roles %v, want %v", r.Method, r.Path, described.Roles, want)
		}
		if r.Operation != "" && described.OperationID != string(r.Operation) {
			t.Errorf("%s %s: described operation %q, want %q", r.Method, r.Path, described.OperationID, r.Operation)
		}
		if _, found := described.Responses["default"]; !found {
			t.Errorf("%s %s: no problem described", r.Method, r.Path)
		}
	}
}

func TestDocument_hasExactlyTheMembers(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	types := map[string]any{
		"Change": api.Change{}, "NewUser": api.NewUser{}, "NewInvitation": api.NewInvitation{}, "Invitation": api.Invitation{}, "NewPassword": api.NewPassword{}, "NewGroups": api.NewGroups{},
		"Import": api.Import{}, "User": api.User{}, "Imported": api.Imported{}, "Rejected": api.Rejected{},
		"Enrolment": api.Enrolment{}, "Lockout": api.Lockout{}, "Session": api.Session{}, "Key": api.Key{}, "KeyPage": api.Page[api.Key]{}, "Revoked": api.Revoked{},
		"UserPage": api.Page[api.User]{}, "LockoutPage": api.Page[api.Lockout]{}, "SessionPage": api.Page[api.Session]{},
		"NewToken": api.NewToken{}, "Token": api.Token{}, "IssuedToken": api.IssuedToken{}, "TokenPage": api.Page[api.Token]{},
		"Problem": problem.Problem{},
	}
	requests := []string{"Change", "NewUser", "NewInvitation", "NewPassword", "NewGroups", "Import", "NewToken"}
	for name, schema := range d.Components.Schemas {
		value, known := types[name]
		if !known {
			t.Errorf("schema %s has no type", name)
			continue
		}
		members, always := membersOf(t, value)
		if name == "Problem" { // login_url and challenge are of the login
			members = slices.DeleteFunc(members, func(m string) bool { return m == "login_url" || m == "challenge" })
		}
		var described []string
		for member := range schema.Properties {
			described = append(described, member)
		}
		slices.Sort(described)
		if !slices.Equal(described, members) {
			t.Errorf("%s: described members %v, want %v", name, described, members)
		}
		if strict := schema.Additional != nil && !*schema.Additional; strict != slices.Contains(requests, name) {
			t.Errorf("%s: refuses other members: %v", name, strict)
		}
		for _, member := range always {
			if !slices.Contains(schema.Required, member) {
				t.Errorf("%s: member %s is always there, and not described as required", name, member)
			}
		}
	}
	if len(types) != len(d.Components.Schemas) {
		t.Errorf("got %d schemas, want %d", len(d.Components.Schemas), len(types))
	}
}

// membersOf lists the members of a wire type, and those that are there even if zero.
func membersOf(t *testing.T, value any) (all, always []string) {
	t.Helper()
	for i := range reflect.TypeOf(value).NumField() {
		name, _, _ := strings.Cut(reflect.TypeOf(value).Field(i).Tag.Get("json"), ",")
		all = append(all, name)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var zero map[string]any
	if err := json.Unmarshal(text, &zero); err != nil {
		t.Fatal(err)
	}
	for name := range zero {
		always = append(always, name)
	}
	slices.Sort(all)
	return all, always
}
