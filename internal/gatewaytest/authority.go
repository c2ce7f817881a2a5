package gatewaytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority issues certificates that are good by the clock of a test as well as by the machine's.
type Authority struct {
	Roots *x509.CertPool
	// File holds the authority's own certificate.
	File string

	t      testing.TB
	dir    string
	key    *ecdsa.PrivateKey
	parent *x509.Certificate
	serial int64
}

// NewAuthority makes an authority with files in a folder of the test.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{Roots: x509.NewCertPool(), t: t, dir: t.TempDir()}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := a.template()
	template.Subject.CommonName, template.IsCA, template.BasicConstraintsValid = "test authority", true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der := a.sign(template, template, &a.key.PublicKey)
	if a.parent, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.Roots.AddCert(a.parent)
	a.File = filepath.Join(a.dir, "authority.pem")
	a.write(a.File, "CERTIFICATE", der)
	return a
}

func (a *Authority) template() *x509.Certificate {
	a.serial++
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{Organization: []string{"Gatehouse tests"}},
		NotBefore: time.Now().AddDate(-5, 0, 0), NotAfter: time.Now().AddDate(5, 0, 0),
	}
}

func (a *Authority) sign(template, parent *x509.Certificate, public *ecdsa.PublicKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

// Issue makes a certificate for hosts, which may be addresses, in new files.
func (a *Authority) Issue(hosts ...string) (certFile, keyFile string) {
	a.t.Helper()
	dir := a.t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	a.Renew(certFile, keyFile, hosts...)
	return certFile, keyFile
}

// Renew writes a new certificate and key into files that may be there, and returns its serial number.
func (a *Authority) Renew(certFile, keyFile string, hosts ...string) (serial int64) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := a.template()
	for _, host := range hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(keyFile, "PRIVATE KEY", keyDER)
	a.write(certFile, "CERTIFICATE", a.sign(template, a.parent, &key.PublicKey))
	return a.serial
}

func (a *Authority) write(path, kind string, der []byte) {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}
