package layers_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "gatehouse"
	root   = "../.."
)

// layerOf is the layer of every package. A package may import packages of lower layers only, so packages of one layer never
// import each other: they meet where a higher layer puts them together, and each can be read and tested alone.
var layerOf = map[string]int{
	// 0, leaves: contracts, formats and pure functions that everybody may know.
	"access": 0, "accesslog": 0, "admin/api": 0, "audit": 0, "auth/password": 0, "configs": 0, "problem": 0, "proxy/clientip": 0, "session/token": 0,
	"snippet": 0, "store": 0, "strictjson": 0,
	// 1, parts: each does one thing over the leaves.
	"auth/apptoken": 1, "auth/device": 1, "auth/link": 1, "auth/lockout": 1, "auth/totp": 1, "auth/user": 1, "certificate": 1, "listener": 1,
	"ratelimit": 1, "secrets": 1, "session": 1, "session/handoff": 1,
	"store/boltstore": 1, "store/redisstore": 1,
	// 2, services: put parts together into decisions.
	"admin": 2, "auth": 2,
	// 3, edges: speak HTTP, and decide nothing.
	"admin/client": 3, "admin/httpapi": 3, "doctor": 3, "internal/sampleapp": 3, "metrics": 3, "proxy": 3, "web": 3,
	// 4, assembly.
	"gateway": 4,
	// 5, the program.
	"cmd/gatehouse": 5,
}

// kit reports whether a package exists for tests, which its name says as net/http/httptest's does. Kits may import everything;
// only tests and kits import them. internal/bench is a program that measures the others, and is not shipped either.
func kit(pkg string) bool {
	return strings.HasSuffix(pkg, "test") || slices.Contains([]string{"internal/artefacts", "internal/attacks", "internal/bench", "internal/layers"}, pkg)
}

// Sets of packages that rules name.
var (
	nobody   = []string{}
	assembly = []string{"gateway", "cmd/gatehouse"}
	program  = []string{"cmd/gatehouse"}
)

// importers says who may import what: a package of ours by its path in the module, anything else by its import path or the
// start of it. A module that is not listed may not be imported at all. Tests are free; they prove and are not shipped.
var importers = []struct {
	path string
	only []string
	why  string
}{
	{"configs", assembly, "packages take what they need as options; a configuration that everybody reads ties everything to everything"},
	{"store/boltstore", []string{"gateway"}, "the engines are interchangeable only as long as nobody knows which one there is"},
	{"store/redisstore", []string{"gateway"}, "the engines are interchangeable only as long as nobody knows which one there is"},

	{"html/template", []string{"internal/sampleapp", "web"}, "pages are drawn in one place, and the sample app is an app"},
	{"text/template", nobody, "it does not escape"},
	{"math/rand", nobody, "a guessable number is a hole wherever it ends up in a secret; crypto/rand is fast enough"},
	{"net/http/pprof", nobody, "importing it opens handlers on the default mux"},
	{"expvar", nobody, "importing it opens a handler on the default mux"},
	{"os/exec", nobody, "a gateway that starts no program cannot be made to start one"},
	{"unsafe", nobody, "memory safety is a promise"},

	{"github.com/redis/go-redis/", []string{"store/redisstore"}, "the store's contract is the only way to state"},
	{"go.etcd.io/bbolt", []string{"store/boltstore"}, "the store's contract is the only way to state"},
	{"github.com/golang-jwt/jwt/", []string{"session/token"}, "one package decides what a valid token is"},
	{"github.com/pquerna/otp", []string{"auth/totp"}, "one package decides what a valid code is"},
	{"golang.org/x/crypto/bcrypt", []string{"auth/password"}, "one package decides what a right password is, and takes the same time over all"},
	{"github.com/ccojocar/zxcvbn-go", []string{"auth/password"}, "the password policy is one"},
	{"golang.org/x/text/unicode/norm", []string{"access", "auth/password"}, "passwords are normalised once, and paths read as an app might"},
	{"golang.org/x/text/secure/precis", []string{"auth/user"}, "one function makes the canonical name"},
	{"golang.org/x/time/rate", []string{"ratelimit", "session"}, "limits of clients are counted in one place"},
	{"golang.org/x/net/http/httpguts", []string{"proxy", "proxy/clientip"}, "only the proxy reads header lists itself"},
	{"golang.org/x/crypto/acme", []string{"certificate"}, "one package decides what is ordered, and no request does"},
	{"github.com/pires/go-proxyproto", []string{"listener"}, "one package decides whose word about a client's address is taken"},
	{"github.com/felixge/httpsnoop", []string{"gateway", "proxy", "web"}, "only edges wrap answers"},
	{"github.com/knadh/koanf/", []string{"configs"}, "configuration is read in one place"},
	{"github.com/goccy/go-yaml", []string{"configs", "auth/user"}, "YAML is for the configuration and for imported user files"},
	{"github.com/nicksnyder/go-i18n/", []string{"web"}, "pages are the only thing that speaks several languages"},
	{"golang.org/x/text/language", []string{"web"}, "pages are the only thing that speaks several languages"},
	{"github.com/boombuler/barcode", []string{"web"}, "QR codes are pictures on pages"},
	{"github.com/prometheus/client_golang/", []string{"metrics"}, "what is counted is named in one place, and nothing registers itself globally"},
	{"github.com/fsnotify/fsnotify", []string{"certificate", "cmd/gatehouse"}, "the program sees its configuration change, and certificates have files of their own; all else is told"},
	{"github.com/spf13/", program, "only the program has a command line"},
	{"golang.org/x/term", program, "only the program has a terminal"},
	{"golang.org/x/sys/unix", []string{"admin/httpapi", "audit", "auth/password", "doctor", "gateway"}, "system calls stand where they are needed and nowhere else"},
}

// uses says who may use what of the standard library.
var uses = []struct {
	path  string
	names []string
	only  []string
	why   string
}{
	{"time", []string{"Now", "Since", "Until"}, program, "time comes in as Now, so that tests can move it and no answer depends on a second clock"},
	{"os", []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Args", "Exit"}, program, "what a package does depends on its options only"},
	{
		"log/slog",
		[]string{"Default", "SetDefault", "Debug", "DebugContext", "Info", "InfoContext", "Warn", "WarnContext", "Error", "ErrorContext", "Log", "LogAttrs", "With"},
		program, "the logger is passed in; a global one cannot be tested and is easily forgotten",
	},
	{"net/http", []string{"DefaultClient", "DefaultServeMux", "DefaultTransport", "Handle", "HandleFunc", "Get", "Post", "PostForm", "Head"}, nobody, "global clients and muxes have no limits, and anything linked in can change them"},
}

// source is one parsed file.
type source struct {
	pkg, name string // path of the package in the module; path of the file
	test      bool
	file      *ast.File
	set       *token.FileSet
}

func (s source) at(n ast.Node) string {
	return s.name + ":" + strconv.Itoa(s.set.Position(n.Pos()).Line)
}

// sources parses every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && file != root && (strings.HasPrefix(name, ".") || name == "testdata"):
			return fs.SkipDir
		case entry.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		parsed, err := parser.ParseFile(set, file, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(file, root+"/"))
		all = append(all, source{path.Dir(name), name, strings.HasSuffix(name, "_test.go"), parsed, set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// shipped is the source that ends up in the program.
func shipped(t *testing.T) []source {
	t.Helper()
	return slices.DeleteFunc(sources(t), func(s source) bool { return s.test || kit(s.pkg) })
}

func importPath(spec *ast.ImportSpec) string {
	text, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic(err) // the parser accepted it
	}
	return text
}

func TestLayers_pointDownwards(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range shipped(t) {
		seen[s.pkg] = true
		layer, known := layerOf[s.pkg]
		if !known {
			t.Errorf("%s: package %s has no layer; give it one in layerOf", s.name, s.pkg)
			continue
		}
		for _, spec := range s.file.Imports {
			other, ours := strings.CutPrefix(importPath(spec), module+"/")
			if !ours {
				continue
			}
			if kit(other) {
				t.Errorf("%s: %s is a test kit and must not be shipped", s.at(spec), other)
			} else if layerOf[other] >= layer {
				t.Errorf("%s: %s (layer %d) imports %s (layer %d); only lower layers may be imported", s.at(spec), s.pkg, layer, other, layerOf[other])
			}
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(layerOf)) {
		if !seen[pkg] {
			t.Errorf("layerOf names %s, which does not exist", pkg)
		}
	}
}

func TestImports_standWhereTheyBelong(t *testing.T) {
	t.Parallel()
	for _, s := range shipped(t) {
		for _, spec := range s.file.Imports {
			imported := importPath(spec)
			name := strings.TrimPrefix(imported, module+"/")
			listed := false
			for _, rule := range importers {
				if name != rule.path && !strings.HasPrefix(name, strings.TrimSuffix(rule.path, "/")+"/") {
					continue
				}
				listed = true
				if !slices.Contains(rule.only, s.pkg) && s.pkg != rule.path {
					t.Errorf("%s: %s must not import %s: %s", s.at(spec), s.pkg, imported, rule.why)
				}
			}
			if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") && !listed {
				t.Errorf("%s: %s imports %s, which no rule names; say in importers who may and why", s.at(spec), s.pkg, imported)
			}
		}
	}
}

func TestUses_standWhereTheyBelong(t *testing.T) {
	t.Parallel()
	for _, s := range shipped(t) {
		local := map[string]string{} // the name by which the file calls an import
		for _, spec := range s.file.Imports {
			name := path.Base(importPath(spec))
			if spec.Name != nil {
				name = spec.Name.Name
			}
			local[name] = importPath(spec)
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := selector.X.(*ast.Ident)
			if !ok || x.Obj != nil { // a variable, not a package
				return true
			}
			for _, rule := range uses {
				if local[x.Name] == rule.path && slices.Contains(rule.names, selector.Sel.Name) && !slices.Contains(rule.only, s.pkg) {
					t.Errorf("%s: %s must not use %s.%s: %s", s.at(n), s.pkg, x.Name, selector.Sel.Name, rule.why)
				}
			}
			return true
		})
	}
}

// TestCookies_areNamedInSession holds because a cookie that is set in one place and stripped in another stays stripped only as
// long as both spell it alike.
func TestCookies_areNamedInSession(t *testing.T) {
	t.Parallel()
	for _, s := range shipped(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if ok && s.pkg != "session" && strings.Contains(strings.ToLower(literal.Value), "__host-") {
				t.Errorf("%s: cookie names stand in session only", s.at(n))
			}
			return true
		})
	}
}

// TestPackages_haveNoHiddenState refuses init functions and package variables that something sets later: what a package does
// must follow from what it is given.
func TestPackages_haveNoHiddenState(t *testing.T) {
	t.Parallel()
	for _, s := range shipped(t) {
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: no init functions", s.at(d))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					v, ok := spec.(*ast.ValueSpec)
					if ok && d.Tok == token.VAR && len(v.Values) == 0 && !embedded(d, v) {
						t.Errorf("%s: a package variable without a value is set from somewhere else; pass it in", s.at(v))
					}
				}
			}
		}
	}
}

// embedded reports whether a variable is filled by the compiler.
func embedded(d *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, group := range []*ast.CommentGroup{d.Doc, v.Doc} {
		if group == nil {
			continue
		}
		for _, comment := range group.List {
			if strings.HasPrefix(comment.Text, "//go:embed ") {
				return true
			}
		}
	}
	return false
}

func TestPackages_sayWhatTheyPromise(t *testing.T) {
	t.Parallel()
	vague := regexp.MustCompile(`^(util|common|helper|type|manager|misc|shared)s?$`)
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			documented[s.pkg] = documented[s.pkg] || s.file.Doc != nil
		}
		if name := path.Base(s.pkg); vague.MatchString(name) {
			t.Errorf("%s: a package called %s says nothing; name it after what it is", s.name, name)
		}
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("package %s has no comment that says what it promises", pkg)
		}
	}
}

// TestTests_doNotSkip: a test that is skipped where an engine or a browser is missing is green without having looked. A step of a
// random model (rapid.T) may be skipped: that draws another one.
func TestTests_doNotSkip(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if f, ok := n.(*ast.FuncLit); ok && takesModel(f.Type) {
				return false
			}
			selector, ok := n.(*ast.SelectorExpr)
			if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, selector.Sel.Name) {
				t.Errorf("%s: tests do not skip; what is missing must fail", s.at(n))
			}
			return true
		})
	}
}

// takesModel reports whether a function has a *rapid.T.
func takesModel(f *ast.FuncType) bool {
	return slices.ContainsFunc(f.Params.List, func(p *ast.Field) bool {
		pointer, ok := p.Type.(*ast.StarExpr)
		if !ok {
			return false
		}
		selector, ok := pointer.X.(*ast.SelectorExpr)
		return ok && selector.Sel.Name == "T" && selector.X.(*ast.Ident).Name == "rapid"
	})
}

// maxGo is the newest Go that the project may ask for, as major, minor and patch.
var maxGo = []int{1, 26, 8}

func TestModule_asksForNoNewerGo(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^go (\d+)\.(\d+)(?:\.(\d+))?$`).FindStringSubmatch(string(data))
	if line == nil {
		t.Fatal("go.mod has no go line of the form go 1.26.0")
	}
	var got []int
	for _, digits := range line[1:] {
		n, _ := strconv.Atoi(digits) // without a patch number, 0
		got = append(got, n)
	}
	if slices.Compare(got, maxGo) > 0 {
		t.Errorf("go.mod asks for %s, newer than %v", line[0], maxGo)
	}
	if regexp.MustCompile(`(?m)^toolchain `).Match(data) {
		t.Error("go.mod names a toolchain; the build must do with the one that is there")
	}
}
