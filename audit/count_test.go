package audit_test

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/audit"
)

func refused(address string) audit.Event {
	return audit.Event{Kind: audit.KindRefused, Outcome: audit.Denied, Client: audit.Client{Address: address}, Code: "rate-limited"}
}

func TestLog_countsEqualEventsAsOne(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		l, err := audit.Open(options(dir))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go l.Run(ctx)

		var wait sync.WaitGroup
		for i := range 50 {
			wait.Go(func() {
				e := refused("192.0.2.1")
				e.RequestID = fmt.Sprint(i)
				l.Count(e)
			})
		}
		wait.Wait()
		many := refused("192.0.2.2")
		many.Count = 30
		l.Count(many)
		time.Sleep(1100 * time.Millisecond)
		all := records(t, dir)
		if len(all) != 2 || all[0].Count != 50 || all[1].Count != 30 || all[0].Client.Address != "192.0.2.1" || all[0].RequestID != "" {
			t.Errorf("got %+v, want 50 of .1 and 30 of .2", all)
		}
		time.Sleep(5 * time.Second)
		if n := len(records(t, dir)); n != 2 {
			t.Errorf("got %d records, want no more while nothing is counted", n)
		}
	})
}

func TestLog_countsAFloodOfDifferentEventsExactly(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := mustOpen(t, options(dir))
	const events = 5000
	for i := range events {
		l.Count(refused(fmt.Sprintf("10.0.%d.%d", i/256, i%256)))
	}
	mustClose(t, l) // writes what was counted
	all := records(t, dir)
	var sum, other int64
	for _, r := range all {
		sum += r.Count
		if r.Details[audit.OtherDetail] != "" {
			other += r.Count
		}
	}
	if len(all) != 1001 || sum != events || other != events-1000 {
		t.Errorf("got %d records over %d events, %d of them other; want 1001, %d, %d", len(all), sum, other, events, events-1000)
	}
}

func TestLog_keepsCountingWhileTheDiskFails(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		disk := newTestDisk(1 << 30)
		l, err := audit.OpenOn(options(dir), disk)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go l.Run(ctx)
		disk.fail("sync", syscall.EIO)
		for range 10 {
			l.Count(refused("192.0.2.1"))
			time.Sleep(time.Second)
		}
		disk.fail("sync", nil)
		time.Sleep(2 * time.Second)
		if all := records(t, dir); len(all) != 1 || all[0].Count != 10 {
			t.Errorf("got %+v, want one record of 10", all)
		}
	})
}
