package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// bench is one run of everything.
type bench struct {
	program string // path of gatehouse
	rounds  int
	length  time.Duration // of one run of wrk
	only    string

	dir      string // everything that is written, removed at the end
	script   string // for wrk
	self     string // path of this program, which is also the floor and the app
	programs map[string]string
	running  []*process // of this part
	report   report

	floorCPU, gatewayCPU float64 // of an authenticated request, in µs; 0 if that was not measured
}

// parts are what is measured, in the order of the document.
var parts = []struct {
	name    string
	measure func(*bench, context.Context) error
}{
	{"proxied", (*bench).proxied}, {"flood", (*bench).flood}, {"logins", (*bench).logins}, {"start", (*bench).starts}, {"micro", (*bench).micro},
}

func (b *bench) run(ctx context.Context) (err error) {
	if err := b.prepare(); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	known := false
	for _, part := range parts {
		if b.only != "" && b.only != part.name {
			continue
		}
		known = true
		log.Printf("measuring: %s", part.name)
		// What a part starts ends with it.
		within, end := context.WithCancel(ctx)
		err := part.measure(b, within)
		end()
		for _, p := range b.running {
			<-p.ended
		}
		b.running = nil
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if !known {
		return fmt.Errorf("no part is called %q", b.only)
	}
	return nil
}

// prepare finds the programs and makes the folder.
func (b *bench) prepare() (err error) {
	b.programs = map[string]string{}
	var missing []string
	for program := range packages {
		if b.programs[program], err = find(program); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if b.programs["gatehouse"], err = filepath.Abs(b.program); err != nil {
		return err
	}
	if _, err := os.Stat(b.programs["gatehouse"]); err != nil {
		missing = append(missing, fmt.Sprintf("%s is not there: make build", b.program))
	}
	if len(missing) > 0 {
		return fmt.Errorf("cannot measure:\n%s", strings.Join(missing, "\n"))
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "gatehouse-bench"); err != nil {
		return err
	}
	b.script = filepath.Join(b.dir, "report.lua")
	return os.WriteFile(b.script, []byte(reportScript), 0o600)
}

// startSelf runs one of this program's own servers on a free address.
func (b *bench) startSelf(ctx context.Context, name string, arguments ...string) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	return b.start(ctx, name, address, nil, append([]string{b.self, name, address}, arguments...)...)
}

func (p *process) url(path string) string { return "http://" + p.address + path }
