package proxy

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"gatehouse/access"
	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/problem"
	"gatehouse/proxy/clientip"
	"gatehouse/session"
)

// passwordMethod is the RFC 8176 name of a password, which is no second factor.
const passwordMethod = "pwd"

// outcome is what was decided about a request, and for whom: what the proxy and forward-auth present in their own ways.
type outcome struct {
	// Decision of the rules; the zero one where the request did not come so far.
	access.Decision
	origin string // of the host that was asked for, as browsers write it
	route  *route // nil if the request has none
	at     time.Time

	who      session.Principal
	signedIn bool           // who is somebody
	cookies  []*http.Cookie // of a renewal: they belong into the answer, whatever it is

	// code with which the request is refused; empty lets it through. cause is what the sessions said, nil if they are not the reason.
	code  problem.Code
	cause error
}

// finder says who sends a request to a route of the host with this origin, as Sessions.Authenticate and Sessions.Renew do.
type finder func(at *route, origin string) (session.Principal, []*http.Cookie, error)

// decide decides about a request: where it belongs, who sends it, and whether they may. It is the only place that does, for requests that
// came here and for those that a front proxy asks about.
//
// Nobody has to be signed in for what is public, but a session that is there counts: the app learns who it is, and credentials of ours
// that are none are refused as everywhere. Only what the store cannot say now does not keep anybody from what is public.
func (p *Proxy) decide(asked access.Request, find finder) outcome {
	match, err := p.table.Match(asked)
	if err != nil {
		return outcome{origin: match.Origin, code: unmatched(err)}
	}
	o := outcome{origin: match.Origin, route: p.routes[match.Route]}
	if o.route.refuseWhenAway && !p.sessions.InStep() {
		err = session.ErrUnavailable
	} else {
		o.who, o.cookies, err = find(o.route, o.origin)
	}
	o.at = p.now()
	switch {
	case err == nil:
		o.signedIn = true
	case errors.Is(err, session.ErrNoSession), errors.Is(err, session.ErrExpired):
	case errors.Is(err, session.ErrUnavailable) && match.Public():
	default:
		o.code, o.cause = codeOf(err), err
		return o
	}
	var subject *access.Subject
	if o.signedIn {
		subject = &access.Subject{Name: o.who.Name, Groups: o.who.Groups, SecondFactor: usedFactor(o.who), AuthTime: o.who.AuthTime}
	}
	o.Decision = match.Admit(subject, o.at)
	if o.Verdict == access.StepUp && o.who.AppToken { // a program cannot show a factor: it has no business here
		o.Verdict = access.Deny
	}
	o.code = verdictCode(o.Verdict)
	if o.Verdict == access.Deny {
		p.recordDenial(asked.Address, o)
	}
	return o
}

// unmatched is the code for a request that belongs nowhere.
func unmatched(err error) problem.Code {
	switch {
	case errors.Is(err, access.ErrNoHost):
		return problem.Misdirected
	case errors.Is(err, access.ErrNoRoute):
		return problem.NotFound
	}
	return problem.BadRequest // access.ErrPath
}

// codeOf is the code for an error of the sessions, or of an app token.
func codeOf(err error) problem.Code {
	var refused *auth.Refused
	switch {
	case errors.As(err, &refused):
		return refused.Code
	case errors.Is(err, session.ErrBadBearer):
		return problem.SessionRequired
	case errors.Is(err, session.ErrBadRequest):
		return problem.BadRequest
	}
	return problem.Unavailable
}

func verdictCode(v access.Verdict) problem.Code {
	switch v {
	case access.Allow:
		return ""
	case access.SignIn:
		return problem.SessionRequired
	case access.StepUp:
		return problem.StepUpRequired
	case access.Deny:
	}
	return problem.Forbidden
}

// usedFactor reports whether anything but a password was presented. An app token is no second factor: it is all that there was.
func usedFactor(who session.Principal) bool {
	return !who.AppToken && slices.ContainsFunc(who.Methods, func(method string) bool { return method != passwordMethod })
}

// recordDenial counts a refusal by a rule. The path is not part of it: it is the client's choice, and would make a record of each request.
func (p *Proxy) recordDenial(address netip.Addr, o outcome) {
	actor := audit.Actor{Type: audit.ActorClient}
	if o.signedIn {
		actor = audit.Actor{Type: audit.ActorUser, ID: o.who.UserID, Name: o.who.Name}
	}
	p.recorder.Count(audit.Event{
		Kind: audit.KindAccessDenied, Outcome: audit.Denied, Severity: audit.Low, Actor: actor, Session: o.who.PublicID,
		Client:  audit.Client{Address: address.String(), Network: clientip.Network(address).String()},
		Code:    string(o.code),
		Details: map[string]string{"route": o.route.name, "rule": ruleNumber(o.Rule), "reason": string(o.Reason)},
	})
}

// ruleNumber is a rule as people count: from 1, and "none".
func ruleNumber(index int) string {
	if index < 0 {
		return "none"
	}
	return strconv.Itoa(index + 1)
}
