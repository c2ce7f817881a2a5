package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"gatehouse/access"
	"gatehouse/internal/wiretest"
	"gatehouse/proxy"
	"gatehouse/store/storetest"
)

// echo is a gRPC service with a method of each kind. It says what it was told about its caller.
type echo struct {
	mu    sync.Mutex
	seen  metadata.MD   // of the last call; guarded by mu
	ended chan struct{} // gets one for each stream whose context ended
}

func (e *echo) note(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen, _ = metadata.FromIncomingContext(ctx)
}

func (e *echo) last() metadata.MD {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen
}

// unary answers with what it got, or with an error of which everything is in trailers.
func (e *echo) unary(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	e.note(ctx)
	trailers := metadata.Pairs("x-cost", "7", "x-raw-bin", "\x00\xff")
	if err := grpc.SetTrailer(ctx, trailers); err != nil {
		return nil, err
	}
	if in.Value == "fail" {
		return nil, status.Error(codes.FailedPrecondition, "not so: 100 % Ä")
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs("x-first", "1", "remote-user", "app")); err != nil {
		return nil, err
	}
	return in, nil
}

// chat answers each message with itself, until the client has no more.
func (e *echo) chat(stream grpc.ServerStream) error {
	e.note(stream.Context())
	stream.SetTrailer(metadata.Pairs("x-end", "1"))
	for {
		in := &wrapperspb.StringValue{}
		switch err := stream.RecvMsg(in); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			e.ended <- struct{}{}
			return err
		}
		if err := stream.SendMsg(in); err != nil {
			return err
		}
	}
}

// count sends as many messages as it is told to, and then an error.
func (e *echo) count(stream grpc.ServerStream) error {
	in := &wrapperspb.StringValue{}
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	for range len(in.Value) {
		if err := stream.SendMsg(in); err != nil {
			return err
		}
	}
	return status.Error(codes.ResourceExhausted, "no more")
}

func (e *echo) describe() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Unary", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := &wrapperspb.StringValue{}
				if err := decode(in); err != nil {
					return nil, err
				}
				return e.unary(ctx, in)
			},
		}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Chat", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return e.chat(s) }},
			{StreamName: "Count", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return e.count(s) }},
		},
	}
}

// newGRPC starts a gRPC server, a proxy with TLS and HTTP/2 before it, and a client of the proxy.
func newGRPC(t *testing.T) (*echo, *gate, *grpc.ClientConn) {
	t.Helper()
	service := &echo{ended: make(chan struct{}, 1)}
	server := grpc.NewServer()
	server.RegisterService(service.describe(), service)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	g := newGate(t, "h2c://"+listener.Addr().String(), func(o *proxy.Options) {
		o.Table = (&gate{Sessions: &people{}}).on(t, []access.Route{{Host: "example.com"}}, o.Routes[0]).Table // the name in httptest's certificate
	})
	front := g.overTLS(t)
	roots := x509.NewCertPool()
	roots.AddCert(front.Certificate())
	client, err := grpc.NewClient("passthrough:///"+front.Listener.Addr().String(),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "example.com"})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return service, g, client
}

// as is a context with bob's token and forged names.
func as(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, "remote-user", "root", "x-forwarded-user", "root", "x-own", "1", "x-own-bin", "\x01\xfe")
}

func TestProxy_gRPC(t *testing.T) {
	t.Parallel()
	service, _, client := newGRPC(t)
	ctx, cancel := context.WithTimeout(as(t.Context(), "bobs-token"), 20*time.Second)
	defer cancel()

	long := strings.Repeat("x", 3<<20) // beyond every window
	for _, text := range []string{"hello", long} {
		var header, trailer metadata.MD
		out := &wrapperspb.StringValue{}
		if err := client.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String(text), out, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil || out.Value != text {
			t.Fatalf("unary: %v, %d bytes", err, len(out.Value))
		}
		if !slices.Equal(header["x-first"], []string{"1"}) || header["remote-user"] != nil || !slices.Equal(trailer["x-cost"], []string{"7"}) || !slices.Equal(trailer["x-raw-bin"], []string{"\x00\xff"}) {
			t.Errorf("unary: header %v, trailer %v", header, trailer)
		}
	}
	seen := service.last()
	if !slices.Equal(seen["remote-user"], []string{"bob"}) || seen["x-forwarded-user"] != nil || seen["authorization"] != nil ||
		!slices.Equal(seen["x-own"], []string{"1"}) || !slices.Equal(seen["x-own-bin"], []string{"\x01\xfe"}) || len(seen["x-gatehouse-assertion"]) != 1 {
		t.Errorf("the app got %v", seen)
	}

	var trailer metadata.MD
	err := client.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("fail"), &wrapperspb.StringValue{}, grpc.Trailer(&trailer))
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "not so: 100 % Ä" || !slices.Equal(trailer["x-cost"], []string{"7"}) {
		t.Errorf("an error: got %v, trailer %v", err, trailer)
	}
	if err := client.Invoke(ctx, "/test.Echo/Nothing", wrapperspb.String(""), &wrapperspb.StringValue{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown method: got %v", err)
	}

	counting, err := client.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Count")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(counting.SendMsg(wrapperspb.String("12345")), counting.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for n := range 6 {
		err := counting.RecvMsg(&wrapperspb.StringValue{})
		if n < 5 && err != nil || n == 5 && status.Code(err) != codes.ResourceExhausted {
			t.Errorf("message %d of a stream: %v", n, err)
		}
	}
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			if err := client.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("many"), &wrapperspb.StringValue{}); err != nil {
				t.Errorf("of many: %v", err)
			}
		})
	}
	calls.Wait()
}

// Both directions flow at once; what comes from the client ends what goes to it.
func TestProxy_gRPCInBothDirections(t *testing.T) {
	t.Parallel()
	service, _, client := newGRPC(t)
	ctx, cancel := context.WithTimeout(as(t.Context(), "bobs-token"), 20*time.Second)
	defer cancel()
	chat := func(ctx context.Context) grpc.ClientStream {
		stream, err := client.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/Chat")
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"one", "two", "three"} { // each is answered before the next is sent
			out := &wrapperspb.StringValue{}
			if err := errors.Join(stream.SendMsg(wrapperspb.String(text)), stream.RecvMsg(out)); err != nil || out.Value != text {
				t.Fatalf("%s: got %q, %v", text, out.Value, err)
			}
		}
		return stream
	}
	whole := chat(ctx)
	if err := whole.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := whole.RecvMsg(&wrapperspb.StringValue{}); !errors.Is(err, io.EOF) || !slices.Equal(whole.Trailer()["x-end"], []string{"1"}) {
		t.Errorf("the end: got %v, trailer %v", err, whole.Trailer())
	}

	broken, hangUp := context.WithCancel(ctx)
	chat(broken)
	hangUp()
	select {
	case <-service.ended:
	case <-time.After(20 * time.Second):
		t.Error("the app does not hear that the client hung up")
	}
}

// A call without a session, or with a token that is none, never reaches the app; one whose session ends is cut.
func TestProxy_gRPCNeedsALiveSession(t *testing.T) {
	t.Parallel()
	service, g, client := newGRPC(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for name, call := range map[string]context.Context{"nobody": ctx, "altered": as(ctx, "bobs-tokenx")} {
		if err := client.Invoke(call, "/test.Echo/Unary", wrapperspb.String("hello"), &wrapperspb.StringValue{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if service.last() != nil {
		t.Error("reached the app")
	}
	stream, err := client.NewStream(as(ctx, "bobs-token"), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/Chat")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(wrapperspb.String("hello")), stream.RecvMsg(&wrapperspb.StringValue{})); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	g.Sessions.end("bob")
	if err := stream.RecvMsg(&wrapperspb.StringValue{}); err == nil || time.Since(start) > storetest.Within(time.Second) {
		t.Errorf("after %v: got %v", time.Since(start), err)
	}
	select {
	case <-service.ended:
	case <-time.After(20 * time.Second):
		t.Error("the app does not hear of it")
	}
}

// An app that speaks HTTP/2 without TLS hears nothing else; one that does not is no app that answers.
func TestProxy_cleartextHTTP2(t *testing.T) {
	t.Parallel()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	app := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, err := io.WriteString(w, r.Proto+" "+r.Host)
		if _, more := io.Copy(w, r.Body); err != nil || more != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Sum", r.Trailer.Get("X-Sum"))
	})}
	go func() { _ = app.Serve(listener) }()
	defer app.Close()
	g := newGate(t, "h2c://"+listener.Addr().String())
	answers := g.send(t, "PUT / HTTP/1.1\r\n"+signedIn+"Connection: close, TE\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 8\r\n\r\n")
	if got := answers.Status(t); got != http.StatusOK || answers.Bodies[0] != "HTTP/2.0 gate.examplehello" || answers.All[0].Trailer.Get("X-Sum") != "8" {
		t.Errorf("got %d, %q, header %v, trailer %v", got, answers.Bodies[0], answers.All[0].Header, answers.All[0].Trailer)
	}
	old := wiretest.NewUpstream(t)
	other := newGate(t, strings.Replace(old.URL, "http://", "h2c://", 1))
	if got := other.send(t, get).Status(t); got != http.StatusBadGateway {
		t.Errorf("an app that speaks HTTP/1.1: got %d", got)
	}
}
