package control

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// object is JSON as it is written by hand.
type object map[string]any

// fakeAPI serves the page and answers it as the API does, from memory: states
// that a real server is hard to bring into, at once and always the same.
type fakeAPI struct {
	*httptest.Server

	gone bool // the test has closed it: the browser may say so

	mu        sync.Mutex
	signedIn  bool
	broken    bool // /system/functions answers 500
	functions []object
	one       map[string]object   // name → GET /system/functions/NAME
	versions  map[string][]object // name → its versions
	logs      []object
	uploads   []upload
	changes   []string // "METHOD path body" of what changed something
	pace      time.Duration
	building  chan struct{} // a deploy waits at "building" until it is closed; nil: it does not
	ticks     int
	workers   int
	late      map[string]*late // "METHOD path" → how its next answer comes
}

// late is an answer that is made when it is asked for and sent when the test says
// so: by then it may tell of a past.
type late struct {
	made chan struct{}
	sent chan bool // false: a refusal takes its place
}

// hold makes the next answer to a request, as in "GET /system/functions", late.
func (f *fakeAPI) hold(request string) *late {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &late{make(chan struct{}), make(chan bool, 1)}
	f.late[request] = l
	return l
}

func (f *fakeAPI) lateOf(r *http.Request) *late {
	f.mu.Lock()
	defer f.mu.Unlock()
	request := r.Method + " " + r.URL.Path
	l := f.late[request]
	delete(f.late, request)
	return l
}

func (l *late) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	made := httptest.NewRecorder()
	next.ServeHTTP(made, r)
	close(l.made)
	select {
	case whole := <-l.sent:
		if !whole {
			send(w, 503, object{"error": "the change was not stored", "reason": "not_stored"})
			return
		}
	case <-r.Context().Done():
		return
	}
	for name, values := range made.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(made.Code)
	_, _ = w.Write(made.Body.Bytes())
}

// upload is what arrived at /system/upload.
type upload struct {
	file       string
	code       []byte
	descriptor object
}

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{pace: 100 * time.Millisecond, workers: 2, one: map[string]object{}, versions: map[string][]object{}, late: map[string]*late{}}
	p := newPage()
	mux := http.NewServeMux()
	show := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", p.policy)
		_, _ = w.Write(p.body)
	}
	mux.HandleFunc("GET /{$}", show)
	mux.HandleFunc("GET /upload", show)
	mux.HandleFunc("/function/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Request-Id", "76k724r39if9d0000000")
		fmt.Fprintf(w, `{"message":"Hello, Ada","method":%q,"cookie":%q}`, r.Method, r.Header.Get("Cookie"))
	})
	mux.Handle("/api/", http.StripPrefix("/api", mux))
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) { r.URL.Path = "/function/hello"; mux.ServeHTTP(w, r) })
	mux.HandleFunc("GET /system/session", func(w http.ResponseWriter, _ *http.Request) { send(w, 200, object{"signedIn": f.signed()}) })
	mux.HandleFunc("POST /system/session", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+testToken {
			send(w, 401, object{"error": "this is not the admin token of this server: it is in admin.token in the data directory", "reason": "token_wrong"})
			return
		}
		f.sign(true)
		w.WriteHeader(204)
	})
	mux.HandleFunc("DELETE /system/session", func(w http.ResponseWriter, _ *http.Request) { f.sign(false); w.WriteHeader(204) })
	mux.HandleFunc("GET /system/functions", f.getFunctions)
	mux.HandleFunc("GET /system/functions/{name}", f.getFunction)
	mux.HandleFunc("PUT /system/functions/{name}", f.putFunction)
	mux.HandleFunc("DELETE /system/functions/{name}", f.deleteFunction)
	mux.HandleFunc("GET /system/functions/{name}/versions", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		send(w, 200, list(f.versions[r.PathValue("name")]))
	})
	mux.HandleFunc("POST /system/functions/{name}/rollback", f.rollback)
	mux.HandleFunc("GET /system/functions/{name}/logs", f.getLogs)
	mux.HandleFunc("GET /system/status", func(w http.ResponseWriter, _ *http.Request) { send(w, 200, f.status()) })
	mux.HandleFunc("GET /system/events", f.getEvents)
	mux.HandleFunc("POST /system/upload", f.postUpload)
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/system/") && r.URL.Path != "/system/session" && !f.signed() {
			send(w, 401, object{"error": "this needs the admin token", "reason": "token_missing"})
			return
		}
		if l := f.lateOf(r); l != nil {
			l.serve(mux, w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { f.CloseClientConnections(); f.Close() })
	return f
}

func send(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

func (f *fakeAPI) signed() bool    { f.mu.Lock(); defer f.mu.Unlock(); return f.signedIn }
func (f *fakeAPI) breaks(yes bool) { f.mu.Lock(); defer f.mu.Unlock(); f.broken = yes }
func (f *fakeAPI) sign(in bool)    { f.mu.Lock(); defer f.mu.Unlock(); f.signedIn = in }

// add puts a function into the table.
func (f *fakeAPI) add(key string, fields object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	row := object{"key": key, "state": Serving, "invocationCount": 0, "errorCount": 0, "inflight": 0, "memory": 128, "timeout": 30}
	for k, v := range fields {
		row[k] = v
	}
	f.functions = append(f.functions, row)
	name, _ := row["name"].(string)
	if name == "" || f.one[name] != nil {
		return
	}
	method, path, _ := strings.Cut(key, ":")
	version, _ := row["version"].(int)
	one := object{"versions": version, "method": method, "path": path,
		"descriptor": object{"name": name, "runtime": row["runtime"], "module": "module.wasm", "method": method, "path": path, "memory": 128, "env": object{"GREETING": "Hello"}}}
	for k, v := range row {
		one[k] = v
	}
	f.one[name] = one
	for n := 1; n <= version; n++ {
		f.versions[name] = append(f.versions[name], object{"version": n, "active": n == version, "created": time.Now().Add(-time.Duration(version-n)*26*time.Hour - 3*time.Minute).Format(time.RFC3339),
			"digest": fmt.Sprintf("sha256:%064x", n*0x51ab7), "size": 300_000 + 7919*n, "descriptor": one["descriptor"]})
	}
}

func (f *fakeAPI) getFunctions(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken {
		send(w, 500, object{"error": "the control plane could not answer", "reason": "internal"})
		return
	}
	send(w, 200, list(f.functions))
}

func (f *fakeAPI) getFunction(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, ok := f.one[r.PathValue("name")]
	if !ok {
		send(w, 404, object{"error": "there is no function of this name", "reason": "not_found"})
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"v%v"`, one["version"]))
	send(w, 200, one)
}

func (f *fakeAPI) changed(r *http.Request, body any) {
	b, _ := json.Marshal(body)
	f.changes = append(f.changes, r.Method+" "+r.URL.Path+" "+string(b))
}

func (f *fakeAPI) putFunction(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var d object
	_ = json.NewDecoder(r.Body).Decode(&d)
	f.changed(r, d)
	if r.Header.Get("If-Match") != fmt.Sprintf(`"v%v"`, f.one[r.PathValue("name")]["version"]) {
		send(w, 412, object{"error": "the function is another by now", "reason": "changed"})
		return
	}
	if memory, ok := d["memory"].(float64); !ok || memory > 4096 {
		send(w, 400, object{"error": "the descriptor is not valid", "reason": "bad_descriptor", "fields": []object{{"field": "memory", "want": "a whole number of MB from 1 to 4096", "got": fmt.Sprint(d["memory"])}}})
		return
	}
	f.one[r.PathValue("name")]["descriptor"] = d
	send(w, 200, object{"status": "success", "name": r.PathValue("name"), "version": 4})
}

func (f *fakeAPI) deleteFunction(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changed(r, nil)
	name := r.PathValue("name")
	f.functions = slices.DeleteFunc(f.functions, func(o object) bool { return o["name"] == name })
	delete(f.one, name)
	w.WriteHeader(204)
}

func (f *fakeAPI) rollback(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var body struct{ Version int }
	_ = json.NewDecoder(r.Body).Decode(&body)
	f.changed(r, body)
	name := r.PathValue("name")
	for _, v := range f.versions[name] {
		v["active"] = v["version"] == body.Version
	}
	f.one[name]["version"] = body.Version
	send(w, 200, object{"status": "success", "name": name, "version": body.Version})
}

func (f *fakeAPI) getLogs(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	lines := slices.Clone(f.logs)
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-ndjson")
	for _, l := range lines {
		_ = json.NewEncoder(w).Encode(l)
	}
	_ = http.NewResponseController(w).Flush()
	if r.URL.Query().Get("follow") != "" {
		<-r.Context().Done()
	}
}

// samples are the workers at a moment, as lively as real ones and always the
// same.
func (f *fakeAPI) samples() []Worker {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ticks++
	workers := make([]Worker, 0, f.workers)
	for i := range f.workers {
		x := float64(f.ticks)/9 + float64(i)*1.7
		w := Worker{Worker: i, PID: 13584 + i, State: Ready, Load: "idle", Mem: 9.6 + float64(i), Timestamp: 1,
			CPU: 34 + 22*math.Sin(x) + 6*math.Sin(5*x), IO: 4 + 3*math.Sin(2*x), Inflight: f.ticks % 5, Conns: 12 + i, Requests: uint64(1000 + 417*f.ticks + 40*int(9*math.Sin(x))), Errors: uint64(i * 3)}
		w.Score = 0.5*w.CPU + 0.3*w.Mem + 0.2*w.IO
		if w.CPU > 50 {
			w.Load = "busy"
		}
		if i == 3 {
			w = Worker{Worker: i, State: "starting", CPU: -1, Mem: -1, IO: -1, Score: -1, Restarts: 1, Crashes: 1}
		}
		workers = append(workers, w)
	}
	return workers
}

func (f *fakeAPI) status() Report {
	return Report{Workers: f.samples(), BadRows: []Function{}, Status: Status{Version: "0.1.0", PID: 13268, Started: time.Now().Add(-3 * time.Hour), Listen: "[::]:8080", Data: "/srv/baton/data", Ready: true,
		Generation: 12, Routes: 6, Connections: 25, Isolation: []Layer{
			{Name: "wasm", Active: true, Detail: "each request in an instance of its own: its memory, its limits, no files, no network"},
			{Name: "landlock", Active: true, Detail: "paths below the function's own folder"},
			{Name: "seccomp", Active: true}, {Name: "cgroup", Detail: "not available on this machine"}}}}
}

// event writes one server-sent event; false: nobody listens any more.
func event(w http.ResponseWriter, name string, data any) bool {
	b, _ := json.Marshal(data)
	_, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, b)
	return err == nil && http.NewResponseController(w).Flush() == nil
}

func (f *fakeAPI) getEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(f.pace)
	defer tick.Stop()
	for event(w, "workers", f.samples()) {
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

const compilerOutput = `main.c:7:5: error: use of undeclared identifier 'retrun'; did you mean 'return'?
    7 |     retrun 0;
      |     ^~~~~~
      |     return
1 error generated.
`

func (f *fakeAPI) postUpload(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseMultipartForm(1 << 20); err != nil {
		send(w, 400, object{"status": "error", "error": err.Error(), "reason": "bad_request"})
		return
	}
	var u upload
	_ = json.Unmarshal([]byte(r.FormValue("descriptor")), &u.descriptor)
	file, head, err := r.FormFile("code")
	if err != nil {
		send(w, 400, object{"status": "error", "error": err.Error(), "reason": "bad_request"})
		return
	}
	defer file.Close()
	u.file = head.Filename
	u.code = make([]byte, head.Size)
	_, _ = file.Read(u.code)
	f.mu.Lock()
	f.uploads = append(f.uploads, u)
	building := f.building
	f.mu.Unlock()

	w.Header().Set("Content-Type", "text/event-stream")
	event(w, "state", object{"state": "waiting"})
	name, _ := u.descriptor["name"].(string)
	if memory, ok := u.descriptor["memory"]; ok && memory != 64.0 {
		event(w, "error", object{"status": "error", "code": 400, "error": "the descriptor has 3 wrong fields", "reason": "bad_descriptor", "requestId": "76k724r39if9d0000001", "fields": []object{
			{"field": "memory", "want": "a whole number of MB from 1 to 4096", "got": fmt.Sprint(memory)},
			{"field": "env.2nd", "want": "names of A-Z a-z 0-9 _, the first no digit", "got": `"2nd"`},
			{"field": "hanlder", "want": `a known field; did you mean "handler"?`}}})
		return
	}
	for _, state := range []string{"fetching", "building"} {
		event(w, "state", object{"state": state})
	}
	event(w, "log", object{"text": "clang -O2 -o module.bin main.c\n"})
	if building != nil {
		select {
		case <-building:
		case <-r.Context().Done():
			return
		}
	}
	if strings.Contains(string(u.code), "retrun") {
		event(w, "log", object{"text": compilerOutput})
		event(w, "error", object{"status": "error", "code": 422, "error": "the program does not compile", "reason": "compile_failed", "details": compilerOutput, "requestId": "76k724r39if9d0000002"})
		return
	}
	event(w, "log", object{"text": "module.bin: 16 KB\n"})
	event(w, "state", object{"state": "preparing"})
	event(w, "state", object{"state": "publishing"})
	event(w, "done", object{"status": "success", "message": "deployed", "uri": "/api/hello", "method": "POST", "name": name, "version": 3, "url": "/function/" + name, "build": object{"duration_ms": 812, "cached": false}})
}

// furnish fills the table as on a machine that is in use.
func (f *fakeAPI) furnish() {
	f.add("POST:/api/hello", object{"name": "hello", "runtime": "go", "version": 3, "invocationCount": 184213, "errorCount": 12, "inflight": 3})
	f.add("GET:/api/hello/{name}", object{"name": "hello", "runtime": "go", "version": 3, "invocationCount": 9120})
	f.add("GET:/ping", object{"name": "ping", "runtime": "c", "version": 1, "invocationCount": 2048113})
	f.add("POST:/resize", object{"name": "resize", "runtime": "rust", "version": 7, "invocationCount": 512, "errorCount": 4, "inflight": 1})
	f.add("GET:/reports/*", object{"name": "monthly-reports", "runtime": "php", "version": 2, "invocationCount": 40, "state": Stale, "error": "module: want an artifact of this data directory, got \"import/gone.wasm\""})
	f.add("ANY:/python", object{"name": "python", "runtime": "python", "invocationCount": 0})
	f.add("POST:/broken", object{"state": Bad, "error": "memory: want a whole number of MB from 1 to 4096, got \"lots\""})
	now := time.Now()
	for i, text := range []string{"ready, 3 templates read", "greeting Ada in 1 language", "", "greeting Grace in 2 languages", "cache miss for \"de\", reading it again", ""} {
		line := object{"time": now.Add(time.Duration(i-9) * 1700 * time.Millisecond).Format(time.RFC3339Nano), "worker": i % 2, "function": "hello", "version": 3, "request": fmt.Sprintf("76k724r39if9d%07d", i)}
		if text == "" {
			line["failure"] = "function_timeout after 5 s"
		} else {
			line["text"] = text
		}
		f.logs = append(f.logs, line)
	}
}
