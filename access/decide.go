package access

import (
	"slices"
	"time"
)

// Verdict is what becomes of a request.
type Verdict string

// The verdicts. The zero Verdict is none, and lets nobody through.
const (
	Allow  Verdict = "allow"
	SignIn Verdict = "sign-in" // nobody is signed in, and somebody could be let through
	StepUp Verdict = "step-up" // a fresh second factor would do
	Deny   Verdict = "deny"
)

// Reason says why, from a closed set.
type Reason string

// The reasons.
const (
	ReasonPublic       Reason = "public"
	ReasonSignedIn     Reason = "signed-in"
	ReasonListed       Reason = "user-or-group-listed"
	ReasonNoSession    Reason = "no-session"
	ReasonNoFactor     Reason = "no-second-factor"
	ReasonFactorTooOld Reason = "second-factor-too-old"
	ReasonNotListed    Reason = "user-and-groups-not-listed"
	ReasonDenied       Reason = "denied-by-rule"
	ReasonNoRule       Reason = "no-rule"
)

// Decision is the answer to one request. It is complete: what the client is told, what is recorded and what `gatehouse config explain`
// prints is made of it.
type Decision struct {
	Verdict Verdict
	Reason  Reason
	Route   int // index of the route
	Rule    int // index of the rule within it; -1 if none matched
}

// Subject is somebody who is signed in.
type Subject struct {
	Name   string
	Groups []string
	// SecondFactor: the session has used one, last at AuthTime.
	SecondFactor bool
	AuthTime     time.Time
}

// clockLeeway is how far ahead of now a factor may have been presented, by another gateway's clock.
const clockLeeway = 30 * time.Second

// Public reports whether the request passes whoever sends it, so that nobody has to be asked.
func (m Match) Public() bool {
	for _, one := range m.rules[:m.chosen] {
		if one == nil || one.Access != Public {
			return false
		}
	}
	return m.chosen > 0
}

// Admit decides. who is nil if nobody is signed in. Where two rules decide, because a path has two readings, the stricter answer counts.
func (m Match) Admit(who *Subject, now time.Time) Decision {
	worst := Decision{Verdict: Deny, Reason: ReasonNoRule, Route: m.Route, Rule: -1}
	for i, one := range m.rules[:m.chosen] {
		verdict, reason := one.admit(who, now)
		if i == 0 || severity(verdict) > severity(worst.Verdict) {
			worst.Verdict, worst.Reason, worst.Rule = verdict, reason, m.index[i]
		}
	}
	return worst
}

func severity(v Verdict) int { return slices.Index([]Verdict{Allow, SignIn, StepUp, Deny}, v) }

func (r *rule) admit(who *Subject, now time.Time) (Verdict, Reason) {
	switch {
	case r == nil:
		return Deny, ReasonNoRule
	case r.Access == Denied:
		return Deny, ReasonDenied
	case r.Access == Public:
		return Allow, ReasonPublic
	case who == nil:
		return SignIn, ReasonNoSession
	case !r.lists(who):
		return Deny, ReasonNotListed
	case (r.SecondFactor || r.FactorWithin > 0) && !who.SecondFactor:
		return StepUp, ReasonNoFactor
	case r.FactorWithin > 0 && !fresh(who.AuthTime, r.FactorWithin, now):
		return StepUp, ReasonFactorTooOld
	case len(r.Users)+len(r.Groups) > 0:
		return Allow, ReasonListed
	}
	return Allow, ReasonSignedIn
}

func (r *rule) lists(who *Subject) bool {
	if len(r.Users)+len(r.Groups) == 0 || slices.Contains(r.Users, who.Name) {
		return true
	}
	return slices.ContainsFunc(r.Groups, func(group string) bool { return slices.Contains(who.Groups, group) })
}

// fresh reports whether a factor was presented within a time. One from further ahead than clocks may differ was presented by a clock that
// was wrong, and says nothing.
func fresh(at time.Time, within time.Duration, now time.Time) bool {
	age := now.Sub(at)
	return age <= within && age >= -clockLeeway
}
