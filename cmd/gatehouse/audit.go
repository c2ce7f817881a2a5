package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gatehouse/admin/api"
	"gatehouse/admin/client"
	"gatehouse/audit"
)

func newAuditCommand(m machine) *cobra.Command {
	o := newOperator(m)
	noun := newNoun("audit", "The audit log", newAuditTail(o))
	noun.Example = `  gatehouse audit tail --follow`
	o.addFlags(noun)
	return noun
}

func newAuditTail(o *operator) *cobra.Command {
	tail := client.Tail{}
	command := &cobra.Command{
		Use:   "tail",
		Short: "Show the newest records of the audit log",
		Long: `Show the newest records of the audit log, one line each. With -o json each line is the record as it stands in the log.

Text that came from a client is shown with everything that could drive the terminal as an escape.`,
		Example: `  gatehouse audit tail -n 50
  gatehouse audit tail --follow
  gatehouse audit tail --from 1 -o json > log.jsonl`,
		Args: takes(),
		RunE: o.asking(func(command *cobra.Command, c *client.Client, _ []string) error {
			if command.Flags().Changed("last") && tail.From > 0 {
				return usagef(command, "give --last or --from, not both")
			}
			if tail.Last < 0 {
				return usagef(command, "--last must not be negative")
			}
			return c.AuditTail(command.Context(), tail, o.printRecord)
		}),
	}
	flags := command.Flags()
	flags.IntVarP(&tail.Last, "last", "n", api.DefaultTail, "the newest `N` records")
	flags.Uint64Var(&tail.From, "from", 0, "every record from this sequence `NUMBER`")
	flags.BoolVarP(&tail.Follow, "follow", "f", false, "go on with new records until interrupted")
	return command
}

// printRecord writes one record. The log itself holds no byte that could drive a terminal, so as JSON it goes out as it is.
func (o *operator) printRecord(line []byte) error {
	if o.format == outputJSON {
		_, err := fmt.Fprintf(o.to, "%s\n", line)
		return err
	}
	var r audit.Record
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("read record: %w", err)
	}
	_, err := fmt.Fprintln(o.to, recordLine(r))
	return err
}

// recordLine is a record in one line: when, which, what, how it ended, about whom, by whom, from where, why.
func recordLine(r audit.Record) string {
	parts := []string{
		r.Time.UTC().Format("2006-01-02T15:04:05Z"), fmt.Sprint(r.Sequence), audit.Printable(string(r.Kind)), audit.Printable(string(r.Outcome)),
	}
	add := func(label, value string) {
		if value != "" {
			parts = append(parts, label+"="+quoteSpaces(audit.Printable(value)))
		}
	}
	if r.Severity == audit.High {
		add("severity", string(r.Severity))
	}
	add("user", firstOf(r.Subject.Name, r.Subject.ID))
	add("unknown-user", r.Subject.Tag)
	add("by", actorText(r.Actor))
	add("from", r.Client.Address)
	add("session", r.Session)
	add("code", r.Code)
	if r.Count > 1 {
		add("count", fmt.Sprint(r.Count))
	}
	if r.Trace != nil {
		add("trace", traceText(r.Trace))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Details)) {
		add(audit.Printable(name), r.Details[name])
	}
	add("why", r.Why)
	return strings.Join(parts, " ")
}

// actorText names who acted; a client is named by its address already.
func actorText(a audit.Actor) string {
	if a.Type == audit.ActorClient || a.Type == "" {
		return ""
	}
	return strings.TrimSuffix(string(a.Type)+":"+firstOf(a.Name, a.ID), ":")
}

// traceText lists the steps that were reached, in the order of their numbers.
func traceText(t *audit.Trace) string {
	var steps []string
	for _, step := range audit.Steps {
		result := t.Of(step)
		if result.Verdict == audit.NotReached || result.Verdict == "" {
			continue
		}
		text := fmt.Sprintf("%d-%s:%s", step, step, result.Verdict)
		if result.Reason != audit.ReasonNone {
			text += "(" + string(result.Reason) + ")"
		}
		steps = append(steps, text)
	}
	return strings.Join(steps, ",")
}

func firstOf(first, second string) string {
	if first != "" {
		return first
	}
	return second
}

// quoteSpaces keeps a value with spaces apart from the next one. Quotes within become escapes, so a value cannot imitate
// the end of itself.
func quoteSpaces(text string) string {
	if !strings.ContainsAny(text, ` "=`) {
		return text
	}
	return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"`
}
