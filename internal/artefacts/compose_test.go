package artefacts_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"gatehouse/secrets"
	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

// compose is a Compose file, as far as ours goes. Decoding is strict, so a key that is misspelt is found.
type compose struct {
	Name     string             `yaml:"name"`
	Confined service            `yaml:"x-confined"`
	Services map[string]service `yaml:"services"`
	Secrets  map[string]struct {
		File string `yaml:"file"`
	} `yaml:"secrets"`
	Volumes  map[string]struct{} `yaml:"volumes"`
	Networks map[string]struct {
		Internal bool `yaml:"internal"`
	} `yaml:"networks"`
}

type service struct {
	Build       string            `yaml:"build"`
	Image       string            `yaml:"image"`
	User        string            `yaml:"user"`
	Hostname    string            `yaml:"hostname"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Secrets     []string          `yaml:"secrets"`
	Volumes     []string          `yaml:"volumes"`
	Ports       []string          `yaml:"ports"`
	Networks    []string          `yaml:"networks"`
	DependsOn   map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
	Healthcheck struct {
		Test        []string      `yaml:"test"`
		Interval    time.Duration `yaml:"interval"`
		Timeout     time.Duration `yaml:"timeout"`
		StartPeriod time.Duration `yaml:"start_period"`
		Retries     int           `yaml:"retries"`
	} `yaml:"healthcheck"`
	ReadOnly        bool          `yaml:"read_only"`
	CapDrop         []string      `yaml:"cap_drop"`
	SecurityOpt     []string      `yaml:"security_opt"`
	Restart         string        `yaml:"restart"`
	StopGracePeriod time.Duration `yaml:"stop_grace_period"`
	Logging         struct {
		Driver string `yaml:"driver"`
	} `yaml:"logging"`
}

func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	if err := yaml.UnmarshalWithOptions([]byte(read(t, "docker-compose.yml")), &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return c
}

// unescaped is what Compose makes of a text: a doubled dollar is a dollar, and a single one would be a variable of whoever starts it.
func unescaped(t *testing.T, text string) string {
	t.Helper()
	text = strings.ReplaceAll(text, "$$", "\x00")
	if strings.Contains(text, "$") {
		t.Errorf("%q depends on the environment in which Compose is started", text)
	}
	return strings.ReplaceAll(text, "\x00", "$")
}

func TestCompose_confinesEveryService(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	if got := slices.Sorted(maps.Keys(c.Services)); !slices.Equal(got, []string{"app", "gateway", "redis"}) {
		t.Fatalf("got services %q", got)
	}
	pinned := regexp.MustCompile(`^([a-z0-9-]+/)?[a-z0-9-]+:v?[0-9][0-9.]*$`) // no registry, and a version
	for name, s := range c.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("%s is not confined: %+v", name, s)
		}
		if !regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`).MatchString(s.User) {
			t.Errorf("%s: user %q is not a number other than root", name, s.User)
		}
		if s.Image != "" && !pinned.MatchString(s.Image) || (s.Image == "") == (s.Build == "") {
			t.Errorf("%s: image %q, build %q", name, s.Image, s.Build)
		}
		if s.Restart != "unless-stopped" || s.Logging.Driver != "local" {
			t.Errorf("%s: restart %q, logging %q", name, s.Restart, s.Logging.Driver)
		}
	}
	for _, name := range []string{"gateway", "redis"} { // the app's image holds nothing that could ask
		if h := c.Services[name].Healthcheck; len(h.Test) == 0 || h.Interval == 0 || h.Timeout == 0 || h.StartPeriod == 0 || h.Retries == 0 {
			t.Errorf("%s: health check %+v", name, h)
		}
	}
}

func TestCompose_publishesTheGatewayAlone(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	for name, s := range c.Services {
		if want := map[string][]string{"gateway": {"127.0.0.1:8080:8080"}}[name]; !slices.Equal(s.Ports, want) {
			t.Errorf("%s: got ports %q, want %q", name, s.Ports, want)
		}
		want := map[string][]string{"gateway": {"front", "app", "store"}, "app": {"app"}, "redis": {"store"}}[name]
		if !slices.Equal(s.Networks, want) {
			t.Errorf("%s: got networks %q, want %q", name, s.Networks, want)
		}
	}
	for name, n := range c.Networks {
		if n.Internal == (name == "front") {
			t.Errorf("network %s: internal is %v", name, n.Internal)
		}
	}
	for _, name := range []string{"front", "app", "store"} {
		if _, found := c.Networks[name]; !found {
			t.Errorf("there is no network %s", name)
		}
	}
}

func TestCompose_keepsDataInNamedVolumes(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	for name, want := range map[string]string{"gateway": "data:" + readDockerfile(t).environment["GATEHOUSE_DATA"], "redis": "redis:/data"} {
		if got := c.Services[name].Volumes; !slices.Equal(got, []string{want}) {
			t.Errorf("%s: got volumes %q, want %q", name, got, want)
		}
		volume, _, _ := strings.Cut(want, ":")
		if _, found := c.Volumes[volume]; !found {
			t.Errorf("there is no volume %s", volume)
		}
	}
	if got := c.Services["gateway"].DependsOn["redis"].Condition; got != "service_healthy" {
		t.Errorf("the gateway waits for redis to be %q, want service_healthy", got)
	}
}

// recipe is the two lines that make the secrets, out of the comment at the top of the file.
func recipe(t *testing.T) []string {
	t.Helper()
	lines := regexp.MustCompile(`(?m)^#   (.*\.secrets/.*)$`).FindAllStringSubmatch(read(t, "docker-compose.yml"), -1)
	if len(lines) != 2 {
		t.Fatalf("got %d lines that make secrets, want 2", len(lines))
	}
	return []string{lines[0][1], lines[1][1]}
}

// makeSecrets carries the recipe out in a new folder. A stand-in for sudo runs what it is given as whoever runs the test, and
// leaves the change of owner out, which only root could do; TestCompose_secretsBelongToTheirReaders looks at that.
func makeSecrets(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".secrets"), 0o755); err != nil {
		t.Fatal(err)
	}
	sudo := `sudo() { local words=(); while (($#)); do case $1 in -o|-g) shift 2;; *) words+=("$1"); shift;; esac; done; "${words[@]}"; }` + "\n"
	for _, line := range recipe(t) {
		shell(t, dir, "umask 022\n"+sudo+line)
	}
	return dir
}

// secretFiles says where the secrets that Compose mounts lie on this machine, by their path in a container.
func secretFiles(c compose, dir string) map[string]string {
	files := map[string]string{}
	for name, secret := range c.Secrets {
		files["/run/secrets/"+name] = filepath.Join(dir, secret.File)
	}
	return files
}

// gatewayEnvironment is the environment in the gateway's container: that of the image, and over it that of the Compose file, with
// secrets at the paths that they have here.
func gatewayEnvironment(t *testing.T, c compose, dir string) map[string]string {
	t.Helper()
	environ := maps.Clone(readDockerfile(t).environment)
	for name, value := range c.Services["gateway"].Environment {
		value = unescaped(t, value)
		if file, found := secretFiles(c, dir)[value]; found {
			if secret := strings.TrimPrefix(value, "/run/secrets/"); !slices.Contains(c.Services["gateway"].Secrets, secret) {
				t.Errorf("%s needs the secret %s, which the gateway does not get", name, secret)
			}
			value = file
		}
		environ[name] = value
	}
	return environ
}

func TestCompose_secretsMakeAGatewayThatStarts(t *testing.T) {
	t.Parallel()
	c, dir := readCompose(t), makeSecrets(t)
	cfg := load(t, gatewayEnvironment(t, c, dir),
		"listen :8080 can be reached from other machines, and external_url http://localhost:8080 is not https") // by what is published it cannot
	if _, err := secrets.LoadRootKey(cfg.RootKeyFile); err != nil {
		t.Error(err)
	}
	store, err := url.Parse(cfg.Store.Reveal())
	if err != nil {
		t.Fatal("the store's URL does not parse")
	}
	if password, _ := store.User.Password(); store.Host != "redis:6379" || len(password) != 64 {
		t.Errorf("got host %s and a password of %d characters, want redis:6379 and 64", store.Host, len(password))
	}
	if got, want := cfg.Upstream.Address(), "app:8000"; got != want || !slices.Equal(c.Services["app"].Command, []string{"--port=8000"}) {
		t.Errorf("the app is expected at %s and started with %q", got, c.Services["app"].Command)
	}
	if cfg.ExternalURL.String() != "http://localhost:8080" {
		t.Errorf("got external URL %s", cfg.ExternalURL)
	}

	again := secretFiles(c, makeSecrets(t))
	for path, file := range secretFiles(c, dir) {
		first, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := os.ReadFile(again[path]); err != nil || bytes.Equal(first, second) {
			t.Errorf("%s is the same each time it is made (%v)", path, err)
		}
	}
}

// TestCompose_secretsBelongToTheirReaders: Compose hands secret files over as they are, so owner and mode decide who can read them.
// The root key is for the gateway alone, and the gateway refuses one that others may read.
func TestCompose_secretsBelongToTheirReaders(t *testing.T) {
	t.Parallel()
	c, dir := readCompose(t), makeSecrets(t)
	gateway, group, _ := strings.Cut(c.Services["gateway"].User, ":")
	if image := readDockerfile(t).user; image != c.Services["gateway"].User {
		t.Errorf("the image's user is %s, the service's %s", image, c.Services["gateway"].User)
	}
	if _, redisGroup, _ := strings.Cut(c.Services["redis"].User, ":"); redisGroup != group {
		t.Errorf("redis is in group %s and cannot read what belongs to group %s", redisGroup, group)
	}
	for i, want := range []struct {
		file string
		mode os.FileMode
	}{{".secrets/root.key", 0o400}, {".secrets/store.url", 0o440}} {
		line := recipe(t)[i]
		if wanted := fmt.Sprintf("-m %04o -o %s -g %s /dev/stdin %s", want.mode, gateway, group, want.file); !strings.HasSuffix(line, wanted) {
			t.Errorf("%s: want it to end in %s", line, wanted)
		}
		info, err := os.Stat(filepath.Join(dir, want.file))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want.mode {
			t.Errorf("%s has mode %v, want %v", want.file, info.Mode(), want.mode)
		}
	}
	if got := c.Services["redis"].Secrets; !slices.Equal(got, []string{"store_url"}) {
		t.Errorf("redis gets the secrets %q", got)
	}
	if got := c.Services["app"].Secrets; len(got) != 0 {
		t.Errorf("the app gets the secrets %q", got)
	}
}

func TestCompose_secretsStayOutOfGit(t *testing.T) {
	t.Parallel()
	if got := read(t, ".secrets/.gitignore"); !strings.HasSuffix(got, "\n*\n!.gitignore\n") {
		t.Errorf("git would keep secrets: %q", got)
	}
	for name, secret := range readCompose(t).Secrets {
		if filepath.Dir(secret.File) != ".secrets" {
			t.Errorf("%s lies in %s, which git would keep", name, secret.File)
		}
	}
}

// startRedis runs the command of the Redis service here, with the secrets made for it, on a free port, and returns the store's URL.
func startRedis(t *testing.T, c compose, dir string) string {
	t.Helper()
	s := c.Services["redis"]
	if len(s.Command) != 3 || s.Command[0] != "sh" || s.Command[1] != "-c" {
		t.Fatalf("got the command %q, want sh -c …", s.Command)
	}
	port := storetest.FreePort(t)
	script := strings.Replace(here(t, c, dir, s.Command[2]), "redis-server -", "redis-server - --bind 127.0.0.1 --port "+port, 1)
	var out bytes.Buffer
	command := exec.Command("sh", "-c", script)
	command.Dir, command.Stdout, command.Stderr = t.TempDir(), &out, &out // the folder is the service's volume
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill() // an error means that it has ended
		_ = command.Wait()
		if t.Failed() {
			t.Logf("redis-server says:\n%s", out.String())
		}
	})
	text, err := os.ReadFile(secretFiles(c, dir)["/run/secrets/store_url"])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(strings.TrimSpace(string(text)), "redis:6379", net.JoinHostPort("127.0.0.1", port), 1)
}

// here is a script of the Compose file with the secrets at the paths that they have on this machine.
func here(t *testing.T, c compose, dir, script string) string {
	t.Helper()
	script = unescaped(t, script)
	for path, file := range secretFiles(c, dir) {
		script = strings.ReplaceAll(script, path, file)
	}
	return script
}

// eventually tries until there is no error, for up to 10 seconds: what is waited for is another program.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

// TestCompose_redisIsOneThatTheGatewayAccepts starts the Redis of the file and lets the engine examine it as at any start.
func TestCompose_redisIsOneThatTheGatewayAccepts(t *testing.T) {
	t.Parallel()
	c, dir := readCompose(t), makeSecrets(t)
	store := startRedis(t, c, dir)
	u, err := url.Parse(store)
	if err != nil {
		t.Fatal("the store's URL does not parse")
	}
	health := strings.Replace(here(t, c, dir, c.Services["redis"].Healthcheck.Test[1]), "redis-cli", "redis-cli -p "+u.Port(), 1)
	eventually(t, func() error { return exec.CommandContext(t.Context(), "sh", "-c", health).Run() })

	db, err := redisstore.Open(t.Context(), redisstore.Options{URL: store, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got := db.Warnings(); len(got) != 0 {
		t.Errorf("got warnings %q", got)
	}
	out := shell(t, dir, "redis-cli -p "+u.Port()+" ping")
	if !strings.HasPrefix(out, "NOAUTH") {
		t.Errorf("a stranger without the password is told %q", out)
	}
	if strings.Contains(c.Services["redis"].Command[2], "--requirepass") {
		t.Error("the password is an argument, which every list of processes shows")
	}

	write(t, filepath.Join(dir, "wrong"), "redis://:wrong@redis:6379")
	wrong := strings.ReplaceAll(health, secretFiles(c, dir)["/run/secrets/store_url"], filepath.Join(dir, "wrong"))
	if exec.CommandContext(t.Context(), "sh", "-c", wrong).Run() == nil {
		t.Error("the health check is content with a Redis that refuses the gateway's password")
	}
}

// TestCompose_redisRefusesToStartWithoutPassword: an empty or missing secret must not give an open Redis.
func TestCompose_redisRefusesToStartWithoutPassword(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	for name, content := range map[string]string{"empty": "", "no password": "redis://:@redis:6379"} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "store.url"), content)
		script := strings.ReplaceAll(unescaped(t, c.Services["redis"].Command[2]), "/run/secrets/store_url", filepath.Join(dir, "store.url"))
		command := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(script, "redis-server -", "redis-server - --port 0", 1))
		command.Dir = dir
		if out, err := command.CombinedOutput(); err == nil || !strings.Contains(string(out), "requirepass") {
			t.Errorf("%s: got %v, %s", name, err, out)
		}
	}
}
