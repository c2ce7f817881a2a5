package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gatehouse/configs"
	"gatehouse/proxy"
	"gatehouse/snippet"
)

func newConfigSnippetCommand(m machine) *cobra.Command {
	var lua bool
	command := &cobra.Command{
		Use:   "snippet " + strings.Join(snippet.Programs(), "|"),
		Short: "Print the configuration of a web server that asks the gateway about each request",
		Long: `Print the configuration of a web server that serves the apps itself and asks the gateway about each request (forward-auth), for the
hosts, paths and upstreams of the configuration. What a web server would do otherwise than the gateway (TLS to an app, strip_prefix,
body_limit, another Host for the app) goes through the gateway.`,
		Example: `  gatehouse config snippet nginx > /etc/nginx/conf.d/gatehouse.conf
  gatehouse config snippet caddy --config /etc/gatehouse/gatehouse.yaml > Caddyfile
  gatehouse config snippet haproxy --lua > /etc/haproxy/gatehouse.lua`,
		Args:      takes("PROGRAM"),
		ValidArgs: snippet.Programs(),
	}
	flags := addConfigFlags(command)
	command.Flags().BoolVar(&lua, "lua", false, "of haproxy: print the action that its configuration loads")
	command.RunE = func(command *cobra.Command, args []string) error {
		if !slices.Contains(snippet.Programs(), args[0]) {
			return usagef(command, "%q is none of %s", args[0], strings.Join(snippet.Programs(), ", "))
		}
		if lua && args[0] != snippet.HAProxy {
			return usagef(command, "--lua is for %s", snippet.HAProxy)
		} else if lua {
			_, err := m.out.Write(configs.HAProxyAction())
			return err
		}
		loaded, err := flags.load(m)
		if err != nil {
			return err
		}
		if len(loaded.Config.ForwardAuth.Peers) == 0 {
			fmt.Fprintf(m.errOut, "gatehouse: note: forward_auth.peers is empty, so the gateway answers no web server yet: list the address that %s asks from\n", args[0])
		}
		site, err := siteOf(loaded.Config)
		if err != nil {
			return err
		}
		text, err := snippet.Text(args[0], site)
		if err != nil {
			return err
		}
		_, err = m.out.Write([]byte(text))
		return err
	}
	return command
}

// siteOf is what the configuration says to a web server in front.
func siteOf(config configs.Config) (snippet.Site, error) {
	if config.TLS.On() {
		return snippet.Site{}, errors.New("the gateway speaks TLS itself; for a web server in front of it take tls out of the configuration")
	}
	if len(config.Routes) == 0 && config.Upstream.IsZero() {
		return snippet.Site{}, errors.New("there is no app: give upstream or routes")
	}
	s := snippet.Site{Scheme: config.ExternalURL.Scheme, Login: config.ExternalURL.Host, Gateway: dialled(config.Listen)}
	for _, preset := range []proxy.Preset{proxy.PresetRemote, proxy.PresetForwarded, proxy.PresetAuthRequest, proxy.PresetXRemote} {
		for _, name := range preset.Headers() {
			if !slices.Contains(s.Identity, name) {
				s.Identity = append(s.Identity, name)
			}
		}
	}
	for _, r := range config.AppRoutes() {
		s.Apps = append(s.Apps, appOf(r))
	}
	return s, nil
}

func appOf(r configs.Route) snippet.App {
	a := snippet.App{Name: string(r.Name), Host: string(r.Host), Path: string(r.Path), Headers: proxy.Preset(r.HeaderPreset).Headers()}
	a.Through = r.StripPrefix || r.BodyLimit > 0 || r.HostHeader == configs.HostUpstream
	for _, up := range r.Upstreams {
		a.Upstreams = append(a.Upstreams, up.String())
		a.Through = a.Through || up.Scheme != "http"
	}
	return a
}

// dialled is the address at which this machine reaches a listener.
func dialled(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if addr, parse := netip.ParseAddr(host); err == nil && (host == "" || parse == nil && addr.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return listen
}
