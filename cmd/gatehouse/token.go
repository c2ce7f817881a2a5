package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/admin/api"
	"gatehouse/admin/client"
	"gatehouse/audit"
	"gatehouse/configs"
)

func newTokenCommand(m machine) *cobra.Command {
	o := newOperator(m)
	noun := newNoun("token", "App tokens, for programs without a browser", newTokenCreate(o), newTokenList(o), newTokenRevoke(o))
	noun.Example = `  gatehouse token create --user alice --route caldav --expires 180d
  gatehouse token list --user alice
  gatehouse token revoke 5f0c9d1e2a3b4c6d --reason "phone lost"`
	o.addFlags(noun)
	return noun
}

func newTokenCreate(o *operator) *cobra.Command {
	var asked api.NewToken
	var expires string
	command := &cobra.Command{
		Use:   "create --user NAME --route R",
		Short: "Make an app token",
		Long: `Make an app token, with which a program that cannot show a login page (CalDAV, git, CI) acts as one user on one route. It is printed
once. The program presents it as its password beside the user's name, or as a bearer token. It passes no rule that asks for a second factor.`,
		Example: `  gatehouse token create --user alice --route caldav
  gatehouse token create --user ci --route git --expires 30d --reason "nightly builds"`,
		Args: func(command *cobra.Command, args []string) error {
			if asked.User == "" || asked.Route == "" || len(args) > 0 {
				return usagef(command, "%s takes --user NAME and --route R", command.CommandPath())
			}
			return nil
		},
		RunE: o.asking(func(command *cobra.Command, c *client.Client, _ []string) error {
			if expires != "" {
				lifetime, err := configs.ParseDuration(expires)
				if err != nil || lifetime < time.Minute {
					return usagef(command, "--expires must be a duration of a minute or more with its unit, as in 12h or 90d")
				}
				asked.ExpiresIn = int64(lifetime / time.Second)
			}
			made, err := c.AddToken(command.Context(), asked)
			if err != nil {
				return err
			}
			return o.print(made, func(w io.Writer) {
				fmt.Fprintf(w, "token\t%s\n", made.Secret)
				fmt.Fprintf(w, "id\t%s\n", made.Token.ID)
				fmt.Fprintf(w, "user\t%s\n", audit.Printable(made.Token.User))
				fmt.Fprintf(w, "route\t%s\n", audit.Printable(made.Token.Route))
				fmt.Fprintf(w, "ends\t%s\n", when(made.Token.ExpiresAt))
			})
		}),
	}
	flags := command.Flags()
	flags.StringVar(&asked.User, "user", "", "whose it is, by `NAME`")
	flags.StringVar(&asked.Route, "route", "", "the name `R` of the route that it is for")
	flags.StringVar(&expires, "expires", "", "how long it lives, as `D`: 12h, 30d; 90d if not given, 366d at most")
	addReason(command, &asked.Reason)
	return command
}

func newTokenList(o *operator) *cobra.Command {
	var name string
	command := &cobra.Command{
		Use:     "list",
		Short:   "List app tokens and when they were used",
		Example: "  gatehouse token list --user alice",
		Args:    takes(),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, _ []string) error {
			tokens, err := c.AppTokens(command.Context(), name)
			if err != nil {
				return err
			}
			return o.print(tokens, func(w io.Writer) {
				fmt.Fprintln(w, "ID\tUSER\tROUTE\tCREATED\tENDS\tLAST USE")
				for _, t := range tokens {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, audit.Printable(t.User), audit.Printable(t.Route), when(t.CreatedAt), when(t.ExpiresAt), when(t.UsedAt))
				}
			})
		}),
	}
	command.Flags().StringVar(&name, "user", "", "of this `NAME` only")
	return command
}

func newTokenRevoke(o *operator) *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:     "revoke ID",
		Short:   "End an app token on every gateway",
		Example: `  gatehouse token revoke 5f0c9d1e2a3b4c6d --reason "phone lost"`,
		Args:    takes("ID"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			if err := c.RevokeToken(command.Context(), args[0], reason); err != nil {
				return err
			}
			o.say("The app token was ended.")
			return nil
		}),
	}
	addReason(command, &reason)
	return command
}
