package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/valyala/fasthttp"
)

// serve runs a net/http server; the standard library's defaults.
func serve(addr string, handle http.HandlerFunc) error {
	return (&http.Server{Addr: addr, Handler: handle, ReadHeaderTimeout: time.Minute}).ListenAndServe()
}

func serveNetHTTP(addr string) error {
	return serve(addr, func(w http.ResponseWriter, r *http.Request) {
		size, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		_, word, _ := strings.Cut(r.URL.RawQuery, "t=")
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, "{\"token\":\"%s\",\"bytes\":%d}\n", word, size)
	})
}

func serveFastHTTP(addr string) error {
	return fasthttp.ListenAndServe(addr, func(ctx *fasthttp.RequestCtx) {
		_, word, _ := bytes.Cut(ctx.URI().QueryString(), []byte("t="))
		ctx.SetContentType("application/json")
		ctx.WriteString(`{"token":"`)
		ctx.Write(word)
		ctx.WriteString("\"}\n")
	})
}

// serveWazero is what wazero's documentation suggests: the module is compiled
// once, each request gets an instance.
func serveWazero(addr, module string) error {
	ctx := context.Background()
	engine := wazero.NewRuntime(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, engine)
	code, err := os.ReadFile(module)
	if err != nil {
		return err
	}
	compiled, err := engine.CompileModule(ctx, code)
	if err != nil {
		return err
	}
	return serve(addr, func(w http.ResponseWriter, r *http.Request) {
		var output bytes.Buffer
		config := wazero.NewModuleConfig().WithName("").WithStdin(r.Body).WithStdout(&output).
			WithEnv("QUERY_STRING", r.URL.RawQuery).WithRandSource(rand.Reader)
		instance, err := engine.InstantiateModule(r.Context(), compiled, config)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		instance.Close(r.Context())
		w.Header().Set("Content-Type", "application/json")
		w.Write(output.Bytes())
	})
}

// serveSpawn starts a program for each request, as CGI does.
func serveSpawn(addr string, argv []string) error {
	return serve(addr, func(w http.ResponseWriter, r *http.Request) {
		cmd := exec.CommandContext(r.Context(), argv[0], argv[1:]...)
		cmd.Env = []string{"QUERY_STRING=" + r.URL.RawQuery}
		cmd.Stdin = r.Body
		output, err := cmd.Output()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(output)
	})
}

// serveProxy passes bytes on, a connection for a connection.
func serveProxy(addr, behind string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("tcp", behind)
			if err != nil {
				return
			}
			defer server.Close()
			go func() {
				defer server.Close()
				io.Copy(server, client)
			}()
			io.Copy(client, server)
		}()
	}
}
