package reactor

import (
	"io"
	"strings"
	"testing"

	"baton/internal/sys"
	"baton/internal/testenv"
)

func TestPace(t *testing.T) {
	t.Parallel()
	const second = int64(1e9)
	const limit = 30 * second
	for _, test := range []struct {
		name string
		late bool
		at   int64 // seconds
		do   func(p *pace, at func(seconds float64) int64)
	}{
		{"nothing moves", true, 30, func(*pace, func(float64) int64) {}},
		{"… a moment before", false, 29, func(*pace, func(float64) int64) {}},
		{"a byte a second", true, 31, func(p *pace, at func(float64) int64) {
			for i := range 30 {
				p.moved(1, limit, at(float64(i)))
			}
		}},
		{"the least, for an hour", false, 3600, func(p *pace, at func(float64) int64) {
			for i := range 3600 {
				p.moved(paceBytesPerSecond, limit, at(float64(i+1)))
			}
		}},
		{"half of it", true, 61, func(p *pace, at func(float64) int64) {
			for i := range 60 {
				p.moved(paceBytesPerSecond/2, limit, at(float64(i+1)))
			}
		}},
		{"all at once, in the last second", false, 58, func(p *pace, at func(float64) int64) {
			p.moved(30*paceBytesPerSecond, limit, at(29))
		}},
		{"what came early is not saved up", true, 31, func(p *pace, at func(float64) int64) {
			p.moved(1<<30, limit, at(1))
		}},
		{"standing still costs nothing", false, 1000, func(p *pace, at func(float64) int64) {
			p.pause(at(20))
			p.pause(at(500))
			p.resume(at(991))
			p.resume(at(999))
		}},
		{"… and gives nothing", true, 1001, func(p *pace, at func(float64) int64) {
			p.pause(at(20))
			p.resume(at(991))
		}},
		{"it is not late while it stands still", false, 1000, func(p *pace, at func(float64) int64) { p.pause(at(20)) }},
	} {
		const start = 17 * second
		at := func(seconds float64) int64 { return start + int64(seconds*float64(second)) }
		var p pace
		p.begin(limit, start)
		test.do(&p, at)
		if late := p.late(at(float64(test.at))); late != test.late {
			t.Errorf("%s: late after %d s: %v", test.name, test.at, late)
		}
	}
}

// A client that takes a part of what the kernel holds makes progress, although
// the kernel does not call the socket writable for that.
func TestAnswerWaitsCountsWhatIsTaken(t *testing.T) {
	t.Parallel()
	for _, size := range []int{500_000, 8 << 20} { // one that is whole, one that streams
		p := newPairWith(t, pairOptions{fakes: map[string]*fake{"answer": text("[" + strings.Repeat(" ", size) + "]")}})
		back := p.backs[0].back
		c := p.connect(t, true)
		c.Send(t, strings.Repeat(get("/answer"), 1+64<<20/size))
		stuck := func(do func(c *conn)) (is bool) {
			_ = back.ask(func() {
				for _, c := range back.conns {
					if c != nil && c.wantWrite && c.writing.runs() {
						is = true
						do(c)
					}
				}
			})
			return is
		}
		held := -1
		testenv.Until(t, "the kernel's buffers are full", func() bool {
			before := held
			return stuck(func(c *conn) { held = sys.Unacked(c.fd) }) && held == before
		})
		// Judged in the same turn in which it is seen: in the next one the loop may
		// have filled the room.
		const almost = int64(1e9)
		testenv.Until(t, "the client has taken something", func() (took bool) {
			if _, err := io.ReadFull(c.Conn, make([]byte, 4<<10)); err != nil {
				t.Fatal(err)
			}
			stuck(func(c *conn) {
				if took = sys.Unacked(c.fd) < held-1<<10; !took {
					return
				}
				c.writing, c.unacked = pace{left: almost, since: back.now}, held
				back.answerWaits(c, 0)
				if c.writing.left <= almost || c.deadline != c.writing.end() {
					t.Errorf("%d bytes: a patience of %d ns, deadline %d", size, c.writing.left, c.deadline)
				}
				// In time, although the deadline has passed.
				c.writing, c.unacked = pace{left: -1, since: back.now}, held
				back.onDeadline(c)
				if c.phase != phaseWrite && c.phase != phaseStream || c.writing.late(back.now) {
					t.Errorf("%d bytes: phase %d", size, c.phase)
				}
			})
			return took
		})
		c.Close()
	}
}
