/* A function that tries what it must not, and ends in every way. The query says which. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

static char body[65536];

/* The lines of the body, one after the other. */
static char *line(void)
{
	static char *at = body;
	char *start = at, *end = strchr(at, '\n');
	if (!*start)
		return 0;
	if (end)
		*end = 0;
	at = end ? end + 1 : start + strlen(start);
	return start;
}

/* Says of each path whether it can be opened. */
static void files(void)
{
	for (char *path; (path = line());) {
		int fd = open(path, O_RDONLY);
		char byte;
		if (fd < 0)
			printf("%s: %s\n", path, strerrorname_np(errno));
		else
			printf("%s: open, reads %zd\n", path, read(fd, &byte, 1));
	}
}

/* Tries to change each path: to write, to make a file below it, to rename, to remove. */
static void changes(void)
{
	for (char *path; (path = line());) {
		char below[4096];
		snprintf(below, sizeof below, "%s/hostile", path);
		int done = open(path, O_WRONLY | O_APPEND) >= 0 || open(below, O_WRONLY | O_CREAT, 0600) >= 0 || mkdir(below, 0700) == 0 ||
			rename(path, below) == 0 || unlink(path) == 0 || symlink("/etc/passwd", below) == 0 || link(path, "hostile") == 0;
		printf("%s: %s\n", path, done ? "changed" : strerrorname_np(errno));
	}
}

/* Connects to a Unix socket and asks it for the functions, each line of the body one. */
static void unix_sockets(void)
{
	for (char *path; (path = line());) {
		struct sockaddr_un a = {.sun_family = AF_UNIX};
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (fd < 0) {
			printf("socket: %s\n", strerrorname_np(errno));
			continue;
		}
		snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
		if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
			printf("connect: %s\n", strerrorname_np(errno));
			continue;
		}
		dprintf(fd, "GET /system/functions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
		char answer[13] = "";
		ssize_t n = recv(fd, answer, sizeof answer - 1, MSG_WAITALL);
		printf("answer: %s\n", n > 0 ? answer : "none");
	}
}

/* Connects to 127.0.0.1 and the port in the body. */
static void tcp(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(body)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		printf("socket: %s\n", strerrorname_np(errno));
	else if (connect(fd, (struct sockaddr *)&a, sizeof a))
		printf("connect: %s\n", strerrorname_np(errno));
	else
		puts("connected");
}

/* System calls that no function needs. They do no harm where they are allowed. */
static void calls(void)
{
#define TRY(name, ...) printf(#name ": %s\n", syscall(SYS_##name, __VA_ARGS__) < 0 ? strerrorname_np(errno) : "done")
	TRY(mount, "none", "/nonexistent", "tmpfs", 0, 0);
	TRY(ptrace, 2, 0, 0, 0);
	TRY(bpf, 0, 0, 0);
	TRY(keyctl, 0, 0, 0, 0, 0);
	TRY(unshare, 0);
	TRY(setns, 0, 0);
	TRY(reboot, 0, 0, 0, 0);
	TRY(settimeofday, 0, 0);
	TRY(init_module, 0, 0, 0);
	TRY(kexec_load, 0, 0, 0, 0);
	TRY(perf_event_open, 0, 0, 0, 0, 0);
	TRY(userfaultfd, 0);
	TRY(io_uring_setup, 1, 0);
	TRY(memfd_create, "x", 0);
	TRY(personality, 0xffffffff);
	TRY(chroot, "/nonexistent");
	TRY(process_vm_readv, 1, 0, 0, 0, 0, 0);
}

/* Leaves a grandchild of that name behind that has tried to get away. */
static void stay(const char *how, const char *name)
{
	int ready[2];
	char byte;
	if (pipe(ready))
		exit(8);
	if (fork() == 0) {
		if (!strcmp(how, "setsid"))
			setsid();
		if (!strcmp(how, "setpgid"))
			setpgid(0, 0);
		if (fork() == 0) {
			prctl(PR_SET_NAME, name);
			prctl(PR_SET_PDEATHSIG, 0);
			for (int s = 1; s < 32; s++)
				signal(s, SIG_IGN);
			for (int fd = 0; fd < 3; fd++)
				close(fd);
			close(ready[0]);
			if (write(ready[1], "x", 1) != 1)
				_exit(1);
			close(ready[1]);
			for (;;)
				pause();
		}
		_exit(0);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) == 1)
		puts("started");
}

/* Starts processes until no more can be. */
static void bomb(const char *name)
{
	int count = 0;
	for (pid_t pid; (pid = fork()) >= 0; count++)
		if (pid == 0) {
			prctl(PR_SET_NAME, name);
			for (;;)
				pause();
		}
	printf("%d\n", count);
}

int main(void)
{
	const char *query = getenv("QUERY_STRING");
	char command[64] = "", first[64] = "", second[64] = "";
	if (!query || sscanf(query, "%63[^=]=%63[^=]=%63s", command, first, second) < 1)
		return 99;
	if (!strcmp(command, "unread")) {
		puts("it was not read");
		return 0;
	}
	size_t n = fread(body, 1, sizeof body - 1, stdin);
	body[n] = 0;
	if (!strcmp(command, "gib")) {
		static char mib[1 << 20];
		printf("Content-Type: application/octet-stream\n\n");
		for (int i = 0; i < 1024; i++)
			if (fwrite(mib, 1, sizeof mib, stdout) != sizeof mib)
				return 7;
		return 0;
	}
	if (strcmp(command, "close"))
		printf("Content-Type: text/plain\n\n");
	if (!strcmp(command, "exit")) {
		fflush(stdout);
		return atoi(first);
	} else if (!strcmp(command, "signal")) {
		signal(atoi(first), SIG_DFL);
		raise(atoi(first));
		*(volatile int *)8 = 1; /* where no signal can be sent */
	} else if (!strcmp(command, "segv")) {
		*(volatile int *)8 = 1;
	} else if (!strcmp(command, "spin")) {
		for (int s = 1; s < 32; s++)
			signal(s, SIG_IGN);
		for (volatile int i = 0;; i++)
			;
	} else if (!strcmp(command, "sleep")) {
		prctl(PR_SET_NAME, first);
		for (;;)
			pause();
	} else if (!strcmp(command, "memory")) {
		for (;;) {
			char *p = malloc(1 << 20);
			memset(p, 1, 1 << 20);
		}
	} else if (!strcmp(command, "close")) {
		close(1);
	} else if (!strcmp(command, "echo")) {
		fputs(body, stdout);
	} else if (!strcmp(command, "files")) {
		files();
	} else if (!strcmp(command, "changes")) {
		changes();
	} else if (!strcmp(command, "unix")) {
		unix_sockets();
	} else if (!strcmp(command, "tcp")) {
		tcp();
	} else if (!strcmp(command, "calls")) {
		calls();
	} else if (!strcmp(command, "environ")) {
		for (char **e = environ; *e; e++)
			puts(*e);
	} else if (!strcmp(command, "kill")) {
		printf("%s\n", kill(atoi(first), SIGKILL) ? strerrorname_np(errno) : "killed");
	} else if (!strcmp(command, "server")) {
		/* The first process of a namespace cannot be killed from inside. */
		kill(getppid(), SIGKILL);
		usleep(2000000);
		puts("survived");
	} else if (!strcmp(command, "stay")) {
		stay(first, second);
	} else if (!strcmp(command, "bomb")) {
		bomb(first);
	} else {
		return 98;
	}
	return 0;
}
