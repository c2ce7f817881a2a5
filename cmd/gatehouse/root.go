package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// machine is what the commands use of the machine they run on.
type machine struct {
	in          io.Reader
	out, errOut io.Writer
	environ     []string // NAME=value
	now         func() time.Time
	// terminal says that a person is at in; readSecret then reads a line from it without showing it.
	terminal   bool
	readSecret func() (string, error)
}

// usageError is a command line that cannot be meant; it ends with exit code 2 and a pointer to the help.
type usageError struct {
	text    string
	command *cobra.Command
}

func (e *usageError) Error() string { return e.text }

// usagef makes a usageError.
func usagef(command *cobra.Command, format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...), command: command}
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, m machine) int {
	root := newRootCommand(m)
	root.SetArgs(args)
	root.SetIn(m.in)
	root.SetOut(m.out)
	root.SetErr(m.errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(m.errOut, "gatehouse: %s\n", err)
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		fmt.Fprintf(m.errOut, "See '%s --help'.\n", usage.command.CommandPath())
		return exitUsage
	}
	return exitFailed
}

func newRootCommand(m machine) *cobra.Command {
	root := newNoun("gatehouse", "An authentication gateway: it lets a request through only with a live session",
		newServeCommand(m),
		newVersionCommand(m),
		newHealthCommand(m),
		newDoctorCommand(m),
		newConfigCommand(m),
		newUserCommand(m),
		newLockoutCommand(m),
		newTOTPCommand(m),
		newSessionCommand(m),
		newTokenCommand(m),
		newAuditCommand(m),
		newKeyCommand(m),
	)
	root.Example = `  gatehouse serve
  gatehouse user add alice --group staff
  gatehouse lockout reset alice --reason "called the help desk"
  gatehouse audit tail --follow`
	root.SilenceErrors = true // run prints them
	root.SilenceUsage = true
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error { return usagef(command, "%s", err) })
	return root
}

// newNoun makes a command that only holds others. Called by itself, or with a word that is none of them, it is a usage
// error: cobra alone would print the help and report success.
func newNoun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	noun := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef(command, "say what to do: %s", strings.Join(names(command), ", "))
			}
			text := fmt.Sprintf("%q is no command of %s", args[0], command.CommandPath())
			if near := command.SuggestionsFor(args[0]); len(near) > 0 {
				text += "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return usagef(command, "%s", text)
		},
	}
	noun.SuggestionsMinimumDistance = 2
	noun.AddCommand(verbs...)
	return noun
}

// names lists the commands that a noun holds.
func names(noun *cobra.Command) []string {
	var list []string
	for _, verb := range noun.Commands() {
		if verb.IsAvailableCommand() {
			list = append(list, verb.Name())
		}
	}
	return list
}

// takes makes a check of the number of arguments, by their names in the usage line.
func takes(arguments ...string) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		switch {
		case len(args) == len(arguments):
			return nil
		case len(arguments) == 0:
			return usagef(command, "%s takes no argument", command.CommandPath())
		}
		return usagef(command, "%s takes %s, got %d arguments", command.CommandPath(), strings.Join(arguments, " and "), len(args))
	}
}
