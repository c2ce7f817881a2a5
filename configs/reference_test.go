package configs_test

import (
	"bytes"
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
		if name == "uncommented" {
			want.TrustedProxies = loaded.Config.TrustedProxies[:0:0] // an empty list instead of none
			want.Session.IgnoreActivity = loaded.Config.Session.IgnoreActivity[:0:0]
		}
		if !reflect.DeepEqual(loaded.Config, want) {
			t.Errorf("%s: got %+v, want %+v", name, loaded.Config, want)
		}
		if name == "uncommented" && len(loaded.Origins) != len(loaded.Settings())-1 {
			t.Errorf("got %d settings in the template, want all %d but root_key", len(loaded.Origins), len(loaded.Settings())-1)
		}
	}
}

// field is a setting or a group as config.go declares it.
type field struct {
	path, name, doc string
	tag             reflect.StructTag
	fields          []field // of a group
}

// readTypes reads the declaration of Config, with its comments.
func readTypes(t *testing.T) []field {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	structs := map[string]*ast.StructType{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok {
			if s, ok := spec.Type.(*ast.StructType); ok {
				structs[spec.Name.Name] = s
			}
		}
		return true
	})
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
		if typ, ok := f.Type.(*ast.Ident); ok && structs[typ.Name] != nil {
			one.fields = readFields(t, structs, typ.Name, one.path+".")
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
		if f.fields != nil {
			fmt.Fprintf(out, "%s%s:\n", indent, f.name)
			writeFields(out, f.fields, indent+"  ")
			continue
		}
		value := defaultOf(f.path)
		switch {
		case f.path == "trusted_proxies", f.path == "session.ignore_activity":
			value = "[]"
		case value == "":
			value = `""`
		}
		fmt.Fprintf(out, "%s#%s: %s\n", indent, f.name, value)
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
	text := func(reflect.Type) *jsonschema.Schema { return &jsonschema.Schema{Type: "string"} }
	r := jsonschema.Reflector{
		Anonymous: true, DoNotReference: true, ExpandedStruct: true, RequiredFromJSONSchemaTags: true,
		FieldNameTag: "config",
		Mapper: func(typ reflect.Type) *jsonschema.Schema {
			switch typ.String() {
			case "time.Duration", "netip.Prefix", "configs.Origin", "configs.StoreURL", "configs.Secret", "configs.Colour", "configs.PathPrefix":
				return text(typ)
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
		if f.fields != nil {
			describe(property, f.fields)
			continue
		}
		for _, word := range strings.Fields(f.tag.Get("oneof")) {
			property.Enum = append(property.Enum, word)
		}
		if value := defaultOf(f.path); property.Type == "integer" {
			property.Minimum, property.Maximum = json.Number(f.tag.Get("min")), json.Number(f.tag.Get("max"))
			property.Default = json.Number(value)
		} else if property.Type == "string" {
			property.Default = value
		}
	}
}
