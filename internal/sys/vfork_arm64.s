#include "textflag.h"

// func rawVfork(trap, flags uintptr) (pid, errno uintptr)
//
// The child runs on the same stack; the return address is in R30.
TEXT ·rawVfork(SB),NOSPLIT,$0-32
	MOVD	trap+0(FP), R8
	MOVD	flags+8(FP), R0
	MOVD	$0, R1
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$0, R5
	SVC
	CMN	$4095, R0
	BCC	made
	MOVD	$-1, R4
	MOVD	R4, pid+16(FP)
	NEG	R0, R0
	MOVD	R0, errno+24(FP)
	RET
made:
	MOVD	R0, pid+16(FP)
	MOVD	ZR, errno+24(FP)
	RET
