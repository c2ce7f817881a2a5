package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gatehouse/configs"
	"gatehouse/gateway"
)

// configFlags are the flags of a command that loads the configuration. They are the same wherever they stand, so that
// `config check` and `config show` see what `serve` would.
type configFlags struct {
	file  string
	flags *pflag.FlagSet
}

// addConfigFlags adds --config and a flag for each setting that has one.
func addConfigFlags(command *cobra.Command) *configFlags {
	c := &configFlags{flags: command.Flags()}
	c.flags.StringVar(&c.file, "config", "", "configuration `FILE` (default: "+configs.DefaultFile+", if there is one)")
	_ = command.MarkFlagFilename("config", "yaml", "yml")
	for _, f := range configs.Flags() {
		c.flags.String(f.Name, f.Default, f.Usage)
	}
	return c
}

// load reads the configuration. The error lists everything that is wrong with it.
func (c *configFlags) load(m machine) (*configs.Loaded, error) {
	given := map[string]string{}
	for _, f := range configs.Flags() {
		if flag := c.flags.Lookup(f.Name); flag.Changed {
			given[f.Setting] = flag.Value.String()
		}
	}
	return loadConfiguration(configs.Sources{File: c.file, Flags: given, Environ: m.environ})
}

// loadConfiguration loads and checks a configuration. The error lists everything that is wrong with it.
func loadConfiguration(src configs.Sources) (*configs.Loaded, error) {
	loaded, err := configs.Load(src)
	var wrong *configs.Errors
	if errors.As(err, &wrong) {
		// Each mistake gets a line of its own that begins with its place, for terminals and editors to jump to.
		return nil, fmt.Errorf("%s\n%w", mistakes(len(wrong.Problems)), err)
	}
	if err != nil {
		return nil, err
	}
	_, err = gateway.Table(loaded.Config) // which knows more of paths than the configuration does
	return loaded, err
}

func mistakes(n int) string {
	if n == 1 {
		return "the configuration has a mistake:"
	}
	return fmt.Sprintf("the configuration has %d mistakes:", n)
}

func newConfigCommand(m machine) *cobra.Command {
	noun := newNoun("config", "Check, show and explain the configuration",
		newConfigCheckCommand(m),
		newConfigShowCommand(m),
		printer(m, "template", "Print a configuration file with every setting, its default and what it does",
			"  gatehouse config template > gatehouse.yaml", configs.Template),
		printer(m, "schema", "Print the JSON schema of the configuration file, for editors",
			"  gatehouse config schema > gatehouse.schema.json", configs.Schema),
		newConfigExplainCommand(m),
		newConfigSnippetCommand(m),
	)
	return noun
}

// checkResult is what `config check -o json` prints.
type checkResult struct {
	File     string            `json:"file,omitempty"`
	Good     bool              `json:"good"`
	Problems []configs.Problem `json:"problems,omitempty"`
	Warnings []string          `json:"warnings,omitempty"`
}

func newConfigCheckCommand(m machine) *cobra.Command {
	o := &output{to: m.out, format: outputTable}
	command := &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong with the configuration",
		Long: `Say everything that is wrong with the configuration: the file, the environment and the flags, as 'gatehouse serve' would read
them. Exits with 1 if anything is. Nothing is started, and no file but those that hold values is opened.`,
		Example: "  gatehouse config check\n  gatehouse config check --config /etc/gatehouse/gatehouse.yaml -o json",
		Args:    takes(),
	}
	flags := addConfigFlags(command)
	o.addFlag(command)
	command.RunE = func(*cobra.Command, []string) error {
		loaded, err := flags.load(m)
		if err != nil {
			return errors.Join(err, o.printProblems(err))
		}
		result := checkResult{File: loaded.File, Good: true, Warnings: loaded.Warnings}
		return o.print(result, func(w io.Writer) {
			for _, warning := range loaded.Warnings {
				fmt.Fprintf(w, "warning: %s\n", warning)
			}
			if loaded.File == "" {
				fmt.Fprintln(w, "the configuration is good; there is no file")
				return
			}
			fmt.Fprintf(w, "%s is good\n", loaded.File)
		})
	}
	return command
}

// printProblems writes the problems for a program; people read them in the error.
func (o *output) printProblems(err error) error {
	var wrong *configs.Errors
	if o.format != outputJSON || !errors.As(err, &wrong) {
		return nil
	}
	return o.print(checkResult{Problems: wrong.Problems}, nil)
}

func newConfigShowCommand(m machine) *cobra.Command {
	o := &output{to: m.out, format: outputTable}
	command := &cobra.Command{
		Use:     "show",
		Short:   "Print what counts in the end: every setting, its value and where it comes from; secrets hidden",
		Example: "  gatehouse config show\n  gatehouse config show --upstream http://127.0.0.1:9090 -o json",
		Args:    takes(),
	}
	flags := addConfigFlags(command)
	o.addFlag(command)
	command.RunE = func(*cobra.Command, []string) error {
		loaded, err := flags.load(m)
		if err != nil {
			return err
		}
		settings := loaded.Settings()
		return o.print(settings, func(w io.Writer) {
			fmt.Fprintln(w, "SETTING\tVALUE\tFROM")
			for _, s := range settings {
				fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, orDash(s.Value), orDash(s.Origin.String()))
			}
		})
	}
	return command
}

// printer makes a command that prints a fixed text.
func printer(m machine, name, short, example string, text func() []byte) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Example: example, Args: takes(),
		RunE: func(*cobra.Command, []string) error {
			_, err := m.out.Write(text())
			return err
		},
	}
}
