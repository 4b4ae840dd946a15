package sys

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Guard tells whether memory was written outside of some pages of it, without a system call
// and at no cost to whoever writes elsewhere: those pages are read-only, and the first write to one of them
// makes all of the memory writable, says so, and goes on.
//
// It is for what the program itself does. A system call that writes to a protected page for the program
// fails with EFAULT: Open before it.
//
// One goroutine at a time protects, opens and closes a Guard.
type Guard struct {
	memory   []byte
	slot     *guardSlot
	mappings int64 // that it may have made, of guardMappings
}

// guardSlot is a Guard as the handler of SIGSEGV sees it, in guard_amd64.s. A slot is in use when size is
// not zero; size is written last, and taken back first.
type guardSlot struct {
	start, size uintptr
	open        uintptr // 1: all of it is writable
}

const (
	// guardsMax is how many guards there can be: the handler looks through all of them.
	guardsMax = 4096
	// guardMappingsMax is in how many mappings they can split their memory: a process may have 65,530.
	//
	// Source: Documentation/admin-guide/sysctl/vm.rst, max_map_count.
	guardMappingsMax = 32 << 10
)

var (
	guards [guardsMax]guardSlot // the handler reads it, up to guardsUsed
	// guardsUsed is how many slots were ever in use.
	guardsUsed uintptr
	// guardsNext is the handler of SIGSEGV for all other faults: Go's.
	//
	//lint:ignore U1000 guardTrap reads it
	guardsNext uintptr

	guardMappings atomic.Int64

	guardsMu   sync.Mutex
	guardsFree []*guardSlot // that were in use

	// guardsReady installs the handler, once in a process.
	guardsReady = sync.OnceValue(handleGuards)
)

// ErrNoGuard is that there is no (further) Guard to be had: on this processor, or because there are
// too many.
var ErrNoGuard = errors.New("no guard for memory")

// NewGuard makes a guard for memory, a mapping of its own for reading and writing that is not of Go's heap, and leaves
// it open. The caller closes it before it unmaps the memory.
func NewGuard(memory []byte) (*Guard, error) {
	if err := guardsReady(); err != nil {
		return nil, err
	}
	guardsMu.Lock()
	defer guardsMu.Unlock()
	var slot *guardSlot
	if n := len(guardsFree); n > 0 {
		slot = guardsFree[n-1]
		guardsFree = guardsFree[:n-1]
	} else if guardsUsed < guardsMax {
		slot = &guards[guardsUsed]
		atomic.AddUintptr(&guardsUsed, 1)
	} else {
		return nil, fmt.Errorf("%w: there are %d", ErrNoGuard, guardsMax)
	}
	atomic.StoreUintptr(&slot.open, 1)
	atomic.StoreUintptr(&slot.start, uintptr(unsafe.Pointer(unsafe.SliceData(memory))))
	atomic.StoreUintptr(&slot.size, uintptr(len(memory)))
	return &Guard{memory: memory, slot: slot}, nil
}

// Protect makes all of the memory read-only but writable: ranges of whole pages, ascending.
// When it fails the memory is open. ErrNoGuard: the process would have too many mappings.
//
// Source: mprotect(2).
func (g *Guard) Protect(writable []PageRange) error {
	if err := g.Open(); err != nil {
		return err
	}
	mappings := int64(2*len(writable) + 1)
	if guardMappings.Add(mappings-g.mappings) > guardMappingsMax {
		guardMappings.Add(-mappings)
		g.mappings = 0
		return fmt.Errorf("%w: %d mappings are enough", ErrNoGuard, guardMappingsMax)
	}
	g.mappings = mappings
	atomic.StoreUintptr(&g.slot.open, 0)
	at := 0
	for i := range len(writable) + 1 {
		end, next := len(g.memory), 0
		if i < len(writable) {
			end, next = writable[i].Start, writable[i].End
		}
		if at < end {
			if err := unix.Mprotect(g.memory[at:end], unix.PROT_READ); err != nil {
				return errors.Join(fmt.Errorf("protect %d bytes: %w", end-at, err), g.Open())
			}
		}
		at = next
	}
	return nil
}

// Open makes all of the memory writable, as a write to a protected page does.
func (g *Guard) Open() error {
	if atomic.LoadUintptr(&g.slot.open) != 0 {
		return nil
	}
	if err := unix.Mprotect(g.memory, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("open %d bytes: %w", len(g.memory), err)
	}
	atomic.StoreUintptr(&g.slot.open, 1)
	return nil
}

// Holds reports whether nothing was written outside of the pages that the last Protect left writable, since
// then. Hot.
func (g *Guard) Holds() bool { return atomic.LoadUintptr(&g.slot.open) == 0 }

// Close ends the guard, once; what is protected stays so.
func (g *Guard) Close() {
	guardsMu.Lock()
	defer guardsMu.Unlock()
	atomic.StoreUintptr(&g.slot.size, 0)
	guardMappings.Add(-g.mappings)
	guardsFree = append(guardsFree, g.slot)
	g.slot = nil
}

// handleGuards puts the handler of guarded memory before Go's.
//
// Source: rt_sigaction(2); struct kernel_sigaction in the kernel's include/linux/signal_types.h.
func handleGuards() error {
	handler := guardHandler()
	if handler == 0 {
		return fmt.Errorf("%w on this processor", ErrNoGuard)
	}
	var action struct{ handler, flags, restorer, mask uintptr }
	const sigsetSize = unsafe.Sizeof(action.mask)
	if _, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), 0, uintptr(unsafe.Pointer(&action)), sigsetSize, 0, 0); errno != 0 {
		return fmt.Errorf("%w: rt_sigaction: %w", ErrNoGuard, errno)
	}
	// The handler counts on the stack, the arguments and the mask of Go's.
	const needed = saSiginfo | saOnstack
	if action.flags&needed != needed || action.handler <= 1 {
		return fmt.Errorf("%w: SIGSEGV is not handled as Go does it", ErrNoGuard)
	}
	guardsNext = action.handler
	action.handler = handler
	if _, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), uintptr(unsafe.Pointer(&action)), 0, sigsetSize, 0, 0); errno != 0 {
		return fmt.Errorf("%w: rt_sigaction: %w", ErrNoGuard, errno)
	}
	return nil
}

// Flags of rt_sigaction(2).
//
// Source: include/uapi/asm-generic/signal-defs.h.
const (
	saSiginfo = 0x4
	saOnstack = 0x08000000
)
