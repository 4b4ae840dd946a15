/*
 * baton's entry: the fork server that is linked into C and C++ functions.
 *
 * Linked with -Wl,--wrap=__libc_start_main, it gets control after the program
 * and its libraries are loaded, relocated and initialised, and before anything of
 * the program itself runs: its constructors and main run once per request, in a
 * process of their own. (Two things of a program do run before: indirect-function
 * resolvers and .preinit_array.) Without baton around it, it does nothing.
 *
 * Descriptors: 0 a file in memory with the request's body, 1 and 2 pipes, 3 the
 * channel. Each child is forked ahead and waits for its request itself:
 *
 *	request:  struct request, then argv and the variables, each with its NUL;
 *	          with it, when FLAG_STDIN is set, a descriptor for standard input
 *	answer:   struct answer: HELLO once per start, then ENDED per request
 *
 * A new process may be made only by who knows a number that the filter below
 * was made with; a child forgets it before it becomes the program. So a
 * function that may start no processes can start none, and no request costs a
 * filter of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHANNEL 3
#define MAGIC 0x314e5442u /* BTN1 */
#define HELLO 1u
#define ENDED 2u
#define NO_FORK 3u

#define FLAG_STDIN 1u

#define REQUESTS_MAX 1000 /* then the program is executed again: new addresses */
#define BUFFER 3072       /* of the stack; a larger request gets memory of its own */
#define BYTES_MAX (1u << 20)
#define LEFT_MAX 10000    /* files that are removed after one request */
#define LEFT_DEPTH 32     /* … and how deep they may lie */
#define NO_REQUEST 97     /* exit code of a child whose channel has ended */

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

struct request {
	uint32_t magic, bytes, argc, envc, flags;
};

struct answer {
	uint32_t magic, kind;
	int32_t status;   /* as wait4(2) gives it */
	uint32_t left;    /* processes or files were left behind that could not be ended or removed */
	uint64_t user_us, system_us, rss_kb;
};

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef SYS_rseq
#if defined(__x86_64__)
#define SYS_rseq 334
#else
#define SYS_rseq 293
#endif
#endif
#define RSEQ_SIGNATURE_X86 0x53053053
#define RSEQ_SIGNATURE_ARM 0xd428bc00

typedef int main_function(int, char **, char **);
extern int __real___libc_start_main(main_function *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);

__asm__(".pushsection .note.baton,\"a\",%note\n"
	".balign 4\n.long 6\n.long 4\n.long 1\n.asciz \"baton\"\n.balign 4\n.long 1\n"
	".popsection\n");

/* Number of the thread, as the library keeps it: cleared and set by clone(2). */
static int *tid_address(void)
{
	int *address = 0;
	if (prctl(PR_GET_TID_ADDRESS, &address, 0, 0, 0) == 0)
		return address;
	return 0;
}

/* fork(2), with the number *key as the argument that the filter looks at. It
 * lies nowhere but in *key, and in a register during the call. */
__attribute__((noinline)) static long fork_with(const volatile uint64_t *key, int *tid)
{
	long flags = SIGCHLD;
	if (tid)
		flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
#if defined(__x86_64__)
	register long r10 __asm__("r10") = (long)tid;
	long n = SYS_clone;
	__asm__ volatile("movq (%[key]), %%rdx\n\txorl %%esi, %%esi\n\txorl %%r8d, %%r8d\n\tsyscall\n\txorl %%edx, %%edx"
		: "+a"(n)
		: "D"(flags), [key] "r"(key), "r"(r10)
		: "rdx", "rsi", "r8", "rcx", "r11", "memory");
	return n;
#elif defined(__aarch64__)
	register long x0 __asm__("x0") = flags;
	register long x4 __asm__("x4") = (long)tid;
	register long x8 __asm__("x8") = SYS_clone;
	__asm__ volatile("ldr x2, [%[key]]\n\tmov x1, #0\n\tmov x3, #0\n\tsvc #0\n\tmov x2, #0"
		: "+r"(x0)
		: [key] "r"(key), "r"(x4), "r"(x8)
		: "x1", "x2", "x3", "memory");
	return x0;
#else
#error "this processor is not supported"
#endif
}

#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define EQUAL(k, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, yes, no)
#define ANSWER(k) BPF_STMT(BPF_RET | BPF_K, k)

/* Refuses new processes to who does not know the key. 0: it is in place. */
__attribute__((noinline)) static int refuse_processes(volatile uint64_t *key)
{
	struct sock_filter code[] = {
		LOAD(0),
#ifdef SYS_fork
		EQUAL(SYS_fork, 9, 0),
		EQUAL(SYS_vfork, 8, 0),
#endif
		EQUAL(SYS_clone, 0, 6),
		LOAD(16),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 4, 0),
		LOAD(32),
		EQUAL((uint32_t)*key, 0, 3),
		LOAD(36),
		EQUAL((uint32_t)(*key >> 32), 0, 1),
		ANSWER(SECCOMP_RET_ALLOW),
		ANSWER(SECCOMP_RET_ERRNO | EPERM),
	};
	struct sock_fprog program = {sizeof code / sizeof code[0], code};
	int failed = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
	volatile char *wipe = (volatile char *)code;
	for (size_t i = 0; i < sizeof code; i++)
		wipe[i] = 0;
	return failed;
}

static int read_all(int fd, void *to, size_t size)
{
	for (char *at = to; size > 0;) {
		ssize_t n = read(fd, at, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

static void answer(uint32_t kind, int status, uint32_t left, const struct rusage *usage)
{
	struct answer a = {MAGIC, kind, status, left, 0, 0, 0};
	if (usage) {
		a.user_us = (uint64_t)usage->ru_utime.tv_sec * 1000000 + (uint64_t)usage->ru_utime.tv_usec;
		a.system_us = (uint64_t)usage->ru_stime.tv_sec * 1000000 + (uint64_t)usage->ru_stime.tv_usec;
		a.rss_kb = (uint64_t)usage->ru_maxrss;
	}
	const char *at = (const char *)&a;
	for (size_t left_bytes = sizeof a; left_bytes > 0;) {
		ssize_t n = send(CHANNEL, at, left_bytes, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(0); /* nobody is there any more */
		at += n;
		left_bytes -= (size_t)n;
	}
}

/* What the program is started with, beside argv and the variables. */
struct start {
	main_function *main;
	void (*init)(void), (*fini)(void), (*rtld_fini)(void);
	void *stack_end;
	char **envp; /* of the server */
	size_t envc, auxc;
	int first; /* the server is the first process of a namespace: children end with it */
};

/* The child: waits for its request and becomes the program. */
__attribute__((noinline, noreturn)) static void serve(const struct start *s)
{
	if (!s->first)
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	union {
		struct request head;
		char bytes[BUFFER];
	} in;
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec part = {&in, sizeof in};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t n;
	do
		n = recvmsg(CHANNEL, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		_exit(NO_REQUEST);
	size_t got = (size_t)n;
	if (got < sizeof in.head) {
		if (read_all(CHANNEL, in.bytes + got, sizeof in.head - got))
			_exit(NO_REQUEST);
		got = sizeof in.head;
	}
	if (in.head.magic != MAGIC || in.head.bytes > BYTES_MAX || in.head.argc < 1)
		_exit(NO_REQUEST);
	char *text = in.bytes + sizeof in.head;
	size_t have = got - sizeof in.head, bytes = in.head.bytes;
	if (bytes > sizeof in - sizeof in.head) {
		char *large = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (large == MAP_FAILED)
			_exit(NO_REQUEST);
		memcpy(large, text, have);
		text = large;
	}
	if (have < bytes && read_all(CHANNEL, text + have, bytes - have))
		_exit(NO_REQUEST);

	if (in.head.flags & FLAG_STDIN) {
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		int fd;
		if (!c || c->cmsg_type != SCM_RIGHTS)
			_exit(NO_REQUEST);
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
		dup2(fd, 0);
	} else {
		lseek(0, 0, SEEK_SET);
	}
	/* What an earlier request has set on what is shared. */
	fcntl(1, F_SETFL, 0);
	fcntl(2, F_SETFL, 0);
	if (syscall(SYS_close_range, CHANNEL, ~0u, 0) != 0)
		for (int fd = CHANNEL; fd < 1024; fd++)
			close(fd);

	/* argv, the server's variables, the request's, and the auxiliary vector, as
	 * the kernel lays them out. */
	size_t argc = in.head.argc, envc = in.head.envc, k = 0;
	char *vector[argc + 1 + s->envc + envc + 1 + s->auxc];
	char *end = text + bytes;
	for (size_t i = 0; i < argc + envc; i++) {
		if (text >= end)
			_exit(NO_REQUEST);
		vector[k++] = text;
		text += strlen(text) + 1;
		if (i + 1 == argc) {
			vector[k++] = 0;
			for (size_t j = 0; j < s->envc; j++)
				vector[k++] = s->envp[j];
		}
	}
	vector[k++] = 0;
	char **aux = s->envp;
	while (*aux)
		aux++;
	memcpy(vector + k, aux + 1, s->auxc * sizeof *vector);
	environ = vector + argc + 1; /* glibc has set it before, for the server */
	__real___libc_start_main(s->main, (int)argc, vector, s->init, s->fini, s->rtld_fini, s->stack_end);
	_exit(127); /* not reached */
}

/* Ends what a request has left behind. Not zero: something is left. */
static uint32_t sweep(int first)
{
	if (first)
		kill(-1, SIGKILL);
	for (;;) {
		pid_t pid = waitpid(-1, 0, first ? 0 : WNOHANG);
		if (pid == 0)
			return 1; /* runs, and its number is not known here */
		if (pid < 0 && errno != EINTR)
			return 0;
	}
}

/*
 * What a request leaves in the private working directory must not reach the
 * next. -1: something stays. *left is how much may be removed still.
 */
static int empty_dir(int fd, int depth, int *left)
{
	char bytes[1024];
	for (int removed = 1; removed;) {
		removed = 0;
		if (lseek(fd, 0, SEEK_SET) != 0)
			return -1;
		for (long n; (n = syscall(SYS_getdents64, fd, bytes, sizeof bytes)) != 0;) {
			if (n < 0)
				return -1;
			for (long at = 0; at < n;) {
				/* struct linux_dirent64: two numbers of 8 bytes, the length, the type, the name */
				unsigned short length;
				memcpy(&length, bytes + at + 16, sizeof length);
				const char *name = bytes + at + 19;
				at += length;
				if (!strcmp(name, ".") || !strcmp(name, ".."))
					continue;
				if (--*left < 0)
					return -1;
				removed = 1;
				if (unlinkat(fd, name, 0) == 0)
					continue;
				struct stat st;
				if (depth == 0 || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(st.st_mode))
					return -1;
				if ((st.st_mode & 0700) != 0700)
					fchmodat(fd, name, 0700, 0);
				int below = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
				if (below < 0)
					return -1;
				int failed = empty_dir(below, depth - 1, left);
				close(below);
				if (failed || unlinkat(fd, name, AT_REMOVEDIR))
					return -1;
			}
		}
	}
	return 0;
}

/* Executes the program again, at new addresses; the key goes along in a pipe. */
__attribute__((noinline)) static void again(char **argv, char **envp, volatile uint64_t *key, char *variable)
{
	int fds[2];
	if (pipe(fds))
		return;
	if (write(fds[1], (const void *)key, sizeof *key) != sizeof *key)
		_exit(1);
	close(fds[1]);
	/* BATON_ENTRY=mNNN: mode, and the descriptor, in the room that is there. */
	variable[1] = (char)('0' + fds[0] / 100 % 10);
	variable[2] = (char)('0' + fds[0] / 10 % 10);
	variable[3] = (char)('0' + fds[0] % 10);
	execve(argv[0], argv, envp);
	_exit(1);
}

/*
 * fork(2) copies the page tables of what is private to a process, and leaves
 * those of mapped files to be found again, a page fault for every 64 KiB that a child
 * runs through. What has one private page is copied: so each mapping of program text and
 * constants gets one, and is mapped whole. Faults are what a short child costs most.
 */
static int map_whole(struct dl_phdr_info *info, size_t size, void *count)
{
	(void)size;
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &info->dlpi_phdr[i];
		if (h->p_type != PT_LOAD || (h->p_flags & PF_W) || h->p_filesz == 0 || h->p_filesz > 8u << 20)
			continue;
		uintptr_t start = (info->dlpi_addr + h->p_vaddr) & ~(page - 1);
		uintptr_t end = (info->dlpi_addr + h->p_vaddr + h->p_filesz + page - 1) & ~(page - 1);
		int rights = (h->p_flags & PF_R ? PROT_READ : 0) | (h->p_flags & PF_X ? PROT_EXEC : 0);
		if (!(rights & PROT_READ) || mprotect((void *)start, end - start, rights | PROT_WRITE) != 0)
			continue;
		*(volatile char *)start = *(volatile char *)start;
		mprotect((void *)start, end - start, rights);
		madvise((void *)start, end - start, MADV_POPULATE_READ);
		++*(int *)count;
	}
	return 0;
}

extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

/* The library's registration for restartable sequences has the kernel write to
 * two pages at every fork. A program that wants one registers its own. */
static void leave_rseq(void)
{
	if (!&__rseq_offset || !&__rseq_size || __rseq_size == 0)
		return;
	char *self = __builtin_thread_pointer();
#if defined(__x86_64__)
	syscall(SYS_rseq, self + __rseq_offset, 32, 1, RSEQ_SIGNATURE_X86);
#else
	syscall(SYS_rseq, self + __rseq_offset, 32, 1, RSEQ_SIGNATURE_ARM);
#endif
}

/* Mode of BATON_ENTRY: what functions may do. */
#define MODE_ALONE '1'     /* start no processes */
#define MODE_PROCESSES '2' /* start processes, which end with the request */

int __wrap___libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
	void (*rtld_fini)(void), void *stack_end)
{
	char *variable = 0, **envp = argv + argc + 1;
	struct start s = {main, init, fini, rtld_fini, stack_end, envp, 0, 0, getpid() == 1};
	for (char **e = envp; *e; e++) {
		if (strncmp(*e, "BATON_ENTRY=", 12) == 0)
			variable = *e + 12;
		s.envc++;
	}
	if (!variable || strlen(variable) != 4)
		return __real___libc_start_main(main, argc, argv, init, fini, rtld_fini, stack_end);
	unsigned long *aux = (unsigned long *)(envp + s.envc + 1);
	while (aux[s.auxc])
		s.auxc += 2;
	s.auxc += 2;
	/* What is not for the program comes last, and is not counted. */
	char *own[2] = {variable - 12, 0};
	char **seen = envp;
	for (char **e = envp; *e; e++) {
		if (strncmp(*e, "LD_BIND_NOW=", 12) == 0 && !own[1])
			own[1] = *e;
		else if (*e != own[0])
			*seen++ = *e;
	}
	s.envc = (size_t)(seen - envp);
	for (int i = 0; i < 2 && own[i]; i++)
		*seen++ = own[i];

	volatile uint64_t key = 0;
	int resumed = (variable[1] - '0') * 100 + (variable[2] - '0') * 10 + (variable[3] - '0');
	uint32_t open = variable[0] == MODE_PROCESSES;
	if (resumed > 0) {
		if (read_all(resumed, (void *)&key, sizeof key))
			_exit(1);
		close(resumed);
	} else if (!open) {
		if (syscall(SYS_getrandom, &key, sizeof key, 0) != sizeof key)
			_exit(1);
		if (refuse_processes(&key))
			open = 1; /* no filters here: processes are ended after each request */
	}
	if (open && variable[0] == MODE_ALONE)
		variable[0] = MODE_PROCESSES;
	int *tid = tid_address(), mapped = 0;
	dl_iterate_phdr(map_whole, &mapped);
	leave_rseq();
	int dir = openat(AT_FDCWD, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	answer(HELLO, 0, open, 0);
	for (int i = 0; i < REQUESTS_MAX; i++) {
		long pid = fork_with(&key, tid);
		if (pid == 0) {
			key = 0;
			serve(&s);
		}
		int status = 0;
		struct rusage usage;
		if (pid < 0) {
			answer(NO_FORK, (int)-pid, 0, 0);
			_exit(1);
		}
		while (wait4((pid_t)pid, &status, 0, &usage) < 0 && errno == EINTR)
			;
		if (WIFEXITED(status) && WEXITSTATUS(status) == NO_REQUEST) {
			char byte;
			if (recv(CHANNEL, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
				_exit(0);
		}
		uint32_t left = open ? sweep(s.first) : 0;
		int may = LEFT_MAX;
		if (!left && empty_dir(dir, LEFT_DEPTH, &may))
			left = 1;
		answer(ENDED, status, left, &usage);
	}
	again(argv, envp, &key, variable);
	_exit(1);
}
