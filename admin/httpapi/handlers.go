package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"gatehouse/admin"
	"gatehouse/admin/api"
	"gatehouse/audit"
	"gatehouse/problem"
)

// maxTail is the most records that can be asked for by number.
const maxTail = 100_000

func (x *exchange) service() *admin.Service { return x.api.options.Service }

func (x *exchange) listUsers() error {
	query, limit, err := x.page()
	if err != nil {
		return err
	}
	page, err := x.service().Users(x.Context(), x.caller, query.Get("after"), limit)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, page)
}

func (x *exchange) showUser() error {
	u, err := x.service().User(x.Context(), x.caller, x.PathValue("user"))
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, u)
}

func (x *exchange) addUser() error {
	var body api.NewUser
	if err := x.decode(api.MaxBody, &body); err != nil {
		return err
	}
	u, err := x.service().AddUser(x.Context(), x.caller, body)
	if err != nil {
		return err
	}
	x.w.Header().Set("Location", "/v1/users/"+u.Name)
	return x.answer(http.StatusCreated, u)
}

func (x *exchange) addInvited() error {
	var body api.NewInvitation
	if err := x.decode(api.MaxBody, &body); err != nil {
		return err
	}
	made, err := x.service().AddInvited(x.Context(), x.caller, body)
	if err != nil {
		return err
	}
	x.w.Header().Set("Location", "/v1/users/"+made.User.Name)
	return x.answer(http.StatusCreated, made)
}

func (x *exchange) invite() error {
	name, reason, err := x.change()
	if err != nil {
		return err
	}
	made, err := x.service().Invite(x.Context(), x.caller, name, reason)
	if err != nil {
		return err
	}
	return x.answer(http.StatusCreated, made)
}

func (x *exchange) deleteUser() error {
	name, reason, err := x.change()
	if err != nil {
		return err
	}
	return x.done(x.service().DeleteUser(x.Context(), x.caller, name, reason))
}

func (x *exchange) disableUser() error {
	name, reason, err := x.change()
	if err != nil {
		return err
	}
	return x.done(x.service().DisableUser(x.Context(), x.caller, name, reason))
}

func (x *exchange) enableUser() error {
	name, reason, err := x.change()
	if err != nil {
		return err
	}
	return x.done(x.service().EnableUser(x.Context(), x.caller, name, reason))
}

func (x *exchange) setPassword() error {
	var body api.NewPassword
	if err := x.decode(api.MaxBody, &body); err != nil {
		return err
	}
	name, err := x.target(body.User)
	if err != nil {
		return err
	}
	return x.done(x.service().SetPassword(x.Context(), x.caller, name, body.Password, body.Reason))
}

func (x *exchange) setGroups() error {
	var body api.NewGroups
	if err := x.decode(api.MaxBody, &body); err != nil {
		return err
	}
	name, err := x.target(body.User)
	if err != nil {
		return err
	}
	if body.Groups == nil {
		return badRequest("groups is required; [] is none.")
	}
	return x.done(x.service().SetGroups(x.Context(), x.caller, name, body.Groups, body.Reason))
}

func (x *exchange) importUsers() error {
	var body api.Import
	if err := x.decode(api.MaxImportBody, &body); err != nil {
		return err
	}
	done, err := x.service().Import(x.Context(), x.caller, body)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, done)
}

func (x *exchange) enrolTOTP() error {
	name, reason, err := x.change()
	if err != nil {
		return err
	}
	enrolment, err := x.service().EnrolTOTP(x.Context(), x.caller, name, reason)
	if err != nil {
		return err
	}
	return x.answer(http.StatusCreated, enrolment)
}

func (x *exchange) resetTOTP() error {
	name, reason, err := x.change()
	if err != nil {
		return err
	}
	return x.done(x.service().ResetTOTP(x.Context(), x.caller, name, reason))
}

func (x *exchange) listLockouts() error {
	query, limit, err := x.page()
	if err != nil {
		return err
	}
	page, err := x.service().Lockouts(x.Context(), x.caller, query.Get("after"), limit)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, page)
}

func (x *exchange) showLockout() error {
	lockouts, err := x.service().Lockout(x.Context(), x.caller, x.PathValue("user"))
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, api.Page[api.Lockout]{Items: lockouts})
}

func (x *exchange) resetLockout() error {
	name, reason, err := x.change()
	if err != nil {
		return err
	}
	return x.done(x.service().ResetLockout(x.Context(), x.caller, name, reason))
}

func (x *exchange) listSessions() error {
	query, limit, err := x.page("user")
	if err != nil {
		return err
	}
	page, err := x.service().Sessions(x.Context(), x.caller, query.Get("user"), query.Get("after"), limit)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, page)
}

func (x *exchange) revokeSession() error {
	_, reason, err := x.change()
	if err != nil {
		return err
	}
	return x.done(x.service().RevokeSession(x.Context(), x.caller, x.PathValue("id"), reason))
}

func (x *exchange) revokeSessions() error {
	name, reason, err := x.change()
	if err != nil {
		return err
	}
	n, err := x.service().RevokeSessions(x.Context(), x.caller, name, reason)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, api.Revoked{Sessions: n})
}

func (x *exchange) listTokens() error {
	query, err := x.query("user")
	if err != nil {
		return err
	}
	page, err := x.service().AppTokens(x.Context(), x.caller, query.Get("user"))
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, page)
}

func (x *exchange) addToken() error {
	var body api.NewToken
	if err := x.decode(api.MaxBody, &body); err != nil {
		return err
	}
	made, err := x.service().AddToken(x.Context(), x.caller, body)
	if err != nil {
		return err
	}
	return x.answer(http.StatusCreated, made)
}

func (x *exchange) revokeToken() error {
	_, reason, err := x.change()
	if err != nil {
		return err
	}
	return x.done(x.service().RevokeToken(x.Context(), x.caller, x.PathValue("id"), reason))
}

func (x *exchange) listKeys() error {
	keys, err := x.service().Keys(x.Context(), x.caller)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, api.Page[api.Key]{Items: keys})
}

func (x *exchange) rotateKeys() error {
	_, reason, err := x.change()
	if err != nil {
		return err
	}
	return x.done(x.service().RotateKeys(x.Context(), x.caller, reason))
}

// tailAudit streams records as JSON lines.
func (x *exchange) tailAudit() error {
	tail, err := x.tailQuery()
	if err != nil {
		return err
	}
	select {
	case x.api.tails <- struct{}{}:
		defer func() { <-x.api.tails }()
	default:
		return &requestError{problem.RateLimited, "Too many readings of the log go on already."}
	}
	read, err := x.service().OpenTail(x.Context(), x.caller, tail)
	if err != nil {
		return err
	}
	x.head("application/jsonl")
	x.w.WriteHeader(http.StatusOK)
	if err := x.stream(read, tail.Follow); err != nil && x.Context().Err() == nil {
		x.api.options.Logger.Error("reading of the audit log ended early", "request_id", x.caller.RequestID, "error", err)
		panic(http.ErrAbortHandler) // a broken connection, so that the client does not take it for the end
	}
	return nil
}

// stream writes each record, and has it sent at once if the reader waits for it. It has no deadline: a reader that follows
// waits for as long as nothing happens, and one that stops reading holds one of maxTails places.
func (x *exchange) stream(read func(context.Context, func(audit.Record) error) error, atOnce bool) error {
	control := http.NewResponseController(x.w)
	if err := control.SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	if err := control.Flush(); err != nil {
		return err
	}
	return read(x.Context(), func(record audit.Record) error {
		line, err := audit.Line(record)
		if err != nil {
			return err
		}
		if _, err := x.w.Write(line); err != nil || !atOnce {
			return err
		}
		return control.Flush()
	})
}

func (x *exchange) tailQuery() (admin.Tail, error) {
	query, err := x.query("from", "last", "follow")
	if err != nil {
		return admin.Tail{}, err
	}
	tail := admin.Tail{}
	if text := query.Get("from"); text != "" {
		if tail.From, err = strconv.ParseUint(text, 10, 64); err != nil || tail.From == 0 {
			return admin.Tail{}, badRequest("from must be a sequence number, from 1.")
		}
	}
	if tail.Last, err = number(query, "last", 0, maxTail); err != nil {
		return admin.Tail{}, err
	}
	if tail.From > 0 && tail.Last > 0 {
		return admin.Tail{}, badRequest("from and last exclude each other.")
	}
	switch query.Get("follow") {
	case "", "false":
	case "true":
		tail.Follow = true
	default:
		return admin.Tail{}, badRequest("follow must be true or false.")
	}
	return tail, nil
}
