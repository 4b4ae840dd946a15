package reactor

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"baton/internal/testenv"
	"baton/runtime"
)

func TestStorage(t *testing.T) {
	t.Parallel()
	var s storage
	for _, n := range []int{0, 1, storageMin, storageMin + 1, 64 << 10, 64<<10 + 1, 300 << 10, headRoom + streamBytesMin, 1 << 20} {
		b := s.take(n)
		if len(b) != 0 || cap(b) < n {
			t.Errorf("for %d bytes: %d of %d", n, len(b), cap(b))
		}
		s.give(b)
	}
	text := []byte(strings.Repeat("a buffer that grows ", 5000))
	var b []byte
	for at := 0; at < len(text); at += 1000 {
		b = append(s.grow(b, 1000), text[at:at+1000]...)
	}
	if !bytes.Equal(b, text) {
		t.Error("it does not hold what it held before it grew")
	}
	// What was cut at its front is not one of ours any more: it could grow into what another holds.
	s.give(b[100:])
	s.give(nil)
	for range 100 {
		for _, size := range storageSizes {
			if b := s.take(size); cap(b) != size {
				t.Errorf("%d bytes of %d", cap(b), size)
			}
		}
	}
}

// Large bodies and answers of many connections at once, to functions on the loop and beside it,
// with clients that read slowly: each gets its own, whole.
func TestLargeBuffersAreNobodyElses(t *testing.T) {
	t.Parallel()
	answer := func(inv *runtime.Invocation) runtime.Result {
		body := bytes.Clone(inv.Body)
		if inv.More != nil {
			more, err := io.ReadAll(inv.More)
			if err != nil {
				return runtime.Result{Reason: runtime.Cancelled}
			}
			body = append(body, more...)
		}
		for len(body) > 0 { // in pieces, so that the buffer grows
			n := min(len(body), 50_000)
			if _, err := inv.Stdout.Write(body[:n]); err != nil {
				return runtime.Result{Reason: runtime.Cancelled}
			}
			body = body[n:]
		}
		return runtime.Result{}
	}
	p := newPairWith(t, pairOptions{maxBody: 64 << 20, fakes: map[string]*fake{
		"on": {inline: true, run: answer}, "off": {run: answer},
	}})
	const clients, requests = 16, 20
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(client), 1))
			c, err := testenv.Connect(p.addr())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			for request := range requests {
				mark := fmt.Sprintf("%d/%d ", client, request)
				size := random.IntN(700_000)
				body := `["` + strings.Repeat(mark, size/len(mark)+1) + `"]`
				text := post([]string{"/on", "/off"}[random.IntN(2)], body)
				sent := make(chan error, 1)
				go func() {
					_, err := io.WriteString(c, text)
					sent <- err
				}()
				r, err := c.ReadResponse(http.MethodGet)
				if err != nil {
					t.Errorf("client %d, request %d: %v", client, request, err)
					return
				}
				if r.Status != 200 || string(r.Body) != body {
					t.Errorf("client %d, request %d: status %d, %d bytes of %d, or others", client, request, r.Status, len(r.Body), len(body))
					return
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
