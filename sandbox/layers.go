package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"baton/internal/sys"
)

// Layers tells which layers this machine gives to the children of this process, when it
// leaves out those named.
func Layers(without []string) []Layer {
	out := Spec{Without: without}
	root, spaces := os.Geteuid() == 0, namespacesAvailable() && !out.without(LayerRoot)
	missing := "not permitted here"
	if !root {
		missing = "only where baton runs as root"
	}
	abi := sys.LandlockABI()
	landlock := Layer{LayerLandlock, abi > 0, "not offered by this kernel"}
	if abi > 0 {
		landlock.Detail = fmt.Sprintf("version %d: files", abi)
		if abi >= 4 {
			landlock.Detail += ", TCP"
		}
		if abi >= 6 {
			landlock.Detail += ", abstract sockets, signals"
		}
	}
	either := func(name string, active bool, yes, no string) Layer {
		if active {
			return Layer{name, true, yes}
		}
		return Layer{name, false, no}
	}
	layers := []Layer{
		{LayerRlimits, true, "memory, processor time, descriptors, size of files, no core dumps"},
		{LayerPrivs, true, "no program gains rights"},
		landlock,
		either(LayerSeccomp, sys.SeccompAvailable(), "no mounts, tracing, kernel interfaces; no sockets or processes but those granted", "not offered by this kernel"),
		either(LayerUID, root && spaces, "each function, and each build, has a user of its own", missing),
		either(LayerPIDs, root && spaces, "a namespace: nothing outlives its first process", missing+"; process groups instead"),
		either(LayerRoot, root && spaces, "a root directory with nothing but what is granted", missing),
		either(LayerNetwork, root && spaces, "none but loopback unless granted", missing+"; seccomp instead"),
		{LayerCgroup, false, "not used: memory is bounded for each process by its address space"},
	}
	for i := range layers {
		if l := &layers[i]; out.without(l.Name) || out.without(LayerRoot) && spacesLayer(l.Name) {
			l.Active, l.Detail = false, "left out"
		}
	}
	return layers
}

// spacesLayer says whether a layer needs namespaces, which are there together or not at all.
func spacesLayer(name string) bool {
	return name == LayerUID || name == LayerPIDs || name == LayerRoot || name == LayerNetwork
}

// CheckLayers says whether all of these are layers that a child can do without.
func CheckLayers(without []string) error {
	known := []string{LayerRlimits, LayerSeccomp, LayerLandlock, LayerUID, LayerRoot}
	for _, name := range without {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no layer %q that can be left out: want one of %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// KeepsOffSockets says whether something keeps children from connecting to a
// Unix socket by its path that belongs to the user of this process: seccomp, or a root directory without it.
// Landlock does not.
func KeepsOffSockets(without []string) bool {
	out := Spec{Without: without}
	return sys.SeccompAvailable() && !out.without(LayerSeccomp) || out.namespaces()
}

// namespacesAvailable tells whether this process may start children in
// namespaces of their own. It starts a program that does not exist: the kernel
// makes the namespaces first, so that what is missing tells.
var namespacesAvailable = sync.OnceValue(func() bool {
	_, err := syscall.ForkExec("/nonexistent/baton", []string{"baton"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{Cloneflags: sys.NewPID | sys.NewNS | sys.NewIPC | sys.NewNet},
	})
	return errors.Is(err, syscall.ENOENT)
})
