package configs

import (
	"encoding"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// setting is one value that can be set: a field of Config or of a struct within it.
type setting struct {
	path  string // dotted, as in login.second_factor
	index []int  // of the field, for reflect.Value.FieldByIndex
	field reflect.StructField
	// elements are the settings of each of a list of groups, by their paths within it; nil where the setting holds values.
	elements *table
}

// under is the setting as it is called within an element of a list, whose prefix ends in a dot.
func (s setting) under(prefix string) setting {
	s.path = prefix + s.path
	return s
}

// element is the path of one of a list of groups.
func element(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

// environmentOnly reports whether the setting may stand neither in the file nor among the flags.
func (s setting) environmentOnly() bool { return s.field.Tag.Get("only") == "environment" }

// isList reports whether the setting holds any number of values.
func (s setting) isList() bool { return s.field.Type.Kind() == reflect.Slice }

// variable is the name in the environment: nesting is a double underscore.
func (s setting) variable() string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(s.path, ".", "__"))
}

// flag is the name of the setting's flag, without the hyphens; the second result says whether there is one.
func (s setting) flag() (string, bool) {
	_, ok := s.field.Tag.Lookup("flag")
	return strings.ReplaceAll(s.path, "_", "-"), ok
}

// table is every setting and every group of settings, in the order of the types.
type table struct {
	settings []setting
	groups   []string
}

// reference makes the table of Config.
func reference() table {
	var t table
	t.add(reflect.TypeFor[Config](), "", nil)
	return t
}

func (t *table) add(typ reflect.Type, prefix string, index []int) {
	for i := range typ.NumField() {
		field := typ.Field(i)
		path := prefix + field.Tag.Get("config")
		at := append(index[:len(index):len(index)], i)
		if group(field.Type) {
			t.groups = append(t.groups, path)
			t.add(field.Type, path+".", at)
			continue
		}
		one := setting{path: path, index: at, field: field}
		if field.Type.Kind() == reflect.Slice && group(field.Type.Elem()) {
			one.elements = &table{}
			one.elements.add(field.Type.Elem(), "", nil)
		}
		t.settings = append(t.settings, one)
	}
}

// group reports whether a field holds further settings and is not a value itself.
func group(typ reflect.Type) bool {
	return typ.Kind() == reflect.Struct && typ != reflect.TypeFor[netip.Prefix]() && !readsText(typ)
}

func readsText(typ reflect.Type) bool {
	return reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// find returns the setting with that path.
func (t table) find(path string) (setting, bool) {
	for _, s := range t.settings {
		if s.path == path {
			return s, true
		}
	}
	return setting{}, false
}

// paths is every name that may stand in the file, that of a setting of a list with [] for its place in there.
func (t table) paths() []string {
	paths := append([]string(nil), t.groups...)
	for _, s := range t.settings {
		if !s.environmentOnly() {
			paths = append(paths, s.path)
		}
	}
	for _, s := range t.settings {
		if s.elements != nil {
			paths = append(paths, prefixed(s.elements.paths(), s.path+"[].")...)
		}
	}
	return paths
}

func prefixed(paths []string, prefix string) []string {
	out := make([]string, len(paths))
	for i, path := range paths {
		out[i] = prefix + path
	}
	return out
}

// decode turns what a source holds, a text or a list of texts, into a value of the setting's type and holds it against the
// setting's limits. The error is the predicate of a sentence whose subject is the setting.
func (s setting) decode(raw any) (reflect.Value, error) {
	if s.isList() {
		return s.decodeList(raw)
	}
	text, ok := raw.(string)
	if !ok {
		return reflect.Value{}, errors.New("must be a single value, not a list")
	}
	v, err := decodeText(s.field.Type, text)
	if err != nil {
		return v, err
	}
	return v, s.limits(v)
}

func (s setting) decodeList(raw any) (reflect.Value, error) {
	items, ok := raw.([]string)
	if !ok {
		items = splitList(raw.(string))
	}
	list := reflect.MakeSlice(s.field.Type, 0, len(items))
	for _, item := range items {
		if item == "" {
			return list, errors.New(`must not hold an empty value; [] is the empty list`)
		}
		v, err := decodeText(s.field.Type.Elem(), item)
		if err != nil {
			return list, err
		}
		list = reflect.Append(list, v)
	}
	return list, nil
}

// splitList takes a comma-separated list apart, as variables hold it. Nothing between two commas is nothing.
func splitList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
}

func decodeText(typ reflect.Type, text string) (reflect.Value, error) {
	v := reflect.New(typ).Elem()
	switch {
	case typ == reflect.TypeFor[time.Duration]():
		d, err := parseDuration(text)
		v.SetInt(int64(d))
		return v, err
	case typ == reflect.TypeFor[netip.Prefix]():
		p, err := parsePrefix(text)
		v.Set(reflect.ValueOf(p))
		return v, err
	case readsText(typ):
		return v, v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	case typ.Kind() == reflect.Bool:
		v.SetBool(text == "true")
		if text != "true" && text != "false" {
			return v, fmt.Errorf("must be true or false, not %q", text)
		}
		return v, nil
	case typ.Kind() == reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return v, fmt.Errorf("must be a whole number, not %q", text)
		}
		v.SetInt(int64(n))
		return v, nil
	case strings.ContainsFunc(text, unicode.IsControl):
		return v, errors.New("must not hold control characters")
	default:
		v.SetString(text)
		return v, nil
	}
}

// limits enforces the tags min, max and oneof.
func (s setting) limits(v reflect.Value) error {
	if words := s.field.Tag.Get("oneof"); words != "" {
		allowed := strings.Fields(words)
		for _, word := range allowed {
			if v.String() == word {
				return nil
			}
		}
		return fmt.Errorf("must be %s, not %q", oneOf(allowed), v.String())
	}
	least, hasLeast := s.bound("min")
	most, hasMost := s.bound("max")
	size := v
	if v.Kind() == reflect.String {
		size = reflect.ValueOf(v.Len())
	}
	switch {
	case v.Kind() == reflect.String && hasLeast && size.Int() < least:
		return errors.New("must not be empty")
	case hasLeast && size.Int() < least, hasMost && size.Int() > most:
		return fmt.Errorf("must be from %s to %s, not %s", s.field.Tag.Get("min"), s.field.Tag.Get("max"), formatValue(v))
	}
	return nil
}

// bound reads a limit. A tag that does not parse is a defect of this package, found by TestDefault_isWithinItsOwnLimits.
func (s setting) bound(tag string) (int64, bool) {
	text, ok := s.field.Tag.Lookup(tag)
	if !ok {
		return 0, false
	}
	typ := s.field.Type
	if typ.Kind() == reflect.String {
		typ = reflect.TypeFor[int]()
	}
	v, err := decodeText(typ, text)
	if err != nil {
		panic(fmt.Sprintf("configs: tag %s of %s: %v", tag, s.path, err))
	}
	return v.Int(), true
}

func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// formatValue writes a value as decode reads it, with secrets hidden.
func formatValue(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case time.Duration:
		return formatDuration(value)
	case fmt.Stringer:
		return value.String()
	}
	if v.Kind() == reflect.Slice {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = formatValue(v.Index(i))
		}
		return strings.Join(items, ", ")
	}
	return fmt.Sprint(v.Interface())
}
