package artefacts_test

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/configs"
)

// top is the top of the project.
const top = "../.."

// all is every artefact.
var all = []string{"Dockerfile", ".dockerignore", "docker-compose.yml", "configs/systemd/gatehouse.service", "docs/install.md"}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// shell runs a script in a folder and returns its output; it fails the test if the script fails.
func shell(t *testing.T, dir, script string, environ ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	command.Dir, command.Env = dir, append(os.Environ(), environ...)
	var errOut bytes.Buffer
	command.Stderr = &errOut
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s\n%v\n%s%s", script, err, out, errOut.String())
	}
	return string(out)
}

// load loads the configuration of an environment as the program does. Warnings are not allowed, but for those listed.
func load(t *testing.T, environ map[string]string, warnings ...string) configs.Config {
	t.Helper()
	src := configs.Sources{File: environ[configs.FileVariable]}
	if src.File == "" {
		src.File = os.DevNull // not the file of whoever runs the test
	}
	for _, name := range slices.Sorted(maps.Keys(environ)) {
		src.Environ = append(src.Environ, name+"="+environ[name])
	}
	loaded, err := configs.Load(src)
	if err != nil {
		t.Fatalf("the program refuses this environment: %v", err)
	}
	if !slices.Equal(loaded.Warnings, warnings) {
		t.Errorf("got warnings %q, want %q", loaded.Warnings, warnings)
	}
	return loaded.Config
}

func TestArtefacts_nameVariablesThatExist(t *testing.T) {
	t.Parallel()
	loaded, err := configs.Load(configs.Sources{File: os.DevNull})
	if err != nil {
		t.Fatal(err)
	}
	known := []string{configs.FileVariable}
	for _, s := range loaded.Settings() {
		name := configs.Prefix + strings.ToUpper(strings.ReplaceAll(s.Name, ".", "__"))
		known = append(known, name, name+"_FILE")
	}
	for _, file := range all {
		for _, name := range regexp.MustCompile(configs.Prefix+`[A-Z_]+`).FindAllString(read(t, file), -1) {
			if !slices.Contains(known, name) {
				t.Errorf("%s names %s, which is no setting", file, name)
			}
		}
	}
}

// TestArtefacts_holdNoSecret looks for what a secret looks like: a long run of base64 or hexadecimal digits, or a literal password
// in a URL.
func TestArtefacts_holdNoSecret(t *testing.T) {
	t.Parallel()
	random := regexp.MustCompile(`[A-Za-z0-9+=]{32,}`)
	password := regexp.MustCompile(`://[^/\s:@]*:[^$\s@][^\s@]*@`)
	for _, file := range all {
		for _, pattern := range []*regexp.Regexp{random, password} {
			if found := pattern.FindString(read(t, file)); found != "" {
				t.Errorf("%s: %q looks like a secret", file, found)
			}
		}
	}
}
