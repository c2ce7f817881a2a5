package audit_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"gatehouse/audit"
)

// The two that performance.md compares: records a second of 32 writers, and of a bare file that is appended to and synced.

func BenchmarkLog_thirtyTwoWriters(b *testing.B) {
	l := mustOpen(b, options(folder(b)))
	b.ResetTimer()
	var wait sync.WaitGroup
	todo := make(chan struct{}, 1024)
	for range 32 {
		wait.Go(func() {
			for range todo {
				if _, err := l.Append(b.Context(), login()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		todo <- struct{}{}
	}
	close(todo)
	wait.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkLog_oneWriter(b *testing.B) {
	l := mustOpen(b, options(folder(b)))
	for b.Loop() {
		mustAppend(b, l, login())
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkFile_loneAppendAndSync(b *testing.B) {
	line, err := audit.Line(audit.Record{Event: login()})
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		if _, err := f.Write(line); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// The check at the start, of a last segment that is as full as it gets.
func BenchmarkOpen(b *testing.B) {
	dir := folder(b)
	mustClose(b, mustOpen(b, options(dir)))
	f, err := os.Create(filepath.Join(dir, "00000000000000000001.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	size := 0
	for sequence := uint64(1); size < audit.DefaultSegmentBytes; sequence++ {
		line, err := audit.Line(audit.Record{Sequence: sequence, Epoch: rand.Text(), ID: rand.Text(), Node: "gate-1", Time: noon, Event: login()})
		if err != nil {
			b.Fatal(err)
		}
		n, err := f.Write(line)
		if err != nil {
			b.Fatal(err)
		}
		size += n
	}
	for b.Loop() {
		mustClose(b, mustOpen(b, options(dir)))
	}
}
