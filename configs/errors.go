package configs

import (
	"fmt"
	"slices"
	"strings"
)

// Layer is where a value comes from. A higher layer wins.
type Layer int

// The layers, weakest first.
const (
	FromDefault Layer = iota
	FromFile
	FromEnvironment
	FromFlag
)

// String names the layer.
func (l Layer) String() string {
	return [...]string{"default", "file", "environment", "flag"}[l]
}

// MarshalText is String.
func (l Layer) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Place is where a value, or what is wrong with one, stands.
type Place struct {
	Layer Layer `json:"layer"`
	// Name is the file, the variable or the flag; empty for a default.
	Name string `json:"name,omitempty"`
	// Line and Column count from 1; 0 where the place is no position in a file.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

// String is what an editor or a terminal makes a link of: file:line:column, a variable's name, or a flag.
func (p Place) String() string {
	switch {
	case p.Name == "":
		return p.Layer.String()
	case p.Line > 0:
		return fmt.Sprintf("%s:%d:%d", p.Name, p.Line, p.Column)
	default:
		return p.Name
	}
}

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	Place Place `json:"place"`
	// Setting is the dotted name of the setting; empty if the problem is not about one.
	Setting string `json:"setting,omitempty"`
	Message string `json:"message"`
}

// String is the problem in one line, with its place in front.
func (p Problem) String() string {
	switch {
	case p.Setting == "":
		return p.Place.String() + " " + p.Message
	case p.Place.Layer == FromFile:
		return p.Place.String() + " " + p.Setting + " " + p.Message
	case p.Place.Layer == FromDefault:
		return p.Setting + " " + p.Message
	default: // the name of a variable or flag says which setting it is
		return p.Place.String() + " " + p.Message
	}
}

// Errors is everything that is wrong with the configuration, in the order of file, environment and flags.
type Errors struct {
	Problems []Problem
}

// Error lists the problems, one to a line.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sorted puts the problems into reading order.
func (e *Errors) sorted() *Errors {
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		for _, order := range []int{
			int(a.Place.Layer - b.Place.Layer), strings.Compare(a.Place.Name, b.Place.Name),
			a.Place.Line - b.Place.Line, a.Place.Column - b.Place.Column,
		} {
			if order != 0 {
				return order
			}
		}
		return 0
	})
	return e
}

// didYouMean returns the end of a message about an unknown name: the candidate that is most likely meant, if there is one.
// A name that stands at the wrong place is recognised by its last part.
func didYouMean(name string, candidates []string, form func(string) string) string {
	last := func(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }
	best, least := "", max(1, len(last(name))/3)+1
	for _, c := range candidates {
		if d := distance(name, c); d < least {
			best, least = c, d
		}
	}
	for _, c := range candidates {
		if best == "" && last(c) == last(name) {
			best = c
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" — did you mean %s?", form(best))
}

// distance is the number of insertions, deletions, replacements and swaps of neighbours that lead from a to b (optimal string
// alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
