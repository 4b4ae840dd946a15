package gateway

import (
	"time"

	"baton/ipc"
)

// workerLink sends tables over a worker's control channel.
type workerLink struct {
	front front
	id    int
}

func (l workerLink) send(frame ipc.Frame) error { return l.front.Send(l.id, frame) }

// heartbeat is when a worker's loop last turned, on the monotonic clock.
func heartbeat(s *ipc.WorkerSlot) time.Duration {
	return time.Duration(s.Heartbeat()) * time.Millisecond
}
