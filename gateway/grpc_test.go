package gateway_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"gatehouse/configs"
	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

// newHealth starts a gRPC server with its health service, and passes on what it was told about each caller of a method that answers once.
func newHealth(t *testing.T) (service *health.Server, address string, callers chan metadata.MD) {
	t.Helper()
	callers = make(chan metadata.MD, 1)
	service = health.NewServer()
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		caller, _ := metadata.FromIncomingContext(ctx)
		callers <- caller
		return next(ctx, in)
	}))
	grpc_health_v1.RegisterHealthServer(server, service)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return service, "h2c://" + listener.Addr().String(), callers
}

// A gRPC client and server as they are in the world, through the whole gateway: TLS and HTTP/2 to it, HTTP/2 without TLS behind it.
func TestGateway_carriesGRPC(t *testing.T) {
	t.Parallel()
	service, address, callers := newHealth(t)
	s := startSecure(t, func(c *configs.Config) {
		var up configs.Upstream
		if err := up.UnmarshalText([]byte(address)); err != nil {
			t.Fatal(err)
		}
		c.Upstream = configs.Origin{}
		c.Routes = []configs.Route{{Name: "rpc", Upstreams: []configs.Upstream{up}, Rules: []configs.Rule{
			{Paths: []configs.Path{"/grpc.health.v1.Health"}, Groups: []configs.UserName{"staff"}},
		}}}
	})
	client, err := grpc.NewClient("passthrough:///"+s.Address(),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: s.authority.Roots, ServerName: "login.example.com"})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	asking := grpc_health_v1.NewHealthClient(client)

	var browser *gatewaytest.Browser
	tokens := map[string]string{}
	for name, group := range map[string]string{"alice": "staff", "bob": "other"} {
		s.AddUser(name, group)
		secret := s.Enrol(name)
		b := s.NewBrowser()
		tokens[name] = b.Login(name, gatewaytest.Password, s.Code(secret)).Field("access_token")
		if name == "alice" {
			browser = b
		}
	}
	as := func(token string) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		t.Cleanup(cancel)
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, "remote-user", "root")
	}

	answer, err := asking.Check(as(tokens["alice"]), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("alice: %v, %v", answer, err)
	}
	if caller := <-callers; !slices.Equal(caller["remote-user"], []string{"alice"}) || caller["authorization"] != nil {
		t.Errorf("the app got %v", caller)
	}
	if _, err := asking.Check(as(tokens["alice"]), &grpc_health_v1.HealthCheckRequest{Service: "other"}); status.Code(err) != codes.NotFound {
		t.Errorf("an error of the app's, in trailers: got %v", err)
	}
	<-callers
	for name, c := range map[string]struct {
		ctx  context.Context
		want codes.Code
	}{
		"nobody":        {t.Context(), codes.Unauthenticated},
		"another group": {as(tokens["bob"]), codes.PermissionDenied},
		"a torn token":  {as(tokens["alice"][:100]), codes.Unauthenticated},
	} {
		if _, err := asking.Check(c.ctx, &grpc_health_v1.HealthCheckRequest{}); status.Code(err) != c.want {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}

	watching, err := asking.Watch(as(tokens["alice"]), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
		grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		service.SetServingStatus("", want)
		if got, err := watching.Recv(); err != nil || got.Status != want {
			t.Fatalf("watching: got %v, %v; want %v", got, err, want)
		}
	}
	began := time.Now()
	if answer := browser.Do(http.MethodPost, "/.gatehouse/api/v1/logout", nil, nil); answer.StatusCode != http.StatusNoContent {
		t.Fatalf("sign out: %d", answer.StatusCode)
	}
	if got, err := watching.Recv(); err == nil || time.Since(began) > storetest.Within(time.Second) {
		t.Errorf("%v after the sign-out: got %v, %v", time.Since(began), got, err)
	}
	if len(callers) > 0 {
		t.Error("a refused call reached the app")
	}
}
