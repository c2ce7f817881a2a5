package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"
)

// leastSpace is how much room there should be for the audit log, in bytes.
const leastSpace = 1 << 30

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// store reports what a look at the store found.
func (e *examination) store() {
	s := e.Store
	if s == nil {
		return // the running gateway has it, and its part of readyz is known
	}
	if s.Err != nil {
		e.finding("store", s.Err.Error(), "without the store there is no login, no renewal and no administration", "docs/operating.md, \"Several gateways\", has what the store needs")
		return
	}
	for _, warning := range s.Warnings {
		e.finding("store", warning, "the store can lose or show what it should not", "docs/operating.md, \"Several gateways\", has the setting")
	}
	if s.Skew.Abs() > maxSkew {
		e.finding("clock", fmt.Sprintf("the clock of this machine and that of the store differ by %s", s.Skew.Abs().Round(time.Second)),
			"what one gateway signs, another may refuse", "synchronise both: timedatectl set-ntp true")
	}
	if len(s.Warnings) == 0 {
		e.ok("store", "it can be written and read, in %s", s.Took.Round(time.Microsecond))
	}
}

// files looks at the audit folder and the root key, on the machine of the gateway.
func (e *examination) files() {
	if e.AuditDir != "" {
		e.auditDir()
	}
	if e.RootKeyFile != "" {
		e.rootKey()
	}
}

func (e *examination) auditDir() {
	const why = "a login that cannot be recorded is refused"
	info, err := os.Stat(e.AuditDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.finding("audit folder", e.AuditDir+" is not there", why, "it is made at the first start; if there was one, this is not the gateway's machine, or another --data")
		return
	case err != nil:
		e.finding("audit folder", err.Error(), why, "run this as the user of the gateway, or as root")
		return
	}
	bad := false
	if info.Mode().Perm()&0o077 != 0 {
		bad = true
		e.finding("audit folder", fmt.Sprintf("%s has mode %04o", e.AuditDir, info.Mode().Perm()), "others on this machine can read who signed in, and from where", "chmod 700 "+e.AuditDir)
	}
	if err := writable(e.AuditDir); err != nil {
		bad = true
		e.finding("audit folder", fmt.Sprintf("%s cannot be written by this user: %v", e.AuditDir, err), why, "give it to the user of the gateway: chown -R gatehouse "+e.AuditDir+"; or run this as that user")
	}
	free, known := space(e.AuditDir)
	if known && free < leastSpace {
		bad = true
		e.finding("audit folder", fmt.Sprintf("%d MiB are free for it", free>>20), "when it is full, logins and changes are refused", "make room, or move old segments to another disk")
	}
	if !bad {
		e.ok("audit folder", "%s can be written, by its owner alone; %d GiB are free", e.AuditDir, free>>30)
	}
}

func (e *examination) rootKey() {
	const why = "who has this key and the store has every secret in it; without it the store cannot be read"
	info, err := os.Stat(e.RootKeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.finding("root key", e.RootKeyFile+" is not there", why, "with the embedded store it is made at the first start; with a shared one: openssl rand -base64 32, once, brought to every gateway")
	case err != nil:
		e.finding("root key", err.Error(), why, "run this as the user of the gateway, or as root")
	case info.Mode().Perm()&0o077 != 0:
		e.finding("root key", fmt.Sprintf("%s has mode %04o", e.RootKeyFile, info.Mode().Perm()), why, "chmod 600 "+e.RootKeyFile)
	default:
		e.ok("root key", "%s is its owner's alone", e.RootKeyFile)
	}
}
