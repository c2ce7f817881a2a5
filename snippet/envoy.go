package snippet

import (
	"cmp"
	"strconv"
	"strings"
)

// envoy writes the filters and routes of a listener and its clusters, for Envoy 1.28 or newer.
func (t *text) envoy(s Site) {
	t.head("Envoy")
	t.line("#")
	t.line("# A static configuration, whole but for the certificates of the listener, which stand in its transport_socket.")
	t.line("")
	_, port := s.split(s.Login)
	t.WriteString(`static_resources:
  listeners:
    - name: gatehouse
      address:
        socket_address: {address: "` + cmp.Or(s.shared(s.hosts()), "0.0.0.0") + `", port_value: ` + port + `}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: gatehouse
                use_remote_address: true
                normalize_path: false
                merge_slashes: false
                path_with_escaped_slashes_action: KEEP_UNCHANGED
                common_http_protocol_options:
                  headers_with_underscores_action: DROP_HEADER
                upgrade_configs:
                  - upgrade_type: websocket
                http_filters:
                  - name: envoy.filters.http.ext_authz
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
                      failure_mode_allow: false
                      allowed_headers:
                        patterns:
                          - {prefix: "sec-fetch-"}
                          - {prefix: "sec-websocket-"}
                          - {prefix: "x-forwarded-"}
`)
	for _, name := range [...]string{"accept", "authorization", "cookie", "origin", "user-agent"} {
		t.line("                          - {exact: %q}", name)
	}
	t.WriteString(`                      http_service:
                        server_uri: {uri: "http://` + s.Gateway + `", cluster: gatehouse, timeout: 5s}
                        path_prefix: /.gatehouse/authz/ext-authz
`)
	t.line("                        authorization_response:")
	t.line("                          allowed_upstream_headers:")
	t.line("                            patterns:")
	for _, name := range append(strings.Split(strings.ToLower(strings.Join(s.Identity, " ")), " "), "cookie", "authorization") {
		t.line("                              - {exact: %q}", name)
	}
	t.line("                          allowed_client_headers:")
	t.line("                            patterns:")
	for _, name := range [...]string{"location", "content-type", "cache-control", "retry-after", "www-authenticate"} {
		t.line("                              - {exact: %q}", name)
	}
	t.WriteString(`                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  name: gatehouse
                  virtual_hosts:
`)
	for _, h := range s.hosts() {
		t.envoyHost(s, h)
	}
	t.line("  clusters:")
	t.envoyCluster("gatehouse", []string{s.Gateway})
	for _, a := range s.Apps {
		if !a.Through {
			t.envoyCluster("app-"+a.Name, a.addresses())
		}
	}
}

func (t *text) envoyHost(s Site, h host) {
	name, port := s.split(h.name)
	t.line("                    - name: %q", h.name)
	t.line("                      domains: [%q, %q]", name, name+":"+port)
	t.line("                      routes:")
	t.line("                        - match: {path_separated_prefix: \"/.gatehouse/authz\"}")
	t.line("                          direct_response: {status: 404}")
	t.envoyUnasked()
	if len(h.apps) > 0 {
		t.envoyRoute("/.gatehouse", "gatehouse", nil)
	}
	for _, a := range h.apps {
		if a.Through {
			t.envoyRoute(a.Path, "gatehouse", nil)
			continue
		}
		t.envoyRoute(a.Path, "app-"+a.Name, s.others(a))
	}
	if s.restIsOurs(h) {
		t.envoyRoute("/", "gatehouse", nil)
	}
}

// envoyRoute is a route to a cluster. Those to the gateway itself are not asked about.
func (t *text) envoyRoute(path, cluster string, remove []string) {
	match := `path_separated_prefix: ` + strconv.Quote(path)
	if path == "/" {
		match = `prefix: "/"`
	}
	t.line("                        - match: {%s}", match)
	t.line("                          route: {cluster: %s, timeout: 0s}", cluster)
	if remove != nil {
		t.line("                          request_headers_to_remove: [%s]", strings.ToLower(strings.Join(remove, ", ")))
	}
	if cluster == "gatehouse" {
		t.envoyUnasked()
	}
}

// envoyUnasked takes a route out of ext_authz.
func (t *text) envoyUnasked() {
	t.line("                          typed_per_filter_config:")
	t.line("                            envoy.filters.http.ext_authz:")
	t.line(`                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute`)
	t.line("                              disabled: true")
}

func (t *text) envoyCluster(name string, addresses []string) {
	t.line("    - name: %s", name)
	t.line("      type: STRICT_DNS")
	t.line("      connect_timeout: 5s")
	t.line("      load_assignment:")
	t.line("        cluster_name: %s", name)
	t.line("        endpoints:")
	t.line("          - lb_endpoints:")
	for _, address := range addresses {
		colon := strings.LastIndexByte(address, ':')
		t.line("              - endpoint: {address: {socket_address: {address: %q, port_value: %s}}}", strings.Trim(address[:colon], "[]"), address[colon+1:])
	}
}
