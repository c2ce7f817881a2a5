package configs

import "reflect"

// Changed lists the settings in which two configurations differ, by their dotted names, in the order of the reference.
func Changed(a, b Config) []string {
	return differences(reflect.ValueOf(a), reflect.ValueOf(b), "")
}

func differences(a, b reflect.Value, prefix string) []string {
	var all []string
	for i := range a.NumField() {
		field := a.Type().Field(i)
		name := prefix + field.Tag.Get("config")
		switch {
		case group(field.Type):
			all = append(all, differences(a.Field(i), b.Field(i), name+".")...)
		case !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			all = append(all, name)
		}
	}
	return all
}

// NeedRestart lists the settings, and groups of them, that differ and that a running gateway cannot change.
func NeedRestart(a, b Config) []string {
	var all []string
	fixed(reflect.TypeFor[Config](), "", nil, func(name string, index []int) {
		if !reflect.DeepEqual(reflect.ValueOf(a).FieldByIndex(index).Interface(), reflect.ValueOf(b).FieldByIndex(index).Interface()) {
			all = append(all, name)
		}
	})
	return all
}

// fixed visits everything that is marked as needing a restart.
func fixed(typ reflect.Type, prefix string, index []int, visit func(name string, index []int)) {
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, at := prefix+field.Tag.Get("config"), append(index[:len(index):len(index)], i)
		switch {
		case field.Tag.Get("restart") == "required":
			visit(name, at)
		case group(field.Type):
			fixed(field.Type, name+".", at, visit)
		}
	}
}
