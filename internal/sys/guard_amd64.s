#include "textflag.h"

// func guardHandler() uintptr
TEXT ·guardHandler(SB),NOSPLIT,$0-8
	LEAQ	guardTrap<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// guardTrap is the handler of SIGSEGV: signal in DI, siginfo in SI, ucontext in DX,
// on the signal stack, all signals blocked. It returns to the kernel's return from a signal, which
// puts back all registers; it must leave alone the arguments, for Go's handler.
//
// No Go code runs here: the thread may be in compiled wasm code.
TEXT guardTrap<>(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	CMPL	8(SI), $2			// si_code: SEGV_ACCERR
	JNE	next
	MOVQ	16(SI), R8			// si_addr
	LEAQ	·guards(SB), R9
	MOVQ	·guardsUsed(SB), R10
look:
	SUBQ	$1, R10
	JCS	next
	MOVQ	8(R9), R12			// size
	MOVQ	0(R9), BX			// start
	MOVQ	R8, AX
	SUBQ	BX, AX
	CMPQ	AX, R12
	JCC	further
	CMPQ	8(R9), R12			// or the slot changed hands meanwhile, and is not this thread's
	JEQ	found
further:
	ADDQ	$24, R9
	JMP	look
found:
	CMPQ	16(R9), $0			// open: it was something else
	JNE	next
	MOVQ	DI, R13
	MOVQ	SI, R14
	MOVQ	DX, R15
	MOVQ	$10, AX				// mprotect
	MOVQ	BX, DI
	MOVQ	R12, SI
	MOVQ	$3, DX				// PROT_READ|PROT_WRITE
	SYSCALL
	TESTQ	AX, AX
	JNE	failed
	MOVQ	$1, 16(R9)			// open
	RET
failed:
	MOVQ	R13, DI
	MOVQ	R14, SI
	MOVQ	R15, DX
next:
	MOVQ	·guardsNext(SB), AX
	JMP	AX
