// Package configs loads, checks and describes the configuration of Gatehouse.
//
// A setting comes from the first of these that names it: a flag, the environment, the file, the default. Nothing is guessed
// and nothing is ignored: an unknown key, a second value for the same key, a value of the wrong type or out of range, and
// settings that contradict one another are errors, and [Load] reports all of them at once, each with the place it stands at.
// What Load returns without an error is complete and usable; it never returns half a configuration. Secrets are never printed:
// not in errors, not by the types that hold them, not by [Loaded.Settings].
//
// The types below are the reference. Their doc comments are what `gatehouse config template` and `gatehouse config schema`
// print, and the field tags are what Load enforces.
package configs

import (
	"net/netip"
	"path/filepath"
	"time"
)

// Config is everything that an operator can set. Fields are named in the file, and nested, as their config tags say.
//
// The further tags: flag marks a setting that is also a flag of `gatehouse serve`, and is its help; min and max bound a number, a
// duration or the length of a text; oneof lists the only words allowed; only:"environment" keeps a secret out of files and of
// the process list; restart:"required" marks a setting or a group that a reload cannot change.
type Config struct {
	// Listen is the address of the public listener, as host:port. Without a host it is every address of the machine; port 0
	// takes a free one.
	Listen string `config:"listen" restart:"required" min:"1" flag:"address of the public listener"`

	// ExternalURL is the login host as browsers see it: scheme, host and port, no path. Cookies, links and tokens are made
	// from it and never from a request. It must be https, unless the host is loopback or ends in .localhost. Empty means
	// http://localhost and the port of listen.
	ExternalURL Origin `config:"external_url" restart:"required" flag:"the login host as browsers see it"`

	// Upstream is the app to protect, as in http://127.0.0.1:9090, where there is just one and everybody who is signed in may use it. It has
	// no path of its own, because paths reach the app exactly as they were sent. Empty means the built-in sample app, unless there are
	// routes.
	Upstream Origin `config:"upstream" flag:"the app to protect (default: the built-in sample app)"`

	// Routes are the apps to protect, in place of upstream, where there are several, or rules for one. They stand in the file only.
	Routes []Route `config:"routes"`

	// Data is the folder of this gateway: the embedded store, keys, the audit log and the administration socket. It is made
	// with mode 0700 and belongs to one running gateway.
	Data string `config:"data" restart:"required" min:"1" flag:"folder of the store file, keys, audit log and admin socket"`

	// Store says where state lives: bolt, a file in the data folder, for one gateway; for several gateways that share it
	// redis://[user:password@]host:port/db, redis+sentinel://[user:password@]host:port,…/db?master=NAME or
	// redis+cluster://[user:password@]host:port,…, with TLS as rediss, rediss+sentinel, rediss+cluster. Parameters are in
	// docs/operating.md. A URL with a password belongs into GATEHOUSE_STORE_FILE.
	Store StoreURL `config:"store" restart:"required" flag:"bolt, or a redis://, redis+sentinel:// or redis+cluster:// URL (rediss…: with TLS)"`

	// StoreCAFile holds the certificates, in PEM, of the authorities that may vouch for the servers of the store, in place of
	// those of the system. Only with TLS.
	StoreCAFile string `config:"store_ca_file" restart:"required"`

	// RootKey is the key under which all stored secrets are sealed: 32 random bytes in base64. It is given in the environment
	// only; root_key_file is the better place.
	RootKey Secret `config:"root_key" restart:"required" only:"environment"`

	// RootKeyFile holds the root key, readable by its owner alone. A shared store needs one that all its gateways have;
	// with bolt, empty means root.key in the data folder, created at the first start. Without this key the store cannot be
	// read: keep a copy of it, apart from copies of the store.
	RootKeyFile string `config:"root_key_file" restart:"required" flag:"file with 32 random bytes in base64 (default: DATA/root.key with bolt)"`

	// AdminListen is where the administration API answers: unix:PATH or host:port. Empty means unix:admin.sock in the data
	// folder, which the file system guards. A TCP address needs admin_token_file and, off loopback, admin_tls.
	AdminListen string `config:"admin_listen" restart:"required" flag:"administration API, unix:PATH or host:port (default: unix:DATA/admin.sock)"`

	// AdminTokenFile holds the token that callers of a TCP admin_listen present, readable by its owner alone.
	AdminTokenFile string `config:"admin_token_file" flag:"file with the token for a TCP --admin-listen"`

	// AdminTLS is the encryption of a TCP admin_listen.
	AdminTLS AdminTLS `config:"admin_tls" restart:"required"`

	// TrustedProxies lists the networks whose X-Forwarded headers are believed, as in [10.0.0.7, 192.168.1.0/24]. Empty means
	// nobody's. Whoever is listed decides which address an attempt is counted for, so list proxies, never clients.
	TrustedProxies []netip.Prefix `config:"trusted_proxies"`

	// ForwardAuth is for web servers that ask Gatehouse about each request and serve the app themselves.
	ForwardAuth ForwardAuth `config:"forward_auth"`

	// TLS is the encryption of the public listener. With neither files nor acme it speaks plain HTTP, and the web server in front of it has
	// to encrypt.
	TLS TLS `config:"tls" restart:"required"`

	// HTTPListen is the address of a second listener, as in ":80", which sends browsers on to https and answers ACME's HTTP-01 challenges.
	// Empty means none. Only with an external_url that is https.
	HTTPListen string `config:"http_listen" restart:"required"`

	// HSTS is how long browsers are told to use https only for each host of the gateway (RFC 6797); 0s tells them nothing. The default is
	// 365d where external_url is https, else 0s.
	HSTS time.Duration `config:"hsts" min:"0s" max:"730d"`

	// ProxyProtocol lists the networks whose connections begin with a PROXY header, version 1 or 2, which says where they come from, as in
	// [10.0.0.7]: load balancers that pass on TCP. From these no connection is accepted without it, from all others none with it. Empty
	// means nobody's.
	ProxyProtocol []netip.Prefix `config:"proxy_protocol" restart:"required"`

	// Connections bounds how many connections may be open at listen, and at http_listen.
	Connections Connections `config:"connections" restart:"required"`

	// MetricsListen is the address of a listener for Prometheus, as in 127.0.0.1:9100, without a login. Empty means none.
	MetricsListen string `config:"metrics_listen" restart:"required" flag:"address for Prometheus, as in 127.0.0.1:9100 (default: none)"`

	// AccessLog is one line for every request.
	AccessLog AccessLog `config:"access_log"`

	// StopDelay is how long a gateway that was told to stop goes on as before while readyz says that it is not ready, so that a balancer
	// has time to send nobody there any more. Requests that are under way then have another 10s.
	StopDelay time.Duration `config:"stop_delay" min:"0s" max:"5m"`

	// Login is the way in.
	Login Login `config:"login"`

	// Session is how long somebody stays signed in.
	Session Session `config:"session"`

	// Proxy is the way to the app.
	Proxy Proxy `config:"proxy"`

	// Pages is how the pages look and speak.
	Pages Pages `config:"pages"`

	// Log is the program's own log, on standard error. It is not the audit log, which is always written and has no settings.
	Log Log `config:"log"`
}

// SecondFactor says of whom a second factor is asked.
type SecondFactor string

// The values of SecondFactor.
const (
	Required SecondFactor = "required" // of everybody
	Optional SecondFactor = "optional" // of those who have one, where device or network is new; others are then refused
)

// ForwardAuth holds the settings of forward-auth.
type ForwardAuth struct {
	// Peers lists the networks of the web servers that may ask, as in [127.0.0.1]. Empty means nobody. Who is listed names the host, the
	// path and the client that a decision is about, so list web servers, never clients.
	Peers []netip.Prefix `config:"peers"`
}

// TLS holds the settings of TLS on the public listener.
type TLS struct {
	// CertFile is the certificate of the gateway's hosts, in PEM, with those of the authorities between it and the root. With key_file. Both
	// are read anew when they change.
	CertFile string `config:"cert_file"`

	// KeyFile is the key of cert_file, in PEM, readable by its owner alone.
	KeyFile string `config:"key_file"`

	// ACME gets certificates by itself (RFC 8555), in place of files.
	ACME ACME `config:"acme"`
}

// On reports whether the public listener speaks TLS.
func (t TLS) On() bool { return t.CertFile != "" || t.ACME.AcceptTerms }

// ACME holds the settings of getting certificates. Certificates and account are kept in the store, so that several gateways share them.
type ACME struct {
	// AcceptTerms says that you accept the terms of the authority; with it, ACME is used.
	AcceptTerms bool `config:"accept_terms"`

	// Email is where the authority writes to about certificates that are going to expire. Empty means nowhere.
	Email string `config:"email"`

	// Directory is the authority, as the https URL of its directory.
	Directory string `config:"directory" min:"1"`

	// CAFile holds the certificates, in PEM, of the authorities that may vouch for the directory itself, in place of those of the system:
	// for an authority of your own.
	CAFile string `config:"ca_file"`
}

// AdminTLS holds the settings of TLS on the administration listener. Both files are read anew when they change.
type AdminTLS struct {
	// CertFile is the certificate of the administration listener, in PEM, with those of the authorities between it and the root. With
	// key_file.
	CertFile string `config:"cert_file"`

	// KeyFile is the key of cert_file, in PEM, readable by its owner alone.
	KeyFile string `config:"key_file"`
}

// Connections holds the bounds of open connections. One that is too many is closed at once.
type Connections struct {
	// Max is how many may be open at one listener. 0 means half as many as the process may have files open, because a request takes
	// another one to its app, and never more than 20000.
	Max int `config:"max" min:"0" max:"1000000"`

	// PerAddress is how many of them one IPv4 address or one IPv6 /64 may have open, as the socket sees it. Peers in trusted_proxies,
	// proxy_protocol and forward_auth.peers have no bound of their own. 0 means no bound.
	PerAddress int `config:"per_address" min:"0" max:"1000000"`
}

// AccessLog holds the settings of the access log.
type AccessLog struct {
	// File is where the lines are written, at its end; "-" is standard output. Empty means nowhere. SIGHUP opens it anew, for logrotate.
	File string `config:"file"`

	// Format is json, or common, the Combined Log Format of web servers with route, request id and seconds behind it. No format has the query
	// of a request: it may hold secrets.
	Format string `config:"format" oneof:"json common"`
}

// Login holds the settings of the login.
type Login struct {
	// SecondFactor is required (everybody needs one, at every login) or optional (asked of those who have enrolled one, when
	// device or network is new or failures came before). Even where it is optional, an unknown device or network does not get
	// in by password alone.
	SecondFactor SecondFactor `config:"second_factor" oneof:"required optional"`

	// EnrolmentPeriod is how long after its creation or import an account may enrol its second factor by password alone.
	EnrolmentPeriod time.Duration `config:"enrolment_period" min:"1h" max:"90d"`

	// BcryptCost is the cost of new password hashes. Each step doubles the time of a login; 12 is about a quarter of a second.
	BcryptCost int `config:"bcrypt_cost" min:"10" max:"15"`

	// PasswordMinLength is the least number of characters of a new password. Lengths up to 256 are always allowed.
	PasswordMinLength int `config:"password_min_length" min:"8" max:"64"`

	// RateLimit is what one client address may try.
	RateLimit RateLimit `config:"rate_limit"`

	// Lockout is what an account takes in wrong passwords, from strangers together and from each known device.
	Lockout Lockout `config:"lockout"`

	// Codes is what an account takes in wrong codes, from strangers together and from each known device.
	Codes Codes `config:"codes"`
}

// RateLimit holds the settings of the token bucket of a client address: an IPv4 address or an IPv6 /64.
type RateLimit struct {
	// Burst is how many attempts may follow one another at once. An IPv6 /48 has four times as many.
	Burst int `config:"burst" min:"1" max:"1000"`

	// Interval is the time after which one more attempt is allowed.
	Interval time.Duration `config:"interval" min:"100ms" max:"1h"`
}

// Lockout holds the settings of the password windows.
type Lockout struct {
	// Limit is the failure that locks: the fifth, by default.
	Limit int `config:"limit" min:"2" max:"20"`

	// Within is the time in which the failures are counted.
	Within time.Duration `config:"within" min:"1m" max:"24h"`

	// Duration is how long the lock lasts, from the failure that set it.
	Duration time.Duration `config:"duration" min:"1m" max:"24h"`
}

// Codes holds the settings of the wrong-code windows. A window that is used up stays so until its entries have aged out.
type Codes struct {
	// Limit is how many wrong codes are allowed within the window, over all logins of the account.
	Limit int `config:"limit" min:"2" max:"20"`

	// Within is the time in which wrong codes are counted.
	Within time.Duration `config:"within" min:"1m" max:"24h"`
}

// Session holds the limits of sessions.
type Session struct {
	// Idle is the time without a request after which somebody has to sign in again.
	Idle time.Duration `config:"idle" min:"1m" max:"30d"`

	// Absolute is the time after which somebody has to sign in again in any case. NIST SP 800-63B-4 advises at most 24h with two
	// factors (section 2.2.3), and never more than 30d.
	Absolute time.Duration `config:"absolute" min:"5m" max:"30d"`

	// PerUser is how many sessions one user may have; the oldest ends when there is one more.
	PerUser int `config:"per_user" min:"1" max:"1000"`

	// AccessToken is the life of an access token. It is also the longest time for which a request can still pass while the
	// store is away, so it cannot be more than 5m.
	AccessToken time.Duration `config:"access_token" min:"30s" max:"5m"`

	// IgnoreActivity lists the beginnings of paths whose requests do not keep a session alive, as in [/api/poll, /socket]: what
	// pages ask for by themselves, and WebSockets that are never silent. /socket is /socket and everything below it.
	IgnoreActivity []PathPrefix `config:"ignore_activity"`
}

// Proxy holds the time limits towards the app. Bodies, streams and upgraded connections have none.
type Proxy struct {
	// DialTimeout is the time to connect to the app; after it the answer is 502.
	DialTimeout time.Duration `config:"dial_timeout" min:"100ms" max:"1m"`

	// ResponseHeaderTimeout is the time until the app's answer begins; after it the answer is 504. Raise it for apps that
	// hold requests open on purpose.
	ResponseHeaderTimeout time.Duration `config:"response_header_timeout" min:"1s" max:"1h"`

	// IdleTimeout is how long an unused connection to the app is kept at most. Keep it below the time after which the app closes them.
	IdleTimeout time.Duration `config:"idle_timeout" min:"1s" max:"1h"`
}

// Pages holds the settings of the pages that people see. English and German are built in, and the browser chooses.
type Pages struct {
	// Name stands above every page and in its title.
	Name string `config:"name" min:"1"`

	// Accent is the colour of buttons and links, as in "#2f5bd0"; write the quotes, because # begins a comment. What stands
	// on it becomes black or white, whichever can be read. Empty means Gatehouse's own blue.
	Accent Colour `config:"accent"`

	// LogoFile is a PNG, or an SVG made of shapes alone, of at most 64 KiB; it is shown 32 by 32. Empty means Gatehouse's own.
	LogoFile string `config:"logo_file"`

	// Language is the one for readers whose browser asks for none that there is, as in en, de or pt-BR.
	Language string `config:"language" min:"1"`

	// TextsDir is a folder with files named fr.json and so on, which add languages, or replace single texts where there is
	// the language already; docs/pages.md says how. Empty means none.
	TextsDir string `config:"texts_dir"`
}

// Log holds the settings of the program's own log.
type Log struct {
	// Level is the least that is logged: debug, info, warn or error.
	Level string `config:"level" oneof:"debug info warn error"`

	// Format is text, for people, or json, for machines.
	Format string `config:"format" oneof:"text json" restart:"required"`
}

// Default returns the configuration of a gateway that was told nothing.
func Default() Config {
	cfg := defaults()
	cfg.derive()
	return cfg
}

// LetsEncrypt is the directory of the authority that most people use.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// unset is a duration that no source can give.
const unset = -1

// defaultHSTS is what HSTS is where there is https: a year, which the lists that browsers carry ask for.
const defaultHSTS = 365 * 24 * time.Hour

// defaults are the defaults that depend on nothing; derive adds the others.
func defaults() Config {
	return Config{
		Listen: "127.0.0.1:8080",
		Data:   "./gatehouse-data",
		Store:  Bolt,
		Login: Login{
			SecondFactor:      Required,
			EnrolmentPeriod:   14 * 24 * time.Hour,
			BcryptCost:        12,
			PasswordMinLength: 12,
			RateLimit:         RateLimit{Burst: 10, Interval: 6 * time.Second},
			Lockout:           Lockout{Limit: 5, Within: 15 * time.Minute, Duration: 15 * time.Minute},
			Codes:             Codes{Limit: 5, Within: 15 * time.Minute},
		},
		Session: Session{Idle: time.Hour, Absolute: 24 * time.Hour, PerUser: 100, AccessToken: 5 * time.Minute},
		Proxy: Proxy{
			DialTimeout:           5 * time.Second,
			ResponseHeaderTimeout: time.Minute,
			IdleTimeout:           90 * time.Second,
		},
		HSTS:        unset,
		Connections: Connections{PerAddress: 500},
		TLS:         TLS{ACME: ACME{Directory: LetsEncrypt}},
		AccessLog:   AccessLog{Format: "json"},
		Pages:       Pages{Name: "Gatehouse", Language: "en"},
		Log:         Log{Level: "info", Format: "text"},
	}
}

// derive fills in the settings whose default follows from another setting.
func (c *Config) derive() {
	if c.ExternalURL.IsZero() {
		c.ExternalURL = localOrigin(c.Listen)
	}
	if c.HSTS == unset {
		c.HSTS = 0
		if c.ExternalURL.Scheme == "https" {
			c.HSTS = defaultHSTS
		}
	}
	for i := range c.Routes {
		c.complete(&c.Routes[i])
	}
	if c.RootKeyFile == "" && c.RootKey.IsZero() && !c.Store.Shared() {
		c.RootKeyFile = filepath.Join(c.Data, "root.key")
	}
	if c.AdminListen == "" {
		c.AdminListen = UnixPrefix + filepath.Join(c.Data, "admin.sock")
	}
}
