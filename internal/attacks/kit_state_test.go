package attacks_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"gatehouse/internal/gatewaytest"
	"gatehouse/store/storetest"
)

func decimal(n int) string { return strconv.Itoa(n) }

// atOnce runs n attempts at the same time and returns their answers in order. They must not call t.Fatal.
func atOnce(t *testing.T, n int, attempt func(i int) gatewaytest.Answer) []gatewaytest.Answer {
	t.Helper()
	answers := make([]gatewaytest.Answer, n)
	var running sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		running.Go(func() {
			<-begin
			answers[i] = attempt(i)
		})
	}
	close(begin)
	running.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return answers
}

// tryLogin is a JSON login that returns errors, for goroutines.
func tryLogin(b *gatewaytest.Browser, name, password, code string) (gatewaytest.Answer, error) {
	body := map[string]string{"username": name, "password": password}
	if code != "" {
		body["code"] = code
	}
	text, err := json.Marshal(body)
	if err != nil {
		return gatewaytest.Answer{}, err
	}
	return b.Try(http.MethodPost, "/.gatehouse/api/v1/login", strings.NewReader(string(text)), http.Header{"Content-Type": {"application/json"}})
}

// deviceCookie is the name of the browser's device cookie, found by what it is called and not spelled here.
func deviceCookie(t *testing.T, b *gatewaytest.Browser) string {
	t.Helper()
	for name := range b.Jar {
		if strings.HasSuffix(name, "-device") {
			return name
		}
	}
	t.Fatal("the browser has no device cookie")
	return ""
}

// content is everything that a Redis holds, in a form that can be compared; times to live are left out, because they pass.
func content(server *storetest.Server) string {
	return server.MustDo("EVAL", `
local keys = redis.call('KEYS', '*')
table.sort(keys)
local all = {}
for _, key in ipairs(keys) do all[#all + 1] = key .. ' ' .. redis.sha1hex(redis.call('DUMP', key)) end
return table.concat(all, '\n')`, "0")
}
