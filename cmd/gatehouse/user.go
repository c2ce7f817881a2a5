package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"gatehouse/admin/api"
	"gatehouse/admin/client"
	"gatehouse/audit"
)

func newUserCommand(m machine) *cobra.Command {
	o := newOperator(m)
	noun := newNoun("user", "Accounts",
		newUserAdd(o), newUserInvite(o), newUserList(o), newUserShow(o), newUserDisable(o), newUserEnable(o),
		newUserPasswd(o), newUserGroup(o), newUserDelete(o), newUserImport(o))
	noun.Example = `  gatehouse user add alice --email alice@example.org --group staff
  gatehouse user list -o json
  gatehouse user disable alice --reason "left the company"`
	o.addFlags(noun)
	return noun
}

func newUserAdd(o *operator) *cobra.Command {
	var user api.NewUser
	var fromStdin bool
	command := &cobra.Command{
		Use:   "add NAME",
		Short: "Add an account and print the link with which its owner completes it",
		Long: `Add an account and print a one-time link. Whoever opens it chooses the password and sets up the second factor, so give it
to the owner of the account and to nobody else.

With --password-stdin the account has that password at once, and there is no link.`,
		Example: `  gatehouse user add alice --email alice@example.org --name "Alice Doe" --group staff --group admins
  pass show alice | gatehouse user add alice --password-stdin`,
		Args: takes("NAME"),
	}
	command.RunE = o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
		if !fromStdin {
			made, err := c.AddInvited(command.Context(), api.NewInvitation{
				Name: args[0], DisplayName: user.DisplayName, Email: user.Email, Groups: user.Groups, Reason: user.Reason,
			})
			if err != nil {
				return err
			}
			return o.print(made, func(w io.Writer) { printInvitation(w, "was added", made) })
		}
		password, err := o.password(command, fromStdin)
		if err != nil {
			return err
		}
		user.Name, user.Password = args[0], password
		added, err := c.AddUser(command.Context(), user)
		if err != nil {
			return err
		}
		return o.print(added, func(w io.Writer) {
			fmt.Fprintf(w, "%s was added. Until %s a second factor can be set up with the password alone.\n", added.Name, when(added.EnrolUntil))
		})
	})
	flags := command.Flags()
	flags.StringVar(&user.Email, "email", "", "mail `ADDRESS`")
	flags.StringVar(&user.DisplayName, "name", "", "`NAME` to show, as in \"Alice Doe\"")
	flags.StringArrayVar(&user.Groups, "group", nil, "a `GROUP` of the account; may be repeated")
	flags.BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	addReason(command, &user.Reason)
	return command
}

func newUserInvite(o *operator) *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:   "invite NAME",
		Short: "Print a new link for an account that has never been signed in to",
		Long: `Print a new one-time link for an account that has never been signed in to; the former link ends. Whoever opens it chooses the
password and sets up the second factor, in place of those that the account may have.

For an account that was signed in to, 'gatehouse totp enrol NAME' makes a second factor to hand over.`,
		Example: `  gatehouse user invite alice`,
		Args:    takes("NAME"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			made, err := c.Invite(command.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return o.print(made, func(w io.Writer) { printInvitation(w, "is invited", made) })
		}),
	}
	addReason(command, &reason)
	return command
}

// printInvitation shows a link, which is not shown again.
func printInvitation(w io.Writer, what string, made api.Invitation) {
	fmt.Fprintf(w, "%s %s. This link works once, until %s; whoever opens it chooses a password and a second factor:\n\n  %s\n",
		made.User.Name, what, when(made.Until), made.Link)
}

func newUserList(o *operator) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List every account",
		Example: `  gatehouse user list`,
		Args:    takes(),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, _ []string) error {
			users, err := c.Users(command.Context())
			if err != nil {
				return err
			}
			return o.print(users, func(w io.Writer) {
				fmt.Fprintln(w, "NAME\tDISPLAY NAME\tEMAIL\tGROUPS\tSTATE\tSECOND FACTOR")
				for _, u := range users {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", u.Name, orDash(u.DisplayName), orDash(u.Email),
						orDash(strings.Join(u.Groups, ",")), state(u), factor(u))
				}
			})
		}),
	}
}

func newUserShow(o *operator) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show one account",
		Example: `  gatehouse user show alice`,
		Args:    takes("NAME"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			u, err := c.User(command.Context(), args[0])
			if err != nil {
				return err
			}
			return o.print(u, func(w io.Writer) {
				fmt.Fprintf(w, "name\t%s\nid\t%s\ndisplay name\t%s\nemail\t%s\n", u.Name, u.ID, orDash(u.DisplayName), orDash(u.Email))
				fmt.Fprintf(w, "groups\t%s\nstate\t%s\nsecond factor\t%s\n", orDash(strings.Join(u.Groups, ", ")), state(u), factor(u))
				fmt.Fprintf(w, "created\t%s\nenrol until\t%s\n", when(u.CreatedAt), when(u.EnrolUntil))
				fmt.Fprintf(w, "invited until\t%s\n", when(u.InvitedUntil))
				fmt.Fprintf(w, "first login\t%s\npassword changed\t%s\n", when(u.FirstLoginAt), when(u.PasswordChangedAt))
			})
		}),
	}
}

// state says in a word whether the account can be used.
func state(u api.User) string {
	switch {
	case u.Disabled:
		return "disabled"
	case u.HasPassword:
		return "enabled"
	case u.InvitedUntil.IsZero():
		return "no password"
	}
	return "invited"
}

// factor names the second factor that is enrolled.
func factor(u api.User) string {
	if u.TOTPEnrolledAt.IsZero() {
		return "none"
	}
	return "totp since " + when(u.TOTPEnrolledAt)
}

func newUserDisable(o *operator) *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:     "disable NAME",
		Short:   "Close an account and end its sessions",
		Example: `  gatehouse user disable alice --reason "left the company"`,
		Args:    takes("NAME"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			if err := c.DisableUser(command.Context(), args[0], reason); err != nil {
				return err
			}
			o.say("%s is disabled; all sessions were ended.", audit.Printable(args[0]))
			return nil
		}),
	}
	addReason(command, &reason)
	return command
}

func newUserEnable(o *operator) *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:     "enable NAME",
		Short:   "Open a disabled account",
		Example: `  gatehouse user enable alice --reason "back from leave"`,
		Args:    takes("NAME"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			if err := c.EnableUser(command.Context(), args[0], reason); err != nil {
				return err
			}
			o.say("%s is enabled.", audit.Printable(args[0]))
			return nil
		}),
	}
	addReason(command, &reason)
	return command
}

func newUserPasswd(o *operator) *cobra.Command {
	var reason string
	var fromStdin bool
	command := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Set a password, end the account's sessions and forget its devices",
		Long: `Set a password, end the account's sessions and forget its devices.

Only an operator on the gateway's own socket may do this, not the holder of a token.`,
		Example: `  gatehouse user passwd alice
  pass show alice | gatehouse user passwd alice --password-stdin`,
		Args: takes("NAME"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			password, err := o.password(command, fromStdin)
			if err != nil {
				return err
			}
			if err := c.SetPassword(command.Context(), args[0], password, reason); err != nil {
				return err
			}
			o.say("The password of %s is set; all sessions were ended.", audit.Printable(args[0]))
			return nil
		}),
	}
	command.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	addReason(command, &reason)
	return command
}

func newUserGroup(o *operator) *cobra.Command {
	var reason string
	var none bool
	command := &cobra.Command{
		Use:   "group NAME GROUP... | NAME --none",
		Short: "Replace the groups of an account and end its sessions",
		Long: `Replace the groups of an account and end its sessions.

With --none the account is in no group afterwards.`,
		Example: `  gatehouse user group alice staff admins
  gatehouse user group alice --none`,
		Args: func(command *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef(command, "%s takes NAME and its groups", command.CommandPath())
			case len(args) == 1 && !none:
				return usagef(command, "%s takes the groups of NAME; give --none to take all of them away", command.CommandPath())
			case len(args) > 1 && none:
				return usagef(command, "%s takes either groups or --none", command.CommandPath())
			}
			return nil
		},
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			if err := c.SetGroups(command.Context(), args[0], args[1:], reason); err != nil {
				return err
			}
			o.say("%s is in: %s. All sessions were ended.", audit.Printable(args[0]), orDash(strings.Join(args[1:], ", ")))
			return nil
		}),
	}
	command.Flags().BoolVar(&none, "none", false, "take all groups away")
	addReason(command, &reason)
	return command
}

func newUserDelete(o *operator) *cobra.Command {
	var reason string
	var yes bool
	command := &cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete an account with everything enrolled",
		Example: `  gatehouse user delete alice --yes --reason "asked to be forgotten"`,
		Args:    takes("NAME"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			name := audit.Printable(args[0])
			if err := o.confirm(command, yes, "Delete the account "+name+" for good?"); err != nil {
				return err
			}
			if err := c.DeleteUser(command.Context(), args[0], reason); err != nil {
				return err
			}
			o.say("%s is deleted; all sessions were ended.", name)
			return nil
		}),
	}
	addReason(command, &reason)
	addYes(command, &yes)
	return command
}

func newUserImport(o *operator) *cobra.Command {
	file := api.Import{}
	command := &cobra.Command{
		Use:   "import --format FORMAT FILE",
		Short: "Import the accounts of another program, passwords included",
		Long: `Import the accounts of another program, passwords included.

Formats are htpasswd (bcrypt entries) and authelia (its users file, bcrypt entries). If one entry cannot be imported, nothing
is, and all of those entries are listed; --skip-rejected leaves them out. FILE may be - for standard input.`,
		Example: `  gatehouse user import --format htpasswd /etc/nginx/htpasswd
  gatehouse user import --format authelia users_database.yml --skip-rejected`,
		Args: takes("FILE"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			if file.Format != api.FormatHtpasswd && file.Format != api.FormatAuthelia {
				return usagef(command, "--format must be %s or %s", api.FormatHtpasswd, api.FormatAuthelia)
			}
			content, err := readFile(o.in, args[0])
			if err != nil {
				return err
			}
			file.Content = content
			done, err := c.Import(command.Context(), file)
			if err != nil {
				return err
			}
			return o.print(done, func(w io.Writer) { printImport(w, done) })
		}),
	}
	flags := command.Flags()
	flags.StringVar(&file.Format, "format", "", "`FORMAT` of the file: htpasswd or authelia")
	flags.BoolVar(&file.SkipRejected, "skip-rejected", false, "import what can be imported")
	_ = command.RegisterFlagCompletionFunc("format",
		cobra.FixedCompletions([]string{api.FormatHtpasswd, api.FormatAuthelia}, cobra.ShellCompDirectiveNoFileComp))
	addReason(command, &file.Reason)
	return command
}

// readFile reads a file that fits into an import, or standard input for "-".
func readFile(in io.Reader, path string) (string, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, api.MaxImportBody+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if len(content) > api.MaxImportBody {
		return "", fmt.Errorf("%s is over %d bytes: import it in parts", path, api.MaxImportBody)
	}
	return string(content), nil
}

func printImport(w io.Writer, done api.Imported) {
	fmt.Fprintf(w, "%d accounts were imported, %d were there already.\n", len(done.Added), len(done.Existing))
	if len(done.Rejected) == 0 {
		return
	}
	fmt.Fprintf(w, "%d entries were not:\n", len(done.Rejected))
	for _, r := range done.Rejected {
		fmt.Fprintf(w, "  line %d\t%s\t%s\n", r.Line, orDash(r.Name), audit.Printable(r.Why))
	}
}
