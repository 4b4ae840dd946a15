package child_test

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/child"
)

// asked is ask as a task.
type asked struct {
	inv      *runtime.Invocation
	line     string
	deadline time.Time
	answer   string
	result   runtime.Result
	done     func(*asked)
}

func (a *asked) Serve(pr *child.Process) (runtime.Result, bool) {
	pr.Begin(a.inv, a.deadline)
	_, err := io.WriteString(pr.Channel, a.line+"\n")
	if err == nil {
		a.answer, err = bufio.NewReader(pr.Channel).ReadString('\n')
	}
	result := pr.End(err)
	return result, result.Reason == runtime.OK
}

func (a *asked) Done(result runtime.Result) {
	a.result = result
	a.done(a)
}

func do(p *child.Pool, line string, limit time.Duration, done func(*asked)) {
	a := &asked{inv: &runtime.Invocation{}, line: line, deadline: time.Now().Add(limit), done: done}
	p.Do(a.inv, a.deadline, a)
}

// Tasks share two processes with requests that wait; each is done once, with its own answer.
func TestDo(t *testing.T) {
	t.Parallel()
	p := pool(t, shared(t), child.Config{Max: 2})
	var wg sync.WaitGroup
	for i := range 50 {
		line := fmt.Sprint("line ", i)
		if i%10 == 5 {
			line = "exit"
		}
		wg.Add(1)
		do(p, line, 60*time.Second, func(a *asked) {
			defer wg.Done()
			if line == "exit" {
				if a.result != (runtime.Result{Reason: runtime.Exit, Exit: 7}) {
					t.Errorf("exit: %+v", a.result)
				}
				return
			}
			if a.result.Reason != runtime.OK || strings.TrimSpace(a.answer) != "got "+line {
				t.Errorf("%s: %q, %+v", line, a.answer, a.result)
			}
		})
		if i%7 == 0 {
			wg.Go(func() {
				if answer, result := ask(p, &runtime.Invocation{}, "waits", 60*time.Second); answer != "got waits" {
					t.Errorf("who waits: %q, %+v", answer, result)
				}
			})
		}
	}
	wg.Wait()
}

// A task for which there is no process is told why.
func TestDoWithoutProcess(t *testing.T) {
	t.Parallel()
	results := make(chan runtime.Result, 4)
	tell := func(a *asked) { results <- a.result }
	p := pool(t, shared(t), child.Config{Max: 1})
	do(p, "hang", 60*time.Second, tell)
	do(p, "waits", 300*time.Millisecond, tell)
	if r := <-results; r.Reason != runtime.Timeout {
		t.Errorf("past its deadline: %+v", r)
	}
	do(p, "waits", 60*time.Second, tell)
	p.Close()
	got := map[runtime.Reason]int{(<-results).Reason: 1}
	got[(<-results).Reason]++
	if got[runtime.Cancelled] != 1 || got[runtime.Unavailable] != 1 {
		t.Errorf("at Close: %v", got)
	}
	do(p, "late", testenv.Patience(), tell)
	if r := <-results; r.Reason != runtime.Unavailable {
		t.Errorf("after Close: %+v", r)
	}
	broken := pool(t, shared(t), child.Config{Open: func(*child.Process) error { return io.ErrUnexpectedEOF }})
	do(broken, "x", 60*time.Second, tell)
	if r := <-results; r.Reason != runtime.Unavailable || !strings.Contains(r.Detail, io.ErrUnexpectedEOF.Error()) {
		t.Errorf("no process: %+v", r)
	}
}
