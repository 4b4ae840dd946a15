package main

import (
	"os"
	"slices"
	"strings"

	"baton/control"
)

// isolation lists what confines functions in this release, and what the kernel
// would offer beside it.
func isolation() []control.Layer {
	offered := func(name string, yes bool) control.Layer {
		if yes {
			return control.Layer{Name: name, Detail: "available, and not used: only wasm functions run in this release"}
		}
		return control.Layer{Name: name, Detail: "not available on this machine"}
	}
	return []control.Layer{
		{Name: "wasm", Active: true, Detail: "each request in an instance of its own: its memory, its limits, no files, no network"},
		offered("landlock", slices.Contains(words("/sys/kernel/security/lsm", ","), "landlock")),
		offered("seccomp", len(words("/proc/sys/kernel/seccomp/actions_avail", " ")) > 0),
		offered("cgroup", len(words("/sys/fs/cgroup/cgroup.controllers", " ")) > 0),
	}
}

// words reads a list that the kernel shows; one that is not there is empty.
func words(name, separator string) []string {
	text, err := os.ReadFile(name)
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), separator)
}
