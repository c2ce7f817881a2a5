package gatewaytest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Browser is a client with a cookie jar that treats loopback as a secure origin, as Chromium does; net/http/cookiejar would
// not send Secure cookies back. It follows no redirect. It belongs to one goroutine.
type Browser struct {
	// From is the address it claims to come from, through the trusted hop; empty is the socket peer.
	From string
	// Header is added to every request.
	Header http.Header
	Jar    map[string]string

	t      testing.TB
	base   string
	client *http.Client
}

// door is where a gateway can be reached: the URL that browsers see, and the address behind it.
type door struct {
	url, address string
	roots        *x509.CertPool // who may vouch for an https URL
}

// Dial finds the gateway's address behind its URL, as a name service or a balancer would; it is a DialContext of net/http.
func (d door) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	_, host, _ := strings.Cut(d.url, "://")
	if address == host || strings.HasSuffix(address, ".localhost:"+portOf(host)) || d.roots != nil && !strings.HasPrefix(address, "127.") { // with TLS names are told apart, and addresses never ours
		address = d.address
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// connect makes a client with a pool of its own.
func (d door) connect(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 16, DialContext: d.Dial}
	if d.roots != nil {
		transport.TLSClientConfig, transport.ForceAttemptHTTP2 = &tls.Config{RootCAs: d.roots}, true
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Answer is a response that was read to its end.
type Answer struct {
	*http.Response
	Text string
}

// NewBrowser makes a browser with an empty jar and a connection pool of its own.
func (g *Gateway) NewBrowser() *Browser { return newBrowser(g.t, g.door) }

func newBrowser(t testing.TB, d door) *Browser {
	return &Browser{t: t, base: d.url, Jar: map[string]string{}, Header: http.Header{}, client: d.connect(t)}
}

// Through is the same browser, with the same jar, when a balancer sends it to another gateway with the same URL.
func (b *Browser) Through(g *Gateway) *Browser {
	other := *b
	other.client = g.connect(g.t)
	return &other
}

// Copy is another browser with a copy of the jar: what a thief has, or a second tab.
func (b *Browser) Copy() *Browser {
	other := *b
	other.Jar = maps.Clone(b.Jar)
	return &other
}

// At sets the address that the browser comes from.
func (b *Browser) At(address string) *Browser {
	b.From = address
	return b
}

// Do sends a request with the jar's cookies and keeps those of the answer.
func (b *Browser) Do(method, path string, body io.Reader, header http.Header) Answer {
	b.t.Helper()
	answer, err := b.Try(method, path, body, header)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer
}

// Try is Do that returns an error of the connection.
func (b *Browser) Try(method, path string, body io.Reader, header http.Header) (Answer, error) {
	if !strings.HasPrefix(path, "http") {
		path = b.base + path
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, path, body)
	if err != nil {
		return Answer{}, err
	}
	maps.Copy(r.Header, b.Header)
	maps.Copy(r.Header, header)
	if b.From != "" {
		r.Header.Set("X-Forwarded-For", b.From)
	}
	if len(b.Jar) > 0 && r.Header.Get("Cookie") == "" {
		r.Header.Set("Cookie", b.Cookies())
	}
	response, err := b.client.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, err
	}
	b.keep(response)
	return Answer{Response: response, Text: string(text)}, nil
}

// Cookies is the Cookie header that the browser sends.
func (b *Browser) Cookies() string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(b.Jar)) {
		pairs = append(pairs, name+"="+b.Jar[name])
	}
	return strings.Join(pairs, "; ")
}

func (b *Browser) keep(response *http.Response) {
	for _, c := range response.Cookies() {
		if c.MaxAge < 0 || c.Value == "" {
			delete(b.Jar, c.Name)
		} else {
			b.Jar[c.Name] = c.Value
		}
	}
}

// Document is the headers of a browser's navigation.
func Document() http.Header {
	return http.Header{"Accept": {"text/html"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
}

// Get navigates to a path.
func (b *Browser) Get(path string) Answer {
	b.t.Helper()
	return b.Do(http.MethodGet, path, nil, Document())
}

var tokenField = regexp.MustCompile(`name="form_token" value="([^"]*)"`)

// FormToken reads the hidden token of the form on a page.
func FormToken(t testing.TB, page string) string {
	t.Helper()
	found := tokenField.FindStringSubmatch(page)
	if found == nil {
		t.Fatalf("no form token on the page:\n%s", page)
	}
	return html.UnescapeString(found[1])
}

// PostForm sends a form as a browser does from our own page.
func (b *Browser) PostForm(path string, form url.Values) Answer {
	b.t.Helper()
	header := Document()
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	header.Set("Origin", b.base)
	header.Set("Sec-Fetch-Site", "same-origin")
	return b.Do(http.MethodPost, path, strings.NewReader(form.Encode()), header)
}

// Submit opens a page of ours and posts its form with the given fields.
func (b *Browser) Submit(path string, form url.Values) Answer {
	b.t.Helper()
	page := b.Get(path)
	form.Set("form_token", FormToken(b.t, page.Text))
	action, _, _ := strings.Cut(path, "?")
	return b.PostForm(action, form)
}

// Password submits the login page.
func (b *Browser) Password(name, password string) Answer {
	b.t.Helper()
	return b.Submit("/.gatehouse/login", url.Values{"username": {name}, "password": {password}})
}

// Code submits the code page.
func (b *Browser) Code(code string) Answer {
	b.t.Helper()
	return b.Submit("/.gatehouse/login/code", url.Values{"code": {code}})
}

// JSON posts a JSON body.
func (b *Browser) JSON(path string, body any) Answer {
	b.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.Do(http.MethodPost, path, strings.NewReader(string(text)), http.Header{"Content-Type": {"application/json"}})
}

// Login is the JSON login.
func (b *Browser) Login(name, password, code string) Answer {
	b.t.Helper()
	body := map[string]string{"username": name, "password": password}
	if code != "" {
		body["code"] = code
	}
	return b.JSON("/.gatehouse/api/v1/login", body)
}

// ProblemCode is the code of a problem+json answer.
func (a Answer) ProblemCode() string {
	var p struct {
		Code string `json:"code"`
	}
	if json.Unmarshal([]byte(a.Text), &p) != nil {
		return fmt.Sprintf("status %d, no problem", a.StatusCode)
	}
	return p.Code
}

// Field is one text field of a JSON answer.
func (a Answer) Field(name string) string {
	var fields map[string]any
	_ = json.Unmarshal([]byte(a.Text), &fields) // no JSON: no field
	value, _ := fields[name].(string)
	return value
}
