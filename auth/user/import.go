package user

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"gatehouse/auth/password"
)

// maxImport bounds a file of accounts, in bytes.
const maxImport = 4 << 20

// ErrRejected says that a file was not imported because some of it cannot be. Nothing was written.
var ErrRejected = errors.New("not everything can be imported, so nothing was")

// Import is a file of accounts that was read and understood, but not written.
type Import struct {
	Users    []User
	Rejected []Rejected // by line
	// SkipRejected is the caller's choice: write what can be imported and leave out the rest.
	SkipRejected bool

	lines map[string]int // where each of Users stands, by canonical name
}

// Rejected is an account of a file that cannot be imported.
type Rejected struct {
	Name string // as the file spells it: not checked in any way
	Line int    // from 1; 0 if it did not come from a file
	Why  string // never holds a hash or password
}

// Plan is what importing a file comes to, found out without a write.
type Plan struct {
	New      []User     // to be added, canonical
	Existing []string   // accounts that are there already and are the same
	Rejected []Rejected // by line: what the file itself rules out, and what is in conflict with an account that exists
}

// PlanImport checks everything before the first write: names, groups, addresses, hashes, and that no other account has the
// name. If anything is rejected and SkipRejected is not set, the error is ErrRejected, and the plan tells all of it.
func (s *Store) PlanImport(ctx context.Context, im Import) (Plan, error) {
	plan := Plan{Rejected: slices.Clone(im.Rejected)}
	reject := func(u User, why string) {
		plan.Rejected = append(plan.Rejected, Rejected{Name: u.Name, Line: im.lines[u.Name], Why: why})
	}
	seen := map[string]bool{}
	for _, raw := range im.Users {
		u, err := importable(raw)
		if err != nil {
			reject(raw, err.Error())
			continue
		}
		if seen[u.Name] {
			reject(raw, "the name was there before")
			continue
		}
		seen[u.Name] = true
		switch existing, err := s.ByName(ctx, u.Name); {
		case errors.Is(err, ErrNotFound):
			plan.New = append(plan.New, u)
		case err != nil:
			return Plan{}, fmt.Errorf("plan import: %w", err)
		case same(existing, u):
			plan.Existing = append(plan.Existing, u.Name)
		default:
			reject(u, "an account of this name exists and is not the same")
		}
	}
	slices.SortStableFunc(plan.Rejected, byLine)
	if len(plan.Rejected) > 0 && !im.SkipRejected {
		return plan, ErrRejected
	}
	return plan, nil
}

// Import adds the new accounts of a plan and returns those that were added. If a write fails half way, the error says so;
// planning and importing the same file once more passes over the accounts that are there and completes it. ErrNameTaken if an
// account was added since the plan was made.
func (s *Store) Import(ctx context.Context, plan Plan) ([]User, error) {
	var added []User
	for _, u := range plan.New {
		one, err := s.Add(ctx, u)
		if err != nil {
			return added, fmt.Errorf("import %s, after %d of %d new accounts: %w", u.Name, len(added), len(plan.New), err)
		}
		added = append(added, one)
	}
	return added, nil
}

// same reports whether an account is what importing u would have made.
func same(existing, u User) bool {
	return existing.Name == u.Name && existing.DisplayName == u.DisplayName && existing.Email == u.Email &&
		existing.Disabled == u.Disabled && existing.PasswordHash == u.PasswordHash && slices.Equal(existing.Groups, u.Groups)
}

// importable makes an account canonical, or says why it cannot be imported.
func importable(u User) (User, error) {
	if err := checkImportedHash(u.PasswordHash); err != nil {
		return User{}, err
	}
	return normal(u)
}

// otherHashes are beginnings of hashes that people have and that cannot be imported.
var otherHashes = []struct{ prefix, what string }{
	{"$apr1$", "an MD5 (apr1) hash"},
	{"$1$", "an MD5 (crypt) hash"},
	{"{SHA}", "an unsalted SHA-1 hash"},
	{"{SSHA}", "a salted SHA-1 hash"},
	{"$5$", "a SHA-256 (crypt) hash"},
	{"$6$", "a SHA-512 (crypt) hash"},
	{"$y$", "a yescrypt hash"},
	{"$argon2", "an Argon2 hash"},
	{"$scrypt$", "a scrypt hash"},
	{"$pbkdf2", "a PBKDF2 hash"},
	{"$bcrypt-sha256$", "a bcrypt hash over SHA-256"},
	{"$gatehouse-", "a hash of ours, which only the store that it was made in can verify"},
}

// checkImportedHash accepts plain bcrypt hashes of a bearable cost, and says of others what they are.
func checkImportedHash(hash string) error {
	if strings.HasPrefix(hash, "$2") {
		if _, err := password.HashCost(hash); err != nil {
			return fmt.Errorf("the password cannot be imported: %w", err)
		}
		return nil
	}
	what := "not a hash that is known (crypt, or the password itself)"
	if hash == "" {
		what = "empty"
	}
	for _, other := range otherHashes {
		if strings.HasPrefix(hash, other.prefix) {
			what = other.what
			break
		}
	}
	return fmt.Errorf("the password is %s; only bcrypt hashes can be imported", what)
}

// reading collects the accounts of a file while it is read.
type reading struct {
	im    Import
	first map[string]Rejected // the first entry of each canonical name, whatever became of it; Why is empty
	twice map[string]bool     // the canonical names that several entries have
}

func newReading() *reading { return &reading{first: map[string]Rejected{}, twice: map[string]bool{}} }

// take adds one entry of a file with its place, or rejects it with the problem that was found in reading it.
func (r *reading) take(u User, line int, problem error) {
	name, err := Canonical(u.Name)
	if err != nil {
		r.reject(u.Name, line, err.Error())
		return
	}
	if before, known := r.first[name]; known {
		r.twice[name] = true
		r.reject(u.Name, line, fmt.Sprintf("the same account as %q on line %d", before.Name, before.Line))
		return
	}
	r.first[name] = Rejected{Name: u.Name, Line: line}
	raw := u.Name
	if problem == nil {
		u, problem = importable(u)
	}
	if problem != nil {
		r.reject(raw, line, problem.Error())
		return
	}
	r.im.Users = append(r.im.Users, u)
}

func (r *reading) reject(name string, line int, why string) {
	r.im.Rejected = append(r.im.Rejected, Rejected{Name: name, Line: line, Why: why})
}

// finish returns what was read. Of entries that are one account none is imported: which password was meant is not known.
func (r *reading) finish() Import {
	im := r.im
	im.lines = map[string]int{}
	im.Users = slices.DeleteFunc(im.Users, func(u User) bool {
		first := r.first[u.Name]
		im.lines[u.Name] = first.Line
		if r.twice[u.Name] {
			im.Rejected = append(im.Rejected, Rejected{first.Name, first.Line, "other lines are the same account: " + u.Name})
		}
		return r.twice[u.Name]
	})
	slices.SortStableFunc(im.Rejected, byLine)
	return im
}

func byLine(a, b Rejected) int { return cmp.Compare(a.Line, b.Line) }

// readAll reads a file of bounded size, without a byte order mark.
func readAll(file io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(file, maxImport+1))
	if err != nil {
		return "", fmt.Errorf("read accounts: %w", err)
	}
	if len(text) > maxImport {
		return "", fmt.Errorf("read accounts: more than %d bytes", maxImport)
	}
	return strings.TrimPrefix(string(text), "\ufeff"), nil
}

// ParseHtpasswd reads an htpasswd file as Apache and nginx do: one "name:hash" on a line, further fields ignored, lines that
// begin with "#" and empty ones too. Only bcrypt hashes (htpasswd -B) can be imported. The error is one of reading.
func ParseHtpasswd(file io.Reader) (Import, error) {
	text, err := readAll(file)
	if err != nil {
		return Import{}, err
	}
	r := newReading()
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		if !ok {
			r.reject("", number, `not of the form "name:hash"`)
			continue
		}
		hash, _, _ := strings.Cut(rest, ":")
		r.take(User{Name: name, PasswordHash: hash}, number, nil)
	}
	return r.finish(), nil
}
