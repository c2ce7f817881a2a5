package configs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/configs"
)

// write puts a configuration file into a folder of its own and returns its path.
func write(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// load loads a file and an environment and expects no error.
func load(t *testing.T, content string, environ ...string) *configs.Loaded {
	t.Helper()
	loaded, err := configs.Load(configs.Sources{File: write(t, content), Environ: environ})
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// problems loads sources, expects an error, and returns its lines with the folder of the file left out.
func problems(t *testing.T, src configs.Sources) []string {
	t.Helper()
	loaded, err := configs.Load(src)
	var wrong *configs.Errors
	if loaded != nil || !errors.As(err, &wrong) {
		t.Fatalf("got %+v, %v, want *configs.Errors", loaded, err)
	}
	return strings.Split(strings.ReplaceAll(err.Error(), filepath.Dir(src.File)+"/", ""), "\n")
}

func TestDefault_isTheContract(t *testing.T) {
	t.Parallel()
	cfg := configs.Default()
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"listen", cfg.Listen, "127.0.0.1:8080"},
		{"external_url", cfg.ExternalURL.String(), "http://localhost:8080"},
		{"upstream", cfg.Upstream.IsZero(), true},
		{"data", cfg.Data, "./gatehouse-data"},
		{"store", cfg.Store, configs.Bolt},
		{"root_key_file", cfg.RootKeyFile, "gatehouse-data/root.key"},
		{"admin_listen", cfg.AdminListen, "unix:gatehouse-data/admin.sock"},
		{"trusted_proxies", len(cfg.TrustedProxies), 0},
		{"second_factor", cfg.Login.SecondFactor, configs.Required},
		{"enrolment_period", cfg.Login.EnrolmentPeriod, 14 * 24 * time.Hour},
		{"bcrypt_cost", cfg.Login.BcryptCost, 12},
		{"password_min_length", cfg.Login.PasswordMinLength, 12},
		{"rate_limit", cfg.Login.RateLimit, configs.RateLimit{Burst: 10, Interval: 6 * time.Second}},
		{"lockout", cfg.Login.Lockout, configs.Lockout{Limit: 5, Within: 15 * time.Minute, Duration: 15 * time.Minute}},
		{"codes", cfg.Login.Codes, configs.Codes{Limit: 5, Within: 15 * time.Minute}},
		{"session", cfg.Session, configs.Session{Idle: time.Hour, Absolute: 24 * time.Hour, PerUser: 100, AccessToken: 5 * time.Minute}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
}

// TestDefault_isWithinItsOwnLimits gives every default to Load as text, which also parses every limit of every tag.
func TestDefault_isWithinItsOwnLimits(t *testing.T) {
	t.Parallel()
	loaded := load(t, "")
	var environ []string
	for _, s := range loaded.Settings() {
		if s.Name != "root_key" && s.Name != "routes" {
			environ = append(environ, variable(s.Name)+"="+s.Value)
		}
	}
	again := load(t, "", environ...)
	forgetEmptyLists(reflect.ValueOf(&again.Config).Elem())
	if !reflect.DeepEqual(again.Config, configs.Default()) {
		t.Errorf("got %+v, want %+v", again.Config, configs.Default())
	}
}

func variable(setting string) string {
	return configs.Prefix + strings.ToUpper(strings.ReplaceAll(setting, ".", "__"))
}

func TestLoad_takesTheStrongestSource(t *testing.T) {
	t.Parallel()
	file := write(t, "listen: 127.0.0.1:1\nupstream: http://127.0.0.1:2\nsession:\n  idle: 7m\n")
	loaded, err := configs.Load(configs.Sources{
		File:    file,
		Environ: []string{"GATEHOUSE_LISTEN=127.0.0.1:4", "GATEHOUSE_UPSTREAM=http://127.0.0.1:5", "HOME=/", "GATEHOUSE_SESSION__IDLE=6m"},
		Flags:   map[string]string{"listen": "127.0.0.1:7"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{loaded.Config.Listen, loaded.Config.Upstream.String(), loaded.Config.Session.Idle.String(), loaded.Config.ExternalURL.String()}
	want := []string{"127.0.0.1:7", "http://127.0.0.1:5", "6m0s", "http://localhost:7"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	places := []string{
		loaded.Origins["listen"].String(), loaded.Origins["upstream"].String(),
		loaded.Origins["session.idle"].String(), loaded.Origins["data"].String(),
	}
	if want := []string{"--listen", "GATEHOUSE_UPSTREAM", "GATEHOUSE_SESSION__IDLE", "default"}; !reflect.DeepEqual(places, want) {
		t.Errorf("got places %q, want %q", places, want)
	}
	if at := load(t, "session:\n  idle: 7m\n").Origins["session.idle"]; at.Line != 2 || at.Column != 9 {
		t.Errorf("got place %v, want line 2, column 9", at)
	}
}

func TestLoad_findsTheFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if loaded, err := configs.Load(configs.Sources{}); err != nil || loaded.File != "" {
		t.Fatalf("without a file: got %+v, %v", loaded, err)
	}
	for name, level := range map[string]string{"gatehouse.yaml": "warn", "other.yaml": "error"} {
		if err := os.WriteFile(name, []byte("log: {level: "+level+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		src  configs.Sources
		want string
	}{
		{"by its default name", configs.Sources{}, "warn"},
		{"by the variable", configs.Sources{Environ: []string{"GATEHOUSE_CONFIG=other.yaml"}}, "error"},
		{"by the flag", configs.Sources{File: "gatehouse.yaml", Environ: []string{"GATEHOUSE_CONFIG=other.yaml"}}, "warn"},
	} {
		loaded, err := configs.Load(c.src)
		if err != nil || loaded.Config.Log.Level != c.want {
			t.Errorf("%s: got %+v, %v, want level %s", c.name, loaded, err, c.want)
		}
	}
}

func TestLoad_readsEveryTypeFromEverySource(t *testing.T) {
	t.Parallel()
	want := configs.Default()
	want.ExternalURL = configs.Origin{Scheme: "https", Host: "login.example.com"}
	want.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.7/32"), netip.MustParsePrefix("fd00::/8")}
	want.HSTS = 365 * 24 * time.Hour // follows from https
	want.Login.EnrolmentPeriod = 36 * time.Hour
	want.Login.BcryptCost = 11
	for name, loaded := range map[string]*configs.Loaded{
		"file": load(t, `
external_url: HTTPS://Login.Example.COM:443/
trusted_proxies: [10.0.0.7, "fd00::/8"]
login: {enrolment_period: 1d12h, bcrypt_cost: 11}
`),
		"file in blocks": load(t, "external_url: >-\n  https://login.example.com\ntrusted_proxies:\n- 10.0.0.7\n- fd00::/8\nlogin:\n  enrolment_period: 36h\n  bcrypt_cost: '11'\n"),
		"environment": load(t, "", "GATEHOUSE_EXTERNAL_URL=https://login.example.com", "GATEHOUSE_TRUSTED_PROXIES=10.0.0.7, fd00::/8",
			"GATEHOUSE_LOGIN__ENROLMENT_PERIOD=36h", "GATEHOUSE_LOGIN__BCRYPT_COST=11"),
	} {
		if !reflect.DeepEqual(loaded.Config, want) {
			t.Errorf("%s: got %+v, want %+v", name, loaded.Config, want)
		}
	}
}

func TestLoad_readsValuesFromFiles(t *testing.T) {
	t.Parallel()
	file := write(t, "redis://:pass@127.0.0.1:6379/0\n")
	loaded := load(t, "", "GATEHOUSE_STORE_FILE="+file, "GATEHOUSE_ROOT_KEY_FILE=root.key")
	if got := loaded.Config.Store.Reveal(); got != "redis://:pass@127.0.0.1:6379/0" {
		t.Errorf("got store %q", got)
	}
	if got := loaded.Origins["store"].String(); got != "GATEHOUSE_STORE_FILE" {
		t.Errorf("got store from %s", got)
	}
	if got := loaded.Config.RootKeyFile; got != "root.key" {
		t.Errorf("got root key file %q", got)
	}
}

func TestLoad_takesTheStrongerFormOfTheRootKey(t *testing.T) {
	t.Parallel()
	loaded := load(t, "root_key_file: a.key\n", "GATEHOUSE_ROOT_KEY= a2V5\n")
	if loaded.Config.RootKey.Reveal() != "a2V5" || loaded.Config.RootKeyFile != "" {
		t.Errorf("variable over file: got %q and %q", loaded.Config.RootKey.Reveal(), loaded.Config.RootKeyFile)
	}
	loaded, err := configs.Load(configs.Sources{
		File: os.DevNull, Environ: []string{"GATEHOUSE_ROOT_KEY=a2V5"}, Flags: map[string]string{"root_key_file": "b.key"},
	})
	if err != nil || !loaded.Config.RootKey.IsZero() || loaded.Config.RootKeyFile != "b.key" {
		t.Errorf("flag over variable: got %+v, %v", loaded, err)
	}
}

func TestLoad_reportsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	file := write(t, `listen: 8080
upsteam: http://127.0.0.1:9090
login:
  bcrypt_cost: 99
  second_factor: yes
  idle: 4m
session: 5
trusted_proxies:
  - 10.0.0.5/8
  - 0.0.0.0/0
listen: 127.0.0.1:1
root_key: c2VjcmV0
proxy: {dial_timeout: 5}
data:
`)
	got := problems(t, configs.Sources{
		File:    file,
		Environ: []string{"GATEHOUSE_LISTN=x", "GATEHOUSE_STORE=bolt", "GATEHOUSE_STORE_FILE=" + file, "GATEHOUSE_LOG__LEVEL=loud"},
		Flags:   map[string]string{"upstream": "ftp://x", "login.bcrypt_cost": "12"},
	})
	want := []string{
		`gatehouse.yaml:1:9 listen must be host:port, as in 127.0.0.1:8080 or :8080, not "8080"`,
		`gatehouse.yaml:2:1 unknown key "upsteam" — did you mean "upstream"?`,
		`gatehouse.yaml:4:16 login.bcrypt_cost must be from 10 to 15, not 99`,
		`gatehouse.yaml:5:18 login.second_factor must be required or optional, not "yes"`,
		`gatehouse.yaml:6:3 unknown key "login.idle" — did you mean "session.idle"?`,
		`gatehouse.yaml:7:10 session is a group: its settings stand below it, indented`,
		`gatehouse.yaml:9:5 trusted_proxies "10.0.0.5/8" has bits set beyond its length; write 10.0.0.0/8 for the network or 10.0.0.5 for the one address`,
		`gatehouse.yaml:10:5 trusted_proxies "0.0.0.0/0" is as good as everybody: any client could then name the address that its attempts are counted for; list the proxies themselves`,
		`gatehouse.yaml:11:1 "listen" stands here again; it was set on line 1`,
		`gatehouse.yaml:12:1 root_key must not stand in a file that others may read; give GATEHOUSE_ROOT_KEY, or better root_key_file`,
		`gatehouse.yaml:13:23 proxy.dial_timeout must be a duration with its unit, as in 30s, 15m, 24h or 14d`,
		`gatehouse.yaml:14:7 data has no value; leave the line out for the default, or write "" for an empty value`,
		`GATEHOUSE_LISTN names no setting — did you mean GATEHOUSE_LISTEN?`,
		`GATEHOUSE_LOG__LEVEL must be debug, info, warn or error, not "loud"`,
		`GATEHOUSE_STORE_FILE and GATEHOUSE_STORE are both set; keep one`,
		`--login.bcrypt-cost is not a flag of a setting`,
		`--upstream must start with http:// or https://`,
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("problem %d:\n got %s\nwant %s", i+1, strings.Join(got[min(i, len(got)):], "\n     "), strings.Join(want[min(i, len(want)):], "\n     "))
		}
	}
}

func TestLoad_refuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	for _, c := range []struct {
		name, content string
		environ       []string
		want          string
	}{
		{"http beyond this machine", "external_url: http://login.example.com", nil, "external_url must be https"},
		{"a path", "external_url: https://example.com/login", nil, "must not have a path"},
		{"a query", "external_url: https://example.com?", nil, "must not have a query"},
		{"a fragment", "external_url: 'https://example.com#'", nil, "must not have a query or a fragment"},
		{"a password in a URL", "external_url: https://alice:geheim@example.com", nil, "must not hold a user name"},
		{"a dot at the end", "external_url: https://example.com.", nil, "must not end its host in a dot"},
		{"an international name", "external_url: https://bücher.example", nil, "xn-- form"},
		{"a short form of an address", "upstream: http://127.1:80", nil, "neither a name nor a complete IP address"},
		{"a hexadecimal address", "upstream: http://0x7f000001", nil, "neither a name nor a complete IP address"},
		{"a zone", "upstream: 'http://[fe80::1%25eth0]'", nil, "zone"},
		{"port 0", "upstream: http://127.0.0.1:0", nil, "port that is not between"},
		{"a port too high", "upstream: http://127.0.0.1:65536", nil, "port that is not between"},
		{"no host", "upstream: http://:8080", nil, "has no host"},
		{"another scheme", "upstream: unix:/run/app.sock", nil, "must start with http"},
		{"an upstream that is external_url", "external_url: https://a.example\nupstream: https://a.example:443", nil, "upstream is external_url"},
		{"an upstream that is the listener", "listen: ':9000'\nexternal_url: https://a.example\nupstream: http://localhost:9000", nil, "upstream is listen"},
		{"an upstream that is the listener by 0.0.0.0", "listen: 127.0.0.1:9000\nexternal_url: https://a.example\nupstream: http://0.0.0.0:9000", nil, "upstream is listen"},
		{"an upstream that is the administration", "admin_listen: 127.0.0.1:9001\nadmin_token_file: t\nupstream: http://127.0.0.1:9001", nil, "upstream is admin_listen"},
		{"a named port", "listen: 127.0.0.1:http", nil, "listen must be host:port"},
		{"a free port without external_url", "listen: 127.0.0.1:0", nil, "external_url must be given"},
		{"an empty listener", "listen: ''", nil, "listen must not be empty"},
		{"a shared store without a root key", "store: redis://127.0.0.1:6379/0", nil, "same root key"},
		{"both forms of the root key", "", []string{"GATEHOUSE_ROOT_KEY=a", "GATEHOUSE_ROOT_KEY_FILE=b"}, "GATEHOUSE_ROOT_KEY and GATEHOUSE_ROOT_KEY_FILE are both set"},
		{"an empty root key", "", []string{"GATEHOUSE_ROOT_KEY= "}, "GATEHOUSE_ROOT_KEY is empty"},
		{"Sentinels without a name", "store: redis+sentinel://a:1,b:2/0", nil, "what the Sentinels call the primary"},
		{"a Sentinel without a host", "store: 'redis+sentinel://a:1,,b/0?master=m'", nil, "is not a URL of the form redis+sentinel"},
		{"a database of a Cluster", "store: redis+cluster://a:1,b:2/1", nil, "the only one in a Cluster"},
		{"a Cluster with a named port", "store: rediss+cluster://a:port", nil, "is not a URL of the form rediss+cluster"},
		{"several servers", "store: redis://a,b", nil, "redis+sentinel:// for Sentinels"},
		{"another kind of Redis", "store: redis+ring://a", nil, "must be bolt, redis"},
		{"an authority without TLS", "store: redis://a\nroot_key_file: k\nstore_ca_file: ca.pem", nil, "write rediss in place of redis"},
		{"another database", "store: postgres://x", nil, "must be bolt, redis"},
		{"a path for bolt", "store: bolt:///var/x", nil, "is just bolt"},
		{"a store without a host", "store: redis:///0", nil, "is not a URL of the form"},
		{"a named database", "store: redis://h/zero", nil, "number of a database"},
		{"TCP administration without a token", "admin_listen: 127.0.0.1:9001", nil, "needs admin_token_file"},
		{"TCP administration beyond this machine", "admin_listen: 10.0.0.1:9001\nadmin_token_file: t", nil, "administration needs admin_tls"},
		{"TCP administration on all addresses", "admin_listen: ':9001'\nadmin_token_file: t", nil, "not a loopback address"},
		{"administration on the public listener", "admin_listen: 127.0.0.1:8080\nadmin_token_file: t", nil, "must not be the public listener"},
		{"a socket without a path", "admin_listen: 'unix:'", nil, "has no path"},
		{"a socket path too long", "data: " + long, nil, "takes 107 at most"},
		{"nonsense for administration", "admin_listen: socket", nil, "must be unix:PATH or host:port"},
		{"idle over absolute", "session: {idle: 2h, absolute: 1h}", nil, "session.idle is 2h, longer than"},
		{"a token over idle", "session: {idle: 1m}", nil, "session.access_token is 5m, longer than"},
		{"a long access token", "session: {access_token: 10m}", nil, "must be from 30s to 5m, not 10m"},
		{"a negative duration", "session: {idle: -5m}", nil, "duration with its unit"},
		{"a fraction of a day", "session: {idle: 1.5d}", nil, "duration with its unit"},
		{"an endless duration", "session: {idle: 99999999d}", nil, "duration with its unit"},
		{"a fraction", "login: {bcrypt_cost: 12.0}", nil, "must be a whole number"},
		{"a list for a value", "listen: [a, b]", nil, "must be a single value"},
		{"settings for a value", "listen: {a: b}", nil, "must be a value, not further settings"},
		{"settings in a list", "trusted_proxies: [{a: b}]", nil, "must be a value, not further settings"},
		{"everybody in IPv6", "trusted_proxies: ['::/0']", nil, "as good as everybody"},
		{"half of everybody", "trusted_proxies: [128.0.0.0/1]", nil, "as good as everybody"},
		{"IPv4 within IPv6", "trusted_proxies: ['::ffff:10.0.0.1']", nil, "plain IPv4 or IPv6"},
		{"no path", "session: {ignore_activity: [poll]}", nil, "must begin with /"},
		{"a query", "session: {ignore_activity: ['/poll?x=1']}", nil, "must be a path alone"},
		{"no network", "trusted_proxies: [proxy.example.com]", nil, "neither an address nor a network"},
		{"control characters", `data: "a\u0000b"`, nil, "control characters"},
		{"an alias", "root_key_file: *d", nil, "an anchor, an alias or a tag"},
		{"a merge", "log: &l {level: info}\n", nil, "log is a group"},
		{"a list as the file", "- a\n- b\n", nil, "must be settings"},
		{"a word as the file", "gatehouse", nil, "must be settings"},
		{"two documents", "listen: 127.0.0.1:1\n---\nlisten: 127.0.0.1:2\n", nil, "second document"},
		{"no YAML", "listen: \"x\nlog: [", nil, "is not YAML"},
		{"brackets without end", "listen: " + strings.Repeat("[", 100000), nil, "1:41 is nested too deeply"},
		{"lists without end", strings.Repeat("- ", 100000), nil, "1:65 is nested too deeply"},
		{"keys without end", strings.Repeat("? ", 100000), nil, "is nested too deeply"},
		{"a tab", "log:\n\tlevel: info\n", nil, "2:1 is not YAML"},
		{"a lower-case variable", "", []string{"GATEHOUSE_listen=x"}, "GATEHOUSE_listen names no setting"},
		{"a file that is not there", "", []string{"GATEHOUSE_STORE_FILE=/does/not/exist"}, "cannot be read: no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := problems(t, configs.Sources{File: write(t, c.content), Environ: c.environ})
			if len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("got %q, want one problem with %q", got, c.want)
			}
			if strings.Contains(fmt.Sprint(got), "geheim") {
				t.Errorf("the error repeats a password: %q", got)
			}
		})
	}
}

func TestLoad_refusesFilesItCannotRead(t *testing.T) {
	t.Parallel()
	large := write(t, strings.Repeat("#", 1<<20)+"\n")
	pipe := filepath.Join(t.TempDir(), "pipe") // that nobody writes to
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(t.TempDir(), "gatehouse.yaml"): "cannot be read: no such file",
		t.TempDir(): "cannot be read: is a directory",
		large:       "is longer than 1 MiB",
		pipe:        "cannot be read: is a pipe",
		"/dev/zero": "is longer than 1 MiB",
	} {
		if got := problems(t, configs.Sources{File: file}); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
}

func TestLoad_accepts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, content string }{
		{"nothing", ""},
		{"comments", "# nothing\n"},
		{"empty groups", "login:\nsession:\n"},
		{"Windows line ends", "listen: 127.0.0.1:1\r\nlog:\r\n  level: warn\r\n"},
		{"http under .localhost", "external_url: http://login.localhost:8080"},
		{"http on IPv6 loopback", "external_url: 'http://[::1]:8080'"},
		{"a container's name", "upstream: http://my_app:3000"},
		{"another port of this machine", "upstream: http://localhost:8081"},
		{"the listener's port elsewhere", "upstream: http://10.0.0.9:8080"},
		{"a shared store with its key", "store: rediss://user:pw@redis.example:6380/3\nroot_key_file: /etc/gatehouse/root.key"},
		{"TCP administration with a token", "admin_listen: localhost:9001\nadmin_token_file: token"},
		{"private networks", "trusted_proxies: [10.0.0.0/8, 'fc00::/7', '::1']"},
		{"all addresses", "listen: ':443'\nexternal_url: https://a.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			load(t, c.content)
		})
	}
}

func TestLoaded_warns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, content, want string
	}{
		{"of plain HTTP for others", "listen: 0.0.0.0:8080", "is not https"},
		{"of short passwords alone", "login: {second_factor: optional}", "password_min_length 15"},
		{"of nothing by default", "", ""},
		{"of nothing with long passwords", "login: {second_factor: optional, password_min_length: 15}", ""},
	} {
		got := strings.Join(load(t, c.content).Warnings, "\n")
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// TestLoaded_neverShowsSecrets prints a configuration in every way that a log or an error could.
func TestLoaded_neverShowsSecrets(t *testing.T) {
	t.Parallel()
	loaded := load(t, "", "GATEHOUSE_STORE=redis://user:geheim@127.0.0.1:6379/0", "GATEHOUSE_ROOT_KEY=geheim")
	asJSON, err := json.Marshal(loaded)
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %v", loaded.Config, loaded.Config, loaded.Config, asJSON, loaded.Settings())
	if strings.Contains(shown, "geheim") {
		t.Errorf("a secret is shown: %s", shown)
	}
	if loaded.Config.RootKey.Reveal() != "geheim" || !strings.Contains(loaded.Config.Store.Reveal(), "geheim") {
		t.Error("Reveal does not give the secret")
	}
	for store, want := range map[string]string{
		"redis://user:geheim@127.0.0.1:6379/0": "redis://user:[hidden]@127.0.0.1:6379/0",
		"redis://127.0.0.1":                    "redis://127.0.0.1",
		"rediss+cluster://:geheim@a:1,[::1]:2": "rediss+cluster://:[hidden]@a:1,[::1]:2",
		"redis+sentinel://u:geheim%40@a:1,b:2/0?master=m&replicas=2&sentinel_password=geheim": "redis+sentinel://u:[hidden]@a:1,b:2/0?" +
			"master=m&replicas=2&sentinel_password=[hidden]",
	} {
		shown := load(t, "", "GATEHOUSE_STORE="+store, "GATEHOUSE_ROOT_KEY=geheim").Config.Store
		if shown.String() != want || shown.Reveal() != store {
			t.Errorf("got %s, want %s", shown, want)
		}
	}
}

func TestFlags_areThoseOfTheContract(t *testing.T) {
	t.Parallel()
	var got []string
	for _, f := range configs.Flags() {
		got = append(got, f.Name)
	}
	want := []string{"listen", "external-url", "upstream", "data", "store", "root-key-file", "admin-listen", "admin-token-file", "metrics-listen"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestColour_isReadWithOrWithoutItsSign(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"#2F5BD0": "#2f5bd0", "2f5bd0": "#2f5bd0", "112233": "#112233", "": ""} {
		var c configs.Colour
		if err := c.UnmarshalText([]byte(text)); err != nil || c.String() != want {
			t.Errorf("%q: got %q and %v, want %q", text, c, err, want)
		}
	}
	for _, text := range []string{"#fff", "red", "#2f5bd0;}", "##2f5bd0", " #2f5bd0", "#2f5bdg", "rgb(1,2,3)"} {
		var c configs.Colour
		if err := c.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %q, want an error", text, c)
		}
	}
}

func TestOrigin_isCanonical(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want, address string }{
		{"HTTP://LocalHost:80/", "http://localhost", "localhost:80"},
		{"https://a.example:443", "https://a.example", "a.example:443"},
		{"https://a.example:8443", "https://a.example:8443", "a.example:8443"},
		{"http://[::0001]:8080", "http://[::1]:8080", "[::1]:8080"},
		{"http://a.example:", "http://a.example", "a.example:80"},
		{"", "", ""},
	} {
		var o configs.Origin
		if err := o.UnmarshalText([]byte(c.text)); err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if o.String() != c.want || !o.IsZero() && o.Address() != c.address {
			t.Errorf("%q: got %q and %q, want %q and %q", c.text, o, o.Address(), c.want, c.address)
		}
	}
}

// FuzzLoad gives any bytes as a file and as a variable. Load must not panic; what it refuses must say why, and what it accepts
// must keep the promises that security depends on, and load again from its own text to the same.
func FuzzLoad(f *testing.F) {
	f.Add(configs.Template(), "127.0.0.1:1")
	f.Add([]byte("listen: [a, {b: c}]\n? x\n: y\n"), "")
	f.Add([]byte("login: {lockout: {limit: 3}}\ntrusted_proxies: [10.0.0.0/8]\nexternal_url: https://a.b:1"), ":9")
	f.Add([]byte(twoApps), "")
	f.Add([]byte("a: &a [*a]\n<<: *a\n--- !!x |\n z"), "0")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte, listen string) {
		file := filepath.Join(dir, "gatehouse.yaml")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := configs.Load(configs.Sources{File: file, Environ: []string{"GATEHOUSE_LISTEN=" + listen}})
		var wrong *configs.Errors
		if errors.As(err, &wrong) {
			for _, p := range wrong.Problems {
				if p.Message == "" || p.Place.Layer == configs.FromFile && p.Place.Name == "" {
					t.Errorf("a problem without a message or a place: %+v", p)
				}
			}
			return
		}
		if err != nil {
			t.Fatalf("an error that is no *Errors: %v", err)
		}
		cfg := loaded.Config
		if cfg.ExternalURL.Scheme != "https" && !cfg.ExternalURL.Local() {
			t.Errorf("external URL %s", cfg.ExternalURL)
		}
		for _, p := range slices.Concat(cfg.TrustedProxies, cfg.ForwardAuth.Peers, cfg.ProxyProtocol) {
			if p.Bits() < 7 {
				t.Errorf("trusted network %s", p)
			}
		}
		checkRoutes(t, cfg)
		cfg.Routes = nil // only a file can hold them
		var environ []string
		for _, s := range loaded.Settings() {
			if s.Name != "root_key" && s.Name != "store" && !strings.HasPrefix(s.Name, "routes") {
				environ = append(environ, variable(s.Name)+"="+s.Value)
			}
		}
		environ = append(environ, "GATEHOUSE_STORE="+cfg.Store.Reveal())
		again, err := configs.Load(configs.Sources{File: os.DevNull, Environ: environ})
		if err != nil {
			t.Fatalf("its own values are refused: %v", err)
		}
		forgetEmptyLists(reflect.ValueOf(&cfg).Elem())
		forgetEmptyLists(reflect.ValueOf(&again.Config).Elem())
		if !reflect.DeepEqual(again.Config, cfg) {
			t.Errorf("got %+v, want %+v", again.Config, cfg)
		}
	})
}
