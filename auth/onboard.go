package auth

import (
	"context"
	"errors"
	"slices"
	"time"

	"gatehouse/auth/link"
	"gatehouse/auth/password"
	"gatehouse/auth/user"
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
	// Secret is base32, for those who cannot scan, and URL otpauth, for the QR code. Both are empty if a code was right already and
	// an outage kept the account from being completed: then the page only asks for another code.
	Secret, URL string
	Expires     time.Time
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

// SetupLink returns the token of the set-up link and its end, making or renewing the link as needed; open is false for ever once
// there was an administrator. It is one link for all gateways of a store.
func (o *Onboarding) SetupLink(ctx context.Context) (token string, until time.Time, open bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, StoreTimeout)
	defer cancel()
	return o.Links.OpenSetup(ctx, o.administrator)
}

// administrator reports whether there is an account in the group of administrators.
func (o *Onboarding) administrator(ctx context.Context) (bool, error) {
	users, err := o.flow.Users.List(ctx)
	there := slices.ContainsFunc(users, func(u user.User) bool { return slices.Contains(u.Groups, user.Administrators) })
	return there, err
}

// View returns what the page of a link shows to this browser. It changes nothing, so anybody may be made to open it.
// client.Browser is the hash of the nonce that the browser has, empty if it has none.
func (o *Onboarding) View(ctx context.Context, client Client, kind link.Kind, token string) (View, error) {
	ctx, cancel := context.WithTimeout(ctx, StoreTimeout)
	defer cancel()
	l, account, err := o.open(ctx, kind, token)
	if err != nil {
		return View{}, o.refuse(ctx, o.flow.attempt(client), err)
	}
	v := View{
		Kind: kind, Username: account.Name, DisplayName: account.DisplayName, Step: StepAccount, Expires: l.Expires, Policy: o.Policy,
	}
	if l.Chosen(client.Browser) {
		v.Step = StepFactor
	}
	return v, nil
}

// Choose takes the first step: it draws a token of the address, calls present once for the form, checks name and password, and
// keeps them with the link for the browser with client.Browser, in place of what was chosen before, here or elsewhere. The
// account is neither made nor changed by it. client.Browser must be a nonce that nobody could plant: a fresh one, that the
// answer sets where Choose has no error.
func (o *Onboarding) Choose(ctx context.Context, client Client, kind link.Kind, present func() (Choice, error)) (Enrolment, error) {
	a := o.flow.attempt(client)
	c := draw(ctx, o.flow, a, present)
	if a.decided {
		return Enrolment{}, o.refuse(ctx, a, nil)
	}
	e, err := o.choose(ctx, a, kind, c)
	if err != nil {
		return Enrolment{}, o.refuse(ctx, a, err)
	}
	o.flow.giveBack(ctx, a)
	return e, nil
}

// choose checks a choice and keeps it. The password is hashed last: an unknown token and a bad choice cost no work.
func (o *Onboarding) choose(ctx context.Context, a *attempt, kind link.Kind, c Choice) (Enrolment, error) {
	account, expires, err := o.check(ctx, kind, c)
	if err != nil {
		return Enrolment{}, err
	}
	who := o.flow.waiter(a)
	who.Account = link.Hash(c.Token)
	hash, err := o.flow.hash(ctx, who, c.Password)
	if err != nil {
		return Enrolment{}, err
	}
	factor, err := o.flow.TOTP.Generate(account.Name)
	if err != nil {
		return Enrolment{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, StoreTimeout)
	defer cancel()
	err = o.Links.Choose(ctx, kind, c.Token, func(l *link.Link) {
		l.UserID, l.Browser, l.Name, l.DisplayName, l.PasswordHash = account.ID, a.Browser, account.Name, account.DisplayName, hash
		l.FactorID, l.FactorSecret, l.FactorURL = factor.ID, factor.Secret, factor.URL
	})
	return enrolmentOf(account.Name, factor, expires), err
}

// check returns the account as it would be, or why it cannot be.
func (o *Onboarding) check(ctx context.Context, kind link.Kind, c Choice) (user.User, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, StoreTimeout)
	defer cancel()
	l, account, err := o.open(ctx, kind, c.Token)
	if err != nil {
		return user.User{}, time.Time{}, err
	}
	if kind == link.Setup {
		if account.Name, err = o.free(ctx, c.Username); err != nil {
			return user.User{}, time.Time{}, err
		}
		account.ID = user.NewID() // of this choice alone: an account that another choice made is never taken for this one's
	}
	if c.DisplayName != "" {
		account.DisplayName = c.DisplayName
	}
	if err := user.Check(account); err != nil {
		return user.User{}, time.Time{}, &Refused{Code: problem.BadRequest, Field: FieldDisplayName}
	}
	strength := o.Policy.Rate(c.Password, []string{o.Host, account.Name, account.DisplayName, account.Email})
	if len(strength.Reasons) > 0 {
		return user.User{}, time.Time{}, &Refused{
			Code: problem.PasswordRejected, Field: FieldPassword, Reasons: strength.Reasons, Score: strength.Score,
		}
	}
	return account, l.Expires, nil
}

// free returns the canonical form of a name that no account has.
func (o *Onboarding) free(ctx context.Context, name string) (string, error) {
	canonical, err := user.Canonical(name)
	if err != nil {
		return "", &Refused{Code: problem.BadRequest, Field: FieldUsername}
	}
	_, err = o.flow.Users.ByName(ctx, canonical)
	switch {
	case errors.Is(err, user.ErrNotFound):
		return canonical, nil
	case err == nil:
		err = &Refused{Code: problem.Conflict, Field: FieldUsername}
	}
	return "", err
}

// Enrolment draws the second step anew: with a fresh secret, so that what an earlier page showed is worth nothing. LinkExpired
// also if this browser has not chosen; View tells the two apart.
func (o *Onboarding) Enrolment(ctx context.Context, client Client, kind link.Kind, token string) (Enrolment, error) {
	ctx, cancel := context.WithTimeout(ctx, StoreTimeout)
	defer cancel()
	e, err := o.redraw(ctx, client.Browser, kind, token)
	if err != nil {
		return Enrolment{}, o.refuse(ctx, o.flow.attempt(client), err)
	}
	return e, nil
}

func (o *Onboarding) redraw(ctx context.Context, browser string, kind link.Kind, token string) (Enrolment, error) {
	l, account, err := o.open(ctx, kind, token)
	if err == nil && !l.Chosen(browser) {
		err = link.ErrExpired
	}
	if err != nil {
		return Enrolment{}, err
	}
	if l.Claimed {
		return Enrolment{Username: account.Name, Expires: l.Expires}, nil
	}
	fresh, err := o.flow.TOTP.Generate(account.Name)
	if err != nil {
		return Enrolment{}, err
	}
	err = o.Links.Redraw(ctx, kind, token, browser, func(l *link.Link) {
		l.FactorID, l.FactorSecret, l.FactorURL = fresh.ID, fresh.Secret, fresh.URL
	})
	return enrolmentOf(account.Name, fresh, l.Expires), err
}
