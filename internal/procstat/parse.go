package procstat

import "bytes"

// TicksPerSecond is the unit of the processor times in /proc/PID/stat as user
// space sees it: USER_HZ, 100 on every architecture that Go supports.
//
// Source: time(7), "The software clock, HZ, and jiffies".
const TicksPerSecond = 100

// Stat is what /proc/PID/stat says of the time that a process used.
type Stat struct {
	PID, PPID int

	// Ticks is the time of the process and its threads, in user and kernel
	// mode; ChildTicks is that of its children which ended and were waited for,
	// and of theirs.
	Ticks, ChildTicks uint64

	// StartTicks is when the process started, after boot: with the pid it names
	// a process for ever.
	StartTicks uint64
}

// ParseStat reads the content of /proc/PID/stat. The second field, the name of
// the program, stands in parentheses and may hold anything, also spaces and
// parentheses: the last parenthesis of the line ends it. False: b is not such a
// line.
//
// Source: proc_pid_stat(5).
func ParseStat(b []byte) (s Stat, ok bool) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || shut < open {
		return Stat{}, false
	}
	pid, rest, ok := number(b[:open])
	if !ok || pid > maxPID || len(bytes.TrimSpace(rest)) != 0 {
		return Stat{}, false
	}
	s.PID = int(pid)
	b = b[shut+1:]
	for field := 3; field <= 22; field++ {
		b = bytes.TrimLeft(b, " ")
		end := bytes.IndexAny(b, " \n")
		if end < 0 {
			end = len(b)
		}
		word := b[:end]
		b = b[end:]
		switch field {
		case 3: // state: a letter
			if len(word) != 1 {
				return Stat{}, false
			}
			continue
		case 4, 14, 15, 16, 17, 22:
		default:
			if len(word) == 0 {
				return Stat{}, false
			}
			continue
		}
		if len(word) > 0 && word[0] == '-' && (field == 16 || field == 17) {
			continue // %ld in the kernel's format; a sum of times is not negative
		}
		v, left, ok := number(word)
		if !ok || len(left) != 0 {
			return Stat{}, false
		}
		switch field {
		case 4:
			if v > maxPID {
				return Stat{}, false
			}
			s.PPID = int(v)
		case 14, 15:
			s.Ticks = add(s.Ticks, v)
		case 16, 17:
			s.ChildTicks = add(s.ChildTicks, v)
		case 22:
			s.StartTicks = v
		}
	}
	return s, true
}

// maxPID is PID_MAX_LIMIT of 64-bit Linux.
const maxPID = 1 << 22

// ParseResident returns the resident memory in bytes from the content of
// /proc/PID/status (VmRSS, in units of 1,024 bytes). False when there is no such
// line: a zombie and a kernel thread have none.
//
// Source: proc_pid_status(5).
func ParseResident(b []byte) (uint64, bool) {
	v, rest, ok := line(b, "VmRSS:")
	if !ok || string(bytes.TrimSpace(rest)) != "kB" || v > 1<<54 {
		return 0, false
	}
	return v << 10, true
}

// ParseIO returns the bytes that a process, its threads and its waited-for
// children had the storage layer read and write, from the content of
// /proc/PID/io.
//
// Source: proc_pid_io(5).
func ParseIO(b []byte) (read, written uint64, ok bool) {
	read, rest, ok := line(b, "read_bytes:")
	if !ok || len(bytes.TrimSpace(rest)) != 0 {
		return 0, 0, false
	}
	written, rest, ok = line(b, "write_bytes:")
	if !ok || len(bytes.TrimSpace(rest)) != 0 {
		return 0, 0, false
	}
	return read, written, true
}

// AppendPIDs appends the pids in the content of /proc/PID/task/TID/children to
// dst. What is not a pid ends the list.
func AppendPIDs(dst []int, b []byte) []int {
	for {
		v, rest, ok := number(b)
		if !ok || v == 0 || v > maxPID || len(rest) > 0 && rest[0] != ' ' && rest[0] != '\n' {
			return dst
		}
		dst = append(dst, int(v))
		b = rest
	}
}

// line finds the line of b that starts with name, and returns the number behind
// the name and what follows it on that line.
func line(b []byte, name string) (v uint64, rest []byte, ok bool) {
	for len(b) > 0 {
		l := b
		if end := bytes.IndexByte(b, '\n'); end >= 0 {
			l, b = b[:end], b[end+1:]
		} else {
			b = nil
		}
		if len(l) >= len(name) && string(l[:len(name)]) == name {
			return number(bytes.TrimLeft(l[len(name):], " \t"))
		}
	}
	return 0, nil, false
}

// number reads the decimal number at the start of b, after spaces. False when
// there is none, or when it does not fit.
func number(b []byte) (v uint64, rest []byte, ok bool) {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		d := uint64(b[i] - '0')
		if v > (1<<64-1-d)/10 {
			return 0, b, false
		}
		v = v*10 + d
	}
	return v, b[i:], i > 0
}

// add adds without wrapping.
func add(a, b uint64) uint64 {
	if a+b < a {
		return 1<<64 - 1
	}
	return a + b
}
