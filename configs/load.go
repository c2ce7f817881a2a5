package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
)

const (
	// Prefix stands before the name of every variable that Gatehouse reads.
	Prefix = "GATEHOUSE_"
	// FileVariable names the configuration file where no flag does.
	FileVariable = Prefix + "CONFIG"
	// DefaultFile is read when it exists and no other file was named.
	DefaultFile = "gatehouse.yaml"
	// fileSuffix ends the name of a variable that holds the path of a file with the value in it.
	fileSuffix = "_FILE"
)

// Sources is where Load looks.
type Sources struct {
	// File is the configuration file; it must exist. Empty means what FileVariable names, else DefaultFile if there is one.
	File string
	// Flags holds the flags that were given, by the name of the setting, as in external_url. Values are as in the environment.
	Flags map[string]string
	// Environ is the environment as os.Environ returns it.
	Environ []string
}

// Loaded is a configuration that was read and found good.
type Loaded struct {
	Config Config
	// File is the file that was read; empty if there was none.
	File string
	// Origins says where each setting that was set comes from, by its dotted name. The others have their defaults.
	Origins map[string]Place
	// Warnings are sentences about what is allowed but worth a second look.
	Warnings []string
}

// layer is what one source sets.
type layer struct {
	values map[string]any // string or []string as the source has it, by dotted name
	lists  map[string]int // how many groups each list of groups has; only the file has any
	places map[string]Place
}

func newLayer() *layer {
	return &layer{values: map[string]any{}, lists: map[string]int{}, places: map[string]Place{}}
}

func (l *layer) set(path string, value any, place Place) {
	l.values[path], l.places[path] = value, place
}

// Load reads the configuration from its sources and checks it. The error is an [*Errors] with everything that is wrong in any
// source, also where a stronger source would have won: a mistake does not wait for the day on which it counts.
func Load(src Sources) (*Loaded, error) {
	l := loader{table: reference(), variables: variables(src.Environ)}
	file := l.file(src.File)
	loaded, err := l.merge(file, l.environment(), l.flags(src.Flags))
	if err != nil {
		return nil, fmt.Errorf("merge the sources of the configuration: %w", err)
	}
	loaded.Config.rootKeyPrecedence(loaded.Origins)
	loaded.Config.derive()
	l.problems = append(l.problems, check(loaded.Config, loaded.Origins, l.problems)...)
	if len(l.problems) > 0 {
		return nil, (&Errors{l.problems}).sorted()
	}
	loaded.File = l.name
	loaded.Warnings = warnings(loaded.Config)
	return loaded, nil
}

type loader struct {
	table     table
	variables map[string]string // those with our prefix
	name      string            // of the file that was read
	problems  []Problem
}

// variables picks our variables out of an environment. The last one of a name counts, as it does for os.Getenv on the systems
// that we run on.
func variables(environ []string) map[string]string {
	ours := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, Prefix) {
			ours[name] = value
		}
	}
	return ours
}

func (l *loader) problem(place Place, path, message string) {
	l.problems = append(l.problems, Problem{Place: place, Setting: path, Message: message})
}

// file reads the configuration file, if there is one.
func (l *loader) file(name string) *layer {
	out := newLayer()
	if name == "" {
		name = l.variables[FileVariable]
	}
	named := name != ""
	if !named {
		name = DefaultFile
	}
	data, err := ReadFile(name)
	if !named && errors.Is(err, fs.ErrNotExist) {
		return out
	}
	if err != nil {
		l.problem(Place{Layer: FromFile, Name: name}, "", "cannot be read: "+withoutPath(err))
		return out
	}
	l.name = name
	r := fileReader{name: name, table: l.table, layer: out, problems: &l.problems}
	r.read(data)
	return out
}

// environment reads the variables. The name of a setting comes before the _FILE form of another, so GATEHOUSE_ROOT_KEY_FILE is
// root_key_file.
func (l *loader) environment() *layer {
	out := newLayer()
	byName := map[string]setting{}
	for _, s := range l.table.settings {
		if s.elements == nil {
			byName[s.variable()] = s
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.variables)) {
		place := Place{Layer: FromEnvironment, Name: name}
		s, ok := byName[name]
		text := l.variables[name]
		if base, isFile := strings.CutSuffix(name, fileSuffix); !ok && isFile {
			if s, ok = byName[base]; ok {
				text, ok = l.valueFile(s, place, text)
				if !ok {
					continue
				}
			}
		}
		switch {
		case ok:
			l.value(out, s, text, place)
		case l.listed(name) != "":
			l.problem(place, "", "cannot be set by a variable: "+l.listed(name)+" stand in the configuration file only")
		case name != FileVariable:
			l.problem(place, "", "names no setting"+
				didYouMean(name, append(slices.Collect(maps.Keys(byName)), FileVariable), func(n string) string { return n }))
		}
	}
	return out
}

// listed returns the list of groups that a variable would set, or one of whose settings; empty if there is none.
func (l *loader) listed(variable string) string {
	for _, s := range l.table.settings {
		if base := s.variable(); s.elements != nil && (variable == base || strings.HasPrefix(variable, base+"_")) {
			return s.path
		}
	}
	return ""
}

// valueFile reads a value out of the file that a _FILE variable names. One line end at its end is not part of the value.
func (l *loader) valueFile(s setting, place Place, path string) (string, bool) {
	data, err := ReadFile(path)
	if err != nil {
		l.problem(place, s.path, fmt.Sprintf("names the file %q, which cannot be read: %s", path, withoutPath(err)))
		return "", false
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), true
}

// withoutPath is what the system says about a file, without the path, which stands in the message already.
func withoutPath(err error) string {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err.Error()
	}
	return err.Error()
}

// flags reads the flags that were given.
func (l *loader) flags(flags map[string]string) *layer {
	out := newLayer()
	for _, path := range slices.Sorted(maps.Keys(flags)) {
		s, ok := l.table.find(path)
		name, isFlag := s.flag()
		if ok && s.elements != nil {
			l.problem(Place{Layer: FromFlag, Name: "--" + path}, "", "cannot be set by a flag: "+path+" stand in the configuration file only")
			continue
		}
		if !ok || !isFlag {
			l.problem(Place{Layer: FromFlag, Name: "--" + strings.ReplaceAll(path, "_", "-")}, "", "is not a flag of a setting")
			continue
		}
		l.value(out, s, flags[path], Place{Layer: FromFlag, Name: "--" + name})
	}
	return out
}

// value decodes one variable or flag. Two of them for one setting are an error: which one is meant, nobody can say.
func (l *loader) value(out *layer, s setting, text string, place Place) {
	if other, again := out.places[s.path]; again {
		l.problem(place, s.path, "and "+other.Name+" are both set; keep one")
		return
	}
	if _, err := s.decode(text); err != nil {
		l.problem(place, s.path, err.Error())
	}
	out.set(s.path, text, place)
}

// merge lays the layers over the defaults, the weakest first. What cannot be decoded was found before and is passed over.
//
// The layers hold text, because koanf copies what it is given by reflection and would lose the unexported fields of values.
func (l *loader) merge(layers ...*layer) (*Loaded, error) {
	k := koanf.New(".")
	loaded := &Loaded{Config: defaults(), Origins: map[string]Place{}}
	for _, one := range layers {
		if err := k.Load(confmap.Provider(one.values, "."), nil); err != nil {
			return nil, err
		}
		maps.Copy(loaded.Origins, one.places)
	}
	lists := map[string]int{}
	for _, one := range layers {
		maps.Copy(lists, one.lists)
	}
	fill(reflect.ValueOf(&loaded.Config).Elem(), l.table, "", k, lists)
	return loaded, nil
}

// fill sets the fields of a group to what the sources say; prefix is empty or that of an element of a list, ending in a dot.
func fill(group reflect.Value, t table, prefix string, k *koanf.Koanf, lists map[string]int) {
	for _, s := range t.settings {
		s = s.under(prefix)
		field := group.FieldByIndex(s.index)
		switch n, isList := lists[s.path]; {
		case isList:
			field.Set(reflect.MakeSlice(s.field.Type, n, n))
			for i := range n {
				fill(field.Index(i), *s.elements, element(s.path, i)+".", k, lists)
			}
		case k.Exists(s.path):
			if v, err := s.decode(k.Get(s.path)); err == nil {
				field.Set(v)
			}
		}
	}
}

// rootKeyPrecedence settles which form of the root key counts: the one from the stronger source. Both from one source are
// found by check.
func (c *Config) rootKeyPrecedence(origins map[string]Place) {
	key, byValue := origins["root_key"]
	file, byFile := origins["root_key_file"]
	switch {
	case !byValue || !byFile || key.Layer == file.Layer:
	case key.Layer > file.Layer:
		c.RootKeyFile = ""
		delete(origins, "root_key_file")
	default:
		c.RootKey = Secret{}
		delete(origins, "root_key")
	}
}

// Setting is one value of a configuration as `gatehouse config show` prints it.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"` // secrets are hidden
	Origin Place  `json:"origin"`
}

// Settings lists the effective values, in the order of the reference. Secrets are hidden.
func (l *Loaded) Settings() []Setting {
	return l.settings(nil, reflect.ValueOf(l.Config), reference(), "")
}

func (l *Loaded) settings(list []Setting, group reflect.Value, t table, prefix string) []Setting {
	for _, s := range t.settings {
		s = s.under(prefix)
		field := group.FieldByIndex(s.index)
		if s.elements == nil || field.Len() == 0 {
			list = append(list, Setting{Name: s.path, Value: formatValue(field), Origin: l.Origins[s.path]})
			continue
		}
		for i := range field.Len() {
			list = l.settings(list, field.Index(i), *s.elements, element(s.path, i)+".")
		}
	}
	return list
}

// Flag is a setting that can be given on the command line.
type Flag struct {
	Name    string // without hyphens in front
	Setting string // the key for Sources.Flags
	Usage   string
	Default string // empty where it follows from other settings
}

// Flags lists the settings that are flags, in the order of the reference.
func Flags() []Flag {
	base := reflect.ValueOf(defaults())
	var list []Flag
	for _, s := range reference().settings {
		if name, ok := s.flag(); ok {
			list = append(list, Flag{
				Name: name, Setting: s.path, Usage: s.field.Tag.Get("flag"), Default: formatValue(base.FieldByIndex(s.index)),
			})
		}
	}
	return list
}
