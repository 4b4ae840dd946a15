package deploy

import (
	"errors"
	"syscall"

	"baton/deploy/build"
)

// Reason says why something was not done, to whoever asked for it.
type Reason string

// The reasons of this package. Those of a build are build.Error's.
const (
	NotFound      Reason = "function_not_found"
	NoVersion     Reason = "version_not_found"
	Precondition  Reason = "precondition_failed" // If-Match or If-None-Match
	RouteTaken    Reason = "route_taken"
	NameTaken     Reason = "name_taken"
	NameMismatch  Reason = "name_mismatch"
	CodeMissing   Reason = "code_missing"   // a descriptor alone, and nothing that it could be for
	CodeNeeded    Reason = "code_needed"    // the change of the descriptor needs a build
	ModuleRefused Reason = "module_refused" // it was built, and cannot run
	Changed       Reason = "changed_meanwhile"
	DiskFull      Reason = "disk_full"
	Busy          Reason = "capacity_exceeded"
	NotConfirmed  Reason = "not_confirmed" // durable, and not seen to be served in time
	NotServed     Reason = "not_served"    // the table did not take the row; what was before serves
	Stopping      Reason = "draining"
)

// Error is a deploy, change or delete that was not done, for a reason that is
// the caller's to know. Its texts name no path of the server's.
type Error struct {
	Reason Reason
	Text   string
	Field  string // of the descriptor, when one is at fault
	Err    error  // for the log; may be nil
}

func (e *Error) Error() string {
	text := string(e.Reason) + ": " + e.Text
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// full turns the system's "no room" into a reason.
func full(err error) error {
	var ours *Error
	var builder *build.Error
	if err == nil || errors.As(err, &ours) || errors.As(err, &builder) {
		return err
	}
	for _, no := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, no) {
			return &Error{Reason: DiskFull, Text: "the server has no room left on its disk, or may not use it: nothing was changed", Err: err}
		}
	}
	return err
}
