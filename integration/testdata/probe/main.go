// Command probe is a function that does what a test asks of it.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	handler := os.Getenv("_HANDLER")
	if len(os.Args) > 1 {
		handler = os.Args[1]
	}
	switch handler {
	case "echo": // the body, wrapped by the platform unless it is JSON
		_, _ = io.Copy(os.Stdout, os.Stdin)
	case "count": // the bytes of the body, which it does not keep
		n, err := io.Copy(io.Discard, os.Stdin)
		fmt.Printf(`{"bytes":%d,"error":"%v"}`, n, err)
	case "sleep": // ?ms=N
		time.Sleep(time.Duration(number("ms", 100)) * time.Millisecond)
		fmt.Printf(`{"slept":%d}`, number("ms", 100))
	case "spin": // ?ms=N of pure computing
		end := time.Now().Add(time.Duration(number("ms", 100)) * time.Millisecond)
		n := 0
		for time.Now().Before(end) {
			n++
		}
		fmt.Printf(`{"spun":%d}`, n)
	case "size": // ?n=N bytes of text
		fmt.Print("Content-Type: text/plain\n\n")
		line := strings.Repeat("x", 1023) + "\n"
		for n := number("n", 1024); n > 0; n -= len(line) {
			_, _ = os.Stdout.WriteString(line[:min(n, len(line))])
		}
	case "exit": // ?code=N
		fmt.Print("some output")
		os.Exit(number("code", 1))
	case "nothing":
	case "text":
		fmt.Print("plain \"text\"\n")
	case "panic":
		panic("the probe was asked to panic")
	case "stderr":
		fmt.Fprintln(os.Stderr, "a line for the log")
		fmt.Print(`{"logged":true}`)
	case "cgi":
		fmt.Print("Status: 418 I'm a teapot\nContent-Type: text/plain\nX-Kettle: on\nSet-Cookie: a=1\nSet-Cookie: b=2\n\nshort and stout")
	case "inject":
		fmt.Print("Content-Type: text/plain\nX-Bad: a\rX-Evil: 1\n\nbody")
	case "env":
		fmt.Print("Content-Type: text/plain\n\n")
		for _, e := range os.Environ() {
			fmt.Println(e)
		}
		fmt.Println("args", strings.Join(os.Args, "|"))
	default:
		fmt.Fprintf(os.Stderr, "no such handler: %q\n", handler)
		os.Exit(2)
	}
}

// number reads one number from the query string.
func number(name string, otherwise int) int {
	for part := range strings.SplitSeq(os.Getenv("QUERY_STRING"), "&") {
		if value, ok := strings.CutPrefix(part, name+"="); ok {
			if n, err := strconv.Atoi(value); err == nil {
				return n
			}
		}
	}
	return otherwise
}
