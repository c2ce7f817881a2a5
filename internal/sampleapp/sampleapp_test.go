package sampleapp_test

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"gatehouse/internal/sampleapp"
)

func ask(accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/a%2Fb/%3Cscript%3E", nil)
	r.Header.Set("Accept", accept)
	r.Header.Set("Remote-User", "alice")
	r.Header.Set("Remote-Name", `<script>alert("1")</script>`)
	r.Header.Set("Cookie", "secret=1")
	answer := httptest.NewRecorder()
	sampleapp.New().ServeHTTP(answer, r)
	return answer
}

func TestNew_page(t *testing.T) {
	t.Parallel()
	answer := ask("text/html,application/json;q=0.9")
	body := answer.Body.String()
	for _, want := range []string{"Signed in as alice", "GET /a%2Fb/%3Cscript%3E", "&lt;script&gt;", "not sent", `href="/.gatehouse/logout"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, forbidden := range []string{"<script", "secret", "%!"} {
		if strings.Contains(body, forbidden) {
			t.Errorf("the page holds %q", forbidden)
		}
	}
	if got := answer.Header(); got.Get("Cache-Control") != "no-store" || !strings.Contains(got.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("got %v", got)
	}
}

func TestNew_json(t *testing.T) {
	t.Parallel()
	for _, accept := range []string{"application/json", "application/json, text/html", "APPLICATION/JSON;q=1"} {
		answer := ask(accept)
		var seen sampleapp.Seen
		if err := json.Unmarshal(answer.Body.Bytes(), &seen); err != nil {
			t.Fatalf("%s: %v", accept, err)
		}
		if seen.Method != "GET" || seen.Path != "/a%2Fb/%3Cscript%3E" || !slices.Equal(seen.Headers["Remote-User"], []string{"alice"}) || len(seen.Headers) != 2 {
			t.Errorf("%s: got %+v", accept, seen)
		}
	}
	if got := ask("*/*").Header().Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("anything: got %s", got)
	}
}
