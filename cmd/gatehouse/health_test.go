package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/admin/admintest"
)

func TestHealth_asksTheListenerUnderTheExternalName(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host != "login.example.org":
			http.Redirect(w, r, "https://login.example.org/", http.StatusPermanentRedirect)
		case r.URL.Path == "/.gatehouse/healthz":
			_, _ = io.WriteString(w, "alive\n")
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"store":"away"}`)
		}
	}))
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "http://")
	tests := []struct {
		name string
		args []string
		want int
		says string
	}{
		{"alive", []string{"--external-url", "https://login.example.org"}, exitDone, "alive\n"},
		{"not ready", []string{"--external-url", "https://login.example.org", "--ready"}, exitFailed, `503 Service Unavailable: {"store":"away"}`},
		{"somebody else's answer", []string{"--external-url", "https://other.example.org"}, exitFailed, "308 Permanent Redirect"},
	}
	for _, test := range tests {
		m, out, errOut := person(&admintest.Server{Dir: t.TempDir()}, "")
		got := run(t.Context(), append([]string{"health", "--listen", address}, test.args...), m)
		if got != test.want || !strings.Contains(out.String()+errOut.String(), test.says) {
			t.Errorf("%s: got %d, %q and %q, want %d with %q", test.name, got, out, errOut, test.want, test.says)
		}
	}
}
