package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/configs"
)

// document is one page of the documentation; its name is relative to the top of the project.
type document struct{ name, text string }

const top = "../.."

// documents reads every page that a reader of the project finds.
func documents(t *testing.T) []document {
	t.Helper()
	var all []document
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		files, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, document{strings.TrimPrefix(file, top+"/"), string(text)})
		}
	}
	if len(all) < 5 {
		t.Fatalf("got %d pages; is this the top of the project?", len(all))
	}
	return all
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)[^\n]*\n(.*?)^```$")

// blocks returns the fenced blocks of one language.
func (d document) blocks(language string) []string {
	var found []string
	for _, match := range fence.FindAllStringSubmatch(d.text, -1) {
		if match[1] == language {
			found = append(found, match[2])
		}
	}
	return found
}

// TestDocs_configurationsLoad loads every yaml block: each is a whole, valid configuration.
func TestDocs_configurationsLoad(t *testing.T) {
	t.Parallel()
	count := 0
	for _, d := range documents(t) {
		for _, block := range d.blocks("yaml") {
			file := filepath.Join(t.TempDir(), "gatehouse.yaml")
			if err := os.WriteFile(file, []byte(block), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := configs.Load(configs.Sources{File: file}); err != nil {
				t.Errorf("%s: %v\n%s", d.name, err, block)
			}
			count++
		}
	}
	if count == 0 {
		t.Error("no configuration found in the documentation; is the pattern right?")
	}
}

// TestDocs_commandsExist holds every command line of the documentation against the commands, flags and arguments there are.
func TestDocs_commandsExist(t *testing.T) {
	t.Parallel()
	count := 0
	for _, d := range documents(t) {
		for _, block := range d.blocks("sh") {
			for _, words := range commandLines(block) {
				if args, ours := gatehouse(words); ours {
					count++
					if complaint := tryCommand(args); complaint != "" {
						t.Errorf("%s: %s: %s", d.name, strings.Join(words, " "), complaint)
					}
				} else if words[0] == "make" {
					checkTarget(t, d, words)
				}
			}
		}
		for _, span := range regexp.MustCompile("`gatehouse ([a-z][^`]*)`").FindAllStringSubmatch(d.text, -1) {
			count++
			if complaint := findCommand(strings.Fields(span[1])); complaint != "" {
				t.Errorf("%s: `gatehouse %s`: %s", d.name, span[1], complaint)
			}
		}
	}
	if count == 0 {
		t.Error("no command found in the documentation; is the pattern right?")
	}
}

// commandLines takes a shell block apart into commands, each in words. It knows what the documentation uses: comments,
// continued lines, pipes, lists, redirections, variables in front, and quotes.
func commandLines(block string) [][]string {
	block = strings.ReplaceAll(block, "\\\n", " ")
	var all [][]string
	for line := range strings.SplitSeq(block, "\n") {
		words := []string{}
		for _, word := range shellWords(line) {
			if slices.Contains([]string{"|", "&&", ";", "&"}, word) {
				all, words = append(all, words), []string{}
				continue
			}
			words = append(words, word)
		}
		all = append(all, words)
	}
	for i, words := range all {
		for len(words) > 0 && regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0]) {
			words = words[1:]
		}
		if end := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, ">") || strings.HasPrefix(w, "<") }); end >= 0 {
			words = words[:end]
		}
		all[i] = words
	}
	return slices.DeleteFunc(all, func(words []string) bool { return len(words) == 0 })
}

var shellWord = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`)

// shellWords splits a line; a # that begins a word begins a comment.
func shellWords(line string) []string {
	var words []string
	for _, word := range shellWord.FindAllString(line, -1) {
		if strings.HasPrefix(word, "#") {
			break
		}
		words = append(words, strings.Trim(word, `'"`))
	}
	return words
}

// gatehouse returns the arguments of a command line that runs this program.
func gatehouse(words []string) ([]string, bool) {
	switch {
	case filepath.Base(words[0]) == "gatehouse":
		return words[1:], true
	case len(words) > 2 && words[0] == "go" && words[1] == "run" && words[2] == "./cmd/gatehouse":
		return words[3:], true
	default:
		return nil, false
	}
}

// tryCommand goes as far with a command line as is possible without carrying it out, and returns what is wrong with it.
func tryCommand(args []string) string {
	root := newRootCommand(machine{in: &bytes.Buffer{}, out: io.Discard, errOut: io.Discard})
	command, rest, err := root.Find(args)
	switch {
	case err != nil:
		return err.Error()
	case command.HasSubCommands():
		return "is no command by itself"
	}
	if err := command.ParseFlags(rest); err != nil {
		return err.Error()
	}
	if err := command.ValidateArgs(command.Flags().Args()); err != nil {
		return err.Error()
	}
	if err := command.ValidateRequiredFlags(); err != nil {
		return err.Error()
	}
	return ""
}

// findCommand checks a command that is mentioned in a sentence, where arguments and flags may be left out.
func findCommand(words []string) string {
	root := newRootCommand(machine{in: &bytes.Buffer{}, out: io.Discard, errOut: io.Discard})
	command := root
	for _, word := range words {
		if !command.HasSubCommands() {
			break
		}
		next, _, err := command.Find([]string{word})
		if err != nil || next == command {
			return "there is no command " + word
		}
		command = next
	}
	for _, word := range words {
		if name, long := strings.CutPrefix(word, "--"); long && command.Flag(name) == nil && command.InheritedFlags().Lookup(name) == nil {
			return "there is no flag " + word
		}
	}
	return ""
}

func checkTarget(t *testing.T, d document, words []string) {
	t.Helper()
	makefile, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range words[1:] {
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(target) + `:`).Match(makefile) {
			t.Errorf("%s: make has no target %s", d.name, target)
		}
	}
}

// TestDocs_variablesExist holds every variable that the documentation names against the settings.
func TestDocs_variablesExist(t *testing.T) {
	t.Parallel()
	loaded, err := configs.Load(configs.Sources{File: os.DevNull})
	if err != nil {
		t.Fatal(err)
	}
	known := []string{configs.FileVariable, "GATEHOUSE_PROVE"} // the second is read by tests only
	for _, s := range loaded.Settings() {
		name := configs.Prefix + strings.ToUpper(strings.ReplaceAll(s.Name, ".", "__"))
		known = append(known, name, name+"_FILE")
	}
	for _, d := range documents(t) {
		for _, name := range regexp.MustCompile(`GATEHOUSE_[A-Z_]+`).FindAllString(d.text, -1) {
			if !slices.Contains(known, name) {
				t.Errorf("%s names %s, which is no setting", d.name, name)
			}
		}
	}
}

// TestDocs_linksLead follows every link to a file of the project.
func TestDocs_linksLead(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t) {
		for _, link := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(d.text, -1) {
			if _, err := os.Stat(filepath.Join(top, filepath.Dir(d.name), link[1])); err != nil {
				t.Errorf("%s links to %s: %v", d.name, link[1], err)
			}
		}
	}
}
