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

// maxReasons is how many rejected entries an error lists: every one of any file that is meant as one.
const maxReasons = 10_000

// Import brings the accounts of another program. Entries that cannot be imported refuse the whole, unless they are to be
// skipped. If it ends half way, importing the same file again completes it.
//
// Its record counts what is imported and names the accounts, in further records before the first write where they do not fit
// into one. If it ends half way, the record of the failure counts and names those that were added.
func (s *Service) Import(ctx context.Context, c Caller, file api.Import) (api.Imported, error) {
	var plan user.Plan
	var names []string            // of the new accounts, as the details of records
	var details map[string]string // of the event: what a record of a failure then says
	done := api.Imported{Added: []string{}, Existing: []string{}, Rejected: []api.Rejected{}}
	err := s.do(ctx, call{
		caller: c, op: UserImport, why: file.Reason, timeout: importTimeout,
		prepare: func(ctx context.Context, event *audit.Event) (err error) {
			if plan, err = s.plan(ctx, file, event); err != nil {
				return err
			}
			names = nameLists(plan.New)
			details = event.Details
			details["names"] = names[0]
			return nil
		},
		act: func(ctx context.Context, record audit.Record) error {
			if err := s.recordNames(ctx, record.Event, names); err != nil {
				countAdded(details, nil)
				return err
			}
			added, err := s.parts.Users.Import(ctx, plan)
			for _, u := range added {
				done.Added = append(done.Added, u.Name)
			}
			done.Existing = append(done.Existing, plan.Existing...)
			for _, r := range plan.Rejected {
				done.Rejected = append(done.Rejected, api.Rejected(r))
			}
			if err != nil {
				countAdded(details, added)
			} else {
				err = s.endSetup(ctx, added...)
			}
			if errors.Is(err, user.ErrNameTaken) {
				return &RefusedError{Detail: fmt.Sprintf("After %d of %d accounts the name %q was taken meanwhile. Import the file again.",
					len(added), len(plan.New), plan.New[len(added)].Name), Err: ErrConflict}
			}
			return translate(err)
		},
	})
	return done, err
}

// plan reads the file, finds out what importing it comes to, and adds the counts to the event.
func (s *Service) plan(ctx context.Context, file api.Import, event *audit.Event) (user.Plan, error) {
	accounts, err := parse(file)
	if err != nil {
		return user.Plan{}, err
	}
	accounts.SkipRejected = file.SkipRejected
	plan, err := s.parts.Users.PlanImport(ctx, accounts)
	if err != nil && !errors.Is(err, user.ErrRejected) {
		return user.Plan{}, translate(err)
	}
	event.Details["format"] = file.Format
	event.Details["added"] = strconv.Itoa(len(plan.New))
	event.Details["existing"] = strconv.Itoa(len(plan.Existing))
	event.Details["rejected"] = strconv.Itoa(len(plan.Rejected))
	if err != nil {
		event.Details["added"] = "0"
		return user.Plan{}, importError(plan.Rejected)
	}
	return plan, nil
}

// nameLists joins the names with commas, in as many texts as the limit of a record's strings makes of them; at least one.
func nameLists(users []user.User) []string {
	lists := []string{""}
	for _, u := range users {
		last := &lists[len(lists)-1]
		switch {
		case *last == "":
			*last = u.Name
		case len(*last)+1+len(u.Name) <= audit.MaxString:
			*last += "," + u.Name
		default:
			lists = append(lists, u.Name)
		}
	}
	return lists
}

// recordNames records the names that the import's own record has no room for.
func (s *Service) recordNames(ctx context.Context, event audit.Event, names []string) error {
	for i, list := range names[1:] {
		event.Details = map[string]string{
			"operation": event.Details["operation"],
			"names":     list,
			"part":      fmt.Sprintf("%d/%d", i+2, len(names)),
		}
		if _, err := s.parts.Log.Append(ctx, event); err != nil {
			return fmt.Errorf("record names: %w", err)
		}
	}
	return nil
}

// countAdded makes the details true of an import that ended half way. Accounts are added in the order in which they were
// planned, so that names beyond the limit of a string are known from the count and the records before.
func countAdded(details map[string]string, added []user.User) {
	details["added"] = strconv.Itoa(len(added))
	details["names"] = nameLists(added)[0]
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
