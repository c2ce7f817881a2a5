package artefacts_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gatehouse/store/storetest"
)

// checkStack starts what the Compose file starts, without the containers: its Redis, and the program with the gateway's environment.
// Then it asks what the health check asks.
func checkStack(t *testing.T, program string) {
	c, dir := readCompose(t), makeSecrets(t)
	store := startRedis(t, c, dir)
	port := storetest.FreePort(t)
	write(t, filepath.Join(dir, "store.here"), store)
	environ := gatewayEnvironment(t, c, dir)
	maps.Copy(environ, map[string]string{ // where container and machine differ
		"GATEHOUSE_STORE_FILE": filepath.Join(dir, "store.here"),
		"GATEHOUSE_LISTEN":     "127.0.0.1:" + port,
		"GATEHOUSE_DATA":       filepath.Join(dir, "data"),
	})
	var variables []string
	for name, value := range environ {
		variables = append(variables, name+"="+value)
	}
	var out bytes.Buffer
	d := readDockerfile(t)
	gateway := exec.Command(program, d.exec(t, "CMD")...)
	gateway.Dir, gateway.Env, gateway.Stdout, gateway.Stderr = dir, variables, &out, &out
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- gateway.Wait() }()
	t.Cleanup(func() {
		_ = gateway.Process.Kill() // an error means that it has ended
		<-ended
		if t.Failed() {
			t.Logf("the gateway says:\n%s", out.String())
		}
	})

	for _, probe := range [][]string{d.exec(t, "HEALTHCHECK")[1:], c.Services["gateway"].Healthcheck.Test[2:]} {
		eventually(t, func() error {
			health := exec.CommandContext(t.Context(), program, probe...)
			health.Dir, health.Env = dir, variables
			if said, err := health.CombinedOutput(); err != nil {
				return fmt.Errorf("%q: %w: %s", probe, err, said)
			}
			return nil
		})
	}
	if status := signedOut(t, port); !slices.Contains([]int{http.StatusFound, http.StatusUnauthorized}, status) {
		t.Errorf("somebody who is not signed in gets %d", status)
	}
	if err := gateway.Process.Signal(syscall.SIGTERM); err != nil { // as docker stop
		t.Fatal(err)
	}
	err := <-ended
	ended <- err
	if err != nil {
		t.Errorf("stopped, the gateway ends with %v", err)
	}
	if files, err := os.ReadDir(dir); err != nil || !onlyOurs(files) {
		t.Errorf("the gateway wrote outside its volume: %v, %v", files, err)
	}
}

// signedOut asks for the app as somebody who is not signed in, under the name that the Compose file gives the gateway.
func signedOut(t *testing.T, port string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "localhost:8080"
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

// onlyOurs reports whether a folder holds what the test put there and the data folder, and nothing else: in the container the rest is
// read-only.
func onlyOurs(files []os.DirEntry) bool {
	return !slices.ContainsFunc(files, func(f os.DirEntry) bool {
		return !strings.HasPrefix(f.Name(), "store.") && f.Name() != "data" && f.Name() != ".secrets"
	})
}
