package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is what the Go linker wrote into the binary.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a checkout with changes
	Go       string `json:"go"`
}

func newVersionCommand(m machine) *cobra.Command {
	o := &output{to: m.out, format: outputTable}
	command := &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit and Go version",
		Example: `  gatehouse version -o json`,
		Args:    takes(),
		RunE: func(*cobra.Command, []string) error {
			v := readVersion()
			return o.print(v, func(w io.Writer) {
				commit := orDash(v.Commit)
				if v.Modified {
					commit += " (modified)"
				}
				fmt.Fprintf(w, "gatehouse\t%s\ncommit\t%s\ngo\t%s\n", v.Version, commit, v.Go)
			})
		},
	}
	o.addFlag(command)
	return command
}

// readVersion reads the build information; a binary without any is a development build.
func readVersion() versionInfo {
	v := versionInfo{Version: "(devel)"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Go = info.GoVersion
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			v.Commit = setting.Value
		case "vcs.modified":
			v.Modified = setting.Value == "true"
		}
	}
	return v
}
