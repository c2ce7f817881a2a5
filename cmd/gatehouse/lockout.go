package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"gatehouse/admin/api"
	"gatehouse/admin/client"
	"gatehouse/audit"
)

func newLockoutCommand(m machine) *cobra.Command {
	o := newOperator(m)
	noun := newNoun("lockout", "Failures and locks of accounts",
		newLockoutList(o), newLockoutShow(o), newLockoutReset(o))
	noun.Example = `  gatehouse lockout show alice
  gatehouse lockout reset alice --reason "called from her desk phone"`
	o.addFlags(noun)
	return noun
}

func newLockoutList(o *operator) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List every name with failures",
		Example: `  gatehouse lockout list -o json`,
		Args:    takes(),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, _ []string) error {
			lockouts, err := c.Lockouts(command.Context())
			if err != nil {
				return err
			}
			return o.print(lockouts, func(w io.Writer) { printLockouts(w, lockouts) })
		}),
	}
}

func newLockoutShow(o *operator) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show the failures and locks of one name",
		Example: `  gatehouse lockout show alice`,
		Args:    takes("NAME"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			lockouts, err := c.Lockout(command.Context(), args[0])
			if err != nil {
				return err
			}
			return o.print(lockouts, func(w io.Writer) {
				if len(lockouts) == 0 {
					fmt.Fprintf(w, "There are no failures of %s.\n", audit.Printable(args[0]))
					return
				}
				printLockouts(w, lockouts)
			})
		}),
	}
}

func printLockouts(w io.Writer, lockouts []api.Lockout) {
	fmt.Fprintln(w, "NAME\tWINDOW\tCLIENT\tFAILURES\tIN A ROW\tLOCKED UNTIL")
	for _, l := range lockouts {
		name, until := l.User, when(l.LockedUntil)
		if name == "" {
			name = "(no account, " + l.Tag + ")"
		}
		if l.Closed {
			until = "closed until reset"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", audit.Printable(name), l.Window, audit.Printable(l.Client), l.Failures, strconv.Itoa(l.Run), until)
	}
}

func newLockoutReset(o *operator) *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:   "reset NAME --reason TEXT",
		Short: "Clear the failures and locks of one name",
		Long: `Clear the failures and locks of one name: wrong passwords, wrong codes, and the brake that closes an account to strangers
after many failures in a row.`,
		Example: `  gatehouse lockout reset alice --reason "called from her desk phone"`,
		Args:    takes("NAME"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			if reason == "" {
				return usagef(command, "--reason is required: it goes into the audit log")
			}
			if err := c.ResetLockout(command.Context(), args[0], reason); err != nil {
				return err
			}
			o.say("Failures and locks of %s are cleared.", audit.Printable(args[0]))
			return nil
		}),
	}
	addReason(command, &reason)
	return command
}
