package configs

import (
	_ "embed"
	"slices"
)

//go:embed haproxy/gatehouse.lua
var haproxyAction []byte

// HAProxyAction returns the Lua action by which HAProxy asks the gateway about a request.
func HAProxyAction() []byte { return slices.Clone(haproxyAction) }
