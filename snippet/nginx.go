package snippet

import (
	"net"
	"strings"
)

// nginx writes a file for conf.d, which nginx includes within http.
func (t *text) nginx(s Site) {
	t.head("nginx")
	t.line("")
	t.line("map $http_upgrade $gatehouse_connection {")
	t.line("    default upgrade;")
	t.line("    ''      '';")
	t.line("}")
	t.line("upstream gatehouse {")
	t.line("    server %s;", s.Gateway)
	t.line("    keepalive 16;")
	t.line("}")
	for _, a := range s.Apps {
		if a.Through {
			continue
		}
		t.line("upstream gatehouse_app_%s {", variable(a.Name))
		for _, address := range a.addresses() {
			t.line("    server %s;", address)
		}
		t.line("    keepalive 16;")
		t.line("}")
	}
	for _, h := range s.hosts() {
		t.nginxServer(s, h)
	}
}

func (t *text) nginxServer(s Site, h host) {
	name, port := s.split(h.name)
	listen := port
	if at := s.loopback(h.name); at != "" {
		listen = net.JoinHostPort(at, port)
	}
	t.line("")
	t.line("server {")
	if s.Scheme == "https" {
		t.line("    listen %s ssl http2;", listen)
		t.line("    ssl_certificate     %s;", certificate(name))
		t.line("    ssl_certificate_key %s;", certificate(name))
	} else {
		t.line("    listen %s;", listen)
	}
	t.line("    server_name %s;", name)
	t.line("    client_max_body_size 0;")
	t.line("    merge_slashes off;")
	t.nginxProxy("    ")
	t.line("    location ^~ /.gatehouse/authz/ {")
	t.line("        return 404; # only this server asks there")
	t.line("    }")
	asks := false
	for _, a := range h.apps {
		asks = asks || !a.Through
		t.nginxLocations(s, a)
	}
	switch {
	case s.restIsOurs(h):
		t.nginxThrough("/")
	case len(h.apps) > 0:
		t.nginxThrough("^~ /.gatehouse/")
	}
	if asks {
		t.nginxAsk()
	}
	t.line("}")
}

// nginxLocations are the locations of one app. A prefix of nginx is one of characters, so that of whole segments is two.
func (t *text) nginxLocations(s Site, a App) {
	where := []string{"/"}
	if a.Path != "/" {
		where = []string{`= "` + a.Path + `"`, `^~ "` + a.Path + `/"`}
	}
	for _, location := range where {
		if a.Through {
			t.nginxThrough(location)
		} else {
			t.nginxApp(s, a, location)
		}
	}
}

// nginxThrough proxies to the gateway, with what stands in the server.
func (t *text) nginxThrough(location string) {
	t.line("    location %s {", location)
	t.line("        proxy_pass http://gatehouse;")
	t.line("    }")
}

// nginxProxy is what every way to a server behind nginx has. A location that sets a header has to set all of them.
func (t *text) nginxProxy(indent string) {
	for _, line := range [...]string{
		"proxy_http_version 1.1;",
		"proxy_request_buffering off;",
		"proxy_buffering off;",
		"proxy_read_timeout 1h;",
	} {
		t.line("%s%s", indent, line)
	}
	t.nginxHeaders(indent)
}

func (t *text) nginxHeaders(indent string) {
	for _, line := range [...]string{
		"Host $http_host", "Upgrade $http_upgrade", "Connection $gatehouse_connection", "X-Forwarded-For $remote_addr",
		"X-Forwarded-Host $http_host", "X-Forwarded-Proto $scheme",
	} {
		t.line("%sproxy_set_header %s;", indent, line)
	}
}

// nginxApp serves an app, once the gateway let the request through. nginx drops header names with an underscore or a dot by itself.
func (t *text) nginxApp(s Site, a App, location string) {
	t.line("    location %s {", location)
	t.line("        auth_request /.gatehouse/ask;")
	t.line("        auth_request_set $gatehouse_code $upstream_http_x_gatehouse_code;")
	t.line("        auth_request_set $gatehouse_location $upstream_http_x_gatehouse_location;")
	t.line("        auth_request_set $gatehouse_cookie $upstream_http_cookie;")
	t.line("        auth_request_set $gatehouse_authorization $upstream_http_authorization;")
	for _, name := range a.Headers {
		t.line("        auth_request_set $gatehouse_%s $upstream_http_%s;", variable(name), variable(name))
	}
	t.line("        error_page 401 = @gatehouse_sign_in;")
	t.line("        error_page 403 = @gatehouse_refused;")
	if len(a.Upstreams) == 0 {
		t.line("        # the address of the app stands above, in upstream gatehouse_app_%s", variable(a.Name))
	}
	t.line("        proxy_pass http://gatehouse_app_%s;", variable(a.Name))
	t.nginxHeaders("        ")
	t.line("        proxy_set_header Cookie $gatehouse_cookie;")
	t.line("        proxy_set_header Authorization $gatehouse_authorization;")
	for _, name := range a.Headers {
		t.line("        proxy_set_header %s $gatehouse_%s;", name, variable(name))
	}
	for _, name := range s.others(a) {
		t.line("        proxy_set_header %s \"\";", name)
	}
	t.line("    }")
}

// nginxAsk is the question to the gateway, and what becomes of its answers. An answer of any other status, or none, is an error of nginx:
// nobody passes.
func (t *text) nginxAsk() {
	t.WriteString(strings.TrimPrefix(`
    location = /.gatehouse/ask {
        internal;
        proxy_pass http://gatehouse/.gatehouse/authz/auth-request;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
        proxy_set_header X-Original-Method $request_method;
        proxy_connect_timeout 2s;
        proxy_read_timeout 5s;
    }
    location @gatehouse_sign_in {
        if ($gatehouse_location) {
            return 302 $gatehouse_location;
        }
        return 401;
    }
    location @gatehouse_refused {
        if ($gatehouse_code = unavailable) {
            return 503;
        }
        return 403;
    }
`, "\n"))
}
