package configs

import (
	_ "embed"
	"slices"
)

// Both files are made from the types by `make generate`; TestReference_isMadeFromTheTypes holds them to it.
var (
	//go:embed gatehouse.yaml
	template []byte
	//go:embed gatehouse.schema.json
	schema []byte
)

// Template returns a configuration file in which every setting stands with its default, commented out and explained.
func Template() []byte { return slices.Clone(template) }

// Schema returns the JSON schema of the configuration file, for editors (JSON Schema 2020-12).
func Schema() []byte { return slices.Clone(schema) }
