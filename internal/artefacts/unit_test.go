package artefacts_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unit is a systemd unit: the values of each key of each section, in their order.
type unit map[string]map[string][]string

// parseUnit reads what ours use of systemd.syntax(7): sections, assignments, comments; no continued lines.
func parseUnit(t *testing.T, text string) unit {
	t.Helper()
	u, section := unit{}, ""
	for line := range strings.SplitSeq(text, "\n") {
		key, value, assigned := strings.Cut(line, "=")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
			u[section] = map[string][]string{}
		case assigned && section != "" && value != "" && !strings.ContainsAny(key, " \t") && !strings.HasSuffix(value, `\`):
			u[section][key] = append(u[section][key], value)
		default:
			t.Errorf("%q is neither a section nor a setting in one", line)
		}
	}
	return u
}

func readUnit(t *testing.T) unit {
	t.Helper()
	return parseUnit(t, read(t, "configs/systemd/gatehouse.service"))
}

// one returns the value of a key that must stand there once.
func (u unit) one(t *testing.T, section, key string) string {
	t.Helper()
	values := u[section][key]
	if len(values) != 1 {
		t.Fatalf("[%s] %s: got %q, want one value", section, key, values)
	}
	return values[0]
}

// TestUnit_isConfined names every setting on which the confinement rests: systemd passes over a name that it does not know, so a
// misspelt one would protect nothing and nobody would see it.
func TestUnit_isConfined(t *testing.T) {
	t.Parallel()
	u := readUnit(t)
	want := map[string][]string{
		"DynamicUser":             {"yes"},
		"StateDirectory":          {"gatehouse"},
		"StateDirectoryMode":      {"0700"},
		"LogsDirectory":           {"gatehouse"},
		"LogsDirectoryMode":       {"0700"},
		"UMask":                   {"0077"},
		"LoadCredential":          {"root.key:/etc/gatehouse/root.key"},
		"CapabilityBoundingSet":   {"CAP_NET_BIND_SERVICE"},
		"AmbientCapabilities":     {"CAP_NET_BIND_SERVICE"},
		"NoNewPrivileges":         {"yes"},
		"ProtectSystem":           {"strict"},
		"ProtectHome":             {"yes"},
		"PrivateTmp":              {"yes"},
		"PrivateDevices":          {"yes"},
		"PrivateMounts":           {"yes"},
		"DevicePolicy":            {"closed"},
		"ProtectProc":             {"invisible"},
		"NoExecPaths":             {"/"},
		"ExecPaths":               {"/usr/local/bin/gatehouse"},
		"ProtectClock":            {"yes"},
		"ProtectControlGroups":    {"yes"},
		"ProtectHostname":         {"yes"},
		"ProtectKernelLogs":       {"yes"},
		"ProtectKernelModules":    {"yes"},
		"ProtectKernelTunables":   {"yes"},
		"PrivateIPC":              {"yes"},
		"RemoveIPC":               {"yes"},
		"KeyringMode":             {"private"},
		"LockPersonality":         {"yes"},
		"MemoryDenyWriteExecute":  {"yes"},
		"RestrictAddressFamilies": {"AF_INET AF_INET6 AF_UNIX"},
		"RestrictNamespaces":      {"yes"},
		"RestrictRealtime":        {"yes"},
		"RestrictSUIDSGID":        {"yes"},
		"SystemCallArchitectures": {"native"},
		"SystemCallFilter":        {"@system-service", "~@privileged"},
		"SystemCallErrorNumber":   {"EPERM"},
		"LimitCORE":               {"0"},
	}
	for key, values := range want {
		if got := u["Service"][key]; !slices.Equal(got, values) {
			t.Errorf("%s: got %q, want %q", key, got, values)
		}
	}
	known := []string{"Type", "ExecStart", "ExecReload", "Environment", "Restart", "RestartSec", "TimeoutStopSec", "LimitNOFILE", "CPUWeight"}
	for key := range u["Service"] {
		if _, confines := want[key]; !confines && !slices.Contains(known, key) {
			t.Errorf("%s: is it spelt right? then this test should say what it is for", key)
		}
	}
}

// TestUnit_waitsForTheProgramsWord: TestServe_reloadsUnderLoad shows that the program sends what Type=notify waits for, and reloads by
// SIGHUP.
func TestUnit_waitsForTheProgramsWord(t *testing.T) {
	t.Parallel()
	u := readUnit(t)
	if got := u.one(t, "Service", "Type"); got != "notify" {
		t.Errorf("got Type=%s, want notify", got)
	}
	if got := u.one(t, "Service", "ExecReload"); got != "+/bin/kill -HUP $MAINPID" {
		t.Errorf("got ExecReload=%s", got)
	}
	if got := u.one(t, "Install", "WantedBy"); got != "multi-user.target" {
		t.Errorf("got WantedBy=%s", got)
	}
}

// unitEnvironment is the environment that a unit gives the program, with the folders of systemd below one of the test.
func unitEnvironment(t *testing.T, u unit, dir string) map[string]string {
	t.Helper()
	environ := map[string]string{}
	for _, assignment := range u["Service"]["Environment"] {
		name, value, found := strings.Cut(assignment, "=")
		if !found || strings.ContainsAny(value, `"' `) {
			t.Fatalf("Environment=%s: want NAME=value without quotes", assignment)
		}
		value = strings.NewReplacer("%d", dir, "%S", dir, "/etc/gatehouse", dir).Replace(value)
		if strings.Contains(value, "%") {
			t.Errorf("Environment=%s: this test knows the specifiers %%d and %%S", assignment)
		}
		environ[name] = value
	}
	return environ
}

// TestUnit_environmentLoads loads what the unit and the pieces of docs/install.md say together.
func TestUnit_environmentLoads(t *testing.T) {
	t.Parallel()
	u, dir := readUnit(t), t.TempDir()
	yaml, ini := blocks(t, "yaml"), blocks(t, "ini")
	if len(yaml) != 1 || len(ini) != 1 {
		t.Fatalf("got %d configurations and %d additions to the unit in docs/install.md, want one each", len(yaml), len(ini))
	}
	write(t, filepath.Join(dir, "gatehouse.yaml"), yaml[0])
	environ := unitEnvironment(t, u, dir)
	cfg := load(t, environ)
	if cfg.Data != filepath.Join(dir, u.one(t, "Service", "StateDirectory")) {
		t.Errorf("the data folder %s is not the state folder", cfg.Data)
	}
	credential, _, _ := strings.Cut(u.one(t, "Service", "LoadCredential"), ":")
	if cfg.RootKeyFile != filepath.Join(dir, credential) {
		t.Errorf("the root key %s is not the credential", cfg.RootKeyFile)
	}

	addition := parseUnit(t, ini[0])
	write(t, filepath.Join(dir, "store.url"), "redis://:geheim@127.0.0.1:6379\n")
	for name, value := range unitEnvironment(t, addition, dir) {
		environ[name] = value
	}
	if cfg := load(t, environ); cfg.Store.Reveal() != "redis://:geheim@127.0.0.1:6379" {
		t.Errorf("got store %s", cfg.Store)
	}
	credential, source, _ := strings.Cut(addition.one(t, "Service", "LoadCredential"), ":")
	if credential != "store.url" || !strings.Contains(read(t, "docs/install.md"), "`"+source+"`") {
		t.Errorf("the credential %s comes from %s, which the page does not name", credential, source)
	}
	if _, err := os.Stat(cfg.Data); err == nil {
		t.Error("loading a configuration made the data folder")
	}
}
