package redisstore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/store/redisstore"
	"gatehouse/store/storetest"
)

// certificate writes a certificate for localhost and its key, and returns their paths and who trusts them.
func certificate(t *testing.T) (certPath, keyPath string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	roots = x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(cert)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER), roots
}

func TestStore_speaksTLS(t *testing.T) {
	cert, key, roots := certificate(t)
	port := storetest.FreePort(t)
	storetest.Redis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	s := open(t, redisstore.Options{URL: "rediss://localhost:" + port, TLS: &tls.Config{RootCAs: roots}})
	if _, err := s.Publish(t.Context(), []byte("x")); err != nil {
		t.Error(err)
	}
	wantRefused(t, "rediss://localhost:"+port, "certificate") // nobody vouches for it
	if _, err := redisstore.Open(t.Context(), redisstore.Options{
		URL: "rediss://" + net.JoinHostPort("127.0.0.1", port), Now: time.Now, TLS: &tls.Config{RootCAs: roots},
	}); err == nil {
		t.Error("a certificate for another name is accepted")
	}
}
