package audit

import (
	"errors"
	"fmt"
)

// slice is how much of the reserve is set free at a time: little, because on a full disk others reach for it too.
const slice = 64 << 10

// errReserveSpent: nothing is left to set free.
var errReserveSpent = errors.New("reserve is used up")

// reserve is a file that only holds space. It belongs to the appender goroutine.
type reserve struct {
	file  file
	size  int64
	want  int64
	whole bool // all of want is allocated
}

// openReserve opens the file as it is. It is not called whole yet: its blocks are asked for again at each start, because a
// copy of the folder may have brought the size without the blocks.
func openReserve(d disk, path string, want int64) (reserve, error) {
	f, err := d.Open(path)
	if err != nil {
		return reserve{}, fmt.Errorf("open reserve: %w", err)
	}
	size, err := f.Size()
	if err != nil {
		return reserve{}, errors.Join(fmt.Errorf("open reserve: %w", err), f.Close())
	}
	return reserve{file: f, size: size, want: want}, nil
}

// refill makes the reserve whole if it is not. After an error it has what it had before.
func (r *reserve) refill() error {
	if r.whole {
		return nil
	}
	// All or nothing: while it is short only urgent records are written, and half a reserve would change nothing about that.
	err := r.file.Allocate(r.want)
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("refill reserve: %w", err), r.file.Truncate(r.size))
	}
	r.size, r.whole = r.want, true
	return nil
}

// release sets one slice free. The sync is what makes some file systems give the blocks to others.
func (r *reserve) release() error {
	if r.size == 0 {
		return errReserveSpent
	}
	r.whole = false
	size := max(0, r.size-slice)
	if err := errors.Join(r.file.Truncate(size), r.file.Sync()); err != nil {
		return fmt.Errorf("release reserve: %w", err)
	}
	r.size = size
	return nil
}

// close keeps the file: the space stays set aside while the gateway is away.
func (r *reserve) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
