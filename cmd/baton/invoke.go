package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"baton/control"
)

// invokeFlags say what one call of a function is.
type invokeFlags struct {
	data    string // text, @FILE or -
	method  string
	query   string
	headers []string
	head    bool
}

func (c *commands) invokeCommand() *cobra.Command {
	var f invokeFlags
	cmd := &cobra.Command{
		Use:   "invoke NAME",
		Short: "Call a function and print what it answers",
		Long: `Calls a function at its address by name, as any client would: without the token,
through the port. The answer's body is printed as it comes. Without -d it is a GET,
with it a POST. The command ends with 1 when the answer is 400 or above; its
status and request id are told on standard error then.`,
		Example: `  baton invoke hello -d '{"name":"Alice"}'
  baton invoke resize -d @picture.png -H 'Content-Type: image/png' -i
  generate | baton invoke import -X PUT -d - -q 'table=users'`,
		Args:              oneFunction(0),
		ValidArgsFunction: c.completeFunction(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			call, end, err := c.call(args[0], cmd.Flags().Changed("body"), f)
			if err != nil {
				return err
			}
			defer end()
			response, err := client.Call(cmd.Context(), call)
			if err != nil {
				return c.explain(err)
			}
			defer response.Body.Close()
			return c.printAnswer(args[0], response, f.head)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.data, "body", "d", "", "the request's body: a `text`, @FILE, or - for standard input")
	flags.StringVarP(&f.method, "method", "X", "", "the request's method; without it GET, or POST with -d")
	flags.StringVarP(&f.query, "query", "q", "", "the request's query, as in 'a=1&b=2'")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "a field of the request, `'Name: value'`; may be given again")
	flags.BoolVarP(&f.head, "include", "i", false, "print the answer's head too")
	return cmd
}

// call makes the request of the flags. end gives back what it holds.
func (c *commands) call(name string, hasData bool, f invokeFlags) (call control.Call, end func(), err error) {
	end = func() {}
	call = control.Call{Name: name, Method: http.MethodGet, Query: strings.TrimPrefix(f.query, "?"), Header: http.Header{}}
	kind := ""
	if hasData {
		call.Method = http.MethodPost
		switch file, isFile := strings.CutPrefix(f.data, "@"); {
		case f.data == "-":
			if c.in == nil {
				return call, end, errors.New("-d -: there is no standard input")
			}
			call.Body, kind = c.in, "application/octet-stream"
		case isFile:
			body, err := os.Open(file)
			if err != nil {
				return call, end, fmt.Errorf("-d %s: %w", f.data, err)
			}
			call.Body, kind, end = body, "application/octet-stream", func() { _ = body.Close() }
			if strings.HasSuffix(file, ".json") {
				kind = "application/json"
			}
		case strings.HasPrefix(f.data, "{") || strings.HasPrefix(f.data, "["):
			call.Body, kind = strings.NewReader(f.data), "application/json"
		default:
			call.Body, kind = strings.NewReader(f.data), "text/plain; charset=utf-8"
		}
		call.Header.Set("Content-Type", kind)
	}
	if f.method != "" {
		call.Method = strings.ToUpper(f.method)
	}
	given := http.Header{}
	for _, h := range f.headers {
		field, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(field) == "" {
			end()
			return call, end, usageError{fmt.Errorf("-H %q: want 'Name: value'", h)}
		}
		given.Add(strings.TrimSpace(field), strings.TrimSpace(value))
	}
	maps.Copy(call.Header, given)
	return call, end, nil
}

// printAnswer prints a function's answer, and says with its error that it is one.
func (c *commands) printAnswer(name string, r *http.Response, head bool) error {
	out := bufio.NewWriter(c.out)
	if head {
		fmt.Fprintf(out, "%s %s\n", r.Proto, plain(r.Status))
		for _, field := range slices.Sorted(maps.Keys(r.Header)) {
			for _, value := range r.Header[field] {
				fmt.Fprintf(out, "%s: %s\n", plain(field), plain(value))
			}
		}
		fmt.Fprintln(out)
	}
	last := &lastByte{to: c.out}
	err := out.Flush()
	if err == nil {
		_, err = io.Copy(last, r.Body)
	}
	if isTerminal(c.out) && last.n > 0 && last.b != '\n' {
		fmt.Fprintln(c.out)
	}
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if r.StatusCode < http.StatusBadRequest {
		return nil
	}
	text := fmt.Sprintf("%s answered %s", name, plain(r.Status))
	if made := r.Header.Get("X-Baton-Error"); made == "gateway" && r.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%s: is there a function of this name? `baton ls` lists them", text)
	}
	if id := r.Header.Get("X-Request-Id"); id != "" {
		text += fmt.Sprintf("; `baton logs %s --request %s` shows what it logged", name, shellWord(plain(id)))
	}
	return errors.New(text)
}

// lastByte remembers how what was written ended.
type lastByte struct {
	to io.Writer
	n  int64
	b  byte
}

func (l *lastByte) Write(p []byte) (int, error) {
	n, err := l.to.Write(p)
	if n > 0 {
		l.n += int64(n)
		l.b = p[n-1]
	}
	return n, err
}
