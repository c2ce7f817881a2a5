package auth

import (
	"context"
	"net/netip"

	"gatehouse/audit"
	"gatehouse/auth/device"
	"gatehouse/auth/lockout"
	"gatehouse/problem"
)

// Devices remembers which devices and networks an account has completed a login from.
type Devices interface {
	// DeviceFor returns the device id that the cookie holds for the account, or "" ; it does not ask the store.
	DeviceFor(cookie, userID string) string
	// Owner returns the id of some account that the cookie is a known device of, or ""; it does not ask the store.
	Owner(cookie string) string
	Load(ctx context.Context, userID string) (device.History, error)
	Remember(ctx context.Context, userID, deviceID string, network netip.Prefix, userAgent string) (string, error)
	Cookie(old, userID, deviceID string) string
	Forget(ctx context.Context, userID, deviceID string) error
}

// History is what an account's completed logins left behind.
type History = device.History

// nobody stands in for the id of an account that does not exist, so that its history costs the same look-up.
const nobody = "00000000000000000000000000000000"

// suspiciousFailures is how many failures of the same client class within the lockout window make a right password
// suspicious. Below the five that lock, above the one or two typing errors of an owner.
const suspiciousFailures = 3

// recall reads the account's history and finds the client class: the device id of a known device, else stranger.
func (f *Flow) recall(ctx context.Context, a *attempt) error {
	id := a.account.ID
	if id == "" {
		id = nobody
	}
	history, err := f.Devices.Load(ctx, id)
	if err != nil {
		return err
	}
	a.history = history
	if d := f.Devices.DeviceFor(a.DeviceCookie, id); d != "" && history.KnowsDevice(d) {
		a.class, a.deviceID = d, d
	}
	return nil
}

// gather notes what is unusual, as soon as the password was right. The signals stand in result 4 even where another step
// decides.
func (a *attempt) gather(failures int) {
	if a.class == lockout.Stranger {
		a.signals = append(a.signals, audit.SignalNewDevice)
	}
	if !a.history.KnowsNetwork(a.Network) {
		a.signals = append(a.signals, audit.SignalNewNetwork)
	}
	if failures >= suspiciousFailures {
		a.signals = append(a.signals, audit.SignalSuccessAfterFailures)
	}
	if len(a.signals) > 0 {
		a.detail(audit.StepContext, audit.SignalsDetail, audit.JoinSignals(a.signals))
	}
}

// firstLogin reports whether the account never completed a login and may still do so with nothing to compare with.
func (f *Flow) firstLogin(a *attempt) bool {
	return a.account.FirstLoginAt.IsZero() && f.Now().Before(a.account.EnrolUntil)
}

// context is step 4: what is unusual must be answered by a second factor in this same login.
func (f *Flow) context(_ context.Context, a *attempt) {
	switch {
	case f.firstLogin(a):
		a.pass(audit.StepContext, audit.Pass, audit.ReasonFirstLogin)
	case len(a.signals) == 0 && !a.account.FirstLoginAt.IsZero():
		a.pass(audit.StepContext, audit.Pass, audit.ReasonRecognised)
	case a.verified && a.completes == nil: // a factor that was enrolled just now says nothing about who that was
		a.pass(audit.StepContext, audit.Pass, audit.ReasonAnsweredByFactor)
	default:
		a.stop(audit.StepContext, audit.Challenge, audit.ReasonVerificationRequired, problem.VerificationRequired)
	}
}

// forgetDevice ends a known device whose window is used up: a stolen device cookie is worth five tries.
func (f *Flow) forgetDevice(ctx context.Context, a *attempt) {
	if a.class == lockout.Stranger {
		return
	}
	if err := f.Devices.Forget(ctx, a.account.ID, a.class); err != nil {
		f.Logger.WarnContext(ctx, "forget a device", "error", err, "request_id", a.RequestID)
	}
}
