package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gatehouse/admin/client"
	"gatehouse/configs"
)

// maxPassword bounds what is read as a password, in bytes.
const maxPassword = 4096

// operator holds what the commands share that ask a running gateway: where it is, and how to print what it says.
type operator struct {
	machine
	output
	config, data, admin, tokenFile, caFile string
	socket, serverName                     string // found by connect
}

// newOperator adds the shared flags to a noun and returns what they set.
func newOperator(m machine) *operator {
	return &operator{machine: m, output: output{to: m.out, format: outputTable}}
}

// addFlags adds the shared flags to a noun.
func (o *operator) addFlags(noun *cobra.Command) {
	flags := noun.PersistentFlags()
	flags.StringVar(&o.config, "config", "", "configuration `FILE` of the gateway (default: "+configs.DefaultFile+", if there is one)")
	flags.StringVar(&o.data, "data", "", "data `DIR` of the gateway: its socket is in there (default: as the configuration says)")
	flags.StringVar(&o.admin, "admin", "", "`URL` of an administration listener, in place of the socket")
	flags.StringVar(&o.tokenFile, "admin-token-file", "", "`FILE` with the token for --admin")
	flags.StringVar(&o.caFile, "admin-ca-file", "", "`FILE` with the certificates that may vouch for an https --admin (default: the system's)")
	_ = noun.MarkPersistentFlagDirname("data")
	_ = noun.MarkPersistentFlagFilename("config", "yaml", "yml")
	o.output.addFlag(noun)
}

// connect returns a client of the gateway that the flags name, or else the configuration.
func (o *operator) connect(command *cobra.Command) (*client.Client, error) {
	switch {
	case o.admin == "" && o.tokenFile != "":
		return nil, usagef(command, "--admin-token-file is for --admin URL")
	case o.caFile != "" && !strings.HasPrefix(o.admin, "https://"):
		return nil, usagef(command, "--admin-ca-file is for --admin https://…")
	case o.admin != "" && o.tokenFile == "":
		return nil, usagef(command, "--admin needs --admin-token-file")
	case o.admin != "":
		return o.connectURL()
	case o.data != "":
		o.socket = filepath.Join(o.data, "admin.sock")
	default:
		if err := o.locate(); err != nil {
			return nil, err
		}
		if o.admin != "" {
			return o.connectURL()
		}
	}
	return client.New(client.Options{Socket: o.socket})
}

func (o *operator) connectURL() (*client.Client, error) {
	token, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("read administration token: %w", err)
	}
	options := client.Options{URL: o.admin, Token: strings.TrimSpace(string(token)), ServerName: o.serverName}
	if o.caFile != "" {
		text, err := os.ReadFile(o.caFile)
		if err != nil {
			return nil, fmt.Errorf("read who may vouch for the gateway: %w", err)
		}
		options.Roots = x509.NewCertPool()
		if !options.Roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", o.caFile)
		}
	}
	return client.New(options)
}

// locate finds the administration listener as `gatehouse serve` would open it.
func (o *operator) locate() error {
	loaded, err := configs.Load(configs.Sources{File: o.config, Environ: o.environ})
	if err != nil {
		return fmt.Errorf("find the gateway by its configuration (--data DIR goes around it): %w", err)
	}
	if path, isSocket := strings.CutPrefix(loaded.Config.AdminListen, configs.UnixPrefix); isSocket {
		o.socket = path
		return nil
	}
	address, err := reachable(loaded.Config.AdminListen)
	if err != nil {
		return fmt.Errorf("admin_listen: %w", err)
	}
	o.admin, o.tokenFile = "http://"+address, loaded.Config.AdminTokenFile
	if file := loaded.Config.AdminTLS.CertFile; file != "" {
		o.admin, o.caFile = "https://"+address, file
		o.serverName, err = certificateName(file)
	}
	return err
}

// certificateName is a name that a certificate is good for: whoever has the gateway's own configuration knows the very certificate that it
// shows, whatever address it is reached at.
func certificateName(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read admin_tls.cert_file: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", fmt.Errorf("%s holds no certificate in PEM", file)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return "", fmt.Errorf("read admin_tls.cert_file: %w", err)
	case len(certificate.DNSNames) > 0:
		return strings.Replace(certificate.DNSNames[0], "*", "any", 1), nil
	case len(certificate.IPAddresses) > 0:
		return certificate.IPAddresses[0].String(), nil
	}
	return "", fmt.Errorf("the certificate in %s names no host", file)
}

// asking makes the body of a command that asks the gateway. Its error says what to do where that is known.
func (o *operator) asking(body func(*cobra.Command, *client.Client, []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		c, err := o.connect(command)
		if err != nil {
			return err
		}
		err = body(command, c, args)
		switch {
		case errors.Is(err, client.ErrNotRunning) && o.admin != "":
			return fmt.Errorf("nothing listens at %s: is the gateway running with --admin-listen?", o.admin)
		case errors.Is(err, client.ErrNotRunning):
			return fmt.Errorf("nothing listens on %s: start it with 'gatehouse serve', or give --data", o.socket)
		case errors.Is(err, os.ErrPermission):
			return fmt.Errorf("%s may be used by the gateway's own user and by root only: %w", o.socket, err)
		}
		return err
	}
}

// confirm asks a person whether to go on. Without a terminal nobody can be asked, and yes must have been given.
func (o *operator) confirm(command *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	if !o.terminal {
		return usagef(command, "this cannot be undone: give --yes where there is no terminal to ask on")
	}
	fmt.Fprintf(o.errOut, "%s [y/N] ", question)
	answer, err := readLine(o.in)
	if err != nil {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// password reads a new password: a line of standard input if asked so, else twice from the terminal without an echo.
func (o *operator) password(command *cobra.Command, fromStdin bool) (string, error) {
	if fromStdin {
		return readPasswordLine(o.in)
	}
	if !o.terminal {
		return "", usagef(command, "there is no terminal to ask for a password: use --password-stdin")
	}
	fmt.Fprint(o.errOut, "New password: ")
	first, err := o.readSecret()
	fmt.Fprintln(o.errOut)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	fmt.Fprint(o.errOut, "Once more: ")
	second, err := o.readSecret()
	fmt.Fprintln(o.errOut)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	if first != second {
		return "", errors.New("the two passwords differ; nothing was done")
	}
	return first, nil
}

// readPasswordLine reads everything; one line end behind the password is not part of it.
func readPasswordLine(in io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxPassword+1))
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case len(text) > maxPassword:
		return "", fmt.Errorf("the password on standard input is over %d bytes", maxPassword)
	case password == "":
		return "", errors.New("there is no password on standard input")
	case strings.ContainsAny(password, "\r\n"):
		return "", errors.New("there is more than one line on standard input")
	}
	return password, nil
}

// readLine reads to the end of a line and not a byte further: what follows belongs to whoever reads next.
func readLine(in io.Reader) (string, error) {
	var line strings.Builder
	for b := make([]byte, 1); line.Len() < maxPassword; {
		n, err := in.Read(b)
		if n == 1 && b[0] == '\n' {
			return line.String(), nil
		}
		line.Write(b[:n])
		if err != nil && (!errors.Is(err, io.EOF) || line.Len() == 0) {
			return "", err
		} else if err != nil {
			return line.String(), nil
		}
	}
	return "", errors.New("the line is too long")
}

// addReason adds --reason, which goes into the audit log.
func addReason(command *cobra.Command, reason *string) {
	command.Flags().StringVar(reason, "reason", "", "why, as `TEXT` for the audit log")
}

// addYes adds --yes.
func addYes(command *cobra.Command, yes *bool) {
	command.Flags().BoolVar(yes, "yes", false, "do not ask")
}
