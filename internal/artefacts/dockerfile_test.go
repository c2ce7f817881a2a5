package artefacts_test

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one line of a Dockerfile, continued lines joined.
type instruction struct{ name, rest string }

// dockerfile is what a Dockerfile says about the image that comes out, its last stage.
type dockerfile struct {
	build, final []instruction
	environment  map[string]string
	user         string
}

func readDockerfile(t *testing.T) dockerfile {
	t.Helper()
	d := dockerfile{environment: map[string]string{}}
	for line := range strings.SplitSeq(strings.ReplaceAll(read(t, "Dockerfile"), "\\\n", " "), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		if name == "FROM" {
			d.build, d.final = d.final, nil // two stages; TestDockerfile_endsWithNothingButTheProgram counts them
		}
		d.final = append(d.final, instruction{name, strings.TrimSpace(rest)})
	}
	for _, rest := range d.all("ENV") {
		for _, pair := range strings.Fields(rest) {
			name, value, _ := strings.Cut(pair, "=")
			d.environment[name] = value
		}
	}
	d.user = strings.Join(d.all("USER"), " ")
	return d
}

// all returns what stands behind each instruction of that name in the last stage.
func (d dockerfile) all(name string) []string {
	var found []string
	for _, i := range d.final {
		if i.name == name {
			found = append(found, i.rest)
		}
	}
	return found
}

// exec returns the words of an instruction in its exec form, the only one without a shell.
func (d dockerfile) exec(t *testing.T, name string) []string {
	t.Helper()
	text := strings.Join(d.all(name), " ")
	var words []string
	if err := json.Unmarshal([]byte(text[max(0, strings.Index(text, "[")):]), &words); err != nil {
		t.Fatalf("%s %s: want a list in JSON: %v", name, text, err)
	}
	return words
}

func TestDockerfile_endsWithNothingButTheProgram(t *testing.T) {
	t.Parallel()
	d := readDockerfile(t)
	if got := strings.Count("\n"+read(t, "Dockerfile"), "\nFROM "); got != 2 {
		t.Fatalf("got %d stages, want 2", got)
	}
	if from := d.build[0].rest; !regexp.MustCompile(`^golang:[0-9.]+ AS build$`).MatchString(from) {
		t.Errorf("the build stage is from %s", from)
	}
	if got := d.all("FROM"); !slices.Equal(got, []string{"scratch"}) {
		t.Errorf("the last stage is from %q", got)
	}
	if got := d.all("RUN"); len(got) != 0 {
		t.Errorf("the last stage runs %q; there is nothing in it that could", got)
	}
	if got := d.all("ADD"); len(got) != 0 {
		t.Errorf("the last stage adds %q; copy from the build stage", got)
	}
	for _, rest := range d.all("COPY") {
		if !strings.HasPrefix(rest, "--from=build ") {
			t.Errorf("COPY %s: not from the build stage", rest)
		}
	}
	if !regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`).MatchString(d.user) {
		t.Errorf("user %q is not a number other than root", d.user)
	}
}

func TestDockerfile_keepsDataInAVolumeOfItsUser(t *testing.T) {
	t.Parallel()
	d := readDockerfile(t)
	cfg := load(t, d.environment,
		"listen :8080 can be reached from other machines, and external_url http://localhost:8080 is not https") // what is published decides
	if got := d.exec(t, "VOLUME"); !slices.Equal(got, []string{cfg.Data}) {
		t.Errorf("got volumes %q, want the data folder %s", got, cfg.Data)
	}
	want := fmt.Sprintf("--from=build --chown=%s --chmod=0700 /out/data %s", d.user, cfg.Data)
	if !slices.Contains(d.all("COPY"), want) {
		t.Errorf("the data folder does not belong to the user; want COPY %s", want)
	}
	if got := d.all("EXPOSE"); !slices.Equal(got, []string{strings.TrimPrefix(cfg.Listen, ":")}) {
		t.Errorf("got EXPOSE %q, and the program listens on %s", got, cfg.Listen)
	}
}

// build carries the build command of the Dockerfile out, but for where the result goes.
func build(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "gatehouse")
	commands := slices.DeleteFunc(readDockerfile(t).build, func(i instruction) bool {
		return i.name != "RUN" || !strings.Contains(i.rest, " go build ")
	})
	if len(commands) != 1 || !strings.Contains(commands[0].rest, " -o /out/gatehouse ") {
		t.Fatalf("got %q, want one command that builds /out/gatehouse", commands)
	}
	shell(t, top, strings.Replace(commands[0].rest, "/out/gatehouse", "'"+program+"'", 1))
	return program
}

// TestDockerfile_buildsOneStaticFile: in a scratch image there is no loader and no library.
func TestDockerfile_buildsOneStaticFile(t *testing.T) {
	t.Parallel()
	program := build(t)
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program asks for a dynamic loader")
		}
	}
	if libraries, err := file.ImportedLibraries(); err == nil && len(libraries) > 0 { // an error says that there is no dynamic section
		t.Errorf("the program needs %q", libraries)
	}

	t.Run("commands", func(t *testing.T) { checkCommands(t, program) })
	t.Run("stack", func(t *testing.T) { checkStack(t, program) })
}

// checkCommands asks the program for the help of every command line that the artefacts start it with: one that it does not know, or a
// flag that it does not know, ends with another exit code.
func checkCommands(t *testing.T, program string) {
	d, c := readDockerfile(t), readCompose(t)
	const installed = "/usr/local/bin/gatehouse"
	if !slices.Contains(d.all("COPY"), "--from=build /out/gatehouse "+installed) {
		t.Errorf("the program is not copied to %s", installed)
	}
	health := d.exec(t, "HEALTHCHECK")
	if len(health) < 2 || health[1] != "health" {
		t.Errorf("got health check %q", health)
	}
	ours := [][]string{append(d.exec(t, "ENTRYPOINT"), d.exec(t, "CMD")...), health}
	if probe := c.Services["gateway"].Healthcheck.Test; probe[0] != "CMD" {
		t.Errorf("got health check %q, and there is no shell in the image", probe)
	} else {
		ours = append(ours, probe[1:])
	}
	ours = append(ours, strings.Fields(readUnit(t).one(t, "Service", "ExecStart")))
	ours = append(ours, installedCommands(t)...)
	for _, words := range ours {
		if words[0] != installed && words[0] != "gatehouse" {
			t.Errorf("%q is not the program", words)
			continue
		}
		if out, err := exec.CommandContext(t.Context(), program, append(words[1:], "--help")...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", words, err, out)
		}
	}
}
