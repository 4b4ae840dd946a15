/* What the tests ask of a function, by the variable CMD. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int counter;

static void *thread(void *x)
{
	puts("from a thread");
	return x;
}

static void echo(void)
{
	static char b[65536];
	for (ssize_t n; (n = read(0, b, sizeof b)) > 0;)
		for (ssize_t at = 0; at < n;) {
			ssize_t k = write(1, b + at, n - at);
			if (k <= 0)
				_exit(9);
			at += k;
		}
}

/* Says how much is in the working directory, and leaves some there. */
static void leave(int depth)
{
	int count = 0;
	DIR *d = opendir(".");
	for (struct dirent *e; d && (e = readdir(d));)
		count += e->d_name[0] != '.' || strlen(e->d_name) > 2;
	printf("%d\n", count);
	if (symlink("/etc/passwd", "link") || close(open("file", O_CREAT | O_WRONLY, 0)))
		exit(6);
	for (int i = 0; i < depth; i++) {
		if (mkdir("d", 0700) || chdir("d") || close(open("f", O_CREAT | O_WRONLY, 0)))
			exit(7);
	}
	chmod(".", 0);
	chmod("..", 0100);
}

/* Ends, and leaves a grandchild behind that has tried to get away. */
static void stay(const char *how)
{
	const char *name = strrchr(how, ' ') ? strrchr(how, ' ') + 1 : how;
	int ready[2];
	char byte;
	if (pipe(ready))
		exit(8);
	if (fork() == 0) {
		if (!strncmp(how, "setsid", 6))
			setsid();
		if (!strncmp(how, "setpgid", 7))
			setpgid(0, 0);
		if (fork() == 0) {
			prctl(PR_SET_NAME, name);
			signal(SIGTERM, SIG_IGN);
			signal(SIGHUP, SIG_IGN);
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

int main(int argc, char **argv, char **envp)
{
	const char *c = getenv("CMD");
	if (!c || envp != environ)
		return 3;
	if (!strcmp(c, "echo")) {
		echo();
	} else if (!strcmp(c, "argv")) {
		for (int i = 0; i < argc; i++)
			printf("%s%c", argv[i], i + 1 < argc ? ' ' : '\n');
	} else if (!strcmp(c, "env")) {
		printf("CMD=%s OWN=%s _HANDLER=%s BATON_ENTRY=%s\n", c, getenv("OWN"), getenv("_HANDLER"), getenv("BATON_ENTRY") ? getenv("BATON_ENTRY") : "(none)");
	} else if (!strcmp(c, "static")) {
		printf("%d\n", ++counter);
	} else if (!strcmp(c, "stderr")) {
		fprintf(stderr, "to the log\nand on");
		puts("out");
	} else if (!strcmp(c, "nonblock")) {
		fcntl(1, F_SETFL, O_NONBLOCK);
		puts("ok");
	} else if (!strcmp(c, "flags")) {
		puts(fcntl(1, F_GETFL) & O_NONBLOCK ? "not blocking" : "blocking");
	} else if (!strcmp(c, "thread")) {
		pthread_t t;
		if (pthread_create(&t, 0, thread, 0))
			return 4;
		pthread_join(t, 0);
	} else if (!strcmp(c, "large")) {
		for (int i = 0; i < 3 << 16; i++)
			puts("0123456789abcde");
	} else if (!strncmp(c, "exit ", 5)) {
		return atoi(c + 5);
	} else if (!strcmp(c, "segv")) {
		*(volatile int *)8 = 1;
	} else if (!strcmp(c, "abort")) {
		abort();
	} else if (!strcmp(c, "memory")) {
		for (;;) {
			char *p = malloc(1 << 20);
			memset(p, 1, 1 << 20);
		}
	} else if (!strcmp(c, "close")) {
		close(1);
	} else if (!strcmp(c, "spin")) {
		for (volatile int i = 0;; i++)
			;
	} else if (!strcmp(c, "fork spin")) {
		for (int i = 0; i < 3; i++)
			if (fork() == 0)
				break;
		for (volatile int i = 0;; i++)
			;
	} else if (!strcmp(c, "endless")) {
		for (;;)
			puts("0123456789abcde");
	} else if (!strcmp(c, "leave") || !strcmp(c, "leave deep")) {
		leave(c[5] ? 100 : 3);
	} else if (!strcmp(c, "fork")) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(0);
		puts(pid > 0 ? "forked" : errno == EPERM ? "EPERM" : "?");
	} else if (!strncmp(c, "stay ", 5)) {
		stay(c + 5);
	} else if (!strcmp(c, "address")) {
		printf("%p\n", (void *)main);
	} else {
		return 5;
	}
	return 0;
}
