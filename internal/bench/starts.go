package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// settle is how long after its start a gateway is taken to be at rest.
const settle = 3 * time.Second

// starts measures how long a start takes and what a gateway at rest holds. The first start makes the keys; the others are those that
// are measured.
func (b *bench) starts(ctx context.Context) error {
	app, err := b.startSelf(ctx, "upstream")
	if err != nil {
		return err
	}
	var ready, resident []float64
	for round := range b.rounds + 1 {
		g, err := b.startGateway(ctx, "starts", app.url(""))
		if err != nil {
			return err
		}
		if round > 0 {
			ready = append(ready, milliseconds(g.toReady))
		}
		if round == 1 {
			time.Sleep(settle)
			used, err := g.use()
			if err != nil {
				return err
			}
			resident = append(resident, float64(used.resident)/1e6)
		}
		g.stop()
	}
	info, err := os.Stat(b.programs["gatehouse"])
	if err != nil {
		return err
	}
	b.report.most("start to ready, ms", 150, median(ready))
	b.report.most("resident at rest, MB", 30, median(resident))
	b.report.most("size of the program, MB", 30, float64(info.Size())/1e6)
	b.report.heading("Starts")
	b.report.text(fmt.Sprintf("Starts on a folder that is there, slowest of %d: %.0f ms.", len(ready), ready[len(ready)-1]))
	return nil
}
