package admin

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/auth/user"
)

// maxReasons is how many rejected entries an error lists.
const maxReasons = 200

// Import brings the accounts of another program. Entries that cannot be imported refuse the whole, unless they are to be
// skipped. If it ends half way, importing the same file again completes it.
func (s *Service) Import(ctx context.Context, c Caller, file api.Import) (api.Imported, error) {
	var accounts user.Import
	done := api.Imported{Added: []string{}, Existing: []string{}, Rejected: []api.Rejected{}}
	err := s.do(ctx, call{
		caller: c, op: UserImport, why: file.Reason, timeout: importTimeout,
		prepare: func(_ context.Context, event *audit.Event) (err error) {
			if accounts, err = parse(file); err != nil {
				return err
			}
			accounts.SkipRejected = file.SkipRejected
			event.Details["format"] = file.Format
			event.Details["accounts"] = strconv.Itoa(len(accounts.Users))
			event.Details["rejected"] = strconv.Itoa(len(accounts.Rejected))
			if len(accounts.Rejected) > 0 && !file.SkipRejected {
				return importError(accounts.Rejected)
			}
			return nil
		},
		act: func(ctx context.Context, _ audit.Record) error {
			report, err := s.parts.Users.Import(ctx, accounts)
			for _, u := range report.Added {
				done.Added = append(done.Added, u.Name)
			}
			done.Existing = append(done.Existing, report.Existing...)
			for _, r := range report.Rejected {
				done.Rejected = append(done.Rejected, api.Rejected(r))
			}
			if errors.Is(err, user.ErrRejected) {
				return importError(report.Rejected)
			}
			return translate(err)
		},
	})
	return done, err
}

// parse reads the file. Its only errors are of its form.
func parse(file api.Import) (user.Import, error) {
	read := user.ParseHtpasswd
	switch file.Format {
	case api.FormatHtpasswd:
	case api.FormatAuthelia:
		read = user.ParseAuthelia
	default:
		return user.Import{}, &InvalidError{Detail: "The format must be htpasswd or authelia."}
	}
	accounts, err := read(strings.NewReader(file.Content))
	if err != nil {
		return user.Import{}, &InvalidError{Detail: "The file cannot be read: " + err.Error()}
	}
	return accounts, nil
}

// importError lists entries that cannot be imported, the first of very many.
func importError(rejected []user.Rejected) error {
	var reasons []string
	for i, r := range rejected {
		if i == maxReasons {
			reasons = append(reasons, fmt.Sprintf("and %d more", len(rejected)-i))
			break
		}
		reasons = append(reasons, fmt.Sprintf("line %d, %q: %s", r.Line, r.Name, r.Why))
	}
	return &ImportError{Reasons: reasons}
}
