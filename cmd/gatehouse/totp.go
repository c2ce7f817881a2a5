package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"gatehouse/admin/client"
	"gatehouse/audit"
)

func newTOTPCommand(m machine) *cobra.Command {
	o := newOperator(m)
	noun := newNoun("totp", "Authenticator apps as second factors", newTOTPEnrol(o), newTOTPReset(o))
	noun.Example = `  gatehouse totp enrol alice`
	o.addFlags(noun)
	return noun
}

func newTOTPEnrol(o *operator) *cobra.Command {
	var reason string
	var yes bool
	command := &cobra.Command{
		Use:   "enrol NAME",
		Short: "Give an account a new authenticator secret, shown once",
		Long: `Give an account a new authenticator secret in place of the old one. It is shown once and is valid at once: hand it over in
person. The account's sessions end and its devices are forgotten. An invitation of the account ends: its link is no good any more.`,
		Example: `  gatehouse totp enrol alice`,
		Args:    takes("NAME"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			if err := o.confirmReplacing(command, c, args[0], yes); err != nil {
				return err
			}
			e, err := c.EnrolTOTP(command.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return o.print(e, func(w io.Writer) {
				fmt.Fprintf(w, "url\t%s\nsecret\t%s\n", audit.Printable(e.URL), e.Secret)
				if e.InvitationEnded {
					fmt.Fprintf(w, "\nThe invitation of %[1]s ended: its link is no good any more. Set a password with 'gatehouse user passwd %[1]s',\n"+
						"or make a new link with 'gatehouse user invite %[1]s', which takes the place of this authenticator too.\n", e.User)
				}
			})
		}),
	}
	addReason(command, &reason)
	addYes(command, &yes)
	return command
}

// confirmReplacing asks only if there is a second factor that would stop working.
func (o *operator) confirmReplacing(command *cobra.Command, c *client.Client, name string, yes bool) error {
	if yes {
		return nil
	}
	u, err := c.User(command.Context(), name)
	if err != nil || u.TOTPEnrolledAt.IsZero() {
		return err
	}
	return o.confirm(command, yes, u.Name+" has an authenticator, which will stop working. Replace it?")
}

func newTOTPReset(o *operator) *cobra.Command {
	var reason string
	var yes bool
	command := &cobra.Command{
		Use:   "reset NAME",
		Short: "Take an account's authenticator away",
		Long: `Take an account's authenticator away, after its loss. The account then has no second factor, its sessions end, and its known
devices are forgotten.

Where a second factor is required, the password alone does not let its owner in again: the way back is 'gatehouse totp enrol NAME',
whose secret you hand over in person. That command replaces the lost authenticator without a reset before it. Only an account that was
never signed in to can still set one up at its first login.`,
		Example: `  gatehouse totp reset alice --reason "phone lost, identity checked in person"`,
		Args:    takes("NAME"),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, args []string) error {
			name := audit.Printable(args[0])
			if err := o.confirm(command, yes, "Take the authenticator of "+name+" away?"); err != nil {
				return err
			}
			if err := c.ResetTOTP(command.Context(), args[0], reason); err != nil {
				return err
			}
			o.say("%s has no authenticator any more; all sessions were ended and its known devices forgotten.\n"+
				"Where a second factor is required, the way back in is 'gatehouse totp enrol %s': hand its secret over in person.", name, name)
			return nil
		}),
	}
	addReason(command, &reason)
	addYes(command, &yes)
	return command
}
