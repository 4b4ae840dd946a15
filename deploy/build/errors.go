package build

import "errors"

// Reasons of an Error.
const (
	CompileFailed    = "compile_failed"    // the toolchain refused the sources; Detail is its output
	ToolchainMissing = "toolchain_missing" // Hint names the package to install
	BuildTimeout     = "build_timeout"
	BuildOOM         = "build_oom" // above the memory of a build
	ProcessLimit     = "process_limit"
	OutputLimit      = "output_limit" // printed or wrote too much
	BadSource        = "bad_source"   // nothing that could be built, or an archive that is refused
	BuilderBusy      = "builder_busy" // too many builds: try again
)

// ErrTooLarge is wrapped by an Error with reason BadSource whose source is
// above one of its bounds.
var ErrTooLarge = errors.New("too large")

// Error says why there is no artifact, to whoever deploys. Its texts name no
// path of the server's.
type Error struct {
	Reason string // one of the constants above
	Detail string // the compiler's whole output, or what is wrong in words
	Hint   string // what to do; may be empty
	Err    error  // for errors.Is; may be nil
}

func (e *Error) Error() string {
	text := e.Reason
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }
