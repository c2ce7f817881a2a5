package configs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFile is how long a configuration file, or a file that it names, may be.
const maxFile = 1 << 20

// maxDepth is how many collections may begin within each other, or on one line. No setting needs more than a few; the parser
// recurses, and its time grows with the square of the depth.
const maxDepth = 32

// ReadFile reads a file of at most maxFile bytes, and no pipe: one that nobody writes to would stop every reload that follows. What it is
// is asked of what was opened, and opening does not wait.
func ReadFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeNamedPipe != 0 {
		return nil, errors.New("is a pipe")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errors.New("is longer than 1 MiB")
	}
	return data, err
}

// fileReader walks the syntax tree of a configuration file. It decodes from the tree and not with the library's decoder,
// because that stops at the first error and takes the last of two equal keys.
type fileReader struct {
	name     string
	table    table
	layer    *layer
	problems *[]Problem
}

// read takes all settings out of a file. What is wrong becomes a problem; the rest is read on.
func (r *fileReader) read(data []byte) {
	tokens := lexer.Tokenize(string(data))
	if t := tooDeep(tokens); t != nil {
		*r.problems = append(*r.problems, Problem{Place: r.place(t), Message: "is nested too deeply"})
		return
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err)
		return
	}
	for i, doc := range file.Docs {
		switch body := doc.Body.(type) {
		case nil: // nothing but comments
		case *ast.MappingNode:
			if i > 0 {
				r.problem(body, "", "begins a second document; a configuration is one")
				continue
			}
			r.mapping(body, scope{table: r.table}, "")
		case *ast.NullNode:
		default:
			r.problem(body, "", "must be settings, one to a line, as in listen: 127.0.0.1:8080")
		}
	}
}

// tooDeep returns the token at which more than maxDepth is reached.
func tooDeep(tokens token.Tokens) *token.Token {
	open, entries, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			entries, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open++
		case token.SequenceEndType, token.MappingEndType:
			open--
		case token.SequenceEntryType, token.MappingKeyType:
			entries++
		}
		if max(open, entries) > maxDepth {
			return t
		}
	}
	return nil
}

func (r *fileReader) syntax(err error) {
	var located yaml.Error
	if errors.As(err, &located) && located.GetToken() != nil {
		*r.problems = append(*r.problems, Problem{Place: r.place(located.GetToken()), Message: "is not YAML: " + located.GetMessage()})
		return
	}
	*r.problems = append(*r.problems, Problem{Place: Place{Layer: FromFile, Name: r.name}, Message: "is not YAML: " + err.Error()})
}

// scope is where a name is looked for: in the whole reference, or in that of one element of a list.
type scope struct {
	table  table
	prefix string // of the element, ending in a dot; empty for the whole
}

// mapping reads the settings of one group; group is its path within the scope, ending in a dot, or empty.
func (r *fileReader) mapping(node *ast.MappingNode, in scope, group string) {
	first := map[string]int{} // line of each key
	for _, entry := range node.Values {
		key, ok := entry.Key.(*ast.StringNode)
		if !ok {
			r.problem(entry.Key, "", "must be the plain name of a setting")
			continue
		}
		path := group + key.Value
		if line, again := first[path]; again {
			r.problem(key, "", fmt.Sprintf("%q stands here again; it was set on line %d", in.prefix+path, line))
			continue
		}
		first[path] = key.GetToken().Position.Line
		r.entry(path, in, key, entry.Value)
	}
}

func (r *fileReader) entry(path string, in scope, key *ast.StringNode, value ast.Node) {
	if slices.Contains(in.table.groups, path) {
		r.group(path, in, value)
		return
	}
	s, ok := in.table.find(path)
	s = s.under(in.prefix)
	switch {
	case !ok:
		r.unknown(in.prefix+path, in, key)
	case s.environmentOnly():
		r.problem(key, path, "must not stand in a file that others may read; give "+s.variable()+", or better root_key_file")
	case s.elements != nil:
		r.list(s, value)
	default:
		r.value(s, value)
	}
}

// unknown reports a key that is no setting. What is meant is more likely to be a setting of the same element than one elsewhere.
func (r *fileReader) unknown(path string, in scope, key *ast.StringNode) {
	quoted := func(name string) string { return fmt.Sprintf("%q", name) }
	meant := didYouMean(path, prefixed(in.table.paths(), in.prefix), quoted)
	if meant == "" {
		meant = didYouMean(path, r.table.paths(), quoted)
	}
	r.problem(key, "", fmt.Sprintf("unknown key %q", path)+meant)
}

// group reads what stands below the name of a group. Nothing at all is allowed: so the template can name every group.
func (r *fileReader) group(path string, in scope, value ast.Node) {
	switch node := value.(type) {
	case *ast.MappingNode:
		r.mapping(node, in, path+".")
	case *ast.NullNode:
	default:
		r.problem(value, in.prefix+path, "is a group: its settings stand below it, indented")
	}
}

// list reads a list of groups. What is wrong with one of them does not hide the others.
func (r *fileReader) list(s setting, value ast.Node) {
	sequence, ok := value.(*ast.SequenceNode)
	if !ok {
		r.problem(value, s.path, "is a list of groups: each begins with a hyphen, and its settings stand below one another")
		return
	}
	r.layer.lists[s.path] = len(sequence.Values)
	r.layer.places[s.path] = r.place(value.GetToken())
	for i, item := range sequence.Values {
		path := element(s.path, i)
		node, ok := item.(*ast.MappingNode)
		if !ok {
			r.problem(item, path, "must be a group of settings, as in "+example(s))
			continue
		}
		r.layer.places[path] = r.place(firstToken(node))
		r.mapping(node, scope{table: *s.elements, prefix: path + "."}, "")
	}
}

// example is the beginning of an element of a list.
func example(s setting) string {
	first := s.elements.settings[0]
	return "- " + first.path + ": " + first.field.Tag.Get("example")
}

// firstToken is the first key of a group, where it has one: the token of the group itself is the colon behind it.
func firstToken(node *ast.MappingNode) *token.Token {
	if len(node.Values) > 0 {
		return node.Values[0].Key.GetToken()
	}
	return node.GetToken()
}

func (r *fileReader) value(s setting, node ast.Node) {
	raw, err := texts(node)
	if err != nil {
		r.problem(node, s.path, err.Error())
		return
	}
	r.layer.set(s.path, raw, r.place(node.GetToken()))
	items, isList := raw.([]string)
	if !isList || !s.isList() {
		if _, err := s.decode(raw); err != nil {
			r.problem(node, s.path, err.Error())
		}
		return
	}
	for i, item := range items { // each with its own place
		if _, err := s.decode([]string{item}); err != nil {
			r.problem(node.(*ast.SequenceNode).Values[i], s.path, err.Error())
		}
	}
}

// texts is the text of a value, or the texts of a list of values.
func texts(node ast.Node) (any, error) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		return scalar(node)
	}
	items := make([]string, 0, len(sequence.Values))
	for _, item := range sequence.Values {
		text, err := scalar(item)
		if err != nil {
			return nil, err
		}
		items = append(items, text)
	}
	return items, nil
}

// scalar is the text of a single value as it stands in the file. Quoting does not change a type: every setting has one type,
// so that "10" and 10 mean the same and yes is never turned into true.
func scalar(node ast.Node) (string, error) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return strings.TrimSuffix(n.Value.Value, "\n"), nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, nil
	case *ast.NullNode:
		return "", errors.New(`has no value; leave the line out for the default, or write "" for an empty value`)
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return "", errors.New("uses an anchor, an alias or a tag, which a configuration does not need")
	default:
		return "", errors.New("must be a value, not further settings; in braces, quote what holds a colon")
	}
}

func (r *fileReader) place(t *token.Token) Place {
	p := Place{Layer: FromFile, Name: r.name}
	if t != nil && t.Position != nil {
		p.Line, p.Column = t.Position.Line, t.Position.Column
	}
	return p
}

func (r *fileReader) problem(node ast.Node, path, message string) {
	*r.problems = append(*r.problems, Problem{Place: r.place(node.GetToken()), Setting: path, Message: message})
}
