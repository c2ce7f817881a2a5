package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"gatehouse/admin/client"
	"gatehouse/secrets"
)

func newKeyCommand(m machine) *cobra.Command {
	newRoot := &cobra.Command{
		Use:   "new-root",
		Short: "Print a new root key",
		Long: `Print a new root key: 32 random bytes in base64. Nothing is stored and no gateway is asked. Several gateways on one store
need the same root key; keep it apart from copies of the store, which cannot be read without it.`,
		Example: "  (umask 077; gatehouse key new-root > /etc/gatehouse/root.key)",
		Args:    takes(),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(m.out, secrets.NewRootKeyText())
			return err
		},
	}
	o := newOperator(m)
	list, rotate := newKeyList(o), newKeyRotate(o)
	for _, command := range []*cobra.Command{list, rotate} {
		o.addFlags(command)
	}
	return newNoun("key", "The root key, and the keys that sign tokens", newRoot, list, rotate)
}

func newKeyList(o *operator) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys that sign tokens",
		Long: `List the keys that sign tokens: the active one, the next one, which is published a day before it signs, and the retired ones,
which are accepted until their last token has expired. A key signs for 30 days.`,
		Example: "  gatehouse key list",
		Args:    takes(),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, _ []string) error {
			keys, err := c.Keys(command.Context())
			if err != nil {
				return err
			}
			return o.print(keys, func(w io.Writer) {
				fmt.Fprintln(w, "ID\tSTATE\tCREATED\tSIGNS SINCE\tRETIRED\tENDS")
				for _, k := range keys {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.State, when(k.CreatedAt), when(k.BeganAt), when(k.RetiredAt), when(k.EndsAt))
				}
			})
		}),
	}
}

func newKeyRotate(o *operator) *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:   "rotate",
		Short: "Make the next key sign now",
		Long: `Make the next key sign now, and a fresh one if there is none. The former key is accepted until its last token has expired, six
minutes at most, so nobody has to sign in again. An app that checks assertions must read the key set again when it meets a key that
it does not know.`,
		Example: `  gatehouse key rotate --reason "an administrator left"`,
		Args:    takes(),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, _ []string) error {
			if err := c.RotateKeys(command.Context(), reason); err != nil {
				return err
			}
			o.say("A new key signs.")
			return nil
		}),
	}
	addReason(command, &reason)
	return command
}
