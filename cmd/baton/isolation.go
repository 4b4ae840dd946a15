package main

import (
	"baton/control"
	"baton/sandbox"
)

// isolation lists what confines functions on this machine, by a server that leaves some layers out.
func isolation(without []string) []control.Layer {
	layers := []control.Layer{
		{Name: "wasm", Active: true, Detail: "each request in an instance of its own: its memory, its limits, no files, no network"},
	}
	for _, l := range sandbox.Layers(without) {
		layers = append(layers, control.Layer{Name: l.Name, Active: l.Active, Detail: l.Detail})
	}
	return layers
}
