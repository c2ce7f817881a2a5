package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/pquerna/otp/totp"

	"gatehouse/admin/api"
	"gatehouse/admin/client"
)

// password of every account here.
const password = "a long enough benchmark passphrase"

// gatehouse is the real program with accounts that can sign in.
type gatehouse struct {
	*process
	origin  string
	admin   *client.Client
	browser http.Client
	toReady time.Duration // from the start of the process until it says that it is ready

	mu    sync.Mutex
	users []*account // guarded by mu; the one that may sign in again first stands first
	jar   map[string]string
	fresh time.Time // guarded by mu; when the access token was made
}

// account is a user with a second factor.
type account struct {
	name, secret string
	last         time.Time // of its last sign-in: no code is good twice
}

// startGateway runs the program in front of an upstream.
func (b *bench) startGateway(ctx context.Context, name, upstream string, environ ...string) (*gatehouse, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(b.dir, name)
	g := &gatehouse{origin: "http://" + address, browser: http.Client{Timeout: time.Minute}}
	// Many people behind one address: what is measured here is not the rate limit.
	environ = append(environ, "GATEHOUSE_LOGIN__RATE_LIMIT__BURST=1000", "GATEHOUSE_LOGIN__RATE_LIMIT__INTERVAL=100ms", "GATEHOUSE_FORWARD_AUTH__PEERS=127.0.0.1")
	transport := &http.Transport{MaxIdleConnsPerHost: 128}
	context.AfterFunc(ctx, transport.CloseIdleConnections)
	g.browser.Transport = transport
	g.process, err = b.start(ctx, name, address, environ, b.programs["gatehouse"], "serve", "--data", data, "--listen", address,
		"--external-url", g.origin, "--upstream", upstream)
	if err != nil {
		return nil, err
	}
	if err := g.ready(ctx); err != nil {
		return nil, err
	}
	g.admin, err = client.New(client.Options{Socket: filepath.Join(data, "admin.sock")})
	return g, err
}

// ready waits until the gateway says so.
func (g *gatehouse) ready(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.origin+"/.gatehouse/readyz", nil)
	if err != nil {
		return err
	}
	status := ""
	for ; time.Since(g.began) < patience && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		answer, err := g.browser.Do(r)
		if err != nil {
			return err
		}
		_ = answer.Body.Close()
		if status = answer.Status; answer.StatusCode == http.StatusOK {
			g.toReady = time.Since(g.began)
			return nil
		}
	}
	return fmt.Errorf("%s is not ready: %s\n%s", g.name, status, &g.output)
}

// addUsers makes n more accounts that can sign in.
func (g *gatehouse) addUsers(ctx context.Context, n int) error {
	for range n {
		u := &account{name: fmt.Sprintf("user%d", len(g.users)+1)}
		_, err := g.admin.AddUser(ctx, api.NewUser{
			Name: u.name, DisplayName: "Bench User", Email: u.name + "@example.com", Groups: []string{"staff", "wiki"}, Password: password,
		})
		if err != nil {
			return fmt.Errorf("add %s: %w", u.name, err)
		}
		enrolment, err := g.admin.EnrolTOTP(ctx, u.name, "benchmark")
		if err != nil {
			return fmt.Errorf("enrol %s: %w", u.name, err)
		}
		u.secret = enrolment.Secret
		g.mu.Lock()
		g.users = append(g.users, u)
		g.mu.Unlock()
	}
	return nil
}

// codeAgain is after how long an account has a code that it has not used.
const codeAgain = 60 * time.Second

// next is the account that has not signed in for the longest time, once it has a fresh code.
func (g *gatehouse) next(ctx context.Context) (*account, error) {
	g.mu.Lock()
	u := g.users[0]
	g.users = append(g.users[1:], u)
	wait := time.Until(u.last.Add(codeAgain))
	u.last = time.Now().Add(max(wait, 0))
	g.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(wait):
		return u, nil
	}
}

// login signs in with password and code, and returns the status and the cookies.
func (g *gatehouse) login(ctx context.Context) (int, map[string]string, error) {
	u, err := g.next(ctx)
	if err != nil {
		return 0, nil, err
	}
	code, err := totp.GenerateCode(u.secret, time.Now())
	if err != nil {
		return 0, nil, err
	}
	text, err := json.Marshal(map[string]string{"username": u.name, "password": password, "code": code})
	if err != nil {
		return 0, nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.origin+"/.gatehouse/api/v1/login", bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := g.browser.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return 0, nil, err
	}
	cookies := map[string]string{}
	for _, c := range answer.Cookies() {
		cookies[c.Name] = c.Value
	}
	return answer.StatusCode, cookies, nil
}

// tokenLife is how old a token may be at the start of a run, which must end before the token's five minutes.
const tokenLife = 3 * time.Minute

// session is the Cookie header of somebody who is signed in, with an access token that is good for some minutes more. A browser
// holds it beside cookies of the app.
func (g *gatehouse) session(ctx context.Context) (string, error) {
	g.mu.Lock()
	jar, fresh := g.jar, g.fresh
	g.mu.Unlock()
	if time.Since(fresh) > tokenLife {
		status, cookies, err := g.login(ctx)
		if err != nil || status != http.StatusOK {
			return "", fmt.Errorf("sign in: status %d: %v", status, err)
		}
		jar = cookies
		g.mu.Lock()
		g.jar, g.fresh = cookies, time.Now()
		g.mu.Unlock()
	}
	line := "theme=dark; lang=en"
	for name, value := range jar {
		line += "; " + name + "=" + value
	}
	return line, nil
}
