// Package sampleapp is the app behind a gateway that has no other yet: it shows what it was told about who is there, as a
// page or as JSON. It keeps nothing, and repeats nothing but the request's method, path and identity headers, escaped.
package sampleapp

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"strings"
)

// identity are the headers that are shown, in this order.
var identity = [...]string{
	"Remote-User", "Remote-Name", "Remote-Email", "Remote-Groups", "X-Gatehouse-Assertion",
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
}

// Seen is what the app knows about a request; the JSON form of the page.
type Seen struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	// Headers are the identity headers that were received; a name that is not there was not sent.
	Headers map[string][]string `json:"headers"`
}

// New returns the app. It answers every path.
func New() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := Seen{Method: r.Method, Path: r.URL.EscapedPath(), Headers: make(map[string][]string)}
		for _, name := range identity {
			if values := r.Header.Values(name); len(values) > 0 {
				seen.Headers[name] = values
			}
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Vary", "Accept")
		h.Set("X-Content-Type-Options", "nosniff")
		if wantsJSON(r) {
			h.Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(seen) // the client went away: nothing is left to tell it
			return
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		_, _ = w.Write([]byte(page(seen))) // as above
	})
}

// wantsJSON reports whether JSON is named in Accept before HTML is.
func wantsJSON(r *http.Request) bool {
	for item := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		kind, _, _ := strings.Cut(item, ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "application/json":
			return true
		case "text/html", "application/xhtml+xml":
			return false
		}
	}
	return false
}

// page draws what was seen. Everything that came with the request goes through html.EscapeString and stands in text, never
// in an attribute.
func page(seen Seen) string {
	var rows strings.Builder
	for _, name := range identity {
		value := "<span class=none>not sent</span>"
		if values, ok := seen.Headers[name]; ok {
			value = "<code>" + html.EscapeString(strings.Join(values, "\n")) + "</code>"
		}
		fmt.Fprintf(&rows, "<tr><th scope=row>%s</th><td>%s</td></tr>\n", name, value)
	}
	who := "somebody without a name"
	if names := seen.Headers["Remote-User"]; len(names) == 1 {
		who = names[0]
	}
	return fmt.Sprintf(layout, html.EscapeString(who), html.EscapeString(seen.Method), html.EscapeString(seen.Path), rows.String())
}

const layout = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sample app behind Gatehouse</title>
<style>
:root { color-scheme: light dark; --line: #d0d4da; --soft: #5a6470; --link: #0b57d0 }
@media (prefers-color-scheme: dark) { :root { --line: #3c4249; --soft: #a3acb7; --link: #8ab4f8 } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 2rem 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .5rem }
p { margin: .5rem 0 1.25rem }
table { border-collapse: collapse; width: 100%%; margin-bottom: 1.5rem }
th, td { border-top: 1px solid var(--line); padding: .5rem .75rem .5rem 0; text-align: left; vertical-align: top }
th { font-weight: 600; white-space: nowrap }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap }
.none { color: var(--soft) }
a { color: var(--link); display: inline-block; min-height: 24px }
@media (max-width: 30rem) { th, td { display: block; padding-right: 0 } td { border-top: 0; padding-top: 0 } }
</style>
</head>
<body>
<main>
<h1>Signed in as %s</h1>
<p>This is the sample app. Put your own in its place with <code>--upstream URL</code>. It received <code>%s %s</code> and was told:</p>
<table>
%s</table>
<a href="/.gatehouse/logout">Sign out</a>
</main>
</body>
</html>
`
