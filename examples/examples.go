// Package examples carries the descriptors of the demo functions, so that
// `baton init` can seed them as rows.
//
// The demo's module is not here: it is compiled during the build and embedded
// by cmd/baton. Each descriptor's "module" names it as demo.wasm; who seeds the
// rows puts the artifact's true place there.
package examples

import "embed"

// Demo holds demo/*.json: one descriptor per route, named by its function.
//
//go:embed demo/*.json
var Demo embed.FS
