package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"gatehouse/configs"
)

func newServeCommand(m machine) *cobra.Command {
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway. Without a configuration it keeps its state in ./gatehouse-data, listens on 127.0.0.1:8080 and stands in front
of a small sample app.

A setting comes from its flag, from its variable (GATEHOUSE_LISTEN, or GATEHOUSE_LISTEN_FILE for a file that holds it), from the
configuration file, or has its default; 'gatehouse config show' says which.`,
		Example: `  gatehouse serve
  gatehouse serve --upstream http://127.0.0.1:9090
  gatehouse serve --config /etc/gatehouse/gatehouse.yaml`,
		Args: takes(),
	}
	flags := addConfigFlags(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		loaded, err := flags.load(m)
		if err != nil {
			return err
		}
		return serve(command.Context(), m, loaded)
	}
	return command
}

// serve builds the gateway and runs it until ctx ends.
func serve(context.Context, machine, *configs.Loaded) error {
	return errors.New("the gateway package is not linked in")
}
