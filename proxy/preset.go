package proxy

import "fmt"

// Preset is a set of header names by which apps expect to learn who is there.
type Preset string

// The presets. The zero Preset is PresetRemote.
const (
	PresetRemote      Preset = "remote"         // Remote-User, as of Authelia and the contract
	PresetForwarded   Preset = "x-forwarded"    // X-Forwarded-User, as of oauth2-proxy's upstreams
	PresetAuthRequest Preset = "x-auth-request" // X-Auth-Request-User, as of oauth2-proxy behind nginx
	PresetXRemote     Preset = "x-remote"       // X-Remote-User
)

// identityNames are the headers that say who is there, as net/http spells them. An empty one is not set.
type identityNames struct{ user, account, name, email, groups string }

// all are the names that a preset has.
func (n identityNames) all() []string {
	all := make([]string, 0, 5)
	for _, name := range [...]string{n.user, n.account, n.name, n.email, n.groups} {
		if name != "" {
			all = append(all, name)
		}
	}
	return all
}

// names returns the headers of a preset. Those of oauth2-proxy have no place for a display name, and a second one for the user's.
func (p Preset) names() (identityNames, error) {
	switch p {
	case "", PresetRemote:
		return identityNames{user: "Remote-User", name: "Remote-Name", email: "Remote-Email", groups: "Remote-Groups"}, nil
	case PresetForwarded:
		return identityNames{
			user: "X-Forwarded-User", account: "X-Forwarded-Preferred-Username", email: "X-Forwarded-Email", groups: "X-Forwarded-Groups",
		}, nil
	case PresetAuthRequest:
		return identityNames{
			user: "X-Auth-Request-User", account: "X-Auth-Request-Preferred-Username", email: "X-Auth-Request-Email", groups: "X-Auth-Request-Groups",
		}, nil
	case PresetXRemote:
		return identityNames{user: "X-Remote-User", name: "X-Remote-Name", email: "X-Remote-Email", groups: "X-Remote-Groups"}, nil
	}
	return identityNames{}, fmt.Errorf("header preset %q is none of remote, x-forwarded, x-auth-request and x-remote", p)
}

// Headers are the names of a preset, and the assertion's, as they stand on the wire: what somebody who passes a decision on has to copy.
func (p Preset) Headers() []string {
	names, err := p.names()
	if err != nil {
		return nil
	}
	return append(names.all(), headerAssertion)
}
