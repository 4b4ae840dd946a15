package sandbox

// Spec is what a child is and what it may do. The zero value of each grant
// grants nothing, or the stated default.
type Spec struct {
	// Argv is the program and its arguments. Argv[0] is an absolute path.
	Argv []string `json:"argv"`
	// Env is all of its environment.
	Env []string `json:"env,omitempty"`
	// Dir is its private working directory: an existing directory of this
	// process's, in which the child may create files. With a root directory of its own the child sees
	// an empty one there that lives in memory and ends with it. Empty: it works
	// in "/" and creates no files.
	Dir string `json:"dir,omitempty"`
	// In is the working directory of a child without a Dir: one below Write or
	// Read, that is shared with this process. Empty: "/".
	In string `json:"in,omitempty"`

	// Read names what it may read and execute, Write what it may change as well:
	// files, or directories with all below them. What does not exist is passed
	// over. The program itself, and what System names, is granted without being listed.
	Read  []string `json:"read,omitempty"`
	Write []string `json:"write,omitempty"`
	// Hide names files and directories that nothing of System is to show: a data
	// directory in /opt. What lies beside them stays visible; Read and Write are not touched by it.
	Hide []string `json:"hide,omitempty"`

	// Links shows it /proc with links alone: /proc/self/exe, by which a toolchain
	// finds itself. With a root directory of its own, of its own processes only.
	Links bool `json:"links,omitempty"`

	// MemoryMB bounds the address space of each of its processes, in MiB beyond
	// memoryAllowance for code. Zero: no bound (for programs that bound themselves).
	// Too small: it cannot start.
	MemoryMB int `json:"memory,omitempty"`
	// Processes is how many processes it may start beside the first. Zero: none
	// (seccomp), threads only.
	Processes int `json:"processes,omitempty"`
	// OpenFiles bounds its descriptors. Zero: OpenFilesDefault.
	OpenFiles int `json:"open_files,omitempty"`
	// FileMB bounds each file it writes, and all in Dir together where Dir lives
	// in memory, in MiB. Zero: FileMBDefault.
	FileMB int `json:"file,omitempty"`
	// CPUSeconds bounds the processor time of each of its processes; reaching it
	// is SIGKILL. Zero: no bound.
	CPUSeconds int `json:"cpu,omitempty"`
	// Network says that it may open network sockets.
	Network bool `json:"network,omitempty"`

	// UID and GID are who it is, where this process is root. Zero: UIDDefault; -1: as
	// this process.
	UID int `json:"uid,omitempty"`
	GID int `json:"gid,omitempty"`

	// Without names layers to leave out; for tests of the others.
	Without []string `json:"without,omitempty"`

	// Namespaces: it is the first process of new namespaces, and a root directory of its
	// own is to be made. Set by Command.
	Namespaces bool `json:"namespaces,omitempty"`
}

const (
	// OpenFilesDefault: enough for every program that serves one request.
	OpenFilesDefault = 256
	// FileMBDefault bounds files where Spec does not, in MiB.
	FileMBDefault = 64
	// UIDDefault is the uid and gid of a child for which none was chosen. From
	// 1879048192 on no user, container or dynamic service has its number.
	//
	// Source: systemd.io, "Users, Groups, UIDs and GIDs on systemd systems".
	UIDDefault = 1879048192
	// memoryAllowance is added to Spec.MemoryMB for code, libraries and stacks
	// that a small program maps before it does anything, in MiB.
	memoryAllowance = 16
)

// Names of layers, for Layer.Name and Spec.Without.
const (
	LayerRlimits  = "rlimits"
	LayerPrivs    = "no_new_privs"
	LayerSeccomp  = "seccomp"
	LayerLandlock = "landlock"
	LayerUID      = "own uid"
	LayerPIDs     = "own processes"
	LayerRoot     = "own root"
	LayerNetwork  = "own network"
	LayerCgroup   = "cgroup"
)

// Layer is one kind of confinement, for `baton status`.
type Layer struct {
	Name   string
	Active bool
	Detail string // how much of it, or why not
}

// System lists what every program may read: the directories of programs and
// libraries, and the few files without which they do not run.
func System() []string {
	return []string{
		"/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/opt",
		"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld-musl-x86_64.path", "/etc/ld-musl-aarch64.path", "/etc/alternatives",
		"/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/protocols", "/etc/services",
		"/etc/hosts", "/etc/resolv.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/ssl", "/etc/ca-certificates", "/etc/mime.types",
		"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom",
	}
}
