package main

import (
	"fmt"

	"github.com/spf13/cobra"

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
	return newNoun("key", "Make the keys that a gateway is given", newRoot)
}
