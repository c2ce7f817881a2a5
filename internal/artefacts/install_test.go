package artefacts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// blocks returns the fenced blocks of one language of docs/install.md.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	var found []string
	for _, match := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(read(t, "docs/install.md"), -1) {
		found = append(found, match[1])
	}
	return found
}

// commandLines returns every line of the shell blocks of docs/install.md.
func commandLines(t *testing.T) []string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(strings.Join(blocks(t, "sh"), "")), "\n")
	if len(lines) < 10 {
		t.Fatalf("got %d commands; is the pattern right?", len(lines))
	}
	return lines
}

// installedCommands returns the command lines of docs/install.md that start the program, directly, as root or in its container.
func installedCommands(t *testing.T) [][]string {
	t.Helper()
	var found [][]string
	for _, line := range commandLines(t) {
		for _, prefix := range []string{"", "sudo ", "docker compose exec gateway "} {
			if rest, ours := strings.CutPrefix(line, prefix+"gatehouse "); ours {
				found = append(found, append([]string{"gatehouse"}, strings.Fields(rest)...))
			}
		}
	}
	return found
}

func TestInstall_makesTheSecretsOfTheComposeFile(t *testing.T) {
	t.Parallel()
	for _, line := range recipe(t) {
		if !slices.Contains(commandLines(t), line) {
			t.Errorf("docs/install.md does not have the line %s", line)
		}
	}
}

// TestInstall_putsFilesWhereTheUnitLooks holds the sources of install(1) against the project, and its targets against the unit.
func TestInstall_putsFilesWhereTheUnitLooks(t *testing.T) {
	t.Parallel()
	var targets []string
	for _, line := range commandLines(t) {
		words := strings.Fields(line)
		at := slices.Index(words, "install")
		if at < 0 {
			continue
		}
		target, source := words[len(words)-1], words[len(words)-2]
		targets = append(targets, target)
		if strings.HasPrefix(source, "configs/") {
			if _, err := os.Stat(filepath.Join(top, source)); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	u := readUnit(t)
	program, _, _ := strings.Cut(u.one(t, "Service", "ExecStart"), " ")
	_, key, _ := strings.Cut(u.one(t, "Service", "LoadCredential"), ":")
	config := unitEnvironment(t, u, "/etc/gatehouse")["GATEHOUSE_CONFIG"]
	for _, wanted := range []string{program, key, config} {
		if !slices.Contains(targets, wanted) {
			t.Errorf("the unit needs %s, which docs/install.md does not install", wanted)
		}
	}
}

// TestDockerignore_leavesOutWhatGitDoes: what git passes over may hold data and secrets of a running gateway; and a file that git
// knows must not be missing, or the build says that the source was changed.
func TestDockerignore_leavesOutWhatGitDoes(t *testing.T) {
	t.Parallel()
	lines := strings.Split(read(t, ".dockerignore"), "\n")
	for line := range strings.SplitSeq(strings.TrimSpace(read(t, ".gitignore")), "\n") {
		pattern := strings.Trim(line, "/")
		if strings.HasPrefix(pattern, "*") { // at any depth, which a .dockerignore says with two more stars
			pattern = "**/" + pattern
		}
		if !strings.HasPrefix(line, "#") && line != "" && !slices.Contains(lines, pattern) {
			t.Errorf("git leaves %s out, and the image does not", line)
		}
	}
	for _, pattern := range []string{".secrets/*", "!.secrets/.gitignore"} {
		if !slices.Contains(lines, pattern) {
			t.Errorf("%s is missing in .dockerignore", pattern)
		}
	}
	if slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, ".git") }) {
		t.Error("without .git the program does not know its commit")
	}
}
