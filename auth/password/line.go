package password

import (
	"container/list"
	"slices"
)

// line is one waiting line of a pool: those of known devices have one, strangers another. It is fair by who comes: workers take from
// the groups of a line in turn, and when it is full somebody of whom there is nobody yet takes the place of the last who came of the largest
// group. So a crowd from few addresses keeps nobody out, and one from many is not many for each. Guarded by the pool's mu.
type line struct {
	places int // that never had a worker
	groups map[string]*group
	ready  *list.List // of groups with jobs, in the order of their turns
}

// group is the places of one address, or of one owner of known devices, in the order in which they came.
type group struct {
	places []*Place // that never had a worker
	jobs   []*job   // that wait for a worker
	turn   *list.Element
}

func newLine() *line { return &line{groups: map[string]*group{}, ready: list.New()} }

// room reports whether somebody of a group finds a place among most, and of whom it would be if there is no free one.
func (l *line) room(name string, most int) (free bool, instead *Place) {
	if l.places < most {
		return true, nil
	}
	mine := 0
	if g := l.groups[name]; g != nil {
		mine = len(g.places)
	}
	var largest *group
	for _, g := range l.groups {
		if largest == nil || len(g.places) > len(largest.places) {
			largest = g
		}
	}
	if largest == nil || len(largest.places) < mine+2 {
		return false, nil
	}
	return true, largest.places[len(largest.places)-1]
}

func (l *line) add(pl *Place) {
	g := l.groups[pl.who.group()]
	if g == nil {
		g = &group{}
		l.groups[pl.who.group()] = g
	}
	g.places = append(g.places, pl)
	l.places++
}

// remove takes a place out of the line, because it has a worker, gave up or gave way. Twice is once.
func (l *line) remove(pl *Place) {
	name := pl.who.group()
	g := l.groups[name]
	if g == nil {
		return
	}
	at := slices.Index(g.places, pl)
	if at < 0 {
		return
	}
	g.places = slices.Delete(g.places, at, at+1)
	l.places--
	g.jobs = slices.DeleteFunc(g.jobs, func(j *job) bool { return j.place == pl })
	if len(g.jobs) == 0 && g.turn != nil {
		l.ready.Remove(g.turn)
		g.turn = nil
	}
	if len(g.places) == 0 {
		delete(l.groups, name)
	}
}

// offer lets a job wait for a worker; false if its place is not in the line.
func (l *line) offer(j *job) bool {
	g := l.groups[j.place.who.group()]
	if g == nil || !slices.Contains(g.places, j.place) {
		return false
	}
	g.jobs = append(g.jobs, j)
	if g.turn == nil {
		g.turn = l.ready.PushBack(g)
	}
	return true
}

// next takes the job whose turn it is out of the line; nil if none waits.
func (l *line) next() *job {
	front := l.ready.Front()
	if front == nil {
		return nil
	}
	g := front.Value.(*group)
	j := g.jobs[0]
	l.ready.MoveToBack(front)
	l.remove(j.place)
	return j
}
