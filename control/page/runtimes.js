// The runtimes, in the order in which they are offered. file is what pasted code
// is called; sample is a body for the starter text.

const starters = JSON.parse(at("starters").textContent);

const runtimes = [
  { id: "go", label: "Go", file: "main.go", sample: '{"name":"Ada"}', note: "Compiled to WebAssembly: an instance of its own for every request." },
  { id: "c", label: "C", file: "main.c", sample: "Ada", targets: true, note: "Compiled with clang, as a native program or to WebAssembly." },
  { id: "cpp", label: "C++", file: "main.cpp", sample: "Ada", targets: true, note: "Compiled with clang++, as a native program or to WebAssembly." },
  { id: "rust", label: "Rust", file: "main.rs", sample: "Ada", note: "Compiled to WebAssembly with rustc, or with cargo when there is a Cargo.toml." },
  { id: "tinygo", label: "TinyGo", file: "main.go", sample: '{"name":"Ada"}', note: "Go compiled with TinyGo: a small module." },
  { id: "php", label: "PHP", file: "index.php", sample: '{"name":"Ada"}', note: "Run by the PHP of this machine, in a sandbox." },
  { id: "python", label: "Python", file: "main.py", sample: '{"name":"Ada"}', note: "Run by the Python of this machine, in a sandbox." },
  { id: "wasm", label: "WebAssembly", file: "", sample: "", note: "A module that is already compiled, for WASI preview 1." },
  { id: "native", label: "Native", file: "main.sh", sample: "Ada", note: "A program of this machine, in a sandbox: an executable, or a script that names its interpreter." },
];
const runtimeOf = (id) => runtimes.find((r) => r.id === (id === "c++" ? "cpp" : id));

// runtimeOfFiles guesses by names: what is most telling first.
const runtimeOfFiles = (names) => {
  const has = (...ends) => names.some((n) => ends.some((e) => n.toLowerCase().endsWith(e)));
  if (has("go.mod")) return "go";
  if (has("cargo.toml")) return "rust";
  for (const [runtime, ...ends] of [["go", ".go"], ["rust", ".rs"], ["cpp", ".cpp", ".cc", ".cxx"], ["c", ".c"], ["php", ".php"], ["python", ".py"], ["wasm", ".wasm"], ["native", ".sh"]]) {
    if (has(...ends)) return runtime;
  }
  return "";
};
