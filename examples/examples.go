// Package examples carries functions as a user would write them: the
// descriptors of the demo functions, so that `baton init` can seed them as rows,
// and the folders that `baton new` writes.
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

// Starters holds starter/RUNTIME/...: a folder per runtime, with descriptor.json
// as its descriptor. In texts, {{name}} stands for the function's name. A name
// that ends in .txt is that of the file without it: a folder with a go.mod cannot
// be embedded, and Go files here would be packages of this module.
//
//go:embed starter
var Starters embed.FS
