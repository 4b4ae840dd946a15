package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
)

// Peers are all servers that workloads name. binary is baton's, cache a folder
// for what is fetched or built once, log is told what is left out.
func Peers(binary, cache string, log io.Writer) []Peer {
	own := func(name, mode string, more func(dir string) ([]string, error)) Peer {
		return program(name, cache, mode, more)
	}
	peers := []Peer{
		nginx(), phpFPM(), h2o(), haproxy(), node(), workerd(cache),
		own("net/http", "nethttp", nil), own("fasthttp", "fasthttp", nil), own("gnet", "gnet", nil),
		own("wazero", "wazero", func(dir string) ([]string, error) { return compileC(dir, "hello.c", true) }),
		own("spawn", "spawn", func(dir string) ([]string, error) { return compileC(dir, "hello.c", false) }),
		own("python", "spawn", func(dir string) ([]string, error) {
			python, err := interpreter()
			if err != nil {
				return nil, err
			}
			script, err := writeSource(dir, "hello.py")
			return []string{python, script}, err
		}),
		proxy(cache, binary),
		Baton("baton", binary, 0, All(log)),
	}
	for _, n := range workerCounts {
		peers = append(peers, Baton(workersServer(n), binary, n, Hello))
	}
	for _, n := range []int{1, 100, 1000} {
		peers = append(peers, Baton(manyServer(n), binary, 0, Many(n)))
	}
	return peers
}

// interpreter finds python3 where it really is: a script of a version manager
// that looks for it would be measured with each request.
func interpreter() (string, error) {
	python, err := find("python3", "apt-get install python3")
	if err != nil {
		return "", err
	}
	output, err := exec.Command(python, "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", python, err)
	}
	return strings.TrimSpace(string(output)), nil
}

// peerNamed finds a peer.
func peerNamed(peers []Peer, name string) (Peer, bool) {
	i := slices.IndexFunc(peers, func(p Peer) bool { return p.Name == name })
	if i < 0 {
		return Peer{}, false
	}
	return peers[i], true
}

// answerBytes is the size of a large answer.
const answerBytes = 100 << 10

// writeFile writes a file that any user may read: some servers change theirs.
func writeFile(dir, name, text string) (string, error) {
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		return "", err
	}
	return name, os.Chmod(name, 0o644)
}

// writeSource writes one of the functions' sources.
func writeSource(dir, name string) (string, error) {
	text, err := sources.ReadFile("functions/" + name)
	if err != nil {
		return "", err
	}
	return writeFile(dir, name, string(text))
}

// configured is a peer of one command that reads one file.
func configured(name, command, install, file string, args func(dir, file string) []string, text func(dir, addr string) (string, error)) Peer {
	return Peer{Name: name, Alive: "/hello?t=x", Commands: func(_ context.Context, dir, addr string) ([]*exec.Cmd, error) {
		path, err := find(command, install)
		if err != nil {
			return nil, err
		}
		config, err := text(dir, addr)
		if err != nil {
			return nil, err
		}
		name, err := writeFile(dir, file, config)
		if err != nil {
			return nil, err
		}
		return []*exec.Cmd{exec.Command(path, args(dir, name)...)}, nil
	}}
}

// nginx answers with a constant and the token, which is about the least that an
// HTTP server can do. Logs are off, connections are never ended by count.
func nginx() Peer {
	return configured("nginx", "nginx", "apt-get install nginx", "nginx.conf",
		func(dir, file string) []string { return []string{"-p", dir, "-e", "stderr", "-c", file} },
		func(dir, addr string) (string, error) {
			if _, err := writeFile(dir, "big", strings.Repeat("x", answerBytes)); err != nil {
				return "", err
			}
			return nginxConfig(dir, addr, `location /hello { return 200 '{"token":"$arg_t"}\n'; }
			location /big { root `+dir+`; }`), nil
		})
}

func nginxConfig(dir, addr, locations string) string {
	return fmt.Sprintf(`worker_processes 2;
daemon off;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 16384; }
http {
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	default_type application/json;
	server {
		listen %[2]s reuseport;
		%[3]s
	}
}
`, dir, addr, locations)
}

// phpFPM is nginx before PHP's process manager: a static pool of as many
// processes as baton starts, opcache on and not validating.
func phpFPM() Peer {
	return Peer{Name: "php-fpm", Alive: "/hello.php?t=x", Commands: func(_ context.Context, dir, addr string) ([]*exec.Cmd, error) {
		web, err := find("nginx", "apt-get install nginx")
		if err != nil {
			return nil, err
		}
		fpm, err := findFPM()
		if err != nil {
			return nil, err
		}
		script, err := writeSource(dir, "hello.php")
		if err != nil {
			return nil, err
		}
		socket := filepath.Join(dir, "fpm.sock")
		pool := fmt.Sprintf(`[global]
daemonize = no
error_log = /dev/stderr
[www]
%s
listen = %s
listen.mode = 0666
pm = static
pm.max_children = 4
php_admin_value[opcache.enable] = 1
php_admin_value[opcache.validate_timestamps] = 0
`, fpmUser(), socket)
		poolFile, err := writeFile(dir, "fpm.conf", pool)
		if err != nil {
			return nil, err
		}
		config, err := writeFile(dir, "nginx.conf", nginxConfig(dir, addr, fmt.Sprintf(`location ~ \.php$ {
			include /etc/nginx/fastcgi_params;
			fastcgi_param SCRIPT_FILENAME %s;
			fastcgi_pass unix:%s;
		}`, script, socket)))
		if err != nil {
			return nil, err
		}
		return []*exec.Cmd{
			exec.Command(fpm, "--nodaemonize", "--fpm-config", poolFile),
			exec.Command(web, "-p", dir, "-e", "stderr", "-c", config),
		}, nil
	}}
}

// findFPM finds Debian's php-fpm, whose command carries its version.
func findFPM() (string, error) {
	found, _ := filepath.Glob("/usr/sbin/php-fpm*")
	if len(found) == 0 {
		return "", fmt.Errorf("php-fpm: %w: apt-get install php-fpm", ErrMissing)
	}
	return slices.Max(found), nil
}

// fpmUser is who php-fpm works as: it refuses to be root.
func fpmUser() string {
	if me, err := user.Current(); err != nil || me.Uid != "0" {
		return ""
	}
	return "user = www-data\ngroup = www-data"
}

// h2o answers with a file: Debian's has no other handler that answers by itself.
func h2o() Peer {
	return configured("h2o", "h2o", "apt-get install h2o", "h2o.yaml",
		func(_, file string) []string { return []string{"-c", file} },
		func(dir, addr string) (string, error) {
			root := filepath.Join(dir, "root")
			if err := os.Mkdir(root, 0o755); err != nil {
				return "", err
			}
			if _, err := writeFile(root, "hello", `{"token":"1700000000"}`+"\n"); err != nil {
				return "", err
			}
			host, port, _ := strings.Cut(addr, ":")
			var who string
			if fpmUser() != "" {
				who = "user: www-data\n"
			}
			return fmt.Sprintf("%slisten:\n  host: %s\n  port: %s\nnum-threads: 2\nhosts:\n  default:\n    paths:\n      /:\n        file.dir: %s\n", who, host, port, root), nil
		})
}

func haproxy() Peer {
	return configured("haproxy", "haproxy", "apt-get install haproxy", "haproxy.cfg",
		func(_, file string) []string { return []string{"-db", "-f", file} },
		func(_, addr string) (string, error) {
			return fmt.Sprintf(`global
	nbthread 2
	maxconn 4096
defaults
	mode http
	timeout client 60s
	timeout server 60s
	timeout connect 5s
frontend hello
	bind %s
	http-request return status 200 content-type application/json lf-string '{"token":"%%[url_param(t)]"}'
`, addr), nil
		})
}

// node is two processes that share the port, as Node's own cluster does it.
func node() Peer {
	return Peer{Name: "Node.js", Alive: "/?t=x", Commands: func(_ context.Context, dir, addr string) ([]*exec.Cmd, error) {
		path, err := find("node", "apt-get install nodejs")
		if err != nil {
			return nil, err
		}
		host, port, _ := strings.Cut(addr, ":")
		script, err := writeFile(dir, "hello.cjs", fmt.Sprintf(`const cluster = require('cluster'), http = require('http');
if (cluster.isPrimary) { cluster.fork(); cluster.fork(); process.on('SIGTERM', () => process.exit(0)); }
else http.createServer((request, response) => {
	const body = JSON.stringify({token: request.url.split('t=')[1] || ''}) + '\n';
	response.writeHead(200, {'Content-Type': 'application/json', 'Content-Length': body.length});
	response.end(body);
}).listen(%s, '%s');
`, port, host))
		return []*exec.Cmd{exec.Command(path, script)}, err
	}}
}

// workerd is Cloudflare's runtime, from its npm package.
func workerd(cache string) Peer {
	return Peer{Name: "workerd", Alive: "/?t=x", Commands: func(ctx context.Context, dir, addr string) ([]*exec.Cmd, error) {
		npm, err := find("npm", "apt-get install npm")
		if err != nil {
			return nil, err
		}
		folder := filepath.Join(cache, "workerd")
		path := filepath.Join(folder, "node_modules", ".bin", "workerd")
		if _, err := os.Stat(path); err != nil {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return nil, err
			}
			output, err := exec.CommandContext(ctx, npm, "install", "--no-audit", "--no-fund", "--prefix", folder, "workerd").CombinedOutput()
			if err != nil {
				return nil, errors.Join(fmt.Errorf("workerd: %w: npm install workerd: %.300s", ErrMissing, output), err)
			}
		}
		if _, err := writeFile(dir, "hello.js", `addEventListener('fetch', event => event.respondWith(new Response(
	JSON.stringify({token: event.request.url.split('t=')[1] || ''}) + '\n', {headers: {'Content-Type': 'application/json'}})));
`); err != nil {
			return nil, err
		}
		config, err := writeFile(dir, "hello.capnp", fmt.Sprintf(`using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .hello)],
  sockets = [(name = "http", address = "%s", http = (), service = "main")]
);
const hello :Workerd.Worker = (serviceWorkerScript = embed "hello.js", compatibilityDate = "2024-01-01");
`, addr))
		return []*exec.Cmd{exec.Command(path, "serve", config)}, err
	}}
}

// program is one of the small servers in bench/peers.
func program(name, cache, mode string, more func(dir string) ([]string, error)) Peer {
	return Peer{Name: name, Alive: "/?t=x", Commands: func(ctx context.Context, dir, addr string) ([]*exec.Cmd, error) {
		path, err := buildPeers(ctx, cache)
		if err != nil {
			return nil, err
		}
		args := []string{mode, addr}
		if more != nil {
			extra, err := more(dir)
			if err != nil {
				return nil, err
			}
			args = append(args, extra...)
		}
		return []*exec.Cmd{exec.Command(path, args...)}, nil
	}}
}

// buildPeers compiles bench/peers.
func buildPeers(ctx context.Context, cache string) (string, error) {
	path := filepath.Join(cache, "peers")
	output, err := exec.CommandContext(ctx, "go", "build", "-o", path, "baton/bench/peers").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the peers: %w\n%s", err, output)
	}
	return path, nil
}

// proxy is baton with another process before it that passes each byte on.
func proxy(cache, binary string) Peer {
	behind := Baton("proxy", binary, 0, Hello)
	return Peer{
		Name: "proxy", Alive: behind.Alive,
		Commands: func(ctx context.Context, dir, addr string) ([]*exec.Cmd, error) {
			path, err := buildPeers(ctx, cache)
			if err != nil {
				return nil, err
			}
			inner, err := freeAddr()
			if err != nil {
				return nil, err
			}
			commands, err := behind.Commands(ctx, dir, inner)
			return append(commands, exec.Command(path, "proxy", addr, inner)), err
		},
		Ready: behind.Ready,
	}
}

// compileC compiles one of the functions' sources, to a WASI module or to a
// static program: what starts fastest.
func compileC(dir, name string, wasm bool) ([]string, error) {
	source, err := writeSource(dir, name)
	if err != nil {
		return nil, err
	}
	output := filepath.Join(dir, "program")
	command, install, args := "gcc", "apt-get install gcc", []string{"-O2", "-static", "-o", output, source}
	if wasm {
		command, install, args = "clang", "apt-get install clang lld wasi-libc libclang-rt-dev-wasm32",
			[]string{"--target=wasm32-wasi", "-O2", "-o", output, source}
	}
	compiler, err := find(command, install)
	if err != nil {
		return nil, err
	}
	if text, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", command, err, text)
	}
	return []string{output}, nil
}
