package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// The proxies of others, each as its documentation says for keeping connections to the app, with the logs of requests off and two
// workers where that is a setting.
const (
	nginxConfig = `daemon off; worker_processes 2; pid DIR/nginx.pid; error_log DIR/nginx.log; USER
events { worker_connections 4096; }
http {
  access_log off; client_body_temp_path DIR; proxy_temp_path DIR; fastcgi_temp_path DIR; uwsgi_temp_path DIR; scgi_temp_path DIR;
  upstream app { server APP; keepalive 128; }
  server { listen LISTEN; location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}
`
	haproxyConfig = `global
  maxconn 4096
  nbthread 2
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend door
  bind LISTEN
  default_backend app
backend app
  http-reuse always
  server app APP
`
	caddyConfig = `{
  admin off
  auto_https off
}
http://LISTEN {
  reverse_proxy APP
}
`
)

// startPeer runs one of them in front of the app.
func (b *bench) startPeer(ctx context.Context, name string, app *process) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(b.dir, name+".conf")
	command := map[string][]string{
		"nginx": {"-p", b.dir, "-c", file}, "haproxy": {"-db", "-f", file}, "caddy": {"run", "--adapter", "caddyfile", "--config", file},
	}[name]
	config := map[string]string{"nginx": nginxConfig, "haproxy": haproxyConfig, "caddy": caddyConfig}[name]
	user := "" // root's nginx gives its workers another user, who may not enter the folder
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	text := strings.NewReplacer("DIR", b.dir, "LISTEN", address, "APP", app.address, "USER", user).Replace(config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	environ := []string{"HOME=" + b.dir, "XDG_DATA_HOME=" + b.dir, "XDG_CONFIG_HOME=" + b.dir}
	return b.start(ctx, name, address, environ, append([]string{b.programs[name]}, command...)...)
}

// startRedis runs a Redis as the gateway wants it.
func (b *bench) startRedis(ctx context.Context) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "redis")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return b.start(ctx, "redis", address, nil, b.programs["redis-server"], "--bind", "127.0.0.1", "--port", port, "--dir", dir,
		"--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--save", "")
}
