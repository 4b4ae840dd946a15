// Command demo is baton's demo: five small functions in one program.
//
// It is written as a user would write it. The request's body is stdin, the
// response is stdout, and which function to run is the first argument or, when
// there is none, the variable _HANDLER. What starts with '{' is sent as JSON; a
// header block in front of it, as in CGI, sets status and fields.
//
// It avoids fmt and encoding/json on purpose: without them the module is a
// third smaller, and every worker keeps its native code in memory.
package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"time"
)

// version is what `GET /api/info` reports.
const version = "1.0.0"

// bodyBytesMax bounds the bodies that hello and resize read: 64 KiB is far above
// any sensible one. A longer one is answered with 413.
const bodyBytesMax = 64 << 10

var errBodyTooLarge = errors.New("the body is larger than 64 KiB")

func main() {
	response := respond(nil, handlerName(os.Args, os.Getenv), os.Stdin, time.Now())
	if _, err := os.Stdout.Write(response); err != nil {
		os.Exit(1)
	}
}

// handlerName is the first argument, or else the variable. The environment is
// not looked at when it is not needed.
func handlerName(args []string, getenv func(string) string) string {
	if len(args) > 1 {
		return args[1]
	}
	return getenv("_HANDLER")
}

// respond appends the response of one function to dst. Only a function that
// wants the body reads it.
func respond(dst []byte, handler string, in io.Reader, now time.Time) []byte {
	switch handler {
	case "ping":
		return ping(dst, now)
	case "hello":
		return hello(dst, in)
	case "info":
		return info(dst)
	case "resize":
		return resize(dst, in)
	case "python":
		return python(dst)
	}
	return failure(dst, "404 Not Found", "no such function: "+handler)
}

// ping answers that it lives, and its clock.
func ping(dst []byte, now time.Time) []byte {
	dst = append(dst, `{"pong":true,"ts":`...)
	dst = strconv.AppendInt(dst, now.Unix(), 10)
	return append(dst, '}')
}

// hello greets {"name":"…"}, or the world.
func hello(dst []byte, in io.Reader) []byte {
	name := "world"
	value, status, err := argument(in, "name")
	if err != nil {
		return failure(dst, status, err.Error())
	}
	if value != nil {
		text, ok := text(value)
		if !ok {
			return failure(dst, "400 Bad Request", "name is not a string")
		}
		name = text
	}
	dst = append(dst, `{"message":`...)
	dst = appendString(dst, "Hello, "+name)
	return append(dst, `,"runtime":"wasm","endpoint":"/api/hello"}`...)
}

// info says what serves here.
func info(dst []byte) []byte {
	return append(dst, `{"service":"faas","status":"ok","runtime":"wasm","version":"`+version+`"}`...)
}

// resize accepts {"width":N}; a real one would go on to scale an image.
func resize(dst []byte, in io.Reader) []byte {
	value, status, err := argument(in, "width")
	if err != nil {
		return failure(dst, status, err.Error())
	}
	if value == nil {
		return failure(dst, "400 Bad Request", "width is missing")
	}
	width, err := strconv.ParseUint(string(value), 10, 16)
	if err != nil || width == 0 {
		return failure(dst, "400 Bad Request", "width is not a whole number from 1 to 65535")
	}
	dst = append(dst, `{"ok":true,"note":"a demo: nothing was scaled","requested_width":`...)
	dst = strconv.AppendUint(dst, width, 10)
	return append(dst, '}')
}

// python stands in for a Python function where there is no Python: it says so
// and how to bring one.
func python(dst []byte) []byte {
	return append(dst, `{"message":"Hello from the route of the Python demo","runtime":"wasm",`+
		`"python":false,"note":"deploy a Python function to this path to replace this one"}`...)
}

// argument reads the body and returns the value of one member of its object,
// nil when it is not there. An error comes with the status to answer.
func argument(in io.Reader, name string) (value []byte, status string, err error) {
	body, err := io.ReadAll(io.LimitReader(in, bodyBytesMax+1))
	if err != nil {
		return nil, "400 Bad Request", errors.New("the body could not be read: " + err.Error())
	}
	if len(body) > bodyBytesMax {
		return nil, "413 Content Too Large", errBodyTooLarge
	}
	value, err = member(body, name)
	return value, "400 Bad Request", err
}

// failure appends an error with its status, as a CGI header block and JSON.
func failure(dst []byte, status, message string) []byte {
	dst = append(dst, "Status: "+status+"\nContent-Type: application/json\n\n"+`{"error":`...)
	dst = appendString(dst, message)
	return append(dst, '}')
}
