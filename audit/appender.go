package audit

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// appender is the one goroutine that writes. All its fields are its own after open.
type appender struct {
	log     *Log
	disk    disk
	epoch   string
	reserve reserve

	segment file   // nil until the first record of a new log
	size    int64  // of the segment, as far as it is good and on disk
	next    uint64 // sequence of the next record
	dirty   bool   // behind size there may be something of a failed write
}

// open checks the log, repairs a torn last line, and returns the event that tells of it, or nil.
func (a *appender) open() (*Event, error) {
	dir := a.log.options.Dir
	var err error
	if a.reserve, err = openReserve(a.disk, filepath.Join(dir, reserveName), a.log.options.Reserve); err != nil {
		return nil, err
	}
	// A disk that is full now may have room later: not being whole only limits who may write.
	a.log.setHealth(a.reserve.refill())
	end, err := inspect(dir)
	if err != nil {
		return nil, err
	}
	a.next, a.size = end.next, end.good
	if end.path == "" {
		return nil, nil // the first record begins the first segment
	}
	var repair *Event
	if end.torn > 0 {
		if repair, err = a.repair(end); err != nil {
			return nil, fmt.Errorf("repair %s: %w", end.path, err)
		}
	}
	a.segment, err = a.disk.Open(end.path)
	return repair, err
}

// repair moves a torn last line into a file of its own and cuts it off the segment. The copy is on disk before the cut.
func (a *appender) repair(end logEnd) (*Event, error) {
	var kept string
	err := a.sparing(func() (err error) {
		kept, err = keepTorn(a.disk, end)
		return err
	})
	if err != nil {
		return nil, err
	}
	f, err := a.disk.Open(end.path)
	if err != nil {
		return nil, err
	}
	// A crash before this leaves a second copy of the line, one after it leaves a whole log: nothing is lost either way.
	if err := errors.Join(f.Truncate(end.good), f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	return &Event{
		Kind: KindLogRepaired, Outcome: Success, Severity: High, Actor: Actor{Type: ActorSystem},
		Details: map[string]string{
			"segment": filepath.Base(end.path),
			"kept_in": filepath.Base(kept),
			"bytes":   strconv.FormatInt(end.torn, 10),
		},
	}, nil
}

// run writes batches until the log closes. A batch is the request that came first and all that wait by then, so while one
// fsync runs the next batch gathers.
func (a *appender) run() {
	defer close(a.log.stopped)
	for {
		select {
		case first := <-a.log.requests:
			a.write(a.gather(first))
		case <-a.log.closing:
			if err := a.close(); err != nil {
				a.log.options.Logger.Error("close audit log", "error", err)
			}
			return
		}
	}
}

// gather takes every request that waits already, and waits for none: a lone writer pays one fsync and nothing more.
func (a *appender) gather(first request) []request {
	batch := []request{first}
	for len(batch) < maxBatch {
		select {
		case r := <-a.log.requests:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// write answers every request of a batch. Ordinary records are only written while the reserve is whole: else a record
// that takes no access away could use up the space that was set free for one that does.
func (a *appender) write(batch []request) {
	short := a.reserve.refill()
	if short == nil {
		answers, err := a.commit(batch)
		// Any other error is the disk's, and fails everybody: there is no reserve of working disks.
		if !full(err) {
			a.log.setHealth(err)
			reply(batch, answers, err)
			return
		}
		short = err
	}
	var urgent, ordinary []request
	for _, r := range batch {
		if r.urgent {
			urgent = append(urgent, r)
		} else {
			ordinary = append(ordinary, r)
		}
	}
	a.log.setHealth(short) // unhealthy even where the reserve serves
	reply(ordinary, nil, short)
	if len(urgent) == 0 {
		return
	}
	var answers []answer
	err := a.sparing(func() (err error) {
		answers, err = a.commit(urgent)
		return err
	})
	if err != nil {
		a.log.setHealth(err)
	}
	reply(urgent, answers, err)
}

// reply answers requests, all with the error if there is one. Who gets an answer finds Healthy to agree with it.
func reply(batch []request, answers []answer, err error) {
	for i, r := range batch {
		if err != nil {
			r.done <- answer{err: unavailable(err)}
		} else {
			r.done <- answers[i]
		}
	}
}

// sparing runs something that needs space, and gives it slices of the reserve while it meets a full disk.
func (a *appender) sparing(do func() error) error {
	for {
		err := do()
		if !full(err) {
			return err
		}
		if released := a.reserve.release(); released != nil {
			return errors.Join(err, released)
		}
	}
}

// commit writes requests with one write and one sync and returns the answer to each. After an error the numbers are free
// again, and the file is as it was, or dirty.
func (a *appender) commit(batch []request) ([]answer, error) {
	began := a.log.options.Now()
	answers, err := a.tryCommit(batch)
	var records []Record
	for _, done := range answers {
		records = append(records, done.records...)
	}
	a.log.options.Observe(records, a.log.options.Now().Sub(began), err)
	return answers, err
}

func (a *appender) tryCommit(batch []request) ([]answer, error) {
	if err := a.mend(); err != nil {
		return nil, err
	}
	if a.segment == nil || a.size >= a.log.options.SegmentBytes {
		if err := a.begin(); err != nil {
			return nil, err
		}
	}
	lines, answers := a.encode(batch)
	if err := a.put(lines); err != nil {
		// Taking it back at once keeps what was refused from being found, after a crash, as if it had been done.
		a.dirty = true
		return nil, errors.Join(err, a.mend())
	}
	a.size += int64(len(lines))
	for _, done := range answers {
		a.next += uint64(len(done.records))
	}
	return answers, nil
}

// put makes lines the durable end of the segment. An empty batch still asks the disk: that is how the log heals unasked.
func (a *appender) put(lines []byte) error {
	if _, err := a.segment.WriteAt(lines, a.size); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := a.segment.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// encode gives records their place in the log. A request that cannot be encoded takes no number and fails alone.
func (a *appender) encode(batch []request) ([]byte, []answer) {
	var lines []byte
	answers := make([]answer, len(batch))
	// One time for the batch: its records get on disk together, and their order is that of the numbers.
	at := a.log.options.Now().UTC().Truncate(time.Microsecond)
	next := a.next
	for i, r := range batch {
		begin := len(lines)
		for _, e := range r.events {
			record := Record{Sequence: next, Epoch: a.epoch, ID: rand.Text(), Node: a.log.options.Node, Time: at, Event: e}
			line, err := Line(record)
			if err != nil {
				next -= uint64(len(answers[i].records))
				lines, answers[i] = lines[:begin], answer{err: err}
				break
			}
			lines = append(lines, line...)
			answers[i].records = append(answers[i].records, record)
			next++
		}
	}
	return lines, answers
}

// begin starts a new segment. One that is there already and empty was begun just before a crash, or when the disk was full.
func (a *appender) begin() error {
	path := filepath.Join(a.log.options.Dir, segmentName(a.next))
	f, err := a.disk.Open(path)
	if err != nil {
		return fmt.Errorf("begin segment: %w", err)
	}
	if size, err := f.Size(); err != nil || size != 0 {
		return errors.Join(fmt.Errorf("begin segment %s: it has %d bytes already", path, size), err, f.Close())
	}
	if err := a.disk.SyncFolder(a.log.options.Dir); err != nil {
		return errors.Join(fmt.Errorf("begin segment: %w", err), f.Close())
	}
	if a.segment != nil {
		if err := a.segment.Close(); err != nil {
			a.log.options.Logger.Warn("close audit segment", "error", err) // it was synced: nothing is lost
		}
	}
	a.segment, a.size = f, 0
	return nil
}

// mend takes back what a failed write left behind. After a failed fsync the kernel may call pages clean that never reached
// the disk, so they are cut and written anew, never just synced again.
func (a *appender) mend() error {
	if !a.dirty {
		return nil
	}
	if err := a.segment.Truncate(a.size); err != nil {
		return fmt.Errorf("take back a failed write: %w", err)
	}
	if err := a.segment.Sync(); err != nil {
		return fmt.Errorf("take back a failed write: %w", err)
	}
	a.dirty = false
	return nil
}

// close lets go of the files. Everything in them that was acknowledged is on disk already.
func (a *appender) close() error {
	var err error
	if a.segment != nil {
		err = a.segment.Close()
	}
	return errors.Join(err, a.reserve.close())
}

// full reports whether an error says that there is no space left, for us or at all.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
