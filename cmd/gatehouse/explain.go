package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/access"
	"gatehouse/admin/api"
	"gatehouse/admin/client"
	"gatehouse/audit"
	"gatehouse/configs"
	"gatehouse/gateway"
)

// explanation is what `config explain` says of one request.
type explanation struct {
	URL     string `json:"url"`
	Method  string `json:"method"`
	Address string `json:"address,omitempty"`
	Who     *who   `json:"user,omitempty"` // nobody if absent

	// Answer is what the gateway does: pass, sign-in, step-up, forbidden; or not-served, not-found, bad-path where no rule is reached;
	// or gateway where it answers itself.
	Answer string        `json:"answer"`
	Why    string        `json:"why"`
	Reason access.Reason `json:"reason,omitempty"`

	Route *routeOfAnswer `json:"route,omitempty"`
	Rules []ruleOfAnswer `json:"rules,omitempty"` // of the route, in their order
}

// who is the user as the rules see them.
type who struct {
	Name   string   `json:"name"`
	Groups []string `json:"groups"`
	// SignedIn: there is a live session, which is the one with the freshest second factor. Otherwise the answer is the one just after a
	// login with the factors that the account has.
	SignedIn     bool      `json:"signed_in"`
	SecondFactor bool      `json:"second_factor"`
	FactorAt     time.Time `json:"factor_at,omitzero"`
	Disabled     bool      `json:"disabled,omitempty"` // and so nobody
}

type routeOfAnswer struct {
	Name  string `json:"name"`
	Host  string `json:"host"`
	Path  string `json:"path"`
	Place string `json:"place,omitempty"`
}

type ruleOfAnswer struct {
	Number  int    `json:"number"` // from 1, as in the audit log
	Setting string `json:"setting,omitempty"`
	Place   string `json:"place,omitempty"`
	Selects string `json:"selects"`
	Asks    string `json:"asks"`
	Decides bool   `json:"decides"`
}

func newConfigExplainCommand(m machine) *cobra.Command {
	o := newOperator(m)
	var name, method, address string
	command := &cobra.Command{
		Use:   "explain [--user NAME] URL",
		Short: "Say which route and rule decide about a request, and why",
		Long: `Say which route and which rule decide about a request, and why. The rules are those of the configuration as it would be loaded now.
With --user the running gateway is asked for the user's groups and live sessions; without it nobody is signed in. For a user who is
not signed in, the answer is the one just after a login.`,
		Example: `  gatehouse config explain --user alice https://wiki.example.com/admin
  gatehouse config explain --user bob --method POST --address 10.0.0.9 https://wiki.example.com/api
  gatehouse config explain https://wiki.example.com/public -o json`,
		Args: takes("URL"),
	}
	flags := command.Flags()
	flags.StringVar(&name, "user", "", "who is signed in: the `NAME` of an account (default: nobody)")
	flags.StringVar(&method, "method", "GET", "`METHOD` of the request")
	flags.StringVar(&address, "address", "", "`ADDRESS` of the client; without one no rule with networks matches")
	o.addFlags(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		asked, err := readQuestion(args[0], method, address)
		if err != nil {
			return usagef(command, "%s", err)
		}
		loaded, err := loadConfiguration(configs.Sources{File: o.config, Environ: o.environ})
		if err != nil {
			return err
		}
		answer := func(user *who) error {
			e, err := explain(loaded, asked, user, o.now())
			if err != nil {
				return err
			}
			return o.print(e, e.table)
		}
		if name == "" {
			return answer(nil)
		}
		return o.asking(func(command *cobra.Command, c *client.Client, _ []string) error {
			user, err := askUser(command.Context(), c, name)
			if err != nil {
				return err
			}
			return answer(user)
		})(command, args)
	}
	return command
}

// question is a request that nobody sends.
type question struct {
	url, scheme string
	access.Request
}

// readQuestion takes a URL apart without changing how its path is spelled: that is what the rules look at.
func readQuestion(text, method, address string) (question, error) {
	q := question{url: text, Request: access.Request{Method: method}}
	if err := new(configs.Method).UnmarshalText([]byte(method)); err != nil {
		return q, fmt.Errorf("method %w", err)
	}
	if address != "" {
		var err error
		if q.Address, err = netip.ParseAddr(address); err != nil {
			return q, fmt.Errorf("%q is no address", address)
		}
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return q, fmt.Errorf("%q has no scheme: put https:// in front, or http://, whichever external_url has", text)
	}
	host, path := rest, "/"
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		host = rest[:end]
		path, _, _ = strings.Cut(rest[end:], "#")
		path, _, _ = strings.Cut(path, "?")
	}
	if u, err := url.Parse(scheme + "://" + host); err != nil || u.User != nil || host == "" {
		return q, fmt.Errorf("%q has no host, or one that is none", text)
	}
	q.scheme, q.Host, q.Path = scheme, host, path
	if path == "" {
		q.Path = "/"
	}
	return q, nil
}

// askUser asks the gateway for what the rules know of a user.
func askUser(ctx context.Context, c *client.Client, name string) (*who, error) {
	user, err := c.User(ctx, name)
	if err != nil {
		return nil, err
	}
	sessions, err := c.Sessions(ctx, name)
	if err != nil {
		return nil, err
	}
	return subject(user, sessions), nil
}

// subject is a user with the session that gets furthest: the one with the freshest second factor.
func subject(user api.User, sessions []api.Session) *who {
	w := &who{Name: user.Name, Groups: user.Groups, Disabled: user.Disabled, SecondFactor: !user.TOTPEnrolledAt.IsZero()}
	for _, s := range sessions {
		factor := slices.ContainsFunc(s.Methods, func(method string) bool { return method != "pwd" }) // RFC 8176
		if !w.SignedIn || factor && (!w.SecondFactor || s.AuthTime.After(w.FactorAt)) {
			w.SignedIn, w.SecondFactor = true, factor
			w.FactorAt = s.AuthTime
		}
	}
	if w.SignedIn && !w.SecondFactor {
		w.FactorAt = time.Time{}
	}
	return w
}

// explain finds the answer to a request, and why it is that.
func explain(loaded *configs.Loaded, asked question, user *who, now time.Time) (explanation, error) {
	config := loaded.Config
	e := explanation{URL: asked.url, Method: asked.Method, Who: user}
	if asked.Address.IsValid() {
		e.Address = asked.Address.String()
	}
	table, err := gateway.Table(config)
	if err != nil {
		return e, err
	}
	var match access.Match
	if e.Answer, e.Why = beforeRules(config, asked); e.Answer == "" {
		if match, err = table.Match(asked.Request); err != nil {
			e.Answer, e.Why = unmatched(err)
		}
	}
	if e.Answer == notServed {
		e.Why += meant(config, table, asked)
	}
	if e.Answer != "" {
		return e, nil
	}
	var signedIn *access.Subject
	if user != nil && !user.Disabled {
		signedIn = &access.Subject{Name: user.Name, Groups: user.Groups, SecondFactor: user.SecondFactor, AuthTime: user.FactorAt}
		if !user.SignedIn {
			signedIn.AuthTime = now
		}
	}
	e.decided(loaded, match.Admit(signedIn, now), now)
	return e, nil
}

// notServed is the answer for what no host of the configuration is.
const notServed = "not-served"

// meant names the URL that was meant, where only the scheme and the port are not those of external_url; otherwise it is empty.
func meant(config configs.Config, table *access.Table, asked question) string {
	external := config.ExternalURL
	u, err := url.Parse(asked.scheme + "://" + asked.Host)
	if err != nil {
		return ""
	}
	host := strings.TrimSuffix(u.Host, ":"+u.Port())
	if port := external.URL().Port(); port != "" {
		host += ":" + port
	}
	if _, app := table.Origin(host); !app && access.CanonicalHost(host, external.Scheme) != external.Host {
		return ""
	}
	_, rest, _ := strings.Cut(asked.url, "://")
	return fmt.Sprintf("; scheme and port are those of external_url: ask for %s://%s%s", external.Scheme, host, rest[len(asked.Host):])
}

// beforeRules answers what never reaches a rule; empty if the request does.
func beforeRules(config configs.Config, asked question) (answer, why string) {
	external := config.ExternalURL
	login := access.CanonicalHost(asked.Host, external.Scheme) == external.Host
	switch {
	case asked.scheme != external.Scheme:
		return notServed, fmt.Sprintf("external_url is %s, so every host is %s", external, external.Scheme)
	case asked.Path == "/.gatehouse" || strings.HasPrefix(asked.Path, "/.gatehouse/"):
		return "gateway", "everything below /.gatehouse/ belongs to the gateway itself"
	case login && !gateway.LoginHostHasApp(config):
		return "not-found", "this is the login host, which carries no app"
	}
	return "", ""
}

// unmatched says why a request has no rule that could decide.
func unmatched(err error) (answer, why string) {
	switch {
	case errors.Is(err, access.ErrNoHost):
		return notServed, "no route has this host; the answer is 421"
	case errors.Is(err, access.ErrNoRoute):
		return "not-found", "no route of this host has this path; the answer is 404"
	}
	return "bad-path", "the path can be read in more than one way (dot segments, empty segments, encoded slashes, needless or doubled encoding, " +
		"or a spelling that some app takes for another rule's path), so it is refused with 400; where %2F is needed, set encoded_slashes"
}

// decided fills in what the rules say.
func (e *explanation) decided(loaded *configs.Loaded, d access.Decision, now time.Time) {
	route := loaded.Config.AppRoutes()[d.Route]
	at := fmt.Sprintf("routes[%d]", d.Route)
	e.Reason = d.Reason
	e.Route = &routeOfAnswer{Name: string(route.Name), Host: string(route.Host), Path: string(route.Path), Place: place(loaded, at)}
	for i, rule := range route.Rules {
		one := ruleOfAnswer{Number: i + 1, Selects: selects(rule), Asks: asks(rule), Decides: i == d.Rule}
		if setting := fmt.Sprintf("%s.rules[%d]", at, i); place(loaded, setting) != "" {
			one.Setting, one.Place = setting, place(loaded, setting)
		}
		e.Rules = append(e.Rules, one)
	}
	e.Answer = map[access.Verdict]string{access.Allow: "pass", access.SignIn: "sign-in", access.StepUp: "step-up", access.Deny: "forbidden"}[d.Verdict]
	var rule configs.Rule
	if d.Rule >= 0 {
		rule = route.Rules[d.Rule]
	}
	e.Why = e.because(d.Reason, rule, now)
}

// place is where a setting stands; empty where it stands nowhere.
func place(loaded *configs.Loaded, setting string) string {
	if at, ok := loaded.Origins[setting]; ok {
		return at.String()
	}
	return ""
}

func (e *explanation) because(reason access.Reason, rule configs.Rule, now time.Time) string {
	switch reason {
	case access.ReasonPublic:
		return "the rule lets everybody pass, without a login"
	case access.ReasonSignedIn:
		return "the rule lets everybody pass who is signed in"
	case access.ReasonListed:
		return "the rule names the user, or one of the user's groups"
	case access.ReasonNoSession:
		if e.Who != nil {
			return e.Who.Name + " is disabled, so nobody is signed in; the rule asks for that"
		}
		return "the rule asks for somebody who is signed in; a browser is sent to the login page, everything else gets 401 session-required"
	case access.ReasonNoFactor:
		return "the rule asks for a second factor, and none was used; the answer is 401 step-up-required, for a browser the page that asks for one"
	case access.ReasonFactorTooOld:
		return fmt.Sprintf("the rule asks for a second factor of the last %s, and it was used %s ago; the answer is 401 step-up-required, for a browser the page that asks for one",
			rule.FactorWithin, now.Sub(e.Who.FactorAt).Round(time.Second))
	case access.ReasonNotListed:
		return fmt.Sprintf("the rule names neither the user nor any of the user's groups (%s); the answer is 403 forbidden", orNone(e.Who.Groups))
	case access.ReasonDenied:
		return "the rule lets nobody pass; the answer is 403 forbidden"
	case access.ReasonNoRule:
		return "no rule of the route matches, and what no rule allows is denied; the answer is 403 forbidden"
	}
	return string(reason)
}

// selects says in words which requests a rule is for.
func selects(r configs.Rule) string {
	var parts []string
	if len(r.Paths) > 0 {
		parts = append(parts, "paths "+joined(r.Paths))
	}
	if len(r.Methods) > 0 {
		parts = append(parts, "methods "+joined(r.Methods))
	}
	if len(r.Networks) > 0 {
		parts = append(parts, "networks "+joined(r.Networks))
	}
	if parts == nil {
		return "everything"
	}
	return strings.Join(parts, ", ")
}

// asks says in words what a rule asks of them.
func asks(r configs.Rule) string {
	if r.Access != configs.SignedIn {
		return string(r.Access)
	}
	parts := []string{"signed-in"}
	if len(r.Users) > 0 {
		parts = append(parts, "users "+joined(r.Users))
	}
	if len(r.Groups) > 0 {
		parts = append(parts, "groups "+joined(r.Groups))
	}
	switch {
	case r.FactorWithin > 0:
		parts = append(parts, "second factor within "+r.FactorWithin.String())
	case r.SecondFactor:
		parts = append(parts, "second factor")
	}
	return strings.Join(parts, ", ")
}

func joined[T any](list []T) string {
	texts := make([]string, len(list))
	for i, one := range list {
		texts[i] = fmt.Sprint(one)
	}
	return strings.Join(texts, " ")
}

func orNone(groups []string) string {
	if len(groups) == 0 {
		return "none"
	}
	return strings.Join(groups, ", ")
}

// table is the explanation for people.
func (e explanation) table(w io.Writer) {
	fmt.Fprintf(w, "answer\t%s\n", e.Answer)
	fmt.Fprintf(w, "why\t%s\n", audit.Printable(e.Why))
	fmt.Fprintf(w, "request\t%s %s\n", e.Method, audit.Printable(e.URL))
	if e.Address != "" {
		fmt.Fprintf(w, "from\t%s\n", e.Address)
	}
	fmt.Fprintf(w, "user\t%s\n", audit.Printable(e.Who.String()))
	if e.Route == nil {
		return
	}
	fmt.Fprintf(w, "route\t%s, %s%s%s\n", e.Route.Name, e.Route.Host, e.Route.Path, at(e.Route.Place))
	for _, r := range e.Rules {
		mark := ""
		if r.Decides {
			mark = "  <- decides"
		}
		fmt.Fprintf(w, "rule %d\t%s: %s%s%s\n", r.Number, r.Selects, r.Asks, at(r.Place), mark)
	}
}

func at(place string) string {
	if place == "" {
		return ""
	}
	return " (" + place + ")"
}

// String says who is asked about, and what was assumed.
func (w *who) String() string {
	if w == nil {
		return "nobody is signed in"
	}
	text := w.Name + ", groups " + orNone(w.Groups)
	switch {
	case w.Disabled:
		return text + ", disabled"
	case !w.SignedIn && w.SecondFactor:
		return text + ", not signed in: as just after a login with the second factor"
	case !w.SignedIn:
		return text + ", not signed in and without a second factor: as just after a login without one"
	case w.SecondFactor:
		return text + ", signed in with a second factor at " + when(w.FactorAt)
	}
	return text + ", signed in without a second factor"
}
