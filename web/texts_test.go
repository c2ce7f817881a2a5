package web_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/problem"
)

// flatten gives every text its dotted key. Plural forms are one text.
func flatten(prefix string, tree map[string]any, into map[string]string) {
	for name, value := range tree {
		switch v := value.(type) {
		case string:
			into[prefix+name] = v
		case map[string]any:
			if other, plural := v["other"].(string); plural {
				into[prefix+name] = other
				continue
			}
			flatten(prefix+name+".", v, into)
		}
	}
}

func readTexts(t *testing.T, name string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("texts", name))
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	flat := map[string]string{}
	flatten("", tree, flat)
	return flat
}

// computed are the keys that the source puts together, each with who says it.
func computed() []string {
	keys := []string{"expired.setup", "expired.invite"} // refuseLink, by link.Kind
	for score := range 5 {                              // accountPage.Strength
		keys = append(keys, "password.strength-"+string(rune('0'+score)))
	}
	for _, code := range problem.Codes() { // title and next
		keys = append(keys, "problem."+string(code)+".title", "problem."+string(code)+".next")
	}
	return keys
}

func TestTexts_areCompleteAndUsed(t *testing.T) {
	t.Parallel()
	english, german := readTexts(t, "en.json"), readTexts(t, "de.json")
	said := map[string]bool{}
	for _, key := range computed() {
		said[key] = true
	}
	quoted := regexp.MustCompile(`"([a-z][a-z0-9-]*(?:\.[a-z0-9-]+)+)"`)
	files, _ := filepath.Glob("templates/*.html")
	code, _ := filepath.Glob("*.go")
	for _, file := range append(files, code...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range quoted.FindAllStringSubmatch(string(data), -1) {
			said[found[1]] = true
		}
		for _, found := range regexp.MustCompile(`\.(?:T|Around) "([^"]+)"`).FindAllStringSubmatch(string(data), -1) {
			if english[found[1]] == "" {
				t.Errorf("%s says %q, which no language has", file, found[1])
			}
		}
		for _, found := range regexp.MustCompile(`\bsay\("([^"]+)"`).FindAllStringSubmatch(string(data), -1) {
			if english[found[1]] == "" {
				t.Errorf("%s says %q, which no language has", file, found[1])
			}
		}
	}
	for _, key := range computed() {
		if english[key] == "" {
			t.Errorf("English lacks %q", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(english)) {
		if german[key] == "" {
			t.Errorf("German lacks %q", key)
		}
		if !said[key] {
			t.Errorf("no page says %q", key)
		}
		if english[key] == german[key] && len(english[key]) > 12 {
			t.Errorf("%q is the same in both languages: %q", key, english[key])
		}
	}
	for key := range german {
		if english[key] == "" {
			t.Errorf("English lacks %q", key)
		}
	}
}
