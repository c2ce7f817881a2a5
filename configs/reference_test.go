package configs_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/invopop/jsonschema"

	"gatehouse/configs"
)

var update = flag.Bool("update", false, "write gatehouse.yaml and gatehouse.schema.json anew")

// TestReference_isMadeFromTheTypes makes the sample file and the schema from config.go and compares them with the files that
// the program carries. `make generate` runs it with -update.
func TestReference_isMadeFromTheTypes(t *testing.T) {
	fields := readTypes(t)
	for _, made := range []struct {
		file string
		want []byte
		got  []byte
	}{
		{"gatehouse.yaml", makeTemplate(fields), configs.Template()},
		{"gatehouse.schema.json", makeSchema(t, fields), configs.Schema()},
	} {
		if *update {
			if err := os.WriteFile(made.file, made.want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !bytes.Equal(made.got, made.want) {
			t.Errorf("%s is not what config.go says; run make generate", made.file)
		}
	}
}

// TestTemplate_isTheDefaultWhenUncommented takes the # from every setting and expects the defaults.
func TestTemplate_isTheDefaultWhenUncommented(t *testing.T) {
	setting := regexp.MustCompile(`(?m)^( *)#([a-z])`)
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	for name, content := range map[string][]byte{
		"as it is":    configs.Template(),
		"uncommented": setting.ReplaceAll(configs.Template(), []byte("$1$2")),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := configs.Load(configs.Sources{File: file})
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, content)
		}
		want := configs.Default()
		forgetEmptyLists(reflect.ValueOf(&loaded.Config).Elem())
		if !reflect.DeepEqual(loaded.Config, want) {
			t.Errorf("%s: got %+v, want %+v", name, loaded.Config, want)
		}
		if name == "uncommented" && len(loaded.Origins) != len(loaded.Settings())-1 {
			t.Errorf("got %d settings in the template, want all %d but root_key", len(loaded.Origins), len(loaded.Settings())-1)
		}
	}
}

// forgetEmptyLists makes empty lists none: they mean the same.
func forgetEmptyLists(group reflect.Value) {
	for i := range group.NumField() {
		switch field := group.Field(i); {
		case field.Kind() == reflect.Struct && field.CanSet():
			forgetEmptyLists(field)
		case field.Kind() == reflect.Slice && field.Len() == 0 && field.CanSet():
			field.SetZero()
		}
	}
}

// TestTemplate_showsARoute takes the example of a route out of the comments and loads it: every setting stands in it with its default
// or with an example.
func TestTemplate_showsARoute(t *testing.T) {
	t.Parallel()
	_, rest, found := strings.Cut(string(configs.Template()), "#routes: []\n")
	block, _, _ := strings.Cut(rest, "\n\n")
	content := strings.ReplaceAll(block, "#| ", "")
	if !found || content == block {
		t.Fatal("the template has no example of a route")
	}
	loaded := load(t, "external_url: https://login.example.com\n"+content)
	got := loaded.Config.Routes
	if len(got) != 1 || len(got[0].Rules) != 1 {
		t.Fatalf("got %+v, want one route with one rule", got)
	}
	want := configs.Config{ExternalURL: loaded.Config.ExternalURL, Proxy: loaded.Config.Proxy, Routes: []configs.Route{{
		Name: "wiki", Host: "wiki.example.com", Upstreams: got[0].Upstreams,
		Rules: []configs.Rule{{Paths: []configs.Path{"/admin"}, Groups: []configs.UserName{"admins"}, SecondFactor: true}},
	}}}.AppRoutes()[0]
	forgetEmptyLists(reflect.ValueOf(&got[0]).Elem())
	forgetEmptyLists(reflect.ValueOf(&got[0].Rules[0]).Elem())
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("got %+v, want %+v", got[0], want)
	}
	for _, s := range loaded.Settings() {
		if place, given := loaded.Origins[s.Name]; strings.HasPrefix(s.Name, "routes") && !given {
			t.Errorf("the example has no %s (%v)", s.Name, place)
		}
	}
}

// field is a setting or a group as the types declare it.
type field struct {
	path, name, doc string
	tag             reflect.StructTag
	fields          []field // of a group, or of each of a list of groups
	list, groups    bool    // a list; of groups
}

// readTypes reads the declaration of Config, with its comments.
func readTypes(t *testing.T) []field {
	t.Helper()
	structs := map[string]*ast.StructType{}
	for _, name := range []string{"config.go", "route.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					structs[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	return readFields(t, structs, "Config", "")
}

func readFields(t *testing.T, structs map[string]*ast.StructType, name, prefix string) []field {
	t.Helper()
	var fields []field
	for _, f := range structs[name].Fields.List {
		text, err := strconv.Unquote(f.Tag.Value)
		if err != nil || f.Doc == nil {
			t.Fatalf("field %s of %s: no tag or no comment", f.Names[0], name)
		}
		tag := reflect.StructTag(text)
		one := field{name: tag.Get("config"), tag: tag}
		one.path = prefix + one.name
		one.doc = strings.Join(strings.Fields(f.Doc.Text()), " ")
		one.doc = one.name + strings.TrimPrefix(one.doc, f.Names[0].Name)
		typ, below := f.Type, one.path+"."
		if list, ok := typ.(*ast.ArrayType); ok {
			one.list, typ, below = true, list.Elt, one.path+"[]."
		}
		if typ, ok := typ.(*ast.Ident); ok && structs[typ.Name] != nil {
			one.fields = readFields(t, structs, typ.Name, below)
			one.groups = one.list
		}
		if tag.Get("only") != "environment" {
			fields = append(fields, one)
		}
	}
	return fields
}

// limits is the sentence that says what the tags allow.
func (f field) limits() string {
	least, most := f.tag.Get("min"), f.tag.Get("max")
	if least == "" || most == "" {
		return ""
	}
	return fmt.Sprintf(" From %s to %s.", least, most)
}

// defaultOf is the default of a setting before others are derived from it.
func defaultOf(path string) string {
	for _, f := range configs.Flags() {
		if f.Setting == path {
			return f.Default
		}
	}
	loaded, err := configs.Load(configs.Sources{File: os.DevNull})
	if err != nil {
		panic(err)
	}
	for _, s := range loaded.Settings() {
		if s.Name == path {
			return s.Value
		}
	}
	return ""
}

const templateHead = `# The configuration of Gatehouse. Every setting stands here with its default, commented out.
#
# A flag of gatehouse serve comes before a variable, a variable before this file, this file before the default. The variable of a
# setting is GATEHOUSE_ and its name in capitals, with two underscores for each step down: GATEHOUSE_LOGIN__BCRYPT_COST.
# With _FILE at the end it names a file that holds the value. Durations have units: 30s, 15m, 24h, 14d.
#
# Lines that begin with #| are an example, whole once the mark is taken off.
#
# gatehouse config check says what is wrong with the file, gatehouse config show what counts in the end.
`

func makeTemplate(fields []field) []byte {
	var out bytes.Buffer
	out.WriteString(templateHead)
	writeFields(&out, fields, "")
	return out.Bytes()
}

func writeFields(out *bytes.Buffer, fields []field, indent string) {
	for _, f := range fields {
		fmt.Fprintln(out)
		for _, line := range wrap(f.doc+f.limits(), 118-len(indent)) {
			fmt.Fprintf(out, "%s# %s\n", indent, line)
		}
		switch {
		case f.groups:
			fmt.Fprintf(out, "%s#%s: []\n", indent, f.name)
			fmt.Fprintf(out, "#| %s%s:\n", indent, f.name)
			writeExample(out, f.fields, indent)
		case f.fields != nil:
			fmt.Fprintf(out, "%s%s:\n", indent, f.name)
			writeFields(out, f.fields, indent+"  ")
		default:
			fmt.Fprintf(out, "%s#%s: %s\n", indent, f.name, f.written(defaultOf(f.path)))
		}
	}
}

// written is a value as it stands in a file.
func (f field) written(value string) string {
	switch {
	case f.list && value == "":
		return "[]"
	case value == "":
		return `""`
	}
	return value
}

// writeExample writes one element of a list of groups, each setting with its example or default, behind marks that make all of it a
// comment.
func writeExample(out *bytes.Buffer, fields []field, indent string) {
	lead := "- "
	for _, f := range fields {
		for _, line := range wrap(f.doc+f.limits(), 114-len(indent)) {
			fmt.Fprintf(out, "#|   %s# %s\n", indent, line)
		}
		switch {
		case f.groups:
			fmt.Fprintf(out, "#| %s%s%s:\n", indent, lead, f.name)
			writeExample(out, f.fields, indent+"  ")
		case f.fields != nil:
			fmt.Fprintf(out, "#| %s%s%s:\n", indent, lead, f.name)
			for _, below := range f.fields {
				for _, line := range wrap(below.doc+below.limits(), 112-len(indent)) {
					fmt.Fprintf(out, "#|     %s# %s\n", indent, line)
				}
				fmt.Fprintf(out, "#|     %s%s: %s\n", indent, below.name, below.written(below.preset()))
			}
		default:
			value := f.tag.Get("example")
			if value == "" {
				value = f.written(f.preset())
			}
			fmt.Fprintf(out, "#| %s%s%s: %s\n", indent, lead, f.name, value)
		}
		lead = "  "
	}
}

// preset is the default of a setting of a list of groups.
func (f field) preset() string {
	typ := reflect.TypeFor[configs.Config]()
	for _, name := range strings.Split(strings.ReplaceAll(f.path, "[]", ""), ".") {
		if typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		for i := range typ.NumField() {
			if typ.Field(i).Tag.Get("config") == name {
				typ = typ.Field(i).Type
				break
			}
		}
	}
	switch value := f.tag.Get("default"); {
	case value != "" || typ.Kind() == reflect.Slice || typ.Kind() == reflect.String:
		return value
	case typ.String() == "time.Duration":
		return "0s"
	default:
		return fmt.Sprint(reflect.Zero(typ))
	}
}

func wrap(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case len(*last)+1+len(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}

func makeSchema(t *testing.T, fields []field) []byte {
	t.Helper()
	r := jsonschema.Reflector{
		Anonymous: true, DoNotReference: true, ExpandedStruct: true, RequiredFromJSONSchemaTags: true,
		FieldNameTag: "config",
		Mapper: func(typ reflect.Type) *jsonschema.Schema {
			switch {
			case typ == reflect.TypeFor[configs.Size](): // 0 and 10MiB
				return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "integer"}, {Type: "string"}}}
			case typ == reflect.TypeFor[time.Duration](), reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
				return &jsonschema.Schema{Type: "string"}
			}
			return nil
		},
	}
	schema := r.Reflect(configs.Config{})
	schema.Title = "Configuration of Gatehouse"
	schema.Properties.Delete("root_key") // environment only
	describe(schema, fields)
	out, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// describe adds to the schema what the comments and tags say.
func describe(schema *jsonschema.Schema, fields []field) {
	for _, f := range fields {
		property, ok := schema.Properties.Get(f.name)
		if !ok {
			panic("no property " + f.path)
		}
		property.Description = f.doc + f.limits()
		switch {
		case f.groups:
			describe(property.Items, f.fields)
			continue
		case f.fields != nil:
			describe(property, f.fields)
			continue
		}
		for _, word := range strings.Fields(f.tag.Get("oneof")) {
			property.Enum = append(property.Enum, word)
		}
		value := defaultOf(f.path)
		if strings.Contains(f.path, "[]") {
			value = f.preset()
		}
		switch property.Type {
		case "integer":
			property.Minimum, property.Maximum = json.Number(f.tag.Get("min")), json.Number(f.tag.Get("max"))
			property.Default = json.Number(value)
		case "boolean":
			property.Default = value == "true"
		case "string":
			property.Default = value
		}
	}
}
