// Package layers holds the rules of the house that a compiler does not know: which package may import which, what only one
// package may use, and what nobody may. It has no code to call; its test reads the source of the whole module and fails with
// the rule that was broken and the reason for it (docs/design.md, section 8).
package layers
