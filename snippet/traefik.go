package snippet

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// traefik writes a file for the file provider. The rules are in the syntax of Traefik 3.
func (t *text) traefik(s Site) {
	t.head("Traefik")
	t.line("#")
	t.line("# A file of the file provider, for Traefik 3. The entry point is called websecure where there is TLS, web where there is none.")
	if at := s.shared(s.hosts()); at != "" {
		_, port := s.split(s.Login)
		t.line("# Let it listen on this machine only, as in: address: \"%s\"", net.JoinHostPort(at, port))
	}
	t.line("")
	t.line("http:")
	t.line("  routers:")
	t.traefikRouter(s, "gatehouse-ask", "PathPrefix(`/.gatehouse/authz/`)", 100000, "gatehouse", []string{"gatehouse-nobody"})
	t.traefikRouter(s, "gatehouse-login", hostRule(s, s.Login), 10, "gatehouse", nil)
	for _, h := range s.hosts() {
		if len(h.apps) > 0 {
			rule := fmt.Sprintf("%s && (Path(`/.gatehouse`) || PathPrefix(`/.gatehouse/`))", hostRule(s, h.name))
			t.traefikRouter(s, "gatehouse-own-"+h.apps[0].Name, rule, 10000, "gatehouse", nil)
		}
		for _, a := range h.apps {
			t.traefikApp(s, a)
		}
	}
	t.line("")
	t.line("  middlewares:")
	t.line("    # only Traefik itself asks there")
	t.line("    gatehouse-nobody:")
	t.line("      ipAllowList:")
	t.line("        sourceRange: [255.255.255.255/32]")
	t.line("    # what clients claim goes first: a header with an empty value is removed")
	t.line("    gatehouse-clean:")
	t.line("      headers:")
	t.line("        customRequestHeaders:")
	for _, name := range s.others(App{}) {
		t.line("          %s: \"\"", name)
		if underscored := strings.ReplaceAll(name, "-", "_"); underscored != name {
			t.line("          %s: \"\"", underscored)
		}
	}
	for _, a := range s.Apps {
		if !a.Through {
			t.traefikMiddleware(s, a)
		}
	}
	t.line("")
	t.line("  services:")
	t.traefikService("gatehouse", []string{s.Gateway})
	for _, a := range s.Apps {
		if !a.Through {
			t.traefikService("app-"+a.Name, a.addresses())
		}
	}
}

func (t *text) traefikApp(s Site, a App) {
	rule := hostRule(s, a.Host)
	if a.Path != "/" {
		rule += fmt.Sprintf(" && (Path(`%s`) || PathPrefix(`%s/`))", a.Path, a.Path)
	}
	priority := 100 + len(a.Path)
	if strings.HasPrefix(a.Host, "*.") {
		priority = 20 + len(a.Path)
	}
	if a.Through {
		t.traefikRouter(s, "app-"+a.Name, rule, priority, "gatehouse", nil)
		return
	}
	t.traefikRouter(s, "app-"+a.Name, rule, priority, "app-"+a.Name, []string{"gatehouse-clean", "gatehouse-" + a.Name})
}

func hostRule(s Site, name string) string {
	name, _ = s.split(name)
	if rest, wildcard := strings.CutPrefix(name, "*"); wildcard {
		return fmt.Sprintf("HostRegexp(`^[^.]+%s$`)", strings.ReplaceAll(rest, ".", `\.`))
	}
	return fmt.Sprintf("Host(`%s`)", name)
}

func (t *text) traefikRouter(s Site, name, rule string, priority int, service string, middlewares []string) {
	t.line("    %s:", name)
	t.line("      rule: %s", strconv.Quote(rule))
	t.line("      priority: %d", priority)
	t.line("      service: %s", service)
	if middlewares != nil {
		t.line("      middlewares: [%s]", strings.Join(middlewares, ", "))
	}
	if s.Scheme == "https" {
		t.line("      entryPoints: [websecure]")
		t.line("      tls: {}")
		return
	}
	t.line("      entryPoints: [web]")
}

func (t *text) traefikMiddleware(s Site, a App) {
	t.line("    gatehouse-%s:", a.Name)
	t.line("      forwardAuth:")
	t.line("        address: http://%s/.gatehouse/authz/forward-auth", s.Gateway)
	t.line("        trustForwardHeader: false")
	t.line("        authResponseHeaders: [%s, Cookie, Authorization]", strings.Join(a.Headers, ", "))
}

func (t *text) traefikService(name string, addresses []string) {
	t.line("    %s:", name)
	t.line("      loadBalancer:")
	t.line("        passHostHeader: true")
	t.line("        servers:")
	for _, address := range addresses {
		t.line("          - url: http://%s", address)
	}
}
