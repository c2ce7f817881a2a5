package user

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxDepth is how deep flow collections, or list entries on one line, may nest; what Authelia knows of an account needs 3.
const maxDepth = 32

// profile are the attributes that an Authelia users file (version 4.39) may give an account and that ours have no place for.
// Any other name is refused: a misspelt "disabled" must not make an account that can sign in.
var profile = map[string]bool{
	"given_name": true, "middle_name": true, "family_name": true, "nickname": true, "gender": true, "birthdate": true,
	"website": true, "profile": true, "picture": true, "zoneinfo": true, "locale": true, "phone_number": true,
	"phone_extension": true, "address": true, "extra": true,
}

// ParseAuthelia reads a users file of Authelia's file provider: under "users", each name with displayname, password, email,
// groups and disabled; the other attributes of a profile are passed over. Only bcrypt hashes can be imported. The error names
// line and column of what is not YAML or not of this form, and never quotes the file.
func ParseAuthelia(file io.Reader) (Import, error) {
	text, err := readAll(file)
	if err != nil {
		return Import{}, err
	}
	users, err := parseUsers(text)
	if err != nil {
		return Import{}, fmt.Errorf("read users file: %w", err)
	}
	r := newReading()
	for _, field := range users {
		key := field.Key.GetToken()
		u, err := parseUser(field.Value)
		u.Name = key.Value
		r.take(u, key.Position.Line, err)
	}
	return r.finish(), nil
}

// parseUsers returns the fields of the file's "users".
func parseUsers(text string) ([]*ast.MappingValueNode, error) {
	tokens := lexer.Tokenize(text)
	if err := checkDepth(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		var at yaml.Error // whose own text quotes the lines around the error, hashes included
		if errors.As(err, &at) && at.GetToken() != nil {
			return nil, misplaced(at.GetToken().Position.Line, at.GetToken().Position.Column, at.GetMessage())
		}
		return nil, errors.New("not YAML")
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, errors.New("want one YAML document with users")
	}
	fields, err := fieldsOf(file.Docs[0].Body)
	if err != nil {
		return nil, err
	}
	var users ast.Node
	for _, field := range fields {
		if key := field.Key.GetToken(); key.Value != "users" || users != nil {
			return nil, misplaced(key.Position.Line, key.Position.Column, "want users, once, and nothing else")
		}
		users = field.Value
	}
	if users == nil {
		return nil, errors.New("want users")
	}
	return fieldsOf(users)
}

// checkDepth refuses what nests deeper than any users file: the parser recurses, and takes time with the square of the depth.
func checkDepth(tokens token.Tokens) error {
	flow, entries, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			entries, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType: // "- - -" on one line
			entries++
		}
		if max(flow, entries) > maxDepth {
			return misplaced(t.Position.Line, t.Position.Column, "nested too deeply")
		}
	}
	return nil
}

// parseUser reads one account, without its name.
func parseUser(node ast.Node) (User, error) {
	fields, err := fieldsOf(node)
	if err != nil {
		return User{}, err
	}
	var u User
	seen := map[string]bool{}
	for _, field := range fields {
		key := field.Key.GetToken()
		name, err := key.Value, error(nil)
		if seen[name] {
			return User{}, misplaced(key.Position.Line, key.Position.Column, fmt.Sprintf("%q for the second time", name))
		}
		seen[name] = true
		switch name {
		case "displayname":
			u.DisplayName, err = textOf(field.Value)
		case "password":
			u.PasswordHash, err = textOf(field.Value)
		case "email":
			u.Email, err = textOf(field.Value)
		case "groups":
			u.Groups, err = textsOf(field.Value)
		case "disabled":
			u.Disabled, err = boolOf(field.Value)
		default:
			if !profile[name] {
				err = misplaced(key.Position.Line, key.Position.Column, fmt.Sprintf("unknown key %q", name))
			}
		}
		if err != nil {
			return User{}, err
		}
	}
	return u, nil
}

// fieldsOf returns the fields of a mapping. Anchors, aliases, tags and merge keys are refused here and below: a file of accounts
// is to say what it means.
func fieldsOf(node ast.Node) ([]*ast.MappingValueNode, error) {
	var fields []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		fields = n.Values
	case *ast.MappingValueNode:
		fields = []*ast.MappingValueNode{n}
	case *ast.NullNode:
	default:
		return nil, unexpected(node, "want a mapping")
	}
	for _, field := range fields {
		switch field.Key.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		default:
			return nil, unexpected(field.Key, "want a plain key")
		}
	}
	return fields, nil
}

// textOf returns a scalar as it is written: a name of digits only is a text too. Null is the empty text.
func textOf(node ast.Node) (string, error) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return strings.TrimRight(n.Value.Value, "\n"), nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return node.GetToken().Value, nil
	case *ast.NullNode:
		return "", nil
	}
	return "", unexpected(node, "want a text")
}

func textsOf(node ast.Node) ([]string, error) {
	switch n := node.(type) {
	case *ast.NullNode:
		return nil, nil
	case *ast.SequenceNode:
		var texts []string
		for _, item := range n.Values {
			text, err := textOf(item)
			if err != nil {
				return nil, err
			}
			texts = append(texts, text)
		}
		return texts, nil
	}
	return nil, unexpected(node, "want a list")
}

func boolOf(node ast.Node) (bool, error) {
	if n, ok := node.(*ast.BoolNode); ok {
		return n.Value, nil
	}
	return false, unexpected(node, "want true or false")
}

// unexpected says where something else was wanted.
func unexpected(node ast.Node, want string) error {
	if node == nil || node.GetToken() == nil {
		return errors.New(want)
	}
	at := node.GetToken().Position
	return misplaced(at.Line, at.Column, want)
}

func misplaced(line, column int, what string) error {
	return fmt.Errorf("line %d, column %d: %s", line, column, what)
}
