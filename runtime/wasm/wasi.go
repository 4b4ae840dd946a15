package wasm

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	goruntime "runtime"
	"slices"
	"time"

	"baton/internal/sys"
	"baton/runtime"
	"baton/runtime/wasm/prepare"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// Our own part of WASI preview 1: standard streams, environment, arguments,
// clocks, random numbers, sleep and exit, which must not allocate, must not
// close the module and must heed the deadline. Everything about files is
// wazero's. The prepare pass directs the imports: functions in redirected come
// from here; functions in split come here first and go on to wazero when the
// descriptor is not a standard stream.

func redirected() []string {
	return []string{"args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_time_get", "clock_res_get",
		"random_get", "proc_exit", "poll_oneoff", "sched_yield"}
}

func split() []string {
	return []string{"fd_read", "fd_write", "fd_close", "fd_fdstat_get", "fd_fdstat_set_flags", "fd_filestat_get",
		"fd_seek", "fd_tell", "fd_pread", "fd_pwrite", "fd_renumber", "fd_readdir", "path_open", "sock_shutdown"}
}

// Errors of WASI preview 1. Source: its witx, typename errno.
const (
	errnoSuccess = 0
	errnoBadf    = 8
	errnoFault   = 21
	errnoInval   = 28
	errnoIO      = 29
	errnoNotsock = 57
	errnoNotsup  = 58
	errnoSpipe   = 70
)

// iovecsMax bounds one scattered read or write (IOV_MAX of Linux).
const iovecsMax = 1024

// randomMax bounds the bytes of one random_get: crypto/rand makes some
// 500 MB a second, so that this takes about half a millisecond.
const randomMax = 256 << 10

type hostFunction struct {
	name            string
	params, results string // i: i32, I: i64
	f               func(in *instance, stack []uint64)
}

// errno wraps a function that returns an error number.
func errno(f func(in *instance, s []uint64) uint32) func(*instance, []uint64) {
	return func(in *instance, s []uint64) { s[0] = uint64(f(in, s)) }
}

func hostFunctions() []hostFunction {
	return []hostFunction{
		{prepare.Check, "", "", func(in *instance, _ []uint64) { in.check() }},
		{prepare.Enter, "", "i", func(in *instance, s []uint64) { in.enter(); s[0] = 0 }},
		{"args_sizes_get", "ii", "i", errno(argsSizesGet)},
		{"args_get", "ii", "i", errno(argsGet)},
		{"environ_sizes_get", "ii", "i", errno(environSizesGet)},
		{"environ_get", "ii", "i", errno(environGet)},
		{"clock_time_get", "iIi", "i", errno(clockTimeGet)},
		{"clock_res_get", "ii", "i", errno(clockResGet)},
		{"random_get", "ii", "i", errno(randomGet)},
		{"proc_exit", "i", "", func(in *instance, s []uint64) { in.exit(int32(s[0])) }},
		{"poll_oneoff", "iiii", "i", errno(pollOneoff)},
		{"sched_yield", "", "i", func(in *instance, s []uint64) { in.check(); s[0] = errnoSuccess }},
		{"fd_read", "iiii", "i", errno(fdRead)},
		{"fd_write", "iiii", "i", errno(fdWrite)},
		{"fd_close", "i", "i", errno(fdClose)},
		{"fd_fdstat_get", "ii", "i", errno(fdFdstatGet)},
		{"fd_fdstat_set_flags", "ii", "i", errno(func(in *instance, s []uint64) uint32 { return in.stream(s[0], errnoSuccess) })},
		{"fd_filestat_get", "ii", "i", errno(fdFilestatGet)},
		{"fd_seek", "iIii", "i", errno(func(in *instance, s []uint64) uint32 { return in.stream(s[0], errnoSpipe) })},
		{"fd_tell", "ii", "i", errno(func(in *instance, s []uint64) uint32 { return in.stream(s[0], errnoSpipe) })},
		{"fd_pread", "iiiIi", "i", errno(func(in *instance, s []uint64) uint32 { return in.stream(s[0], errnoSpipe) })},
		{"fd_pwrite", "iiiIi", "i", errno(func(in *instance, s []uint64) uint32 { return in.stream(s[0], errnoSpipe) })},
		{"fd_renumber", "ii", "i", errno(func(in *instance, s []uint64) uint32 {
			if uint32(s[0]) <= 2 || uint32(s[1]) <= 2 {
				return errnoNotsup
			}
			in.touchFiles()
			return prepare.NotMine
		})},
		{"fd_readdir", "iiiIi", "i", errno(func(in *instance, s []uint64) uint32 {
			in.touchFiles()
			return in.stream(s[0], errnoBadf)
		})},
		{"sock_shutdown", "ii", "i", errno(func(in *instance, s []uint64) uint32 { return in.stream(s[0], errnoNotsock) })},
		{"path_open", "iiiiiIIii", "i", errno(func(in *instance, _ []uint64) uint32 {
			in.touchFiles()
			return prepare.NotMine
		})},
	}
}

// instantiateHost makes both host modules in rt.
func instantiateHost(ctx context.Context, rt wazero.Runtime) error {
	b := rt.NewHostModuleBuilder(prepare.HostModule)
	types := func(s string) []api.ValueType {
		t := make([]api.ValueType, len(s))
		for i, c := range s {
			t[i] = api.ValueTypeI32
			if c == 'I' {
				t[i] = api.ValueTypeI64
			}
		}
		return t
	}
	for _, h := range hostFunctions() {
		f := h.f
		b = b.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) {
			in, ok := ctx.(*instance)
			if !ok { // wazero's snapshots are enabled
				in = instanceOf(ctx)
				in.calling = ctx
			}
			f(in, stack)
		}), types(h.params), types(h.results)).Export(h.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return err
	}
	_, err := wasi_snapshot_preview1.Instantiate(ctx, rt)
	return err
}

// view returns n bytes of the module's memory at offset, which die with the
// next growth; ok is false when they are not all there.
func (in *instance) view(offset, n uint64) (b []byte, ok bool) {
	offset &= 1<<32 - 1
	if in.memory == nil || offset+n > uint64(in.memory.length) {
		return nil, false
	}
	return in.memory.region[offset : offset+n : offset+n], true
}

func (in *instance) put32(offset uint64, v uint32) uint32 {
	b, ok := in.view(offset, 4)
	if !ok {
		return errnoFault
	}
	binary.LittleEndian.PutUint32(b, v)
	return errnoSuccess
}

func (in *instance) put64(offset uint64, v uint64) uint32 {
	b, ok := in.view(offset, 8)
	if !ok {
		return errnoFault
	}
	binary.LittleEndian.PutUint64(b, v)
	return errnoSuccess
}

// stream answers answer for an open standard stream and leaves other
// descriptors to wazero.
func (in *instance) stream(fd uint64, answer uint32) uint32 {
	switch n := uint32(fd); {
	case n > 2:
		return prepare.NotMine
	case in.closed&(1<<n) != 0:
		return errnoBadf
	default:
		return answer
	}
}

func argsSizesGet(in *instance, s []uint64) uint32 {
	count, size := uint32(1), uint32(len(in.function.Name)+1)
	if h := in.function.Handler; h != "" {
		count, size = 2, size+uint32(len(h)+1)
	}
	if e := in.put32(s[0], count); e != errnoSuccess {
		return e
	}
	return in.put32(s[1], size)
}

func argsGet(in *instance, s []uint64) uint32 {
	in.scratch = append(append(in.scratch[:0], in.function.Name...), 0)
	count := 1
	if h := in.function.Handler; h != "" {
		in.scratch = append(append(in.scratch, h...), 0)
		count = 2
	}
	dst, ok := in.view(s[1], uint64(len(in.scratch)))
	starts, there := in.view(s[0], uint64(count)*4)
	if !ok || !there {
		return errnoFault
	}
	copy(dst, in.scratch)
	at := uint32(s[1])
	starts = putStart(starts, at)
	if count == 2 {
		putStart(starts, at+uint32(len(in.function.Name))+1)
	}
	return errnoSuccess
}

// putStart writes where a string begins into a table of strings, and returns the rest of it.
func putStart(table []byte, at uint32) []byte {
	binary.LittleEndian.PutUint32(table, at)
	return table[4:]
}

// environSizes returns how many variables there are, and their bytes with a NUL behind each.
func (in *instance) environSizes() (count, size int) {
	for _, kv := range in.function.Env {
		count++
		size += len(kv) + 1
	}
	if h := in.function.Handler; h != "" {
		count++
		size += len("_HANDLER=") + len(h) + 1
	}
	if in.inv.Env != nil {
		c, n := in.inv.Env.Sizes()
		count, size = count+c, size+n
	}
	return count, size
}

func environSizesGet(in *instance, s []uint64) uint32 {
	count, size := in.environSizes()
	if e := in.put32(s[0], uint32(count)); e != errnoSuccess {
		return e
	}
	return in.put32(s[1], uint32(size))
}

func environGet(in *instance, s []uint64) uint32 {
	count, size := in.environSizes()
	dst, ok := in.view(s[1], uint64(size))
	starts, there := in.view(s[0], uint64(count)*4)
	if !ok || !there {
		return errnoFault
	}
	at := uint32(s[1])
	text := dst[:0] // which has room for all
	for _, kv := range in.function.Env {
		starts = putStart(starts, at+uint32(len(text)))
		text = append(append(text, kv...), 0)
	}
	if h := in.function.Handler; h != "" {
		starts = putStart(starts, at+uint32(len(text)))
		text = append(append(append(text, "_HANDLER="...), h...), 0)
	}
	if env := in.inv.Env; env != nil {
		own := env.Starts()
		if len(own)*4 != len(starts) {
			return errnoIO // the variables are not those whose sizes were asked for
		}
		for _, start := range own {
			starts = putStart(starts, at+uint32(len(text))+start)
		}
		text = env.AppendTo(text)
	}
	if len(text) != size {
		return errnoIO
	}
	return errnoSuccess
}

// Clocks of WASI preview 1 that exist here.
const (
	clockRealtime  = 0
	clockMonotonic = 1
)

func (in *instance) clock(id uint64) (uint64, bool) {
	switch uint32(id) {
	case clockRealtime:
		return uint64(time.Now().UnixNano()), true
	case clockMonotonic:
		// Since the executor began: an image made early sees time go on.
		return uint64(time.Since(in.pool.executor.started)), true
	}
	return 0, false
}

func clockTimeGet(in *instance, s []uint64) uint32 {
	t, ok := in.clock(s[0])
	if !ok {
		return errnoInval
	}
	return in.put64(s[2], t)
}

func clockResGet(in *instance, s []uint64) uint32 {
	if uint32(s[0]) > clockMonotonic {
		return errnoInval
	}
	return in.put64(s[1], 1)
}

func randomGet(in *instance, s []uint64) uint32 {
	at, n := s[0]&(1<<32-1), s[1]&(1<<32-1)
	for n > 0 {
		piece := min(n, randomMax)
		b, ok := in.view(at, piece)
		if !ok {
			return errnoFault
		}
		for len(b) > 0 { // not at once: the kernel may write them, and memory may be guarded
			n := min(len(b), sys.PageSize)
			in.scratch = slices.Grow(in.scratch[:0], n)[:n]
			if _, err := rand.Read(in.scratch); err != nil {
				return errnoIO
			}
			b = b[copy(b, in.scratch):]
		}
		if at, n = at+piece, n-piece; n > 0 {
			in.check()
		}
	}
	return errnoSuccess
}

// iovec returns the i-th buffer of a scattered read or write.
func (in *instance) iovec(iovs uint64, i uint64) ([]byte, bool) {
	v, ok := in.view((iovs&(1<<32-1))+i*8, 8)
	if !ok {
		return nil, false
	}
	return in.view(uint64(binary.LittleEndian.Uint32(v)), uint64(binary.LittleEndian.Uint32(v[4:])))
}

func fdRead(in *instance, s []uint64) uint32 {
	fd, iovs, count, result := uint32(s[0]), s[1], s[2]&(1<<32-1), s[3]
	if e := in.stream(s[0], errnoSuccess); e != errnoSuccess {
		return e
	}
	if fd != 0 {
		return errnoBadf
	}
	if count > iovecsMax {
		return errnoInval
	}
	if in.freezes {
		in.freeze()
	}
	total := 0
	for i := range count {
		b, ok := in.iovec(iovs, i)
		if !ok {
			return errnoFault
		}
		n, full := in.read(b)
		total += n
		if !full {
			break
		}
	}
	return in.put32(result, uint32(total))
}

// read fills b with what comes next of the body: what is in memory first; it
// blocks only when nothing is. full is false when b was not filled, so that
// the buffers after b must wait.
func (in *instance) read(b []byte) (n int, full bool) {
	if len(b) == 0 {
		return 0, true
	}
	if in.read0 < len(in.inv.Body) {
		n = copy(b, in.inv.Body[in.read0:])
		in.read0 += n
		return n, n == len(b)
	}
	if in.inv.More == nil || in.eof {
		return 0, false
	}
	in.check()
	if err := in.memory.open(); err != nil { // More may have the kernel write to b
		in.end(runtime.Result{Reason: runtime.Unavailable, Detail: err.Error()})
	}
	for range 100 {
		n, err := in.inv.More.Read(b)
		if errors.Is(err, io.EOF) {
			in.eof = true
			return n, false
		}
		if n > 0 {
			in.check()
			return n, false
		}
		if err != nil {
			in.end(runtime.Result{Reason: runtime.Cancelled, Detail: err.Error()})
		}
	}
	in.end(runtime.Result{Reason: runtime.Cancelled, Detail: io.ErrNoProgress.Error()})
	return 0, false
}

func fdWrite(in *instance, s []uint64) uint32 {
	fd, iovs, count, result := uint32(s[0]), s[1], s[2]&(1<<32-1), s[3]
	if e := in.stream(s[0], errnoSuccess); e != errnoSuccess {
		return e
	}
	if fd == 0 {
		return errnoBadf
	}
	if count > iovecsMax {
		return errnoInval
	}
	w := in.inv.Stdout
	if fd == 2 {
		w = in.inv.Stderr
	}
	total := 0
	for i := range count {
		b, ok := in.iovec(iovs, i)
		if !ok {
			return errnoFault
		}
		total += len(b)
		if w == nil || len(b) == 0 {
			continue
		}
		if _, err := w.Write(b); err != nil && fd == 1 {
			reason := runtime.Cancelled
			if errors.Is(err, runtime.ErrOutputLimit) {
				reason = runtime.OutputLimit
			}
			in.end(runtime.Result{Reason: reason, Detail: err.Error()})
		}
	}
	return in.put32(result, uint32(total))
}

func fdClose(in *instance, s []uint64) uint32 {
	e := in.stream(s[0], errnoSuccess)
	switch e {
	case errnoSuccess:
		in.closed |= 1 << uint32(s[0])
	case prepare.NotMine:
		in.touchFiles()
	}
	return e
}

// fdFdstatGet describes a standard stream: a character device would make C
// libraries flush at every line, so it is of unknown type, as a pipe is.
//
// Source: witx, record fdstat: filetype u8, flags u16 at 2, rights u64 at 8 and 16.
func fdFdstatGet(in *instance, s []uint64) uint32 {
	if e := in.stream(s[0], errnoSuccess); e != errnoSuccess {
		return e
	}
	b, ok := in.view(s[1], 24)
	if !ok {
		return errnoFault
	}
	const rightRead, rightWrite, rightPoll = 1 << 1, 1 << 6, 1 << 27
	clear(b)
	rights := uint64(rightRead | rightPoll)
	if uint32(s[0]) != 0 {
		rights = rightWrite | rightPoll
	}
	binary.LittleEndian.PutUint64(b[8:], rights)
	return errnoSuccess
}

// Source: witx, record filestat, 64 bytes; nothing but the number of links is known.
func fdFilestatGet(in *instance, s []uint64) uint32 {
	if e := in.stream(s[0], errnoSuccess); e != errnoSuccess {
		return e
	}
	b, ok := in.view(s[1], 64)
	if !ok {
		return errnoFault
	}
	clear(b)
	b[24] = 1
	return errnoSuccess
}

// subscriptionsMax bounds one poll_oneoff.
const subscriptionsMax = 1024

// pollOneoff waits for clocks. Descriptors are ready at once: a read of the
// body blocks by itself.
//
// Source: witx, records subscription (48 bytes: userdata, tag at 8, contents
// at 16) and event (32 bytes: userdata, error at 8, type at 10, nbytes at 16).
func pollOneoff(in *instance, s []uint64) uint32 {
	const tagClock, tagRead, tagWrite = 0, 1, 2
	n := s[2] & (1<<32 - 1)
	if n == 0 || n > subscriptionsMax {
		return errnoInval
	}
	subs, ok := in.view(s[0], n*48)
	if !ok {
		return errnoFault
	}
	events, ok := in.view(s[1], n*32)
	if !ok {
		return errnoFault
	}
	// How long until subscription i is due, as seen before waiting.
	due := func(sub []byte) (time.Duration, bool) {
		if sub[8] != tagClock {
			return 0, true
		}
		timeout := min(binary.LittleEndian.Uint64(sub[24:]), 1<<62)
		if binary.LittleEndian.Uint16(sub[40:])&1 == 0 {
			return time.Duration(timeout), true
		}
		now, ok := in.clock(uint64(binary.LittleEndian.Uint32(sub[16:])))
		return time.Duration(max(0, int64(timeout)-int64(now))), ok
	}
	wait := time.Duration(1 << 62)
	for i := range n {
		sub := subs[i*48 : i*48+48]
		if sub[8] > tagWrite {
			return errnoInval
		}
		d, ok := due(sub)
		if !ok {
			return errnoInval
		}
		wait = min(wait, d)
	}
	in.sleep(wait)
	count := uint32(0)
	for i := range n {
		sub := subs[i*48 : i*48+48]
		userdata, tag := binary.LittleEndian.Uint64(sub), sub[8]
		fd := uint64(binary.LittleEndian.Uint32(sub[16:]))
		d, _ := due(sub)
		if absolute := tag == tagClock && binary.LittleEndian.Uint16(sub[40:])&1 != 0; absolute && d > 0 || !absolute && d > wait {
			continue
		}
		event := events[count*32 : count*32+32]
		clear(event)
		binary.LittleEndian.PutUint64(event, userdata)
		event[10] = tag
		if tag != tagClock {
			e := in.stream(fd, errnoSuccess)
			if e == prepare.NotMine {
				e = errnoBadf
				if in.pool.key.files != "" {
					e = errnoSuccess // a file is always ready
				}
			}
			event[8] = byte(e)
			if tag == tagRead && fd == 0 {
				binary.LittleEndian.PutUint64(event[16:], uint64(len(in.inv.Body)-in.read0))
			}
		}
		count++
	}
	return in.put32(s[3], count)
}

// sleep blocks for d, but not past the deadline, and looks for cancellation
// every few milliseconds.
func (in *instance) sleep(d time.Duration) {
	if d <= 0 {
		in.check()
		return
	}
	in.promote()
	until := time.Now().Add(d)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		in.check()
		now := time.Now()
		left := until.Sub(now)
		if left <= 0 {
			return
		}
		timer.Reset(min(left, max(in.deadline.Sub(now), 0), sleepStep))
		<-timer.C
	}
}

// sleepStep is how often a sleeping invocation looks whether it was cancelled.
const sleepStep = 5 * time.Millisecond

// check is what prepared code calls when its fuel is used up, and what host
// functions call where they may take long: it looks at the clock, ends the
// invocation, takes it off the event loop, or lets others run.
func (in *instance) check() {
	now := time.Now()
	if in.started.IsZero() {
		in.start(now)
	}
	if c := in.inv.Cancel; c != nil && c.Load() {
		in.end(runtime.Result{Reason: runtime.Cancelled, Detail: "cancelled while running"})
	}
	if !now.Before(in.deadline) {
		in.end(runtime.Result{Reason: runtime.Timeout, Detail: "deadline passed while running"})
	}
	// Aim at checkTarget between two checks; never more fuel than the
	// bound, and at most twice as much as last time, so that code that turns slow is found out soon.
	if !in.checked.IsZero() {
		took := max(uint64(now.Sub(in.checked)), 1)
		in.refill = max(min(in.refill*uint64(checkTarget)/took, 2*in.refill, prepare.FuelRefill), fuelMin)
	}
	in.fuel.Set(in.refill)
	if in.inv.Promote == nil || in.promoted {
		goruntime.Gosched()
		now = time.Now()
	} else if now.Sub(in.started) >= runtime.Slice {
		in.promote()
	}
	in.checked = now
}

// checkTarget is the time between two checks that the fuel aims at; fuelMin the
// least fuel, at which checks cost a tenth of the code's time at most.
const (
	checkTarget = 500 * time.Microsecond
	fuelMin     = 2000
)

// promote takes the invocation off the event loop, once.
func (in *instance) promote() {
	if in.inv.Promote != nil && !in.promoted {
		in.promoted = true
		in.inv.Promote()
	}
}
