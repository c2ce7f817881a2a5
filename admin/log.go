package admin

import (
	"context"
	"errors"

	"gatehouse/admin/api"
	"gatehouse/audit"
)

// Tail says which records of the log are wanted.
type Tail struct {
	From   uint64 // the first sequence number; 0: the newest Last
	Last   int    // with From 0; 0: api.DefaultTail
	Follow bool   // go on until the context ends
}

// errEnough ends the reading of the log.
var errEnough = errors.New("enough records")

// OpenTail authorises and records a look at the log, and returns what reads it. The reading gives each record to each, in
// order; it ends with the error of each, or nil: without Follow at the record of the look itself, which it leaves out, and with
// Follow when ctx ends.
func (s *Service) OpenTail(ctx context.Context, c Caller, tail Tail) (func(ctx context.Context, each func(audit.Record) error) error, error) {
	var here uint64
	err := s.do(ctx, call{caller: c, op: AuditTail, act: func(_ context.Context, record audit.Record) error {
		here = record.Sequence
		return nil
	}})
	if err != nil {
		return nil, err
	}
	from := tail.from(here)
	return func(ctx context.Context, each func(audit.Record) error) error {
		if tail.Follow {
			err := audit.Follow(ctx, s.parts.LogDir, from, each)
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		err := audit.Read(s.parts.LogDir, from, func(r audit.Record) error {
			if r.Sequence >= here || ctx.Err() != nil {
				return errEnough
			}
			return each(r)
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	}, nil
}

// from is the first record to read, when the look itself is record here.
func (t Tail) from(here uint64) uint64 {
	if t.From > 0 {
		return t.From
	}
	last := uint64(api.DefaultTail)
	if t.Last > 0 {
		last = uint64(t.Last)
	}
	if here <= last {
		return 1
	}
	return here - last
}
