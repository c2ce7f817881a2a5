package certificate_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/certificate"
	"gatehouse/internal/gatewaytest"
)

func open(t *testing.T, cert, key string, now func() time.Time) *certificate.Files {
	t.Helper()
	f, err := certificate.OpenFiles(certificate.FilesOptions{CertFile: cert, KeyFile: key, Now: now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func serial(t *testing.T, f *certificate.Files) int64 {
	t.Helper()
	c, err := f.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.SerialNumber.Int64()
}

// Clients of ACME and orchestrators change a link and not the file.
func TestFiles_followLinks(t *testing.T) {
	t.Parallel()
	a := gatewaytest.NewAuthority(t)
	dir := t.TempDir()
	link := func(name, to string) string {
		path := filepath.Join(dir, name)
		if err := os.Symlink(to, path+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := a.Issue("a.example.com")
	f := open(t, link("cert.pem", cert), link("key.pem", key), time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); f.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	first := serial(t, f)
	cert, key = a.Issue("b.example.com")
	for deadline := time.Now().Add(20 * time.Second); serial(t, f) == first; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate did not come")
		}
		link("cert.pem", cert) // until Run watches
		link("key.pem", key)
		time.Sleep(time.Second)
	}
	if !f.Covers("b.example.com") || f.Covers("a.example.com") {
		t.Error("it is good for the wrong host")
	}
}

func TestFiles_keepWhatCanBeUsed(t *testing.T) {
	t.Parallel()
	a := gatewaytest.NewAuthority(t)
	cert, key := a.Issue("a.example.com")
	f := open(t, cert, key, time.Now)
	first := serial(t, f)
	good, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := f.Reload(); changed || err != nil {
		t.Errorf("the same files: changed %v, %v", changed, err)
	}
	for name, spoil := range map[string]func() error{
		"no PEM":                  func() error { return os.WriteFile(cert, []byte("nothing"), 0o600) },
		"half a certificate":      func() error { return os.Truncate(cert, 100) },
		"no file":                 func() error { return os.Remove(cert) },
		"a folder":                func() error { return errors.Join(os.Remove(cert), os.Mkdir(cert, 0o700)) },
		"another one's key":       func() error { other, _ := a.Issue("b.example.com"); return os.Rename(other, cert) },
		"more than anybody needs": func() error { return os.WriteFile(cert, make([]byte, 2<<20), 0o600) },
	} {
		if err := errors.Join(os.RemoveAll(cert), os.WriteFile(cert, good, 0o600), spoil()); err != nil {
			t.Fatal(err)
		}
		if changed, err := f.Reload(); changed || err == nil || serial(t, f) != first || !strings.Contains(f.Trouble(), "cannot be used") {
			t.Errorf("%s: changed %v, %v, trouble %q", name, changed, err, f.Trouble())
		}
	}
	if err := os.RemoveAll(cert); err != nil {
		t.Fatal(err)
	}
	want := a.Renew(cert, key, "a.example.com")
	if changed, err := f.Reload(); !changed || err != nil || serial(t, f) != want || f.Trouble() != "" {
		t.Errorf("mended: changed %v, %v, trouble %q", changed, err, f.Trouble())
	}
}

func TestFiles_tellOfTheirEnd(t *testing.T) {
	t.Parallel()
	now := time.Now()
	cert, key := gatewaytest.NewAuthority(t).Issue("a.example.com")
	f := open(t, cert, key, func() time.Time { return now })
	for _, c := range []struct {
		at   time.Time
		want string
	}{{now, ""}, {now.AddDate(6, 0, 0), "has expired"}, {now.AddDate(-6, 0, 0), "not valid yet"}} {
		now = c.at
		if got := f.Trouble(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("at %s: %q, want %q", c.at, got, c.want)
		}
	}
}
