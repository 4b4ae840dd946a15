package reactor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"

	"baton/httpparse"
	"baton/internal/sys"
	"baton/ipc"
)

const (
	// cutsRaceLong bounds the cuts of a long case under the race detector.
	cutsRaceLong = 40
	// driveBatch is how many connections a loop is driven through at one time: it
	// has its ticks between.
	driveBatch = 500
)

// longCase is a request that is refused after KiBs.
type longCase struct {
	reason  httpparse.Reason
	request string
}

func longCases() []longCase {
	const kib = 1 << 10
	return []longCase{
		{httpparse.ReasonRequestLineTooLong, "GET /" + strings.Repeat("a", 8*kib) + " HTTP/1.1\r\nHost: t\r\n\r\n"},
		{httpparse.ReasonHeadTooLarge, "GET / HTTP/1.1\r\nHost: t\r\n" + strings.Repeat("A: "+strings.Repeat("a", kib)+"\r\n", 32) + "\r\n"},
		{httpparse.ReasonTrailerTooLarge, chunked + "3\r\n[1]\r\n0\r\n" + strings.Repeat("A: "+strings.Repeat("1", kib)+"\r\n", 8) + "\r\n"},
		{httpparse.ReasonChunkOverhead, chunked + strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\n1\r\n", 17) + "0\r\n\r\n"},
		{httpparse.ReasonChunkLineTooLong, chunked + "3;a=" + strings.Repeat("b", kib) + "\r\n[1]\r\n0\r\n\r\n"},
	}
}

// The long cases of TestGatewayAndWorkerAgree, cut at every place too: that is a
// hundred thousand connections, so these are socket pairs, and each is driven to
// its end on its loop's goroutine, event by event. The gateway and the worker give
// the same answer, the worker also when the gateway has read the first part.
func TestGatewayAndWorkerAgreeOnLongRequests(t *testing.T) {
	t.Parallel()
	for _, c := range longCases() {
		t.Run(c.reason.String(), func(t *testing.T) {
			t.Parallel()
			p := newParsingPair(t)
			head := strings.Index(c.request, "\r\n\r\n") + 4
			parts := [][]string{{c.request}, strings.Split(c.request, "")}
			step := 1
			if raceEnabled {
				parts = parts[:1]
				step = len(c.request)/cutsRaceLong + 1
			}
			for at := 1; at < len(c.request); at += step {
				parts = append(parts, []string{c.request[:at], c.request[at:]})
			}
			roles := map[string]func(parts []string) string{"worker": p.driveBack}
			if strings.HasPrefix(c.request, chunked) {
				roles["worker, from the gateway"] = func(parts []string) string {
					if len(parts[0]) < head {
						return p.driveBack(parts)
					}
					return p.driveDonated(parts)
				}
			} else {
				roles["gateway"] = p.driveFront
			}
			first := ""
			for name, drive := range roles {
				l := &p.backs[0].back.loop
				if name == "gateway" {
					l = &p.front.loops[0].loop
				}
				for batch := range slices.Chunk(parts, driveBatch) {
					answers := make([]string, len(batch))
					_ = l.ask(func() {
						for i := range batch {
							answers[i] = drive(batch[i])
						}
					})
					for i, got := range answers {
						got = differing.ReplaceAllString(got, "-")
						if first == "" {
							first = got
							if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", c.reason.Status())) || !strings.Contains(got, `"reason":"`+c.reason.String()+`"`) ||
								!strings.Contains(got, "\r\nConnection: close\r\n") {
								t.Fatalf("whole at the %s: %q", name, got)
							}
						}
						if got != first {
							t.Fatalf("%d parts, the first of %d bytes, at the %s:\n%q\nwant\n%q", len(batch[i]), len(batch[i][0]), name, got, first)
						}
					}
				}
			}
		})
	}
}

// driveFront has a loop of the gateway handle a new connection on which parts
// come, each after the one before was handled, and returns the answer. On the
// loop's goroutine, as the two below.
func (p *pair) driveFront(parts []string) string {
	l := p.front.loops[0]
	p.front.open.Add(1)
	return l.drive(func(fd int) *conn { return l.newConn(fd, sys.Peer{}) }, parts)
}

// driveBack is driveFront for a worker.
func (p *pair) driveBack(parts []string) string { return p.backs[0].back.drive(p.newAdopted, parts) }

// driveDonated is driveBack for a connection whose first part the gateway has
// read.
func (p *pair) driveDonated(parts []string) string {
	b := p.backs[0].back
	return b.drive(func(fd int) *conn {
		c := p.newAdopted(fd)
		b.keep(c, []byte(parts[0]))
		if err := b.begin(c); err != nil {
			panic(err)
		}
		return c
	}, parts[1:])
}

// newAdopted is a connection of the worker's in a slot that nobody uses: the
// gateway does not know of it.
func (p *pair) newAdopted(fd int) *conn {
	b := p.backs[0].back
	c := b.newConn(fd, sys.Peer{})
	c.slot = uint32(len(p.front.ledger.entries) - 1)
	b.self.AddConns(1)
	b.setState(c, ipc.Reading)
	return c
}

// drive handles parts on a connection that open makes of a descriptor, and
// returns what its client gets until the end. On the loop's goroutine.
func (l *loop) drive(open func(fd int) *conn, parts []string) string {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	client := pair[0]
	c := open(pair[1])
	for _, part := range parts {
		if n, err := syscall.Write(client, []byte(part)); err != nil || n < len(part) {
			_ = syscall.Close(client)
			return fmt.Sprintf("%d bytes of %d were taken: %v", n, len(part), err)
		}
		if err := l.onConn(c, netpoll.IOEvent(syscall.EPOLLIN)); err != nil {
			return err.Error()
		}
		if sys.Unread(c.fd) > 0 {
			return "bytes are left unread"
		}
	}
	var answer []byte
	for b := make([]byte, 1<<10); ; {
		n, err := syscall.Read(client, b)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			answer = fmt.Appendf(answer, "%v", err) // EAGAIN: no end
		}
		if n <= 0 {
			break
		}
		answer = append(answer, b[:n]...)
	}
	_ = syscall.Close(client)
	if err := l.onConn(c, netpoll.IOEvent(syscall.EPOLLIN|syscall.EPOLLHUP)); err != nil || c.phase != phaseGone {
		return fmt.Sprintf("%v, phase %d when the client had closed", err, c.phase)
	}
	return string(answer)
}
