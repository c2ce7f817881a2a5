package attacks_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/internal/gatewaytest"
)

// refusesFolder shows what an operator is told of a data folder that cannot be used (RD-12).
func refusesFolder(t *testing.T, program string) {
	first := gatewaytest.StartProcess(t, gatewaytest.ProcessOptions{Program: program})
	first.AddUser("alice")

	said := gatewaytest.NewProcess(t, gatewaytest.ProcessOptions{Program: program, Dir: first.Dir}).Refused()
	if !strings.Contains(said, "another process") {
		t.Errorf("a second gateway on the folder of a running one says: %s", said)
	}
	first.Kill()

	key := filepath.Join(first.Dir, "root.key")
	right, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, key, gatewaytest.RootKey())
	if said := gatewaytest.NewProcess(t, gatewaytest.ProcessOptions{Program: program, Dir: first.Dir}).Refused(); !strings.Contains(said, "root key") {
		t.Errorf("with another root key: %s", said)
	}
	write(t, key, string(right))

	database := filepath.Join(first.Dir, "gatehouse.db")
	whole, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string]string{
		"cut short":        string(whole[:2*os.Getpagesize()]),
		"zeros":            strings.Repeat("\x00", len(whole)),
		"both meta pages":  strings.Repeat("\xff", 2*os.Getpagesize()) + string(whole[2*os.Getpagesize():]),
		"all data pages":   string(whole[:2*os.Getpagesize()]) + strings.Repeat("\xff", len(whole)-2*os.Getpagesize()),
		"another document": "%PDF-1.7\n" + string(whole[9:]),
	} {
		write(t, database, damaged)
		said := gatewaytest.NewProcess(t, gatewaytest.ProcessOptions{Program: program, Dir: first.Dir}).Refused()
		if !strings.Contains(said, "gatehouse.db") || strings.Contains(said, "goroutine") {
			t.Errorf("with a store that is damaged (%s): %s", name, said)
		}
	}
	write(t, database, string(whole))
	first.Start() // as it was
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
