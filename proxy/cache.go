package proxy

import (
	"net/http"
	"strings"
)

// makePrivate marks an answer to which a cookie of ours is added, so that no shared cache keeps it and hands one user's
// session to the next. What the app said stays, but for what speaks to shared caches.
func makePrivate(h http.Header) {
	kept := make([]string, 0, 4)
	closed := false // says by itself that shared caches may not keep it
	for _, line := range h.Values("Cache-Control") {
		for _, directive := range splitDirectives(line) {
			name, _, _ := strings.Cut(directive, "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "", "public", "s-maxage", "private":
				continue // private="field" would keep all but one field: it is replaced by the plain form
			case "no-store":
				closed = true
			}
			kept = append(kept, directive)
		}
	}
	if !closed {
		kept = append(kept, "private")
	}
	h.Set("Cache-Control", strings.Join(kept, ", "))
	for name := range h {
		// Directives for one kind of shared cache override Cache-Control there (RFC 9213, section 2.2); nginx obeys its own.
		lower := strings.ToLower(name)
		if strings.HasSuffix(lower, "-cache-control") || lower == "surrogate-control" || lower == "x-accel-expires" {
			delete(h, name)
		}
	}
}

// splitDirectives cuts a Cache-Control line at its commas, but not within quotes (RFC 9111, section 5.2).
func splitDirectives(line string) []string {
	var directives []string
	start, quoted := 0, false
	for i := 0; i <= len(line); i++ {
		switch {
		case i == len(line), line[i] == ',' && !quoted:
			directives = append(directives, strings.TrimSpace(line[start:i]))
			start = i + 1
		case line[i] == '"':
			quoted = !quoted
		case line[i] == '\\' && quoted && i+1 < len(line):
			i++ // a quoted pair
		}
	}
	return directives
}
