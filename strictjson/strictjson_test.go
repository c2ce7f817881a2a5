package strictjson_test

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"gatehouse/strictjson"
)

type login struct {
	Username string   `json:"username"`
	Password string   `json:"password"`
	Age      int      `json:"age"`
	Groups   []string `json:"groups"`
	Inner    any      `json:"inner"`
}

func TestDecode_readsOneObject(t *testing.T) {
	t.Parallel()
	var got login
	body := ` {"username":"alice","password":"caf\u00e9 \\ud800 \ud83d\ude00","groups":["a","b"],"inner":{"x":[{}]}}` + "\n"
	if err := strictjson.Decode(strings.NewReader(body), 1<<10, &got); err != nil {
		t.Fatal(err)
	}
	if got.Username != "alice" || got.Password != "café \\ud800 😀" || len(got.Groups) != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestDecode_refusesWhatTwoReadersCouldReadDifferently(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, body, says string }{
		{"nothing", ``, "syntax"},
		{"null", `null`, "not an object"},
		{"array", `[]`, "not an object"},
		{"string", `"alice"`, "not an object"},
		{"unknown member", `{"role":"admin"}`, `member "role" is not known`},
		{"member twice", `{"username":"a","username":"b"}`, `member "username" appears twice`},
		{"member twice, escaped", `{"username":"a","\u0075sername":"b"}`, "appears twice"},
		{"inner member twice", `{"inner":{"x":1,"x":2}}`, "appears twice"},
		{"member twice within an array", `{"inner":[{"x":1,"x":2}]}`, "appears twice"},
		{"other case", `{"Username":"a"}`, "not known"},
		{"other case that folds to ASCII", `{"u\u017fername":"a"}`, "not known"},
		{"empty name", `{"":1}`, "not known"},
		{"trailing object", `{} {}`, "follows"},
		{"trailing rubbish", `{}]`, "follows"},
		{"truncated", `{"username":"a"`, "syntax"},
		{"trailing comma", `{"username":"a",}`, "syntax"},
		{"comment", `{/**/}`, "syntax"},
		{"wrong bracket", `{"groups":["a"}}`, "syntax"},
		{"invalid UTF-8", "{\"username\":\"\xff\"}", "UTF-8"},
		{"byte order mark", "\ufeff{}", "syntax"},
		{"high surrogate alone", `{"username":"\ud800"}`, "surrogate"},
		{"high surrogate twice", `{"username":"\ud800\ud800"}`, "surrogate"},
		{"low surrogate alone", `{"username":"\uDE00"}`, "surrogate"},
		{"wrong type", `{"username":7}`, `member "username" has the wrong type`},
		{"number too large", `{"age":1e400}`, `member "age"`},
		{"control character", "{\"username\":\"a\nb\"}", "syntax"},
		{"too deep", `{"inner":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, "deeper"},
		{"far too deep", `{"inner":` + strings.Repeat(`{"a":`, 5000) + `}`, "deeper"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var v login
			err := strictjson.Decode(strings.NewReader(test.body), 1<<20, &v)
			if !errors.Is(err, strictjson.ErrMalformed) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want malformed with %q", err, test.says)
			}
		})
	}
}

func TestDecode_takesTheLastDepth(t *testing.T) {
	t.Parallel()
	var v login
	body := `{"inner":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`
	if err := strictjson.Decode(strings.NewReader(body), 1<<10, &v); err != nil {
		t.Error(err)
	}
}

func TestDecode_boundsTheBody(t *testing.T) {
	t.Parallel()
	body := `{"username":"alice"}`
	var v login
	if err := strictjson.Decode(strings.NewReader(body), int64(len(body)), &v); err != nil {
		t.Errorf("at the limit: got %v, want none", err)
	}
	if err := strictjson.Decode(strings.NewReader(body), int64(len(body))-1, &v); !errors.Is(err, strictjson.ErrTooLarge) {
		t.Errorf("above the limit: got %v, want ErrTooLarge", err)
	}
	if err := strictjson.Decode(iotest.ErrReader(io.ErrClosedPipe), 10, &v); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v, want the reader's own error", err)
	}
}

func TestDecode_neverQuotesValues(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"username":"canary","username":"canary"}`,
		`{"age":"canary"}`, `{"password":canary}`, `{"canary ":1}`, `canary`, `{"inner":"canary"}canary`,
	} {
		var v login
		if err := strictjson.Decode(strings.NewReader(body), 1<<10, &v); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got error %v, want one without the value", body, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"username":"a","inner":{"x":[1,"\ud83d\ude00"]}}`))
	f.Add([]byte(`{"username":"\ud83d"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var strict, plain login
		if strictjson.Decode(strings.NewReader(string(body)), 1<<16, &strict) != nil {
			return
		}
		if err := json.Unmarshal(body, &plain); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
	})
}
