package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/audit"
)

// The values of --output.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// output prints what a command found, as a table or as JSON.
type output struct {
	to     io.Writer
	format string
}

// addFlag adds -o to a command and those below it.
func (o *output) addFlag(command *cobra.Command) {
	command.PersistentFlags().VarP(o, "output", "o", "print as `FORMAT`: table or json")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp))
}

// String, Set and Type make output a flag's value that refuses every other format.
func (o *output) String() string { return o.format }

// Type names the value in the help.
func (o *output) Type() string { return "FORMAT" }

// Set takes the format.
func (o *output) Set(text string) error {
	if text != outputTable && text != outputJSON {
		return fmt.Errorf("must be %s or %s", outputTable, outputJSON)
	}
	o.format = text
	return nil
}

// print writes value as JSON, or what table writes. Cells are separated by tabs; text of others goes through audit.Printable, so that no
// name or browser can drive the terminal.
func (o *output) print(value any, table func(io.Writer)) error {
	if o.format == outputJSON {
		return o.printJSON(value)
	}
	w := tabwriter.NewWriter(o.to, 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// printJSON writes value for programs, and for people who look at it all the same: encoding/json leaves C1 controls and marks
// that turn the direction of reading as they are. They only stand in strings, where the escape is the same character.
func (o *output) printJSON(value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if _, err := fmt.Fprintln(o.to, audit.Printable(line)); err != nil {
			return err
		}
	}
	return nil
}

// say writes one line for people. A program that asked for JSON reads the exit code.
func (o *output) say(format string, args ...any) {
	if o.format != outputJSON {
		fmt.Fprintf(o.to, format+"\n", args...)
	}
}

// orDash fills a cell that would be empty.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return audit.Printable(text)
}

// when shows a time in UTC, or a dash.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
