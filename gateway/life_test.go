package gateway_test

import (
	"slices"
	"testing"

	"gatehouse/audit"
	"gatehouse/internal/gatewaytest"
)

// An orderly end is on record, so that a start without one before it tells of a crash.
func TestGateway_recordsItsStartAndItsStop(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t, gatewaytest.Options{})
	g.Stop()
	var kinds []audit.Kind
	for _, r := range g.Records() {
		kinds = append(kinds, r.Kind)
	}
	if want := []audit.Kind{audit.KindStarted, audit.KindKeysCreated, audit.KindStopped}; !slices.Equal(kinds, want) {
		t.Errorf("got records %v, want %v", kinds, want)
	}
}
