package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"gatehouse/admin/client"
	"gatehouse/audit"
)

func newSessionCommand(m machine) *cobra.Command {
	o := newOperator(m)
	noun := newNoun("session", "Live sessions", newSessionList(o), newSessionRevoke(o))
	noun.Example = `  gatehouse session list --user alice
  gatehouse session revoke --user alice --reason "laptop stolen"`
	o.addFlags(noun)
	return noun
}

func newSessionList(o *operator) *cobra.Command {
	var name string
	command := &cobra.Command{
		Use:     "list",
		Short:   "List live sessions",
		Example: `  gatehouse session list --user alice`,
		Args:    takes(),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, _ []string) error {
			sessions, err := c.Sessions(command.Context(), name)
			if err != nil {
				return err
			}
			return o.print(sessions, func(w io.Writer) {
				fmt.Fprintln(w, "ID\tUSER\tSINCE\tENDS\tMETHODS\tADDRESS\tBROWSER")
				for _, s := range sessions {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, audit.Printable(s.User), when(s.CreatedAt), when(s.ExpiresAt),
						orDash(strings.Join(s.Methods, ",")), orDash(s.Address), orDash(s.UserAgent))
				}
			})
		}),
	}
	command.Flags().StringVar(&name, "user", "", "of this `NAME` only")
	return command
}

func newSessionRevoke(o *operator) *cobra.Command {
	var name, reason string
	command := &cobra.Command{
		Use:   "revoke ID | --user NAME",
		Short: "End a session, or all sessions of a user",
		Example: `  gatehouse session revoke 3f9a0c1d2e4b5a69
  gatehouse session revoke --user alice --reason "laptop stolen"`,
		Args: func(command *cobra.Command, args []string) error {
			if given := command.Flags().Changed("user"); given == (len(args) > 0) || len(args) > 1 {
				return usagef(command, "%s takes either ID or --user NAME", command.CommandPath())
			}
			return nil
		},
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			if len(args) == 1 {
				if err := c.RevokeSession(command.Context(), args[0], reason); err != nil {
					return err
				}
				o.say("The session was ended.")
				return nil
			}
			n, err := c.RevokeSessions(command.Context(), name, reason)
			if err != nil {
				return err
			}
			o.say("%d sessions of %s were ended.", n, audit.Printable(name))
			return nil
		}),
	}
	command.Flags().StringVar(&name, "user", "", "every session of this `NAME`")
	addReason(command, &reason)
	return command
}
