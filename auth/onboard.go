package auth

import (
	"context"
	"time"

	"gatehouse/auth/link"
	"gatehouse/auth/password"
	"gatehouse/problem"
)

// Onboarding lets somebody with a one-time link make an account, or complete one, in two steps: name and password, then a
// second factor with one code. It ends like a login, in the flow's steps 5 and 6. Safe for concurrent use.
//
// It promises: no GET changes more than the secret that is drawn for the browser that chose; what is started in one browser
// cannot be finished in another; only the secret drawn last counts, and it is no factor before a code of it was right; no account
// is made or completed before the record of it is on disk; and of any number of attempts to finish one link at once, one does.
// After an outage the same step can be taken again.
type Onboarding struct {
	flow *Flow
	OnboardingOptions
}

// OnboardingOptions is what an Onboarding needs besides its flow. All fields are required.
type OnboardingOptions struct {
	Links  *link.Service
	Policy password.Policy
	// Host is the login host, a word that no password may be made of.
	Host string
}

// NewOnboarding makes an Onboarding that ends in the flow's steps 5 and 6.
func NewOnboarding(flow *Flow, o OnboardingOptions) *Onboarding {
	return &Onboarding{flow: flow, OnboardingOptions: o}
}

// OnboardingStep is what the page of a link is to show.
type OnboardingStep string

// The steps.
const (
	// StepAccount asks for name and password: nothing was chosen, or in another browser.
	StepAccount OnboardingStep = "account"
	// StepFactor shows the secret and asks for a code.
	StepFactor OnboardingStep = "factor"
)

// View is what the page of a link shows.
type View struct {
	Kind link.Kind
	// Username is the canonical name: that of the invited account, which cannot be chosen; of a set-up link what was chosen,
	// empty before.
	Username    string
	DisplayName string // as invited, or as chosen
	Step        OnboardingStep
	Expires     time.Time
	Policy      password.Policy // its bounds are to be shown before a password is chosen
}

// Choice is what the first step's form holds.
type Choice struct {
	Token    string // of the link
	Username string // of a set-up link; not looked at for an invitation
	// DisplayName may be empty: an invited account then keeps the one it has.
	DisplayName string
	Password    string
}

// Confirmation is what the second step's form holds.
type Confirmation struct {
	Token string // of the link
	Code  string // as totp.CleanForm leaves it
}

// Enrolment is a second factor that waits for its first code.
type Enrolment struct {
	Username string // canonical
	Secret   string // base32, for those who cannot scan
	URL      string // otpauth, for the QR code
	Expires  time.Time
}

// The fields that a Refused may be about.
const (
	FieldUsername    = "username"
	FieldDisplayName = "display_name"
	FieldPassword    = "password"
)

// Refused is why a step was not taken. It is the only type of error that the methods of an Onboarding return, and Code is one
// of: problem.LinkExpired; problem.BadRequest (with Field if it is a field's fault); problem.Conflict (the name is taken);
// problem.PasswordRejected; problem.RateLimited; problem.Unavailable; or what a *BadRequest of present names.
type Refused struct {
	Code       problem.Code
	RetryAfter time.Duration // with RateLimited and Unavailable
	Field      string        // one of the Field constants, or empty
	// Reasons and Score are of a rejected password: one sentence each, and its strength from 0 to 4.
	Reasons []string
	Score   int
}

func (e *Refused) Error() string { return string(e.Code) }

// View returns what the page of a link shows to this browser. It changes nothing, so anybody may be made to open it.
// client.Browser is the hash of the nonce that the browser has, empty if it has none.
func (o *Onboarding) View(ctx context.Context, client Client, kind link.Kind, token string) (View, error) {
	return View{}, &Refused{Code: problem.Unavailable}
}

// Choose takes the first step: it draws a token of the address, calls present once for the form, checks name and password, and
// keeps them with the link for the browser with client.Browser, in place of what was chosen before, here or elsewhere. The
// account is neither made nor changed by it. client.Browser must be a nonce that nobody could plant: a fresh one, that the
// answer sets where Choose has no error.
func (o *Onboarding) Choose(ctx context.Context, client Client, kind link.Kind, present func() (Choice, error)) (Enrolment, error) {
	return Enrolment{}, &Refused{Code: problem.Unavailable}
}

// Enrolment draws the second step anew: with a fresh secret, so that what an earlier page showed is worth nothing. LinkExpired
// also if this browser has not chosen; View tells the two apart.
func (o *Onboarding) Enrolment(ctx context.Context, client Client, kind link.Kind, token string) (Enrolment, error) {
	return Enrolment{}, &Refused{Code: problem.Unavailable}
}

// Confirm takes the second step: one right code makes or completes the account and signs the browser in. The outcome is that of
// a login, with the credentials where Code is empty. Its other codes are those of a Refused, and problem.CodeInvalid: a wrong
// or used code. Then Outcome.Enrolment is the same secret once more, for the page to be drawn again, until link.MaxTries
// codes were tried.
func (o *Onboarding) Confirm(ctx context.Context, client Client, kind link.Kind, present func() (Confirmation, error)) Outcome {
	return Outcome{Code: problem.Unavailable}
}

// EnrolView draws the enrolment of a pending login that ended in problem.EnrolmentRequired with a Challenge: an account that
// may still enrol with its password alone. Each call makes a fresh secret and only the last one counts. The code then goes
// through [Flow.Login] with Presented{Challenge, Code}; a wrong one is problem.CodeInvalid with Outcome.Enrolment set, for the
// page to be drawn again. ErrNotWaiting if no login of this browser waits for an enrolment, or an error of the store.
func (f *Flow) EnrolView(ctx context.Context, challenge, browser string) (Enrolment, error) {
	return Enrolment{}, ErrNotWaiting
}
