package wasm

import (
	"fmt"

	"baton/runtime/wasm/prepare"

	"github.com/tetratelabs/wazero/experimental"
)

// A command whose descriptor says "freeze" is run up to its first read of
// stdin once, and every invocation starts there: from an image of the memory at
// that point and from wazero's snapshot of the machine stack. What the program
// did before (read its environment and arguments, seed its random
// numbers, read the clock) is the same for all of them.
//
// wazero runs on the saved stack itself, so that a snapshot can be restored
// only once: the frozen call therefore returns Again, which makes the prepared
// module call fd_read once more with the same arguments, and the first thing
// that does is to take the next snapshot.

// freeze takes the snapshot, and at the first time the image, inside fd_read.
func (in *instance) freeze() {
	if in.snapshot == nil {
		if err := in.freezeImage(); err != nil {
			in.freezes, in.dirty = false, true // serve this request and be thrown away
			return
		}
	}
	if !in.resumed {
		in.snapshot = experimental.GetSnapshotter(in.calling).Snapshot()
		in.hook()
		in.resumed = true
	}
}

// freezeImage keeps the memory and the globals as they are.
func (in *instance) freezeImage() error {
	if in.memory == nil || in.tainted.Get() != 0 || in.dirty || in.closed != 0 {
		return fmt.Errorf("state that cannot be put back")
	}
	im, err := in.memory.snapshot()
	if err != nil {
		return err
	}
	if err := in.memory.adopt(im); err != nil {
		im.close()
		return err
	}
	in.own = im
	if _, err := in.module.ExportedFunction(prepare.Save).Call(in); err != nil {
		return err
	}
	return nil
}
