;; {{name}} is a function: a command of WASI preview 1. The request's body is its
;; standard input, and what it writes to standard output is the response.
;;
;; module.wasm beside this file was made of it with `wat2wasm module.wat`, which
;; the package wabt has. Put any other module in its place, of any language.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "{\"message\":\"Hello from WebAssembly\"}\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16)) ;; where the text begins
    (i32.store (i32.const 4) (i32.const 37)) ;; how many bytes it has
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
