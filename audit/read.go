package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	// followEvery is how often Follow looks for new records.
	followEvery = 200 * time.Millisecond
	// followPatience is how many looks in a row may find the log damaged before Follow believes it: while a failed write is
	// taken back and written over, a reader can catch half of each.
	followPatience = 5
)

// Read calls fn with every record from a sequence on, in order. It needs no lock: while a gateway writes, it reads what
// is there when it comes by, and leaves out a last line that is not whole. That may be a record whose Append is still to
// fail, if the disk does. An error of fn ends it and is returned; a line that is no record is a *DamageError.
func Read(dir string, from uint64, fn func(Record) error) error {
	list, err := segments(dir)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	begin := 0
	for i, s := range list {
		if s.first <= from {
			begin = i
		}
	}
	for _, s := range list[begin:] {
		if err := s.read(from, fn); err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
	}
	return nil
}

// read calls fn with the segment's records from a sequence on.
func (s segment) read(from uint64, fn func(Record) error) error {
	number := 0
	return s.eachLine(func(line []byte, whole bool) error {
		number++
		if !whole {
			return nil
		}
		sequence, found := sequenceOf(line)
		if found && sequence < from {
			return nil
		}
		var r Record
		if err := json.Unmarshal(line, &r); err != nil || !found {
			return &DamageError{File: s.path, Line: number, Why: "it is not a record"}
		}
		return fn(r)
	})
}

// Last returns the sequence of the newest whole record of a log, 0 if there is none.
func Last(dir string) (uint64, error) {
	list, err := segments(dir)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	newest := list[len(list)-1]
	last := newest.first - 1
	err = newest.eachLine(func(line []byte, whole bool) error {
		if sequence, found := sequenceOf(line); whole && found {
			last = sequence
		}
		return nil
	})
	return last, err
}

// Follow is Read that goes on with each record that comes, until ctx is done, which is no error, or fn returns one. A
// record comes within a quarter of a second. Should a record be read whose Append then fails, the one that gets its number
// is not read again.
func Follow(ctx context.Context, dir string, from uint64, fn func(Record) error) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var seen mark
	damaged := 0
	for {
		// The mark is taken before reading: what is written meanwhile is read twice rather than missed.
		now, err := newest(dir)
		if err == nil && (now != seen || damaged > 0) {
			err = Read(dir, from, func(r Record) error {
				from = r.Sequence + 1
				return fn(r)
			})
			seen = now
		}
		var damage *DamageError
		switch {
		case errors.As(err, &damage) && damaged < followPatience:
			damaged++
		case err != nil:
			return err
		default:
			damaged = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// mark tells whether a log may have changed.
type mark struct {
	path     string
	size     int64
	modified int64 // nanoseconds since 1970
}

func newest(dir string) (mark, error) {
	list, err := segments(dir)
	if err != nil || len(list) == 0 {
		return mark{}, err
	}
	path := list[len(list)-1].path
	info, err := os.Stat(path)
	if err != nil {
		return mark{}, err
	}
	return mark{path: path, size: info.Size(), modified: info.ModTime().UnixNano()}, nil
}
