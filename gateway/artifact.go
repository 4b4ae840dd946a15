package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"baton/route"
	"baton/runtime"
)

// ErrTemporary is wrapped by the error of a Preparer that says nothing about
// the artifact (no process could be started, the machine is out of memory): it
// is tried again without anything having changed.
var ErrTemporary = errors.New("try again")

// Artifact is what a route's module names: a file that workers load.
type Artifact struct {
	Runtime string // the kind of executor, as runtime.KindOf says it; the descriptor's own word when there is none
	Path    string // absolute, under the data directory
}

// artifactOf is what a descriptor's row needs, whose module lies at path.
func artifactOf(d *route.Descriptor, path string) Artifact {
	return Artifact{Runtime: cmp.Or(runtime.KindOf(d.Runtime, d.Target), d.Runtime), Path: path}
}

// stamp tells one content of a file from another without reading it. Whoever
// replaces the file, in place or by renaming, changes its stamp. The zero value
// is the stamp of no file.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
}

// stampOf looks at an artifact. Links are not followed: a module is what lies
// in the data directory.
func stampOf(path string) (stamp, error) {
	info, err := os.Lstat(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return stamp{}, fs.ErrNotExist
		}
		var in *fs.PathError
		if errors.As(err, &in) {
			err = in.Err
		}
		return stamp{}, err
	}
	if !info.Mode().IsRegular() {
		return stamp{}, fmt.Errorf("want a file, got %s", info.Mode().Type())
	}
	st := info.Sys().(*syscall.Stat_t)
	return stamp{
		dev: uint64(st.Dev), ino: st.Ino, size: st.Size,
		mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
	}, nil
}

// artifactState is what is known of one content of an artifact.
type artifactState uint8

const (
	artifactNew     artifactState = iota // nothing yet; in the queue
	artifactRunning                      // being prepared
	artifactReady                        // workers can load it
	artifactFailed                       // they cannot: err says why
)

const (
	// lookPeriod is how often failed and missing artifacts are looked at again:
	// a row may come before its file.
	lookPeriod = time.Second

	// looksMax bounds the artifacts that are looked at per period, so that a
	// table of broken rows costs little; the others have their turn later.
	looksMax = 256

	// retryFirst and retryMax bound the pause before what failed temporarily is
	// tried again; it doubles.
	retryFirst = time.Second
	retryMax   = time.Minute
)

// artifact is one file that rows name. Owned by the publisher's goroutine; it
// lives as long as a row names it or it is being prepared.
type artifact struct {
	Artifact
	state artifactState
	stamp stamp // of the content that state is about
	err   error // artifactFailed

	rows    []*row       // that wait for it, the first to wait first
	held    []chan error // of those who hold it and wait to hear how its preparation ends
	uses    int          // rows whose newest good value names it, and who hold it
	retryAt time.Time
	pause   time.Duration // zero: not failed temporarily
	queued  bool          // is in the publisher's queue
	looked  bool          // is in the publisher's list of failed ones
}
