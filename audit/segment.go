package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A segment's name is the sequence of its first record, in as many digits as the largest one has, so that names sort.
const (
	segmentDigits = 20
	segmentSuffix = ".jsonl"
)

// segmentName is the inverse of what segments does with a name.
func segmentName(first uint64) string {
	return fmt.Sprintf("%0*d%s", segmentDigits, first, segmentSuffix)
}

// segment is one file of the log, as its name tells.
type segment struct {
	path  string
	first uint64 // sequence of its first record
}

// DamageError says where a log is not what this package wrote. It is never repaired unasked: what looks like an accident
// may be somebody who covers tracks.
type DamageError struct {
	File string
	Line int // from 1; 0 if the file as a whole is meant
	Why  string
}

// Error names the place, the damage, and what to do.
func (e *DamageError) Error() string {
	place := e.File
	if e.Line > 0 {
		place = fmt.Sprintf("%s, line %d", e.File, e.Line)
	}
	return fmt.Sprintf("audit log damaged: %s: %s; put the file back from a copy, or move the whole folder aside (and keep it) to begin a new log", place, e.Why)
}

// segments lists a log's segments in order. Other files of the folder are not its business.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, err
	}
	var list []segment
	for _, entry := range entries {
		digits, found := strings.CutSuffix(entry.Name(), segmentSuffix)
		if !found || len(digits) != segmentDigits {
			continue
		}
		first, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			continue
		}
		list = append(list, segment{path: filepath.Join(dir, entry.Name()), first: first})
	}
	return list, nil
}

// logEnd is where a log goes on.
type logEnd struct {
	path string // of the last segment; empty if there is none
	next uint64
	good int64 // bytes of whole lines in the last segment
	torn int64 // bytes behind them
}

// inspect checks a log as Open promises. The last segment that holds a record is read in full.
func inspect(dir string) (logEnd, error) {
	list, err := segments(dir)
	if err != nil || len(list) == 0 {
		return logEnd{next: 1}, err
	}
	if list[0].first != 1 {
		return logEnd{}, &DamageError{File: filepath.Join(dir, segmentName(1)), Why: "the first segment is missing"}
	}
	for i, s := range list[:len(list)-1] {
		last, err := s.last()
		if err != nil {
			return logEnd{}, err
		}
		if following := list[i+1]; last+1 != following.first {
			return logEnd{}, &DamageError{File: s.path, Why: fmt.Sprintf("it ends with record %d, but the next segment begins with %d", last, following.first)}
		}
	}
	// A segment that was begun just before a crash holds nothing to check, so the one before is read too.
	end, err := list[len(list)-1].scan()
	if err == nil && end.good == 0 && len(list) > 1 {
		_, err = list[len(list)-2].scan()
	}
	return end, err
}

// scan checks every line of a segment. Only a last line without its newline is not damage.
func (s segment) scan() (logEnd, error) {
	end := logEnd{path: s.path, next: s.first}
	number := 0
	err := s.eachLine(func(line []byte, whole bool) error {
		number++
		if !whole { // it was never acknowledged: its newline is written and synced with it
			end.torn = int64(len(line))
			return nil
		}
		sequence, found := sequenceOf(line)
		switch {
		case !found || !json.Valid(line):
			return &DamageError{File: s.path, Line: number, Why: "it is not a record"}
		case sequence != end.next:
			return &DamageError{File: s.path, Line: number, Why: fmt.Sprintf("it is record %d where %d belongs", sequence, end.next)}
		}
		end.next++
		end.good += int64(len(line))
		return nil
	})
	return end, err
}

// last returns the sequence of the last record, having looked at the first and the last line only.
func (s segment) last() (uint64, error) {
	// Two short reads, so that the start does not grow with the age of the log. They see a segment that was lost, renamed
	// or cut short, but not an edit in its middle.
	f, err := os.Open(s.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	head := make([]byte, min(info.Size(), 64))
	tail := make([]byte, min(info.Size(), MaxLine))
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if _, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if first, found := sequenceOf(head); !found || first != s.first {
		return 0, &DamageError{File: s.path, Line: 1, Why: fmt.Sprintf("it is not record %d", s.first)}
	}
	// Only the last segment may end in the middle of a line: the others were left in good order for the next one.
	line, whole := bytes.CutSuffix(tail, []byte("\n"))
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	sequence, found := sequenceOf(line)
	if !whole || !found || !json.Valid(line) {
		return 0, &DamageError{File: s.path, Why: "its last line is not a record"}
	}
	return sequence, nil
}

// eachLine calls fn with every line, its newline included. A last line without one has whole false.
func (s segment) eachLine(fn func(line []byte, whole bool) error) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	// bufio.ScanLines would hide whether the last line has its newline, and take a carriage return away.
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, 64<<10), MaxLine+1)
	lines.Split(func(data []byte, atEnd bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return i + 1, data[:i+1], nil
		}
		if atEnd && len(data) > 0 {
			return len(data), data, nil
		}
		return 0, nil, nil
	})
	for lines.Scan() {
		line := lines.Bytes()
		if err := fn(line, line[len(line)-1] == '\n'); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return &DamageError{File: s.path, Why: fmt.Sprintf("it has a line of over %d bytes", MaxLine)}
	}
	return lines.Err()
}

// sequenceOf reads the number with which every line begins.
func sequenceOf(line []byte) (uint64, bool) {
	rest, found := bytes.CutPrefix(line, []byte(`{"seq":`))
	digits, _, more := bytes.Cut(rest, []byte(","))
	if !found || !more || len(digits) > segmentDigits {
		return 0, false
	}
	sequence, err := strconv.ParseUint(string(digits), 10, 64)
	return sequence, err == nil
}

// keepTorn copies what is behind the good end of a segment into a new file beside it and returns that file's path.
func keepTorn(d disk, end logEnd) (string, error) {
	content, err := os.ReadFile(end.path)
	if err != nil {
		return "", err
	}
	path, err := freePath(end.path)
	if err != nil {
		return "", err
	}
	f, err := d.Open(path)
	if err != nil {
		return "", err
	}
	_, err = f.WriteAt(content[end.good:], 0)
	if err := errors.Join(err, f.Sync(), f.Close(), d.SyncFolder(filepath.Dir(path))); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}

// freePath is a name that no earlier torn line of the segment has.
func freePath(segmentPath string) (string, error) {
	for n := 1; ; n++ {
		path := fmt.Sprintf("%s.torn-%d", segmentPath, n)
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			return path, nil
		} else if err != nil {
			return "", err
		}
	}
}
