package snippet

import "strings"

// caddySpellings remove the identity headers and certificates of clients, and what would name another path, in every spelling that some app
// reads as one: Caddy passes underscores and dots on.
var caddySpellings = [...]string{
	"Remote*", "X-Remote*", "X-Auth*", "X-Gatehouse*", "X-Original*", "X-Rewrite*", "X_*", "X.*", "X-Forwarded_*", "X-Forwarded.*",
	"X-Forwarded-User*", "X-Forwarded-Preferred*", "X-Forwarded-Email*", "X-Forwarded-Groups*",
	"Proxy", "SSL*", "X-SSL*", "X-Client*", "Client-Cert*", "Client_Cert*", "Client.Cert*",
}

// caddy writes a Caddyfile.
func (t *text) caddy(s Site) {
	t.head("Caddy")
	for _, h := range s.hosts() {
		t.line("")
		site := h.name
		if s.Scheme == "http" {
			site = "http://" + h.name
		}
		t.line("%s {", site)
		if at := s.loopback(h.name); at != "" {
			t.line("\tbind %s", at)
		}
		t.line("\troute {")
		t.line("\t\trespond /.gatehouse/authz/* 404")
		if len(h.apps) > 0 && !s.restIsOurs(h) {
			t.line("\t\thandle /.gatehouse/* {")
			t.line("\t\t\treverse_proxy %s", s.Gateway)
			t.line("\t\t}")
		}
		for _, a := range h.apps {
			t.caddyApp(s, a)
		}
		if s.restIsOurs(h) {
			t.line("\t\treverse_proxy %s", s.Gateway)
		}
		t.line("\t}")
		t.line("}")
	}
}

// caddyApp serves an app within route, which keeps directives in the order in which they stand: what the client claims is removed before the
// gateway's answer is copied.
func (t *text) caddyApp(s Site, a App) {
	matcher := ""
	if a.Path != "/" {
		matcher = " @" + variable(a.Name)
		t.line("\t\t@%s path %s %s", variable(a.Name), quoted(a.Path), quoted(a.Path+"/*"))
	}
	t.line("\t\thandle%s {", matcher)
	if a.Through {
		t.line("\t\t\treverse_proxy %s", s.Gateway)
		t.line("\t\t}")
		return
	}
	t.line("\t\t\troute {")
	for _, name := range caddySpellings {
		t.line("\t\t\t\trequest_header -%s", name)
	}
	t.line("\t\t\t\tforward_auth %s {", s.Gateway)
	t.line("\t\t\t\t\turi /.gatehouse/authz/forward-auth")
	t.line("\t\t\t\t\tcopy_headers %s Cookie Authorization", strings.Join(a.Headers, " "))
	t.line("\t\t\t\t\ttransport http {")
	t.line("\t\t\t\t\t\tresponse_header_timeout 5s")
	t.line("\t\t\t\t\t}")
	t.line("\t\t\t\t}")
	if len(a.Upstreams) == 0 {
		t.line("\t\t\t\t# the address of the app:")
	}
	t.line("\t\t\t\treverse_proxy %s", strings.Join(a.addresses(), " "))
	t.line("\t\t\t}")
	t.line("\t\t}")
}

func quoted(path string) string { return `"` + path + `"` }
