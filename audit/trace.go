package audit

import "strings"

// Step is one of the six steps of a login. The numbers are the same in the code, the trace, the event, the metrics and
// the documentation.
type Step int

// The six steps, by their numbers.
const (
	StepPassword     Step = 1
	StepRateLimit    Step = 2
	StepSecondFactor Step = 3
	StepContext      Step = 4
	StepSession      Step = 5
	StepAudit        Step = 6
)

// Steps is every step in the order of its number.
var Steps = [...]Step{StepPassword, StepRateLimit, StepSecondFactor, StepContext, StepSession, StepAudit}

// String is the step's name as in documents and metrics.
func (s Step) String() string {
	switch s {
	case StepPassword:
		return "password"
	case StepRateLimit:
		return "rate-limit"
	case StepSecondFactor:
		return "second-factor"
	case StepContext:
		return "context"
	case StepSession:
		return "session"
	case StepAudit:
		return "audit"
	}
	return "unknown"
}

// Verdict is what a step came to.
type Verdict string

// The verdicts. The zero Verdict is NotReached's unwritten form and never stored.
const (
	NotReached Verdict = "not-reached"
	Pass       Verdict = "pass"
	Fail       Verdict = "fail"
	Challenge  Verdict = "challenge" // goes on when something more is presented
	Skipped    Verdict = "skipped"   // not asked of this account, by policy
	Error      Verdict = "error"     // could not be decided: denied
)

// Reason says why a step came to its verdict. The set is closed: a reason is one line here, and the exhaustive linter finds
// every switch.
type Reason string

// The reasons of the six steps.
const (
	ReasonNone Reason = ""

	// Steps 1, 3 and 4: the browser came with a good one-time link and chose the password and the factor there.
	ReasonOneTimeLink Reason = "one-time-link"
	ReasonLinkExpired Reason = "link-expired" // unknown, used, expired, or finished by somebody else meanwhile

	// Step 1.
	ReasonMalformed        Reason = "malformed" // the body was refused before anything was looked up
	ReasonUnknownUser      Reason = "unknown-user"
	ReasonAccountDisabled  Reason = "account-disabled"
	ReasonWrongPassword    Reason = "wrong-password"
	ReasonLocked           Reason = "locked"            // five failures in the window
	ReasonClosed           Reason = "closed"            // a hundred failures of strangers in a row
	ReasonPoolFull         Reason = "pool-full"         // the waiting line, or the account's part of it, is full
	ReasonSignedIn         Reason = "signed-in"         // of a step-up: a live session stands for the password
	ReasonStoreUnavailable Reason = "store-unavailable" // of any step
	ReasonRecordSealed     Reason = "record-sealed"     // a record of the account does not open

	// Step 2.
	ReasonBucketEmpty Reason = "bucket-empty"

	// Step 3.
	ReasonCodeRequired      Reason = "code-required"
	ReasonCodeWrong         Reason = "code-wrong"
	ReasonCodeUsed          Reason = "code-used"
	ReasonCodesLocked       Reason = "codes-locked"
	ReasonEnrolmentRequired Reason = "enrolment-required"
	ReasonFactorOptional    Reason = "factor-optional"
	ReasonEnrolled          Reason = "enrolled"        // the first code of a factor that this login enrols
	ReasonPendingInvalid    Reason = "pending-invalid" // the challenge is unknown, used, expired or another browser's

	// Step 4.
	ReasonFirstLogin           Reason = "first-login"
	ReasonRecognised           Reason = "recognised" // device and network are known
	ReasonAnsweredByFactor     Reason = "answered-by-factor"
	ReasonVerificationRequired Reason = "verification-required"

	// Steps 5 and 6.
	ReasonSessionFailed Reason = "session-failed"
	ReasonSteppedUp     Reason = "stepped-up"    // a session that lives becomes fresher
	ReasonSessionEnded  Reason = "session-ended" // before it was
	ReasonAuditFailed   Reason = "audit-failed"
)

// Signal is something that step 4 saw. Signals stand in the details of result 4 even where another step decides.
type Signal string

// The signals.
const (
	SignalNewDevice            Signal = "new-device"
	SignalNewNetwork           Signal = "new-network"
	SignalSuccessAfterFailures Signal = "success-after-failures"
)

// Result is what one step came to.
type Result struct {
	Step    Step              `json:"step"` // its number
	Name    string            `json:"name"` // Step.String
	Verdict Verdict           `json:"verdict"`
	Reason  Reason            `json:"reason,omitempty"`
	Micros  int64             `json:"micros"`
	Details map[string]string `json:"details,omitempty"` // flat; encoding/json sorts the names
}

// Trace is one result for each step of a login, at index Step−1; none can be missing.
type Trace [len(Steps)]Result

// NewTrace is a trace in which no step was reached yet.
func NewTrace() Trace {
	var t Trace
	for _, s := range Steps {
		*t.Of(s) = Result{Step: s, Name: s.String(), Verdict: NotReached}
	}
	return t
}

// Of returns the result of a step.
func (t *Trace) Of(s Step) *Result { return &t[s-1] }

// Deciding returns the first step that neither passed nor was skipped, before step 6, and false if all passed.
func (t *Trace) Deciding() (Step, bool) {
	for _, s := range Steps[:len(Steps)-1] {
		switch t.Of(s).Verdict {
		case Fail, Challenge, Error:
			return s, true
		case Pass, Skipped, NotReached:
		}
	}
	return 0, false
}

// SignalsDetail is the name under which result 4 lists its signals, comma separated.
const SignalsDetail = "signals"

// JoinSignals writes signals as the detail SignalsDetail holds them.
func JoinSignals(signals []Signal) string {
	parts := make([]string, len(signals))
	for i, s := range signals {
		parts[i] = string(s)
	}
	return strings.Join(parts, ",")
}
