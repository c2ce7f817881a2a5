package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/configs"
)

// runConfig runs `gatehouse config …` and returns exit code, standard output and standard error.
func runConfig(t *testing.T, environ []string, args ...string) (int, string, string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code := run(t.Context(), append([]string{"config"}, args...), machine{
		in: strings.NewReader(""), out: &out, errOut: &errOut, environ: environ, now: time.Now,
	})
	return code, out.String(), errOut.String()
}

func TestConfigCheck_listsEveryMistakeOnALineOfItsOwn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(file, []byte("upsteam: x\nlog: {level: loud}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := runConfig(t, nil, "check", "--config", file)
	want := "gatehouse: the configuration has 2 mistakes:\n" +
		file + ":1:1 unknown key \"upsteam\" — did you mean \"upstream\"?\n" +
		file + ":2:14 log.level must be debug, info, warn or error, not \"loud\"\n"
	if code != exitFailed || out != "" || errOut != want {
		t.Errorf("got %d, %q, %q, want 1, nothing, %q", code, out, errOut, want)
	}

	code, out, _ = runConfig(t, nil, "check", "--config", file, "-o", "json")
	var result struct {
		Good     bool
		Problems []struct{ Setting, Message string }
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatal(err)
	}
	if code != exitFailed || result.Good || len(result.Problems) != 2 || result.Problems[1].Setting != "log.level" {
		t.Errorf("got %d, %+v", code, result)
	}
}

func TestConfigCheck_warns(t *testing.T) {
	t.Parallel()
	code, out, errOut := runConfig(t, nil, "check", "--config", os.DevNull, "--listen", "0.0.0.0:8080")
	if code != exitDone || !strings.Contains(out, "warning: listen 0.0.0.0:8080") || errOut != "" {
		t.Errorf("got %d, %q, %q", code, out, errOut)
	}
}

func TestConfigShow_tellsWhereValuesComeFromAndHidesSecrets(t *testing.T) {
	t.Parallel()
	environ := []string{"GATEHOUSE_STORE=redis://:geheim@127.0.0.1:6379/0", "GATEHOUSE_ROOT_KEY=geheim"}
	for _, format := range []string{"table", "json"} {
		code, out, errOut := runConfig(t, environ, "show", "--config", os.DevNull, "--upstream", "http://127.0.0.1:9090", "-o", format)
		if code != exitDone || strings.Contains(out+errOut, "geheim") {
			t.Errorf("%s: got %d, %q, %q", format, code, out, errOut)
		}
		for _, want := range []string{"http://127.0.0.1:9090", "--upstream", "GATEHOUSE_ROOT_KEY", "[hidden]"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is missing in %s", format, want, out)
			}
		}
	}
}

func TestConfigTemplateAndSchema_printTheReference(t *testing.T) {
	t.Parallel()
	for verb, want := range map[string][]byte{"template": configs.Template(), "schema": configs.Schema()} {
		if code, out, errOut := runConfig(t, nil, verb); code != exitDone || out != string(want) {
			t.Errorf("%s: got %d, %q, %q", verb, code, out, errOut)
		}
	}
}
