package main

import (
	"net"
	"strings"
)

// notifier tells the service manager what the gateway does (sd_notify(3)). The zero notifier tells nobody.
type notifier struct{ socket string }

// newNotifier finds the socket in the environment, where a service manager put one.
func newNotifier(environ []string) notifier {
	for _, entry := range environ {
		if socket, ok := strings.CutPrefix(entry, "NOTIFY_SOCKET="); ok {
			return notifier{socket}
		}
	}
	return notifier{}
}

// send sends one state, as in READY=1. It is a courtesy: what goes wrong changes nothing.
func (n notifier) send(state string) {
	if n.socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"}) // an @ in front is the abstract name space
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
